/* tests/cuda-sim/test-sim.c: the simulated device itself: what it computes, and that it catches planted bugs: a missing wait, a missing barrier,
 * a store out of bounds, a misaligned load, a host that reads too early, what a capture does not allow, pinned memory given back too early. */
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

static gpointer
find (const char *name)
{
  cudaKernel_t k = NULL;
  OK (cudaLibraryGetKernel (&k, library, name));
  return k;
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
  OK (cudaFree (NULL));         /* before CUDA 12 nothing has made a context */
  OK (module_load (&library, image));
}

static gpointer
find (const char *name)
{
  int (*module_function) (gpointer *, gpointer, const char *) = NULL;
  gpointer k = NULL;
  entry ("cuModuleGetFunction", &module_function);
  OK (module_function (&k, library, name));
  return k;
}
#endif

/* Looked up once: finding may load, which a capture forbids. */
static gconstpointer
kernel (const char *name)
{
  static GHashTable *found;
  if (!found)
    found = g_hash_table_new (g_str_hash, g_str_equal);
  if (!g_hash_table_contains (found, name))
    g_hash_table_insert (found, (gpointer) name, find (name));
  return g_hash_table_lookup (found, name);
}

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
  run ("axpy", (dim3) { 4, 1, 1 }, (dim3) { 128, 1, 1 }, (void *[]) { &x, &y, &a, &n }, 0, s);      /* loads the kernel */
  OK (cudaMemsetAsync (y, 0, N * sizeof (float), s));
  OK (cudaStreamBeginCapture (s, cudaStreamCaptureModeThreadLocal));
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

/* ---- planted bugs: the legacy stream ---- */

/* The host goes on when pageable memory has been read, and after a cudaMemset (): a stream of one's own may be first. */
static void
test_legacy_stream (void)
{
  cudaStream_t s = stream_new (), blocking;
  float *x = device_new (N), *back = pinned_new (N, 0);
  g_autofree float *pageable = g_new (float, N);
  for (gsize i = 0; i < N; i++)
    pageable[i] = 7;
  OK (cudaMemcpy (x, pageable, N * sizeof (float), cudaMemcpyHostToDevice));
  OK (cudaMemcpyAsync (back, x, N * sizeof (float), cudaMemcpyDeviceToHost, s));
  OK (cudaStreamSynchronize (s));
  g_assert_cmpuint (differ (back, N, 7), ==, N);
  OK (cudaMemcpy (back, x, N * sizeof (float), cudaMemcpyDeviceToHost));
  g_assert_cmpuint (differ (back, N, 7), ==, 0);
  OK (cudaMemset (x, 0, N * sizeof (float)));
  OK (cudaMemcpyAsync (back, x, N * sizeof (float), cudaMemcpyDeviceToHost, s));
  OK (cudaStreamSynchronize (s));
  g_assert_cmpuint (differ (back, N, 7), ==, 0);
  OK (cudaStreamCreate (&blocking));
  OK (cudaMemcpyAsync (back, x, N * sizeof (float), cudaMemcpyDeviceToHost, blocking));
  OK (cudaStreamSynchronize (blocking));
  g_assert_cmpuint (differ (back, N, 0), ==, 0);              /* these two wait for each other */
  cudaFree (x);
  cudaFreeHost (back);
  cudaStreamDestroy (blocking);
  cudaStreamDestroy (s);
}

/* ---- planted bugs: what a capture does not allow ---- */

typedef struct { cudaStream_t stream, other; cudaEvent_t outside, inside; float *memory, *pinned; gpointer got; } Captured;
typedef cudaError_t (*Call) (Captured *);

