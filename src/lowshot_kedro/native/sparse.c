#include "native.h"

#include <stdlib.h>

/* The first steps start from a few labelled rows, so that most rows hold few classes or none. A
 * sparse row is summed into a dense accumulator of all columns, which a bitmap of the columns
 * touched then turns back into sparse entries. Terms are added in the order of the links, as they
 * are for dense scores, and what is left out is zero: both give the same bits. */
enum { PREFETCH_SPANS = 16, PREFETCH_ENTRIES = 8, TILE_ROWS = 32 };

struct accumulator {
    float *values;
    uint64_t *touched; /* one bit a column */
    int64_t words;
};

static bool allocate_accumulator(int64_t columns, struct accumulator *accumulator) {
    accumulator->words = columns / 64 + 1;
    accumulator->values = calloc((size_t)(columns + 1), sizeof *accumulator->values);
    accumulator->touched = calloc((size_t)accumulator->words, sizeof *accumulator->touched);
    return accumulator->values != NULL && accumulator->touched != NULL;
}

static void free_accumulator(struct accumulator *accumulator) {
    free(accumulator->values);
    free(accumulator->touched);
}

struct job {
    const struct lowshot_links *links;
    const int32_t *selection;
    const struct lowshot_sparse *in;
    const float *factors;
};

static inline bool entries_exist(const struct lowshot_sparse *scores, int64_t begin,
                                 int64_t count) {
    return count <= scores->capacity && begin <= scores->capacity - count;
}

/* Always inlined: gcc takes a function that does nothing but fetch ahead for one without effect. */
ALWAYS_INLINE void prefetch_ahead(const struct lowshot_links *links,
                                  const struct lowshot_sparse *in, int64_t edge) {
    if (edge + PREFETCH_SPANS >= links->edges)
        return;
    const int32_t far = links->indices[edge + PREFETCH_SPANS];
    const int32_t near = links->indices[edge + PREFETCH_ENTRIES];
    if (is_node(far, in->rows))
        PREFETCH(in->spans + far);
    if (is_node(near, in->rows)) {
        const int64_t begin = span_begin(in->spans[near]);
        /* A number, because what stands there may be no address of an entry. */
        const uintptr_t entry = (uintptr_t)in->entries + (uint64_t)begin * sizeof *in->entries;
        PREFETCH((const void *)entry);
        PREFETCH((const void *)(entry + CACHE_LINE_BYTES));
    }
}

/* Adds up the links of one row. Returns false if something in it leads nowhere. */
static bool accumulate(const struct job *job, int64_t row, struct span *span,
                       struct accumulator *accumulator) {
    const struct lowshot_links *const links = job->links;
    const struct lowshot_sparse *const in = job->in;
    float *const values = accumulator->values;
    uint64_t *const touched = accumulator->touched;
    bool good = row_links(links, job->selection == NULL ? row : job->selection[row], span);
    for (int64_t edge = span->begin; edge < span->end; edge++) {
        prefetch_ahead(links, in, edge);
        const int32_t index = links->indices[edge];
        if (!is_node(index, links->nodes)) {
            good &= index == -1 && links->indptr == NULL;
            continue;
        }
        const int64_t begin = span_begin(in->spans[index]), count = span_count(in->spans[index]);
        if (!entries_exist(in, begin, count)) {
            good = false;
            continue;
        }
        const float weight = links->weights != NULL     ? links->weights[edge]
                             : edge < span->doubled_end ? 2.0f
                                                        : 1.0f;
        for (int64_t i = begin; i < begin + count; i++) {
            const struct lowshot_entry entry = in->entries[i];
            if (!is_node(entry.column, in->columns)) {
                good = false;
                continue;
            }
            values[entry.column] += weight * entry.value;
            touched[entry.column >> 6] |= (uint64_t)1 << (entry.column & 63);
        }
    }
    return good;
}

/* Scales what has been accumulated, writes it to entries, and empties the accumulator. */
static int64_t take_entries(const struct job *job, const struct span *span, int format,
                            struct accumulator *accumulator, struct lowshot_entry *entries,
                            double *sums) {
    int64_t count = 0;
    for (int64_t word = 0; word < accumulator->words; word++) {
        uint64_t bits = accumulator->touched[word];
        accumulator->touched[word] = 0;
        for (; bits != 0; bits &= bits - 1) {
            const int64_t column = 64 * word + lowest_bit(bits);
            const float value =
                round_to(format, accumulator->values[column] * span->scale * job->factors[column]);
            accumulator->values[column] = 0.0f;
            entries[count++] = (struct lowshot_entry){value, (int32_t)column};
            if (sums != NULL)
                sums[column] += (double)value;
        }
    }
    return count;
}

static bool job_fits(const struct job *job, int64_t selected) {
    return links_fit(job->links) && sparse_fits(job->in) && job->in->rows == job->links->nodes &&
           selected >= 0 && (job->selection != NULL || selected == job->links->rows) &&
           (job->factors != NULL || job->in->columns == 0);
}

