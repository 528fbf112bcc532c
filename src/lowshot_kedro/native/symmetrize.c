#include "native.h"

/* A link i-j is stored in row i as the 32-bit number 2 j + (1 if it came from row j, else 0).
 * Sorting such entries brings both directions of a link side by side, and needs no room for values
 * next to the indices. Node numbers stay below INT32_MAX, so END_OF_ROW is never an entry. */
static const uint32_t END_OF_ROW = UINT32_MAX;

enum { INSERTION_SORT_LENGTH = 24 };

static void insertion_sort(uint32_t *entries, int64_t count) {
    for (int64_t i = 1; i < count; i++) {
        const uint32_t entry = entries[i];
        int64_t j = i;
        for (; j > 0 && entries[j - 1] > entry; j--)
            entries[j] = entries[j - 1];
        entries[j] = entry;
    }
}

static void sift_down(uint32_t *heap, int64_t position, int64_t count) {
    const uint32_t entry = heap[position];
    for (;;) {
        int64_t child = 2 * position + 1;
        if (child >= count)
            break;
        if (child + 1 < count && heap[child + 1] > heap[child])
            child++;
        if (heap[child] <= entry)
            break;
        heap[position] = heap[child];
        position = child;
    }
    heap[position] = entry;
}

static void heap_sort(uint32_t *entries, int64_t count) {
    for (int64_t position = count / 2 - 1; position >= 0; position--)
        sift_down(entries, position, count);
    for (int64_t last = count - 1; last > 0; last--) {
        const uint32_t largest = entries[0];
        entries[0] = entries[last];
        entries[last] = largest;
        sift_down(entries, 0, last);
    }
}

static uint32_t median(uint32_t a, uint32_t b, uint32_t c) {
    const uint32_t low = a < b ? a : b, high = a < b ? b : a;
    return c < low ? low : c > high ? high : c;
}

/* The row of a node that is everybody's neighbour holds as many entries as there are nodes, hence
 * quicksort with a bounded depth, and not insertion alone. */
static void sort_entries(uint32_t *entries, int64_t count, int depth) {
    while (count > INSERTION_SORT_LENGTH) {
        if (depth-- == 0) {
            heap_sort(entries, count);
            return;
        }
        const uint32_t pivot = median(entries[0], entries[count / 2], entries[count - 1]);
        int64_t left = -1, right = count;
        for (;;) {
            do
                left++;
            while (entries[left] < pivot);
            do
                right--;
            while (entries[right] > pivot);
            if (left >= right)
                break;
            const uint32_t entry = entries[left];
            entries[left] = entries[right];
            entries[right] = entry;
        }
        /* An entry >= pivot stands before the last one (the pivot is a median), so that both parts
         * are shorter than the whole. */
        const int64_t lower = right + 1;
        if (lower < count - lower) {
            sort_entries(entries, lower, depth);
            entries += lower;
            count -= lower;
        } else {
            sort_entries(entries + lower, count - lower, depth);
            count = lower;
        }
    }
    insertion_sort(entries, count);
}

/* Turns the sorted links of a row into its distinct neighbours j, stored as 2 j + (value - 1). */
static void merge_links(uint32_t *entries, int64_t count) {
    int64_t length = 0;
    for (int64_t i = 0; i < count;) {
        const uint32_t node = entries[i] >> 1;
        bool direction_seen[2] = {false, false};
        for (; i < count && entries[i] >> 1 == node; i++)
            direction_seen[entries[i] & 1] = true;
        entries[length++] = node << 1 | (uint32_t)(direction_seen[0] && direction_seen[1]);
    }
    if (length < count)
        entries[length] = END_OF_ROW;
}

