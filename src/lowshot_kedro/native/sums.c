#include "native.h"

#include <stdlib.h>

/* Sums over a column are taken in double precision, block by block of rows, and the blocks are
 * added in their order. */

double *allocate_block_sums(struct blocks blocks, int64_t columns) {
    if ((uint64_t)columns > SIZE_MAX / sizeof(double) / MAX_BLOCKS)
        return NULL;
    const int64_t count = blocks.count * columns;
    return calloc((size_t)(count > 0 ? count : 1), sizeof(double));
}

void add_block_sums(const double *block_sums, struct blocks blocks, int64_t columns, double *sums) {
    for (int64_t column = 0; column < columns; column++)
        sums[column] = 0.0;
    for (int64_t block = 0; block < blocks.count; block++)
        for (int64_t column = 0; column < columns; column++)
            sums[column] += block_sums[block * columns + column];
}

ALWAYS_INLINE void add_float_rows_portable(const float *scores, int64_t stride, int64_t begin,
                                           int64_t end, int64_t columns, const float *row_weights,
                                           double *sums) {
    for (int64_t row = begin; row < end; row++) {
        const double weight = row_weights == NULL ? 1.0 : (double)row_weights[row];
        for (int64_t column = 0; column < columns; column++)
            sums[column] += weight * (double)scores[row * stride + column];
    }
}

FOR_EVERY_WIDTH(void, add_float_rows,
                (const float *scores, int64_t stride, int64_t begin, int64_t end, int64_t columns,
                 const float *row_weights, double *sums),
                scores, stride, begin, end, columns, row_weights, sums)

ALWAYS_INLINE void add_bfloat16_rows_portable(const uint16_t *scores, int64_t stride, int64_t begin,
                                              int64_t end, int64_t columns,
                                              const float *row_weights, double *sums) {
    for (int64_t row = begin; row < end; row++) {
        const double weight = row_weights == NULL ? 1.0 : (double)row_weights[row];
        for (int64_t column = 0; column < columns; column++)
            sums[column] += weight * (double)from_bfloat16(scores[row * stride + column]);
    }
}

FOR_EVERY_WIDTH(void, add_bfloat16_rows,
                (const uint16_t *scores, int64_t stride, int64_t begin, int64_t end,
                 int64_t columns, const float *row_weights, double *sums),
                scores, stride, begin, end, columns, row_weights, sums)

void add_rows(const struct lowshot_dense *scores, int64_t begin, int64_t end,
              const float *row_weights, double *sums) {
    if (scores->format == LOWSHOT_FLOAT32)
        add_float_rows(scores->values, scores->stride, begin, end, scores->columns, row_weights,
                       sums);
    else
        add_bfloat16_rows(scores->values, scores->stride, begin, end, scores->columns, row_weights,
                          sums);
}

int lowshot_column_sums(const struct lowshot_dense *scores, const float *row_weights, double *sums,
                        struct lowshot_fault *fault) {
    if (!dense_fits(scores) || (sums == NULL && scores->columns > 0))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const struct blocks blocks = split_rows(scores->rows);
    double *const block_sums = allocate_block_sums(blocks, scores->columns);
    if (block_sums == NULL)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    struct stop stop = {0};
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < blocks.count; block++) {
        if (stop_wanted(&stop))
            continue;
        add_rows(scores, block_begin(blocks, block), block_end(blocks, block), row_weights,
                 block_sums + block * scores->columns);
    }
    add_block_sums(block_sums, blocks, scores->columns, sums);
    free(block_sums);
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return LOWSHOT_OK;
}

int lowshot_column_sums_sparse(const struct lowshot_sparse *scores, const float *row_weights,
                               double *sums, struct lowshot_fault *fault) {
    if (!sparse_fits(scores) || (sums == NULL && scores->columns > 0))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const struct blocks blocks = split_rows(scores->rows);
    double *const block_sums = allocate_block_sums(blocks, scores->columns);
    if (block_sums == NULL)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    bool bad = false;
    struct stop stop = {0};
#pragma omp parallel for schedule(dynamic) reduction(|| : bad)
    for (int64_t block = 0; block < blocks.count; block++) {
        if (stop_wanted(&stop))
            continue;
        double *const own_sums = block_sums + block * scores->columns;
        for (int64_t row = block_begin(blocks, block); row < block_end(blocks, block); row++) {
            const int64_t begin = span_begin(scores->spans[row]);
            const int64_t count = span_count(scores->spans[row]);
            if (count > scores->capacity || begin > scores->capacity - count) {
                bad = true;
                continue;
            }
            const double weight = row_weights == NULL ? 1.0 : (double)row_weights[row];
            for (int64_t i = begin; i < begin + count; i++) {
                const struct lowshot_entry entry = scores->entries[i];
                if (is_node(entry.column, scores->columns))
                    own_sums[entry.column] += weight * (double)entry.value;
                else
                    bad = true;
            }
        }
    }
    add_block_sums(block_sums, blocks, scores->columns, sums);
    free(block_sums);
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return bad ? report_fault(fault, LOWSHOT_BAD_SCORES, 0, 0, 0) : LOWSHOT_OK;
}

ALWAYS_INLINE void scale_float_rows_portable(float *scores, int64_t stride, int64_t begin,
                                             int64_t end, int64_t columns, const float *factors) {
    for (int64_t row = begin; row < end; row++)
        for (int64_t column = 0; column < columns; column++)
            scores[row * stride + column] *= factors[column];
}

FOR_EVERY_WIDTH(void, scale_float_rows,
                (float *scores, int64_t stride, int64_t begin, int64_t end, int64_t columns,
                 const float *factors),
                scores, stride, begin, end, columns, factors)

int lowshot_scale_columns(const struct lowshot_dense *scores, const float *factors,
                          struct lowshot_fault *fault) {
    if (!dense_fits(scores) || scores->format != LOWSHOT_FLOAT32 ||
        (factors == NULL && scores->columns > 0))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const struct blocks blocks = split_rows(scores->rows);
    struct stop stop = {0};
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < blocks.count; block++) {
        if (stop_wanted(&stop))
            continue;
        scale_float_rows(scores->values, scores->stride, block_begin(blocks, block),
                         block_end(blocks, block), scores->columns, factors);
    }
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return LOWSHOT_OK;
}

int lowshot_column_totals(const struct lowshot_links *links, float *totals,
                          struct lowshot_fault *fault) {
    if (!links_fit(links) || links->rows != links->nodes || (totals == NULL && links->nodes > 0))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    double *const sums = calloc((size_t)(links->nodes > 0 ? links->nodes : 1), sizeof(double));
    if (sums == NULL)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    /* One thread, because the order of additions to a column must not vary. */
    bool bad = false;
    struct stop stop = {0};
    for (int64_t row = 0; row < links->rows; row++) {
        if (stop_wanted_by_row(&stop))
            break;
        struct span span;
        bad |= !row_links(links, row, &span);
        for (int64_t edge = span.begin; edge < span.end; edge++) {
            const int32_t index = links->indices[edge];
            if (!is_node(index, links->nodes)) {
                bad |= index != -1 || links->indptr != NULL;
                continue;
            }
            const double weight = links->weights != NULL    ? (double)links->weights[edge]
                                  : edge < span.doubled_end ? 2.0
                                                            : 1.0;
            sums[index] += weight * (double)span.scale;
        }
    }
    for (int64_t node = 0; node < links->nodes; node++)
        totals[node] = (float)sums[node];
    free(sums);
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return bad ? explain_bad_link(links, NULL, 0, fault) : LOWSHOT_OK;
}
