#include "search.h"

#include <math.h>

/* Rows that lie all over a matrix are asked for before their turn. */
enum { AHEAD = 8 };

static void prefetch_row(const struct lowshot_matrix *matrix, int32_t row) {
    if (!is_node(row, matrix->rows))
        return;
    const float *const values = matrix->values + row * matrix->stride;
    for (int64_t j = 0; j < matrix->columns; j += CACHE_LINE_BYTES / 4)
        PREFETCH(values + j);
}

int lowshot_copy_rows(const struct lowshot_matrix *vectors, const float *factors,
                      const int32_t *rows, const int64_t *places, int64_t count, float *copies,
                      int64_t n_copies, struct lowshot_fault *fault) {
    if (!floats_fit(vectors) || !matrix_fits(factors, vectors->rows, 1, 1) ||
        !matrix_fits(rows, count, 1, 1) || !matrix_fits(places, count, 1, 1) ||
        !matrix_fits(copies, n_copies, vectors->columns, vectors->columns))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const struct blocks blocks = split_rows(count);
    int64_t first_bad = INT64_MAX;
    struct stop stop = {0};
#pragma omp parallel for schedule(static) reduction(min : first_bad)
    for (int64_t block = 0; block < blocks.count; block++) {
        if (stop_wanted(&stop))
            continue;
        for (int64_t i = block_begin(blocks, block); i < block_end(blocks, block); i++) {
            if (i + AHEAD < count)
                prefetch_row(vectors, rows[i + AHEAD]);
            if (!is_node(rows[i], vectors->rows) || places[i] < 0 || places[i] >= n_copies) {
                first_bad = i < first_bad ? i : first_bad;
                continue;
            }
            const float *restrict const from = vectors->values + rows[i] * vectors->stride;
            float *restrict const to = copies + places[i] * vectors->columns;
            const float factor = factors[rows[i]];
            for (int64_t j = 0; j < vectors->columns; j++)
                to[j] = from[j] * factor;
        }
    }
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    if (first_bad != INT64_MAX)
        return report_fault(fault, LOWSHOT_BAD_INDEX, is_node(rows[first_bad], vectors->rows),
                            first_bad, 0);
    return LOWSHOT_OK;
}

/* The sum of factors times the bits of a vector's numbers, of which each has been multiplied. */
static uint64_t checksum_of(const float *vector, int64_t dimension, double scale,
                            const uint64_t *factors) {
    /* The halves of factors apart: products of 32 bits are what every processor has. */
    uint64_t low = 0, high = 0;
    for (int64_t j = 0; j < dimension; j++) {
        /* Minus zero is zero. */
        const float value = (float)((double)vector[j] * scale) + 0.0f;
        uint32_t bits;
        memcpy(&bits, &value, sizeof(bits));
        low += (uint64_t)bits * (uint32_t)factors[j];
        high += (uint64_t)bits * (uint32_t)(factors[j] >> 32);
    }
    return low + (high << 32);
}

int lowshot_checksum_rows(const struct lowshot_matrix *vectors, int metric, const uint64_t *factors,
                          uint64_t *checksums, struct lowshot_fault *fault) {
    if (!floats_fit(vectors) || (metric != LOWSHOT_COSINE && metric != LOWSHOT_EUCLIDEAN) ||
        !matrix_fits(factors, vectors->columns, 1, 1) ||
        !matrix_fits(checksums, vectors->rows, 1, 1))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    int64_t first_bad = INT64_MAX;
    struct stop stop = {0};
#pragma omp parallel for schedule(static) reduction(min : first_bad)
    for (int64_t row = 0; row < vectors->rows; row++) {
        if (stop_wanted_by_row(&stop))
            continue;
        const float *const vector = vectors->values + row * vectors->stride;
        const double length = length_of(vector, vectors->columns);
        if (!isfinite(length))
            first_bad = row < first_bad ? row : first_bad;
        const double scale = metric == LOWSHOT_COSINE && length > 0 ? 1.0 / length : 1.0;
        checksums[row] = checksum_of(vector, vectors->columns, scale, factors);
    }
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    if (first_bad != INT64_MAX)
        return report_fault(fault, LOWSHOT_NOT_FINITE, 0, first_bad, 0);
    return LOWSHOT_OK;
}
