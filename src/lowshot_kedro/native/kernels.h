#ifndef LOWSHOT_KERNELS_H
#define LOWSHOT_KERNELS_H

#include "search.h"

/* Kernels for 8-bit codes, made for one set of instructions each; codes.c chooses among them. */

#ifdef X86_VECTORS
extern const struct code_kernels avx2_code_kernels;
extern const struct code_kernels avx512_code_kernels;
extern const struct code_kernels avx512_vnni_code_kernels;
/* With the encoding that this processor has. */
struct code_kernels avx_vnni_code_kernels(void);
#endif

#ifdef ARM_VECTORS
extern const struct code_kernels neon_code_kernels;
extern const struct code_kernels neon_dotprod_code_kernels;
#endif

#endif
