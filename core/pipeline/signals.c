/* pipeline/signals.c: Ctrl-C and SIGTERM as a flag that the run loop reads; the second one ends the process.  Must not know the run. */
#include "pipeline/internal.h"

#include <signal.h>
#include <unistd.h>

static volatile sig_atomic_t pending;
static struct sigaction old_int, old_term;

static void
on_signal (int number)
{
  (void) number;
  if (pending)
    _exit (130);
  pending = 1;
  static const char text[] = "\nheddle: finishing this batch; once more to stop at once\n";
  ssize_t ignored = write (STDERR_FILENO, text, sizeof text - 1);
  (void) ignored;
}

void
heddle_signals_install (void)
{
  struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
  pending = 0;
  sigemptyset (&action.sa_mask);
  sigaction (SIGINT, &action, &old_int);
  sigaction (SIGTERM, &action, &old_term);
}

void
heddle_signals_restore (void)
{
  sigaction (SIGINT, &old_int, NULL);
  sigaction (SIGTERM, &old_term, NULL);
}

gboolean
heddle_signals_pending (void)
{
  return pending != 0;
}