static cudaError_t call_malloc (Captured *c) { return cudaMalloc (&c->got, 16); }
static cudaError_t call_host_alloc (Captured *c) { return cudaHostAlloc (&c->got, 16, 0); }
static cudaError_t call_free (Captured *c) { return cudaFree (c->memory); }
static cudaError_t call_free_host (Captured *c) { return cudaFreeHost (c->pinned); }
static cudaError_t call_synchronize (Captured *c) { return cudaStreamSynchronize (c->stream); }
static cudaError_t call_synchronize_other (Captured *c) { return cudaStreamSynchronize (c->other); }
static cudaError_t call_device (Captured *c) { (void) c; return cudaDeviceSynchronize (); }
static cudaError_t call_query (Captured *c) { return cudaStreamQuery (c->stream); }
static cudaError_t call_event (Captured *c) { return cudaEventQuery (c->outside); }
static cudaError_t call_event_wait (Captured *c) { return cudaEventSynchronize (c->outside); }
static cudaError_t call_captured_event (Captured *c) { return cudaEventQuery (c->inside); }
static cudaError_t call_from_outside (Captured *c) { return cudaStreamWaitEvent (c->stream, c->outside, 0); }
static cudaError_t call_memcpy (Captured *c) { return cudaMemcpy (c->pinned, c->memory, 4, cudaMemcpyDeviceToHost); }
static cudaError_t call_memset (Captured *c) { return cudaMemset (c->memory, 0, 4); }
static cudaError_t call_legacy (Captured *c) { return cudaMemsetAsync (c->memory, 0, 4, NULL); }

static cudaError_t
call_new_kernel (Captured *c)
{
  return cudaLaunchKernel (kernel ("never_run"), (dim3) { 1, 1, 1 }, (dim3) { 1, 1, 1 }, (void *[]) { &c->memory }, 0, c->stream);
}

static Captured
captured_new (void)
{
  Captured c = { .stream = stream_new (), .other = stream_new (), .memory = device_new (4), .pinned = pinned_new (4, 0) };
  OK (cudaEventCreateWithFlags (&c.outside, cudaEventDisableTiming));
  OK (cudaEventCreateWithFlags (&c.inside, cudaEventDisableTiming));
  OK (cudaEventRecord (c.outside, c.stream));
  OK (cudaStreamSynchronize (c.stream));
  return c;
}

static void
captured_clear (Captured *c)
{
  cudaFree (c->memory);
  cudaFreeHost (c->pinned);
  cudaEventDestroy (c->outside);
  cudaEventDestroy (c->inside);
  cudaStreamDestroy (c->stream);
  cudaStreamDestroy (c->other);
  cudaGetLastError ();
}

/* Each is refused and spoils the capture, which then takes no more work, says so at its end, and leaves the stream as good as before. */
static void
test_capture_forbids (void)
{
  static const struct { Call call; cudaError_t answer; } calls[] = {
    { call_malloc, cudaErrorStreamCaptureUnsupported }, { call_host_alloc, cudaErrorStreamCaptureUnsupported }, { call_free, cudaErrorStreamCaptureUnsupported },
    { call_free_host, cudaErrorStreamCaptureUnsupported }, { call_synchronize, cudaErrorStreamCaptureUnsupported }, { call_synchronize_other, cudaErrorStreamCaptureUnsupported },
    { call_device, cudaErrorStreamCaptureUnsupported }, { call_query, cudaErrorStreamCaptureUnsupported }, { call_event, cudaErrorStreamCaptureUnsupported },
    { call_event_wait, cudaErrorStreamCaptureUnsupported }, { call_captured_event, cudaErrorCapturedEvent }, { call_from_outside, cudaErrorStreamCaptureIsolation },
    { call_memcpy, cudaErrorStreamCaptureUnsupported }, { call_memset, cudaErrorStreamCaptureUnsupported }, { call_legacy, cudaErrorStreamCaptureImplicit },
    { call_new_kernel, cudaErrorStreamCaptureUnsupported },
  };
  kernel ("never_run");
  for (guint i = 0; i < G_N_ELEMENTS (calls); i++)
    {
      Captured c = captured_new ();
      cudaGraph_t graph = (cudaGraph_t) &c;
      OK (cudaStreamBeginCapture (c.stream, cudaStreamCaptureModeThreadLocal));
      OK (cudaMemsetAsync (c.memory, 0, 4, c.stream));
      OK (cudaEventRecord (c.inside, c.stream));
      g_assert_cmpint (calls[i].call (&c), ==, calls[i].answer);
      g_assert_cmpint (cudaMemsetAsync (c.memory, 0, 4, c.stream), ==, cudaErrorStreamCaptureInvalidated);
      g_assert_cmpint (cudaStreamEndCapture (c.stream, &graph), ==, cudaErrorStreamCaptureInvalidated);
      g_assert_null (graph);
      OK (cudaMemsetAsync (c.memory, 0, 4, c.stream));
      OK (cudaStreamSynchronize (c.stream));
      captured_clear (&c);
    }
}

