/* test-random.c: Philox against its published vectors; the derived distributions by their moments and bounds. */
#include "base/random.h"

/* Known answers of Random123 (kat_vectors, philox4x32 10). */
static void
test_vectors (void)
{
  static const guint32 v[][10] = {
    { 0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 },
    { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd },
    { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 },
  };
  for (guint i = 0; i < G_N_ELEMENTS (v); i++)
    {
      guint32 out[4];
      heddle_philox (v[i], v[i] + 4, out);
      g_assert_cmpmem (out, sizeof out, v[i] + 6, sizeof out);
    }
}

/* Streams of other purposes, seeds, a and b start with other numbers; equal ones are equal. */
static void
test_streams (void)
{
  g_autoptr (GHashTable) seen = g_hash_table_new (g_int64_hash, g_int64_equal);
  static gint64 first[2 * 6 * 8 * 8];
  guint n = 0;
  for (guint64 seed = 0; seed < 2; seed++)
    for (int stream = HEDDLE_STREAM_INIT; stream <= HEDDLE_STREAM_USER; stream++)
      for (guint64 a = 0; a < 8; a++)
        for (guint32 b = 0; b < 8; b++)
          {
            HeddleRandom r = heddle_random (seed, (HeddleStream) stream, a << 33 | a, b), same = r;
            gint64 x = (gint64) ((guint64) heddle_random_u32 (&r) << 32 | heddle_random_u32 (&r));
            g_assert_cmpuint (heddle_random_u32 (&same), ==, (guint32) ((guint64) x >> 32));
            first[n] = x;
            g_assert_true (g_hash_table_add (seen, &first[n++]));
          }
}

static void
test_ranges (void)
{
  HeddleRandom r = heddle_random (1, HEDDLE_STREAM_USER, 0, 0);
  double sum = 0, squares = 0, normal = 0, normal_squares = 0;
  guint counts[7] = { 0 };
  const guint n = 70000;
  for (guint i = 0; i < n; i++)
    {
      float f = heddle_random_float (&r);
      double d = heddle_random_double (&r), z = heddle_random_normal (&r);
      g_assert_true (f >= 0 && f < 1 && d >= 0 && d < 1 && isfinite (z));
      counts[heddle_random_below (&r, 7)]++;
      sum += d;
      squares += d * d;
      normal += z;
      normal_squares += z * z;
    }
  /* five standard errors */
  g_assert_cmpfloat_with_epsilon (sum / n, 0.5, 5 * sqrt (1.0 / 12 / n));
  g_assert_cmpfloat_with_epsilon (squares / n, 1.0 / 3, 5 * sqrt (4.0 / 45 / n));
  g_assert_cmpfloat_with_epsilon (normal / n, 0, 5 / sqrt (n));
  g_assert_cmpfloat_with_epsilon (normal_squares / n, 1, 5 * sqrt (2.0 / n));
  for (guint i = 0; i < 7; i++)
    g_assert_cmpfloat_with_epsilon (counts[i], n / 7.0, 5 * sqrt (n / 7.0));
  g_assert_cmpuint (heddle_random_below (&r, 1), ==, 0);
}

/* FNV-1a's published values */
static void
test_hash (void)
{
  g_assert_cmphex (heddle_random_hash (""), ==, 0xcbf29ce484222325);
  g_assert_cmphex (heddle_random_hash ("a"), ==, 0xaf63dc4c8601ec8c);
  g_assert_cmphex (heddle_random_hash ("foobar"), ==, 0x85944171f73967e8);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/random/vectors", test_vectors);
  g_test_add_func ("/random/streams", test_streams);
  g_test_add_func ("/random/ranges", test_ranges);
  g_test_add_func ("/random/hash", test_hash);
  return g_test_run ();
}
