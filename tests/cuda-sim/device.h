/* cuda-sim/device.h: the insides of the simulated device: memory, streams, schedules.  Private to fake-cudart.cpp. */
#pragma once
#include "simt.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#undef warpSize
#include "fake.h"
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>
#include <dlfcn.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(p, n) __asan_poison_memory_region (p, n)
#define UNPOISON(p, n) __asan_unpoison_memory_region (p, n)
#else
#define POISON(p, n) ((void) 0)
#define UNPOISON(p, n) ((void) 0)
#endif

struct Stream;
struct Graph;
struct EventState { bool done = false; Stream *stream = nullptr; size_t number = 0; double time = 0; };
/* PREPARE runs when the work is handed over, RUN when it is executed; it reads or writes BYTES of pinned memory at HOST. */
struct Work
{
  std::function<void ()> prepare;
  std::function<int ()> run;
  std::shared_ptr<EventState> waits, signals;
  const char *what = "", *host = nullptr;
  size_t bytes = 0;
};
/* How much of the work of each stream of a capture comes before something. */
typedef std::map<Stream *, size_t> Reach;
struct Stream { std::deque<Work> queue; size_t handed = 0, done = 0; bool nonblocking = false; int device = 0; Graph *capture = nullptr; bool origin = false; Reach reach; };
struct Event { std::shared_ptr<EventState> state; unsigned long captured = 0; Reach reach; int device = 0; bool timed = true; };
/* MODE, THREAD, NUMBER (from 1) and INVALID: of its capture */
struct Graph { std::vector<Work> works; int mode = 0; std::thread::id thread; unsigned long number = 0; bool invalid = false; };

typedef std::recursive_mutex Mutex;
static Mutex &mutex () { static Mutex *m = new Mutex; return *m; }
#define LOCK std::lock_guard<Mutex> guard (mutex ())
/* of a call that needs a context: it makes one on the thread's device, and that one current */
#define ENTER LOCK; enter_context ()

static Stream null_stream;
static std::vector<Stream *> &streams () { static auto *s = new std::vector<Stream *>; return *s; }
static std::set<Event *> &events () { static auto *s = new std::set<Event *>; return *s; }
/* under capture now */
static std::vector<Graph *> &captures () { static auto *g = new std::vector<Graph *>; return *g; }
static thread_local cudaError_t last_error;
static cudaError_t sticky;
static char message[512];
static long n_allocations, n_launches, n_syncs, n_graph_launches, n_operations, n_calls, fail_allocation, fail_call, n_graphs, contexts, n_unaligned;
static bool no_captures;               /* a test's wish: nothing that is launched can be captured */
/* each thread has its own device, 0 at first, and a context only once something asked for one */
static thread_local int current_device, current_context = -1;
static thread_local int thread_mode = cudaStreamCaptureModeGlobal;

static void
enter_context (void)
{
  current_context = current_device;
  contexts |= 1l << current_device;
}

static cudaError_t
result (cudaError_t e)
{
  if (e)
    last_error = e;
  return e;
}

static cudaError_t
refuse (cudaError_t e, const char *text)
{
  snprintf (message, sizeof message, "%s", text);
  return result (e);
}

/* Every call that a real runtime may refuse goes through here. */
static bool
call_fails (bool allocation)
{
  n_calls++;
  bool fails = fail_call && --fail_call == 0;
  if (allocation)
    {
      n_allocations++;
      if (fail_allocation && --fail_allocation == 0)
        fails = true;
    }
  if (fails)
    snprintf (message, sizeof message, "made to fail by the simulated device");
  return fails;
}

/* ---- device memory: one region, with red zones between the blocks ---- */

static const size_t ZONE = 256, REGION = (size_t) 8 << 30;
static const unsigned char ZONE_BYTE = 0xa7;
struct Block { size_t bytes, room; };
static char *region;
static std::map<char *, Block> &blocks () { static auto *m = new std::map<char *, Block>; return *m; }
static std::map<char *, size_t> &pinned () { static auto *m = new std::map<char *, size_t>; return *m; }
static size_t live, peak, used, limit = (size_t) 2 << 30;
static int open_depth;

