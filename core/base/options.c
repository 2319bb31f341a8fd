/* base/options.c: setting and checking options by their tables.  Must not know who owns a table. */
#include "base/options.h"

#include <errno.h>
#include <math.h>
#include <string.h>

guint
heddle_options_count (HeddleOptionTable table)
{
  guint n = 0;
  while (table.options && ((const HeddleOption *) ((const char *) table.options + n * table.stride))->name)
    n++;
  return n;
}

HeddleOption
heddle_options_nth (HeddleOptionTable table, guint i)
{
  HeddleOption option = { 0 };
  memcpy (&option, (const char *) table.options + i * table.stride, MIN (table.stride, sizeof option));
  return option;
}

gboolean
heddle_options_find (HeddleOptionTable table, const char *name, HeddleOption *found)
{
  gboolean ok = FALSE;
  for (guint i = 0, n = heddle_options_count (table); !ok && i < n; i++)
    {
      HeddleOption option = heddle_options_nth (table, i);
      ok = g_str_equal (option.name, name);
      if (ok && found)
        *found = option;
    }
  return ok;
}

/* ---- values by type ---- */

static gsize
member_size (HeddleOptionType type)
{
  gsize size = 0;
  switch (type)
    {
    case HEDDLE_OPTION_BOOL: size = sizeof (bool); break;
    case HEDDLE_OPTION_INT: size = sizeof (gint64); break;
    case HEDDLE_OPTION_FLOAT: size = sizeof (double); break;
    case HEDDLE_OPTION_STRING: size = sizeof (char *); break;
    case HEDDLE_OPTION_ENUM: size = sizeof (int); break;
    case HEDDLE_OPTION_INT_LIST: size = sizeof (HeddleIntList); break;
    case HEDDLE_OPTION_FLOAT_LIST: size = sizeof (HeddleFloatList); break;
    case HEDDLE_OPTION_VALUE: size = sizeof (GVariant *); break;
    }
  return size;
}

typedef union
{
  bool boolean;
  gint64 integer;
  double number;
  char *text;
  int choice;
  HeddleIntList ints;
  HeddleFloatList floats;
  GVariant *value;
} Member;

static void
member_clear (const HeddleOption *o, gpointer member)
{
  switch (o->type)
    {
    case HEDDLE_OPTION_STRING: g_free (*(char **) member); break;
    case HEDDLE_OPTION_INT_LIST: g_free (((HeddleIntList *) member)->items); break;
    case HEDDLE_OPTION_FLOAT_LIST: g_free (((HeddleFloatList *) member)->items); break;
    case HEDDLE_OPTION_VALUE: g_clear_pointer ((GVariant **) member, g_variant_unref); break;
    case HEDDLE_OPTION_BOOL: case HEDDLE_OPTION_INT: case HEDDLE_OPTION_FLOAT: case HEDDLE_OPTION_ENUM: break;
    }
  if (o->type != HEDDLE_OPTION_BOOL && o->type != HEDDLE_OPTION_INT && o->type != HEDDLE_OPTION_FLOAT && o->type != HEDDLE_OPTION_ENUM)
    memset (member, 0, member_size (o->type));
}

static char *
value_text (GVariant *value)
{
  char *text;
  if (g_variant_is_of_type (value, G_VARIANT_TYPE_STRING))
    text = g_strdup_printf ("the string \"%s\"", g_variant_get_string (value, NULL));
  else if (g_variant_is_of_type (value, G_VARIANT_TYPE_BOOLEAN))
    text = g_strdup (g_variant_get_boolean (value) ? "true" : "false");
  else if (g_variant_is_of_type (value, G_VARIANT_TYPE_INT64))
    text = g_strdup_printf ("%" G_GINT64_FORMAT, g_variant_get_int64 (value));
  else if (g_variant_is_of_type (value, G_VARIANT_TYPE_DOUBLE))
    text = g_strdup_printf ("%g", g_variant_get_double (value));
  else
    text = g_strdup ("a table");
  return text;
}

static gboolean
wrong_type (const HeddleOption *o, GVariant *value, GError **error)
{
  g_autofree char *expected = heddle_option_describe (o), *got = value_text (value);
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "option \"%s\": expected %s%s, got %s", o->name,
               strchr ("aeiou", expected[0]) ? "an " : "a ", expected, got);
  return FALSE;
}

