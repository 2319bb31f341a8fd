/* base/options-print.c: options as values and as text, for people and pages.  Must not set anything. */
#include "base/options.h"

#include <string.h>

static const char *
choice_nick (const HeddleOption *o, int value)
{
  const char *nick = "?";
  for (const HeddleEnumValue *e = o->values; e && e->nick; e++)
    if (e->value == value)
      nick = e->nick;
  return nick;
}

static char *
number_text (double x)
{
  char text[G_ASCII_DTOSTR_BUF_SIZE];
  for (int digits = 6; digits <= 17; digits++)
    {
      char format[16];
      g_snprintf (format, sizeof format, "%%.%dg", digits);
      g_ascii_formatd (text, sizeof text, format, x);
      if (g_ascii_strtod (text, NULL) == x)
        break;
    }
  return g_strdup (text);
}

GVariant *
heddle_options_get (HeddleOptionTable table, gconstpointer instance, const char *name)
{
  HeddleOption o;
  GVariant *v = NULL;
  if (heddle_options_find (table, name, &o))
    {
      const char *m = (const char *) instance + o.offset;
      GVariantBuilder items;
      switch (o.type)
        {
        case HEDDLE_OPTION_BOOL: v = g_variant_new_boolean (*(const bool *) m); break;
        case HEDDLE_OPTION_INT:
          v = o.word && (double) *(const gint64 *) m == o.word_value ? g_variant_new_string (o.word) : g_variant_new_int64 (*(const gint64 *) m);
          break;
        case HEDDLE_OPTION_FLOAT:
          v = o.word && *(const double *) m == o.word_value ? g_variant_new_string (o.word) : g_variant_new_double (*(const double *) m);
          break;
        case HEDDLE_OPTION_STRING: v = *(char *const *) m ? g_variant_new_string (*(char *const *) m) : NULL; break;
        case HEDDLE_OPTION_ENUM: v = g_variant_new_string (choice_nick (&o, *(const int *) m)); break;
        case HEDDLE_OPTION_INT_LIST:
          g_variant_builder_init (&items, G_VARIANT_TYPE ("av"));
          for (gsize i = 0; i < ((const HeddleIntList *) m)->n; i++)
            g_variant_builder_add (&items, "v", g_variant_new_int64 (((const HeddleIntList *) m)->items[i]));
          v = g_variant_builder_end (&items);
          break;
        case HEDDLE_OPTION_FLOAT_LIST:
          g_variant_builder_init (&items, G_VARIANT_TYPE ("av"));
          for (gsize i = 0; i < ((const HeddleFloatList *) m)->n; i++)
            g_variant_builder_add (&items, "v", g_variant_new_double (((const HeddleFloatList *) m)->items[i]));
          v = g_variant_builder_end (&items);
          break;
        case HEDDLE_OPTION_VALUE: v = *(GVariant *const *) m ? g_variant_ref (*(GVariant *const *) m) : NULL; break;
        }
    }
  return v && g_variant_is_floating (v) ? g_variant_ref_sink (v) : v;
}

static void
print_value (GString *text, GVariant *v)
{
  if (g_variant_is_of_type (v, G_VARIANT_TYPE_BOOLEAN))
    g_string_append (text, g_variant_get_boolean (v) ? "true" : "false");
  else if (g_variant_is_of_type (v, G_VARIANT_TYPE_INT64))
    g_string_append_printf (text, "%" G_GINT64_FORMAT, g_variant_get_int64 (v));
  else if (g_variant_is_of_type (v, G_VARIANT_TYPE_DOUBLE))
    {
      g_autofree char *number = number_text (g_variant_get_double (v));
      g_string_append (text, number);
    }
  else if (g_variant_is_of_type (v, G_VARIANT_TYPE_STRING))
    g_string_append_printf (text, "\"%s\"", g_variant_get_string (v, NULL));
  else if (g_variant_is_of_type (v, G_VARIANT_TYPE ("av")))
    {
      g_string_append_c (text, '{');
      for (gsize i = 0; i < g_variant_n_children (v); i++)
        {
          g_autoptr (GVariant) box = g_variant_get_child_value (v, i);
          g_autoptr (GVariant) item = g_variant_get_variant (box);
          g_string_append (text, i ? ", " : "");
          print_value (text, item);
        }
      g_string_append_c (text, '}');
    }
  else
    g_string_append (text, "{...}");
}

