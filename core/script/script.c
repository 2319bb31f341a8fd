/* script/script.c: the verbs of the language: each call adds a stage to the graph.  Must not know how a graph is run. */
#include "script/script.h"
#include "script/sandbox.h"
#include "script/values.h"

#include <lauxlib.h>
#include <string.h>

#define REF "heddle.ref"        /* userdata: HeddleRef: a stage, a port or a fact */
#define MAKER "heddle.maker"    /* userdata: Maker: h.model "lenet", waiting for its table */

typedef struct
{
  HeddleGraph *graph;
  const HeddleScriptOptions *options;
  GPtrArray   *args;            /* HeddleScriptArg */
  const char  *script;          /* chunk name, also the graph's script */
} Script;

typedef struct { const char *verb; char variant[128]; int line; } Maker;

static Script *
script_of (lua_State *L)
{
  return heddle_sandbox_of (L)->data;
}

/* The line of the script that is running: the innermost frame of its own chunk. */
static int
script_line (lua_State *L)
{
  lua_Debug ar;
  int line = 0;
  for (int level = 0; line == 0 && lua_getstack (L, level, &ar); level++)
    if (lua_getinfo (L, "Sl", &ar) && ar.currentline > 0 && ar.source[0] == '@' && g_str_equal (ar.source + 1, script_of (L)->script))
      line = ar.currentline;
  return line;
}

static int
raise_at (lua_State *L, HeddleError code, const char *text)
{
  return heddle_sandbox_raise (L, g_error_new (HEDDLE_ERROR, code, "%s:%d: %s", script_of (L)->script, script_line (L), text));
}

/* ---- references: stage, stage.port, stage.port.fact ---- */

static void
push_ref (lua_State *L, HeddleRef ref)
{
  HeddleRef *u = lua_newuserdatauv (L, sizeof ref, 0);
  *u = ref;
  luaL_setmetatable (L, REF);
}

static gboolean
is_fact_of_node (const HeddleRef *r, const char *name)
{
  return r->node->stage->class->output == HEDDLE_PORT_DATASET && g_str_equal (name, "length");
}

static int
ref_index (lua_State *L)
{
  HeddleRef *r = luaL_checkudata (L, 1, REF), next = *r;
  const char *name = luaL_checkstring (L, 2);
  if (r->attribute)
    return raise_at (L, HEDDLE_ERROR_GRAPH, "a fact of the data has no parts");
  if (r->port || is_fact_of_node (r, name))
    next.attribute = g_intern_string (name);
  else
    next.port = g_intern_string (name);
  push_ref (L, next);
  return 1;
}

static int
ref_newindex (lua_State *L)
{
  return raise_at (L, HEDDLE_ERROR_SCRIPT, "a stage cannot be changed once it is made\nhint: give the option in its table");
}

static int
ref_tostring (lua_State *L)
{
  HeddleRef *r = luaL_checkudata (L, 1, REF);
  lua_pushfstring (L, "%s%s%s%s%s", r->node->id, r->port ? "." : "", r->port ? r->port : "", r->attribute ? "." : "", r->attribute ? r->attribute : "");
  return 1;
}

static int
ref_arithmetic (lua_State *L)
{
  return raise_at (L, HEDDLE_ERROR_SCRIPT, "what a stage gives is known only when the pipeline runs: a script cannot calculate with it");
}

static const luaL_Reg ref_methods[] = {
  { "__index", ref_index }, { "__newindex", ref_newindex }, { "__tostring", ref_tostring }, { "__add", ref_arithmetic }, { "__sub", ref_arithmetic }, { "__mul", ref_arithmetic },
  { "__div", ref_arithmetic }, { "__idiv", ref_arithmetic }, { "__mod", ref_arithmetic }, { "__unm", ref_arithmetic }, { "__lt", ref_arithmetic }, { "__le", ref_arithmetic },
  { "__concat", ref_arithmetic }, { "__len", ref_arithmetic }, { "__call", ref_arithmetic }, { NULL, NULL },
};

/* ---- reading a stage's table ---- */

static HeddleRef *
to_ref (lua_State *L, int index)
{
  return luaL_testudata (L, index, REF);
}

