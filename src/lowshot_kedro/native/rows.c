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

int lowshot_take_vectors(const struct lowshot_matrix *vectors, const float *inverse_lengths,
                         const int32_t *numbers, int64_t count, float *taken,
                         struct lowshot_fault *fault) {
    if (vectors == NULL ||
        !matrix_fits(vectors->values, vectors->rows, vectors->columns, vectors->stride) ||
        (inverse_lengths != NULL && !matrix_fits(inverse_lengths, vectors->rows, 1, 1)) ||
        !matrix_fits(numbers, count, 1, 1) ||
        !matrix_fits(taken, count, vectors->columns, vectors->columns))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int kind = check_indices(numbers, count, 1, 1, 0, vectors->rows, fault);
    if (kind != LOWSHOT_OK)
        return kind;
    const int64_t dimension = vectors->columns;
    struct stop stop = {0};
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < count; row++) {
        if (stop_wanted_by_row(&stop))
            continue;
        if (row + AHEAD < count)
            for (int64_t j = 0; j < dimension; j += CACHE_LINE_BYTES / 4)
                PREFETCH(vectors->values + numbers[row + AHEAD] * vectors->stride + j);
        const float *const vector = vectors->values + numbers[row] * vectors->stride;
        const float factor = inverse_lengths != NULL ? inverse_lengths[numbers[row]] : 1.0f;
        for (int64_t j = 0; j < dimension; j++)
            taken[row * dimension + j] = vector[j] * factor;
    }
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return LOWSHOT_OK;
}

int lowshot_place_codes(const struct lowshot_codes *codes, const int32_t *positions, int8_t *values,
                        int32_t *biases, int64_t rows, struct lowshot_fault *fault) {
    if (!codes_fit(codes) || !matrix_fits(positions, codes->rows, 1, 1) ||
        !matrix_fits(values, rows, codes->width, codes->width) || !matrix_fits(biases, rows, 1, 1))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int kind = check_indices(positions, codes->rows, 1, 1, 0, rows, fault);
    if (kind != LOWSHOT_OK)
        return kind;
    struct stop stop = {0};
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < codes->rows; row++) {
        if (stop_wanted_by_row(&stop))
            continue;
        memcpy(values + positions[row] * codes->width, codes->values + row * codes->width,
               (size_t)codes->width);
        biases[positions[row]] = codes->biases[row];
    }
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return LOWSHOT_OK;
}

/* Whether all of a row are nodes or nothing, and the similarities of nodes numbers. */
static bool shift_row(const int32_t *indices, const float *similarities, int64_t columns,
                      int64_t nodes, int32_t offset, int32_t *shifted) {
    bool right = true;
    for (int64_t c = 0; c < columns; c++) {
        const int32_t index = indices[c];
        right &= index >= -1 && index < nodes && (index < 0 || isfinite(similarities[c]));
        shifted[c] = index < 0 ? -1 : (int32_t)((uint32_t)index + (uint32_t)offset);
    }
    return right;
}

int lowshot_shift_neighbors(const struct lowshot_ranking *neighbors, int64_t rows, int64_t nodes,
                            int32_t *shifted, struct lowshot_fault *fault) {
    if (neighbors == NULL || nodes < 0 || neighbors->offset < 0 ||
        neighbors->offset > INT32_MAX - nodes ||
        !matrix_fits(neighbors->indices, rows, neighbors->width, neighbors->indices_stride) ||
        !matrix_fits(neighbors->similarities, rows, neighbors->width,
                     neighbors->similarities_stride) ||
        !matrix_fits(shifted, rows, neighbors->width, neighbors->width))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    int64_t first_bad = INT64_MAX;
    struct stop stop = {0};
#pragma omp parallel for schedule(static) reduction(min : first_bad)
    for (int64_t row = 0; row < rows; row++) {
        if (stop_wanted_by_row(&stop))
            continue;
        if (!shift_row(neighbors->indices + row * neighbors->indices_stride,
                       neighbors->similarities + row * neighbors->similarities_stride,
                       neighbors->width, nodes, (int32_t)neighbors->offset,
                       shifted + row * neighbors->width) &&
            row < first_bad)
            first_bad = row;
    }
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    if (first_bad == INT64_MAX)
        return LOWSHOT_OK;
    const int32_t *const indices = neighbors->indices + first_bad * neighbors->indices_stride;
    const float *const similarities =
        neighbors->similarities + first_bad * neighbors->similarities_stride;
    for (int64_t column = 0; column < neighbors->width; column++) {
        if (indices[column] < -1 || indices[column] >= nodes)
            return report_fault(fault, LOWSHOT_BAD_INDEX, 0, first_bad, column);
        if (indices[column] >= 0 && !isfinite(similarities[column]))
            return report_fault(fault, LOWSHOT_NOT_FINITE, 0, first_bad, column);
    }
    return LOWSHOT_OK;
}
