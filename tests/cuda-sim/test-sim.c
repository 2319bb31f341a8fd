/* tests/cuda-sim/test-sim.c: the simulated device itself: what it computes, and that it catches planted bugs: a missing wait, a missing barrier,
 * a store out of bounds, a host that reads too early. */
#include "fake.h"

#include <dlfcn.h>
#include <glib.h>
#include <math.h>
#include <string.h>

#define N 4099

/* The runtime in front of the real one has them; the program is linked with the real one. */
#define SIM(name) ((__typeof__ (&name)) dlsym (RTLD_DEFAULT, #name))

#define OK(call) g_assert_cmpint (call, ==, cudaSuccess)

#if CUDART_VERSION >= 12080
static cudaLibrary_t library;

static void load (gconstpointer image) { OK (cudaLibraryLoadData (&library, image, NULL, NULL, 0, NULL, NULL, 0)); }

static gconstpointer
kernel (const char *name)
{
  cudaKernel_t k = NULL;
  OK (cudaLibraryGetKernel (&k, library, name));
  return (gconstpointer) k;
}
#else
/* Runtimes before libraries of kernels: the driver's functions, as the module asks for them. */
static gpointer library;

static void
entry (const char *name, gpointer function)
{
#if CUDART_VERSION >= 12000
  OK (cudaGetDriverEntryPoint (name, function, cudaEnableDefault, NULL));
#else
  OK (cudaGetDriverEntryPoint (name, function, cudaEnableDefault));
#endif
}

static void
load (gconstpointer image)
{
  int (*module_load) (gpointer *, gconstpointer) = NULL;
  entry ("cuModuleLoadData", &module_load);
  OK (module_load (&library, image));
}

static gconstpointer
kernel (const char *name)
{
  int (*module_function) (gpointer *, gpointer, const char *) = NULL;
  gpointer k = NULL;
  entry ("cuModuleGetFunction", &module_function);
  OK (module_function (&k, library, name));
  return k;
}
#endif

static void
run (const char *name, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t stream)
{
  OK (cudaLaunchKernel (kernel (name), grid, block, args, shared, stream));
}

static cudaStream_t
stream_new (void)
{
  cudaStream_t s;
  OK (cudaStreamCreateWithFlags (&s, cudaStreamNonBlocking));
  return s;
}

static float *
device_new (gsize n)
{
  gpointer p;
  OK (cudaMalloc (&p, n * sizeof (float)));
  return p;
}

static float *
pinned_new (gsize n, float value)
{
  gpointer p;
  OK (cudaHostAlloc (&p, n * sizeof (float), 0));
  for (gsize i = 0; i < n; i++)
    ((float *) p)[i] = value;
  return p;
}

static guint
differ (const float *x, gsize n, float value)
{
  guint wrong = 0;
  for (gsize i = 0; i < n; i++)
    wrong += x[i] != value;
  return wrong;
}

/* ---- what is right works ---- */

static void
test_kernels (void)
{
  cudaStream_t s = stream_new ();
  float *x = device_new (256), *y = device_new (256), *host = pinned_new (256, 0);
  for (int i = 0; i < 256; i++)
    host[i] = (float) i;
  OK (cudaMemcpyAsync (x, host, 256 * sizeof (float), cudaMemcpyHostToDevice, s));
  run ("reverse", (dim3) { 1, 1, 1 }, (dim3) { 256, 1, 1 }, (void *[]) { &x, &y }, 0, s);
  run ("row_sums", (dim3) { 1, 1, 1 }, (dim3) { 32, 8, 1 }, (void *[]) { &y, &x }, 256 * sizeof (float), s);
  float *back = pinned_new (264, 0);
  OK (cudaMemcpyAsync (back, y, 256 * sizeof (float), cudaMemcpyDeviceToHost, s));
  OK (cudaMemcpyAsync (back + 256, x, 8 * sizeof (float), cudaMemcpyDeviceToHost, s));
  OK (cudaStreamSynchronize (s));
  for (int i = 0; i < 256; i++)
    g_assert_cmpfloat (back[i], ==, 255 - i);
  for (int i = 0; i < 8; i++)
    g_assert_cmpfloat (back[256 + i], ==, 32 * (255 - 32 * i) - 496);
  cudaFree (x);
  cudaFree (y);
  cudaFreeHost (host);
  cudaFreeHost (back);
  cudaStreamDestroy (s);
}

