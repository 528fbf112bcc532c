#include "kernels.h"

#ifdef ARM_VECTORS

#include <arm_neon.h>

/* With dot products (Armv8.2), one instruction adds four products of signed bytes to each 32-bit
 * sum. Without, eight bytes are multiplied to 16 bits, and neighbours of these are added to 32-bit
 * sums.
 *
 * Packed vectors stand side by side, four codes of each (two without dot products) in a row, for
 * which those of a query are broadcast. */

enum { VECTOR_BYTES = 16, PAIR_LANES = 8 };

static inline void keep_rows(const int32x4_t sums[FOURS], int64_t first, int64_t count,
                             int32_t *scores) {
    for (int64_t v = 0; v < FOURS && first + v < count; v++)
        scores[first + v] = vaddvq_s32(sums[v]);
}

/* Pairs of eight vectors. */

static void pack_neon(const int8_t *const *vectors, int64_t count, int64_t width, uint8_t *packed) {
    for (int64_t first = 0; first < padded(count); first += PAIR_LANES)
        for (int64_t begin = 0; begin < width; begin += VECTOR_BYTES) {
            int16x8_t in[PAIR_LANES], mixed[PAIR_LANES];
            for (int64_t v = 0; v < PAIR_LANES; v++)
                in[v] = first + v < count
                            ? vreinterpretq_s16_s8(vld1q_s8(vectors[first + v] + begin))
                            : vdupq_n_s16(0);
            for (int step = 0; step < 3; step++) {
                for (int v = 0; v < 4; v++) {
                    mixed[2 * v] = vzip1q_s16(in[v], in[v + 4]);
                    mixed[2 * v + 1] = vzip2q_s16(in[v], in[v + 4]);
                }
                memcpy(in, mixed, sizeof in);
            }
            for (int row = 0; row < PAIR_LANES; row++)
                vst1q_s16((int16_t *)(void *)(packed + first * width + begin * PAIR_LANES +
                                              row * VECTOR_BYTES),
                          in[row]);
        }
}

static void score_packed_neon(const int8_t *const *queries, const int32_t *query_sums,
                              const uint8_t *packed, int64_t count, int64_t width,
                              int32_t *scores) {
    (void)query_sums;
    for (int64_t first = 0; first < count; first += PAIR_LANES) {
        const int8_t *const rows = (const int8_t *)packed + first * width;
        int32x4_t near[QUERY_TILE], far[QUERY_TILE];
        for (int q = 0; q < QUERY_TILE; q++)
            near[q] = far[q] = vdupq_n_s32(0);
        for (int64_t j = 0; j < width; j += 2) {
            const int8x16_t codes = vld1q_s8(rows + j * PAIR_LANES);
            for (int q = 0; q < QUERY_TILE; q++) {
                int16_t two;
                memcpy(&two, queries[q] + j, sizeof two);
                const int8x16_t pair = vreinterpretq_s8_s16(vdupq_n_s16(two));
                near[q] = vpadalq_s16(near[q], vmull_s8(vget_low_s8(codes), vget_low_s8(pair)));
                far[q] = vpadalq_s16(far[q], vmull_high_s8(codes, pair));
            }
        }
        for (int q = 0; q < QUERY_TILE; q++) {
            vst1q_s32(scores + q * MAX_CHUNK + first, near[q]);
            vst1q_s32(scores + q * MAX_CHUNK + first + 4, far[q]);
        }
    }
}

static void square_packed_neon(const uint8_t *packed, int64_t count, int64_t width,
                               int32_t *squares) {
    for (int64_t first = 0; first < count; first += PAIR_LANES) {
        int32x4_t near = vdupq_n_s32(0), far = near;
        for (int64_t j = 0; j < width; j += 2) {
            const int8x16_t codes =
                vld1q_s8((const int8_t *)packed + first * width + j * PAIR_LANES);
            near = vpadalq_s16(near, vmull_s8(vget_low_s8(codes), vget_low_s8(codes)));
            far = vpadalq_s16(far, vmull_high_s8(codes, codes));
        }
        vst1q_s32(squares + first, near);
        vst1q_s32(squares + first + 4, far);
    }
}

static void score_rows_neon(const int8_t *query, int32_t query_sum, const int8_t *const *vectors,
                            int64_t count, int64_t width, int32_t *scores) {
    (void)query_sum;
    for (int64_t first = 0; first < count; first += FOURS) {
        const int8_t *rows[FOURS];
        next_rows(vectors, first, count, rows);
        int32x4_t sums[FOURS];
        for (int v = 0; v < FOURS; v++)
            sums[v] = vdupq_n_s32(0);
        for (int64_t j = 0; j < width; j += VECTOR_BYTES) {
            const int8x16_t codes = vld1q_s8(query + j);
            for (int v = 0; v < FOURS; v++) {
                const int8x16_t row = vld1q_s8(rows[v] + j);
                sums[v] = vpadalq_s16(sums[v], vmull_s8(vget_low_s8(codes), vget_low_s8(row)));
                sums[v] = vpadalq_s16(sums[v], vmull_high_s8(codes, row));
            }
        }
        keep_rows(sums, first, count, scores);
    }
}

