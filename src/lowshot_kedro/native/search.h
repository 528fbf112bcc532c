#ifndef LOWSHOT_SEARCH_H
#define LOWSHOT_SEARCH_H

#include "native.h"

#include <math.h>

/* What searching for neighbours has in common: ranking candidates, and scores of 8-bit codes. */

/* A candidate in one word that compares like its rank: the larger score first, of equal scores the
 * smaller number. No two candidates of a row are equal, so what is kept does not depend on the
 * order in which they come. The last bit tells whether a candidate is new and never decides. */
typedef uint64_t candidate;

static inline candidate make_candidate(int32_t score, int32_t number, uint32_t is_new) {
    const uint32_t high = (uint32_t)score ^ UINT32_C(0x80000000);
    return (uint64_t)high << 32 | ((uint32_t)INT32_MAX - (uint32_t)number) << 1 | is_new;
}

static inline int32_t candidate_score(candidate word) {
    return (int32_t)((uint32_t)(word >> 32) ^ UINT32_C(0x80000000));
}

static inline int32_t candidate_number(candidate word) {
    return (int32_t)((uint32_t)INT32_MAX - ((uint32_t)word >> 1));
}

static inline uint32_t candidate_is_new(candidate word) { return (uint32_t)word & 1; }

/* Moves the best `kept` of `count` candidates to the front, in any order. */
void select_best(candidate *candidates, int64_t count, int64_t kept);
/* Moves the best to the front, at least `kept` and at most `most`, and returns how many; all of
 * them if they are no more than `most`. That takes less time if it need not be a certain number. */
int64_t select_about(candidate *candidates, int64_t count, int64_t kept, int64_t most);
/* Sorts candidates, the best first. */
void sort_best(candidate *candidates, int64_t count);

/* The places of the scores that reach a threshold together with their biases. places has room for
 * count, rounded up to 16. */
int64_t find_scores(const int32_t *scores, const int32_t *biases, int64_t count, int32_t threshold,
                    int32_t *places);

/* The candidates whose scores reach a threshold together with their biases. caught has room for
 * count, rounded up to 16. */
int64_t catch_scores(const int32_t *scores, const int32_t *biases, const int32_t *numbers,
                     int64_t count, int32_t threshold, candidate *caught);

/* Codes are scored QUERY_TILE queries at a time with up to MAX_CHUNK vectors packed for that. */
enum { CODE_WIDTH_UNIT = 64, QUERY_TILE = 8, PACK_ROWS = 32, MAX_CHUNK = 1024 };

struct code_kernels {
    /* Packs the codes of count vectors; packed has room for count, rounded up to PACK_ROWS. */
    void (*pack)(const int8_t *const *vectors, int64_t count, int64_t width, uint8_t *packed);
    /* scores[q * MAX_CHUNK + v] = sum over j of queries[q][j] * vectors[v][j], for QUERY_TILE
     * queries; scores has room for count, rounded up to PACK_ROWS, in every row. */
    void (*score_packed)(const int8_t *const *queries, const int32_t *query_sums,
                         const uint8_t *packed, int64_t count, int64_t width, int32_t *scores);
    /* squares[v] = sum over j of vectors[v][j]^2; squares has room for count, rounded up to
     * PACK_ROWS. */
    void (*square_packed)(const uint8_t *packed, int64_t count, int64_t width, int32_t *squares);
    /* scores[v] = sum over j of query[j] * vectors[v][j]. */
    void (*score_rows)(const int8_t *query, int32_t query_sum, const int8_t *const *vectors,
                       int64_t count, int64_t width, int32_t *scores);
};

struct code_kernels choose_code_kernels(void);

/* How many vectors are packed at a time: so many that they stay in the cache. */
enum { PACKED_BYTES = 1 << 17 };
static inline int64_t chunk_rows(int64_t width) {
    const int64_t chunk = PACKED_BYTES / width / PACK_ROWS * PACK_ROWS;
    return chunk < PACK_ROWS ? PACK_ROWS : chunk > MAX_CHUNK ? MAX_CHUNK : chunk;
}

/* The score of a vector is that of the query itself less half their squared distance, if biases are
 * minus half of squared lengths. The distance at the floor, and the share of it that first columns
 * may have, make a least score of these. square: of the query's first columns. rounding: what
 * halves of squares may lose. */
static inline int32_t prefix_threshold(int64_t share, int32_t floor, int32_t bias, int64_t square,
                                       int32_t rounding) {
    const int64_t most = -((int64_t)floor + bias) > 0 ? -((int64_t)floor + bias) : 0;
    const int64_t of_prefix = (most * share + LOWSHOT_WHOLE - 1) / LOWSHOT_WHOLE;
    const int64_t least = square / 2 - of_prefix - rounding;
    return least < INT32_MIN ? INT32_MIN : (int32_t)least;
}

static inline int32_t sum_of_codes(const int8_t *codes, int64_t width) {
    int32_t sum = 0;
    for (int64_t j = 0; j < width; j++)
        sum += codes[j];
    return sum;
}

static inline bool codes_fit(const struct lowshot_codes *codes) {
    return codes != NULL && codes->width > 0 && codes->width % CODE_WIDTH_UNIT == 0 &&
           codes->width <= LOWSHOT_MAX_CODE_WIDTH && codes->rows <= INT32_MAX &&
           matrix_fits(codes->values, codes->rows, codes->width, codes->width) &&
           matrix_fits(codes->biases, codes->rows, 1, 1);
}

/* Two codes multiply to 2^14 at most, so with these biases every score is an int32. */
static inline int32_t largest_bias(int64_t width) { return INT32_MAX - (int32_t)(width << 14); }

/* The biases count as list 2 of what is faulty. */
static inline int check_biases(const struct lowshot_codes *codes, struct lowshot_fault *fault) {
    const int32_t largest = largest_bias(codes->width);
    const int kind =
        check_indices(codes->biases, codes->rows, 1, 1, -largest, (int64_t)largest + 1, fault);
    if (kind != LOWSHOT_OK && fault != NULL)
        fault->list = 2;
    return kind;
}

/* Sizes and pointers only. */
static inline bool floats_fit(const struct lowshot_matrix *matrix) {
    return matrix != NULL && matrix->rows <= INT32_MAX &&
           matrix_fits(matrix->values, matrix->rows, matrix->columns, matrix->stride);
}

/* Sums are kept in the same places whatever the vector width of the processor. */
ALWAYS_INLINE double length_of(const float *vector, int64_t dimension) {
    enum { SUMS = 16 };
    double sums[SUMS] = {0};
    int64_t j = 0;
    for (; j + SUMS <= dimension; j += SUMS)
        for (int64_t s = 0; s < SUMS; s++)
            sums[s] += (double)vector[j + s] * (double)vector[j + s];
    for (int64_t s = 0; j + s < dimension; s++)
        sums[s] += (double)vector[j + s] * (double)vector[j + s];
    double total = 0;
    for (int64_t s = 0; s < SUMS; s++)
        total += sums[s];
    return sqrt(total);
}

#endif