/* y += 2 x, three times, from one capture */
static void
test_graph (void)
{
  cudaStream_t s = stream_new ();
  float *x = device_new (N), *y = device_new (N), *host = pinned_new (N, 3), *back = pinned_new (N, 0), a = 2;
  gint64 n = N;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  OK (cudaMemsetAsync (y, 0, N * sizeof (float), s));
  OK (cudaStreamBeginCapture (s, cudaStreamCaptureModeThreadLocal));
  g_assert_cmpint (cudaStreamSynchronize (s), ==, cudaErrorStreamCaptureUnsupported);
  OK (cudaMemcpyAsync (x, host, N * sizeof (float), cudaMemcpyHostToDevice, s));
  run ("axpy", (dim3) { 4, 1, 1 }, (dim3) { 128, 1, 1 }, (void *[]) { &x, &y, &a, &n }, 0, s);
  OK (cudaStreamEndCapture (s, &graph));
  OK (cudaGraphInstantiateWithFlags (&exec, graph, 0));
  for (int i = 0; i < 3; i++)
    OK (cudaGraphLaunch (exec, s));
  OK (cudaMemcpyAsync (back, y, N * sizeof (float), cudaMemcpyDeviceToHost, s));
  OK (cudaStreamSynchronize (s));
  g_assert_cmpuint (differ (back, N, 18), ==, 0);
  cudaGraphExecDestroy (exec);
  cudaGraphDestroy (graph);
  cudaFree (x);
  cudaFree (y);
  cudaFreeHost (host);
  cudaFreeHost (back);
  cudaStreamDestroy (s);
}

static void
test_failures (void)
{
  gpointer p;
  SIM (heddle_sim_fail_allocation) (2);
  float *x = device_new (4);
  g_assert_cmpint (cudaMalloc (&p, 16), ==, cudaErrorMemoryAllocation);
  g_assert_null (p);
  float *y = device_new (4);
  SIM (heddle_sim_limit) (1 << 20);
  g_assert_cmpint (cudaMalloc (&p, 2 << 20), ==, cudaErrorMemoryAllocation);
  SIM (heddle_sim_limit) ((gsize) 2 << 30);
  cudaFree (x);
  cudaFree (y);
  g_assert_cmpint (SIM (heddle_sim_counter) ("live"), ==, 0);
  cudaGetLastError ();
}

/* ---- planted bugs ---- */

/* Copies on one stream what the other computes with; how many numbers are wrong. */
static guint
two_streams (gboolean wait, gboolean wait_back)
{
  cudaStream_t copy = stream_new (), compute = stream_new ();
  cudaEvent_t arrived, used;
  float *x = device_new (N), *y = device_new (N), *first = pinned_new (N, 1), *second = pinned_new (N, 5), *back = pinned_new (N, 0), a = 1;
  gint64 n = N;
  OK (cudaEventCreateWithFlags (&arrived, cudaEventDisableTiming));
  OK (cudaEventCreateWithFlags (&used, cudaEventDisableTiming));
  OK (cudaMemsetAsync (y, 0, N * sizeof (float), compute));
  OK (cudaMemcpyAsync (x, first, N * sizeof (float), cudaMemcpyHostToDevice, copy));
  OK (cudaEventRecord (arrived, copy));
  if (wait)
    OK (cudaStreamWaitEvent (compute, arrived, 0));
  run ("axpy", (dim3) { 4, 1, 1 }, (dim3) { 128, 1, 1 }, (void *[]) { &x, &y, &a, &n }, 0, compute);
  OK (cudaEventRecord (used, compute));
  if (wait_back)
    OK (cudaStreamWaitEvent (copy, used, 0));
  OK (cudaMemcpyAsync (x, second, N * sizeof (float), cudaMemcpyHostToDevice, copy));
  OK (cudaMemcpyAsync (back, y, N * sizeof (float), cudaMemcpyDeviceToHost, compute));
  OK (cudaStreamSynchronize (compute));
  guint wrong = differ (back, N, 1);
  cudaDeviceSynchronize ();
  cudaFree (x);
  cudaFree (y);
  cudaFreeHost (first);
  cudaFreeHost (second);
  cudaFreeHost (back);
  cudaEventDestroy (arrived);
  cudaEventDestroy (used);
  cudaStreamDestroy (copy);
  cudaStreamDestroy (compute);
  return wrong;
}

