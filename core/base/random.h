/* base/random.h: counter-based random numbers (Philox4x32-10).  A number is a pure function of (seed, stream, position).
 * Must not know what the numbers are for beyond the list of streams. */
#ifndef HEDDLE_BASE_RANDOM_H
#define HEDDLE_BASE_RANDOM_H

#include <glib.h>
#include <math.h>

G_BEGIN_DECLS

/* Philox4x32-10: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
 * counter: 4 words in, 4 random words out; key: 2 words. */
static inline void
heddle_philox (const guint32 counter[4], const guint32 key[2], guint32 out[4])
{
  guint32 c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; round++)
    {
      guint64 a = (guint64) 0xD2511F53u * c0, b = (guint64) 0xCD9E8D57u * c2;
      guint32 n0 = (guint32) (b >> 32) ^ c1 ^ k0, n2 = (guint32) (a >> 32) ^ c3 ^ k1;
      c1 = (guint32) b;
      c3 = (guint32) a;
      c0 = n0;
      c2 = n2;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/* What a stream is for; two purposes never share numbers. */
typedef enum
{
  HEDDLE_STREAM_INIT = 1,   /* parameter initialisation: a = hash of the parameter's name */
  HEDDLE_STREAM_ORDER,      /* sample order: a = pass over the data */
  HEDDLE_STREAM_SAMPLE,     /* augmentation: a = pass, b = sample index */
  HEDDLE_STREAM_DROPOUT,    /* dropout masks: a = operation key, b = step */
  HEDDLE_STREAM_DATA,       /* synthetic data sets: a, b free */
  HEDDLE_STREAM_USER        /* plugins */
} HeddleStream;

/* A stream of numbers; plain data, copyable, no allocation.  Not thread-safe: give each thread its own. */
typedef struct
{
  guint32 key[2];       /* seed */
  guint32 counter[4];   /* [0] position; [1] stream, a's high bits; [2] a; [3] b */
  guint32 block[4];
  guint   used;         /* words of BLOCK already given out; 4 = none left */
} HeddleRandom;

/* A is any 56-bit, B any 32-bit number. */
static inline HeddleRandom
heddle_random (guint64 seed, HeddleStream stream, guint64 a, guint32 b)
{
  HeddleRandom r = { .key = { (guint32) seed, (guint32) (seed >> 32) },
                     .counter = { 0, (guint32) stream << 24 | (guint32) (a >> 32 & 0xFFFFFF), (guint32) a, b }, .used = 4 };
  return r;
}

static inline guint32
heddle_random_u32 (HeddleRandom *r)
{
  if (r->used == 4)
    {
      heddle_philox (r->counter, r->key, r->block);
      r->counter[0]++;
      r->used = 0;
    }
  return r->block[r->used++];
}

/* Uniform in [0, 1), 24 bits. */
static inline float
heddle_random_float (HeddleRandom *r)
{
  return (float) (heddle_random_u32 (r) >> 8) * 0x1p-24f;
}

/* Uniform in [0, 1), 53 bits. */
static inline double
heddle_random_double (HeddleRandom *r)
{
  guint64 high = heddle_random_u32 (r) >> 5, low = heddle_random_u32 (r) >> 6;
  return ((double) high * 67108864.0 + (double) low) * 0x1p-53;
}

/* Uniform integer in [0, n), n > 0, without bias: D. Lemire, "Fast random integer generation in an interval", 2019. */
static inline guint32
heddle_random_below (HeddleRandom *r, guint32 n)
{
  guint64 m = (guint64) heddle_random_u32 (r) * n;
  if ((guint32) m < n)
    for (guint32 threshold = (0u - n) % n; (guint32) m < threshold;)
      m = (guint64) heddle_random_u32 (r) * n;
  return (guint32) (m >> 32);
}

/* Standard normal by Box and Muller; two words a number, the sine branch is not kept. */
static inline double
heddle_random_normal (HeddleRandom *r)
{
  double u = 1.0 - heddle_random_double (r), v = heddle_random_double (r);
  return sqrt (-2.0 * log (u)) * cos (6.283185307179586 * v);
}

/* 64-bit FNV-1a of a name: how a parameter's name becomes a stream. */
static inline guint64
heddle_random_hash (const char *text)
{
  guint64 h = 14695981039346656037ull;
  for (; *text; text++)
    h = (h ^ (guint8) *text) * 1099511628211ull;
  return h;
}

G_END_DECLS

#endif
