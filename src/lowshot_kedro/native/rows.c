#include "search.h"

#include <math.h>

/* Rows that lie all over a matrix are asked for some rows ahead. */
enum { AHEAD = 8 };

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
