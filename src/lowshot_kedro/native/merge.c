#include "native.h"

#include <math.h>

static const int32_t *row_indices(const struct lowshot_ranking *list, int64_t row) {
    return list->indices + row * list->indices_stride;
}

static const float *row_similarities(const struct lowshot_ranking *list, int64_t row) {
    return list->similarities + row * list->similarities_stride;
}

/* Returns what is wrong with a row and where, or LOWSHOT_OK and the number of valid entries. */
static int check_row(const struct lowshot_ranking *list, int64_t row, int64_t *position) {
    if (list->width == 0) {
        *position = 0;
        return LOWSHOT_OK;
    }
    const int32_t *const indices = row_indices(list, row);
    const float *const similarities = row_similarities(list, row);
    int64_t valid = 0;
    for (int64_t column = 0; column < list->width; column++) {
        const int64_t index = indices[column];
        if (index == -1)
            continue;
        *position = column;
        if (index < -1)
            return LOWSHOT_BAD_INDEX;
        if (valid != column)
            return LOWSHOT_VALID_AFTER_MISSING;
        if (index + list->offset < 0 || index + list->offset > INT32_MAX)
            return LOWSHOT_SHIFTED_INDEX_TOO_LARGE;
        if (!isfinite(similarities[column]))
            return LOWSHOT_NOT_FINITE;
        if (column > 0 && similarities[column] > similarities[column - 1])
            return LOWSHOT_NOT_SORTED;
        valid++;
    }
    *position = valid;
    return LOWSHOT_OK;
}

static bool ranking_fits(const struct lowshot_ranking *list, int64_t rows) {
    return list != NULL && list->offset >= -(int64_t)INT32_MAX && list->offset <= INT32_MAX &&
           matrix_fits(list->indices, rows, list->width, list->indices_stride) &&
           matrix_fits(list->similarities, rows, list->width, list->similarities_stride);
}

static void merge_row(const struct lowshot_ranking *first, int64_t first_count,
                      const struct lowshot_ranking *second, int64_t second_count, int64_t row,
                      int64_t width, int32_t *indices, float *similarities) {
    int64_t from_first = 0, from_second = 0;
    for (int64_t column = 0; column < width; column++) {
        const bool first_left = from_first < first_count;
        const bool second_left = from_second < second_count;
        if (first_left && (!second_left || row_similarities(first, row)[from_first] >=
                                               row_similarities(second, row)[from_second])) {
            indices[column] = (int32_t)(row_indices(first, row)[from_first] + first->offset);
            similarities[column] = row_similarities(first, row)[from_first++];
        } else if (second_left) {
            indices[column] = (int32_t)(row_indices(second, row)[from_second] + second->offset);
            similarities[column] = row_similarities(second, row)[from_second++];
        } else {
            indices[column] = -1;
            similarities[column] = -INFINITY;
        }
    }
}

int lowshot_merge_neighbors(const struct lowshot_ranking *first,
                            const struct lowshot_ranking *second, int64_t rows, int64_t width,
                            int32_t *indices, float *similarities, struct lowshot_fault *fault) {
    if (!ranking_fits(first, rows) || !ranking_fits(second, rows) ||
        !matrix_fits(indices, rows, width, width) || !matrix_fits(similarities, rows, width, width))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    int64_t first_bad = INT64_MAX;
    struct stop stop = {0};
#pragma omp parallel for schedule(static) reduction(min : first_bad)
    for (int64_t row = 0; row < rows; row++) {
        if (stop_wanted_by_row(&stop))
            continue;
        int64_t first_count, second_count;
        if (check_row(first, row, &first_count) == LOWSHOT_OK &&
            check_row(second, row, &second_count) == LOWSHOT_OK)
            merge_row(first, first_count, second, second_count, row, width, indices + row * width,
                      similarities + row * width);
        else if (row < first_bad)
            first_bad = row;
    }
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    if (first_bad == INT64_MAX)
        return LOWSHOT_OK;
    int64_t position = 0;
    int kind = check_row(first, first_bad, &position);
    if (kind != LOWSHOT_OK)
        return report_fault(fault, kind, 0, first_bad, position);
    kind = check_row(second, first_bad, &position);
    return report_fault(fault, kind, 1, first_bad, position);
}
