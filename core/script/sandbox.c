/* script/sandbox.c: text-only Lua with budgets for instructions and memory, and no way out.  Must not know stages. */
#include "script/sandbox.h"
#include "base/options.h"
#include "base/paths.h"

#include <lauxlib.h>
#include <lualib.h>
#include <string.h>

#define HOOK_EVERY 1000

/* ---- budgets ---- */

static void
hook (lua_State *L, lua_Debug *ar)
{
  HeddleSandbox *box = heddle_sandbox_of (L);
  box->spent += HOOK_EVERY;
  if (box->tripped == TRIP_NONE && box->spent > box->instructions)
    box->tripped = TRIP_INSTRUCTIONS;
  if (box->tripped != TRIP_NONE)
    {
      /* from here on every instruction raises: pcall cannot swallow it */
      lua_sethook (L, hook, LUA_MASKCOUNT, 1);
      lua_getinfo (L, "Sl", ar);
      lua_pushfstring (L, ar->currentline > 0 ? "%s:%d: " : "", ar->short_src, ar->currentline);
      lua_pushfstring (L, box->tripped == TRIP_MEMORY ? "the memory budget of %d MiB is spent\nhint: a pipeline script needs little; --unrestricted lifts the limits"
                                                      : "the budget of %d million instructions is spent: an endless loop?\nhint: --unrestricted lifts the limits",
                       (int) (box->tripped == TRIP_MEMORY ? box->bytes >> 20 : box->instructions / 1000000));
      lua_concat (L, 2);
      lua_error (L);
    }
}

/* Bytes count as instructions too: doubling a string is one instruction and much work. */
static void *
allocate (void *data, void *block, size_t old_size, size_t size)
{
  HeddleSandbox *box = data;
  gint64 growth = (gint64) size - (gint64) (block ? old_size : 0);
  void *result = NULL;
  if (size == 0)
    {
      box->used -= block ? (gint64) old_size : 0;
      g_free (block);
    }
  else if (growth > 0 && box->used + growth > box->bytes && !box->unrestricted)
    {
      box->tripped = box->tripped ? box->tripped : TRIP_MEMORY;
      if (box->L)
        lua_sethook (box->L, hook, LUA_MASKCOUNT, 1);
    }
  else if ((result = g_try_realloc (block, size)) != NULL)
    {
      box->used += growth;
      box->spent += growth > 0 ? growth / 16 : 0;
    }
  return result;
}

HeddleSandbox *
heddle_sandbox_of (lua_State *L)
{
  return *(HeddleSandbox **) lua_getextraspace (L);
}

/* ---- errors ---- */

int
heddle_sandbox_raise (lua_State *L, GError *error)
{
  HeddleSandbox *box = heddle_sandbox_of (L);
  g_clear_error (&box->error);
  box->error = error;
  lua_pushstring (L, error->message);
  return lua_error (L);
}

gboolean
heddle_sandbox_call (HeddleSandbox *box, int n_args, GError **error)
{
  int status = lua_pcall (box->L, n_args, 1, 0);
  if (status != LUA_OK)
    {
      const char *text = lua_tostring (box->L, -1);
      if (status == LUA_ERRMEM)
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_SCRIPT, "the script's memory budget of %d MiB is spent\nhint: a pipeline script needs little; --unrestricted lifts the limits", (int) (box->bytes >> 20));
      else if (box->error && text && g_str_equal (text, box->error->message))
        g_propagate_error (error, g_steal_pointer (&box->error));
      else
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_SCRIPT, "%s", text ? text : "the script raised an error that is not text");
      lua_pop (box->L, 1);
    }
  return status == LUA_OK;
}

static const char *
unreadable_hint (const GError *why)
{
  const char *hint = "can other programs read it? The disk or share it lies on may be at fault";
  switch (why->domain == G_FILE_ERROR ? why->code : G_FILE_ERROR_FAILED)
    {
    case G_FILE_ERROR_NOENT: hint = "is the path right? It is taken from the current folder"; break;
    case G_FILE_ERROR_ISDIR: hint = "give the script, not the folder it lies in"; break;
    case G_FILE_ERROR_ACCES: case G_FILE_ERROR_PERM: hint = "may this user read the file?"; break;
    default: break;
    }
  return hint;
}