int lowshot_symmetrize_count(const int32_t *neighbors, int64_t rows, int64_t width, int64_t stride,
                             int64_t *indptr, int64_t *capacity, struct lowshot_fault *fault) {
    if (indptr == NULL || capacity == NULL)
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int status = check_indices(neighbors, rows, width, stride, -1, rows, fault);
    if (status != LOWSHOT_OK)
        return status;

    /* Row i is counted at indptr[i + 1], which then becomes its start, and while filling moves on
     * to its end: no second array of offsets is needed. */
    int64_t *const counts = indptr + 1;
    indptr[0] = 0;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        counts[row] = 0;
#pragma omp parallel for schedule(dynamic, MIN_BLOCK_ROWS)
    for (int64_t row = 0; row < rows; row++) {
        int64_t links = 0;
        for (int64_t column = 0; column < width; column++) {
            const int32_t neighbor = neighbors[row * stride + column];
            if (neighbor < 0 || neighbor >= rows)
                continue;
            links++;
#pragma omp atomic
            counts[neighbor]++;
        }
#pragma omp atomic
        counts[row] += links;
    }
    int64_t start = 0;
    for (int64_t row = 0; row < rows; row++) {
        const int64_t links = counts[row];
        counts[row] = start;
        start += links;
    }
    *capacity = start;
    return LOWSHOT_OK;
}

int lowshot_symmetrize_fill(const int32_t *neighbors, int64_t rows, int64_t width, int64_t stride,
                            int64_t *indptr, int32_t *entries, int64_t capacity, int64_t *edges,
                            struct lowshot_fault *fault) {
    if (indptr == NULL || edges == NULL || !matrix_fits(entries, capacity, 1, 1))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    int status = check_indices(neighbors, rows, width, stride, -1, rows, fault);
    if (status != LOWSHOT_OK)
        return status;

    uint32_t *const packed = (uint32_t *)entries;
    int64_t *const next = indptr + 1;
    int outside = 0;
    /* Which thread comes first changes the order within a row, and sorting undoes that. */
#pragma omp parallel for schedule(dynamic, MIN_BLOCK_ROWS) reduction(| : outside)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t column = 0; column < width; column++) {
            const int32_t neighbor = neighbors[row * stride + column];
            if (neighbor < 0 || neighbor >= rows)
                continue;
            int64_t forward, backward;
#pragma omp atomic capture
            forward = next[row]++;
#pragma omp atomic capture
            backward = next[neighbor]++;
            if (forward < 0 || forward >= capacity || backward < 0 || backward >= capacity) {
                outside = 1;
                continue;
            }
            packed[forward] = (uint32_t)neighbor << 1;
            packed[backward] = (uint32_t)row << 1 | 1;
        }
    if (outside)
        return report_fault(fault, LOWSHOT_BAD_OFFSET, 0, 0, 0);
    status = check_offsets(indptr, rows, capacity, fault);
    if (status != LOWSHOT_OK)
        return status;

#pragma omp parallel for schedule(dynamic, MIN_BLOCK_ROWS)
    for (int64_t row = 0; row < rows; row++) {
        const int64_t count = indptr[row + 1] - indptr[row];
        int depth = 0;
        for (int64_t left = count; left > 1; left /= 2)
            depth += 2;
        sort_entries(packed + indptr[row], count, depth);
        merge_links(packed + indptr[row], count);
    }

    /* Rows move towards the front over room that earlier rows have left, hence in order. */
    int64_t length = 0, begin = 0;
    for (int64_t row = 0; row < rows; row++) {
        const int64_t end = indptr[row + 1];
        for (int64_t edge = begin; edge < end && packed[edge] != END_OF_ROW; edge++)
            packed[length++] = packed[edge];
        indptr[row + 1] = length;
        begin = end;
    }
    *edges = length;
    return LOWSHOT_OK;
}

int lowshot_symmetrize_unpack(int32_t *entries, float *values, int64_t edges,
                              struct lowshot_fault *fault) {
    if (!matrix_fits(entries, edges, 1, 1) || !matrix_fits(values, edges, 1, 1))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    uint32_t *const packed = (uint32_t *)entries;
#pragma omp parallel for schedule(static)
    for (int64_t edge = 0; edge < edges; edge++) {
        values[edge] = (float)(1 + (packed[edge] & 1));
        packed[edge] >>= 1;
    }
    return LOWSHOT_OK;
}
