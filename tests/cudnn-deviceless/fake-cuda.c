/* cudnn-deviceless/fake-cuda.c: a libcuda.so.1 that has no device but lets cuDNN load the kernels it compiles, so that plans for devices that are not there are
 * finished.  Only for the process that asks for it: it must not be anywhere the loader looks. */
#include <dlfcn.h>
#include <stddef.h>

#define SUCCESS 0
#define NO_DEVICE 100
#define NOT_FOUND 500

/* CUDA 13.0, which every cuDNN 9 accepts. */
int cuDriverGetVersion (int *version) { *version = 13000; return SUCCESS; }
int cuInit (unsigned flags) { return NO_DEVICE; }
int cuDeviceGetCount (int *n) { *n = 0; return SUCCESS; }
int cuGetErrorString (int code, const char **text) { *text = "no device: this is the fake driver of a test"; return SUCCESS; }
int cuGetErrorName (int code, const char **text) { *text = "FAKE"; return SUCCESS; }
int cuGetExportTable (const void **table, const void *id) { *table = NULL; return NOT_FOUND; }

/* ---- code: every kernel is found and needs nothing ---- */
static char library, kernel;
int cuLibraryLoadData (void **l, const void *code, void *a, void *b, unsigned c, void *d, void *e, unsigned f) { *l = &library; return SUCCESS; }
int cuLibraryUnload (void *l) { return SUCCESS; }
int cuLibraryGetKernel (void **k, void *l, const char *name) { *k = &kernel; return SUCCESS; }
int cuKernelGetFunction (void **f, void *k) { *f = &kernel; return SUCCESS; }
int cuKernelGetAttribute (int *value, int attribute, void *k, int device) { *value = 0; return SUCCESS; }
int cuKernelSetAttribute (int attribute, int value, void *k, int device) { return SUCCESS; }
int cuModuleLoadData (void **m, const void *code) { *m = &library; return SUCCESS; }
int cuModuleLoadDataEx (void **m, const void *code, unsigned n, void *options, void *values) { *m = &library; return SUCCESS; }
int cuModuleGetFunction (void **f, void *m, const char *name) { *f = &kernel; return SUCCESS; }
int cuModuleUnload (void *m) { return SUCCESS; }
int cuFuncGetAttribute (int *value, int attribute, void *f) { *value = 0; return SUCCESS; }
int cuFuncSetAttribute (void *f, int attribute, int value) { return SUCCESS; }

/* ---- looked up by name, and of no use without a device.  cuDNN prints the names that it misses. ---- */
#define IDLE(name) int name (void) { return SUCCESS; }
IDLE (cuCtxGetCurrent) IDLE (cuCtxGetDevice) IDLE (cuCtxGetLimit) IDLE (cuCtxPopCurrent) IDLE (cuCtxPopCurrent_v2) IDLE (cuCtxPushCurrent) IDLE (cuCtxPushCurrent_v2) IDLE (cuCtxSynchronize)
IDLE (cuDeviceGet) IDLE (cuDeviceGetAttribute) IDLE (cuDevicePrimaryCtxGetState) IDLE (cuDevicePrimaryCtxRelease) IDLE (cuDevicePrimaryCtxRelease_v2) IDLE (cuDevicePrimaryCtxRetain)
IDLE (cuGraphAddKernelNode) IDLE (cuGraphAddKernelNode_v2) IDLE (cuGraphKernelNodeSetAttribute) IDLE (cuLaunchCooperativeKernel) IDLE (cuLaunchKernel) IDLE (cuLaunchKernelEx)
IDLE (cuLibraryLoadFromFile) IDLE (cuLibraryGetGlobal) IDLE (cuLibraryGetModule) IDLE (cuLinkAddData) IDLE (cuLinkAddData_v2) IDLE (cuLinkComplete) IDLE (cuLinkCreate) IDLE (cuLinkCreate_v2)
IDLE (cuLinkDestroy) IDLE (cuMemcpyDtoH) IDLE (cuMemcpyDtoH_v2) IDLE (cuModuleGetGlobal) IDLE (cuModuleGetGlobal_v2) IDLE (cuOccupancyMaxActiveBlocksPerMultiprocessor)
IDLE (cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags) IDLE (cuOccupancyMaxActiveClusters) IDLE (cuOccupancyMaxPotentialClusterSize) IDLE (cuStreamGetCtx) IDLE (cuStreamSynchronize)
IDLE (cuTensorMapEncodeIm2col) IDLE (cuTensorMapEncodeTiled) IDLE (cuTensorMapReplaceAddress)

/* The CUDA runtime takes hundreds of functions this way; it calls none of them without a device. */
static int
nothing (void)
{
  return NO_DEVICE;
}

int
cuGetProcAddress_v2 (const char *name, void **f, int version, unsigned long long flags, int *status)
{
  *f = dlsym (RTLD_DEFAULT, name);
  *f = *f ? *f : (void *) nothing;
  if (status)
    *status = 0;
  return SUCCESS;
}

int
cuGetProcAddress (const char *name, void **f, int version, unsigned long long flags)
{
  return cuGetProcAddress_v2 (name, f, version, flags, NULL);
}