static gboolean
link_inputs (lua_State *L, int table, HeddleNode *node, int line, GError **error)
{
  lua_Integer n = (lua_Integer) lua_rawlen (L, table);
  gboolean ok = TRUE;
  for (lua_Integer i = 1; ok && i <= n; i++)
    {
      lua_rawgeti (L, table, i);
      HeddleRef *r = to_ref (L, -1);
      if (r)
        ok = heddle_node_link (node, *r, line, error);
      else
        {
          Maker *m = luaL_testudata (L, -1, MAKER);
          g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: input %d is %s%s", node->stage->place, (int) i, m ? "not finished" : luaL_typename (L, -1),
                       m ? "\nhint: h.VERB \"name\" is followed by a table, which may be empty: {}" : ", not a stage\nhint: options are given by name");
          ok = FALSE;
        }
      lua_pop (L, 1);
    }
  return ok;
}

static gboolean
link_one (lua_State *L, HeddleNode *node, const char *key, int line, GError **error)
{
  HeddleRef *r = to_ref (L, -1);
  if (!r)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: \"%s\" must be a stage%s", node->stage->place, key,
                 luaL_testudata (L, -1, MAKER) ? "\nhint: h.VERB \"name\" is followed by a table, which may be empty: {}" : "");
  return r && heddle_node_link_named (node, key, *r, line, error);
}

static gboolean
set_option (lua_State *L, HeddleNode *node, const char *name, GError **error)
{
  HeddleRef *r = to_ref (L, -1);
  gboolean ok;
  if (r && r->attribute)
    ok = heddle_node_defer (node, name, *r, error);
  else
    {
      GError *local = NULL;
      GVariant *value = heddle_script_value (L, -1, &local);
      ok = value && heddle_node_set (node, name, value, &local);
      if (value)
        g_variant_unref (value);
      else
        g_prefix_error (&local, "%s: option \"%s\": ", node->stage->place, name);
      if (local)
        g_propagate_error (error, local);
    }
  return ok;
}

static int
by_text (gconstpointer a, gconstpointer b)
{
  return strcmp (*(const char *const *) a, *(const char *const *) b);
}

/* The text keys of the table at TABLE, sorted: Lua's own order changes from run to run, and with it the order of metrics and the first of two errors.
 * NULL when there is a key that is neither text nor one of 1 .. its length.  (transfer full) */
static GPtrArray *
sorted_keys (lua_State *L, int table)
{
  GPtrArray *keys = g_ptr_array_new_with_free_func (g_free);
  lua_Integer n = (lua_Integer) lua_rawlen (L, table);
  gboolean ok = TRUE;
  for (lua_pushnil (L); lua_next (L, table); lua_pop (L, 1))
    if (lua_type (L, -2) == LUA_TSTRING)
      g_ptr_array_add (keys, g_strdup (lua_tostring (L, -2)));
    else
      ok &= lua_isinteger (L, -2) && lua_tointeger (L, -2) >= 1 && lua_tointeger (L, -2) <= n;
  g_ptr_array_sort (keys, by_text);
  if (!ok)
    g_clear_pointer (&keys, g_ptr_array_unref);
  return keys;
}

/* eval = { data = test, accuracy = metric, every = 1, batch_size = 256, best = "accuracy" } */
static gboolean
read_eval (lua_State *L, HeddleNode *node, int line, GError **error)
{
  static const char *const options[] = { "every", "batch_size", "best", NULL };
  gboolean ok = lua_istable (L, -1), data = FALSE;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "%s: \"eval\" must be a table: eval = { data = test, accuracy = h.metric \"accuracy\" { ... } }", node->stage->place);
  int table = lua_gettop (L);
  g_autoptr (GPtrArray) keys = ok && lua_rawlen (L, table) == 0 ? sorted_keys (L, table) : NULL;
  if (ok && !keys)
    {
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "%s: everything in \"eval\" has a name: eval = { data = test, accuracy = h.metric \"accuracy\" { ... } }", node->stage->place);
      ok = FALSE;
    }
  for (guint i = 0; ok && i < keys->len; i++)
    {
      const char *key = keys->pdata[i];
      g_autofree char *full = g_strdup_printf (g_strv_contains (options, key) ? "eval_%s" : "eval.%s", key);
      lua_getfield (L, table, key);
      data |= g_str_equal (key, "data");
      ok = g_strv_contains (options, key) ? set_option (L, node, full, error) : link_one (L, node, full, line, error);
      lua_pop (L, 1);
    }
  if (ok && !data)
    {
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "%s: \"eval\" has no data\nhint: eval = { data = h.dataset ... }", node->stage->place);
      ok = FALSE;
    }
  return ok;
}

