/* cli/help.c: heddle help: the man page and the shell completion, made from the verb table.  Must not know what a verb does. */
#include "cli/cli.h"

#include <string.h>

static gboolean man, completion;

static const GOptionEntry entries[] = {
  { "man", 0, 0, G_OPTION_ARG_NONE, &man, "The manual page, as roff", NULL },
  { "completion", 0, 0, G_OPTION_ARG_NONE, &completion, "Completion for bash", NULL },
  { 0 },
};

static void
roff_text (const char *text)
{
  if (*text == '.' || *text == '\'')
    fputs ("\\&", stdout);              /* not a request */
  for (; *text; text++)
    if (*text == '-')
      fputs ("\\-", stdout);
    else if (*text == '\\')
      fputs ("\\e", stdout);
    else
      fputc (*text, stdout);
}

static void
roff_entries (const GOptionEntry *e)
{
  for (; e && e->long_name; e++)
    {
      printf (".TP\n.B \\-\\-");
      roff_text (e->long_name);
      if (e->arg_description)
        printf (" \\fI%s\\fR", e->arg_description);
      printf ("\n");
      roff_text (e->description);
      printf (".\n");
    }
}

static void
print_man (void)
{
  HeddleScriptCommand unused = { 0 };
  g_autofree GOptionEntry *shared = heddle_script_entries (&unused);
  printf (".TH HEDDLE 1 \"\" \"heddle %s\" \"User Commands\"\n.SH NAME\nheddle \\- train what a Lua pipeline describes\n.SH SYNOPSIS\n.B heddle\n.I VERB\n[\\fIOPTION\\fR...] [\\fISCRIPT\\fR]\n", HEDDLE_VERSION);
  printf (".SH DESCRIPTION\nHeddle loads dataset, model, optimizer and logger plugins, wires them into the stage graph that a Lua script describes, compiles it once and trains it.\n.SH VERBS\n");
  for (guint i = 0; heddle_verb_nth (i); i++)
    {
      const HeddleVerb *v = heddle_verb_nth (i);
      printf (".SS heddle %s ", v->name);
      roff_text (v->usage);
      printf ("\n");
      roff_text (v->summary);
      printf (".\n");
      roff_entries (v->entries);
      if (strstr (v->usage, "SCRIPT"))
        roff_entries (shared);
    }
  printf (".SH ENVIRONMENT\n.TP\n.B HEDDLE_PLUGIN_PATH\nFolders to search for plugins, separated by colons, before the user's and the installed ones.\n"
          ".TP\n.B HEDDLE_BACKEND_PATH\nFolders to search for backend modules instead of the installed one.\n"
          ".TP\n.B HEDDLE_CPU_ISA\nInstruction set of the device cpu, its own loops and oneDNN: generic, avx2, avx512, avx512_bf16 or amx. "
          "Unset: the best for the processor; avx512_bf16 on one of Intel's only when named, as it is slower there.\n"
          ".SH EXIT STATUS\n0 all went well; 1 the script, a plugin or the data is at fault; 2 usage; 3 the device or the run; 130 stopped by a signal.\n");
}

static void
print_completion (void)
{
  HeddleScriptCommand unused = { 0 };
  g_autofree GOptionEntry *shared = heddle_script_entries (&unused);
  printf ("# bash completion for heddle\n_heddle ()\n{\n  local word=\"${COMP_WORDS[COMP_CWORD]}\" options=\n  if [ \"$COMP_CWORD\" = 1 ]; then\n    COMPREPLY=($(compgen -W \"");
  for (guint i = 0; heddle_verb_nth (i); i++)
    printf ("%s ", heddle_verb_nth (i)->name);
  printf ("--help --version\" -- \"$word\"))\n    return\n  fi\n  case \"${COMP_WORDS[1]}\" in\n");
  for (guint i = 0; heddle_verb_nth (i); i++)
    {
      const HeddleVerb *v = heddle_verb_nth (i);
      printf ("    %s) options=\"--help --version", v->name);
      for (const GOptionEntry *e = v->entries; e && e->long_name; e++)
        printf (" --%s", e->long_name);
      for (const GOptionEntry *e = shared; strstr (v->usage, "SCRIPT") && e->long_name; e++)
        printf (" --%s", e->long_name);
      printf ("\" ;;\n");
    }
  printf ("  esac\n  case \"$word\" in\n    -*) COMPREPLY=($(compgen -W \"$options\" -- \"$word\")) ;;\n    *) COMPREPLY=($(compgen -f -X '!*.lua' -- \"$word\") $(compgen -d -- \"$word\")) ;;\n  esac\n}\n"
          "complete -o filenames -F _heddle heddle\n");
}

static int
run (int argc, char **argv)
{
  int status = 0;
  if (heddle_cli_parse (&heddle_verb_help, &argc, &argv, entries, NULL, &status))
    {
      if (man)
        print_man ();
      else if (completion)
        print_completion ();
      else
        for (guint i = 0; heddle_verb_nth (i); i++)
          printf ("heddle %s %s\n    %s\n", heddle_verb_nth (i)->name, heddle_verb_nth (i)->usage, heddle_verb_nth (i)->summary);
    }
  return status;
}

const HeddleVerb heddle_verb_help = { "help", "", "Say what the verbs do; also the man page and shell completion", run, entries };
