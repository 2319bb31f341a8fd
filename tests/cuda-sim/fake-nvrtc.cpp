/* cuda-sim/fake-nvrtc.cpp: NVRTC whose code is a host library: what it "compiles" runs on the simulated device.  SIM_CXX is the compiler with its options.
 * Must not know what the kernels are.  A kernel's name must be its own in the whole process. */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unistd.h>

#include <cuda_runtime_api.h>
#include <nvrtc.h>

struct _nvrtcProgram { std::string source, log, code; };

static std::string
contents (const std::string &path)
{
  std::string text;
  char piece[65536];
  FILE *f = fopen (path.c_str (), "rb");
  for (size_t n; f && (n = fread (piece, 1, sizeof piece, f)) > 0;)
    text.append (piece, n);
  if (f)
    fclose (f);
  return text;
}

/* "extern "C" __global__ void __launch_bounds__ (256) NAME (": kernels are exported as the own ones are */
static std::string
exports (const std::string &source)
{
  std::string text;
  for (size_t at = source.find ("__global__"); at != std::string::npos; at = source.find ("__global__", at + 1))
    {
      size_t open = source.find ('(', at), bounds = source.find ("__launch_bounds__", at);
      if (bounds < open)
        open = source.find ('(', source.find (')', bounds));
      size_t end = source.find_last_not_of (" \n", open - 1), start = source.find_last_of (" \n", end);
      text += "HEDDLE_EXPORT_KERNEL (" + source.substr (start + 1, end - start) + ")\n";
    }
  return text;
}

extern "C"
{
/* No real version, and another for other compiler options: caches of compiled kernels are told apart by it. */
nvrtcResult
nvrtcVersion (int *major, int *minor)
{
  unsigned hash = 5381;
  for (const char *c = SIM_CXX; *c; c++)
    hash = hash * 33 + (unsigned char) *c;
  *major = CUDART_VERSION / 1000;
  *minor = 1000 + (int) (hash % 1000000);
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetNumSupportedArchs (int *n) { *n = 1; return NVRTC_SUCCESS; }
nvrtcResult nvrtcGetSupportedArchs (int *archs) { archs[0] = 90; return NVRTC_SUCCESS; }
const char *nvrtcGetErrorString (nvrtcResult r) { return r == NVRTC_SUCCESS ? "NVRTC_SUCCESS" : "NVRTC_ERROR_COMPILATION"; }

nvrtcResult
nvrtcCreateProgram (nvrtcProgram *p, const char *source, const char *, int, const char *const *, const char *const *)
{
  *p = new _nvrtcProgram { source, "", "" };
  return NVRTC_SUCCESS;
}

nvrtcResult
nvrtcCompileProgram (nvrtcProgram p, int, const char *const *)
{
  char folder[] = "/tmp/heddle-sim-XXXXXX";
  if (!mkdtemp (folder))
    return NVRTC_ERROR_COMPILATION;
  std::string base = folder, source = base + "/kernel.cpp", object = base + "/kernel.so", errors = base + "/log";
  FILE *f = fopen (source.c_str (), "w");
  if (f)
    {
      fprintf (f, "#include \"simt.h\"\n%s\n%s", p->source.c_str (), exports (p->source).c_str ());
      fclose (f);
    }
  int status = system ((SIM_CXX " -o " + object + " " + source + " >" + errors + " 2>&1").c_str ());
  p->log = contents (errors);
  p->code = status ? "" : contents (object);
  for (const std::string &file : { source, object, errors })
    unlink (file.c_str ());
  rmdir (folder);
  return status ? NVRTC_ERROR_COMPILATION : NVRTC_SUCCESS;
}

nvrtcResult nvrtcDestroyProgram (nvrtcProgram *p) { delete *p; *p = nullptr; return NVRTC_SUCCESS; }
nvrtcResult nvrtcGetProgramLogSize (nvrtcProgram p, size_t *n) { *n = p->log.size () + 1; return NVRTC_SUCCESS; }
nvrtcResult nvrtcGetProgramLog (nvrtcProgram p, char *text) { memcpy (text, p->log.c_str (), p->log.size () + 1); return NVRTC_SUCCESS; }
nvrtcResult nvrtcGetCUBINSize (nvrtcProgram p, size_t *n) { *n = p->code.size (); return NVRTC_SUCCESS; }
nvrtcResult nvrtcGetCUBIN (nvrtcProgram p, char *code) { memcpy (code, p->code.data (), p->code.size ()); return NVRTC_SUCCESS; }
nvrtcResult nvrtcGetPTXSize (nvrtcProgram p, size_t *n) { return nvrtcGetCUBINSize (p, n); }
nvrtcResult nvrtcGetPTX (nvrtcProgram p, char *code) { return nvrtcGetCUBIN (p, code); }
}
