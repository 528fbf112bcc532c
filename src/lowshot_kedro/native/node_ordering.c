#include "native.h"

#include <stdlib.h>

/* Numbers nodes so that neighbours are near each other in memory.
 *
 * Every node carries the label of a group, its own number at the start. In the first rounds it
 * takes the label in its neighbourhood whose hash is smallest (min-wise hashing), so that groups
 * form around the nodes of smallest hash. In the following rounds it takes the label that most of
 * its nearest neighbours have (label propagation: Raghavan, Albert and Kumara, "Near linear time
 * algorithm to detect community structures in large-scale networks", Physical Review E 76, 2007),
 * which repairs what a few links to far-away nodes have mixed up. After each round the nodes are
 * sorted by label, stably: a later, coarser grouping is refined by the earlier ones. */
enum { HASH_ROUNDS = 2, MAJORITY_ROUNDS = 4, VOTERS = 16 };

static inline uint32_t hash(uint32_t node) {
    /* A bijection on 32 bits: no two nodes have equal hashes. */
    node ^= node >> 16;
    node *= 0x7feb352du;
    node ^= node >> 15;
    node *= 0x846ca68bu;
    return node ^ node >> 16;
}

static int32_t smallest_hash(const int32_t *labels, const int32_t *neighbors, int64_t width,
                             int64_t nodes, int32_t own) {
    int32_t best = own;
    for (int64_t column = 0; column < width; column++) {
        if (!is_node(neighbors[column], nodes))
            continue;
        const int32_t label = labels[neighbors[column]];
        if (hash((uint32_t)label) < hash((uint32_t)best))
            best = label;
    }
    return best;
}

/* The most frequent label; of several, the one of smallest hash. */
ALWAYS_INLINE int32_t most_frequent_portable(const int32_t *votes, int count, int32_t own) {
    int32_t frequency[VOTERS] = {0};
    for (int other = 0; other < count; other++)
        for (int voter = 0; voter < VOTERS; voter++)
            frequency[voter] += votes[voter] == votes[other];
    int32_t best = own, most = 0;
    for (int voter = 0; voter < count; voter++)
        if (frequency[voter] > most ||
            (frequency[voter] == most && hash((uint32_t)votes[voter]) < hash((uint32_t)best))) {
            most = frequency[voter];
            best = votes[voter];
        }
    return best;
}

FOR_EVERY_WIDTH(int32_t, most_frequent, (const int32_t *votes, int count, int32_t own), votes,
                count, own)

static int32_t majority(const int32_t *labels, const int32_t *neighbors, int64_t width,
                        int64_t nodes, int32_t own) {
    int32_t votes[VOTERS];
    int count = 0;
    for (int64_t column = 0; column < width && count < VOTERS; column++)
        if (is_node(neighbors[column], nodes))
            votes[count++] = labels[neighbors[column]];
    for (int voter = count; voter < VOTERS; voter++)
        votes[voter] = -1;
    return most_frequent(votes, count, own);
}

/* Counting sort of order by label; starts has room for nodes + 1 numbers. */
static void sort_by_label(const int32_t *labels, int64_t nodes, const int32_t *order,
                          int32_t *sorted, int32_t *starts) {
    memset(starts, 0, (size_t)(nodes + 1) * sizeof *starts);
    for (int64_t node = 0; node < nodes; node++)
        starts[labels[node] + 1]++;
    for (int64_t label = 0; label < nodes; label++)
        starts[label + 1] += starts[label];
    for (int64_t i = 0; i < nodes; i++)
        sorted[starts[labels[order[i]]]++] = order[i];
}

int lowshot_cluster_nodes(const struct lowshot_neighbors *neighbors, int32_t *order,
                          struct lowshot_fault *fault) {
    if (neighbors == NULL || order == NULL)
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int64_t nodes = neighbors->rows;
    const int status = check_indices(neighbors->indices, nodes, neighbors->width, neighbors->stride,
                                     -1, nodes, fault);
    if (status != LOWSHOT_OK)
        return status;
    int32_t *const memory = malloc((size_t)(4 * nodes + 1) * sizeof *memory);
    if (memory == NULL)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    int32_t *labels = memory, *next_labels = memory + nodes;
    int32_t *const sorted = memory + 2 * nodes, *const starts = memory + 3 * nodes;
    for (int64_t node = 0; node < nodes; node++)
        labels[node] = order[node] = (int32_t)node;
    struct stop stop = {0};
    for (int round = 0; round < HASH_ROUNDS + MAJORITY_ROUNDS && !stop.wanted; round++) {
#pragma omp parallel for schedule(dynamic, MIN_BLOCK_ROWS)
        for (int64_t node = 0; node < nodes; node++) {
            if (stop_wanted_by_row(&stop)) {
                next_labels[node] = labels[node];
                continue;
            }
            const int32_t *const row = neighbors->indices + node * neighbors->stride;
            next_labels[node] =
                round < HASH_ROUNDS
                    ? smallest_hash(labels, row, neighbors->width, nodes, labels[node])
                    : majority(labels, row, neighbors->width, nodes, labels[node]);
        }
        int32_t *const swapped = labels;
        labels = next_labels;
        next_labels = swapped;
        sort_by_label(labels, nodes, order, sorted, starts);
        memcpy(order, sorted, (size_t)nodes * sizeof *order);
    }
    free(memory);
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return LOWSHOT_OK;
}

/* Rows are read in any order: these many rows ahead are fetched. */
enum { PREFETCH_ROWS = 8 };

int lowshot_renumber(const struct lowshot_neighbors *neighbors, const int32_t *order,
                     const int32_t *rank, int32_t *renumbered, struct lowshot_fault *fault) {
    if (neighbors == NULL)
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int64_t rows = neighbors->rows, width = neighbors->width;
    if (!matrix_fits(order, rows, 1, 1) || !matrix_fits(rank, rows, 1, 1) ||
        !matrix_fits(renumbered, rows, width, width))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int status =
        check_indices(neighbors->indices, rows, width, neighbors->stride, -1, rows, fault);
    if (status != LOWSHOT_OK)
        return status;
    bool good = true;
    struct stop stop = {0};
#pragma omp parallel for schedule(static) reduction(&& : good)
    for (int64_t row = 0; row < rows; row++) {
        if (stop_wanted_by_row(&stop))
            continue;
        const int64_t node = order[row];
        if (!is_node(order[row], rows) || rank[node] != row) {
            good = false;
            continue;
        }
        if (rows - row > PREFETCH_ROWS && is_node(order[row + PREFETCH_ROWS], rows)) {
            const char *const ahead =
                (const char *)(neighbors->indices + order[row + PREFETCH_ROWS] * neighbors->stride);
            for (int64_t byte = 0; byte < 4 * width; byte += CACHE_LINE_BYTES)
                PREFETCH(ahead + byte);
        }
        const int32_t *const old = neighbors->indices + node * neighbors->stride;
        for (int64_t column = 0; column < width; column++)
            renumbered[row * width + column] = is_node(old[column], rows) ? rank[old[column]] : -1;
    }
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return good ? LOWSHOT_OK : report_fault(fault, LOWSHOT_BAD_ORDER, 0, 0, 0);
}
