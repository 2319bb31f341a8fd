/* cuda/kernels/common.cuh: what all device code shares: 16-bit numbers, conversions, packs of elements, Philox.  For nvcc, NVRTC and, on the simulated
 * device, a host compiler: no header is included, no name of the C library is needed.  Must not know operations.
 * Conversions are those of core/tensor/tensors.c (to nearest even, to integers truncated and saturated), random numbers those of core/base/random.h. */
#ifndef HEDDLE_CUDA_KERNELS_COMMON_CUH
#define HEDDLE_CUDA_KERNELS_COMMON_CUH

typedef unsigned char      u8;
typedef unsigned short     u16;
typedef unsigned int       u32;
typedef unsigned long long u64;
typedef int                i32;
typedef long long          i64;
typedef float              f32;
struct alignas (2) f16  { u16 bits; };
struct alignas (2) bf16 { u16 bits; };

#define HD __device__ __forceinline__

union heddle_bits { f32 f; u32 u; };

HD f32 bits_float (u32 u) { heddle_bits b; b.u = u; return b.f; }
HD u32 float_bits (f32 f) { heddle_bits b; b.f = f; return b.u; }
HD bool is_nan (f32 x) { return x != x; }
HD bool is_finite (f32 x) { return (float_bits (x) & 0x7F800000u) != 0x7F800000u; }

/* ---- from storage to f32 ---- */

HD f32 to_float (f32 x) { return x; }
HD f32 to_float (u8 x) { return (f32) x; }
HD f32 to_float (i32 x) { return (f32) x; }
HD f32 to_float (i64 x) { return (f32) (double) x; }
HD f32 to_float (bf16 x) { return bits_float ((u32) x.bits << 16); }

HD f32
to_float (f16 x)
{
#ifdef __CUDA_ARCH__
  f32 y;
  asm ("cvt.f32.f16 %0, %1;" : "=f" (y) : "h" (x.bits));
  return y;
#else
  u32 sign = (u32) (x.bits & 0x8000) << 16, exponent = x.bits >> 10 & 31, mantissa = x.bits & 0x3FF, u;
  if (exponent == 31)
    u = sign | 0x7F800000u | mantissa << 13 | (mantissa ? 0x400000u : 0u);
  else if (exponent)
    u = sign | (exponent + 112) << 23 | mantissa << 13;
  else
    u = sign | float_bits ((f32) mantissa * bits_float (0x33800000u));      /* units of 2^-24 */
  return bits_float (u);
#endif
}

/* ---- from f32 to storage ---- */

HD u16
f16_bits (f32 x)
{
#ifdef __CUDA_ARCH__
  u16 y;
  asm ("cvt.rn.f16.f32 %0, %1;" : "=h" (y) : "f" (x));
  return y;
#else
  u32 b = float_bits (x), sign = b >> 16 & 0x8000, mantissa = b & 0x7FFFFF, result, kept, rest, half;
  i32 exponent = (i32) (b >> 23 & 0xFF) - 127 + 15;
  if (is_nan (x))
    result = 0x7E00 | mantissa >> 13;
  else if (exponent >= 31)
    result = 0x7C00;
  else
    {
      u32 shift = exponent > 0 ? 13 : (u32) (14 - exponent) < 25 ? (u32) (14 - exponent) : 25;      /* subnormal: in units of 2^-24 */
      kept = exponent > 0 ? (u32) exponent << 23 | mantissa : mantissa | 0x800000;
      half = 1u << (shift - 1);
      rest = kept & ((1u << shift) - 1);
      result = kept >> shift;
      result += rest > half || (rest == half && (result & 1));      /* may carry into the exponent, up to infinity: right */
    }
  return (u16) (sign | result);
#endif
}

HD u16
bf16_bits (f32 x)
{
#if defined (__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  u16 y;
  asm ("cvt.rn.bf16.f32 %0, %1;" : "=h" (y) : "f" (x));
  return y;
#else
  u32 b = float_bits (x);
  return (u16) (is_nan (x) ? b >> 16 | 0x40 : (b + 0x7FFF + (b >> 16 & 1)) >> 16);
#endif
}