gboolean
heddle_sandbox_load (HeddleSandbox *box, const char *file, const char *chunk, GError **error)
{
  g_autofree char *text = NULL, *name = g_strconcat ("@", chunk, NULL);
  gsize length = 0;
  g_autoptr (GError) why = NULL;
  gboolean ok = g_file_get_contents (file, &text, &length, &why);
  gsize skip = 0;
  if (!ok)                      /* GLib's own text has quotes that not every locale can show */
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_SCRIPT, "%s: cannot be read: %s\nhint: %s", chunk, strrchr (why->message, ':') ? strrchr (why->message, ':') + 2 : why->message,
                 unreadable_hint (why));
  if (ok && length >= 2 && text[0] == '#' && text[1] == '!')       /* "#!/usr/bin/env heddle" keeps its line number */
    skip = strcspn (text, "\n");
  if (ok && luaL_loadbufferx (box->L, text + skip, length - skip, name, "t") != LUA_OK)
    {
      const char *says = lua_tostring (box->L, -1);
      gboolean binary = length > 0 && text[0] == '\x1b';
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_SCRIPT, "%s%s", binary ? chunk : says, binary ? ": compiled Lua is not accepted\nhint: give the script as text" : "");
      lua_pop (box->L, 1);
      ok = FALSE;
    }
  return ok;
}

/* ---- what replaces the doors ---- */

/* Finalisers run with hooks off: one endless loop there could never be stopped.  A length of one's own would send table.insert on
 * a way of 10^15 elements inside one instruction. */
static int
safe_setmetatable (lua_State *L)
{
  static const char *const refused[] = { "__gc", "__close", "__len" };
  luaL_checktype (L, 1, LUA_TTABLE);
  luaL_argexpected (L, lua_isnil (L, 2) || lua_istable (L, 2), 2, "nil or table");
  for (guint i = 0; i < G_N_ELEMENTS (refused) && lua_istable (L, 2); i++)
    {
      lua_pushstring (L, refused[i]);
      if (lua_rawget (L, 2) != LUA_TNIL)
        return luaL_error (L, "%s is not available in a pipeline script", refused[i]);
      lua_pop (L, 1);
    }
  if (luaL_getmetafield (L, 1, "__metatable") != LUA_TNIL)
    return luaL_error (L, "cannot change a protected metatable");
  lua_settop (L, 2);
  lua_setmetatable (L, 1);
  return 1;
}

/* Text only, one string; never bytecode. */
static int
safe_load (lua_State *L)
{
  size_t length;
  const char *text = luaL_checklstring (L, 1, &length), *name = luaL_optstring (L, 2, "=load");
  int status = luaL_loadbufferx (L, text, length, name, "t"), results = 1;
  if (status != LUA_OK)
    {
      lua_pushnil (L);
      lua_insert (L, -2);
      results = 2;
    }
  else if (!lua_isnoneornil (L, 4))
    {
      lua_pushvalue (L, 4);
      if (!lua_setupvalue (L, -2, 1))
        lua_pop (L, 1);
    }
  return results;
}

/* Patterns can backtrack for ever inside one instruction; a plain search cannot. */
static int
plain_find (lua_State *L)
{
  size_t n, m;
  const char *text = luaL_checklstring (L, 1, &n), *word = luaL_checklstring (L, 2, &m);
  lua_Integer from = luaL_optinteger (L, 3, 1);
  size_t at = from > 0 ? (size_t) from - 1 : 0;
  const char *hit = at <= n ? g_strstr_len (text + at, (gssize) (n - at), word) : NULL;
  if (!hit)
    {
      lua_pushnil (L);
      return 1;
    }
  lua_pushinteger (L, (lua_Integer) (hit - text) + 1);
  lua_pushinteger (L, (lua_Integer) (hit - text) + (lua_Integer) m);
  return 2;
}

/* Two more loops that run inside one instruction and take no memory. */
static int
safe_rep (lua_State *L)
{
  size_t n, m;
  luaL_checklstring (L, 1, &n);
  luaL_optlstring (L, 3, "", &m);
  if (n + m == 0)
    lua_pushliteral (L, "");
  else
    {
      lua_settop (L, 3);
      lua_pushvalue (L, lua_upvalueindex (1));
      lua_insert (L, 1);
      lua_call (L, 3, 1);
    }
  return 1;
}