static void
region_open (void)
{
  if (region && open_depth++ == 0)
    mprotect (region, used, PROT_READ | PROT_WRITE);
}

static void
region_close (void)
{
  if (region && --open_depth == 0)
    mprotect (region, used, PROT_NONE);
}

/* First fit; the region only grows. */
static char *
region_place (size_t room)
{
  char *at = region;
  for (auto &b : blocks ())
    if ((size_t) (b.first - ZONE - at) >= room)
      break;
    else
      at = b.first + b.second.room - ZONE;
  return at;
}

static char *
device_alloc (size_t bytes)
{
  size_t room = ((bytes + 255) & ~(size_t) 255) + 2 * ZONE;
  if (!region)
    region = (char *) mmap (nullptr, REGION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  char *at = live + bytes <= limit ? region_place (room) : nullptr, *block = nullptr;
  if (at && (size_t) (at - region) + room <= REGION)
    {
      size_t end = (size_t) (at - region) + room;
      if (end > used)
        {
          if (open_depth)
            mprotect (region, end, PROT_READ | PROT_WRITE);
          used = end;
        }
      region_open ();
      UNPOISON (at, room);
      memset (at, ZONE_BYTE, room);
      block = at + ZONE;
      memset (block, 0xff, bytes);                /* NaN: whoever reads before writing sees it */
      POISON (at, ZONE);
      POISON (block + bytes, room - ZONE - bytes);
      region_close ();
      blocks ()[block] = { bytes, room };
      live += bytes;
      peak = live > peak ? live : peak;
    }
  return block;
}

static void
check_zones (void)
{
#if !defined(__SANITIZE_ADDRESS__)
  region_open ();
  for (auto &b : blocks ())
    for (size_t i = 0; i < b.second.room - b.second.bytes && !sticky; i++)
      {
        unsigned char *p = (unsigned char *) (i < ZONE ? b.first - ZONE + i : b.first + b.second.bytes + i - ZONE);
        if (*p != ZONE_BYTE)
          {
            snprintf (message, sizeof message, "a store out of bounds: byte %zd %s a block of %zu bytes of device memory", i < ZONE ? (ssize_t) (ZONE - i) : (ssize_t) (i - ZONE + 1),
                      i < ZONE ? "before" : "after the end of", b.second.bytes);
            sticky = cudaErrorIllegalAddress;
          }
      }
  region_close ();
#endif
}

static bool
device_free (char *p)
{
  auto it = blocks ().find (p);
  bool known = it != blocks ().end ();
  if (known)
    {
      check_zones ();
      live -= it->second.bytes;
      POISON (p, it->second.bytes);
      blocks ().erase (it);
    }
  return known;
}

static bool
in_device (const void *p, size_t n)
{
  auto it = blocks ().upper_bound ((char *) p);
  bool inside = it != blocks ().begin ();
  if (inside)
    {
      --it;
      inside = (char *) p + n <= it->first + it->second.bytes;
    }
  return inside;
}

static bool
in_pinned (const void *p, size_t n)
{
  auto it = pinned ().upper_bound ((char *) p);
  bool inside = it != pinned ().begin ();
  if (inside)
    {
      --it;
      inside = (char *) p + n <= it->first + it->second;
    }
  return inside;
}

/* ---- streams ---- */

enum Schedule { LAZY, EAGER, GREEDY, RANDOM };
static Schedule schedule;
static unsigned long long random_state = 88172645463325252ull;

static unsigned
random_number (void)
{
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (unsigned) (random_state >> 11);
}

static double
now (void)
{
  timespec t;
  clock_gettime (CLOCK_MONOTONIC, &t);
  return (double) t.tv_sec * 1e3 + (double) t.tv_nsec * 1e-6;
}

static Stream *of (cudaStream_t s) { return !s || s == cudaStreamLegacy || s == cudaStreamPerThread ? &null_stream : (Stream *) s; }
static void drain (Stream *s, size_t upto);

static bool
is_stream (const Stream *s)
{
  bool known = s == &null_stream;
  for (size_t i = 0; i < streams ().size () && !known; i++)
    known = streams ()[i] == s;
  return known;
}

/* The I-th stream, from 0; the legacy one is the last. */
static Stream *stream_at (size_t i) { return i < streams ().size () ? streams ()[i] : &null_stream; }

/* A wait stays in front of its stream until it is over: while the other stream is driven nothing behind it may run.  It may be over, and run, by then. */
static void
run_front (Stream *s)
{
  size_t done = s->done;
  auto waits = s->queue.front ().waits;
  if (waits && !waits->done && waits->stream)
    drain (waits->stream, waits->number);
  if (s->done != done || s->queue.empty ())
    return;
  Work work = std::move (s->queue.front ());
  s->queue.pop_front ();
  if (work.run && !sticky)
    {
      region_open ();
      int e = work.run ();
      region_close ();
      if (e)
        sticky = (cudaError_t) e;
    }
  if (work.signals)
    {
      work.signals->done = true;
      work.signals->time = now ();
    }
  s->done++;
}

static bool
may_run (Stream *s)
{
  return !s->queue.empty () && (!s->queue.front ().waits || s->queue.front ().waits->done);
}

static void
others_first (Stream *s)
{
  bool any = schedule == GREEDY;
  while (any)
    {
      any = false;
      for (size_t i = 0; i <= streams ().size (); i++)
        while (stream_at (i) != s && may_run (stream_at (i)))
          {
            run_front (stream_at (i));
            any = true;
          }
    }
}

static void
drain (Stream *s, size_t upto)
{
  region_open ();
  while (s->done < upto && !s->queue.empty ())
    {
      others_first (s);
      if (s->done < upto && !s->queue.empty ())
        run_front (s);
    }
  region_close ();
}

static void
drain_all (void)
{
  for (size_t i = 0; i <= streams ().size (); i++)
    drain (stream_at (i), stream_at (i)->handed);
}

static void
waited (void)
{
  n_syncs++;
  check_zones ();
}

static void
after_push (Stream *s)
{
  if (schedule == EAGER)
    drain (s, s->handed);
  for (int i = (int) (schedule == RANDOM ? random_number () % 4 : 0); i > 0; i--)
    {
      Stream *lucky = stream_at (random_number () % (streams ().size () + 1));
      if (may_run (lucky))
        run_front (lucky);
    }
}

/* ---- captures: what may not be called while one goes on, and by whom ---- */

static Graph *
capture_of (unsigned long number)
{
  Graph *found = nullptr;
  for (Graph *g : captures ())
    found = g->number == number ? g : found;
  return found;
}

/* An operation that a capture does not allow ends it: all that follows fails until cudaStreamEndCapture. */
static cudaError_t
spoil (Graph *g, cudaError_t e, const char *text)
{
  g->invalid = true;
  return refuse (e, text);
}

/* A call that waits, allocates or loads: "potentially unsafe" in the words of cudaThreadExchangeStreamCaptureMode. */
static cudaError_t
unsafe_call (void)
{
  cudaError_t e = cudaSuccess;
  for (Graph *g : captures ())
    if (thread_mode != cudaStreamCaptureModeRelaxed && g->mode != cudaStreamCaptureModeRelaxed
        && (g->thread == std::this_thread::get_id () || (g->mode == cudaStreamCaptureModeGlobal && thread_mode == cudaStreamCaptureModeGlobal)))
      e = spoil (g, cudaErrorStreamCaptureUnsupported, "a call that waits, allocates or loads while a stream is captured");
  return e;
}

static cudaError_t
capture_work (Stream *s, Work work)
{
  Graph *g = s->capture;
  if (g->invalid)
    return refuse (cudaErrorStreamCaptureInvalidated, "the capture has failed before");
  if (no_captures && work.run)
    return spoil (g, cudaErrorStreamCaptureUnsupported, "made incapturable by the simulated device");
  s->reach[s]++;
  g->works.push_back (std::move (work));
  return cudaSuccess;
}

/* The legacy stream and those that are not cudaStreamNonBlocking wait for each other. */
static void
heed_legacy (Stream *s)
{
  for (size_t i = 0; s == &null_stream && i < streams ().size (); i++)
    if (!streams ()[i]->nonblocking)
      drain (streams ()[i], streams ()[i]->handed);
  if (s != &null_stream && !s->nonblocking)
    drain (&null_stream, null_stream.handed);
}

static cudaError_t
push (cudaStream_t st, Work work)
{
  Stream *s = of (st);
  n_operations++;
  if (sticky)
    return result (sticky);
  if (!is_stream (s))
    return refuse (cudaErrorInvalidResourceHandle, "no such stream");
  if (s->capture)
    return capture_work (s, std::move (work));
  if (s == &null_stream && !captures ().empty ())
    return spoil (captures ()[0], cudaErrorStreamCaptureImplicit, "work for the legacy stream while another stream is captured");
  heed_legacy (s);
  if (work.prepare)
    work.prepare ();
  s->queue.push_back (std::move (work));
  s->handed++;
  after_push (s);
  return result (sticky);
}

/* Is there work that is not done and reads or writes pinned memory in [P, P + N)? */
static bool
in_flight (const char *p, size_t n)
{
  bool found = false;
  for (size_t i = 0; i <= streams ().size (); i++)
    for (const Work &w : stream_at (i)->queue)
      found |= w.host && w.host < p + n && p < w.host + w.bytes;
  return found;
}

static bool
set_schedule (const char *name)
{
  static const char *const names[] = { "lazy", "eager", "greedy", "random" };
  bool known = false;
  for (int i = 0; name && i < 4; i++)
    if (!strncmp (name, names[i], strlen (names[i])))
      {
        schedule = (Schedule) i;
        known = true;
        if (i == RANDOM && name[6] == ':')
          random_state += strtoull (name + 7, nullptr, 10) * 2654435761u;
      }
  return known;
}

static long
number_of (const char *variable)
{
  const char *text = getenv (variable);
  return text ? atol (text) : 0;
}

__attribute__ ((constructor)) static void
configure (void)
{
  const char *wish = getenv ("HEDDLE_SIM_SCHEDULE");
  if (wish && !set_schedule (wish))
    fprintf (stderr, "simulated device: HEDDLE_SIM_SCHEDULE: lazy, eager, greedy, random or random:SEED, not \"%s\"\n", wish);
  fail_allocation = number_of ("HEDDLE_SIM_FAIL_ALLOCATION");
  fail_call = number_of ("HEDDLE_SIM_FAIL_CALL");
  if (getenv ("HEDDLE_SIM_MEMORY"))
    limit = strtoull (getenv ("HEDDLE_SIM_MEMORY"), nullptr, 10);
}

/* ---- kernels ---- */

static simt::Kernel *(*registry) (void);
static int (*launch) (const simt::Kernel *, dim3, dim3, void **, size_t, char *, size_t);

/* What fake-nvrtc.cpp compiled: a host library, whose kernels enter the same list when it is opened. */
static cudaError_t
open_generated (const void *code)
{
  const Elf64_Ehdr *head = (const Elf64_Ehdr *) code;
  size_t n = head->e_shoff + (size_t) head->e_shnum * head->e_shentsize;        /* the table of sections comes last */
  int fd = memfd_create ("kernel", 0);
  char path[64];
  snprintf (path, sizeof path, "/proc/self/fd/%d", fd);
  bool ok = fd >= 0 && write (fd, code, n) == (ssize_t) n && dlopen (path, RTLD_NOW | RTLD_LOCAL);
  if (fd >= 0 && !ok)
    close (fd);                 /* one that is open keeps its name, by which the loader would take the next for the same */
  return ok ? cudaSuccess : refuse (cudaErrorInvalidKernelImage, dlerror ());
}

static cudaError_t
open_own ()
{
  const char *file = getenv ("HEDDLE_SIM_KERNELS");
  void *handle = file ? dlopen (file, RTLD_NOW | RTLD_GLOBAL) : nullptr;
  if (!handle)
    return refuse (cudaErrorInvalidKernelImage, file ? dlerror () : "HEDDLE_SIM_KERNELS names no file");
  registry = (simt::Kernel * (*) (void)) dlsym (handle, "simt_registry");
  launch = (decltype (launch)) dlsym (handle, "simt_launch");
  return registry && launch ? cudaSuccess : refuse (cudaErrorInvalidKernelImage, "HEDDLE_SIM_KERNELS: no kernels in that file");
}

static cudaError_t
open_kernels (const void *code)
{
  unsigned magic;
  memcpy (&magic, code, 4);
  bool generated = magic == 0x464c457fu;
  if (magic != 0xba55ed50u && magic != 0x466243b1u && !generated)
    return refuse (cudaErrorInvalidKernelImage, "not a fatbin");
  cudaError_t e = generated && registry ? cudaSuccess : open_own ();
  return generated && !e ? open_generated (code) : e;
}

/* Handles of images are numbers, from 1.  Kernels of the module itself are spread over its images, all loaded before the first of them is asked for; a generated image has what it is asked for. */
static std::vector<const void *> &own_images () { static auto *v = new std::vector<const void *>; return *v; }
static const size_t GENERATED = 1000000;

static size_t
image_number (const void *code)
{
  unsigned magic;
  memcpy (&magic, code, 4);
  size_t i = 0;
  while (i < own_images ().size () && own_images ()[i] != code)
    i++;
  if (magic != 0x464c457fu && i == own_images ().size ())
    own_images ().push_back (code);
  return magic == 0x464c457fu ? GENERATED : i + 1;
}

static const simt::Kernel *
find_kernel (size_t image, const char *name)
{
  const simt::Kernel *found = nullptr;
  size_t sum = 0;
  for (const char *c = name; *c; c++)
    sum = sum * 31 + (unsigned char) *c;
  bool here = image == GENERATED || sum % own_images ().size () == image - 1;
  for (const simt::Kernel *k = registry ? registry () : nullptr; here && k && !found; k = k->next)
    if (!strcmp (k->name, name))
      found = k;
  return found;
}

/* Code is loaded when a kernel is launched for the first time; in a capture that may be too late. */
static cudaError_t
load_kernel (const simt::Kernel *k, Stream *s)
{
  static auto *loaded = new std::set<std::pair<int, const simt::Kernel *>>;
  bool late = s->capture && !loaded->count ({ current_device, k });
  if (!late)
    loaded->insert ({ current_device, k });
  return late ? spoil (s->capture, cudaErrorStreamCaptureUnsupported, "a kernel that has never run is launched while a stream is captured") : cudaSuccess;
}

static const char *
launch_fault (const simt::Kernel *k, dim3 grid, dim3 block, size_t dynamic)
{
  size_t parameters = 0;
  for (int i = 0; i < k->n; i++)
    parameters += (k->sizes[i] + 7) & ~(size_t) 7;
  const char *text = nullptr;
  if ((size_t) block.x * block.y * block.z > 1024 || !block.x || !block.y || !block.z || block.z > 64 || !grid.x || grid.x > 0x7fffffff || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535)
    text = "a grid or block of impossible size";
  else if (dynamic > 48 << 10)
    text = "more than 48 KiB of shared memory";
  else if (parameters > 4096)
    text = "more than 4096 bytes of parameters";        /* before CUDA 12.1 */
  return text;
}

static cudaError_t
launch_kernel (const simt::Kernel *k, dim3 grid, dim3 block, void **arguments, size_t dynamic, cudaStream_t stream)
{
  Stream *s = of (stream);
  const char *fault = launch_fault (k, grid, block, dynamic);
  if (fault)
    return refuse (cudaErrorInvalidConfiguration, fault);
  if (is_stream (s) && s != &null_stream && s->device != current_device)
    return refuse (cudaErrorInvalidResourceHandle, "a launch on a stream of another device than the thread's");
  if (is_stream (s) && load_kernel (k, s))
    return last_error;
  auto kept = std::make_shared<std::vector<std::vector<char>>> ();
  for (int i = 0; i < k->n; i++)                  /* arguments are read at the call, as the driver does */
    kept->emplace_back ((char *) arguments[i], (char *) arguments[i] + k->sizes[i]);
  Work work;
  work.what = k->name;
  work.run = [=] {
    std::vector<void *> pointers;
    for (auto &bytes : *kept)
      pointers.push_back (bytes.data ());
    char text[384] = "";
    n_launches++;
    int status = launch (k, grid, block, pointers.data (), dynamic, text, sizeof text);
    if (status)
      snprintf (message, sizeof message, "%s: %s", k->name, text);
    return status;
  };
  return push (stream, work);
}