char *
heddle_options_print (HeddleOptionTable table, gconstpointer instance, const char *name)
{
  g_autoptr (GVariant) v = heddle_options_get (table, instance, name);
  GString *text = g_string_new (NULL);
  if (v)
    print_value (text, v);
  else
    g_string_append (text, "unset");
  return g_string_free (text, FALSE);
}

static char *
range_text (const HeddleOption *o)
{
  gboolean integer = o->type == HEDDLE_OPTION_INT || o->type == HEDDLE_OPTION_INT_LIST;
  GString *text = g_string_new (NULL);
  if (integer && o->int_max == G_MAXINT64)
    g_string_append_printf (text, ">= %" G_GINT64_FORMAT, o->int_min);
  else if (integer)
    g_string_append_printf (text, "%" G_GINT64_FORMAT "..%" G_GINT64_FORMAT, o->int_min, o->int_max);
  else
    {
      g_autofree char *low = number_text (o->float_min), *high = number_text (o->float_max);
      g_string_append_printf (text, "%s..%s", low, high);
    }
  return g_string_free (text, FALSE);
}

char *
heddle_option_describe (const HeddleOption *o)
{
  GString *text = g_string_new (NULL);
  g_autofree char *range = range_text (o);
  switch (o->type)
    {
    case HEDDLE_OPTION_BOOL: g_string_append (text, "true or false"); break;
    case HEDDLE_OPTION_INT: g_string_append_printf (text, "integer %s", range); break;
    case HEDDLE_OPTION_FLOAT: g_string_append_printf (text, "number %s", range); break;
    case HEDDLE_OPTION_STRING: g_string_append (text, o->flags & HEDDLE_OPTION_PATH ? "text, path" : "text"); break;
    case HEDDLE_OPTION_ENUM:
      g_string_append (text, "one of ");
      for (const HeddleEnumValue *e = o->values; e && e->nick; e++)
        g_string_append_printf (text, "%s%s", e == o->values ? "" : ", ", e->nick);
      break;
    case HEDDLE_OPTION_INT_LIST: g_string_append_printf (text, "list of integers %s", range); break;
    case HEDDLE_OPTION_FLOAT_LIST: g_string_append_printf (text, "list of numbers %s", range); break;
    case HEDDLE_OPTION_VALUE: g_string_append (text, "table"); break;
    }
  if (o->word)
    g_string_append_printf (text, " or \"%s\"", o->word);
  if (o->unit)
    g_string_append_printf (text, ", %s", o->unit);
  return g_string_free (text, FALSE);
}

char *
heddle_option_default (const HeddleOption *o)
{
  char *text = NULL;
  if (o->flags & HEDDLE_OPTION_REQUIRED)
    text = g_strdup ("required");
  else
    switch (o->type)
      {
      case HEDDLE_OPTION_BOOL: text = g_strdup (o->int_default ? "true" : "false"); break;
      case HEDDLE_OPTION_INT:
        text = o->word && (double) o->int_default == o->word_value ? g_strdup_printf ("\"%s\"", o->word)
                                                                  : g_strdup_printf ("%" G_GINT64_FORMAT, o->int_default);
        break;
      case HEDDLE_OPTION_FLOAT:
        text = o->word && o->float_default == o->word_value ? g_strdup_printf ("\"%s\"", o->word) : number_text (o->float_default);
        break;
      case HEDDLE_OPTION_STRING: text = o->text_default ? g_strdup_printf ("\"%s\"", o->text_default) : g_strdup ("unset"); break;
      case HEDDLE_OPTION_ENUM: text = g_strdup_printf ("\"%s\"", choice_nick (o, (int) o->int_default)); break;
      case HEDDLE_OPTION_INT_LIST: case HEDDLE_OPTION_FLOAT_LIST:
        text = o->text_default ? g_strdup_printf ("{%s}", o->text_default) : g_strdup ("unset");
        break;
      case HEDDLE_OPTION_VALUE: text = g_strdup ("unset"); break;
      }
  return text;
}
