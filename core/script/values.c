/* script/values.c: Lua values as GVariants, with limits.  Must not know stages. */
#include "script/values.h"

#include <lauxlib.h>

#define MAX_DEPTH 16
#define MAX_ENTRIES 100000

typedef struct { guint entries; GError **error; } Reading;

static GVariant *read_value (lua_State *L, int index, int depth, Reading *r);

static GVariant *
fail (Reading *r, const char *text)
{
  if (r->error && !*r->error)
    g_set_error_literal (r->error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, text);
  return NULL;
}

static GVariant *
read_list (lua_State *L, int index, lua_Integer n, int depth, Reading *r)
{
  GVariantBuilder b;
  gboolean ok = TRUE;
  g_variant_builder_init (&b, G_VARIANT_TYPE ("av"));
  for (lua_Integer i = 1; ok && i <= n; i++)
    {
      lua_rawgeti (L, index, i);
      GVariant *v = read_value (L, lua_gettop (L), depth + 1, r);
      lua_pop (L, 1);
      if ((ok = v != NULL))
        g_variant_builder_add (&b, "v", v);
    }
  if (!ok)
    g_variant_builder_clear (&b);
  return ok ? g_variant_builder_end (&b) : NULL;
}

static GVariant *
read_dictionary (lua_State *L, int index, int depth, Reading *r)
{
  GVariantBuilder b;
  gboolean ok = TRUE;
  g_variant_builder_init (&b, G_VARIANT_TYPE ("a{sv}"));
  lua_pushnil (L);
  while (ok && lua_next (L, index))
    {
      GVariant *v = lua_type (L, -2) == LUA_TSTRING ? read_value (L, lua_gettop (L), depth + 1, r) : fail (r, "a table is either a list or has names, not both");
      if ((ok = v != NULL))
        g_variant_builder_add (&b, "{sv}", lua_tostring (L, -2), v);
      lua_pop (L, ok ? 1 : 2);
    }
  if (!ok)
    g_variant_builder_clear (&b);
  return ok ? g_variant_builder_end (&b) : NULL;
}

static GVariant *
read_table (lua_State *L, int index, int depth, Reading *r)
{
  lua_Integer n = (lua_Integer) lua_rawlen (L, index), keys = 0;
  GVariant *v = NULL;
  lua_pushnil (L);
  while (lua_next (L, index))
    {
      keys++;
      lua_pop (L, 1);
    }
  r->entries += (guint) keys;
  if (depth > MAX_DEPTH)
    fail (r, "tables are nested too deeply");
  else if (r->entries > MAX_ENTRIES)
    fail (r, "the table has more than 100000 entries\nhint: data belongs in a file that a dataset plugin reads");
  else if (keys == n)
    v = read_list (L, index, n, depth, r);
  else if (n == 0)
    v = read_dictionary (L, index, depth, r);
  else
    fail (r, "a table is either a list or has names, not both");
  return v;
}

static GVariant *
read_value (lua_State *L, int index, int depth, Reading *r)
{
  GVariant *v = NULL;
  switch (lua_type (L, index))
    {
    case LUA_TBOOLEAN: v = g_variant_new_boolean (lua_toboolean (L, index)); break;
    case LUA_TNUMBER: v = lua_isinteger (L, index) ? g_variant_new_int64 (lua_tointeger (L, index)) : g_variant_new_double (lua_tonumber (L, index)); break;
    case LUA_TSTRING: v = g_utf8_validate (lua_tostring (L, index), -1, NULL) ? g_variant_new_string (lua_tostring (L, index)) : fail (r, "the text is not valid UTF-8"); break;
    case LUA_TTABLE: v = read_table (L, index, depth, r); break;
    case LUA_TUSERDATA: fail (r, "a stage cannot be an option\nhint: what flows in goes in the array part, without a name"); break;
    default: fail (r, "a function or nil cannot be an option"); break;
    }
  return v;
}

GVariant *
heddle_script_value (lua_State *L, int index, GError **error)
{
  GError *local = NULL;
  Reading r = { 0, &local };
  luaL_checkstack (L, 64, "tables are nested too deeply");
  GVariant *v = read_value (L, lua_absindex (L, index), 0, &r);
  if (local)
    g_propagate_error (error, local);
  return v ? g_variant_ref_sink (v) : NULL;
}
