/* base/option.h: option tables as data: one line per option, read by everything that sets, prints or documents it.
 * Must not know who owns a table: plugins, built-in stages and the flags all use the same. */
#ifndef HEDDLE_BASE_OPTION_H
#define HEDDLE_BASE_OPTION_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

G_BEGIN_DECLS

/* The C type of a struct member decides the type of its option; a member of any other type does not compile.
 *
 *   member type        option type   in Lua
 *   bool               BOOL          true, false
 *   gint64             INT           128         (or the option's one word, such as "auto")
 *   double             FLOAT         1e-3        (or the option's one word)
 *   char *             STRING        "data/x"    owned by the instance
 *   int                ENUM          "cosine"    one of the nicks of .values
 *   HeddleIntList      INT_LIST      { 3, 5 }    a single number is a list of one
 *   HeddleFloatList    FLOAT_LIST    { .5, .5 }  a single number is a list of one
 *   GVariant *         VALUE         any value or table, as a{sv} / av; the owner of the option checks it
 */
typedef enum
{
  HEDDLE_OPTION_BOOL = 1,
  HEDDLE_OPTION_INT,
  HEDDLE_OPTION_FLOAT,
  HEDDLE_OPTION_STRING,
  HEDDLE_OPTION_ENUM,
  HEDDLE_OPTION_INT_LIST,
  HEDDLE_OPTION_FLOAT_LIST,
  HEDDLE_OPTION_VALUE
} HeddleOptionType;

typedef struct { gint64 *items; gsize n; } HeddleIntList;
typedef struct { double *items; gsize n; } HeddleFloatList;

/* One value of an enumeration; a list of these ends with { 0, NULL, NULL }.  Values start at 1. */
typedef struct
{
  int         value;
  const char *nick;
  const char *help;
} HeddleEnumValue;

typedef enum
{
  HEDDLE_OPTION_REQUIRED   = 1 << 0,   /* has no default: leaving it out is an error */
  HEDDLE_OPTION_PATH       = 1 << 1,   /* STRING: a relative path is relative to the script's folder */
  HEDDLE_OPTION_RUNTIME    = 1 << 2,   /* optimizer FLOAT: may change between steps (schedules), so it lives on the device */
  HEDDLE_OPTION_DEPRECATED = 1 << 3    /* still works; using it prints .help as the reason */
} HeddleOptionFlags;

typedef struct
{
  const char            *name;          /* the struct member's name IS the Lua key */
  HeddleOptionType       type;
  guint32                flags;         /* HeddleOptionFlags */
  gsize                  offset;        /* of the member in the instance */
  gint64                 int_default, int_min, int_max;         /* BOOL (default only), INT, ENUM (default only), items of INT_LIST (min, max) */
  double                 float_default, float_min, float_max;   /* FLOAT, items of FLOAT_LIST (min, max); ranges are closed */
  const char            *text_default;  /* STRING: NULL means unset.  Lists: "0.9, 0.999" */
  const HeddleEnumValue *values;        /* ENUM */
  const char            *word;          /* INT, FLOAT: a word accepted in place of a number ("auto"), or NULL */
  double                 word_value;    /* ... and the value it stands for; may lie outside the range */
  const char            *unit;          /* "samples", "bytes", "s", ...; NULL without one */
  const char            *help;          /* one sentence without a full stop */
} HeddleOption;

#define HEDDLE_OPTION_TYPE_CHECK_(S, f, T, code) \
  .name = #f, .offset = offsetof (S, f), .type = _Generic (((S *) 0)->f, T: code)

/* Table lines.  Trailing designated initialisers may follow: .flags, .unit, .word, .word_value. */
#define HEDDLE_BOOL(S, f, def, text, ...) \
  { HEDDLE_OPTION_TYPE_CHECK_ (S, f, bool, HEDDLE_OPTION_BOOL), .int_default = (def), .help = (text), ## __VA_ARGS__ }
#define HEDDLE_INT(S, f, def, min, max, text, ...) \
  { HEDDLE_OPTION_TYPE_CHECK_ (S, f, gint64, HEDDLE_OPTION_INT), .int_default = (def), .int_min = (min), .int_max = (max), .help = (text), ## __VA_ARGS__ }
#define HEDDLE_FLOAT(S, f, def, min, max, text, ...) \
  { HEDDLE_OPTION_TYPE_CHECK_ (S, f, double, HEDDLE_OPTION_FLOAT), .float_default = (def), .float_min = (min), .float_max = (max), .help = (text), ## __VA_ARGS__ }
#define HEDDLE_STRING(S, f, def, text, ...) \
  { HEDDLE_OPTION_TYPE_CHECK_ (S, f, char *, HEDDLE_OPTION_STRING), .text_default = (def), .help = (text), ## __VA_ARGS__ }
#define HEDDLE_ENUM(S, f, def, table, text, ...) \
  { HEDDLE_OPTION_TYPE_CHECK_ (S, f, int, HEDDLE_OPTION_ENUM), .int_default = (def), .values = (table), .help = (text), ## __VA_ARGS__ }
#define HEDDLE_INT_LIST(S, f, def, min, max, text, ...) \
  { HEDDLE_OPTION_TYPE_CHECK_ (S, f, HeddleIntList, HEDDLE_OPTION_INT_LIST), .text_default = (def), .int_min = (min), .int_max = (max), .help = (text), ## __VA_ARGS__ }
#define HEDDLE_FLOAT_LIST(S, f, def, min, max, text, ...) \
  { HEDDLE_OPTION_TYPE_CHECK_ (S, f, HeddleFloatList, HEDDLE_OPTION_FLOAT_LIST), .text_default = (def), .float_min = (min), .float_max = (max), .help = (text), ## __VA_ARGS__ }
#define HEDDLE_VALUE(S, f, text, ...) \
  { HEDDLE_OPTION_TYPE_CHECK_ (S, f, GVariant *, HEDDLE_OPTION_VALUE), .help = (text), ## __VA_ARGS__ }
#define HEDDLE_OPTIONS_END { .name = NULL }

G_END_DECLS

#endif
