/* cuda-sim/simt.cpp: runs one block after another; a thread is a fibre from its first barrier on.  Must not know any kernel. */
#include "simt.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#undef warpSize
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>
#include <sys/mman.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define ASAN 1
#else
#define ASAN 0
#endif

namespace simt
{
Thread *cur;
uint3 block_index;
dim3 block_size, grid_size;
char *dynamic_memory;
uint64_t slots[2][32][32];

static Kernel *registry;
extern "C" Kernel *simt_registry (void) { return registry; }
extern "C" void simt_register (Kernel *kernel) { kernel->next = registry; registry = kernel; }

enum { WAITS_NOT, WAITS_FOR_BLOCK, WAITS_FOR_WARP, DONE };

/* A stack.  It runs threads that have not begun, one after another, and belongs to a thread from the moment that it waits until it is done. */
struct Fibre { void *sp; char *stack; bool idle; };

static const size_t STACK = 256 << 10;
static std::vector<Fibre *> &pool = *new std::vector<Fibre *>;     /* never destroyed: leak checkers find the fibres through it */
static void *main_sp;
#if ASAN
static void *main_fake;
static const void *main_bottom;
static size_t main_size;
#endif

/* the block in hand */
static Entry entry;
static void **arguments;
static std::vector<Thread> threads;
static std::vector<unsigned> order;
static size_t begun, left;

/* saves the registers a callee must keep, changes stacks */
extern "C" void simt_switch (void **save, void *to);
#if defined(__x86_64__)
__asm__ (".text\n.globl simt_switch\n.hidden simt_switch\nsimt_switch:\n push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
         " mov %rsp,(%rdi)\n mov %rsi,%rsp\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");
#else
#error "the simulated device is written for x86-64"
#endif

static void
to_main (Fibre *f)
{
#if ASAN
  void *fake = nullptr;
  __sanitizer_start_switch_fiber (&fake, main_bottom, main_size);
#endif
  simt_switch (&f->sp, main_sp);
#if ASAN
  __sanitizer_finish_switch_fiber (fake, &main_bottom, &main_size);
#endif
}

static Fibre *running;

static void
fibre_body (void)
{
  Fibre *self = running;
#if ASAN
  __sanitizer_finish_switch_fiber (nullptr, &main_bottom, &main_size);
#endif
  for (;;)
    {
      while (begun < order.size ())
        {
          cur = &threads[order[begun++]];
          cur->fibre = self;
          entry (arguments);
          cur->state = DONE;
          left--;
        }
      self->idle = true;
      to_main (self);
    }
}

static Fibre *
fibre_new (void)
{
  Fibre *f = new Fibre;
  f->stack = (char *) mmap (nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  void **sp = (void **) (f->stack + STACK - 64);
  *--sp = nullptr;
  *--sp = (void *) fibre_body;
  for (int i = 0; i < 6; i++)
    *--sp = nullptr;
  f->sp = sp;
  return f;
}

static void
resume (Fibre *f)
{
  f->idle = false;
  running = f;
#if ASAN
  __sanitizer_start_switch_fiber (&main_fake, f->stack, STACK);
#endif
  simt_switch (&main_sp, f->sp);
#if ASAN
  __sanitizer_finish_switch_fiber (main_fake, nullptr, nullptr);
#endif
  if (f->idle)
    pool.push_back (f);
}

static void
wait_as (int state, const char *where)
{
  Thread *self = cur;
  self->where = where;
  self->state = state;
  to_main (self->fibre);
}

void sync_block (const char *where) { wait_as (WAITS_FOR_BLOCK, where); }

void
sync_warp (unsigned mask, const char *where)
{
  cur->mask = mask;
  wait_as (WAITS_FOR_WARP, where);
}

int
sync_block_vote (int value, int what, const char *where)
{
  static int any, count;
  static unsigned arrived;
  if (!arrived++)
    any = count = 0;
  any |= value;
  count += value;
  sync_block (where);
  int n = (int) (block_size.x * block_size.y * block_size.z), result = what == 0 ? any : what == 2 ? count : count == n;
  sync_block (where);
  arrived = 0;
  return result;
}

/* Lets warp FIRST / 32 go on if all of its live threads that someone waits for wait too. */
static bool
release_warp (size_t first)
{
  size_t end = std::min (threads.size (), first + 32);
  unsigned live = 0, waiting = 0, wanted = 0;
  for (size_t i = first; i < end; i++)
    {
      live |= (unsigned) (threads[i].state != DONE) << (i - first);
      if (threads[i].state == WAITS_FOR_WARP)
        {
          waiting |= 1u << (i - first);
          wanted |= threads[i].mask;
        }
    }
  bool goes = waiting && (wanted & live) == waiting;
  for (size_t i = first; goes && i < end; i++)
    if (threads[i].state == WAITS_FOR_WARP)
      threads[i].state = WAITS_NOT;
  return goes;
}

static bool
release_block (void)
{
  size_t waiting = 0;
  for (auto &t : threads)
    waiting += t.state == WAITS_FOR_BLOCK;
  for (auto &t : threads)
    if (waiting == left && t.state == WAITS_FOR_BLOCK)
      t.state = WAITS_NOT;
  return waiting == left;
}

/* Those of a warp that wait for nothing take their turns; a warp's threads stand together in ORDER. */
static void
run_warp (size_t first)
{
  size_t end = std::min (threads.size (), first + 32);
  for (size_t k = first; k < end; k++)
    if (threads[order[k]].state == WAITS_NOT)
      {
        cur = &threads[order[k]];
        resume (cur->fibre);
      }
}

/* Every warp runs until it is done or waits for the block. */
static bool
run_warps (void)
{
  bool any = false;
  size_t warps = (threads.size () + 31) / 32;
  for (size_t w = 0; w < warps; w++)
    {
      size_t first = order[w * 32] / 32 * 32;
      while (release_warp (first))
        {
          any = true;
          run_warp (w * 32);
        }
    }
  return any;
}

static std::string
who_waits (void)
{
  std::string text = "barrier divergence in block (" + std::to_string (block_index.x) + "," + std::to_string (block_index.y) + "): ", seen;
  for (auto &t : threads)
    if (t.state != DONE && seen.find (t.where) == std::string::npos)
      {
        seen += std::string (t.where) + " ";
        text += "thread " + std::to_string (t.number) + " waits at " + t.where + (t.state == WAITS_FOR_BLOCK ? " (__syncthreads); " : " (warp); ");
      }
  return text;
}

static bool
run_block (std::string &error)
{
  bool ok = true;
  begun = 0;
  left = threads.size ();
  while (begun < threads.size ())
    {
      if (pool.empty ())
        pool.push_back (fibre_new ());
      Fibre *f = pool.back ();
      pool.pop_back ();
      resume (f);
    }
  while (ok && left)
    {
      ok = run_warps ();
      if (left && release_block ())
        {
          ok = true;
          for (size_t first = 0; first < threads.size (); first += 32)
            run_warp (first);
        }
      if (!ok)
        error = who_waits ();
    }
  return ok;      /* after a divergence the fibres of the block are left behind */
}

static unsigned
random_number (void)
{
  static unsigned long long state = 88172645463325252ull;
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (unsigned) (state >> 11);
}

static void
shuffle_order (size_t from, size_t end)
{
  for (size_t i = end - 1; i > from; i--)
    std::swap (order[i], order[from + random_number () % (i - from + 1)]);
}

/* SIMT_ORDER: in which order the threads of a warp, and the warps, take their turns: as numbered, "rev", or "rand" */
static void
choose_order (size_t n)
{
  static const char *wish = getenv ("SIMT_ORDER");
  bool back = wish && !strcmp (wish, "rev"), mixed = wish && !strcmp (wish, "rand");
  size_t warps = n / 32;                       /* whole ones; the rest of a warp stays last */
  order.resize (n);
  for (size_t i = 0; i < n; i++)
    order[i] = (unsigned) (back && i / 32 < warps ? warps * 32 - 1 - i : i);
  for (size_t first = 0; mixed && first < n; first += 32)
    shuffle_order (first, std::min (n, first + 32));
}

static void
begin_block (unsigned x, unsigned y, unsigned z, size_t dynamic)
{
  block_index = { x, y, z };
  if (dynamic)
    memset (dynamic_memory, 0xcd, dynamic);
  for (size_t i = 0; i < threads.size (); i++)
    {
      Thread &t = threads[i];
      memset (&t, 0, sizeof t);
      t.number = (unsigned) i;
      t.tid = { (unsigned) (i % block_size.x), (unsigned) (i / block_size.x % block_size.y), (unsigned) (i / ((size_t) block_size.x * block_size.y)) };
      t.lane = i & 31;
      t.warp = (unsigned) (i >> 5);
    }
}

extern "C" int
simt_launch (const Kernel *kernel, dim3 grid, dim3 block, void **args, size_t dynamic, char *text, size_t text_size)
{
  size_t n = (size_t) block.x * block.y * block.z;
  bool fits = n && n <= 1024 && block.z <= 64 && grid.x && grid.y && grid.z && grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535;
  int status = fits ? 0 : (int) cudaErrorInvalidConfiguration;
  std::string error;
  entry = kernel->entry;
  arguments = args;
  block_size = block;
  grid_size = grid;
  dynamic_memory = dynamic ? (char *) malloc (dynamic) : nullptr;
  if (!status)
    {
      threads.resize (n);
      choose_order (n);
    }
  for (unsigned z = 0; z < grid.z && !status; z++)
    for (unsigned y = 0; y < grid.y && !status; y++)
      for (unsigned x = 0; x < grid.x && !status; x++)
        {
          begin_block (x, y, z, dynamic);
          if (!run_block (error))
            {
              snprintf (text, text_size, "%s", error.c_str ());
              status = (int) cudaErrorLaunchFailure;
            }
        }
  free (dynamic_memory);
  return status;
}
}
