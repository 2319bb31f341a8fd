/* cpu/serial.c: parallel regions of one thread as plain calls.  Must not know what the regions compute.
 * GCC hands every "omp parallel" to libgomp's GOMP_parallel, which makes a team and frees it again even when the "if" clause leaves one thread: about a
 * microsecond and an allocation, more than a small kernel takes.  This module's own GOMP_parallel, hidden from all others, calls the region itself then:
 * outside of a team omp_get_thread_num () is 0 and omp_get_num_threads () 1, so a static loop runs whole.  Other compilers call other functions and lose nothing. */
#include <dlfcn.h>
#include <omp.h>
#include <stddef.h>

typedef void (*Region) (void *data);
typedef void (*Parallel) (Region region, void *data, unsigned threads, unsigned flags);

__attribute__ ((visibility ("hidden"))) void GOMP_parallel (Region region, void *data, unsigned threads, unsigned flags);

void
GOMP_parallel (Region region, void *data, unsigned threads, unsigned flags)
{
  static Parallel real;
  Parallel team = __atomic_load_n (&real, __ATOMIC_ACQUIRE);
  if (!team)
    {
      team = (Parallel) dlsym (RTLD_DEFAULT, "GOMP_parallel");
      __atomic_store_n (&real, team, __ATOMIC_RELEASE);
    }
  if (threads == 1 || omp_get_max_threads () == 1 || !team)
    region (data);
  else
    team (region, data, threads, flags);
}