static gboolean
out_of_range (const HeddleOption *o, const char *got, GError **error)
{
  g_autofree char *low = NULL, *high = NULL;
  gboolean integer = o->type == HEDDLE_OPTION_INT || o->type == HEDDLE_OPTION_INT_LIST;
  low = integer ? g_strdup_printf ("%" G_GINT64_FORMAT, o->int_min) : g_strdup_printf ("%g", o->float_min);
  high = integer ? g_strdup_printf ("%" G_GINT64_FORMAT, o->int_max) : g_strdup_printf ("%g", o->float_max);
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "option \"%s\": %s is out of range %s..%s%s%s%s", o->name, got, low, high,
               o->unit ? " (" : "", o->unit ? o->unit : "", o->unit ? ")" : "");
  return FALSE;
}

/* An integer, or a double with an integral value. */
static gboolean
as_integer (GVariant *v, gint64 *result)
{
  gboolean ok = g_variant_is_of_type (v, G_VARIANT_TYPE_INT64);
  if (ok)
    *result = g_variant_get_int64 (v);
  else if (g_variant_is_of_type (v, G_VARIANT_TYPE_DOUBLE))
    {
      double d = g_variant_get_double (v);
      ok = d >= -9007199254740992.0 && d <= 9007199254740992.0 && d == floor (d);
      if (ok)
        *result = (gint64) d;
    }
  return ok;
}

static gboolean
as_number (GVariant *v, double *result)
{
  gboolean ok = TRUE;
  if (g_variant_is_of_type (v, G_VARIANT_TYPE_DOUBLE))
    *result = g_variant_get_double (v);
  else if (g_variant_is_of_type (v, G_VARIANT_TYPE_INT64))
    *result = (double) g_variant_get_int64 (v);
  else
    ok = FALSE;
  return ok && !isnan (*result);
}

static gboolean
read_integer (const HeddleOption *o, GVariant *v, gint64 *result, GError **error)
{
  gboolean ok = as_integer (v, result);
  if (!ok)
    wrong_type (o, v, error);
  else if (*result < o->int_min || *result > o->int_max)
    {
      g_autofree char *got = g_strdup_printf ("%" G_GINT64_FORMAT, *result);
      ok = out_of_range (o, got, error);
    }
  return ok;
}

static gboolean
read_number (const HeddleOption *o, GVariant *v, double *result, GError **error)
{
  gboolean ok = as_number (v, result);
  if (!ok)
    wrong_type (o, v, error);
  else if (*result < o->float_min || *result > o->float_max)
    {
      g_autofree char *got = g_strdup_printf ("%g", *result);
      ok = out_of_range (o, got, error);
    }
  return ok;
}

static gboolean
is_word (const HeddleOption *o, GVariant *v)
{
  return o->word && g_variant_is_of_type (v, G_VARIANT_TYPE_STRING) && g_str_equal (g_variant_get_string (v, NULL), o->word);
}

static gboolean
read_choice (const HeddleOption *o, GVariant *v, int *result, GError **error)
{
  gboolean ok = FALSE;
  if (!g_variant_is_of_type (v, G_VARIANT_TYPE_STRING))
    wrong_type (o, v, error);
  else
    {
      const char *nick = g_variant_get_string (v, NULL);
      g_autoptr (GPtrArray) nicks = g_ptr_array_new ();
      for (const HeddleEnumValue *e = o->values; !ok && e->nick; e++)
        {
          g_ptr_array_add (nicks, (gpointer) e->nick);
          if ((ok = g_str_equal (e->nick, nick)))
            *result = e->value;
        }
      g_ptr_array_add (nicks, NULL);
      if (!ok)
        {
          g_autofree char *near = heddle_suggestion (nick, (const char *const *) nicks->pdata);
          g_autofree char *all = g_strjoinv (", ", (char **) nicks->pdata);
          g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "option \"%s\": \"%s\" is not one of %s%s", o->name, nick, all, near);
        }
    }
  return ok;
}

