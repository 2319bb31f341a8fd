/* base/options.h: the one reader of option tables (core side): defaults, setting, printing, describing.
 * Must not know who owns a table. */
#ifndef HEDDLE_BASE_OPTIONS_H
#define HEDDLE_BASE_OPTIONS_H

#include "base/error.h"
#include "base/option.h"

G_BEGIN_DECLS

/* The exit status an error stands for (codes: error.h); 0 for NULL. */
int      heddle_error_exit_code  (const GError *error);

/* A table as its owner compiled it: STRIDE is the owner's sizeof (HeddleOption), so that an older plugin's table
 * with shorter lines is walked rightly.  OPTIONS may be NULL (no options). */
typedef struct
{
  const HeddleOption *options;
  gsize               stride;
} HeddleOptionTable;

#define HEDDLE_OPTION_TABLE(array) ((HeddleOptionTable) { (array), sizeof (HeddleOption) })

guint    heddle_options_count    (HeddleOptionTable table);
/* A full-width copy of line I (fields the owner did not know are zero). */
HeddleOption heddle_options_nth  (HeddleOptionTable table, guint i);
gboolean heddle_options_find     (HeddleOptionTable table, const char *name, HeddleOption *found);

/* Is the table itself sound?  No duplicates, defaults inside ranges, min <= max, help present, enum default listed. */
gboolean heddle_options_validate (HeddleOptionTable table, gsize instance_size, GError **error);

/* Fills a zeroed INSTANCE with the defaults (strings and lists copied); REQUIRED ones stay zero. */
void     heddle_options_init     (HeddleOptionTable table, gpointer instance);
/* Frees what the instance owns and zeroes those members. */
void     heddle_options_clear    (HeddleOptionTable table, gpointer instance);

/* Sets one option.  VALUE is boolean "b", int64 "x", double "d", string "s", array "av", dictionary "a{sv}"; sunk if
 * floating.  A double with an integral value is accepted for INT, an integer for FLOAT.  NaN is refused.  BASE_DIR (or NULL)
 * is what PATH options are relative to.  Texts (the caller puts "file:line: stage: " in front):
 *   no option "bach_size"; did you mean "batch_size"?
 *   option "batch_size": expected an integer 1..65536, got the string "many"
 *   option "batch_size": 0 is out of range 1..65536 (samples) */
gboolean heddle_options_set      (HeddleOptionTable table, gpointer instance, const char *name, GVariant *value,
                                  const char *base_dir, GError **error);
/* The same from text, as --set id.option=TEXT gives it: parsed by the option's type ("true", "3", "1e-3", "a,b"). */
gboolean heddle_options_set_text (HeddleOptionTable table, gpointer instance, const char *name, const char *text,
                                  const char *base_dir, GError **error);
/* Text to the GVariant that heddle_options_set would take. */
GVariant *heddle_options_parse   (HeddleOptionTable table, const char *name, const char *text, GError **error);
/* Checks without an instance (scripts are checked while they load). */
gboolean heddle_options_check    (HeddleOptionTable table, const char *name, GVariant *value, GError **error);
/* The first REQUIRED option whose name is not in SET (a GHashTable used as a set), or NULL. */
const char *heddle_options_missing (HeddleOptionTable table, GHashTable *set);

/* (transfer full) The value as a GVariant, "auto" words as strings; NULL for an unset STRING or VALUE. */
GVariant *heddle_options_get     (HeddleOptionTable table, gconstpointer instance, const char *name);
/* (transfer full) As text: 64, 0.001, "cosine", {0.9, 0.999}, unset. */
char     *heddle_options_print   (HeddleOptionTable table, gconstpointer instance, const char *name);
/* (transfer full) "integer 1..65536, samples" - "one of constant, step" - "text, path". */
char     *heddle_option_describe (const HeddleOption *option);
/* (transfer full) The default as text; "required" when there is none. */
char     *heddle_option_default  (const HeddleOption *option);

/* ---- suggestions ----
 * The candidate nearest to WORD (Damerau-Levenshtein, at most max (1, len/3) edits), or NULL.  NULL-terminated list. */
const char *heddle_suggest       (const char *word, const char *const *candidates);
/* (transfer full) "; did you mean \"x\"?" or "" */
char       *heddle_suggestion    (const char *word, const char *const *candidates);

G_END_DECLS

#endif
