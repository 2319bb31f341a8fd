/* cuda/ranges-nvtx.c: ranges by NVTX 3, whose headers look for a profiler in NVTX_INJECTION64_PATH.  Must not know what is named.
 * Without a profiler there is no domain, no step has a name, and a range costs one comparison. */
#include "ranges.h"

#include <nvtx3/nvToolsExt.h>

static nvtxDomainHandle_t domain;

void
cuda_ranges_open (void)
{
  static gsize opened;
  if (g_once_init_enter (&opened))
    {
      domain = nvtxDomainCreateA ("Heddle");
      g_once_init_leave (&opened, 1);
    }
}

void
cuda_range_push (const char *name)
{
  if (domain && name)
    nvtxDomainRangePushEx (domain, &(nvtxEventAttributes_t) { .version = NVTX_VERSION, .size = NVTX_EVENT_ATTRIB_STRUCT_SIZE, .messageType = NVTX_MESSAGE_TYPE_ASCII, .message.ascii = name });
}

void
cuda_range_pop (const char *name)
{
  if (domain && name)
    nvtxDomainRangePop (domain);
}

void
cuda_ranges_name (CudaPlan *plan)
{
  HeddlePlanStep s;
  for (guint i = 0; domain && cuda_plan_step (&plan->base, i, &s); i++)
    {
      char *name = s.conversion ? g_strdup_printf ("%s for %s", s.what, s.op->name) : g_strdup_printf ("%s %s [%s]", s.op->info->name, s.op->name, s.what);
      ((CudaStep *) plan->steps->pdata[i])->range = cuda_keep (plan, name);
    }
}

const char *
cuda_ranges_describe (void)
{
  return "yes, ranges for Nsight and other profilers";
}