typedef struct { Captured *captured; gboolean end; cudaError_t answer; } Elsewhere;

static gpointer
elsewhere (gpointer data)
{
  Elsewhere *e = data;
  cudaGraph_t graph;
  e->answer = e->end ? cudaStreamEndCapture (e->captured->stream, &graph) : call_event (e->captured);
  return NULL;
}

static cudaError_t
in_a_thread (Captured *c, gboolean end)
{
  Elsewhere e = { c, end, cudaErrorUnknown };
  g_thread_join (g_thread_new ("elsewhere", elsewhere, &e));
  return e.answer;
}

/* Other threads may do as they like while a thread captures for itself, but not end it; a global capture forbids them what it forbids its own. */
static void
test_capture_threads (void)
{
  Captured c = captured_new ();
  cudaGraph_t graph;
  OK (cudaStreamBeginCapture (c.stream, cudaStreamCaptureModeThreadLocal));
  OK (in_a_thread (&c, FALSE));
  g_assert_cmpint (in_a_thread (&c, TRUE), ==, cudaErrorStreamCaptureWrongThread);
  OK (cudaStreamEndCapture (c.stream, &graph));
  cudaGraphDestroy (graph);
  OK (cudaStreamBeginCapture (c.stream, cudaStreamCaptureModeGlobal));
  g_assert_cmpint (in_a_thread (&c, FALSE), ==, cudaErrorStreamCaptureUnsupported);
  g_assert_cmpint (cudaStreamEndCapture (c.stream, &graph), ==, cudaErrorStreamCaptureInvalidated);
  captured_clear (&c);
}

/* A second stream that joins a capture must be waited for before its end; afterwards an event of the capture is nobody's. */
static void
test_capture_joins (void)
{
  Captured c = captured_new ();
  for (guint join = 0; join < 2; join++)
    {
      cudaGraph_t graph = NULL;
      cudaEvent_t joined;
      OK (cudaEventCreateWithFlags (&joined, cudaEventDisableTiming));
      OK (cudaStreamBeginCapture (c.stream, cudaStreamCaptureModeThreadLocal));
      OK (cudaEventRecord (c.inside, c.stream));
      OK (cudaStreamWaitEvent (c.other, c.inside, 0));
      OK (cudaMemsetAsync (c.memory, 0, 4, c.other));
      OK (cudaEventRecord (joined, c.other));
      if (join)
        OK (cudaStreamWaitEvent (c.stream, joined, 0));
      g_assert_cmpint (cudaStreamEndCapture (c.stream, &graph), ==, join ? cudaSuccess : cudaErrorStreamCaptureUnjoined);
      g_assert_cmpint (cudaStreamWaitEvent (c.other, c.inside, 0), ==, cudaErrorCapturedEvent);
      if (graph)
        cudaGraphDestroy (graph);
      cudaEventDestroy (joined);
    }
  captured_clear (&c);
}

/* ---- planted bugs: handles, devices, memory of the host ---- */

static void
test_pinned_too_early (void)
{
  cudaStream_t s = stream_new ();
  float *x = device_new (4), *host = pinned_new (4, 1);
  OK (cudaMemcpyAsync (x, host, 4 * sizeof (float), cudaMemcpyHostToDevice, s));
  g_assert_cmpint (cudaFreeHost (host), ==, cudaErrorInvalidValue);
  OK (cudaStreamSynchronize (s));
  OK (cudaFreeHost (host));
  cudaFree (x);
  cudaStreamDestroy (s);
  cudaGetLastError ();
}

static void
test_handles (void)
{
  cudaStream_t s = stream_new ();
  cudaEvent_t from, to;
  float ms;
  OK (cudaEventCreateWithFlags (&from, cudaEventDisableTiming));
  OK (cudaEventCreate (&to));
  OK (cudaEventRecord (from, s));
  OK (cudaEventRecord (to, s));
  OK (cudaStreamSynchronize (s));
  g_assert_cmpint (cudaEventElapsedTime (&ms, from, to), ==, cudaErrorInvalidResourceHandle);
  OK (cudaEventDestroy (from));
  OK (cudaStreamDestroy (s));
  g_assert_cmpint (cudaEventRecord (from, NULL), ==, cudaErrorInvalidResourceHandle);
  g_assert_cmpint (cudaEventRecord (to, s), ==, cudaErrorInvalidResourceHandle);
  g_assert_cmpint (cudaStreamSynchronize (s), ==, cudaErrorInvalidResourceHandle);
  g_assert_cmpint (cudaEventDestroy (from), ==, cudaErrorInvalidResourceHandle);
  g_assert_cmpint (cudaGraphLaunch (NULL, NULL), ==, cudaErrorInvalidValue);
  OK (cudaEventDestroy (to));
  cudaGetLastError ();
}