static gboolean
read_log (lua_State *L, HeddleNode *node, int line, GError **error)
{
  gboolean ok = TRUE;
  if (to_ref (L, -1))
    ok = link_one (L, node, "log.1", line, error);
  else if (!lua_istable (L, -1))
    {
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "%s: \"log\" must be a list of loggers: log = { h.logger \"progress\" {} }", node->stage->place);
      ok = FALSE;
    }
  else
    for (lua_Integer i = 1, n = (lua_Integer) lua_rawlen (L, -1); ok && i <= n; i++)
      {
        g_autofree char *key = g_strdup_printf ("log.%d", (int) i);
        lua_rawgeti (L, -1, i);
        ok = link_one (L, node, key, line, error);
        lua_pop (L, 1);
      }
  return ok;
}

static gboolean
read_named (lua_State *L, HeddleNode *node, const char *key, int line, GError **error)
{
  const char *verb = node->stage->class->verb;
  gboolean train = g_str_equal (verb, "train"), ok;
  if (g_str_equal (key, "id"))
    {
      ok = lua_type (L, -1) == LUA_TSTRING;
      if (ok)
        ok = heddle_node_set_id (node, lua_tostring (L, -1), error);
      else
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "%s: id must be text", node->stage->place);
    }
  else if (train && g_str_equal (key, "eval"))
    ok = read_eval (L, node, line, error);
  else if (train && g_str_equal (key, "log"))
    ok = read_log (L, node, line, error);
  else if (train && g_str_equal (key, "schedule"))
    ok = link_one (L, node, "schedule", line, error);
  else if (g_str_equal (verb, "prefetch") && g_str_equal (key, "workers"))
    ok = set_option (L, node, "num_workers", error);
  else
    ok = set_option (L, node, key, error);
  return ok;
}

static gboolean
read_options (lua_State *L, int table, HeddleNode *node, int line, GError **error)
{
  g_autoptr (GPtrArray) keys = sorted_keys (L, table);
  gboolean ok = keys != NULL;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "%s: an input is nil\nhint: was a variable never set?", node->stage->place);
  for (guint i = 0; ok && i < keys->len; i++)
    {
      lua_getfield (L, table, keys->pdata[i]);
      ok = read_named (L, node, keys->pdata[i], line, error);
      lua_pop (L, 1);
    }
  return ok;
}

/* The table is on the stack at TABLE; leaves the new stage there. */
static int
make_stage (lua_State *L, const char *verb, const char *variant, int table, int line)
{
  GError *error = NULL;
  HeddleNode *node = heddle_graph_add (script_of (L)->graph, verb, variant, line, &error);
  gboolean ok = node && link_inputs (L, table, node, line, &error) && read_options (L, table, node, line, &error) && heddle_node_complete (node, &error);
  if (!ok)
    return heddle_sandbox_raise (L, error);
  push_ref (L, (HeddleRef) { node, NULL, NULL });
  return 1;
}

/* ---- calls ---- */

static int
maker_call (lua_State *L)
{
  Maker *m = luaL_checkudata (L, 1, MAKER);
  if (!lua_istable (L, 2))
    return raise_at (L, HEDDLE_ERROR_SCRIPT, "a stage is described by a table: h.VERB \"name\" { ... }");
  return make_stage (L, m->verb, m->variant, 2, m->line);
}

static int
maker_index (lua_State *L)
{
  return raise_at (L, HEDDLE_ERROR_SCRIPT, "this stage is not finished\nhint: h.VERB \"name\" is followed by a table, which may be empty: {}");
}

/* upvalue 1: the verb; upvalue 2: does it take a variant? */
static int
verb_call (lua_State *L)
{
  const char *verb = lua_tostring (L, lua_upvalueindex (1));
  gboolean variants = lua_toboolean (L, lua_upvalueindex (2));
  int line = script_line (L);
  if (!variants && lua_istable (L, 1))
    return make_stage (L, verb, NULL, 1, line);
  if (variants && lua_type (L, 1) == LUA_TSTRING && lua_istable (L, 2))
    return make_stage (L, verb, lua_tostring (L, 1), 2, line);
  if (variants && lua_type (L, 1) == LUA_TSTRING && lua_rawlen (L, 1) < sizeof ((Maker *) 0)->variant)
    {
      Maker *m = lua_newuserdatauv (L, sizeof *m, 0);
      m->verb = g_intern_string (verb);
      m->line = line;
      g_strlcpy (m->variant, lua_tostring (L, 1), sizeof m->variant);
      luaL_setmetatable (L, MAKER);
      return 1;
    }
  lua_pushfstring (L, variants ? "%s: expects a name and a table: h.%s \"name\" { ... }" : "%s: expects a table: h.%s { ... }", verb, verb);
  return raise_at (L, HEDDLE_ERROR_SCRIPT, lua_tostring (L, -1));
}

