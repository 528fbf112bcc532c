#include "native.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* MAX_WIDTH columns are summed in registers at a time. Rows are taken TILE_ROWS at a time, so that
 * they are still in cache when the next columns, and then the column sums, need them. */
enum { MAX_WIDTH = 64, TILE_ROWS = 32, CACHE_LINE_FLOATS = 16 };

/* Neighbours are scattered over memory: fetching this many edges ahead hides most of the wait. */
enum { PREFETCH_EDGES = 8 };

/* out[0..width) = sum over edges begin..end - 1 of weight * scores[index, 0..width). A missing
 * neighbour (-1) adds nothing. weights == NULL means 1. Callers pass width as a constant: with this
 * inlined, the sums then live in registers. */
ALWAYS_INLINE void gather(const int32_t *indices, const float *weights, int64_t begin, int64_t end,
                          int64_t known_end, const float *scores, int64_t columns, int width,
                          float *out) {
    float sums[MAX_WIDTH];
    for (int t = 0; t < width; t++)
        sums[t] = 0.0f;
    for (int64_t edge = begin; edge < end; edge++) {
        if (edge + PREFETCH_EDGES < known_end && indices[edge + PREFETCH_EDGES] >= 0) {
            const float *const ahead = scores + indices[edge + PREFETCH_EDGES] * columns;
            for (int t = 0; t < width; t += CACHE_LINE_FLOATS)
                PREFETCH(ahead + t);
        }
        const int64_t index = indices[edge];
        if (index < 0)
            continue;
        const float *const row = scores + index * columns;
        if (weights == NULL) {
            for (int t = 0; t < width; t++)
                sums[t] += row[t];
        } else {
            const float weight = weights[edge];
            for (int t = 0; t < width; t++)
                sums[t] += weight * row[t];
        }
    }
    for (int t = 0; t < width; t++)
        out[t] = sums[t];
}

/* One row's edges stand at indptr[row]..indptr[row + 1] - 1, or, where indptr is NULL, at
 * row * stride..row * stride + degree - 1. */
struct adjacency {
    const int64_t *indptr;
    int64_t stride;
    int64_t degree;
    const int32_t *indices;
    const float *weights;
};

ALWAYS_INLINE void gather_rows(const struct adjacency *graph, int64_t first_row, int64_t end_row,
                               const float *scores, int64_t columns, int width, float *out) {
    for (int64_t row = first_row; row < end_row; row++) {
        /* Prefetching looks at edges up to known_end. With a stride, what stands between rows is
         * not part of the graph and was not checked. */
        int64_t begin, end, known_end;
        if (graph->indptr != NULL) {
            begin = graph->indptr[row];
            end = graph->indptr[row + 1];
            known_end = graph->indptr[end_row];
        } else {
            begin = row * graph->stride;
            end = begin + graph->degree;
            known_end = graph->stride == graph->degree ? end_row * graph->stride : end;
        }
        if (graph->weights != NULL)
            gather(graph->indices, graph->weights, begin, end, known_end, scores, columns, width,
                   out + row * columns);
        else
            gather(graph->indices, NULL, begin, end, known_end, scores, columns, width,
                   out + row * columns);
    }
}

MULTIVERSIONED
static void add_column_sums(const float *scores, int64_t rows, int64_t columns, double *sums) {
    for (int64_t row = 0; row < rows; row++)
        for (int64_t column = 0; column < columns; column++)
            sums[column] += (double)scores[row * columns + column];
}

MULTIVERSIONED
static void scale_columns(float *scores, int64_t rows, int64_t columns, const double *factors) {
    for (int64_t row = 0; row < rows; row++)
        for (int64_t column = 0; column < columns; column++) {
            const double score = (double)scores[row * columns + column];
            scores[row * columns + column] = (float)(score * factors[column]);
        }
}

/* sums may be NULL. */
MULTIVERSIONED
static void propagate(const struct adjacency *graph, int64_t first_row, int64_t end_row,
                      const float *scores, int64_t columns, float *out, double *sums) {
    int width = MAX_WIDTH;
    while (width > columns)
        width /= 2;
    for (int64_t row = first_row; row < end_row; row += TILE_ROWS) {
        const int64_t end = end_row - row < TILE_ROWS ? end_row : row + TILE_ROWS;
        for (int64_t column = 0; column < columns; column += width) {
            /* The last columns are computed in a full width too, some of them for a second time and
             * to the same bits: cheaper than ever narrower remainders. */
            const int64_t from = columns - column < width ? columns - width : column;
            switch (width) {
            case 64:
                gather_rows(graph, row, end, scores + from, columns, 64, out + from);
                break;
            case 32:
                gather_rows(graph, row, end, scores + from, columns, 32, out + from);
                break;
            case 16:
                gather_rows(graph, row, end, scores + from, columns, 16, out + from);
                break;
            case 8:
                gather_rows(graph, row, end, scores + from, columns, 8, out + from);
                break;
            case 4:
                gather_rows(graph, row, end, scores + from, columns, 4, out + from);
                break;
            case 2:
                gather_rows(graph, row, end, scores + from, columns, 2, out + from);
                break;
            default:
                gather_rows(graph, row, end, scores + from, columns, 1, out + from);
                break;
            }
        }
        if (sums != NULL)
            add_column_sums(out + row * columns, end - row, columns, sums);
    }
}

