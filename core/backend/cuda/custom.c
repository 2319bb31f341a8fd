/* cuda/custom.c: what stands around the source of a kernel that a plugin brings.  Must not know devices, plans or CUDA's libraries. */
#include "custom.h"

#define TEXT(...)  TEXT2 (__VA_ARGS__)
#define TEXT2(...) #__VA_ARGS__

const char *
cuda_custom_prelude (void)
{
  return TEXT (CUDA_CUSTOM_TYPES) "\n"
    "template <class F> struct heddle_takes_a_run { enum { value = 0 }; };\n"
    "template <> struct heddle_takes_a_run<void (heddle_run)> { enum { value = 1 }; };\n";
}

char *
cuda_custom_source (const HeddleCustomCuda *cuda)
{
  return g_strdup_printf ("%s\nstatic_assert (heddle_takes_a_run<decltype (%s)>::value, \"%s is to return void and to take one heddle_run\");\n", cuda->source, cuda->kernel, cuda->kernel);
}

gboolean
cuda_custom_grid (const guint grid[3], const guint block[3], char **text)
{
  guint64 threads = (guint64) block[0] * block[1] * block[2];
  gboolean ok = threads >= 1 && threads <= 1024 && block[0] <= 1024 && block[1] <= 1024 && block[2] <= 64;
  ok = ok && grid[0] >= 1 && grid[0] <= G_MAXINT32 && grid[1] >= 1 && grid[1] <= 65535 && grid[2] >= 1 && grid[2] <= 65535;
  if (!ok)
    *text = g_strdup_printf ("%u x %u x %u blocks of %u x %u x %u threads", grid[0], grid[1], grid[2], block[0], block[1], block[2]);
  return ok;
}
