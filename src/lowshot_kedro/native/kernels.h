#ifndef LOWSHOT_KERNELS_H
#define LOWSHOT_KERNELS_H

#include "search.h"

/* Kernels for 8-bit codes, made for one set of instructions each; codes.c chooses among them. */

static inline int64_t padded(int64_t count) {
    return (count + PACK_ROWS - 1) / PACK_ROWS * PACK_ROWS;
}

enum { FOURS = 4 };

/* A query is compared with four vectors at a time; of fewer the first again and again. */
static inline void next_rows(const int8_t *const *vectors, int64_t first, int64_t count,
                             const int8_t *rows[FOURS]) {
    for (int64_t v = 0; v < FOURS; v++)
        rows[v] = vectors[first + v < count ? first + v : first];
}

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