/* Adds up the sums of the blocks, in order, and scales every column by one over its total. */
static void scale_by_block_sums(float *scores, struct blocks blocks, int64_t columns,
                                double *sums) {
    for (int64_t block = 1; block < blocks.count; block++)
        for (int64_t column = 0; column < columns; column++)
            sums[column] += sums[block * columns + column];
    /* A sum of floats that is not zero is at least the smallest float, so its inverse is finite. */
    for (int64_t column = 0; column < columns; column++)
        sums[column] = sums[column] == 0.0 ? 1.0 : 1.0 / sums[column];
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < blocks.count; block++) {
        const int64_t begin = block_begin(blocks, block), end = block_end(blocks, block);
        scale_columns(scores + begin * columns, end - begin, columns, sums);
    }
}

static double *allocate_block_sums(struct blocks blocks, int64_t columns) {
    if ((uint64_t)columns > SIZE_MAX / sizeof(double) / MAX_BLOCKS)
        return NULL;
    return calloc((size_t)(blocks.count * columns), sizeof(double));
}

int lowshot_normalize_columns(float *scores, int64_t rows, int64_t columns,
                              struct lowshot_fault *fault) {
    if (!matrix_fits(scores, rows, columns, columns))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    if (rows == 0 || columns == 0)
        return LOWSHOT_OK;
    const struct blocks blocks = split_rows(rows);
    double *const sums = allocate_block_sums(blocks, columns);
    if (sums == NULL)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < blocks.count; block++) {
        const int64_t begin = block_begin(blocks, block), end = block_end(blocks, block);
        add_column_sums(scores + begin * columns, end - begin, columns, sums + block * columns);
    }
    scale_by_block_sums(scores, blocks, columns, sums);
    free(sums);
    return LOWSHOT_OK;
}

int lowshot_diffusion_step(const int64_t *indptr, const int32_t *indices, const float *values,
                           int64_t rows, int64_t edges, const float *scores, int64_t columns,
                           float *out, struct lowshot_fault *fault) {
    if (!matrix_fits(scores, rows, columns, columns) || !matrix_fits(out, rows, columns, columns) ||
        !matrix_fits(values, edges, 1, 1))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int status = lowshot_check_graph(indptr, indices, rows, rows, edges, fault);
    if (status != LOWSHOT_OK)
        return status;
    if (rows == 0 || columns == 0)
        return LOWSHOT_OK;
    const struct blocks blocks = split_rows(rows);
    double *const sums = allocate_block_sums(blocks, columns);
    if (sums == NULL)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    const struct adjacency graph = {.indptr = indptr, .indices = indices, .weights = values};
#pragma omp parallel for schedule(dynamic)
    for (int64_t block = 0; block < blocks.count; block++)
        propagate(&graph, block_begin(blocks, block), block_end(blocks, block), scores, columns,
                  out, sums + block * columns);
    scale_by_block_sums(out, blocks, columns, sums);
    free(sums);
    return LOWSHOT_OK;
}

int lowshot_sum_neighbors(const int32_t *neighbors, int64_t rows, int64_t width, int64_t stride,
                          const float *scores, int64_t nodes, int64_t columns, float *out,
                          struct lowshot_fault *fault) {
    if (!matrix_fits(scores, nodes, columns, columns) || !matrix_fits(out, rows, columns, columns))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int status = check_indices(neighbors, rows, width, stride, -1, nodes, fault);
    if (status != LOWSHOT_OK)
        return status;
    if (columns == 0)
        return LOWSHOT_OK;
    const struct blocks blocks = split_rows(rows);
    const struct adjacency graph = {.stride = stride, .degree = width, .indices = neighbors};
#pragma omp parallel for schedule(dynamic)
    for (int64_t block = 0; block < blocks.count; block++)
        propagate(&graph, block_begin(blocks, block), block_end(blocks, block), scores, columns,
                  out, NULL);
    return LOWSHOT_OK;
}

int lowshot_normalize_rows(const int64_t *indptr, float *values, int64_t rows, int64_t edges,
                           struct lowshot_fault *fault) {
    if (!matrix_fits(values, edges, 1, 1))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int status = check_offsets(indptr, rows, edges, fault);
    if (status != LOWSHOT_OK)
        return status;
#pragma omp parallel for schedule(dynamic, MIN_BLOCK_ROWS)
    for (int64_t row = 0; row < rows; row++) {
        double sum = 0.0;
        for (int64_t edge = indptr[row]; edge < indptr[row + 1]; edge++)
            sum += fabs((double)values[edge]);
        if (sum == 0.0)
            continue;
        for (int64_t edge = indptr[row]; edge < indptr[row + 1]; edge++)
            values[edge] = (float)((double)values[edge] / sum);
    }
    return LOWSHOT_OK;
}
