#include "kernels.h"

#ifdef X86_VECTORS

#include <immintrin.h>

/* There are two ways to add up products of bytes without loss. vpdpbusd (VNNI) multiplies unsigned
 * by signed bytes and adds four products to each 32-bit sum: vectors are made unsigned by adding
 * 128, which adds 128 times the query's sum to every score. Without it, bytes are widened to 16
 * bits, and vpmaddwd adds two products to each other.
 *
 * Packed vectors stand side by side: a row of what is packed holds the next two (four with VNNI)
 * codes of each of several vectors, for which a query's are broadcast. */

enum { PAIR_LANES = 8, PAIR_BYTES = 2 * PAIR_LANES };

static inline const __m128i *as_128(const void *address) { return address; }
static inline const __m256i *as_256(const void *address) { return address; }

static inline int32_t load_int32(const void *address) {
    int32_t value;
    memcpy(&value, address, sizeof value);
    return value;
}

/* Queries, widened to 16 bits, as many columns at a time as have room here. */
enum { WIDENED_COLUMNS = 512 };

struct widened {
    _Alignas(CACHE_LINE_BYTES) int16_t values[QUERY_TILE][WIDENED_COLUMNS];
};

TARGET_AVX2 static void widen_queries(const int8_t *const *queries, int64_t begin, int64_t columns,
                                      struct widened *widened) {
    for (int64_t q = 0; q < QUERY_TILE; q++)
        for (int64_t j = 0; j < columns; j += 16)
            _mm256_store_si256(
                (__m256i *)(widened->values[q] + j),
                _mm256_cvtepi8_epi16(_mm_loadu_si128(as_128(queries[q] + begin + j))));
}

/* Eight vectors' columns begin..begin + 15, pair by pair: rows of PAIR_BYTES. */
TARGET_AVX2 static void pack_pairs(const int8_t *const *vectors, int64_t count, int64_t begin,
                                   uint8_t *rows, int64_t row_stride) {
    __m128i in[PAIR_LANES], mixed[PAIR_LANES];
    for (int64_t v = 0; v < PAIR_LANES; v++)
        in[v] = v < count ? _mm_loadu_si128(as_128(vectors[v] + begin)) : _mm_setzero_si128();
    for (int v = 0; v < 4; v++) {
        mixed[2 * v] = _mm_unpacklo_epi16(in[v], in[v + 4]);
        mixed[2 * v + 1] = _mm_unpackhi_epi16(in[v], in[v + 4]);
    }
    for (int v = 0; v < 4; v++) {
        in[2 * v] = _mm_unpacklo_epi16(mixed[v], mixed[v + 4]);
        in[2 * v + 1] = _mm_unpackhi_epi16(mixed[v], mixed[v + 4]);
    }
    for (int v = 0; v < 4; v++) {
        mixed[2 * v] = _mm_unpacklo_epi16(in[v], in[v + 4]);
        mixed[2 * v + 1] = _mm_unpackhi_epi16(in[v], in[v + 4]);
    }
    for (int row = 0; row < PAIR_LANES; row++)
        _mm_storeu_si128((__m128i *)(rows + row * row_stride), mixed[row]);
}

TARGET_AVX2 static void pack_avx2(const int8_t *const *vectors, int64_t count, int64_t width,
                                  uint8_t *packed) {
    for (int64_t first = 0; first < padded(count); first += PAIR_LANES)
        for (int64_t begin = 0; begin < width; begin += 2 * PAIR_LANES)
            pack_pairs(vectors + first, count - first, begin,
                       packed + first * width + begin * PAIR_LANES, PAIR_BYTES);
}

