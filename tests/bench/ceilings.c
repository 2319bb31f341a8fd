/* bench/ceilings.c: what this machine can do at best: GFLOP/s of oneDNN's sgemm and GB/s of a copy, with N threads; one JSON line.
 * Must not know Heddle: these are the limits its kernels are held against. */
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 9 };     /* of each, spread over a second and more: the best counts, as a neighbour may slow some */

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

/* The fastest of some products of two SIDE x SIDE matrices; the best side depends on the caches. */
static double
sgemm_gflops (dnnl_dim_t side)
{
  size_t n = (size_t) side;
  float *a = numbers (n * n), *b = numbers (n * n), *c = numbers (n * n);
  double best = 0;
  double until = omp_get_wtime () + 0.5;
  for (int i = 0; i < ROUNDS || omp_get_wtime () < until; i++)
    {
      double start = omp_get_wtime ();
      if (dnnl_sgemm ('N', 'N', side, side, side, 1, a, side, b, side, 0, c, side) != dnnl_success)
        exit (1);
      double rate = 2.0 * (double) (n * n * n) / (omp_get_wtime () - start) / 1e9;
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
  double sgemm = 0;
  for (dnnl_dim_t side = 384; side <= 1536; side *= 2)
    {
      double rate = sgemm_gflops (side);
      sgemm = rate > sgemm ? rate : sgemm;
    }
  printf ("{\"threads\": %d, \"sgemm_gflops\": %.1f, \"copy_gbs\": %.1f}\n", threads, sgemm, copy_gbs (threads));
  return 0;
}
