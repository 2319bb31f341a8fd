/* bench/ceilings.c: what this machine can do at best: GFLOP/s of oneDNN's sgemm and GB/s of a copy, with N threads; one JSON line.
 * Must not know Heddle: these are the limits its kernels are held against. */
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 1536, ROUNDS = 7 };

static float *
numbers (size_t n)
{
  float *x = aligned_alloc (64, (n * sizeof *x + 63) / 64 * 64);
  if (!x)
    exit (1);
#pragma omp parallel for
  for (size_t i = 0; i < n; i++)
    x[i] = (float) (i % 7) * 0.25f;
  return x;
}

/* The fastest of some products of two SIDE x SIDE matrices. */
static double
sgemm_gflops (void)
{
  size_t n = SIDE;
  float *a = numbers (n * n), *b = numbers (n * n), *c = numbers (n * n);
  double best = 0;
  for (int i = 0; i < ROUNDS; i++)
    {
      double start = omp_get_wtime ();
      if (dnnl_sgemm ('N', 'N', SIDE, SIDE, SIDE, 1, a, SIDE, b, SIDE, 0, c, SIDE) != dnnl_success)
        exit (1);
      double rate = 2.0 * SIDE * SIDE * SIDE / (omp_get_wtime () - start) / 1e9;
      best = rate > best ? rate : best;
    }
  free (a), free (b), free (c);
  return best;
}

/* Bytes read and written a second, from and to arrays far larger than the caches. */
static double
copy_gbs (int threads)
{
  size_t n = (size_t) 64 << 20;
  float *a = numbers (n), *b = numbers (n);
  double best = 0;
  for (int i = 0; i < ROUNDS; i++)
    {
      double start = omp_get_wtime ();
#pragma omp parallel num_threads (threads)
      {
        size_t share = n / (size_t) omp_get_num_threads (), at = share * (size_t) omp_get_thread_num ();
        memcpy (b + at, a + at, share * sizeof *a);
      }
      double rate = 2.0 * (double) (n * sizeof *a) / (omp_get_wtime () - start) / 1e9;
      best = rate > best ? rate : best;
    }
  free (a), free (b);
  return best;
}

int
main (int argc, char **argv)
{
  int threads = argc > 1 ? atoi (argv[1]) : 1;
  omp_set_num_threads (threads);
  printf ("{\"threads\": %d, \"sgemm_gflops\": %.1f, \"copy_gbs\": %.1f}\n", threads, sgemm_gflops (), copy_gbs (threads));
  return 0;
}
