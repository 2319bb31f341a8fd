/* cuda/fatbin.h: device code of the module, embedded by fatbin.c; fatbins.def lists the files. */
#ifndef HEDDLE_BACKEND_CUDA_FATBIN_H
#define HEDDLE_BACKEND_CUDA_FATBIN_H

#define FATBIN(name) extern const unsigned char heddle_fatbin_##name[];
#include "fatbins.def"
#undef FATBIN

#endif
