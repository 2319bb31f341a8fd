/* cpu/vecmath.h: exp, expm1, log1p, tanh and erf without branches or calls, so that loops over them become vector code.
 * Must not know what calls it.  The largest errors are over all of f32 against libm in double (tests/backend/test-vecmath.c), with or without
 * fused multiply-add: vm_exp 1.5 ulp, vm_expm1 2 ulp, vm_tanh 2 ulp, vm_erf 1.5 ulp, vm_log1p 2 ulp, vm_sigmoid 3 ulp (0 below -88.7).  NaN stays NaN, infinities have their limits,
 * subnormal results of vm_exp are rounded twice (1 unit of 2^-149). */
#ifndef HEDDLE_BACKEND_CPU_VECMATH_H
#define HEDDLE_BACKEND_CPU_VECMATH_H

#include <glib.h>
#include <math.h>

#define VM static inline __attribute__ ((always_inline)) float
typedef union { float f; gint32 i; } VmBits;

/* 2^n for -126 <= n <= 127 */
VM
vm_power (gint32 n)
{
  VmBits b = { .i = (gint32) ((guint32) (n + 127) << 23) };
  return b.f;
}

/* x = n ln 2 + r, |r| <= ln 2 / 2; ln 2 in two parts (W. J. Cody and W. Waite), n by the addition that leaves it in the lowest bits */
VM
vm_reduce (float x, gint32 *n)
{
  const float magic = 12582912.0f;      /* 1.5 * 2^23 */
  VmBits t = { .f = x * 1.44269504088896341f + magic }, zero = { .f = magic };
  float whole = t.f - magic;
  *n = t.i - zero.i;
  return (x - whole * 0.693145751953125f) - whole * 1.42860682030941723e-6f;
}

/* e^r - 1 - r over r^2 on |r| <= ln 2 / 2: the minimax coefficients of Cephes' expf (S. Moshier) */
VM
vm_exp_tail (float r)
{
  return ((((1.9875691500E-4f * r + 1.3981999507E-3f) * r + 8.3334519073E-3f) * r + 4.1665795894E-2f) * r + 1.6666665459E-1f) * r + 5.0000001201E-1f;
}

VM
vm_exp (float x)
{
  gint32 n;
  x = x > 89.0f ? 89.0f : x;            /* comparisons are false for NaN, which passes */
  x = x < -104.0f ? -104.0f : x;
  float r = vm_reduce (x, &n), p = (vm_exp_tail (r) * r * r + r) + 1.0f;
  gint32 half = n >> 1;
  return p * vm_power (half) * vm_power (n - half);
}

VM
vm_expm1 (float x)
{
  gint32 n;
  x = x > 89.0f ? 89.0f : x;
  x = x < -20.0f ? -20.0f : x;
  float r = vm_reduce (x, &n), p = vm_exp_tail (r) * r * r + r;
  float s = vm_power (n - 1);           /* half of 2^n, which may not be a float */
  float y = 2.0f * (s * p + (s - 0.5f));
  return n == 0 ? p : y;
}

VM
vm_sigmoid (float x)
{
  return 1.0f / (1.0f + vm_exp (-x));
}

/* log (1 + x) = n ln 2 + log (1 + m): m in [-1/4, 1/2), scaled from x itself so that small x keep their digits; a minimax polynomial for the rest */
VM
vm_log1p (float x)
{
  VmBits u = { .f = 1.0f + x }, a = { .f = x }, four = { .f = 4.0f };
  gint32 e = (gint32) (((guint32) u.i - 0x3f400000u) & 0xff800000u);    /* n in the exponent's place; unsigned, for x <= -1 and NaN may wrap */
  a.i = (gint32) ((guint32) a.i - (guint32) e);
  four.i = (gint32) ((guint32) four.i - (guint32) e);
  float m = a.f + (0.25f * four.f - 1.0f), n = (float) e * 0x1p-23f;
  float p = ((((((-0.0450771302f * m + 0.104634121f) * m - 0.13161391f) * m + 0.144784003f) * m - 0.166472912f) * m + 0.19990857f) * m - 0.250000954f) * m + 0.333334506f;
  float y = n * 0.693147181f + ((p * m - 0.5f) * (m * m) + m);
  y = x < INFINITY ? y : x;             /* NaN passes */
  y = x > -1.0f ? y : x == -1.0f ? -INFINITY : NAN;
  return e == 0 && m == 0 ? x : y;      /* the sign of 0 */
}

/* Cephes' tanhf below 0.625, 1 - 2 / (e^2x + 1) above */
VM
vm_tanh (float x)
{
  float t = fabsf (x), z = x * x;
  float small = ((((-5.70498872745E-3f * z + 2.06390887954E-2f) * z - 5.37397155531E-2f) * z + 1.33314422036E-1f) * z - 3.33332819422E-1f) * z * x + x;
  float large = copysignf (1.0f - 2.0f / (vm_exp (2.0f * t) + 1.0f), x);
  return t < 0.625f ? small : large;
}

/* An odd polynomial below 0.9277, 1 - e^p above; coefficients: N. Juffa */
VM
vm_erf (float x)
{
  float t = fabsf (x), z = x * x;
  t = t > 4.0f ? 4.0f : t;
  float p = -1.72853470e-5f * t + 3.83197126e-4f, u = -3.88396438e-3f * t + 2.42546219e-2f;
  p = p * (t * t) + u;
  p = ((p * t - 1.06777877e-1f) * t - 6.34846687e-1f) * t - 1.28717512e-1f;
  p = p * t - t;
  float large = copysignf (1.0f - vm_exp (p), x);
  float small = ((((-5.96761703e-4f * z + 4.99119423e-3f) * z - 2.67681349e-2f) * z + 1.12819925e-1f) * z - 3.76125336e-1f) * z + 1.28379166e-1f;
  return t > 0.927734375f ? large : small * x + x;
}

#undef VM
#endif
