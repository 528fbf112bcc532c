#include "native.h"

#include <stdlib.h>

/* The product of a sparse matrix with dense scores, or plain sums over neighbours.
 *
 * REGISTER_COLUMNS columns are summed in registers at a time, for TILE_ROWS rows in turn: what the
 * rows of a tile have in common is then still in cache. Neighbours are scattered over memory;
 * fetching PREFETCH_LINKS ahead hides most of the wait. */
enum { REGISTER_COLUMNS = 128, TILE_ROWS = 32, PREFETCH_LINKS = 8 };

/* Multiplied as unsigned numbers, because the address of an index that nobody has checked yet is
 * computed, though never read from. */
ALWAYS_INLINE void prefetch_row(const void *scores, uint64_t row_bytes, int32_t index,
                                uint64_t bytes) {
    const uintptr_t row = (uintptr_t)scores + (uint64_t)(uint32_t)index * row_bytes;
    for (uint64_t byte = 0; byte < bytes; byte += CACHE_LINE_BYTES)
        PREFETCH((const void *)(row + byte));
}

/* sums += the links begin..end - 1 of scores. Returns false if one of them leads nowhere. width is
 * a constant wherever this is inlined: the sums then live in registers. */
ALWAYS_INLINE bool add_float_links(const struct lowshot_links *links, int64_t begin, int64_t end,
                                   const float *scores, int64_t stride, int width, float *sums) {
    bool good = true;
    for (int64_t edge = begin; edge < end; edge++) {
        if (edge + PREFETCH_LINKS < links->edges)
            prefetch_row(scores, (uint64_t)stride * sizeof *scores,
                         links->indices[edge + PREFETCH_LINKS], (uint64_t)width * sizeof *scores);
        const int32_t index = links->indices[edge];
        if (!is_node(index, links->nodes)) {
            good &= index == -1 && links->indptr == NULL;
            continue;
        }
        const float *const row = scores + index * stride;
        if (links->weights == NULL) {
            for (int t = 0; t < width; t++)
                sums[t] += row[t];
        } else {
            const float weight = links->weights[edge];
            for (int t = 0; t < width; t++)
                sums[t] += weight * row[t];
        }
    }
    return good;
}

ALWAYS_INLINE uint32_t load_pair(const uint16_t *columns) {
    uint32_t pair;
    memcpy(&pair, columns, sizeof pair);
    return pair;
}

ALWAYS_INLINE float even_column(uint32_t pair) { return bits_to_float(pair << 16); }

ALWAYS_INLINE float odd_column(uint32_t pair) { return bits_to_float(pair & 0xffff0000u); }

/* Two neighbouring columns come as one 32-bit word: sums holds the even columns, then the odd. */
ALWAYS_INLINE bool add_bfloat16_links(const struct lowshot_links *links, int64_t begin, int64_t end,
                                      const uint16_t *scores, int64_t stride, int width,
                                      float *sums) {
    const int pairs = width / 2;
    bool good = true;
    for (int64_t edge = begin; edge < end; edge++) {
        if (edge + PREFETCH_LINKS < links->edges)
            prefetch_row(scores, (uint64_t)stride * sizeof *scores,
                         links->indices[edge + PREFETCH_LINKS], (uint64_t)width * sizeof *scores);
        const int32_t index = links->indices[edge];
        if (!is_node(index, links->nodes)) {
            good &= index == -1 && links->indptr == NULL;
            continue;
        }
        const uint16_t *const row = scores + index * stride;
        const float weight = links->weights == NULL ? 1.0f : links->weights[edge];
        if (width == 1) {
            sums[0] += weight * from_bfloat16(row[0]);
        } else if (links->weights == NULL) {
            for (int t = 0; t < pairs; t++) {
                const uint32_t pair = load_pair(row + 2 * t);
                sums[t] += even_column(pair);
                sums[pairs + t] += odd_column(pair);
            }
        } else {
            for (int t = 0; t < pairs; t++) {
                const uint32_t pair = load_pair(row + 2 * t);
                sums[t] += weight * even_column(pair);
                sums[pairs + t] += weight * odd_column(pair);
            }
        }
    }
    return good;
}

struct job {
    const struct lowshot_links *links;
    const int32_t *selection;
    const struct lowshot_dense *in;
    const float *factors;
    const struct lowshot_dense *out;
};

/* Columns first..first + width - 1 of rows begin..end - 1 of the output. */
ALWAYS_INLINE bool gather_columns(const struct job *job, int64_t begin, int64_t end, int64_t first,
                                  int width, int format) {
    const struct lowshot_links *const links = job->links;
    const float *const factors = job->factors + first;
    bool good = true;
    for (int64_t row = begin; row < end; row++) {
        struct span span;
        good &= row_links(links, job->selection == NULL ? row : job->selection[row], &span);
        float sums[REGISTER_COLUMNS];
        for (int t = 0; t < width; t++)
            sums[t] = 0.0f;
        if (format == LOWSHOT_FLOAT32) {
            const float *const in = (const float *)job->in->values + first;
            float *const out = (float *)job->out->values + row * job->out->stride + first;
            good &= add_float_links(links, span.begin, span.doubled_end, in, job->in->stride, width,
                                    sums);
            for (int t = 0; t < width; t++)
                sums[t] += sums[t];
            good &= add_float_links(links, span.doubled_end, span.end, in, job->in->stride, width,
                                    sums);
            for (int t = 0; t < width; t++)
                out[t] = sums[t] * span.scale * factors[t];
        } else {
            const uint16_t *const in = (const uint16_t *)job->in->values + first;
            good &= add_bfloat16_links(links, span.begin, span.doubled_end, in, job->in->stride,
                                       width, sums);
            for (int t = 0; t < width; t++)
                sums[t] += sums[t];
            good &= add_bfloat16_links(links, span.doubled_end, span.end, in, job->in->stride,
                                       width, sums);
            /* The order of columns is restored on the way. */
            float ordered[REGISTER_COLUMNS];
            if (width == 1)
                ordered[0] = sums[0];
            for (int t = 0; t < width / 2; t++) {
                ordered[2 * t] = sums[t];
                ordered[2 * t + 1] = sums[width / 2 + t];
            }
            if (job->out->format == LOWSHOT_BFLOAT16) {
                uint16_t *const out = (uint16_t *)job->out->values + row * job->out->stride + first;
                for (int t = 0; t < width; t++)
                    out[t] = to_bfloat16(ordered[t] * span.scale * factors[t]);
            } else {
                float *const out = (float *)job->out->values + row * job->out->stride + first;
                for (int t = 0; t < width; t++)
                    out[t] = ordered[t] * span.scale * factors[t];
            }
        }
    }
    return good;
}