/* The items of a list; a single value is a list of one.  Each is floating-free and owned by the array. */
static GPtrArray *
list_items (GVariant *v)
{
  GPtrArray *items = g_ptr_array_new_with_free_func ((GDestroyNotify) g_variant_unref);
  if (g_variant_is_of_type (v, G_VARIANT_TYPE ("av")))
    for (gsize i = 0; i < g_variant_n_children (v); i++)
      {
        g_autoptr (GVariant) box = g_variant_get_child_value (v, i);
        g_ptr_array_add (items, g_variant_get_variant (box));
      }
  else
    g_ptr_array_add (items, g_variant_ref (v));
  return items;
}

static gboolean
read_ints (const HeddleOption *o, GVariant *v, HeddleIntList *list, GError **error)
{
  g_autoptr (GPtrArray) items = list_items (v);
  g_autofree gint64 *numbers = g_new0 (gint64, MAX (items->len, 1));
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < items->len; i++)
    ok = read_integer (o, items->pdata[i], &numbers[i], error);
  if (ok)
    *list = (HeddleIntList) { g_steal_pointer (&numbers), items->len };
  return ok;
}

static gboolean
read_floats (const HeddleOption *o, GVariant *v, HeddleFloatList *list, GError **error)
{
  g_autoptr (GPtrArray) items = list_items (v);
  g_autofree double *numbers = g_new0 (double, MAX (items->len, 1));
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < items->len; i++)
    ok = read_number (o, items->pdata[i], &numbers[i], error);
  if (ok)
    *list = (HeddleFloatList) { g_steal_pointer (&numbers), items->len };
  return ok;
}

static gboolean
read_text (const HeddleOption *o, GVariant *v, const char *base_dir, char **text, GError **error)
{
  gboolean ok = g_variant_is_of_type (v, G_VARIANT_TYPE_STRING);
  if (!ok)
    wrong_type (o, v, error);
  else
    {
      const char *given = g_variant_get_string (v, NULL);
      gboolean relative = (o->flags & HEDDLE_OPTION_PATH) && base_dir && *given && !g_path_is_absolute (given);
      *text = relative ? g_build_filename (base_dir, given, NULL) : g_strdup (given);
    }
  return ok;
}

/* Fills MEMBER (zeroed) from V. */
static gboolean
read_member (const HeddleOption *o, GVariant *v, const char *base_dir, Member *m, GError **error)
{
  gboolean ok = TRUE;
  switch (o->type)
    {
    case HEDDLE_OPTION_BOOL:
      ok = g_variant_is_of_type (v, G_VARIANT_TYPE_BOOLEAN) || wrong_type (o, v, error);
      if (ok)
        m->boolean = g_variant_get_boolean (v);
      break;
    case HEDDLE_OPTION_INT:
      if (is_word (o, v))
        m->integer = (gint64) o->word_value;
      else
        ok = read_integer (o, v, &m->integer, error);
      break;
    case HEDDLE_OPTION_FLOAT:
      if (is_word (o, v))
        m->number = o->word_value;
      else
        ok = read_number (o, v, &m->number, error);
      break;
    case HEDDLE_OPTION_STRING: ok = read_text (o, v, base_dir, &m->text, error); break;
    case HEDDLE_OPTION_ENUM: ok = read_choice (o, v, &m->choice, error); break;
    case HEDDLE_OPTION_INT_LIST: ok = read_ints (o, v, &m->ints, error); break;
    case HEDDLE_OPTION_FLOAT_LIST: ok = read_floats (o, v, &m->floats, error); break;
    case HEDDLE_OPTION_VALUE: m->value = g_variant_ref (v); break;
    }
  return ok;
}

/* ---- tables ---- */

static gboolean
find_or_suggest (HeddleOptionTable table, const char *name, HeddleOption *o, GError **error)
{
  gboolean ok = heddle_options_find (table, name, o);
  if (!ok)
    {
      guint n = heddle_options_count (table);
      g_autofree const char **names = g_new0 (const char *, n + 1);
      for (guint i = 0; i < n; i++)
        names[i] = heddle_options_nth (table, i).name;
      g_autofree char *near = heddle_suggestion (name, names);
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "no option \"%s\"%s", name, near);
    }
  return ok;
}

