#include "search.h"

#include <stdlib.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(LOWSHOT_NO_VECTORS)
#define HAVE_VNNI 1
#include <immintrin.h>
#endif

void select_best(candidate *candidates, int64_t count, int64_t kept) {
    int64_t low = 0, high = count - 1;
    while (low < high) {
        const candidate pivot = candidates[low + (high - low) / 2];
        int64_t left = low, right = high;
        while (left <= right) {
            while (candidates[left] > pivot)
                left++;
            while (candidates[right] < pivot)
                right--;
            if (left <= right) {
                const candidate moved = candidates[left];
                candidates[left++] = candidates[right];
                candidates[right--] = moved;
            }
        }
        if (kept - 1 <= right)
            high = right;
        else if (kept - 1 >= left)
            low = left;
        else
            return;
    }
}

void sort_best(candidate *candidates, int64_t count) {
    enum { FEW = 24 };
    while (count > FEW) {
        select_best(candidates, count, count / 2);
        sort_best(candidates, count / 2);
        candidates += count / 2;
        count -= count / 2;
    }
    for (int64_t i = 1; i < count; i++) {
        const candidate moved = candidates[i];
        int64_t j = i;
        for (; j > 0 && candidates[j - 1] < moved; j--)
            candidates[j] = candidates[j - 1];
        candidates[j] = moved;
    }
}

/* For any processor: packing is copying. */

static void pack_plain(const int8_t *const *vectors, int64_t count, int64_t width,
                       uint8_t *packed) {
    for (int64_t v = 0; v < count; v++)
        memcpy(packed + v * width, vectors[v], (size_t)width);
}

MULTIVERSIONED
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

#ifdef HAVE_VNNI

#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

/* vpdpbusd multiplies unsigned by signed bytes, and adds four products to each 32-bit sum. Vectors
 * are made unsigned by adding 128, which adds 128 times the query's sum to every score. */
enum { LANES = 16 };

VNNI ALWAYS_INLINE __m512i load_unsigned(const int8_t *codes) {
    return _mm512_xor_si512(_mm512_loadu_si512(codes), _mm512_set1_epi8((char)0x80));
}

