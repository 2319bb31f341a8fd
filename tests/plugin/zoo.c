/* tests/plugin/zoo.c: one bad plugin for each value of FAULT; what is wrong with it is its name. */
#include <heddle/plugin.h>

/* for the preprocessor, so no enumeration */
#define GOOD 0
#define WRONG_MAGIC 1
#define WRONG_ABI 2
#define SHORT_DESCRIPTOR 3
#define MISSING_SLOT 4
#define NAME_MISMATCH 5
#define BAD_OPTIONS 6
#define NO_INSTANCE 7
#define UNKNOWN_KIND 8
#define NO_SYMBOL 9
#define MISSING_LIBRARY 10
#define NO_LR 11
#define WRONG_SIZE 12
#define UNDEFINED_SYMBOL 13
#define OLDER 14

typedef struct { gint64 classes; double lr; } Zoo;

#if FAULT == MISSING_LIBRARY
extern int absent (void);
#elif FAULT == UNDEFINED_SYMBOL
extern int heddle_of_the_core (void);
#endif

static gboolean
build (gpointer self, HeddleBuilder *b, HeddleValue *const *inputs, guint n_inputs, HeddleValue **outputs, GError **error)
{
  (void) n_inputs, (void) error;
#if FAULT == MISSING_LIBRARY
  absent ();
#elif FAULT == UNDEFINED_SYMBOL
  heddle_of_the_core ();
#endif
  outputs[0] = heddle_linear (b, "output", inputs[0], .features = ((Zoo *) self)->classes);
  return TRUE;
}

#if FAULT == OLDER
/* What an author compiled when option lines and the interface were shorter. */
typedef struct { const char *name; HeddleOptionType type; guint32 flags; gsize offset; gint64 d, lo, hi; double fd, flo, fhi; const char *text; const HeddleEnumValue *values;
                 const char *word; double word_value; const char *unit, *help; } OldOption;
static const OldOption options[] = { { "classes", HEDDLE_OPTION_INT, HEDDLE_OPTION_REQUIRED, G_STRUCT_OFFSET (Zoo, classes), 0, 1, 1000, 0, 0, 0, 0, 0, 0, 0, 0, "Outputs" }, { 0 } };
typedef struct { guint32 size; const char *const *outputs; gboolean (*build) (gpointer, HeddleBuilder *, HeddleValue *const *, guint, HeddleValue **, GError **); } OldIface;
static const OldIface iface = { sizeof iface, NULL, build };
#else
static const HeddleOption options[] = {
#if FAULT == BAD_OPTIONS
  HEDDLE_INT (Zoo, classes, 0, 1, 1000, "Outputs"),     /* the default is out of range */
#else
  HEDDLE_INT (Zoo, classes, 10, 1, 1000, "Outputs"),
#endif
  HEDDLE_OPTIONS_END
};
#if FAULT == NO_LR
static gboolean update (gpointer self, HeddleBuilder *b, HeddleUpdate *u, GError **error) { (void) self, (void) b, (void) u, (void) error; return TRUE; }
static const HeddleOptimizerIface iface = { sizeof iface, .update = update };
#else
static const HeddleModelIface iface = { sizeof iface,
#if FAULT != MISSING_SLOT
  .build = build
#endif
};
#endif
#endif

#if FAULT != NO_SYMBOL
HEDDLE_EXPORT extern const HeddlePlugin heddle_plugin;
HEDDLE_EXPORT const HeddlePlugin heddle_plugin = {
#if FAULT == WRONG_MAGIC
  .magic = { 'H', 'E', 'D', 'D', 'L', 'E', '?', '?' },
#else
  .magic = { 'H', 'E', 'D', 'D', 'L', 'E', 'P', 'L' },
#endif
  .abi = FAULT == WRONG_ABI ? HEDDLE_ABI + 1 : HEDDLE_ABI,
  .size = FAULT == SHORT_DESCRIPTOR ? 24 : sizeof (HeddlePlugin),
  .kind = FAULT == UNKNOWN_KIND ? "modle" : FAULT == NO_LR ? "optimizer" : "model",
  .name = FAULT == NAME_MISMATCH ? "other" : NAME, .version = "1.0", .summary = "From the zoo", .license = "MIT", .options = (const HeddleOption *) options,
  .option_size = sizeof options[0], .iface_size = FAULT == WRONG_SIZE ? sizeof iface + 8 : sizeof iface, .instance_size = FAULT == NO_INSTANCE ? 0 : sizeof (Zoo), .iface = &iface,
};
#endif
