/* cuda/fatbin.c: the device code of the module's own kernels, embedded.  Must not know what is in it. */
#include "fatbin.h"

/* The path is relative to the build folder, where the assembler runs. */
#define EMBED(name) \
  __asm__ (".section .rodata\n.balign 16\n.hidden cuda_image_" #name "\n.global cuda_image_" #name "\ncuda_image_" #name ":\n" \
           ".incbin \"core/backend/cuda/kernels/" #name ".fatbin\"\n.byte 0\n.previous\n");
#include "kernels.inc"
#undef EMBED

#define EMBED(name) extern const unsigned char cuda_image_##name[] __attribute__ ((visibility ("hidden")));
#include "kernels.inc"
#undef EMBED

const CudaImage cuda_images[] = {
#define EMBED(name) { #name, cuda_image_##name },
#include "kernels.inc"
#undef EMBED
  { 0 }
};