static gpointer
device_of_thread (gpointer data)
{
  cudaGetDevice (data);
  return NULL;
}

/* A thread begins with device 0, whatever others have chosen; a launch and a record want the stream's own device. */
static void
test_devices (void)
{
  int device = -1, n = 1;
  g_setenv ("HEDDLE_SIM_DEVICES", "2", TRUE);
  OK (cudaSetDevice (1));
  g_thread_join (g_thread_new ("device", device_of_thread, &device));
  g_assert_cmpint (device, ==, 0);
  cudaStream_t s = stream_new ();
  cudaEvent_t event;
  float *x = device_new (4);
  run ("one_too_many", (dim3) { 1, 1, 1 }, (dim3) { 1, 1, 1 }, (void *[]) { &x, &n }, 0, s);
  OK (cudaSetDevice (0));
  OK (cudaEventCreate (&event));
  g_assert_cmpint (cudaLaunchKernel (kernel ("one_too_many"), (dim3) { 1, 1, 1 }, (dim3) { 1, 1, 1 }, (void *[]) { &x, &n }, 0, s), ==, cudaErrorInvalidResourceHandle);
  g_assert_cmpint (cudaEventRecord (event, s), ==, cudaErrorInvalidResourceHandle);
  OK (cudaStreamSynchronize (s));
  cudaEventDestroy (event);
  cudaFree (x);
  cudaStreamDestroy (s);
  g_unsetenv ("HEDDLE_SIM_DEVICES");
  cudaGetLastError ();
}

static void
test_parameters (void)
{
  struct { char bytes[4104]; } much = { { 0 } };
  g_assert_cmpint (cudaLaunchKernel (kernel ("much"), (dim3) { 1, 1, 1 }, (dim3) { 1, 1, 1 }, (void *[]) { &much }, 0, NULL), ==, cudaErrorInvalidConfiguration);
  cudaGetLastError ();
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

/* Four numbers in one load must begin at a multiple of 16 bytes. */
static void
test_misaligned (void)
{
  gint64 from = g_test_subprocess () ? 1 : 4;
  float *x = device_new (8), *y = device_new (4);
  run ("four", (dim3) { 1, 1, 1 }, (dim3) { 1, 1, 1 }, (void *[]) { &x, &y, &from }, 0, NULL);
  OK (cudaDeviceSynchronize ());
  cudaFree (x);
  cudaFree (y);
  if (!g_test_subprocess ())
    {
      g_test_trap_subprocess (NULL, 0, 0);
      g_test_trap_assert_failed ();
    }
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
  g_test_add_func ("/sim/planted/legacy stream", test_legacy_stream);
  g_test_add_func ("/sim/planted/in a capture", test_capture_forbids);
  g_test_add_func ("/sim/planted/captures of threads", test_capture_threads);
  g_test_add_func ("/sim/planted/not joined", test_capture_joins);
  g_test_add_func ("/sim/planted/pinned memory given back", test_pinned_too_early);
  g_test_add_func ("/sim/planted/handles", test_handles);
  g_test_add_func ("/sim/planted/devices", test_devices);
  g_test_add_func ("/sim/planted/parameters", test_parameters);
  g_test_add_func ("/sim/planted/store out of bounds", test_out_of_bounds);
  g_test_add_func ("/sim/planted/misaligned load", test_misaligned);
  g_test_add_func ("/sim/planted/barrier divergence", test_divergence);
  g_test_add_func ("/sim/planted/too many blocks", test_grid);
  g_test_add_func ("/sim/planted/host touches device memory", test_host_touches_device);
  g_test_add_func ("/sim/planted/leak", test_leak);
  return g_test_run ();
}
