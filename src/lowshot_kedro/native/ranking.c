#include "search.h"

#include <math.h>
#include <stdlib.h>

/* Sums are kept in the same 32 places whatever the vector width of the processor, and float keeps
 * up to the last digits with double for the few vectors whose squares leave its range. */
MULTIVERSIONED
static float inner_product(const float *first, const float *second, int64_t dimension) {
    enum { SUMS = 32 };
    float sums[SUMS] = {0};
    int64_t j = 0;
    for (; j + SUMS <= dimension; j += SUMS)
        for (int64_t s = 0; s < SUMS; s++)
            sums[s] += first[j + s] * second[j + s];
    for (int64_t s = 0; j + s < dimension; s++)
        sums[s] += first[j + s] * second[j + s];
    for (int64_t half = SUMS / 2; half > 0; half /= 2)
        for (int64_t s = 0; s < half; s++)
            sums[s] += sums[s + half];
    return sums[0];
}

static float inner_product_double(const float *first, const float *second, int64_t dimension,
                                  double scale) {
    double sum = 0;
    for (int64_t j = 0; j < dimension; j++)
        sum += (double)first[j] * (double)second[j];
    return (float)(sum * scale);
}

/* Of two floats the larger has the larger key. */
static inline int32_t float_to_key(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits < 0 ? bits ^ INT32_MAX : bits;
}

static inline float key_to_float(int32_t key) {
    const int32_t bits = key < 0 ? key ^ INT32_MAX : key;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* Returns the place of the first candidate that is no vector or whose similarity is no number;
 * n_candidates if there is none. */
static int64_t rank_row(const struct lowshot_matrix *vectors, const float *inverse_lengths,
                        const float *query, const int32_t *candidates, int64_t n_candidates,
                        int64_t width, candidate *room, int32_t *indices, float *similarities) {
    enum { AHEAD = 4 };
    const float least_usual = 1e-12f, most_usual = 1e12f;
    const int64_t dimension = vectors->columns;
    int64_t found = 0;
    for (int64_t c = 0; c < n_candidates; c++) {
        if (c + AHEAD < n_candidates && is_node(candidates[c + AHEAD], vectors->rows))
            for (int64_t j = 0; j < dimension; j += CACHE_LINE_BYTES / 4)
                PREFETCH(vectors->values + candidates[c + AHEAD] * vectors->stride + j);
        const int32_t number = candidates[c];
        if (number == -1)
            continue;
        if (!is_node(number, vectors->rows))
            return c;
        const float *const vector = vectors->values + number * vectors->stride;
        const float scale = inverse_lengths[number];
        float similarity;
        if (scale > least_usual && scale < most_usual)
            similarity = inner_product(query, vector, dimension) * scale;
        else
            similarity = inner_product_double(query, vector, dimension, scale);
        if (!isfinite(similarity))
            return c;
        /* Minus zero is zero, or equal similarities would be ranked by their signs. */
        room[found++] = make_candidate(float_to_key(similarity + 0.0f), number, 0);
    }
    if (found > width) {
        select_best(room, found, width);
        found = width;
    }
    sort_best(room, found);
    for (int64_t c = 0; c < width; c++) {
        indices[c] = c < found ? candidate_number(room[c]) : -1;
        similarities[c] = c < found ? key_to_float(candidate_score(room[c])) : -INFINITY;
    }
    return n_candidates;
}

static bool floats_fit(const struct lowshot_matrix *matrix) {
    return matrix != NULL && matrix->rows <= INT32_MAX &&
           matrix_fits(matrix->values, matrix->rows, matrix->columns, matrix->stride);
}

int lowshot_rank_candidates(const struct lowshot_matrix *vectors, const float *inverse_lengths,
                            const struct lowshot_matrix *queries, const int32_t *candidates,
                            int64_t n_candidates, int64_t width, int32_t *indices,
                            float *similarities, struct lowshot_fault *fault) {
    if (!floats_fit(vectors) || !floats_fit(queries) || queries->columns != vectors->columns ||
        n_candidates > LOWSHOT_MAX_NEIGHBORS || width < 1 || width > LOWSHOT_MAX_NEIGHBORS ||
        !matrix_fits(inverse_lengths, vectors->rows, 1, 1) ||
        !matrix_fits(candidates, queries->rows, n_candidates, n_candidates) ||
        !matrix_fits(indices, queries->rows, width, width) ||
        !matrix_fits(similarities, queries->rows, width, width))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    bool no_memory = false;
    int64_t first_bad = INT64_MAX;
#pragma omp parallel reduction(|| : no_memory) reduction(min : first_bad)
    {
        candidate *const room = malloc(((size_t)n_candidates + 1) * sizeof(candidate));
        if (room == NULL)
            no_memory = true;
#pragma omp for schedule(dynamic, 256)
        for (int64_t row = 0; row < queries->rows; row++) {
            if (room == NULL)
                continue;
            const int64_t bad =
                rank_row(vectors, inverse_lengths, queries->values + row * queries->stride,
                         candidates + row * n_candidates, n_candidates, width, room,
                         indices + row * width, similarities + row * width);
            const int64_t place = row * n_candidates + bad;
            if (bad < n_candidates && place < first_bad)
                first_bad = place;
        }
        free(room);
    }
    if (no_memory)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    if (first_bad != INT64_MAX)
        return report_fault(fault,
                            is_node(candidates[first_bad], vectors->rows) ? LOWSHOT_NOT_FINITE
                                                                          : LOWSHOT_BAD_INDEX,
                            0, first_bad / n_candidates, first_bad % n_candidates);
    return LOWSHOT_OK;
}
