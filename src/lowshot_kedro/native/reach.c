#include "search.h"

#include <stdlib.h>

/* Scores are sorted by counting, into so many classes of equal width at most. What is looked
 * through ends with a class: a few more than there have to be. */
enum { CLASSES = 2048, STRIP = 4096 };

struct reach_room {
    int32_t places[STRIP];
    int32_t zeros[STRIP];
    int32_t ends[CLASSES];
};

static inline uint32_t class_of(int32_t best, int32_t score, int shift) {
    return ((uint32_t)best - (uint32_t)score) >> shift;
}

/* One row of scores, and the bounds that belong to it. */
static void order_row(const int32_t *scores, int64_t columns, const int32_t *bounds, int64_t count,
                      struct reach_room *room, int32_t *order, int32_t *limits) {
    int32_t best = INT32_MIN, least = INT32_MAX;
    for (int64_t column = 0; column < columns; column++)
        best = scores[column] > best ? scores[column] : best;
    for (int64_t b = 0; b < count; b++)
        least = bounds[b] < least ? bounds[b] : least;
    for (int64_t column = 0; column < columns; column++)
        order[column] = 0;
    for (int64_t b = 0; b < count; b++)
        limits[b] = 0;
    if (columns == 0 || best < least)
        return;
    int shift = 0;
    while (class_of(best, least, shift) >= CLASSES)
        shift++;
    memset(room->ends, 0, sizeof(room->ends));
    for (int64_t first = 0; first < columns; first += STRIP) {
        const int64_t size = columns - first < STRIP ? columns - first : STRIP;
        const int64_t hits = find_scores(scores + first, room->zeros, size, least, room->places);
        for (int64_t h = 0; h < hits; h++)
            room->ends[class_of(best, scores[first + room->places[h]], shift)]++;
    }
    int32_t begin = 0;
    for (int64_t c = 0; c < CLASSES; c++) {
        const int32_t size = room->ends[c];
        room->ends[c] = begin;
        begin += size;
    }
    for (int64_t first = 0; first < columns; first += STRIP) {
        const int64_t size = columns - first < STRIP ? columns - first : STRIP;
        const int64_t hits = find_scores(scores + first, room->zeros, size, least, room->places);
        for (int64_t h = 0; h < hits; h++) {
            const int64_t column = first + room->places[h];
            order[room->ends[class_of(best, scores[column], shift)]++] = (int32_t)column;
        }
    }
    for (int64_t b = 0; b < count; b++)
        if (bounds[b] <= best)
            limits[b] = room->ends[class_of(best, bounds[b], shift)];
}

int lowshot_order_within_reach(const int32_t *scores, int64_t rows, int64_t columns,
                               const int64_t *offsets, const int32_t *bounds, int64_t count,
                               int32_t *order, int32_t *limits, struct lowshot_fault *fault) {
    if (columns > INT32_MAX || !matrix_fits(scores, rows, columns, columns) ||
        !matrix_fits(order, rows, columns, columns) || !matrix_fits(bounds, count, 1, 1) ||
        !matrix_fits(limits, count, 1, 1))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int kind = check_offsets(offsets, rows, count, fault);
    if (kind != LOWSHOT_OK)
        return kind;
    bool no_memory = false;
    struct stop stop = {0};
#pragma omp parallel reduction(|| : no_memory)
    {
        struct reach_room *const room = calloc(1, sizeof(struct reach_room));
        no_memory = room == NULL;
#pragma omp for schedule(dynamic, 8)
        for (int64_t row = 0; row < rows; row++) {
            if (room == NULL || stop_wanted(&stop))
                continue;
            order_row(scores + row * columns, columns, bounds + offsets[row],
                      offsets[row + 1] - offsets[row], room, order + row * columns,
                      limits + offsets[row]);
        }
        free(room);
    }
    if (no_memory)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return LOWSHOT_OK;
}
