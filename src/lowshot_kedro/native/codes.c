#include "search.h"

#include <stdlib.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(LOWSHOT_NO_VECTORS)
#define HAVE_VNNI 1
#include <immintrin.h>
#endif

/* Moves what is at least the pivot to the front and returns how much that is. */
static int64_t divide_plain(candidate *candidates, int64_t count, candidate pivot) {
    int64_t left = 0, right = count - 1;
    for (;;) {
        while (left <= right && candidates[left] >= pivot)
            left++;
        while (left <= right && candidates[right] < pivot)
            right--;
        if (left >= right)
            return left;
        const candidate moved = candidates[left];
        candidates[left++] = candidates[right];
        candidates[right--] = moved;
    }
}

/* The numbers of the scores that reach the threshold, count up to MAX_STRIP. */
static int64_t find_plain(const int32_t *scores, const int32_t *biases, int64_t count,
                          int32_t threshold, int32_t *places) {
    int64_t found = 0;
    for (int64_t v = 0; v < count; v++)
        if (scores[v] + biases[v] >= threshold)
            places[found++] = (int32_t)v;
    return found;
}

static int64_t catch_plain(const int32_t *scores, const int32_t *biases, const int32_t *numbers,
                           int64_t count, int32_t threshold, candidate *caught) {
    int64_t n_caught = 0;
    for (int64_t v = 0; v < count; v++) {
        const int32_t score = scores[v] + biases[v];
        caught[n_caught] = make_candidate(score, numbers[v], 0);
        n_caught += score >= threshold;
    }
    return n_caught;
}

#ifdef HAVE_VNNI

#define WIDE __attribute__((target("avx512f,avx512bw,avx512vl,popcnt")))

WIDE static int64_t divide_wide(candidate *candidates, int64_t count, candidate pivot) {
    enum { WORDS = 8, MOST = 1024 };
    candidate low[MOST + WORDS];
    if (count > MOST)
        return divide_plain(candidates, count, pivot);
    const __m512i pivots = _mm512_set1_epi64((long long)pivot);
    int64_t n_high = 0, n_low = 0, i = 0;
    /* What is written in front was read before: it never reaches beyond the words at hand. */
    for (; i + WORDS <= count; i += WORDS) {
        const __m512i words = _mm512_loadu_si512(candidates + i);
        const __mmask8 high = _mm512_cmpge_epu64_mask(words, pivots);
        _mm512_storeu_si512(candidates + n_high, _mm512_maskz_compress_epi64(high, words));
        _mm512_storeu_si512(low + n_low, _mm512_maskz_compress_epi64((__mmask8)~high, words));
        const int64_t n = __builtin_popcount(high);
        n_high += n;
        n_low += WORDS - n;
    }
    for (; i < count; i++) {
        if (candidates[i] >= pivot)
            candidates[n_high++] = candidates[i];
        else
            low[n_low++] = candidates[i];
    }
    memcpy(candidates + n_high, low, (size_t)n_low * sizeof(candidate));
    return n_high;
}

WIDE static int64_t find_wide(const int32_t *scores, const int32_t *biases, int64_t count,
                              int32_t threshold, int32_t *places) {
    enum { NUMBERS = 16 };
    const __m512i thresholds = _mm512_set1_epi32(threshold);
    const __m512i step = _mm512_set1_epi32(NUMBERS);
    __m512i numbers = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    int64_t found = 0;
    for (int64_t v = 0; v < count; v += NUMBERS) {
        const __mmask16 there =
            count - v < NUMBERS ? (__mmask16)((1u << (count - v)) - 1) : (__mmask16)0xffff;
        const __m512i sums = _mm512_add_epi32(_mm512_maskz_loadu_epi32(there, scores + v),
                                              _mm512_maskz_loadu_epi32(there, biases + v));
        const __mmask16 hits = _mm512_mask_cmpge_epi32_mask(there, sums, thresholds);
        if (hits) {
            _mm512_storeu_si512(places + found, _mm512_maskz_compress_epi32(hits, numbers));
            found += __builtin_popcount(hits);
        }
        numbers = _mm512_add_epi32(numbers, step);
    }
    return found;
}

WIDE static int64_t catch_wide(const int32_t *scores, const int32_t *biases, const int32_t *numbers,
                               int64_t count, int32_t threshold, candidate *caught) {
    enum { NUMBERS = 16, HALF = 8 };
    const __m512i thresholds = _mm512_set1_epi32(threshold);
    const __m512i sign = _mm512_set1_epi32(INT32_MIN), last = _mm512_set1_epi32(INT32_MAX);
    int64_t n_caught = 0;
    for (int64_t v = 0; v < count; v += NUMBERS) {
        const __mmask16 there =
            count - v < NUMBERS ? (__mmask16)((1u << (count - v)) - 1) : (__mmask16)0xffff;
        const __m512i sums = _mm512_add_epi32(_mm512_maskz_loadu_epi32(there, scores + v),
                                              _mm512_maskz_loadu_epi32(there, biases + v));
        const __mmask16 hits = _mm512_mask_cmpge_epi32_mask(there, sums, thresholds);
        if (hits == 0)
            continue;
        const __m512i named = _mm512_maskz_loadu_epi32(there, numbers + v);
        const __m512i low =
            _mm512_maskz_compress_epi32(hits, _mm512_slli_epi32(_mm512_sub_epi32(last, named), 1));
        const __m512i high = _mm512_maskz_compress_epi32(hits, _mm512_xor_si512(sums, sign));
#define WORDS(half)                                                                                \
    _mm512_or_si512(                                                                               \
        _mm512_slli_epi64(_mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(high, half)), 32),       \
        _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(low, half)))
        const int64_t n = __builtin_popcount(hits);
        _mm512_storeu_si512(caught + n_caught, WORDS(0));
        if (n > HALF)
            _mm512_storeu_si512(caught + n_caught + HALF, WORDS(1));