static int
safe_move (lua_State *L)
{
  lua_Integer from = luaL_checkinteger (L, 2), to = luaL_checkinteger (L, 3);
  if (to >= from && (guint64) to - (guint64) from >= 1000000)
    return luaL_error (L, "table.move of more than 1000000 elements");
  lua_pushvalue (L, lua_upvalueindex (1));
  lua_insert (L, 1);
  lua_call (L, lua_gettop (L) - 1, 1);
  return 1;
}

/* TABLE.NAME becomes F, which finds the old one in its upvalue. */
static void
wrap (lua_State *L, const char *table, const char *name, lua_CFunction f)
{
  lua_getglobal (L, table);
  lua_getfield (L, -1, name);
  lua_pushcclosure (L, f, 1);
  lua_setfield (L, -2, name);
  lua_pop (L, 1);
}

static gboolean
valid_module (const char *name)
{
  gboolean ok = g_str_has_prefix (name, "heddle.") && name[7];
  for (const char *c = name; ok && *c; c++)
    ok = g_ascii_isalnum (*c) || *c == '_' || (*c == '.' && c[1] != '.');
  return ok;
}

static char *
module_file (const char *name)
{
  g_auto (GStrv) parts = g_strsplit (name, ".", -1);
  g_autofree char *joined = g_strjoinv (G_DIR_SEPARATOR_S, parts), *base = g_strconcat (joined, ".lua", NULL);
  char *found = NULL;
  for (guint i = 0; !found && heddle_paths_lua ()[i]; i++)
    {
      found = g_build_filename (heddle_paths_lua ()[i], base, NULL);
      if (!g_file_test (found, G_FILE_TEST_IS_REGULAR))
        g_clear_pointer (&found, g_free);
    }
  return found;
}

/* require "heddle" and "heddle.x", each loaded once; upvalue 1: the table of loaded modules. */
static int
safe_require (lua_State *L)
{
  const char *name = luaL_checkstring (L, 1);
  GError *error = NULL;
  lua_pushvalue (L, 1);
  if (lua_rawget (L, lua_upvalueindex (1)) != LUA_TNIL)
    return 1;
  lua_pop (L, 1);
  char *file = valid_module (name) ? module_file (name) : NULL;
  if (!file)
    error = g_error_new (HEDDLE_ERROR, HEDDLE_ERROR_SCRIPT, "no module \"%s\"\nhint: a pipeline script can require \"heddle\" and what lies in its lua folder (\"heddle.layers\")", name);
  else
    heddle_sandbox_load (heddle_sandbox_of (L), file, name, &error);
  g_free (file);
  if (error)
    {
      luaL_where (L, 1);
      g_prefix_error (&error, "%s", lua_tostring (L, -1));
      return heddle_sandbox_raise (L, error);
    }
  lua_call (L, 0, 1);
  lua_pushvalue (L, 1);
  lua_pushvalue (L, -2);
  lua_rawset (L, lua_upvalueindex (1));
  return 1;
}

/* ---- strict globals ---- */

/* Names of the caller's local variables count as near names too: "logit" for a local "logits". */
static void
add_locals (lua_State *L, GPtrArray *names)
{
  lua_Debug ar;
  if (lua_getstack (L, 1, &ar))
    for (int i = 1; i < 200; i++)
      {
        const char *local = lua_getlocal (L, &ar, i);
        if (!local)
          break;
        lua_pop (L, 1);
        if (local[0] != '(')
          g_ptr_array_add (names, g_strdup (local));
      }
}

static char *
near_global (lua_State *L, const char *name)
{
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  add_locals (L, names);
  lua_pushglobaltable (L);
  for (lua_pushnil (L); lua_next (L, -2); lua_pop (L, 1))
    if (lua_type (L, -2) == LUA_TSTRING)
      g_ptr_array_add (names, g_strdup (lua_tostring (L, -2)));
  lua_pop (L, 1);
  g_ptr_array_add (names, NULL);
  return heddle_suggestion (name, (const char *const *) names->pdata);
}

static int
undefined_global (lua_State *L)
{
  const char *name = lua_type (L, 2) == LUA_TSTRING ? lua_tostring (L, 2) : "?";
  char *near = near_global (L, name);
  luaL_where (L, 1);
  GError *error = g_error_new (HEDDLE_ERROR, HEDDLE_ERROR_SCRIPT, "%sundefined variable \"%s\"%s", lua_tostring (L, -1), name, near);
  g_free (near);
  return heddle_sandbox_raise (L, error);
}