/* Overloads by the type of Y: what a template over dtypes needs. */
HD void from_float (f32 x, f32 &y) { y = x; }
HD void from_float (f32 x, f16 &y) { y.bits = f16_bits (x); }
HD void from_float (f32 x, bf16 &y) { y.bits = bf16_bits (x); }
HD void from_float (f32 x, u8 &y) { y = (u8) (x >= 255.0f ? 255 : x > 0.0f ? (i32) x : 0); }
HD void from_float (f32 x, i32 &y) { y = is_nan (x) ? 0 : x >= 2147483648.0f ? 2147483647 : x <= -2147483648.0f ? (i32) -2147483647 - 1 : (i32) x; }
HD void from_float (f32 x, i64 &y) { y = is_nan (x) ? 0 : x >= 9223372036854775808.0f ? 9223372036854775807ll : x <= -9223372036854775808.0f ? -9223372036854775807ll - 1 : (i64) x; }

/* x as it comes back from storage as T */
template <class T> HD f32
rounded (f32 x)
{
  T y;
  from_float (x, y);
  return to_float (y);
}

/* ---- W elements at once: one or two transactions of 128 bits where P is aligned to 16 bytes and W elements fill them ---- */

template <class T, int W> struct alignas (sizeof (T) * W < 16 ? sizeof (T) * W : 16) pack { T v[W]; };

template <int W, class T> HD void
load (f32 (&x)[W], const T *p)
{
  const pack<T, W> k = *(const pack<T, W> *) p;
#pragma unroll
  for (int j = 0; j < W; j++)
    x[j] = to_float (k.v[j]);
}

template <int W, class T> HD void
store (T *p, const f32 (&x)[W])
{
  pack<T, W> k;
#pragma unroll
  for (int j = 0; j < W; j++)
    from_float (x[j], k.v[j]);
  *(pack<T, W> *) p = k;
}

/* W as a type, for functions that take it as an argument */
template <int W> struct width_of { enum { value = W }; };

/* all W from one element */
template <int W, class T> HD void
fill (f32 (&x)[W], const T *p)
{
  const f32 y = to_float (*p);
#pragma unroll
  for (int j = 0; j < W; j++)
    x[j] = y;
}

/* ---- random numbers ---- */

/* Philox4x32-10: J. Salmon et al., SC 2011 */
HD void
philox (u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1, u32 (&out)[4])
{
#pragma unroll
  for (int round = 0; round < 10; round++)
    {
      u64 a = (u64) 0xD2511F53u * c0, b = (u64) 0xCD9E8D57u * c2;
      u32 n0 = (u32) (b >> 32) ^ c1 ^ k0, n2 = (u32) (a >> 32) ^ c3 ^ k1;
      c1 = (u32) b;
      c3 = (u32) a;
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

/* What a dropout mask is a function of, besides the step and the element: the stream's words and the threshold. */
struct dropout_key { u32 k0, k1, c1, c2, threshold; };

/* Is element I kept?  I counts in row-major order. */
template <class I> HD bool
dropout_keeps (I i, f32 step, dropout_key k)
{
  u32 words[4];
  philox ((u32) (i / 4), k.c1, k.c2, (u32) step, k.k0, k.k1, words);
  return words[i % 4] >= k.threshold;
}

/* Elements I .. I + W - 1; I is a multiple of W, and W is 1 or a multiple of 4. */
template <int W, class I> HD void
dropout_mask (bool (&keep)[W], I i, f32 step, dropout_key k)
{
  if (W % 4)
    keep[0] = dropout_keeps (i, step, k);
  else
#pragma unroll
    for (int q = 0; q < W / 4; q++)
      {
        u32 words[4];
        philox ((u32) (i / 4) + q, k.c1, k.c2, (u32) step, k.k0, k.k1, words);
#pragma unroll
        for (int j = 0; j < 4; j++)
          keep[(4 * q + j) % W] = words[j] >= k.threshold;
      }
}

#endif