static int
flags_call (lua_State *L)
{
  GError *error = NULL;
  int line = script_line (L);
  if (!lua_istable (L, 1))
    return raise_at (L, HEDDLE_ERROR_SCRIPT, "flags: expects a table: h.flags { tf32 = true }");
  lua_pushnil (L);
  while (!error && lua_next (L, 1))
    {
      GVariant *value = lua_type (L, -2) == LUA_TSTRING ? heddle_script_value (L, -1, &error) : NULL;
      if (value)
        {
          heddle_graph_set_flags (script_of (L)->graph, lua_tostring (L, -2), value, line, &error);
          g_variant_unref (value);
        }
      else if (!error)
        g_set_error (&error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "%s:%d: flags: every flag has a name", script_of (L)->script, line);
      lua_pop (L, 1);
    }
  return error ? heddle_sandbox_raise (L, error) : 0;
}

/* ---- arguments ---- */

static void
arg_free (gpointer data)
{
  HeddleScriptArg *a = data;
  g_free (a->name);
  g_free (a->default_text);
  g_free (a->help);
  g_free (a);
}

static const char *
given_arg (const Script *s, const char *name)
{
  const char *value = NULL;
  gsize n = strlen (name);
  for (guint i = 0; s->options->args && s->options->args[i]; i++)
    if (strncmp (s->options->args[i], name, n) == 0 && s->options->args[i][n] == '=')
      value = s->options->args[i] + n + 1;
  return value;
}

/* TEXT as the type of the default on the stack at INDEX; pushes it. */
static gboolean
push_typed (lua_State *L, const char *text, int index)
{
  gboolean ok = TRUE;
  switch (lua_type (L, index))
    {
    case LUA_TNUMBER:
      ok = lua_stringtonumber (L, text) != 0;
      break;
    case LUA_TBOOLEAN:
      ok = g_str_equal (text, "true") || g_str_equal (text, "false");
      if (ok)
        lua_pushboolean (L, *text == 't');
      break;
    default: lua_pushstring (L, text); break;
    }
  return ok;
}

static int
arg_call (lua_State *L)
{
  Script *s = script_of (L);
  const char *name = luaL_checkstring (L, 1), *help = luaL_optstring (L, 3, "");
  lua_settop (L, 3);
  const char *given = given_arg (s, name);
  HeddleScriptArg *a = g_new0 (HeddleScriptArg, 1);
  a->name = g_strdup (name);
  a->default_text = lua_isnil (L, 2) ? NULL : g_strdup (luaL_tolstring (L, 2, NULL));
  a->help = g_strdup (help);
  a->line = script_line (L);
  a->used = given != NULL;
  g_ptr_array_add (s->args, a);
  lua_settop (L, 3);
  if (given && !push_typed (L, given, 2))
    {
      lua_pushfstring (L, "argument \"%s\": expected a %s, got \"%s\"", name, luaL_typename (L, 2), given);
      return raise_at (L, HEDDLE_ERROR_USAGE, lua_tostring (L, -1));
    }
  if (!given && lua_isnil (L, 2) && !s->options->help)
    {
      lua_pushfstring (L, "argument \"%s\" is required%s%s\nhint: --arg %s=...", name, *help ? ": " : "", help, name);
      return raise_at (L, HEDDLE_ERROR_USAGE, lua_tostring (L, -1));
    }
  if (!given)
    {
      if (lua_isnil (L, 2))
        lua_pushstring (L, "");
      else
        lua_pushvalue (L, 2);
    }
  return 1;
}

/* ---- the module ---- */

static int
no_such_verb (lua_State *L)
{
  const char *name = lua_tostring (L, 2);
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  for (lua_pushnil (L); lua_next (L, 1); lua_pop (L, 1))
    if (lua_type (L, -2) == LUA_TSTRING)
      g_ptr_array_add (names, g_strdup (lua_tostring (L, -2)));
  g_ptr_array_add (names, NULL);
  char *near = heddle_suggestion (name ? name : "", (const char *const *) names->pdata);
  lua_pushfstring (L, "heddle has no \"%s\"%s", name ? name : "?", near);
  g_free (near);
  g_ptr_array_unref (g_steal_pointer (&names));
  return raise_at (L, HEDDLE_ERROR_SCRIPT, lua_tostring (L, -1));
}

