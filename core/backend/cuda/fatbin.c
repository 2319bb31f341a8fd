/* cuda/fatbin.c: embeds kernels/NAME.fatbin, which nvcc made for every architecture asked for.  Must not know what is in them. */
#include "fatbin.h"

/* paths are relative to the build folder, where the assembler runs */
#define EMBED(symbol, file) \
  __asm__ (".section .rodata\n.balign 16\n.hidden " symbol "\n.global " symbol "\n" symbol ":\n.incbin \"" file "\"\n.byte 0\n.previous\n");
#define FATBIN(name) EMBED ("heddle_fatbin_" #name, "core/backend/cuda/kernels/" #name ".fatbin")
#include "fatbins.def"