ALWAYS_INLINE bool gather_tile(const struct job *job, int64_t begin, int64_t end, int64_t first,
                               int width, int format) {
    switch (width) {
    case 128:
        return gather_columns(job, begin, end, first, 128, format);
    case 64:
        return gather_columns(job, begin, end, first, 64, format);
    case 32:
        return gather_columns(job, begin, end, first, 32, format);
    case 16:
        return gather_columns(job, begin, end, first, 16, format);
    case 8:
        return gather_columns(job, begin, end, first, 8, format);
    case 4:
        return gather_columns(job, begin, end, first, 4, format);
    case 2:
        return gather_columns(job, begin, end, first, 2, format);
    default:
        return gather_columns(job, begin, end, first, 1, format);
    }
}

ALWAYS_INLINE bool gather_rows(const struct job *job, int64_t begin, int64_t end, int format,
                               double *sums) {
    const int64_t columns = job->in->columns;
    int width = REGISTER_COLUMNS;
    while (width > columns)
        width /= 2;
    bool good = true;
    for (int64_t row = begin; row < end; row += TILE_ROWS) {
        const int64_t tile_end = end - row < TILE_ROWS ? end : row + TILE_ROWS;
        for (int64_t column = 0; column < columns; column += width) {
            /* The last columns are computed in a full width too, some of them for a second time and
             * to the same bits: cheaper than ever narrower remainders. */
            const int64_t first = columns - column < width ? columns - width : column;
            good &= gather_tile(job, row, tile_end, first, width, format);
        }
        if (sums != NULL)
            add_rows(job->out, row, tile_end, NULL, sums);
    }
    return good;
}

ALWAYS_INLINE bool gather_float_rows_portable(const struct job *job, int64_t begin, int64_t end,
                                              double *sums) {
    return gather_rows(job, begin, end, LOWSHOT_FLOAT32, sums);
}

FOR_EVERY_WIDTH(bool, gather_float_rows,
                (const struct job *job, int64_t begin, int64_t end, double *sums), job, begin, end,
                sums)

ALWAYS_INLINE bool gather_bfloat16_rows_portable(const struct job *job, int64_t begin, int64_t end,
                                                 double *sums) {
    return gather_rows(job, begin, end, LOWSHOT_BFLOAT16, sums);
}

FOR_EVERY_WIDTH(bool, gather_bfloat16_rows,
                (const struct job *job, int64_t begin, int64_t end, double *sums), job, begin, end,
                sums)

/* Rows between two looks at whether to stop. */
enum { STEP_ROWS = 16 * TILE_ROWS };

int lowshot_gather(const struct lowshot_links *links, const int32_t *selection, int64_t selected,
                   const struct lowshot_dense *in, const float *factors,
                   const struct lowshot_dense *out, double *sums, struct lowshot_fault *fault) {
    if (!links_fit(links) || !dense_fits(in) || !dense_fits(out) || in->rows != links->nodes ||
        out->columns != in->columns || selected < 0 || out->rows != selected ||
        (selection == NULL && selected != links->rows) ||
        (in->format == LOWSHOT_FLOAT32 && out->format != LOWSHOT_FLOAT32) ||
        (factors == NULL && in->columns > 0))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    if (in->columns == 0)
        return LOWSHOT_OK;
    const struct job job = {links, selection, in, factors, out};
    const struct blocks blocks = split_rows(selected);
    double *block_sums = NULL;
    if (sums != NULL) {
        block_sums = allocate_block_sums(blocks, in->columns);
        if (block_sums == NULL)
            return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    }
    bool good = true;
    struct stop stop = {0};
#pragma omp parallel for schedule(dynamic) reduction(&& : good)
    for (int64_t block = 0; block < blocks.count; block++) {
        const int64_t end = block_end(blocks, block);
        double *const own_sums = sums == NULL ? NULL : block_sums + block * in->columns;
        for (int64_t first = block_begin(blocks, block); first < end; first += STEP_ROWS) {
            if (stop_wanted(&stop))
                break;
            const int64_t last = end - first < STEP_ROWS ? end : first + STEP_ROWS;
            const bool good_rows = in->format == LOWSHOT_FLOAT32
                                       ? gather_float_rows(&job, first, last, own_sums)
                                       : gather_bfloat16_rows(&job, first, last, own_sums);
            good = good && good_rows;
        }
    }
    if (sums != NULL) {
        add_block_sums(block_sums, blocks, in->columns, sums);
        free(block_sums);
    }
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return good ? LOWSHOT_OK : explain_bad_link(links, selection, selected, fault);
}