/* Four codes of each of 16 vectors side by side: row r of packed is the codes 4 r..4 r + 3. */
VNNI static void pack_vnni(const int8_t *const *vectors, int64_t count, int64_t width,
                           uint8_t *packed) {
    const int64_t padded = (count + PACK_ROWS - 1) / PACK_ROWS * PACK_ROWS;
    for (int64_t first = 0; first < padded; first += LANES) {
        for (int64_t begin = 0; begin < width; begin += CODE_WIDTH_UNIT) {
            __m512i rows[LANES], turned[LANES];
            for (int64_t v = 0; v < LANES; v++)
                rows[v] = first + v < count ? load_unsigned(vectors[first + v] + begin)
                                            : _mm512_setzero_si512();
            for (int v = 0; v < LANES; v += 2) {
                turned[v] = _mm512_unpacklo_epi32(rows[v], rows[v + 1]);
                turned[v + 1] = _mm512_unpackhi_epi32(rows[v], rows[v + 1]);
            }
            for (int v = 0; v < LANES; v += 4) {
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
            uint8_t *const block = packed + first * width + begin * LANES;
            for (int v = 0; v < LANES; v++)
                _mm512_store_si512(block + v * CODE_WIDTH_UNIT, turned[v]);
        }
    }
}

/* In assembly because gcc copies the accumulators around when it is given the intrinsic. */
#define ADD_PRODUCTS(sums, vectors, four_codes)                                                    \
    __asm__("vpdpbusd %2%{1to16%}, %1, %0"                                                         \
            : "+v"(sums)                                                                           \
            : "v"(vectors), "m"(*(const int32_t (*)[1])(const void *)(four_codes)))

VNNI static void score_packed_vnni(const int8_t *const *queries, const int32_t *query_sums,
                                   const uint8_t *packed, int64_t count, int64_t width,
                                   int32_t *scores) {
    const int8_t *const query_0 = queries[0], *const query_1 = queries[1],
                        *const query_2 = queries[2], *const query_3 = queries[3],
                        *const query_4 = queries[4], *const query_5 = queries[5],
                        *const query_6 = queries[6], *const query_7 = queries[7];
    for (int64_t first = 0; first < count; first += PACK_ROWS) {
        const uint8_t *const near = packed + first * width, *const far = near + LANES * width;
        __m512i near_0 = _mm512_set1_epi32(-128 * query_sums[0]), far_0 = near_0;
        __m512i near_1 = _mm512_set1_epi32(-128 * query_sums[1]), far_1 = near_1;
        __m512i near_2 = _mm512_set1_epi32(-128 * query_sums[2]), far_2 = near_2;
        __m512i near_3 = _mm512_set1_epi32(-128 * query_sums[3]), far_3 = near_3;
        __m512i near_4 = _mm512_set1_epi32(-128 * query_sums[4]), far_4 = near_4;
        __m512i near_5 = _mm512_set1_epi32(-128 * query_sums[5]), far_5 = near_5;
        __m512i near_6 = _mm512_set1_epi32(-128 * query_sums[6]), far_6 = near_6;
        __m512i near_7 = _mm512_set1_epi32(-128 * query_sums[7]), far_7 = near_7;
        for (int64_t j = 0; j < width; j += 4) {
            const __m512i near_codes = _mm512_load_si512(near + j * LANES);
            const __m512i far_codes = _mm512_load_si512(far + j * LANES);
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
    _mm512_storeu_si512(scores + q * MAX_CHUNK + first + LANES, far_##q);
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

VNNI static void score_rows_vnni(const int8_t *query, int32_t query_sum,
                                 const int8_t *const *vectors, int64_t count, int64_t width,
                                 int32_t *scores) {
    for (int64_t first = 0; first < count; first += 4) {
        const int8_t *rows[4];
        for (int64_t v = 0; v < 4; v++)
            rows[v] = vectors[first + v < count ? first + v : first];
        __m512i sums_0 = _mm512_setzero_si512(), sums_1 = sums_0, sums_2 = sums_0, sums_3 = sums_0;
        for (int64_t j = 0; j < width; j += CODE_WIDTH_UNIT) {
            const __m512i codes = _mm512_loadu_si512(query + j);
            sums_0 = _mm512_dpbusd_epi32(sums_0, load_unsigned(rows[0] + j), codes);
            sums_1 = _mm512_dpbusd_epi32(sums_1, load_unsigned(rows[1] + j), codes);
            sums_2 = _mm512_dpbusd_epi32(sums_2, load_unsigned(rows[2] + j), codes);
            sums_3 = _mm512_dpbusd_epi32(sums_3, load_unsigned(rows[3] + j), codes);
        }
        const __m512i low = _mm512_add_epi32(_mm512_unpacklo_epi32(sums_0, sums_1),
                                             _mm512_unpackhi_epi32(sums_0, sums_1));
        const __m512i high = _mm512_add_epi32(_mm512_unpacklo_epi32(sums_2, sums_3),
                                              _mm512_unpackhi_epi32(sums_2, sums_3));
        const __m512i all =
            _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
        const __m256i half =
            _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
        const __m128i quarter =
            _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        int32_t found[4];
        _mm_storeu_si128((void *)found, _mm_sub_epi32(quarter, _mm_set1_epi32(128 * query_sum)));
        for (int64_t v = 0; v < 4 && first + v < count; v++)
            scores[first + v] = found[v];
    }
}

#endif

struct code_kernels choose_code_kernels(void) {
#ifdef HAVE_VNNI
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))
        return (struct code_kernels){pack_vnni, score_packed_vnni, score_rows_vnni};
#endif
    return (struct code_kernels){pack_plain, score_packed_plain, score_rows_plain};
}
