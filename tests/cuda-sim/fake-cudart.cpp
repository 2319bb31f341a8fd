/* cuda-sim/fake-cudart.cpp: a stand-in for libcudart whose device is this process.  Streams are adversarial: work runs only when something forces it
 * (HEDDLE_SIM_SCHEDULE=lazy), at once (eager), or every other stream as far as it may first (greedy), or at random (random): what is not ordered by events
 * or waits runs in an order that hurts.  Device memory cannot be touched from outside (PROT_NONE) but while work runs; red zones are looked at when work is
 * waited for.  A capture refuses what the real one does, and is spoilt by it.  Must not know any kernel: they lie in the shared object that HEDDLE_SIM_KERNELS names.
 * HEDDLE_SIM_STRICT=1: exit status 86 if memory, streams, events or graphs are never given back. */
#include "device.h"

extern "C" {

/* ---- tests' questions ---- */

cudaError_t
heddle_sim_enqueue (cudaStream_t stream, int (*run) (const void *), const void *data, size_t bytes)
{
  ENTER;
  Stream *s = of (stream);
  if (is_stream (s) && s != &null_stream && s->device != current_device)
    return refuse (cudaErrorInvalidResourceHandle, "work of a library on a stream of another device than the thread's");
  std::string copy ((const char *) data, bytes);
  Work work;
  work.what = "library";
  work.run = [run, copy] { return run (copy.data ()); };
  return push (stream, work);
}

void heddle_sim_message (const char *text) { snprintf (message, sizeof message, "%s", text); }
int heddle_sim_is_device (const void *p, size_t n) { LOCK; return in_device (p, n); }
void heddle_sim_fail_allocation (long n) { fail_allocation = n; }
void heddle_sim_fail_call (long n) { fail_call = n; }
void heddle_sim_no_captures (int on) { no_captures = on; }
void heddle_sim_unaligned (void) { LOCK; n_unaligned++; }
void heddle_sim_limit (size_t bytes) { limit = bytes; }
void heddle_sim_schedule (const char *name) { set_schedule (name); }

long
heddle_sim_counter (const char *name)
{
  const struct { const char *name; long value; } all[] = { { "allocations", n_allocations }, { "launches", n_launches }, { "syncs", n_syncs }, { "graph_launches", n_graph_launches },
    { "operations", n_operations }, { "live", (long) live }, { "peak", (long) peak }, { "calls", n_calls }, { "failing", fail_call }, { "failing_allocation", fail_allocation },
    { "contexts", contexts }, { "unaligned", n_unaligned } };
  long value = -1;
  for (auto &c : all)
    if (!strcmp (c.name, name))
      value = c.value;
  return value;
}

/* ---- devices ---- */

static int devices (void) { return getenv ("HEDDLE_SIM_DEVICES") ? (int) number_of ("HEDDLE_SIM_DEVICES") : 1; }
static int capability (void) { return getenv ("HEDDLE_SIM_CAPABILITY") ? (int) number_of ("HEDDLE_SIM_CAPABILITY") : 90; }

cudaError_t cudaGetDeviceCount (int *n) { *n = devices (); return *n ? cudaSuccess : result (cudaErrorNoDevice); }
cudaError_t cudaGetDevice (int *d) { *d = current_device; return cudaSuccess; }

/* From CUDA 12 on the device's context is made here; before, by the next call that needs one. */
cudaError_t
cudaSetDevice (int d)
{
  LOCK;
  if (d < 0 || d >= devices ())
    return refuse (cudaErrorInvalidDevice, "no such device");
  current_context = current_device == d ? current_context : -1;
  current_device = d;
  if (CUDART_VERSION >= 12000)
    enter_context ();
  return cudaSuccess;
}
cudaError_t cudaInitDevice (int d, unsigned, unsigned) { return cudaSetDevice (d); }
cudaError_t cudaDriverGetVersion (int *v) { *v = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion (int *v) { *v = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaFree (void *);
cudaError_t cudaDeviceReset (void) { return cudaSuccess; }
cudaError_t cudaSetDeviceFlags (unsigned) { return cudaSuccess; }
cudaError_t cudaProfilerStart (void) { return cudaSuccess; }
cudaError_t cudaProfilerStop (void) { return cudaSuccess; }

cudaError_t
cudaDeviceGetAttribute (int *v, enum cudaDeviceAttr a, int)
{
  switch ((int) a)
    {
    case cudaDevAttrMultiProcessorCount: *v = 4; break;
    case cudaDevAttrWarpSize: *v = 32; break;
    case cudaDevAttrMaxThreadsPerBlock: *v = 1024; break;
    case cudaDevAttrMaxGridDimX: *v = 2147483647; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *v = 48 << 10; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *v = 48 << 10; break;
    case cudaDevAttrComputeCapabilityMajor: *v = capability () / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *v = capability () % 10; break;
    default: *v = 0; break;
    }
  return cudaSuccess;
}

cudaError_t
cudaGetDeviceProperties (struct cudaDeviceProp *p, int)
{
  memset (p, 0, sizeof *p);
  if (call_fails (false))
    return result (cudaErrorUnknown);
  snprintf (p->name, sizeof p->name, "simulated device");
  p->totalGlobalMem = limit;
  p->sharedMemPerBlock = 48 << 10;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->multiProcessorCount = 4;
  p->major = capability () / 10;
  p->minor = capability () % 10;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo (size_t *available, size_t *total) { ENTER; *total = limit; *available = limit > live ? limit - live : 0; return cudaSuccess; }
cudaError_t cudaDeviceGetPCIBusId (char *text, int n, int) { snprintf (text, (size_t) n, "0000:00:00.0"); return cudaSuccess; }

/* ---- errors ---- */

const char *
cudaGetErrorName (cudaError_t e)
{
  static const struct { cudaError_t e; const char *name; } names[] = {
#define N(x) { x, #x }
    N (cudaSuccess), N (cudaErrorInvalidValue), N (cudaErrorMemoryAllocation), N (cudaErrorInvalidConfiguration), N (cudaErrorLaunchFailure), N (cudaErrorIllegalAddress),
    N (cudaErrorInvalidDevice), N (cudaErrorNoDevice), N (cudaErrorInvalidKernelImage), N (cudaErrorSymbolNotFound), N (cudaErrorNotReady), N (cudaErrorUnknown),
    N (cudaErrorStreamCaptureUnsupported), N (cudaErrorStreamCaptureImplicit), N (cudaErrorStreamCaptureIsolation), N (cudaErrorStreamCaptureUnjoined), N (cudaErrorIllegalState),
    N (cudaErrorStreamCaptureInvalidated), N (cudaErrorStreamCaptureMerge), N (cudaErrorStreamCaptureWrongThread), N (cudaErrorCapturedEvent), N (cudaErrorDeviceUninitialized),
    N (cudaErrorNoKernelImageForDevice),
    N (cudaErrorLaunchOutOfResources), N (cudaErrorInvalidResourceHandle) };
  const char *name = "cudaErrorFake";
  for (auto &n : names)
    if (n.e == e)
      name = n.name;
  return name;
}

const char *cudaGetErrorString (cudaError_t e) { return e && message[0] ? message : cudaGetErrorName (e); }
cudaError_t cudaGetLastError (void) { cudaError_t e = last_error; last_error = sticky; return e; }
cudaError_t cudaPeekAtLastError (void) { return last_error; }

/* ---- memory ---- */

cudaError_t
cudaMalloc (void **p, size_t n)
{
  ENTER;
  *p = nullptr;
  if (unsafe_call ())
    return last_error;
  if (call_fails (true))
    return result (cudaErrorMemoryAllocation);
  *p = n ? device_alloc (n) : nullptr;
  return *p || !n ? cudaSuccess : refuse (cudaErrorMemoryAllocation, "out of memory");
}

cudaError_t
cudaFree (void *p)
{
  ENTER;
  if (!p)
    return cudaSuccess;
  if (unsafe_call ())
    return last_error;
  drain_all ();
  return device_free ((char *) p) ? cudaSuccess : refuse (cudaErrorInvalidValue, "cudaFree: not the beginning of a block");
}

cudaError_t
cudaHostAlloc (void **p, size_t n, unsigned)
{
  ENTER;
  *p = nullptr;
  if (unsafe_call ())
    return last_error;
  if (call_fails (true))
    return result (cudaErrorMemoryAllocation);
  *p = aligned_alloc (4096, (n + 4095) & ~(size_t) 4095);
  pinned ()[(char *) *p] = n;
  return cudaSuccess;
}

cudaError_t cudaMallocHost (void **p, size_t n) { return cudaHostAlloc (p, n, 0); }

/* Nothing says that it waits. */
static cudaError_t
let_go (char *p)
{
  auto it = pinned ().find (p);
  cudaError_t e = unsafe_call ();
  if (!e && it == pinned ().end ())
    e = refuse (cudaErrorInvalidValue, "not the beginning of pinned memory");
  else if (!e && in_flight (p, it->second))
    {
      e = refuse (cudaErrorInvalidValue, "pinned memory is given back while a copy from or to it is in flight");
      fprintf (stderr, "simulated device: %s\n", message);
    }
  if (!e)
    pinned ().erase (it);
  return e;
}

cudaError_t
cudaFreeHost (void *p)
{
  ENTER;
  if (p && let_go ((char *) p))
    return last_error;
  free (p);
  return cudaSuccess;
}

cudaError_t
cudaHostRegister (void *p, size_t n, unsigned)
{
  ENTER;
  if (unsafe_call ())
    return last_error;
  if (call_fails (true))
    return result (cudaErrorMemoryAllocation);
  pinned ()[(char *) p] = n;
  return cudaSuccess;
}
cudaError_t cudaHostUnregister (void *p) { ENTER; return let_go ((char *) p); }
cudaError_t cudaMallocAsync (void **p, size_t n, cudaStream_t) { return cudaMalloc (p, n); }

cudaError_t
cudaFreeAsync (void *p, cudaStream_t s)
{
  ENTER;
  Work work;
  work.run = [p] { return device_free ((char *) p) ? 0 : (int) cudaErrorInvalidValue; };
  return push (s, work);
}

static cudaMemcpyKind
kind_of (bool to_device, bool from_device)
{
  return to_device ? (from_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice) : (from_device ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost);
}

/* A host that reads what it copies to before it has waited sees 0xff; one that writes too early what it copies from changes what arrives. */
cudaError_t
cudaMemcpyAsync (void *to, const void *from, size_t n, enum cudaMemcpyKind kind, cudaStream_t st)
{
  ENTER;
  bool to_device = in_device (to, n), from_device = in_device (from, n);
  cudaMemcpyKind true_kind = kind_of (to_device, from_device);
  if (call_fails (false))
    return result (cudaErrorUnknown);
  if ((kind != cudaMemcpyDefault && kind != true_kind) || (region && ((!to_device && (char *) to >= region && (char *) to < region + used) || (!from_device && (const char *) from >= region && (const char *) from < region + used))))
    {
      snprintf (message, sizeof message, "memcpy of kind %d, %zu bytes: destination %s, source %s", (int) kind, n, to_device ? "device" : "host or out of bounds", from_device ? "device" : "host or out of bounds");
      return result (cudaErrorInvalidValue);
    }
  if (!is_stream (of (st)))
    return refuse (cudaErrorInvalidResourceHandle, "no such stream");
  Work work;
  const void *host = to_device ? from : to;
  work.what = "memcpy";
  work.run = [=] { memcpy (to, from, n); return 0; };
  if (true_kind != cudaMemcpyDeviceToDevice && in_pinned (host, n))
    {
      work.host = (const char *) host;
      work.bytes = n;
    }
  if (true_kind == cudaMemcpyHostToDevice && !in_pinned (from, n) && !of (st)->capture)
    {
      auto staged = std::make_shared<std::string> ((const char *) from, n);     /* pageable memory is read at the call */
      work.run = [=] { memcpy (to, staged->data (), n); return 0; };
    }
  if (true_kind == cudaMemcpyDeviceToHost)
    work.prepare = [=] { memset (to, 0xff, n); };
  cudaError_t e = push (st, work);
  if (!e && true_kind == cudaMemcpyDeviceToHost && !in_pinned (to, n) && !of (st)->capture)
    {
      drain (of (st), of (st)->handed);
      waited ();
    }
  return e ? e : result (sticky);
}

/* From pageable memory it returns when that has been read, between places on the device at once: the legacy stream has the rest before it. */
cudaError_t
cudaMemcpy (void *to, const void *from, size_t n, enum cudaMemcpyKind kind)
{
  ENTER;
  if (unsafe_call ())
    return last_error;
  cudaError_t e = cudaMemcpyAsync (to, from, n, kind, nullptr);
  if (!e && (!in_device (to, n) || in_pinned (from, n)))
    {
      drain (&null_stream, null_stream.handed);
      waited ();
    }
  return e ? e : result (sticky);
}

cudaError_t
cudaMemsetAsync (void *p, int value, size_t n, cudaStream_t st)
{
  ENTER;
  if (!in_device (p, n))
    return refuse (cudaErrorInvalidValue, "memset outside device memory");
  if (call_fails (false))
    return result (cudaErrorUnknown);
  Work work;
  work.what = "memset";
  work.run = [=] { memset (p, value, n); return 0; };
  return push (st, work);
}
/* does not wait for device memory */
cudaError_t cudaMemset (void *p, int value, size_t n) { ENTER; return unsafe_call () ? last_error : cudaMemsetAsync (p, value, n, nullptr); }

cudaError_t
cudaPointerGetAttributes (struct cudaPointerAttributes *a, const void *p)
{
  ENTER;
  memset (a, 0, sizeof *a);
  a->type = in_device (p, 1) ? cudaMemoryTypeDevice : in_pinned (p, 1) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
  return cudaSuccess;
}

/* ---- streams and events ---- */

cudaError_t
cudaStreamCreateWithFlags (cudaStream_t *s, unsigned flags)
{
  ENTER;
  if (call_fails (false))
    return result (cudaErrorUnknown);
  Stream *made = new Stream;
  made->nonblocking = flags & cudaStreamNonBlocking;
  made->device = current_device;
  streams ().push_back (made);
  *s = (cudaStream_t) made;
  return cudaSuccess;
}
cudaError_t cudaStreamCreate (cudaStream_t *s) { return cudaStreamCreateWithFlags (s, 0); }
cudaError_t cudaStreamCreateWithPriority (cudaStream_t *s, unsigned flags, int) { return cudaStreamCreateWithFlags (s, flags); }
cudaError_t cudaDeviceGetStreamPriorityRange (int *least, int *greatest) { *least = 0; *greatest = -5; return cudaSuccess; }

cudaError_t
cudaStreamDestroy (cudaStream_t s)
{
  ENTER;
  Stream *dead = of (s);
  if (!is_stream (dead))
    return refuse (cudaErrorInvalidResourceHandle, "cudaStreamDestroy: no such stream");
  drain (dead, dead->handed);
  for (size_t i = 0; i < streams ().size (); i++)
    if (streams ()[i] == dead)
      {
        streams ().erase (streams ().begin () + (long) i);
        delete dead;
        return cudaSuccess;
      }
  return refuse (cudaErrorInvalidResourceHandle, "cudaStreamDestroy: the legacy stream");
}

cudaError_t
cudaStreamSynchronize (cudaStream_t st)
{
  ENTER;
  Stream *s = of (st);
  if (!is_stream (s))
    return refuse (cudaErrorInvalidResourceHandle, "no such stream");
  if (s->capture)
    return spoil (s->capture, cudaErrorStreamCaptureUnsupported, "waiting for a stream that is captured");
  if (unsafe_call ())
    return last_error;
  if (call_fails (false))
    return result (cudaErrorUnknown);
  drain (s, s->handed);
  waited ();
  return result (sticky);
}

cudaError_t
cudaDeviceSynchronize (void)
{
  ENTER;
  if (unsafe_call ())
    return last_error;
  if (call_fails (false))
    return result (cudaErrorUnknown);
  drain_all ();
  waited ();
  return result (sticky);
}

cudaError_t
cudaStreamQuery (cudaStream_t st)
{
  ENTER;
  Stream *s = of (st);
  if (!is_stream (s))
    return refuse (cudaErrorInvalidResourceHandle, "no such stream");
  if (s->capture)
    return spoil (s->capture, cudaErrorStreamCaptureUnsupported, "asking after a stream that is captured");
  if (unsafe_call ())
    return last_error;
  if (!s->queue.empty ())
    run_front (s);
  return sticky ? result (sticky) : s->queue.empty () ? cudaSuccess : cudaErrorNotReady;
}

/* ---- events ---- */

static bool is_event (cudaEvent_t e) { return events ().count ((Event *) e) > 0; }

cudaError_t
cudaEventCreateWithFlags (cudaEvent_t *e, unsigned flags)
{
  ENTER;
  if (call_fails (false))
    return result (cudaErrorUnknown);
  Event *made = new Event;
  made->device = current_device;
  made->timed = !(flags & cudaEventDisableTiming);
  events ().insert (made);
  *e = (cudaEvent_t) made;
  return cudaSuccess;
}
cudaError_t cudaEventCreate (cudaEvent_t *e) { return cudaEventCreateWithFlags (e, 0); }

cudaError_t
cudaEventDestroy (cudaEvent_t e)
{
  ENTER;
  if (!events ().erase ((Event *) e))
    return refuse (cudaErrorInvalidResourceHandle, "cudaEventDestroy: no such event");
  delete (Event *) e;
  return cudaSuccess;
}

cudaError_t
cudaEventRecord (cudaEvent_t e, cudaStream_t st)
{
  ENTER;
  Event *event = (Event *) e;
  Stream *s = of (st);
  if (!is_event (e) || !is_stream (s))
    return refuse (cudaErrorInvalidResourceHandle, "cudaEventRecord: no such event or stream");
  if (s != &null_stream && event->device != s->device)
    return refuse (cudaErrorInvalidResourceHandle, "an event recorded on a stream of another device");
  if (call_fails (false))
    return result (cudaErrorUnknown);
  if (s->capture && s->capture->invalid)
    return refuse (cudaErrorStreamCaptureInvalidated, "the capture has failed before");
  event->captured = s->capture ? s->capture->number : 0;
  event->reach = s->capture ? s->reach : Reach ();
  event->state = nullptr;
  if (s->capture)
    return cudaSuccess;                  /* a graph's works are in one order anyway */
  event->state = std::make_shared<EventState> ();
  event->state->stream = s;
  event->state->number = s->handed + 1;
  Work work;
  work.signals = event->state;
  return push (st, work);
}
cudaError_t cudaEventRecordWithFlags (cudaEvent_t e, cudaStream_t st, unsigned) { return cudaEventRecord (e, st); }

/* The stream joins the capture that the event was recorded in, or one that it is in already waits for another of it. */
static cudaError_t
wait_captured (Stream *s, const Event *event)
{
  Graph *g = event->captured ? capture_of (event->captured) : nullptr;
  if (event->captured && !g)
    return refuse (cudaErrorCapturedEvent, "waiting for an event that was last recorded in a capture that is over");
  if (!g)
    return spoil (s->capture, cudaErrorStreamCaptureIsolation, "a captured stream waits for an event from outside the capture");
  if (s->capture && s->capture != g)
    return spoil (g, cudaErrorStreamCaptureMerge, "two captures are joined");
  if (g->invalid)
    return refuse (cudaErrorStreamCaptureInvalidated, "the capture has failed before");
  s->capture = g;
  for (auto &r : event->reach)
    s->reach[r.first] = std::max (s->reach[r.first], r.second);
  return cudaSuccess;
}

cudaError_t
cudaStreamWaitEvent (cudaStream_t st, cudaEvent_t e, unsigned)
{
  ENTER;
  Event *event = (Event *) e;
  Stream *s = of (st);
  if (!is_event (e) || !is_stream (s))
    return refuse (cudaErrorInvalidResourceHandle, "cudaStreamWaitEvent: no such event or stream");
  if (call_fails (false))
    return result (cudaErrorUnknown);
  if (event->captured || (s->capture && event->state))
    return wait_captured (s, event);
  if (!event->state)
    return cudaSuccess;
  Work work;
  work.waits = event->state;
  return push (st, work);
}

/* What is asked of an event here and now: it must not be part of a capture, and there must be none that forbids it. */
static cudaError_t
not_now (cudaEvent_t e)
{
  const Event *event = (const Event *) e;
  cudaError_t status = cudaSuccess;
  if (!is_event (e))
    status = refuse (cudaErrorInvalidResourceHandle, "no such event");
  else if (event->captured && capture_of (event->captured))
    status = spoil (capture_of (event->captured), cudaErrorCapturedEvent, "an event that was recorded in a capture");
  else if (event->captured)
    status = refuse (cudaErrorCapturedEvent, "an event that was recorded in a capture");
  else
    status = unsafe_call ();
  return status;
}

cudaError_t
cudaEventSynchronize (cudaEvent_t e)
{
  ENTER;
  Event *event = (Event *) e;
  if (not_now (e))
    return last_error;
  if (call_fails (false))
    return result (cudaErrorUnknown);
  if (event->state && !event->state->done)
    drain (event->state->stream, event->state->number);
  waited ();
  return result (sticky);
}

cudaError_t
cudaEventQuery (cudaEvent_t e)
{
  ENTER;
  Event *event = (Event *) e;
  if (not_now (e))
    return last_error;
  if (call_fails (false))
    return result (cudaErrorUnknown);
  bool done = !event->state || event->state->done;
  if (!done)
    run_front (event->state->stream);
  return sticky ? result (sticky) : done ? cudaSuccess : result (cudaErrorNotReady);
}

cudaError_t
cudaEventElapsedTime (float *ms, cudaEvent_t from, cudaEvent_t to)
{
  ENTER;
  Event *a = (Event *) from, *b = (Event *) to;
  if (!is_event (from) || !is_event (to) || !a->timed || !b->timed || a->device != b->device)
    return refuse (cudaErrorInvalidResourceHandle, "no such events, or they have no times, or are of two devices");
  if (not_now (from) || not_now (to))
    return last_error;
  if (!a->state || !b->state)
    return refuse (cudaErrorInvalidResourceHandle, "an event that was never recorded");
  if (!a->state->done || !b->state->done)
    return cudaErrorNotReady;
  *ms = (float) (b->state->time - a->state->time);
  return cudaSuccess;
}

/* The host function runs when the stream gets to it; it must not touch the device. */
cudaError_t
cudaLaunchHostFunc (cudaStream_t st, cudaHostFn_t f, void *data)
{
  ENTER;
  Work work;
  work.run = [=] { f (data); return 0; };
  return push (st, work);
}

/* ---- graphs: what was captured, in the order in which it was handed over ---- */

cudaError_t
cudaStreamBeginCapture (cudaStream_t st, enum cudaStreamCaptureMode mode)
{
  static unsigned long number;
  ENTER;
  Stream *s = of (st);
  if (!is_stream (s) || s == &null_stream || s->capture)
    return refuse (cudaErrorIllegalState, "this stream cannot be captured now");
  if (call_fails (false))
    return result (cudaErrorUnknown);
  s->capture = new Graph;
  s->capture->mode = mode;
  s->capture->thread = std::this_thread::get_id ();
  s->capture->number = ++number;
  s->origin = true;
  captures ().push_back (s->capture);
  n_graphs++;
  return cudaSuccess;
}

/* Every stream of the capture must have been waited for, in the end, by the one that it began on. */
static bool
all_joined (const Stream *origin)
{
  bool joined = true;
  for (Stream *other : streams ())
    if (other != origin && other->capture == origin->capture)
      {
        auto seen = origin->reach.find (other);
        joined = joined && (seen == origin->reach.end () ? 0 : seen->second) == other->reach[other] && seen != origin->reach.end ();
      }
  return joined;
}

static void
leave_capture (Graph *graph)
{
  for (Stream *s : streams ())
    if (s->capture == graph)
      {
        s->capture = nullptr;
        s->origin = false;
        s->reach.clear ();
      }
  for (size_t i = 0; i < captures ().size (); i++)
    if (captures ()[i] == graph)
      captures ().erase (captures ().begin () + (long) i--);
}

cudaError_t
cudaStreamEndCapture (cudaStream_t st, cudaGraph_t *g)
{
  ENTER;
  Stream *s = of (st);
  *g = nullptr;
  if (!is_stream (s) || !s->capture || !s->origin)
    return refuse (cudaErrorIllegalState, "this stream is not captured, or its capture began on another");
  Graph *graph = s->capture;
  if (graph->mode != cudaStreamCaptureModeRelaxed && graph->thread != std::this_thread::get_id ())
    return refuse (cudaErrorStreamCaptureWrongThread, "a capture is ended by another thread than began it");
  cudaError_t e = cudaSuccess;
  if (graph->invalid)
    e = refuse (cudaErrorStreamCaptureInvalidated, "the capture has failed before");
  else if (!all_joined (s))
    e = refuse (cudaErrorStreamCaptureUnjoined, "a stream of the capture was not waited for");
  else if (call_fails (false))
    e = result (cudaErrorUnknown);
  leave_capture (graph);
  if (e)
    {
      delete graph;
      n_graphs--;
    }
  else
    *g = (cudaGraph_t) graph;
  return e;
}

cudaError_t
cudaStreamIsCapturing (cudaStream_t st, enum cudaStreamCaptureStatus *status)
{
  ENTER;
  const Graph *g = of (st)->capture;
  *status = !g ? cudaStreamCaptureStatusNone : g->invalid ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t
cudaThreadExchangeStreamCaptureMode (enum cudaStreamCaptureMode *mode)
{
  int before = thread_mode;
  thread_mode = *mode;
  *mode = (enum cudaStreamCaptureMode) before;
  return cudaSuccess;
}

cudaError_t
cudaGraphInstantiateWithFlags (cudaGraphExec_t *e, cudaGraph_t g, unsigned long long)
{
  ENTER;
  *e = nullptr;
  if (call_fails (false))
    return result (cudaErrorMemoryAllocation);
  *e = (cudaGraphExec_t) new Graph (*(Graph *) g);
  n_graphs++;
  return cudaSuccess;
}
#if CUDART_VERSION >= 12000
cudaError_t cudaGraphInstantiate (cudaGraphExec_t *e, cudaGraph_t g, unsigned long long flags) { return cudaGraphInstantiateWithFlags (e, g, flags); }
#else
cudaError_t cudaGraphInstantiate (cudaGraphExec_t *e, cudaGraph_t g, cudaGraphNode_t *, char *, size_t) { return cudaGraphInstantiateWithFlags (e, g, 0); }
#endif
cudaError_t cudaGraphUpload (cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }

cudaError_t
cudaGraphGetNodes (cudaGraph_t g, cudaGraphNode_t *, size_t *n)
{
  *n = ((Graph *) g)->works.size ();
  return cudaSuccess;
}

cudaError_t
cudaGraphLaunch (cudaGraphExec_t e, cudaStream_t s)
{
  ENTER;
  if (!e)
    return refuse (cudaErrorInvalidValue, "cudaGraphLaunch: no graph");
  cudaError_t status = call_fails (false) ? result (cudaErrorUnknown) : cudaSuccess;
  n_graph_launches++;
  for (auto &work : ((Graph *) e)->works)
    if (!status)
      status = push (s, work);
  return status;
}
cudaError_t cudaGraphDestroy (cudaGraph_t g) { ENTER; delete (Graph *) g; n_graphs--; return cudaSuccess; }
cudaError_t cudaGraphExecDestroy (cudaGraphExec_t e) { ENTER; drain_all (); delete (Graph *) e; n_graphs--; return cudaSuccess; }

/* ---- kernels: from the runtime, and as driver functions for runtimes that have no libraries of kernels ---- */

#if CUDART_VERSION >= 12080
cudaError_t
cudaLibraryLoadData (cudaLibrary_t *l, const void *code, enum cudaJitOption *, void **, unsigned, enum cudaLibraryOption *, void **, unsigned)
{
  ENTER;
  *l = nullptr;
  if (unsafe_call ())
    return last_error;
  cudaError_t e = call_fails (false) ? result (cudaErrorMemoryAllocation) : open_kernels (code);
  if (!e)
    *l = (cudaLibrary_t) image_number (code);
  return e;
}
cudaError_t cudaLibraryUnload (cudaLibrary_t) { ENTER; return unsafe_call (); }

cudaError_t
cudaLibraryGetKernel (cudaKernel_t *k, cudaLibrary_t library, const char *name)
{
  ENTER;
  *k = nullptr;
  if (call_fails (false))
    return result (cudaErrorUnknown);
  *k = (cudaKernel_t) find_kernel ((size_t) library, name);
  return *k ? cudaSuccess : refuse (cudaErrorSymbolNotFound, name);
}
#endif

cudaError_t
cudaLaunchKernel (const void *f, dim3 grid, dim3 block, void **arguments, size_t dynamic, cudaStream_t st)
{
  ENTER;
  return call_fails (false) ? result (cudaErrorUnknown) : launch_kernel ((const simt::Kernel *) f, grid, block, arguments, dynamic, st);
}
cudaError_t cudaFuncSetAttribute (const void *, enum cudaFuncAttribute, int) { return cudaSuccess; }
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor (int *n, const void *, int, size_t) { *n = 1; return cudaSuccess; }

static int driver_version (int *v) { *v = CUDART_VERSION; return 0; }
/* The driver's functions work in the context that is current in the thread: they make none. */
#define IN_CONTEXT LOCK; if (current_context != current_device) return (int) refuse (cudaErrorDeviceUninitialized, "the thread has no context of its device")

static int
driver_load (void **m, const void *code)
{
  IN_CONTEXT;
  int e = unsafe_call () ? (int) last_error : call_fails (false) ? (int) cudaErrorMemoryAllocation : (int) open_kernels (code);
  *m = e ? nullptr : (void *) image_number (code);
  return e;
}
static int driver_load_options (void **m, const void *code, unsigned, void *, void **) { return driver_load (m, code); }
static int driver_unload (void *) { IN_CONTEXT; return (int) unsafe_call (); }

static int
driver_function (void **f, void *module, const char *name)
{
  IN_CONTEXT;
  if (unsafe_call ())
    return (int) last_error;
  if (call_fails (false))
    return (int) result (cudaErrorUnknown);
  *f = (void *) find_kernel ((size_t) module, name);
  return *f ? 0 : (int) refuse (cudaErrorSymbolNotFound, name);
}

static int
driver_launch (void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned dynamic, cudaStream_t st, void **arguments, void **)
{
  IN_CONTEXT;
  return (int) cudaLaunchKernel (f, dim3 (gx, gy, gz), dim3 (bx, by, bz), arguments, dynamic, st);
}
static int driver_error_name (int e, const char **text) { *text = cudaGetErrorName ((cudaError_t) e); return 0; }
static int driver_error_string (int e, const char **text) { *text = cudaGetErrorString ((cudaError_t) e); return 0; }

static void *
driver_entry (const char *name)
{
  const struct { const char *name; void *f; } all[] = { { "cuDriverGetVersion", (void *) driver_version }, { "cuModuleLoadData", (void *) driver_load },
    { "cuModuleLoadDataEx", (void *) driver_load_options }, { "cuModuleUnload", (void *) driver_unload }, { "cuModuleGetFunction", (void *) driver_function },
    { "cuLaunchKernel", (void *) driver_launch }, { "cuGetErrorName", (void *) driver_error_name }, { "cuGetErrorString", (void *) driver_error_string } };
  void *found = nullptr;
  for (auto &f : all)
    if (!strcmp (f.name, name))
      found = f.f;
  return found;
}

#if CUDART_VERSION >= 12000
static cudaError_t
entry_point (const char *name, void **f, enum cudaDriverEntryPointQueryResult *answer)
{
  *f = driver_entry (name);
  if (answer)
    *answer = *f ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return *f ? cudaSuccess : result (cudaErrorSymbolNotFound);
}
cudaError_t cudaGetDriverEntryPoint (const char *name, void **f, unsigned long long, enum cudaDriverEntryPointQueryResult *answer) { return entry_point (name, f, answer); }
#else
cudaError_t cudaGetDriverEntryPoint (const char *name, void **f, unsigned long long) { *f = driver_entry (name); return *f ? cudaSuccess : result (cudaErrorSymbolNotFound); }
#endif
#if CUDART_VERSION >= 12050
cudaError_t cudaGetDriverEntryPointByVersion (const char *name, void **f, unsigned, unsigned long long, enum cudaDriverEntryPointQueryResult *answer) { return entry_point (name, f, answer); }
#endif
}

__attribute__ ((destructor)) static void
report (void)
{
  bool leaks = !blocks ().empty () || !pinned ().empty () || !streams ().empty () || !events ().empty () || n_graphs;
  if (leaks)
    fprintf (stderr, "simulated device: never given back: %zu blocks of device memory (%zu bytes), %zu of pinned memory, %zu streams, %zu events, %ld graphs\n", blocks ().size (), live,
             pinned ().size (), streams ().size (), events ().size (), n_graphs);
  if (getenv ("HEDDLE_SIM_STATS"))
    fprintf (stderr, "simulated device: %ld operations, %ld kernels run, %ld graph launches, %ld waits, peak %zu bytes\n", n_operations, n_launches, n_graph_launches, n_syncs, peak);
  if (leaks && number_of ("HEDDLE_SIM_STRICT"))
    {
      fflush (stderr);
      _exit (86);
    }
}