static int
new_global (lua_State *L)
{
  const char *name = lua_type (L, 2) == LUA_TSTRING ? lua_tostring (L, 2) : "?";
  luaL_where (L, 1);
  return heddle_sandbox_raise (L, g_error_new (HEDDLE_ERROR, HEDDLE_ERROR_SCRIPT, "%sassignment to the undefined variable \"%s\"\nhint: local %s = ...", lua_tostring (L, -1), name, name));
}

void
heddle_sandbox_seal (HeddleSandbox *box)
{
  lua_State *L = box->L;
  lua_pushglobaltable (L);
  lua_createtable (L, 0, 3);
  lua_pushcfunction (L, undefined_global);
  lua_setfield (L, -2, "__index");
  lua_pushcfunction (L, new_global);
  lua_setfield (L, -2, "__newindex");
  lua_pushboolean (L, FALSE);
  lua_setfield (L, -2, "__metatable");
  lua_setmetatable (L, -2);
  lua_pop (L, 1);
}

/* ---- life ---- */

static void
drop (lua_State *L, const char *table, const char *const *names)
{
  lua_getglobal (L, table);
  for (guint i = 0; names[i]; i++)
    {
      lua_pushnil (L);
      lua_setfield (L, -2, names[i]);
    }
  lua_pop (L, 1);
}

static void
open_restricted (lua_State *L)
{
  static const luaL_Reg libraries[] = { { LUA_GNAME, luaopen_base }, { LUA_TABLIBNAME, luaopen_table }, { LUA_STRLIBNAME, luaopen_string }, { LUA_MATHLIBNAME, luaopen_math },
                                        { LUA_UTF8LIBNAME, luaopen_utf8 }, { LUA_COLIBNAME, luaopen_coroutine }, { NULL, NULL } };
  for (const luaL_Reg *lib = libraries; lib->name; lib++)
    {
      luaL_requiref (L, lib->name, lib->func, 1);
      lua_pop (L, 1);
    }
  drop (L, "_G", (const char *const[]) { "dofile", "loadfile", "collectgarbage", "warn", NULL });
  drop (L, "string", (const char *const[]) { "dump", "match", "gmatch", "gsub", NULL });
  wrap (L, "string", "find", plain_find);
  wrap (L, "string", "rep", safe_rep);
  wrap (L, "table", "move", safe_move);
  lua_register (L, "setmetatable", safe_setmetatable);
  lua_register (L, "load", safe_load);
}

HeddleSandbox *
heddle_sandbox_new (gint64 instructions, gint64 bytes, gboolean unrestricted)
{
  HeddleSandbox *box = g_new0 (HeddleSandbox, 1);
  box->instructions = instructions > 0 ? instructions : 20000000;
  box->bytes = bytes > 0 ? bytes : 64 << 20;
  box->unrestricted = unrestricted;
  lua_State *L = lua_newstate (allocate, box);
  *(HeddleSandbox **) lua_getextraspace (L) = box;
  if (unrestricted)
    luaL_openlibs (L);
  else
    open_restricted (L);
  lua_getglobal (L, "math");
  lua_getfield (L, -1, "randomseed");       /* scripts are reproducible unless they ask otherwise */
  lua_pushinteger (L, 0);
  lua_call (L, 1, 0);
  lua_pop (L, 1);
  if (!unrestricted)
    {
      lua_newtable (L);
      lua_pushvalue (L, -1);
      lua_setfield (L, LUA_REGISTRYINDEX, "heddle.loaded");
      lua_pushcclosure (L, safe_require, 1);
      lua_setglobal (L, "require");
      lua_sethook (L, hook, LUA_MASKCOUNT, HOOK_EVERY);
    }
  else
    {
      /* package.path gains our folder */
      lua_getglobal (L, "package");
      lua_getfield (L, -1, "path");
      g_autofree char *path = g_strdup_printf ("%s/?.lua;%s", heddle_paths_lua ()[0] ? heddle_paths_lua ()[0] : ".", lua_tostring (L, -1));
      lua_pushstring (L, path);
      lua_setfield (L, -3, "path");
      lua_pop (L, 2);
      lua_getfield (L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
      lua_setfield (L, LUA_REGISTRYINDEX, "heddle.loaded");
    }
  box->L = L;
  return box;
}

void
heddle_sandbox_free (HeddleSandbox *box)
{
  if (box)
    {
      lua_sethook (box->L, NULL, 0, 0);
      lua_close (box->L);
      g_clear_error (&box->error);
      g_free (box);
    }
}
