/* cuda-sim/nvtx-record.c: a profiler that NVTX loads: writes what is pushed and popped to HEDDLE_NVTX_LOG, "THREAD push DOMAIN: NAME" and "THREAD pop", a line each.
 * Must not know who pushes. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define NVTX_NO_IMPL
#include <nvtx3/nvToolsExt.h>

static FILE *record;

/* A domain is its name. */
static nvtxDomainHandle_t
domain_create (const char *name)
{
  return (nvtxDomainHandle_t) name;
}

static int
range_push (nvtxDomainHandle_t domain, const nvtxEventAttributes_t *a)
{
  int known = a->version == NVTX_VERSION && a->size == NVTX_EVENT_ATTRIB_STRUCT_SIZE && a->messageType == NVTX_MESSAGE_TYPE_ASCII;
  fprintf (record, "%d push %s: %s\n", (int) gettid (), (const char *) domain, known ? a->message.ascii : "?");
  fflush (record);
  return 0;
}

static int
range_pop (nvtxDomainHandle_t domain)
{
  (void) domain;
  fprintf (record, "%d pop\n", (int) gettid ());
  fflush (record);
  return 0;
}

__attribute__ ((visibility ("default"))) int
InitializeInjectionNvtx2 (NvtxGetExportTableFunc_t export_table)
{
  const NvtxExportTableCallbacks *callbacks = export_table (NVTX_ETID_CALLBACKS);
  NvtxFunctionTable table = NULL;
  unsigned int n = 0;
  record = fopen (getenv ("HEDDLE_NVTX_LOG"), "a");
  int ok = record && callbacks && callbacks->GetModuleFunctionTable (NVTX_CB_MODULE_CORE2, &table, &n) && n > NVTX_CBID_CORE2_DomainCreateA;
  if (ok)
    {
      *table[NVTX_CBID_CORE2_DomainCreateA] = (NvtxFunctionPointer) domain_create;
      *table[NVTX_CBID_CORE2_DomainRangePushEx] = (NvtxFunctionPointer) range_push;
      *table[NVTX_CBID_CORE2_DomainRangePop] = (NvtxFunctionPointer) range_pop;
    }
  return ok;
}
