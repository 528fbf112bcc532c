#include "native.h"

#include <time.h>

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

static int (*poll_function)(void) = NULL;
static int64_t milliseconds_between_polls = 0;

void lowshot_set_poll(int (*poll)(void), int64_t milliseconds) {
    poll_function = poll;
    milliseconds_between_polls = milliseconds < 0 ? 0 : milliseconds;
}

bool is_calling_thread(void) {
#ifdef _OPENMP
    return omp_get_thread_num() == 0;
#else
    return true;
#endif
}

static int64_t milliseconds_now(void) {
    struct timespec now;
    if (timespec_get(&now, TIME_UTC) != TIME_UTC)
        return 0;
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool ask_whether_to_stop(struct stop *stop) {
    const int64_t pause = milliseconds_between_polls;
    if (poll_function == NULL)
        return false;
    if (pause > 0) {
        const int64_t now = milliseconds_now();
        /* A clock that is set back must not keep anybody waiting. */
        const bool is_due = now >= stop->next_poll || now < stop->next_poll - pause;
        const bool is_first = stop->next_poll == 0;
        if (is_due)
            stop->next_poll = now + pause;
        if (!is_due || is_first)
            return false;
    }
    if (poll_function() == 0)
        return false;
    atomic_store(&stop->wanted, true);
    return true;
}

int report_fault(struct lowshot_fault *fault, int kind, int list, int64_t row, int64_t column) {
    if (fault != NULL)
        *fault = (struct lowshot_fault){kind, list, row, column};
    return kind;
}

bool matrix_fits(const void *pointer, int64_t rows, int64_t width, int64_t stride) {
    if (rows < 0 || width < 0 || stride < width)
        return false;
    if (rows == 0 || stride == 0)
        return true;
    return pointer != NULL && stride <= INT64_MAX / 8 / rows;
}

/* Whole rows are tested without a branch, so that the compiler can vectorise; which entry it was is
 * looked up afterwards, and only if there was one. */
ALWAYS_INLINE bool any_index_outside_portable(const int32_t *indices, int64_t count, int32_t lowest,
                                              uint32_t allowed) {
    uint32_t outside = 0;
    for (int64_t i = 0; i < count; i++)
        outside |= (uint32_t)indices[i] - (uint32_t)lowest >= allowed;
    return outside != 0;
}

FOR_EVERY_WIDTH(bool, any_index_outside,
                (const int32_t *indices, int64_t count, int32_t lowest, uint32_t allowed), indices,
                count, lowest, allowed)

int check_indices(const int32_t *indices, int64_t rows, int64_t width, int64_t stride,
                  int32_t lowest, int64_t limit, struct lowshot_fault *fault) {
    if (limit < 0 || limit > INT32_MAX || !matrix_fits(indices, rows, width, stride))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const uint32_t allowed = (uint32_t)(limit - lowest);
    const struct blocks blocks = split_rows(rows);
    int64_t first_bad = INT64_MAX;
    struct stop stop = {0};
#pragma omp parallel for schedule(static) reduction(min : first_bad)
    for (int64_t block = 0; block < blocks.count; block++) {
        if (stop_wanted(&stop))
            continue;
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
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
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

bool links_fit(const struct lowshot_links *links) {
    if (links == NULL || links->rows < 0 || links->rows > INT32_MAX || links->nodes < 0 ||
        links->nodes > INT32_MAX)
        return false;
    if (links->indptr == NULL) {
        if (!matrix_fits(links->indices, links->rows, links->width, links->stride) ||
            links->mutual != NULL || links->weights != NULL)
            return false;
        const bool empty = links->rows == 0 || links->width == 0;
        return links->edges <= (empty ? 0 : (links->rows - 1) * links->stride + links->width);
    }
    return matrix_fits(links->indices, links->edges, 1, 1) &&
           (links->mutual == NULL || links->weights == NULL);
}

bool dense_fits(const struct lowshot_dense *scores) {
    return scores != NULL && scores->rows <= INT32_MAX &&
           (scores->format == LOWSHOT_FLOAT32 || scores->format == LOWSHOT_BFLOAT16) &&
           matrix_fits(scores->values, scores->rows, scores->columns, scores->stride);
}

bool sparse_fits(const struct lowshot_sparse *scores) {
    return scores != NULL && scores->rows <= INT32_MAX && scores->columns <= MAX_SPAN_COUNT &&
           scores->columns >= 0 && scores->capacity <= MAX_SPAN_BEGIN &&
           (scores->format == LOWSHOT_FLOAT32 || scores->format == LOWSHOT_BFLOAT16) &&
           matrix_fits(scores->spans, scores->rows, 1, 1) &&
           matrix_fits(scores->entries, scores->capacity, 1, 1);
}

int lowshot_check_links(const struct lowshot_links *links, struct lowshot_fault *fault) {
    if (!links_fit(links))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    if (links->indptr == NULL)
        return check_indices(links->indices, links->rows, links->width, links->stride, -1,
                             links->nodes, fault);
    const int status = check_offsets(links->indptr, links->rows, links->edges, fault);
    if (status != LOWSHOT_OK)
        return status;
    struct span span;
    for (int64_t row = 0; row < links->rows; row++)
        if (!row_links(links, row, &span))
            return report_fault(fault, LOWSHOT_BAD_MUTUAL, 0, row, 0);
    return check_indices(links->indices, links->edges, 1, 1, 0, links->nodes, fault);
}

int explain_bad_link(const struct lowshot_links *links, const int32_t *selection, int64_t selected,
                     struct lowshot_fault *fault) {
    if (selection != NULL)
        for (int64_t i = 0; i < selected; i++)
            if (!is_node(selection[i], links->rows))
                return report_fault(fault, LOWSHOT_BAD_SELECTION, 0, i, 0);
    const int status = lowshot_check_links(links, fault);
    /* Without a fault now, another thread of the program changed an array during the call. */
    return status != LOWSHOT_OK ? status : report_fault(fault, LOWSHOT_BAD_SCORES, 0, 0, 0);
}