gboolean
heddle_options_set (HeddleOptionTable table, gpointer instance, const char *name, GVariant *value, const char *base_dir, GError **error)
{
  g_autoptr (GVariant) v = g_variant_ref_sink (value);
  HeddleOption o;
  Member m = { 0 };
  gboolean ok = find_or_suggest (table, name, &o, error) && read_member (&o, v, base_dir, &m, error);
  if (ok)
    {
      if (o.flags & HEDDLE_OPTION_DEPRECATED)
        g_message ("option \"%s\" is deprecated: %s", o.name, o.help);
      gpointer member = (char *) instance + o.offset;
      member_clear (&o, member);
      memcpy (member, &m, member_size (o.type));
    }
  return ok;
}

gboolean
heddle_options_check (HeddleOptionTable table, const char *name, GVariant *value, GError **error)
{
  g_autoptr (GVariant) v = g_variant_ref_sink (value);
  HeddleOption o;
  Member m = { 0 };
  gboolean ok = find_or_suggest (table, name, &o, error) && read_member (&o, v, NULL, &m, error);
  if (ok)
    member_clear (&o, &m);
  return ok;
}

static GVariant *
scalar_from_text (const char *text)
{
  char *end = NULL;
  errno = 0;
  gint64 integer = g_ascii_strtoll (text, &end, 10);
  GVariant *v = NULL;
  if (*text && !*end && errno == 0)
    v = g_variant_new_int64 (integer);
  else
    {
      double number = g_ascii_strtod (text, &end);
      if (*text && !*end)
        v = g_variant_new_double (number);
      else if (g_str_equal (text, "true") || g_str_equal (text, "false"))
        v = g_variant_new_boolean (*text == 't');
      else
        v = g_variant_new_string (text);
    }
  return v;
}

/* "3, 5", "{3, 5}", "": an empty item stays an empty string, which no list takes. */
static GVariant *
list_from_text (const char *text)
{
  g_autofree char *inside = g_strstrip (g_strdup (text));
  gsize n = strlen (inside);
  gboolean braces = n >= 2 && inside[0] == '{' && inside[n - 1] == '}';
  if (braces)
    inside[n - 1] = 0;
  g_auto (GStrv) words = g_strsplit (g_strstrip (inside + braces), ",", -1);
  GVariantBuilder items;
  g_variant_builder_init (&items, G_VARIANT_TYPE ("av"));
  for (guint i = 0; words[i]; i++)
    g_variant_builder_add (&items, "v", scalar_from_text (g_strstrip (words[i])));
  return g_variant_builder_end (&items);
}

GVariant *
heddle_options_parse (HeddleOptionTable table, const char *name, const char *text, GError **error)
{
  HeddleOption o;
  GVariant *v = NULL;
  if (find_or_suggest (table, name, &o, error))
    switch (o.type)
      {
      case HEDDLE_OPTION_STRING: case HEDDLE_OPTION_ENUM: v = g_variant_new_string (text); break;
      case HEDDLE_OPTION_INT_LIST: case HEDDLE_OPTION_FLOAT_LIST: v = list_from_text (text); break;
      case HEDDLE_OPTION_BOOL: case HEDDLE_OPTION_INT: case HEDDLE_OPTION_FLOAT: v = scalar_from_text (text); break;
      case HEDDLE_OPTION_VALUE:
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "option \"%s\": a table cannot be given as text\nhint: set it in the script", name);
        break;
      }
  return v ? g_variant_ref_sink (v) : NULL;
}

gboolean
heddle_options_set_text (HeddleOptionTable table, gpointer instance, const char *name, const char *text, const char *base_dir, GError **error)
{
  g_autoptr (GVariant) v = heddle_options_parse (table, name, text, error);
  return v && heddle_options_set (table, instance, name, v, base_dir, error);
}

static void
init_default (const HeddleOption *o, gpointer member)
{
  switch (o->type)
    {
    case HEDDLE_OPTION_BOOL: *(bool *) member = o->int_default != 0; break;
    case HEDDLE_OPTION_INT: *(gint64 *) member = o->int_default; break;
    case HEDDLE_OPTION_FLOAT: *(double *) member = o->float_default; break;
    case HEDDLE_OPTION_STRING: *(char **) member = g_strdup (o->text_default); break;
    case HEDDLE_OPTION_ENUM: *(int *) member = (int) o->int_default; break;
    case HEDDLE_OPTION_INT_LIST: case HEDDLE_OPTION_FLOAT_LIST:
      if (o->text_default)
        {
          g_autoptr (GVariant) v = g_variant_ref_sink (list_from_text (o->text_default));
          Member m = { 0 };
          if (read_member (o, v, NULL, &m, NULL))
            memcpy (member, &m, member_size (o->type));
        }
      break;
    case HEDDLE_OPTION_VALUE: break;
    }
}

