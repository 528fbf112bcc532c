#include "kernels.h"

/* Kernels for 8-bit codes in plain C, and the choice among all there are. */

/* For any processor: packing is copying. */

static void pack_plain(const int8_t *const *vectors, int64_t count, int64_t width,
                       uint8_t *packed) {
    for (int64_t v = 0; v < count; v++)
        memcpy(packed + v * width, vectors[v], (size_t)width);
}

static void score_rows_plain(const int8_t *query, int32_t query_sum, const int8_t *const *vectors,
                             int64_t count, int64_t width, int32_t *scores) {
    (void)query_sum;
    for (int64_t v = 0; v < count; v++) {
        const int8_t *const vector = vectors[v];
        int32_t sum = 0;
        for (int64_t j = 0; j < width; j++)
            sum += (int32_t)query[j] * (int32_t)vector[j];
        scores[v] = sum;
    }
}

static void square_packed_plain(const uint8_t *packed, int64_t count, int64_t width,
                                int32_t *squares) {
    for (int64_t v = 0; v < count; v++) {
        const int8_t *const vector = (const int8_t *)packed + v * width;
        int32_t sum = 0;
        for (int64_t j = 0; j < width; j++)
            sum += (int32_t)vector[j] * (int32_t)vector[j];
        squares[v] = sum;
    }
}

static void score_packed_plain(const int8_t *const *queries, const int32_t *query_sums,
                               const uint8_t *packed, int64_t count, int64_t width,
                               int32_t *scores) {
    const int8_t *vectors[PACK_ROWS];
    for (int64_t first = 0; first < count; first += PACK_ROWS) {
        const int64_t few = count - first < PACK_ROWS ? count - first : PACK_ROWS;
        for (int64_t v = 0; v < few; v++)
            vectors[v] = (const int8_t *)packed + (first + v) * width;
        for (int64_t q = 0; q < QUERY_TILE; q++)
            score_rows_plain(queries[q], query_sums[q], vectors, few, width,
                             scores + q * MAX_CHUNK + first);
    }
}

struct code_kernels choose_code_kernels(void) {
    switch (kernels_in_use()) {
#ifdef X86_VECTORS
    case LOWSHOT_AVX2:
        return avx2_code_kernels;
    case LOWSHOT_AVX_VNNI:
        return avx_vnni_code_kernels();
    case LOWSHOT_AVX512:
        return avx512_code_kernels;
    case LOWSHOT_AVX512_VNNI:
        return avx512_vnni_code_kernels;
#endif
#ifdef ARM_VECTORS
    case LOWSHOT_NEON:
        return neon_code_kernels;
    case LOWSHOT_NEON_DOTPROD:
        return neon_dotprod_code_kernels;
#endif
    default:
        return (struct code_kernels){pack_plain, score_packed_plain, square_packed_plain,
                                     score_rows_plain};
    }
}
