/* cuda-sim/fake-cudnn.cpp: a cuDNN that supports nothing: it lets itself be opened, counts what is asked for and refuses every plan, so that the backend must take
 * its own path.  Graphs are built and finalised by the real cuDNN in another test.  Must not know who asks. */
#include "fake.h"
#include <cudnn.h>
#include <cstdio>
#include <cstring>

static long handles, descriptors, executed;

extern "C" {
/* "handles", "descriptors" (now alive), "executed"; -1: no such */
long
heddle_sim_cudnn (const char *name)
{
  return !strcmp (name, "handles") ? handles : !strcmp (name, "descriptors") ? descriptors : !strcmp (name, "executed") ? executed : -1;
}
size_t cudnnGetVersion (void) { return CUDNN_VERSION; }
size_t cudnnGetCudartVersion (void) { return CUDART_VERSION; }
const char *cudnnGetErrorString (cudnnStatus_t s) { return s ? "refused by the simulated cuDNN" : "CUDNN_STATUS_SUCCESS"; }
#if CUDNN_MAJOR >= 9
void cudnnGetLastErrorString (char *text, size_t n) { snprintf (text, n, "the simulated cuDNN supports no plan"); }
#endif
cudnnStatus_t cudnnGetProperty (libraryPropertyType t, int *v) { *v = t == MAJOR_VERSION ? CUDNN_MAJOR : t == MINOR_VERSION ? CUDNN_MINOR : CUDNN_PATCHLEVEL; return CUDNN_STATUS_SUCCESS; }
cudnnStatus_t cudnnCreate (cudnnHandle_t *h) { *h = (cudnnHandle_t) new int; handles++; return CUDNN_STATUS_SUCCESS; }
cudnnStatus_t cudnnDestroy (cudnnHandle_t h) { delete (int *) h; handles--; return CUDNN_STATUS_SUCCESS; }
cudnnStatus_t cudnnSetStream (cudnnHandle_t, cudaStream_t) { return CUDNN_STATUS_SUCCESS; }
cudnnStatus_t cudnnGetStream (cudnnHandle_t, cudaStream_t *s) { *s = nullptr; return CUDNN_STATUS_SUCCESS; }

cudnnStatus_t
cudnnBackendCreateDescriptor (cudnnBackendDescriptorType_t, cudnnBackendDescriptor_t *d)
{
  *d = (cudnnBackendDescriptor_t) new int;
  descriptors++;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendDestroyDescriptor (cudnnBackendDescriptor_t d) { delete (int *) d; descriptors -= d != nullptr; return CUDNN_STATUS_SUCCESS; }
cudnnStatus_t cudnnBackendInitialize (cudnnBackendDescriptor_t) { return CUDNN_STATUS_SUCCESS; }
cudnnStatus_t cudnnBackendFinalize (cudnnBackendDescriptor_t) { return CUDNN_STATUS_NOT_SUPPORTED; }
cudnnStatus_t cudnnBackendSetAttribute (cudnnBackendDescriptor_t, cudnnBackendAttributeName_t, cudnnBackendAttributeType_t, int64_t, const void *) { return CUDNN_STATUS_SUCCESS; }
cudnnStatus_t
cudnnBackendGetAttribute (cudnnBackendDescriptor_t const, cudnnBackendAttributeName_t, cudnnBackendAttributeType_t, int64_t, int64_t *n, void *)
{
  if (n)
    *n = 0;
  return CUDNN_STATUS_NOT_SUPPORTED;
}
cudnnStatus_t cudnnBackendExecute (cudnnHandle_t, cudnnBackendDescriptor_t, cudnnBackendDescriptor_t) { executed++; return CUDNN_STATUS_NOT_SUPPORTED; }
}