static void
test_missing_wait (void)
{
  SIM (heddle_sim_schedule) ("lazy");
  g_assert_cmpuint (two_streams (TRUE, TRUE), ==, 0);
  g_assert_cmpuint (two_streams (FALSE, TRUE), ==, N);
  SIM (heddle_sim_schedule) ("greedy");
  g_assert_cmpuint (two_streams (TRUE, TRUE), ==, 0);
  g_assert_cmpuint (two_streams (TRUE, FALSE), ==, N);        /* the second batch overtakes the first */
  SIM (heddle_sim_schedule) ("random");
  for (int i = 0; i < 20; i++)
    g_assert_cmpuint (two_streams (TRUE, TRUE), ==, 0);
  SIM (heddle_sim_schedule) ("lazy");
}

/* A host that asks and asks drives the device too, and whatever it drives first nothing overtakes a wait in its own stream. */
static void
test_polled (void)
{
  static const char *const schedules[] = { "lazy", "greedy", "random", "eager" };
  for (guint k = 0; k < G_N_ELEMENTS (schedules); k++)
    {
      SIM (heddle_sim_schedule) (schedules[k]);
      cudaStream_t copy = stream_new (), compute = stream_new ();
      cudaEvent_t arrived, used;
      float *x = device_new (N), *y = device_new (N), *host = pinned_new (N, 1), *back = pinned_new (N, 0), a = 1;
      gint64 n = N;
      guint asked = 0;
      OK (cudaEventCreateWithFlags (&arrived, cudaEventDisableTiming));
      OK (cudaEventCreateWithFlags (&used, cudaEventDisableTiming));
      OK (cudaMemcpyAsync (x, host, N * sizeof (float), cudaMemcpyHostToDevice, copy));
      OK (cudaEventRecord (arrived, copy));
      OK (cudaStreamWaitEvent (compute, arrived, 0));
      OK (cudaMemsetAsync (y, 0, N * sizeof (float), compute));
      run ("axpy", (dim3) { 4, 1, 1 }, (dim3) { 128, 1, 1 }, (void *[]) { &x, &y, &a, &n }, 0, compute);
      OK (cudaMemcpyAsync (back, y, N * sizeof (float), cudaMemcpyDeviceToHost, compute));
      OK (cudaEventRecord (used, compute));
      while (cudaEventQuery (used) == cudaErrorNotReady && asked < 100)
        asked++;
      cudaGetLastError ();
      g_assert_cmpuint (asked, <, 100);
      g_assert_cmpuint (differ (back, N, 1), ==, 0);
      cudaFree (x);
      cudaFree (y);
      cudaFreeHost (host);
      cudaFreeHost (back);
      cudaEventDestroy (arrived);
      cudaEventDestroy (used);
      cudaStreamDestroy (copy);
      cudaStreamDestroy (compute);
    }
  SIM (heddle_sim_schedule) ("lazy");
}

static void
test_missing_barrier (void)
{
  float *x = device_new (256), *y = device_new (256), back[256];
  for (int i = 0; i < 256; i++)
    back[i] = (float) i + 1;
  OK (cudaMemcpy (x, back, sizeof back, cudaMemcpyHostToDevice));
  guint wrong[2] = { 0, 0 };
  for (int k = 0; k < 2; k++)
    {
      run (k ? "reverse_without_barrier" : "reverse", (dim3) { 1, 1, 1 }, (dim3) { 256, 1, 1 }, (void *[]) { &x, &y }, 0, NULL);
      OK (cudaMemcpy (back, y, sizeof back, cudaMemcpyDeviceToHost));
      for (int i = 0; i < 256; i++)
        wrong[k] += back[i] != 256 - (float) i;
      OK (cudaMemset (y, 0, sizeof back));
    }
  g_assert_cmpuint (wrong[0], ==, 0);
  g_assert_cmpuint (wrong[1], >, 64);
  cudaFree (x);
  cudaFree (y);
}

/* The host reads, or writes, pinned memory before it has waited. */
static void
test_host_too_early (void)
{
  cudaStream_t s = stream_new ();
  float *x = device_new (N), *host = pinned_new (N, 7), *back = pinned_new (N, 7);
  OK (cudaMemcpyAsync (x, host, N * sizeof (float), cudaMemcpyHostToDevice, s));
  OK (cudaMemcpyAsync (back, x, N * sizeof (float), cudaMemcpyDeviceToHost, s));
  g_assert_true (isnan (back[0]) && isnan (back[N - 1]));     /* although 7 stood there before and will stand there after */
  host[3] = 8;
  OK (cudaStreamSynchronize (s));
  g_assert_cmpfloat (back[0], ==, 7);
  g_assert_cmpfloat (back[3], ==, 8);
  cudaFree (x);
  cudaFreeHost (host);
  cudaFreeHost (back);
  cudaStreamDestroy (s);
}

