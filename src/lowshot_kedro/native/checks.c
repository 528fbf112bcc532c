#include "native.h"

#ifdef _OPENMP
#include <omp.h>
#endif

int lowshot_get_num_threads(void) {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

void lowshot_set_num_threads(int count) {
#ifdef _OPENMP
    if (count > 0)
        omp_set_num_threads(count);
#else
    (void)count;
#endif
}

int report_fault(struct lowshot_fault *fault, int kind, int list, int64_t row, int64_t column) {
    if (fault != NULL)
        *fault = (struct lowshot_fault){kind, list, row, column};
    return kind;
}

bool matrix_fits(const void *pointer, int64_t rows, int64_t width, int64_t stride) {
    if (rows < 0 || width < 0 || stride < width)
        return false;
    if (rows == 0 || width == 0)
        return true;
    return pointer != NULL && stride <= INT64_MAX / 8 / rows;
}

/* Whole rows are tested without a branch, so that the compiler can vectorise; which entry it was is
 * looked up afterwards, and only if there was one. */
MULTIVERSIONED
static bool any_index_outside(const int32_t *indices, int64_t count, int32_t lowest,
                              uint32_t allowed) {
    uint32_t outside = 0;
    for (int64_t i = 0; i < count; i++)
        outside |= (uint32_t)indices[i] - (uint32_t)lowest >= allowed;
    return outside != 0;
}

int check_indices(const int32_t *indices, int64_t rows, int64_t width, int64_t stride,
                  int32_t lowest, int64_t limit, struct lowshot_fault *fault) {
    if (limit < 0 || limit > INT32_MAX || !matrix_fits(indices, rows, width, stride))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const uint32_t allowed = (uint32_t)(limit - lowest);
    const struct blocks blocks = split_rows(rows);
    int64_t first_bad = INT64_MAX;
#pragma omp parallel for schedule(static) reduction(min : first_bad)
    for (int64_t block = 0; block < blocks.count; block++) {
        const int64_t begin = block_begin(blocks, block), end = block_end(blocks, block);
        bool bad = false;
        if (width == stride)
            bad =
                any_index_outside(indices + begin * stride, (end - begin) * width, lowest, allowed);
        else
            for (int64_t row = begin; row < end && !bad; row++)
                bad = any_index_outside(indices + row * stride, width, lowest, allowed);
        if (bad && block < first_bad)
            first_bad = block;
    }
    if (first_bad == INT64_MAX)
        return LOWSHOT_OK;
    for (int64_t row = block_begin(blocks, first_bad); row < rows; row++)
        for (int64_t column = 0; column < width; column++) {
            const int32_t index = indices[row * stride + column];
            if (index < lowest || index >= limit)
                return report_fault(fault, LOWSHOT_BAD_INDEX, 0, row, column);
        }
    /* Another thread of the program changed the array under the check. */
    return report_fault(fault, LOWSHOT_BAD_INDEX, 0, 0, 0);
}

int check_offsets(const int64_t *indptr, int64_t rows, int64_t edges, struct lowshot_fault *fault) {
    if (rows < 0 || rows > INT32_MAX || edges < 0 || indptr == NULL)
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    if (indptr[0] != 0)
        return report_fault(fault, LOWSHOT_BAD_OFFSET, 0, 0, 0);
    int64_t first_bad = INT64_MAX;
#pragma omp parallel for schedule(static) reduction(min : first_bad)
    for (int64_t row = 1; row <= rows; row++)
        if (indptr[row] < indptr[row - 1] && row < first_bad)
            first_bad = row;
    if (first_bad != INT64_MAX)
        return report_fault(fault, LOWSHOT_BAD_OFFSET, 0, first_bad, 0);
    if (indptr[rows] != edges)
        return report_fault(fault, LOWSHOT_BAD_OFFSET, 0, rows, 0);
    return LOWSHOT_OK;
}

int lowshot_check_graph(const int64_t *indptr, const int32_t *indices, int64_t rows, int64_t nodes,
                        int64_t edges, struct lowshot_fault *fault) {
    const int status = check_offsets(indptr, rows, edges, fault);
    if (status != LOWSHOT_OK)
        return status;
    return check_indices(indices, edges, 1, 1, 0, nodes, fault);
}