int lowshot_gather_sparse(const struct lowshot_links *links, const int32_t *selection,
                          int64_t selected, const struct lowshot_sparse *in, const float *factors,
                          const struct lowshot_dense *out, double *sums,
                          struct lowshot_fault *fault) {
    const struct job job = {links, selection, in, factors};
    if (!job_fits(&job, selected) || !dense_fits(out) || out->rows != selected ||
        out->columns != in->columns ||
        (in->format == LOWSHOT_FLOAT32 && out->format != LOWSHOT_FLOAT32))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const struct blocks blocks = split_rows(selected);
    double *const block_sums = sums == NULL ? NULL : allocate_block_sums(blocks, in->columns);
    if (sums != NULL && block_sums == NULL)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    bool good = true, enough_memory = true;
    struct stop stop = {0};
#pragma omp parallel reduction(&& : good, enough_memory)
    {
        struct accumulator accumulator;
        enough_memory = allocate_accumulator(in->columns, &accumulator) && enough_memory;
        struct lowshot_entry *const entries =
            malloc((size_t)(in->columns + 1) * sizeof(struct lowshot_entry));
        enough_memory = enough_memory && entries != NULL;
#pragma omp for schedule(dynamic)
        for (int64_t block = 0; block < blocks.count; block++) {
            if (!enough_memory)
                continue;
            double *const own_sums = sums == NULL ? NULL : block_sums + block * in->columns;
            for (int64_t row = block_begin(blocks, block); row < block_end(blocks, block); row++) {
                if (stop_wanted_by_row(&stop))
                    break;
                struct span span;
                good = accumulate(&job, row, &span, &accumulator) && good;
                const int64_t count =
                    take_entries(&job, &span, out->format, &accumulator, entries, own_sums);
                if (out->format == LOWSHOT_FLOAT32) {
                    float *const out_row = (float *)out->values + row * out->stride;
                    memset(out_row, 0, (size_t)out->columns * sizeof *out_row);
                    for (int64_t i = 0; i < count; i++)
                        out_row[entries[i].column] = entries[i].value;
                } else {
                    uint16_t *const out_row = (uint16_t *)out->values + row * out->stride;
                    memset(out_row, 0, (size_t)out->columns * sizeof *out_row);
                    for (int64_t i = 0; i < count; i++)
                        out_row[entries[i].column] = to_bfloat16(entries[i].value);
                }
            }
        }
        free(entries);
        free_accumulator(&accumulator);
    }
    if (sums != NULL)
        add_block_sums(block_sums, blocks, in->columns, sums);
    free(block_sums);
    if (!enough_memory)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return good ? LOWSHOT_OK : explain_bad_link(links, selection, selected, fault);
}

int lowshot_gather_to_sparse(const struct lowshot_links *links, const int32_t *selection,
                             int64_t selected, const struct lowshot_sparse *in,
                             const float *factors, const struct lowshot_sparse *out, int64_t *used,
                             double *sums, struct lowshot_fault *fault) {
    const struct job job = {links, selection, in, factors};
    if (!job_fits(&job, selected) || !sparse_fits(out) || out->rows != selected ||
        out->columns != in->columns || used == NULL)
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const struct blocks blocks = split_rows(selected);
    double *const block_sums = sums == NULL ? NULL : allocate_block_sums(blocks, in->columns);
    if (sums != NULL && block_sums == NULL)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    bool good = true, enough_memory = true;
    struct stop stop = {0};
    int64_t taken = 0;
#pragma omp parallel reduction(&& : good, enough_memory)
    {
        struct accumulator accumulator;
        enough_memory = allocate_accumulator(in->columns, &accumulator) && enough_memory;
        struct lowshot_entry *const entries =
            malloc((size_t)TILE_ROWS * (size_t)(in->columns + 1) * sizeof(struct lowshot_entry));
        enough_memory = enough_memory && entries != NULL;
#pragma omp for schedule(dynamic)
        for (int64_t block = 0; block < blocks.count; block++) {
            if (!enough_memory)
                continue;
            double *const own_sums = sums == NULL ? NULL : block_sums + block * in->columns;
            const int64_t block_last = block_end(blocks, block);
            for (int64_t first = block_begin(blocks, block); first < block_last;
                 first += TILE_ROWS) {
                if (stop_wanted(&stop))
                    break;
                const int64_t last =
                    block_last - first < TILE_ROWS ? block_last : first + TILE_ROWS;
                int64_t count = 0;
                for (int64_t row = first; row < last; row++) {
                    struct span span;
                    good = accumulate(&job, row, &span, &accumulator) && good;
                    const int64_t row_count = take_entries(&job, &span, out->format, &accumulator,
                                                           entries + count, own_sums);
                    out->spans[row] = make_span(count, row_count);
                    count += row_count;
                }
                /* Where the rows of a tile come to stand depends on who is first, what stands in
                 * them does not. */
                int64_t begin;
#pragma omp atomic capture
                {
                    begin = taken;
                    taken += count;
                }
                const bool fits = entries_exist(out, begin, count);
                if (fits && count > 0)
                    memcpy(out->entries + begin, entries, (size_t)count * sizeof *entries);
                for (int64_t row = first; row < last; row++)
                    out->spans[row] = fits ? make_span(begin + span_begin(out->spans[row]),
                                                       span_count(out->spans[row]))
                                           : 0;
            }
        }
        free(entries);
        free_accumulator(&accumulator);
    }
    if (sums != NULL)
        add_block_sums(block_sums, blocks, in->columns, sums);
    free(block_sums);
    *used = taken;
    if (!enough_memory)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    if (!good)
        return explain_bad_link(links, selection, selected, fault);
    return taken <= out->capacity ? LOWSHOT_OK : report_fault(fault, LOWSHOT_FULL, 0, 0, 0);
}