/* In a process of its own: an error of the device stays, and AddressSanitizer ends the process. */
static void
test_out_of_bounds (void)
{
  if (g_test_subprocess ())
    {
      float *x = device_new (N);
      int n = N;
      run ("one_too_many", (dim3) { 17, 1, 1 }, (dim3) { 256, 1, 1 }, (void *[]) { &x, &n }, 0, NULL);
      cudaError_t e = cudaDeviceSynchronize ();
      g_printerr ("%s: %s\n", cudaGetErrorName (e), cudaGetErrorString (e));
      g_assert_cmpint (e, ==, cudaSuccess);
      return;
    }
  g_test_trap_subprocess (NULL, 0, 0);
  g_test_trap_assert_failed ();
#if defined(__SANITIZE_ADDRESS__)
  g_test_trap_assert_stderr ("*use-after-poison*one_too_many*");
#else
  g_test_trap_assert_stderr ("*cudaErrorIllegalAddress: a store out of bounds: byte 1 after the end*");
#endif
}

static void
test_divergence (void)
{
  if (g_test_subprocess ())
    {
      float *x = device_new (32);
      run ("divergent", (dim3) { 1, 1, 1 }, (dim3) { 32, 1, 1 }, (void *[]) { &x }, 0, stream_new ());
      cudaError_t e = cudaDeviceSynchronize ();
      g_printerr ("%s\n", cudaGetErrorString (e));
      g_assert_cmpint (e, ==, cudaSuccess);
      return;
    }
  g_test_trap_subprocess (NULL, 0, 0);
  g_test_trap_assert_failed ();
  g_test_trap_assert_stderr ("*divergent: barrier divergence in block (0,0): thread 0 waits at *planted.cu:*(warp)*");
}

/* More blocks in y or z than any device takes */
static void
test_grid (void)
{
  static const dim3 grids[] = { { 1, 65536, 1 }, { 1, 1, 65536 } };
  if (g_test_subprocess ())
    {
      float *x = device_new (4), a = 1;
      gint64 n = 0;
      for (guint i = 0; i < G_N_ELEMENTS (grids); i++)
        {
          cudaError_t e = cudaLaunchKernel (kernel ("axpy"), grids[i], (dim3) { 32, 1, 1 }, (void *[]) { &x, &x, &a, &n }, 0, NULL);
          g_assert_cmpint (e ? e : cudaDeviceSynchronize (), ==, cudaErrorInvalidConfiguration);
        }
      g_printerr ("refused\n");
      return;
    }
  g_test_trap_subprocess (NULL, 0, 0);
  g_test_trap_assert_stderr ("*refused*");
}

static void
test_host_touches_device (void)
{
  if (g_test_subprocess ())
    {
      float *x = device_new (4);
      g_printerr ("%g\n", (double) *(volatile float *) x);
      g_printerr ("read\n");
      return;
    }
  g_test_trap_subprocess (NULL, 0, 0);
  g_test_trap_assert_failed ();
  g_test_trap_assert_stderr_unmatched ("*read*");
}

static void
test_leak (void)
{
  if (g_test_subprocess ())
    {
      g_setenv ("HEDDLE_SIM_STRICT", "1", TRUE);
      device_new (25);
      return;
    }
  g_test_trap_subprocess (NULL, 0, 0);
  g_test_trap_assert_failed ();
  g_test_trap_assert_stderr ("*never given back: 1 blocks of device memory (100 bytes)*");
}

int
main (int argc, char **argv)
{
  static const guint fatbin[4] = { 0xba55ed50u };
  g_test_init (&argc, &argv, NULL);
  load (fatbin);
  g_test_add_func ("/sim/kernels", test_kernels);
  g_test_add_func ("/sim/graph", test_graph);
  g_test_add_func ("/sim/failures", test_failures);
  g_test_add_func ("/sim/polled", test_polled);
  g_test_add_func ("/sim/planted/missing wait", test_missing_wait);
  g_test_add_func ("/sim/planted/missing barrier", test_missing_barrier);
  g_test_add_func ("/sim/planted/host too early", test_host_too_early);
  g_test_add_func ("/sim/planted/store out of bounds", test_out_of_bounds);
  g_test_add_func ("/sim/planted/barrier divergence", test_divergence);
  g_test_add_func ("/sim/planted/too many blocks", test_grid);
  g_test_add_func ("/sim/planted/host touches device memory", test_host_touches_device);
  g_test_add_func ("/sim/planted/leak", test_leak);
  return g_test_run ();
}