void
heddle_options_init (HeddleOptionTable table, gpointer instance)
{
  for (guint i = 0, n = heddle_options_count (table); i < n; i++)
    {
      HeddleOption o = heddle_options_nth (table, i);
      if (!(o.flags & HEDDLE_OPTION_REQUIRED))
        init_default (&o, (char *) instance + o.offset);
    }
}

void
heddle_options_clear (HeddleOptionTable table, gpointer instance)
{
  for (guint i = 0, n = heddle_options_count (table); i < n; i++)
    {
      HeddleOption o = heddle_options_nth (table, i);
      member_clear (&o, (char *) instance + o.offset);
    }
}

const char *
heddle_options_missing (HeddleOptionTable table, GHashTable *set)
{
  const char *missing = NULL;
  for (guint i = 0, n = heddle_options_count (table); !missing && i < n; i++)
    {
      HeddleOption o = heddle_options_nth (table, i);
      if ((o.flags & HEDDLE_OPTION_REQUIRED) && !(set && g_hash_table_contains (set, o.name)))
        missing = ((const HeddleOption *) ((const char *) table.options + i * table.stride))->name;
    }
  return missing;
}

/* ---- soundness of a table ---- */

static const char *
option_fault (const HeddleOption *o, gsize instance_size)
{
  const char *fault = NULL;
  gboolean required = o->flags & HEDDLE_OPTION_REQUIRED, word = o->word != NULL;
  if (member_size (o->type) == 0)
    fault = "unknown type";
  else if (o->offset + member_size (o->type) > instance_size)
    fault = "member lies outside the instance";
  else if (!o->help || !*o->help)
    fault = "no help text";
  else if (o->type == HEDDLE_OPTION_INT && o->int_min > o->int_max)
    fault = "minimum above maximum";
  else if (o->type == HEDDLE_OPTION_INT && !required && (o->int_default < o->int_min || o->int_default > o->int_max)
           && !(word && (double) o->int_default == o->word_value))
    fault = "default out of range";
  else if (o->type == HEDDLE_OPTION_FLOAT && o->float_min > o->float_max)
    fault = "minimum above maximum";
  else if (o->type == HEDDLE_OPTION_FLOAT && !required && !(o->float_default >= o->float_min && o->float_default <= o->float_max)
           && !(word && o->float_default == o->word_value))
    fault = "default out of range";
  else if (o->type == HEDDLE_OPTION_ENUM && !o->values)
    fault = "no list of values";
  else if (o->type == HEDDLE_OPTION_ENUM && !required)
    {
      fault = "default is not one of the values";
      for (const HeddleEnumValue *e = o->values; fault && e->nick; e++)
        if (e->value == o->int_default)
          fault = NULL;
    }
  else if ((o->type == HEDDLE_OPTION_INT_LIST || o->type == HEDDLE_OPTION_FLOAT_LIST) && o->text_default)
    {
      g_autoptr (GVariant) v = g_variant_ref_sink (list_from_text (o->text_default));
      Member m = { 0 };
      if (!read_member (o, v, NULL, &m, NULL))
        fault = "default list is not valid";
      else
        member_clear (o, &m);
    }
  return fault;
}

gboolean
heddle_options_validate (HeddleOptionTable table, gsize instance_size, GError **error)
{
  gboolean ok = TRUE;
  for (guint i = 0, n = heddle_options_count (table); ok && i < n; i++)
    {
      HeddleOption o = heddle_options_nth (table, i), earlier;
      const char *fault = option_fault (&o, instance_size);
      for (guint j = 0; !fault && j < i; j++)
        {
          earlier = heddle_options_nth (table, j);
          if (g_str_equal (earlier.name, o.name))
            fault = "listed twice";
        }
      if (fault)
        {
          g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_PLUGIN, "option table: \"%s\": %s", o.name, fault);
          ok = FALSE;
        }
    }
  return ok;
}