static void
push_module (lua_State *L)
{
  lua_newtable (L);
  for (guint i = 0; i < heddle_stage_class_count (); i++)
    {
      const HeddleStageClass *c = heddle_stage_class_nth (i);
      lua_pushstring (L, c->verb);
      lua_pushboolean (L, c->variant || c->plugin_kind);
      lua_pushcclosure (L, verb_call, 2);
      lua_setfield (L, -2, c->verb);
    }
  lua_pushcfunction (L, flags_call);
  lua_setfield (L, -2, "flags");
  lua_pushcfunction (L, arg_call);
  lua_setfield (L, -2, "arg");
  lua_pushstring (L, HEDDLE_VERSION);
  lua_setfield (L, -2, "version");
  lua_createtable (L, 0, 1);
  lua_pushcfunction (L, no_such_verb);
  lua_setfield (L, -2, "__index");
  lua_setmetatable (L, -2);
}

static void
prepare (HeddleSandbox *box)
{
  lua_State *L = box->L;
  luaL_newmetatable (L, REF);
  luaL_setfuncs (L, ref_methods, 0);
  luaL_newmetatable (L, MAKER);
  lua_pushcfunction (L, maker_call);
  lua_setfield (L, -2, "__call");
  lua_pushcfunction (L, maker_index);
  lua_setfield (L, -2, "__index");
  lua_pop (L, 2);
  lua_getfield (L, LUA_REGISTRYINDEX, "heddle.loaded");
  push_module (L);
  lua_setfield (L, -2, "heddle");
  lua_pop (L, 1);
  heddle_sandbox_seal (box);
}

/* ---- loading ---- */

static gboolean
check_args (const Script *s, GError **error)
{
  gboolean ok = TRUE;
  g_autoptr (GPtrArray) names = g_ptr_array_new ();
  for (guint i = 0; i < s->args->len; i++)
    g_ptr_array_add (names, ((HeddleScriptArg *) s->args->pdata[i])->name);
  g_ptr_array_add (names, NULL);
  for (guint i = 0; ok && s->options->args && s->options->args[i]; i++)
    {
      g_auto (GStrv) parts = g_strsplit (s->options->args[i], "=", 2);
      ok = parts[0] && parts[1] && g_strv_contains ((const char *const *) names->pdata, parts[0]);
      if (!ok && (!parts[0] || !parts[1]))
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_USAGE, "--arg %s: expected NAME=VALUE", s->options->args[i]);
      else if (!ok)
        {
          g_autofree char *near = heddle_suggestion (parts[0], (const char *const *) names->pdata);
          g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_USAGE, "--arg %s: %s declares no argument \"%s\"%s\nhint: heddle run %s --help lists them", s->options->args[i], s->script, parts[0], near, s->script);
        }
    }
  return ok;
}

static gboolean
run_script (HeddleSandbox *box, Script *s, const char *file, GError **error)
{
  gboolean ok = heddle_sandbox_load (box, file, s->script, error) && heddle_sandbox_call (box, 0, error) && check_args (s, error);
  if (ok)
    {
      HeddleRef *root = to_ref (box->L, -1);
      ok = heddle_graph_finish (s->graph, root && !root->port && !root->attribute ? root->node : NULL, error);
    }
  return ok;
}

HeddleGraph *
heddle_script_load (const char *file, HeddleRegistry *registry, const HeddleScriptOptions *options, GPtrArray **args, GError **error)
{
  static const HeddleScriptOptions none = { 0 };
  g_autofree char *name = g_path_get_basename (file), *folder = g_path_get_dirname (file), *base = g_canonicalize_filename (folder, NULL);
  Script s = { .options = options ? options : &none, .script = name, .args = g_ptr_array_new_with_free_func (arg_free) };
  HeddleSandbox *box = heddle_sandbox_new (s.options->instructions, s.options->bytes, s.options->unrestricted);
  box->data = &s;
  s.graph = heddle_graph_new (name, base, registry);
  prepare (box);
  if (!run_script (box, &s, file, error))
    g_clear_pointer (&s.graph, heddle_graph_free);
  heddle_sandbox_free (box);
  if (args)
    *args = s.args;
  else
    g_ptr_array_unref (s.args);
  return s.graph;
}