#undef WORDS
        n_caught += n;
    }
    return n_caught;
}

static bool have_wide(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("popcnt");
}

#endif

int64_t find_scores(const int32_t *scores, const int32_t *biases, int64_t count, int32_t threshold,
                    int32_t *places) {
#ifdef HAVE_VNNI
    if (have_wide())
        return find_wide(scores, biases, count, threshold, places);
#endif
    return find_plain(scores, biases, count, threshold, places);
}

int64_t catch_scores(const int32_t *scores, const int32_t *biases, const int32_t *numbers,
                     int64_t count, int32_t threshold, candidate *caught) {
#ifdef HAVE_VNNI
    if (have_wide())
        return catch_wide(scores, biases, numbers, count, threshold, caught);
#endif
    return catch_plain(scores, biases, numbers, count, threshold, caught);
}

static int64_t divide(candidate *candidates, int64_t count, candidate pivot) {
#ifdef HAVE_VNNI
    if (have_wide())
        return divide_wide(candidates, count, pivot);
#endif
    return divide_plain(candidates, count, pivot);
}

enum { FEW = 64, FEW_LANES = 8 };

/* How many of count words, up to FEW, are better than each. words has room for FEW. */
MULTIVERSIONED
static void rank_few(candidate *words, int64_t count, int64_t *ranks) {
    for (int64_t i = count; i % FEW_LANES != 0; i++)
        words[i] = 0;
    for (int64_t first = 0; first < count; first += FEW_LANES) {
        int64_t better[FEW_LANES] = {0};
        for (int64_t i = 0; i < count; i++)
#pragma omp simd
            for (int64_t lane = 0; lane < FEW_LANES; lane++)
                better[lane] += words[i] > words[first + lane];
        memcpy(ranks + first, better, sizeof better);
    }
}

/* A candidate that about `wanted` of count are not worse than: the one of that rank among a few. */
static candidate choose_pivot(const candidate *candidates, int64_t count, int64_t wanted) {
    enum { SAMPLE = 16 };
    candidate sample[SAMPLE];
    int64_t ranks[SAMPLE];
    const int64_t size = count < SAMPLE ? count : SAMPLE;
    for (int64_t i = 0; i < size; i++)
        sample[i] = candidates[(2 * i + 1) * count / (2 * size)];
    rank_few(sample, size, ranks);
    const int64_t rank = wanted * size / count;
    for (int64_t i = 0; i < size; i++)
        if (ranks[i] == rank)
            return sample[i];
    return sample[0];
}

int64_t select_about(candidate *candidates, int64_t count, int64_t kept, int64_t most) {
    /* The kept-th best lies among the count candidates from the first that is not sure yet. */
    int64_t sure = 0;
    while (sure + count > most) {
        candidate *const unsure = candidates + sure;
        const candidate pivot = choose_pivot(unsure, count, (kept + most) / 2 - sure);
        const int64_t high = divide(unsure, count, pivot);
        if (sure + high < kept) {
            sure += high;
            count -= high;
        } else if (high < count) {
            count = high;
        } else {
            /* The pivot is the worst: put it last and leave it there, unless it has its equals. */
            int64_t worst = 0;
            while (unsure[worst] != pivot)
                worst++;
            unsure[worst] = unsure[count - 1];
            unsure[--count] = pivot;
        }
    }
    return sure + count;
}

void select_best(candidate *candidates, int64_t count, int64_t kept) {
    if (kept > 0)
        select_about(candidates, count, kept, kept);
}

void sort_best(candidate *candidates, int64_t count) {
    while (count > FEW) {
        select_best(candidates, count, count / 2);
        sort_best(candidates, count / 2);
        candidates += count / 2;
        count -= count / 2;
    }
    candidate words[FEW];
    int64_t ranks[FEW];
    memcpy(words, candidates, (size_t)count * sizeof(candidate));
    rank_few(words, count, ranks);
    for (int64_t i = 0; i < count; i++)
        candidates[ranks[i]] = words[i];
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

MULTIVERSIONED
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

VNNI static void square_packed_vnni(const uint8_t *packed, int64_t count, int64_t width,
                                    int32_t *squares) {
    const __m512i sign = _mm512_set1_epi8((char)0x80), one = _mm512_set1_epi8(1);
    for (int64_t first = 0; first < count; first += LANES) {
        __m512i products = _mm512_setzero_si512(), sums = products;
        for (int64_t j = 0; j < width; j += 4) {
            const __m512i codes = _mm512_load_si512(packed + first * width + j * LANES);
            const __m512i vectors = _mm512_xor_si512(codes, sign);
            products = _mm512_dpbusd_epi32(products, codes, vectors);
            sums = _mm512_dpbusd_epi32(sums, one, vectors);
        }
        _mm512_storeu_si512(squares + first,
                            _mm512_sub_epi32(products, _mm512_slli_epi32(sums, 7)));
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
        return (struct code_kernels){pack_vnni, score_packed_vnni, square_packed_vnni,
                                     score_rows_vnni};
#endif
    return (struct code_kernels){pack_plain, score_packed_plain, square_packed_plain,
                                 score_rows_plain};
}
