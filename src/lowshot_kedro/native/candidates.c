#include "search.h"

/* Choosing the best candidates: which scores reach a threshold, and which candidates a pivot. */

#ifdef X86_VECTORS
#include <immintrin.h>
#endif
#ifdef ARM_VECTORS
#include <arm_neon.h>
#endif

/* Of more candidates at a time some other place is needed for the lower ones. */
enum { MAX_DIVIDED = 1024 };

/* Moves what is at least the pivot to the front and returns how much that is. */
static int64_t divide_in_place(candidate *candidates, int64_t count, candidate pivot) {
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

/* What has been divided already, of MAX_DIVIDED candidates at most. */
struct divided {
    candidate *high; /* never reaches beyond what has been read */
    int64_t n_high;
    candidate *low;
    int64_t n_low;
};

static int64_t divide_rest(candidate *candidates, int64_t from, int64_t count, candidate pivot,
                           struct divided divided) {
    for (int64_t i = from; i < count; i++) {
        /* Written twice, and kept by moving on: which it is is too irregular to predict. */
        const candidate word = candidates[i];
        const bool is_high = word >= pivot;
        divided.high[divided.n_high] = word;
        divided.low[divided.n_low] = word;
        divided.n_high += is_high;
        divided.n_low += !is_high;
    }
    memcpy(divided.high + divided.n_high, divided.low, (size_t)divided.n_low * sizeof(candidate));
    return divided.n_high;
}

static int64_t divide_plain(candidate *candidates, int64_t count, candidate pivot) {
    candidate low[MAX_DIVIDED];
    return divide_rest(candidates, 0, count, pivot, (struct divided){candidates, 0, low, 0});
}

static int64_t find_plain(const int32_t *scores, const int32_t *biases, int64_t count,
                          int32_t threshold, int32_t *places) {
    int64_t found = 0;
    for (int64_t v = 0; v < count; v++) {
        places[found] = (int32_t)v;
        found += scores[v] + biases[v] >= threshold;
    }
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

#ifdef X86_VECTORS

/* For each mask of four words, the halves of words in the order that puts the masked ones first. */
static const int32_t words_first[16][8] = {
    {0, 1, 2, 3, 4, 5, 6, 7}, {0, 1, 2, 3, 4, 5, 6, 7}, {2, 3, 0, 1, 4, 5, 6, 7},
    {0, 1, 2, 3, 4, 5, 6, 7}, {4, 5, 0, 1, 2, 3, 6, 7}, {0, 1, 4, 5, 2, 3, 6, 7},
    {2, 3, 4, 5, 0, 1, 6, 7}, {0, 1, 2, 3, 4, 5, 6, 7}, {6, 7, 0, 1, 2, 3, 4, 5},
    {0, 1, 6, 7, 2, 3, 4, 5}, {2, 3, 6, 7, 0, 1, 4, 5}, {0, 1, 2, 3, 6, 7, 4, 5},
    {4, 5, 6, 7, 0, 1, 2, 3}, {0, 1, 4, 5, 6, 7, 2, 3}, {2, 3, 4, 5, 6, 7, 0, 1},
    {0, 1, 2, 3, 4, 5, 6, 7}};

TARGET_AVX2 static int64_t divide_avx2(candidate *candidates, int64_t count, candidate pivot) {
    enum { WORDS = 4 };
    candidate low[MAX_DIVIDED + WORDS];
    struct divided divided = {candidates, 0, low, 0};
    /* There is a comparison of signed words only. */
    const __m256i sign = _mm256_set1_epi64x(INT64_MIN);
    const __m256i pivots = _mm256_xor_si256(_mm256_set1_epi64x((long long)pivot), sign);
    int64_t i = 0;
    for (; i + WORDS <= count; i += WORDS) {
        const __m256i words = _mm256_loadu_si256((const __m256i *)(candidates + i));
        const __m256i is_low = _mm256_cmpgt_epi64(pivots, _mm256_xor_si256(words, sign));
        const int lower = _mm256_movemask_pd(_mm256_castsi256_pd(is_low)), higher = 15 ^ lower;
        const __m256i high_first =
            _mm256_loadu_si256((const __m256i *)(const void *)words_first[higher]);
        const __m256i low_first =
            _mm256_loadu_si256((const __m256i *)(const void *)words_first[lower]);
        _mm256_storeu_si256((__m256i *)(divided.high + divided.n_high),
                            _mm256_permutevar8x32_epi32(words, high_first));
        _mm256_storeu_si256((__m256i *)(divided.low + divided.n_low),
                            _mm256_permutevar8x32_epi32(words, low_first));
        const int64_t n = __builtin_popcount((unsigned)higher);
        divided.n_high += n;
        divided.n_low += WORDS - n;
    }
    return divide_rest(candidates, i, count, pivot, divided);
}

TARGET_AVX512 static int64_t divide_avx512(candidate *candidates, int64_t count, candidate pivot) {
    enum { WORDS = 8 };
    candidate low[MAX_DIVIDED + WORDS];
    struct divided divided = {candidates, 0, low, 0};
    const __m512i pivots = _mm512_set1_epi64((long long)pivot);
    int64_t i = 0;
    for (; i + WORDS <= count; i += WORDS) {
        const __m512i words = _mm512_loadu_si512(candidates + i);
        const __mmask8 high = _mm512_cmpge_epu64_mask(words, pivots);
        _mm512_storeu_si512(divided.high + divided.n_high,
                            _mm512_maskz_compress_epi64(high, words));
        _mm512_storeu_si512(divided.low + divided.n_low,
                            _mm512_maskz_compress_epi64((__mmask8)~high, words));
        const int64_t n = __builtin_popcount(high);
        divided.n_high += n;
        divided.n_low += WORDS - n;
    }
    return divide_rest(candidates, i, count, pivot, divided);
}

TARGET_AVX2 static int64_t find_avx2(const int32_t *scores, const int32_t *biases, int64_t count,
                                     int32_t threshold, int32_t *places) {
    enum { NUMBERS = 8 };
    const __m256i thresholds = _mm256_set1_epi32(threshold);
    int64_t found = 0, v = 0;
    for (; v + NUMBERS <= count; v += NUMBERS) {
        const __m256i sums = _mm256_add_epi32(_mm256_loadu_si256((const __m256i *)(scores + v)),
                                              _mm256_loadu_si256((const __m256i *)(biases + v)));
        const __m256i below = _mm256_cmpgt_epi32(thresholds, sums);
        int hits = 255 ^ _mm256_movemask_ps(_mm256_castsi256_ps(below));
        for (; hits != 0; hits &= hits - 1)
            places[found++] = (int32_t)v + __builtin_ctz((unsigned)hits);
    }
    for (; v < count; v++) {
        places[found] = (int32_t)v;
        found += scores[v] + biases[v] >= threshold;
    }
    return found;
}

TARGET_AVX512 static int64_t find_avx512(const int32_t *scores, const int32_t *biases,
                                         int64_t count, int32_t threshold, int32_t *places) {
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

TARGET_AVX2 static int64_t catch_avx2(const int32_t *scores, const int32_t *biases,
                                      const int32_t *numbers, int64_t count, int32_t threshold,
                                      candidate *caught) {
    enum { NUMBERS = 8 };
    const __m256i thresholds = _mm256_set1_epi32(threshold);
    int64_t n_caught = 0, v = 0;
    for (; v + NUMBERS <= count; v += NUMBERS) {
        const __m256i sums = _mm256_add_epi32(_mm256_loadu_si256((const __m256i *)(scores + v)),
                                              _mm256_loadu_si256((const __m256i *)(biases + v)));
        const __m256i below = _mm256_cmpgt_epi32(thresholds, sums);
        int hits = 255 ^ _mm256_movemask_ps(_mm256_castsi256_ps(below));
        for (; hits != 0; hits &= hits - 1) {
            const int64_t at = v + __builtin_ctz((unsigned)hits);
            caught[n_caught++] = make_candidate(scores[at] + biases[at], numbers[at], 0);
        }
    }
    return n_caught + catch_plain(scores + v, biases + v, numbers + v, count - v, threshold,
                                  caught + n_caught);
}

TARGET_AVX512 static int64_t catch_avx512(const int32_t *scores, const int32_t *biases,
                                          const int32_t *numbers, int64_t count, int32_t threshold,
                                          candidate *caught) {
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

#endif

#ifdef ARM_VECTORS

/* Hits are few: vectors of scores without any are passed over. */
static int64_t find_neon(const int32_t *scores, const int32_t *biases, int64_t count,
                         int32_t threshold, int32_t *places) {
    enum { NUMBERS = 8 };
    const int32x4_t thresholds = vdupq_n_s32(threshold);
    int64_t found = 0, v = 0;
    for (; v + NUMBERS <= count; v += NUMBERS) {
        const int32x4_t near = vaddq_s32(vld1q_s32(scores + v), vld1q_s32(biases + v));
        const int32x4_t far = vaddq_s32(vld1q_s32(scores + v + 4), vld1q_s32(biases + v + 4));
        const uint16x8_t reaches = vcombine_u16(vmovn_u32(vcgeq_s32(near, thresholds)),
                                                vmovn_u32(vcgeq_s32(far, thresholds)));
        /* A byte of each score, 255 for a hit. */
        uint64_t hits = vget_lane_u64(vreinterpret_u64_u8(vmovn_u16(reaches)), 0);
        while (hits != 0) {
            const int place = lowest_bit(hits) / 8;
            places[found++] = (int32_t)v + place;
            hits &= ~(UINT64_C(0xff) << 8 * place);
        }
    }
    for (; v < count; v++) {
        places[found] = (int32_t)v;
        found += scores[v] + biases[v] >= threshold;
    }
    return found;
}

static int64_t catch_neon(const int32_t *scores, const int32_t *biases, const int32_t *numbers,
                          int64_t count, int32_t threshold, candidate *caught) {
    enum { STRIP = 64 };
    int32_t places[STRIP];
    int64_t n_caught = 0;
    for (int64_t first = 0; first < count; first += STRIP) {
        const int64_t size = count - first < STRIP ? count - first : STRIP;
        const int64_t hits = find_neon(scores + first, biases + first, size, threshold, places);
        for (int64_t hit = 0; hit < hits; hit++) {
            const int64_t at = first + places[hit];
            caught[n_caught++] = make_candidate(scores[at] + biases[at], numbers[at], 0);
        }
    }
    return n_caught;
}

#endif

int64_t find_scores(const int32_t *scores, const int32_t *biases, int64_t count, int32_t threshold,
                    int32_t *places) {
    switch (kernels_in_use()) {
#ifdef X86_VECTORS
    case LOWSHOT_AVX512:
    case LOWSHOT_AVX512_VNNI:
        return find_avx512(scores, biases, count, threshold, places);
    case LOWSHOT_AVX2:
    case LOWSHOT_AVX_VNNI:
        return find_avx2(scores, biases, count, threshold, places);
#endif
#ifdef ARM_VECTORS
    case LOWSHOT_NEON:
    case LOWSHOT_NEON_DOTPROD:
        return find_neon(scores, biases, count, threshold, places);
#endif
    default:
        return find_plain(scores, biases, count, threshold, places);
    }
}

int64_t catch_scores(const int32_t *scores, const int32_t *biases, const int32_t *numbers,
                     int64_t count, int32_t threshold, candidate *caught) {
    switch (kernels_in_use()) {
#ifdef X86_VECTORS
    case LOWSHOT_AVX512:
    case LOWSHOT_AVX512_VNNI:
        return catch_avx512(scores, biases, numbers, count, threshold, caught);
    case LOWSHOT_AVX2:
    case LOWSHOT_AVX_VNNI:
        return catch_avx2(scores, biases, numbers, count, threshold, caught);
#endif
#ifdef ARM_VECTORS
    case LOWSHOT_NEON:
    case LOWSHOT_NEON_DOTPROD:
        return catch_neon(scores, biases, numbers, count, threshold, caught);
#endif
    default:
        return catch_plain(scores, biases, numbers, count, threshold, caught);
    }
}

static int64_t divide(candidate *candidates, int64_t count, candidate pivot) {
    if (count > MAX_DIVIDED)
        return divide_in_place(candidates, count, pivot);
    switch (kernels_in_use()) {
#ifdef X86_VECTORS
    case LOWSHOT_AVX512:
    case LOWSHOT_AVX512_VNNI:
        return divide_avx512(candidates, count, pivot);
    case LOWSHOT_AVX2:
    case LOWSHOT_AVX_VNNI:
        return divide_avx2(candidates, count, pivot);
#endif
    default:
        return divide_plain(candidates, count, pivot);
    }
}

enum { FEW = 64, FEW_LANES = 8 };

/* How many of count words, up to FEW, are better than each. words has room for FEW. */
ALWAYS_INLINE void rank_few_portable(candidate *words, int64_t count, int64_t *ranks) {
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

FOR_EVERY_WIDTH(void, rank_few, (candidate * words, int64_t count, int64_t *ranks), words, count,
                ranks)

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
