/* cpu/isa.c: which instruction set the backend uses.  Must not know what is computed with it. */
#include "cpu.h"
#include "base/options.h"

CpuIsa cpu_isa = CPU_GENERIC;

/* By CpuIsa: what HEDDLE_CPU_ISA calls it, people do, and oneDNN's limit. */
static const struct { const char *option, *name; dnnl_cpu_isa_t limit; } sets[] = {
  { "generic", "SSE4.1", dnnl_cpu_isa_sse41 }, { "avx2", "AVX2", dnnl_cpu_isa_avx2 }, { "avx512", "AVX-512", dnnl_cpu_isa_avx512_core },
  { "avx512_bf16", "AVX-512 BF16", dnnl_cpu_isa_avx512_core_bf16 }, { "amx", "AMX", dnnl_cpu_isa_all },
};

const char *
cpu_isa_name (CpuIsa isa)
{
  return sets[isa].name;
}

static gboolean
has (CpuIsa isa)
{
  gboolean yes = isa == CPU_GENERIC;
#if defined (__x86_64__) && defined (__GNUC__)
  if (isa == CPU_AVX2)
    yes = __builtin_cpu_supports ("avx2") && __builtin_cpu_supports ("fma");
  else if (isa >= CPU_AVX512)
    yes = __builtin_cpu_supports ("avx512f") && __builtin_cpu_supports ("avx512bw") && __builtin_cpu_supports ("avx512vl") && __builtin_cpu_supports ("avx512dq");
#endif
  return yes;
}

/* What both the processor and oneDNN, which ONEDNN_MAX_CPU_ISA may limit, can do. */
CpuIsa
cpu_isa_present (void)
{
  CpuIsa isa = CPU_GENERIC;
  switch (dnnl_get_effective_cpu_isa ())
    {
    case dnnl_cpu_isa_avx2: case dnnl_cpu_isa_avx2_vnni: isa = CPU_AVX2; break;
    case dnnl_cpu_isa_avx512_core: case dnnl_cpu_isa_avx512_core_vnni: isa = CPU_AVX512; break;
    case dnnl_cpu_isa_avx512_core_bf16: isa = CPU_AVX512_BF16; break;
    case dnnl_cpu_isa_avx512_core_amx: isa = CPU_AMX; break;
    default: break;
    }
  while (!has (isa))
    isa--;
  return isa;
}

/* AVX-512 BF16 makes two products in the place of one; Intel's processors need twice as long for it (measured in docs/measured-cpu.md), so that there it is
 * used only when it is asked for. */
static CpuIsa
best (void)
{
  CpuIsa isa = cpu_isa_present ();
#if defined (__x86_64__) && defined (__GNUC__)
  if (isa == CPU_AVX512_BF16 && __builtin_cpu_is ("intel"))
    isa = CPU_AVX512;
#endif
  return isa;
}

/* WANTED limits oneDNN too, which has to be told before it is first asked anything. */
static gboolean
choose (const char *wanted, GError **error)
{
  const char *names[G_N_ELEMENTS (sets) + 1] = { NULL };
  guint i = 0;
  for (guint k = 0; k < G_N_ELEMENTS (sets); k++)
    names[k] = sets[k].option;
  while (names[i] && !g_str_equal (names[i], wanted))
    i++;
  gboolean ok = names[i] != NULL;
  if (!ok)
    {
      g_autofree char *near = heddle_suggestion (wanted, names), *all = g_strjoinv (", ", (char **) names);
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "HEDDLE_CPU_ISA: no instruction set \"%s\"%s\nhint: one of %s; unset, the best for this processor", wanted, near, all);
    }
  else
    {
      dnnl_set_max_cpu_isa (sets[i].limit);
      cpu_isa = cpu_isa_present ();
      ok = cpu_isa == i;
      if (!ok)
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "HEDDLE_CPU_ISA: \"%s\" cannot be used: this processor, or ONEDNN_MAX_CPU_ISA, allows %s%s\nhint: unset it for the best there is",
                     wanted, sets[cpu_isa].option, cpu_isa > i ? ", and oneDNN is already in use" : "");
    }
  return ok;
}

gboolean
cpu_isa_choose (GError **error)
{
  static gboolean chosen = FALSE;
  const char *wanted = g_getenv ("HEDDLE_CPU_ISA");
  if (!chosen && wanted && *wanted)
    chosen = choose (wanted, error);
  else if (!chosen)
    {
      cpu_isa = best ();
      chosen = TRUE;
    }
  return chosen;
}