const struct code_kernels neon_code_kernels = {pack_neon, score_packed_neon, square_packed_neon,
                                               score_rows_neon};

/* Fours of four vectors. */

static void pack_neon_dotprod(const int8_t *const *vectors, int64_t count, int64_t width,
                              uint8_t *packed) {
    for (int64_t first = 0; first < padded(count); first += FOURS)
        for (int64_t begin = 0; begin < width; begin += VECTOR_BYTES) {
            int32x4_t in[FOURS];
            for (int64_t v = 0; v < FOURS; v++)
                in[v] = first + v < count
                            ? vreinterpretq_s32_s8(vld1q_s8(vectors[first + v] + begin))
                            : vdupq_n_s32(0);
            const int32x4_t even_low = vzip1q_s32(in[0], in[2]), odd_low = vzip1q_s32(in[1], in[3]);
            const int32x4_t even_high = vzip2q_s32(in[0], in[2]);
            const int32x4_t odd_high = vzip2q_s32(in[1], in[3]);
            int32_t *const block = (int32_t *)(void *)(packed + first * width + begin * FOURS);
            vst1q_s32(block, vzip1q_s32(even_low, odd_low));
            vst1q_s32(block + 4, vzip2q_s32(even_low, odd_low));
            vst1q_s32(block + 8, vzip1q_s32(even_high, odd_high));
            vst1q_s32(block + 12, vzip2q_s32(even_high, odd_high));
        }
}

TARGET_DOTPROD static void score_packed_neon_dotprod(const int8_t *const *queries,
                                                     const int32_t *query_sums,
                                                     const uint8_t *packed, int64_t count,
                                                     int64_t width, int32_t *scores) {
    (void)query_sums;
    for (int64_t first = 0; first < count; first += 2 * FOURS) {
        const int8_t *const near_rows = (const int8_t *)packed + first * width;
        const int8_t *const far_rows = near_rows + FOURS * width;
        int32x4_t near[QUERY_TILE], far[QUERY_TILE];
        for (int q = 0; q < QUERY_TILE; q++)
            near[q] = far[q] = vdupq_n_s32(0);
        for (int64_t j = 0; j < width; j += 4) {
            const int8x16_t near_codes = vld1q_s8(near_rows + j * FOURS);
            const int8x16_t far_codes = vld1q_s8(far_rows + j * FOURS);
            for (int q = 0; q < QUERY_TILE; q++) {
                int32_t four;
                memcpy(&four, queries[q] + j, sizeof four);
                const int8x16_t of_query = vreinterpretq_s8_s32(vdupq_n_s32(four));
                near[q] = vdotq_s32(near[q], near_codes, of_query);
                far[q] = vdotq_s32(far[q], far_codes, of_query);
            }
        }
        for (int q = 0; q < QUERY_TILE; q++) {
            vst1q_s32(scores + q * MAX_CHUNK + first, near[q]);
            vst1q_s32(scores + q * MAX_CHUNK + first + FOURS, far[q]);
        }
    }
}

TARGET_DOTPROD static void square_packed_neon_dotprod(const uint8_t *packed, int64_t count,
                                                      int64_t width, int32_t *squares) {
    for (int64_t first = 0; first < count; first += FOURS) {
        int32x4_t sums = vdupq_n_s32(0);
        for (int64_t j = 0; j < width; j += 4) {
            const int8x16_t codes = vld1q_s8((const int8_t *)packed + first * width + j * FOURS);
            sums = vdotq_s32(sums, codes, codes);
        }
        vst1q_s32(squares + first, sums);
    }
}

TARGET_DOTPROD static void score_rows_neon_dotprod(const int8_t *query, int32_t query_sum,
                                                   const int8_t *const *vectors, int64_t count,
                                                   int64_t width, int32_t *scores) {
    (void)query_sum;
    for (int64_t first = 0; first < count; first += FOURS) {
        const int8_t *rows[FOURS];
        next_rows(vectors, first, count, rows);
        int32x4_t sums[FOURS];
        for (int v = 0; v < FOURS; v++)
            sums[v] = vdupq_n_s32(0);
        for (int64_t j = 0; j < width; j += VECTOR_BYTES) {
            const int8x16_t codes = vld1q_s8(query + j);
            for (int v = 0; v < FOURS; v++)
                sums[v] = vdotq_s32(sums[v], codes, vld1q_s8(rows[v] + j));
        }
        keep_rows(sums, first, count, scores);
    }
}

const struct code_kernels neon_dotprod_code_kernels = {pack_neon_dotprod, score_packed_neon_dotprod,
                                                       square_packed_neon_dotprod,
                                                       score_rows_neon_dotprod};

#endif