/* Scores of four queries, for 16 vectors: more would not fit the registers. */
TARGET_AVX2 static void score_four_avx2(const struct widened *widened, int64_t first_query,
                                        const uint8_t *near, const uint8_t *far, int64_t columns,
                                        bool is_first, int32_t *scores) {
    const int16_t *const query_0 = widened->values[first_query],
                         *const query_1 = widened->values[first_query + 1],
                         *const query_2 = widened->values[first_query + 2],
                         *const query_3 = widened->values[first_query + 3];
    int32_t *const scores_0 = scores + first_query * MAX_CHUNK;
    __m256i near_0 = _mm256_setzero_si256(), far_0 = near_0, near_1 = near_0, far_1 = near_0;
    __m256i near_2 = near_0, far_2 = near_0, near_3 = near_0, far_3 = near_0;
    if (!is_first) {
#define LOAD(q)                                                                                    \
    near_##q = _mm256_loadu_si256(as_256(scores_0 + q * MAX_CHUNK));                               \
    far_##q = _mm256_loadu_si256(as_256(scores_0 + q * MAX_CHUNK + PAIR_LANES));
        LOAD(0)
        LOAD(1)
        LOAD(2)
        LOAD(3)
#undef LOAD
    }
    for (int64_t j = 0; j < columns; j += 2) {
        const __m256i near_codes =
            _mm256_cvtepi8_epi16(_mm_loadu_si128(as_128(near + j * PAIR_LANES)));
        const __m256i far_codes =
            _mm256_cvtepi8_epi16(_mm_loadu_si128(as_128(far + j * PAIR_LANES)));
#define ADD_TO(q)                                                                                  \
    {                                                                                              \
        const __m256i pair = _mm256_set1_epi32(load_int32(query_##q + j));                         \
        near_##q = _mm256_add_epi32(near_##q, _mm256_madd_epi16(near_codes, pair));                \
        far_##q = _mm256_add_epi32(far_##q, _mm256_madd_epi16(far_codes, pair));                   \
    }
        ADD_TO(0)
        ADD_TO(1)
        ADD_TO(2)
        ADD_TO(3)
#undef ADD_TO
    }
#define KEEP(q)                                                                                    \
    _mm256_storeu_si256((__m256i *)(scores_0 + q * MAX_CHUNK), near_##q);                          \
    _mm256_storeu_si256((__m256i *)(scores_0 + q * MAX_CHUNK + PAIR_LANES), far_##q);
    KEEP(0)
    KEEP(1)
    KEEP(2)
    KEEP(3)
#undef KEEP
}

TARGET_AVX2 static void score_packed_avx2(const int8_t *const *queries, const int32_t *query_sums,
                                          const uint8_t *packed, int64_t count, int64_t width,
                                          int32_t *scores) {
    (void)query_sums;
    struct widened widened;
    for (int64_t begin = 0; begin < width; begin += WIDENED_COLUMNS) {
        const int64_t left = width - begin;
        const int64_t columns = left < WIDENED_COLUMNS ? left : WIDENED_COLUMNS;
        widen_queries(queries, begin, columns, &widened);
        for (int64_t first = 0; first < count; first += 2 * PAIR_LANES) {
            const uint8_t *const near = packed + first * width + begin * PAIR_LANES;
            for (int64_t q = 0; q < QUERY_TILE; q += FOURS)
                score_four_avx2(&widened, q, near, near + PAIR_LANES * width, columns, begin == 0,
                                scores + first);
        }
    }
}

TARGET_AVX2 static void square_packed_avx2(const uint8_t *packed, int64_t count, int64_t width,
                                           int32_t *squares) {
    for (int64_t first = 0; first < count; first += PAIR_LANES) {
        __m256i sums = _mm256_setzero_si256();
        for (int64_t j = 0; j < width; j += 2) {
            const __m256i codes = _mm256_cvtepi8_epi16(
                _mm_loadu_si128(as_128(packed + first * width + j * PAIR_LANES)));
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(codes, codes));
        }
        _mm256_storeu_si256((__m256i *)(squares + first), sums);
    }
}

/* The sums of four vectors of sums. */
TARGET_AVX2 ALWAYS_INLINE __m128i add_up_four(__m256i sums_0, __m256i sums_1, __m256i sums_2,
                                              __m256i sums_3) {
    const __m256i low = _mm256_hadd_epi32(sums_0, sums_1), high = _mm256_hadd_epi32(sums_2, sums_3);
    const __m256i all = _mm256_hadd_epi32(low, high);
    return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

static inline void keep_rows(const int32_t found[FOURS], int64_t first, int64_t count,
                             int32_t *scores) {
    for (int64_t v = 0; v < FOURS && first + v < count; v++)
        scores[first + v] = found[v];
}

TARGET_AVX2 static void score_rows_avx2(const int8_t *query, int32_t query_sum,
                                        const int8_t *const *vectors, int64_t count, int64_t width,
                                        int32_t *scores) {
    (void)query_sum;
    for (int64_t first = 0; first < count; first += FOURS) {
        const int8_t *rows[FOURS];
        next_rows(vectors, first, count, rows);
        __m256i sums_0 = _mm256_setzero_si256(), sums_1 = sums_0, sums_2 = sums_0, sums_3 = sums_0;
        for (int64_t j = 0; j < width; j += 16) {
            const __m256i codes = _mm256_cvtepi8_epi16(_mm_loadu_si128(as_128(query + j)));
#define ADD_TO(v)                                                                                  \
    sums_##v = _mm256_add_epi32(                                                                   \
        sums_##v,                                                                                  \
        _mm256_madd_epi16(codes, _mm256_cvtepi8_epi16(_mm_loadu_si128(as_128(rows[v] + j)))));
            ADD_TO(0)
            ADD_TO(1)
            ADD_TO(2)
            ADD_TO(3)
#undef ADD_TO
        }
        int32_t found[FOURS];
        _mm_storeu_si128((__m128i *)found, add_up_four(sums_0, sums_1, sums_2, sums_3));
        keep_rows(found, first, count, scores);
    }
}

const struct code_kernels avx2_code_kernels = {pack_avx2, score_packed_avx2, square_packed_avx2,
                                               score_rows_avx2};

/* AVX-512 without VNNI: rows of pairs of 16 vectors, which are those of twice 8. */

enum { WIDE_LANES = 16 };

TARGET_AVX512 static void pack_avx512(const int8_t *const *vectors, int64_t count, int64_t width,
                                      uint8_t *packed) {
    for (int64_t first = 0; first < padded(count); first += WIDE_LANES)
        for (int64_t begin = 0; begin < width; begin += 2 * PAIR_LANES)
            for (int64_t half = 0; half < WIDE_LANES; half += PAIR_LANES)
                pack_pairs(vectors + first + half, count - first - half, begin,
                           packed + first * width + begin * WIDE_LANES + 2 * half, 2 * PAIR_BYTES);
}

TARGET_AVX512 ALWAYS_INLINE __m512i widen_pairs(const uint8_t *row) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(as_256(row)));
}

TARGET_AVX512 static void score_packed_avx512(const int8_t *const *queries,
                                              const int32_t *query_sums, const uint8_t *packed,
                                              int64_t count, int64_t width, int32_t *scores) {
    (void)query_sums;
    struct widened widened;
    for (int64_t begin = 0; begin < width; begin += WIDENED_COLUMNS) {
        const int64_t left = width - begin;
        const int64_t columns = left < WIDENED_COLUMNS ? left : WIDENED_COLUMNS;
        widen_queries(queries, begin, columns, &widened);
        for (int64_t first = 0; first < count; first += 2 * WIDE_LANES) {
            const uint8_t *const near = packed + first * width + begin * WIDE_LANES;
            const uint8_t *const far = near + WIDE_LANES * width;
            __m512i near_sums[QUERY_TILE], far_sums[QUERY_TILE];
            for (int q = 0; q < QUERY_TILE; q++) {
                const int32_t *const before = scores + q * MAX_CHUNK + first;
                near_sums[q] = begin == 0 ? _mm512_setzero_si512() : _mm512_loadu_si512(before);
                far_sums[q] =
                    begin == 0 ? _mm512_setzero_si512() : _mm512_loadu_si512(before + WIDE_LANES);
            }
            for (int64_t j = 0; j < columns; j += 2) {
                const __m512i near_codes = widen_pairs(near + j * WIDE_LANES);
                const __m512i far_codes = widen_pairs(far + j * WIDE_LANES);
                for (int q = 0; q < QUERY_TILE; q++) {
                    const __m512i pair = _mm512_set1_epi32(load_int32(widened.values[q] + j));
                    near_sums[q] =
                        _mm512_add_epi32(near_sums[q], _mm512_madd_epi16(near_codes, pair));
                    far_sums[q] = _mm512_add_epi32(far_sums[q], _mm512_madd_epi16(far_codes, pair));
                }
            }
            for (int q = 0; q < QUERY_TILE; q++) {
                _mm512_storeu_si512(scores + q * MAX_CHUNK + first, near_sums[q]);
                _mm512_storeu_si512(scores + q * MAX_CHUNK + first + WIDE_LANES, far_sums[q]);
            }
        }
    }
}

TARGET_AVX512 static void square_packed_avx512(const uint8_t *packed, int64_t count, int64_t width,
                                               int32_t *squares) {
    for (int64_t first = 0; first < count; first += WIDE_LANES) {
        __m512i sums = _mm512_setzero_si512();
        for (int64_t j = 0; j < width; j += 2) {
            const __m512i codes = widen_pairs(packed + first * width + j * WIDE_LANES);
            sums = _mm512_add_epi32(sums, _mm512_madd_epi16(codes, codes));
        }
        _mm512_storeu_si512(squares + first, sums);
    }
}

/* The sums of four vectors of sums. */
TARGET_AVX512 ALWAYS_INLINE __m128i add_up_wide(__m512i sums_0, __m512i sums_1, __m512i sums_2,
                                                __m512i sums_3) {
    const __m512i low = _mm512_add_epi32(_mm512_unpacklo_epi32(sums_0, sums_1),
                                         _mm512_unpackhi_epi32(sums_0, sums_1));
    const __m512i high = _mm512_add_epi32(_mm512_unpacklo_epi32(sums_2, sums_3),
                                          _mm512_unpackhi_epi32(sums_2, sums_3));
    const __m512i all =
        _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
    const __m256i half =
        _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

TARGET_AVX512 static void score_rows_avx512(const int8_t *query, int32_t query_sum,
                                            const int8_t *const *vectors, int64_t count,
                                            int64_t width, int32_t *scores) {
    (void)query_sum;
    for (int64_t first = 0; first < count; first += FOURS) {
        const int8_t *rows[FOURS];
        next_rows(vectors, first, count, rows);
        __m512i sums_0 = _mm512_setzero_si512(), sums_1 = sums_0, sums_2 = sums_0, sums_3 = sums_0;
        for (int64_t j = 0; j < width; j += 32) {
            const __m512i codes = _mm512_cvtepi8_epi16(_mm256_loadu_si256(as_256(query + j)));
#define ADD_TO(v)                                                                                  \
    sums_##v = _mm512_add_epi32(                                                                   \
        sums_##v,                                                                                  \
        _mm512_madd_epi16(codes, _mm512_cvtepi8_epi16(_mm256_loadu_si256(as_256(rows[v] + j)))));
            ADD_TO(0)
            ADD_TO(1)
            ADD_TO(2)
            ADD_TO(3)
#undef ADD_TO
        }
        int32_t found[FOURS];
        _mm_storeu_si128((__m128i *)found, add_up_wide(sums_0, sums_1, sums_2, sums_3));
        keep_rows(found, first, count, scores);
    }
}

const struct code_kernels avx512_code_kernels = {pack_avx512, score_packed_avx512,
                                                 square_packed_avx512, score_rows_avx512};

/* AVX-512 with VNNI. */

TARGET_VNNI ALWAYS_INLINE __m512i load_unsigned(const int8_t *codes) {
    return _mm512_xor_si512(_mm512_loadu_si512(codes), _mm512_set1_epi8((char)0x80));
}

/* Four codes of each of 16 vectors side by side: row r of packed is the codes 4 r..4 r + 3. */
TARGET_VNNI static void pack_avx512_vnni(const int8_t *const *vectors, int64_t count, int64_t width,
                                         uint8_t *packed) {
    for (int64_t first = 0; first < padded(count); first += WIDE_LANES) {
        for (int64_t begin = 0; begin < width; begin += CODE_WIDTH_UNIT) {
            __m512i rows[WIDE_LANES], turned[WIDE_LANES];
            for (int64_t v = 0; v < WIDE_LANES; v++)
                rows[v] = first + v < count ? load_unsigned(vectors[first + v] + begin)
                                            : _mm512_setzero_si512();
            for (int v = 0; v < WIDE_LANES; v += 2) {
                turned[v] = _mm512_unpacklo_epi32(rows[v], rows[v + 1]);
                turned[v + 1] = _mm512_unpackhi_epi32(rows[v], rows[v + 1]);
            }
            for (int v = 0; v < WIDE_LANES; v += 4) {
                rows[v] = _mm512_unpacklo_epi64(turned[v], turned[v + 2]);
                rows[v + 1] = _mm512_unpackhi_epi64(turned[v], turned[v + 2]);
                rows[v + 2] = _mm512_unpacklo_epi64(turned[v + 1], turned[v + 3]);
                rows[v + 3] = _mm512_unpackhi_epi64(turned[v + 1], turned[v + 3]);
            }
            for (int v = 0; v < 4; v++) {
                const __m512i even = _mm512_shuffle_i32x4(rows[v], rows[4 + v], 0x88);
                const __m512i odd = _mm512_shuffle_i32x4(rows[v], rows[4 + v], 0xdd);
                const __m512i even_high = _mm512_shuffle_i32x4(rows[8 + v], rows[12 + v], 0x88);
                const __m512i odd_high = _mm512_shuffle_i32x4(rows[8 + v], rows[12 + v], 0xdd);
                turned[v] = _mm512_shuffle_i32x4(even, even_high, 0x88);
                turned[8 + v] = _mm512_shuffle_i32x4(even, even_high, 0xdd);
                turned[4 + v] = _mm512_shuffle_i32x4(odd, odd_high, 0x88);
                turned[12 + v] = _mm512_shuffle_i32x4(odd, odd_high, 0xdd);
            }
            uint8_t *const block = packed + first * width + begin * WIDE_LANES;
            for (int v = 0; v < WIDE_LANES; v++)
                _mm512_store_si512(block + v * CODE_WIDTH_UNIT, turned[v]);
        }
    }
}

/* In assembly because gcc copies the accumulators around when it is given the intrinsic. */
#define ADD_PRODUCTS(sums, vectors, four_codes)                                                    \
    __asm__("vpdpbusd %2%{1to16%}, %1, %0"                                                         \
            : "+v"(sums)                                                                           \
            : "v"(vectors), "m"(*(const int32_t (*)[1])(const void *)(four_codes)))

TARGET_VNNI static void score_packed_avx512_vnni(const int8_t *const *queries,
                                                 const int32_t *query_sums, const uint8_t *packed,
                                                 int64_t count, int64_t width, int32_t *scores) {
    const int8_t *const query_0 = queries[0], *const query_1 = queries[1],
                        *const query_2 = queries[2], *const query_3 = queries[3],
                        *const query_4 = queries[4], *const query_5 = queries[5],
                        *const query_6 = queries[6], *const query_7 = queries[7];
    for (int64_t first = 0; first < count; first += PACK_ROWS) {
        const uint8_t *const near = packed + first * width, *const far = near + WIDE_LANES * width;
        __m512i near_0 = _mm512_set1_epi32(-128 * query_sums[0]), far_0 = near_0;
        __m512i near_1 = _mm512_set1_epi32(-128 * query_sums[1]), far_1 = near_1;
        __m512i near_2 = _mm512_set1_epi32(-128 * query_sums[2]), far_2 = near_2;
        __m512i near_3 = _mm512_set1_epi32(-128 * query_sums[3]), far_3 = near_3;
        __m512i near_4 = _mm512_set1_epi32(-128 * query_sums[4]), far_4 = near_4;
        __m512i near_5 = _mm512_set1_epi32(-128 * query_sums[5]), far_5 = near_5;
        __m512i near_6 = _mm512_set1_epi32(-128 * query_sums[6]), far_6 = near_6;
        __m512i near_7 = _mm512_set1_epi32(-128 * query_sums[7]), far_7 = near_7;
        for (int64_t j = 0; j < width; j += 4) {
            const __m512i near_codes = _mm512_load_si512(near + j * WIDE_LANES);
            const __m512i far_codes = _mm512_load_si512(far + j * WIDE_LANES);
#define ADD_TO(q)                                                                                  \
    ADD_PRODUCTS(near_##q, near_codes, query_##q + j);                                             \
    ADD_PRODUCTS(far_##q, far_codes, query_##q + j);
            ADD_TO(0)
            ADD_TO(1)
            ADD_TO(2)
            ADD_TO(3)
            ADD_TO(4)
            ADD_TO(5)
            ADD_TO(6)
            ADD_TO(7)
#undef ADD_TO
        }
#define KEEP(q)                                                                                    \
    _mm512_storeu_si512(scores + q * MAX_CHUNK + first, near_##q);                                 \
    _mm512_storeu_si512(scores + q * MAX_CHUNK + first + WIDE_LANES, far_##q);
        KEEP(0)
        KEEP(1)
        KEEP(2)
        KEEP(3)
        KEEP(4)
        KEEP(5)
        KEEP(6)
        KEEP(7)
#undef KEEP
    }
}

TARGET_VNNI static void square_packed_avx512_vnni(const uint8_t *packed, int64_t count,
                                                  int64_t width, int32_t *squares) {
    const __m512i sign = _mm512_set1_epi8((char)0x80), one = _mm512_set1_epi8(1);
    for (int64_t first = 0; first < count; first += WIDE_LANES) {
        __m512i products = _mm512_setzero_si512(), sums = products;
        for (int64_t j = 0; j < width; j += 4) {
            const __m512i codes = _mm512_load_si512(packed + first * width + j * WIDE_LANES);
            const __m512i vectors = _mm512_xor_si512(codes, sign);
            products = _mm512_dpbusd_epi32(products, codes, vectors);
            sums = _mm512_dpbusd_epi32(sums, one, vectors);
        }
        _mm512_storeu_si512(squares + first,
                            _mm512_sub_epi32(products, _mm512_slli_epi32(sums, 7)));
    }
}

TARGET_VNNI static void score_rows_avx512_vnni(const int8_t *query, int32_t query_sum,
                                               const int8_t *const *vectors, int64_t count,
                                               int64_t width, int32_t *scores) {
    for (int64_t first = 0; first < count; first += FOURS) {
        const int8_t *rows[FOURS];
        next_rows(vectors, first, count, rows);
        __m512i sums_0 = _mm512_setzero_si512(), sums_1 = sums_0, sums_2 = sums_0, sums_3 = sums_0;
        for (int64_t j = 0; j < width; j += CODE_WIDTH_UNIT) {
            const __m512i codes = _mm512_loadu_si512(query + j);
            sums_0 = _mm512_dpbusd_epi32(sums_0, load_unsigned(rows[0] + j), codes);
            sums_1 = _mm512_dpbusd_epi32(sums_1, load_unsigned(rows[1] + j), codes);
            sums_2 = _mm512_dpbusd_epi32(sums_2, load_unsigned(rows[2] + j), codes);
            sums_3 = _mm512_dpbusd_epi32(sums_3, load_unsigned(rows[3] + j), codes);
        }
        const __m128i sums = add_up_wide(sums_0, sums_1, sums_2, sums_3);
        int32_t found[FOURS];
        _mm_storeu_si128((__m128i *)found, _mm_sub_epi32(sums, _mm_set1_epi32(128 * query_sum)));
        keep_rows(found, first, count, scores);
    }
}

const struct code_kernels avx512_vnni_code_kernels = {
    pack_avx512_vnni, score_packed_avx512_vnni, square_packed_avx512_vnni, score_rows_avx512_vnni};

/* AVX-VNNI: the same on vectors of 256 bits. Processors with AVX-512 have that instruction, too, in
 * an encoding of its own. */

TARGET_AVX2 static void pack_avx_vnni(const int8_t *const *vectors, int64_t count, int64_t width,
                                      uint8_t *packed) {
    const __m256i sign = _mm256_set1_epi8((char)0x80);
    for (int64_t first = 0; first < padded(count); first += PAIR_LANES) {
        for (int64_t begin = 0; begin < width; begin += 32) {
            __m256i in[PAIR_LANES], mixed[PAIR_LANES];
            for (int64_t v = 0; v < PAIR_LANES; v++)
                in[v] = first + v < count
                            ? _mm256_xor_si256(
                                  _mm256_loadu_si256(as_256(vectors[first + v] + begin)), sign)
                            : _mm256_setzero_si256();
            for (int v = 0; v < PAIR_LANES; v += 2) {
                mixed[v] = _mm256_unpacklo_epi32(in[v], in[v + 1]);
                mixed[v + 1] = _mm256_unpackhi_epi32(in[v], in[v + 1]);
            }
            for (int v = 0; v < PAIR_LANES; v += 4) {
                in[v] = _mm256_unpacklo_epi64(mixed[v], mixed[v + 2]);
                in[v + 1] = _mm256_unpackhi_epi64(mixed[v], mixed[v + 2]);
                in[v + 2] = _mm256_unpacklo_epi64(mixed[v + 1], mixed[v + 3]);
                in[v + 3] = _mm256_unpackhi_epi64(mixed[v + 1], mixed[v + 3]);
            }
            __m256i *const block = (__m256i *)(packed + first * width + begin * PAIR_LANES);
            for (int v = 0; v < 4; v++) {
                _mm256_store_si256(block + v, _mm256_permute2x128_si256(in[v], in[4 + v], 0x20));
                _mm256_store_si256(block + 4 + v,
                                   _mm256_permute2x128_si256(in[v], in[4 + v], 0x31));
            }
        }
    }
}

/* The kernels for one encoding: the target, and the intrinsic for it. */
#define MAKE_AVX_VNNI_KERNELS(encoding, TARGET, ADD)                                               \
    TARGET static void score_packed_##encoding(const int8_t *const *queries,                       \
                                               const int32_t *query_sums, const uint8_t *packed,   \
                                               int64_t count, int64_t width, int32_t *scores) {    \
        for (int64_t first = 0; first < count; first += 2 * PAIR_LANES) {                          \
            const uint8_t *const near = packed + first * width;                                    \
            const uint8_t *const far = near + PAIR_LANES * width;                                  \
            for (int64_t q = 0; q < QUERY_TILE; q += FOURS) {                                      \
                __m256i near_sums[FOURS], far_sums[FOURS];                                         \
                for (int i = 0; i < FOURS; i++)                                                    \
                    near_sums[i] = far_sums[i] = _mm256_set1_epi32(-128 * query_sums[q + i]);      \
                for (int64_t j = 0; j < width; j += 4) {                                           \
                    const __m256i near_codes = _mm256_load_si256(as_256(near + j * PAIR_LANES));   \
                    const __m256i far_codes = _mm256_load_si256(as_256(far + j * PAIR_LANES));     \
                    for (int i = 0; i < FOURS; i++) {                                              \
                        const __m256i four = _mm256_set1_epi32(load_int32(queries[q + i] + j));    \
                        near_sums[i] = ADD(near_sums[i], near_codes, four);                        \
                        far_sums[i] = ADD(far_sums[i], far_codes, four);                           \
                    }                                                                              \
                }                                                                                  \
                for (int i = 0; i < FOURS; i++) {                                                  \
                    int32_t *const out = scores + (q + i) * MAX_CHUNK + first;                     \
                    _mm256_storeu_si256((__m256i *)out, near_sums[i]);                             \
                    _mm256_storeu_si256((__m256i *)(out + PAIR_LANES), far_sums[i]);               \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    TARGET static void square_packed_##encoding(const uint8_t *packed, int64_t count,              \
                                                int64_t width, int32_t *squares) {                 \
        const __m256i sign = _mm256_set1_epi8((char)0x80), one = _mm256_set1_epi8(1);              \
        for (int64_t first = 0; first < count; first += PAIR_LANES) {                              \
            __m256i products = _mm256_setzero_si256(), sums = products;                            \
            for (int64_t j = 0; j < width; j += 4) {                                               \
                const __m256i codes =                                                              \
                    _mm256_load_si256(as_256(packed + first * width + j * PAIR_LANES));            \
                const __m256i vectors = _mm256_xor_si256(codes, sign);                             \
                products = ADD(products, codes, vectors);                                          \
                sums = ADD(sums, one, vectors);                                                    \
            }                                                                                      \
            _mm256_storeu_si256((__m256i *)(squares + first),                                      \
                                _mm256_sub_epi32(products, _mm256_slli_epi32(sums, 7)));           \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    TARGET static void score_rows_##encoding(const int8_t *query, int32_t query_sum,               \
                                             const int8_t *const *vectors, int64_t count,          \
                                             int64_t width, int32_t *scores) {                     \
        const __m256i sign = _mm256_set1_epi8((char)0x80);                                         \
        for (int64_t first = 0; first < count; first += FOURS) {                                   \
            const int8_t *rows[FOURS];                                                             \
            next_rows(vectors, first, count, rows);                                                \
            __m256i sums[FOURS];                                                                   \
            for (int v = 0; v < FOURS; v++)                                                        \
                sums[v] = _mm256_setzero_si256();                                                  \
            for (int64_t j = 0; j < width; j += 32) {                                              \
                const __m256i codes = _mm256_loadu_si256(as_256(query + j));                       \
                for (int v = 0; v < FOURS; v++)                                                    \
                    sums[v] = ADD(sums[v],                                                         \
                                  _mm256_xor_si256(_mm256_loadu_si256(as_256(rows[v] + j)), sign), \
                                  codes);                                                          \
            }                                                                                      \
            const __m128i all = add_up_four(sums[0], sums[1], sums[2], sums[3]);                   \
            int32_t found[FOURS];                                                                  \
            _mm_storeu_si128((__m128i *)found,                                                     \
                             _mm_sub_epi32(all, _mm_set1_epi32(128 * query_sum)));                 \
            keep_rows(found, first, count, scores);                                                \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    static const struct code_kernels encoding##_code_kernels = {                                   \
        pack_avx_vnni, score_packed_##encoding, square_packed_##encoding, score_rows_##encoding};

MAKE_AVX_VNNI_KERNELS(evex, TARGET_VNNI, _mm256_dpbusd_epi32)
#ifdef COMPILER_HAS_AVX_VNNI
MAKE_AVX_VNNI_KERNELS(vex, TARGET_AVX_VNNI, _mm256_dpbusd_avx_epi32)
#endif

struct code_kernels avx_vnni_code_kernels(void) {
#ifdef COMPILER_HAS_AVX_VNNI
    if (__builtin_cpu_supports("avxvnni"))
        return vex_code_kernels;
#endif
    return evex_code_kernels;
}

#endif
