#include "search.h"

#include <stdlib.h>

/* Nearest-neighbour descent (Dong, Moses, Li, "Efficient k-nearest neighbor graph construction for
 * generic similarity measures", WWW 2011): neighbours of neighbours are likely neighbours. Every
 * row looks for itself, in what the round before has left, so rows are independent of each other
 * and their order, and a round can be continued at any row. */

static inline int32_t entry_number(int32_t entry) { return entry >> 1; }
static inline bool entry_is_new(int32_t entry) { return entry & 1; }

static inline int32_t make_entry(candidate found) {
    return (int32_t)((uint32_t)candidate_number(found) << 1 | candidate_is_new(found));
}

static bool pools_fit(const struct lowshot_pools *pools) {
    return pools != NULL && pools->rows >= 0 && pools->rows <= INT32_MAX / 2 && pools->width >= 1 &&
           pools->width <= LOWSHOT_MAX_NEIGHBORS &&
           matrix_fits(pools->entries, pools->rows, pools->width, pools->width) &&
           matrix_fits(pools->scores, pools->rows, pools->width, pools->width);
}

/* The next entry of a row that links into first..last - 1, or false at the end of the row. */
static inline bool next_link(const int32_t *entries, int64_t forward, int64_t first, int64_t last,
                             int64_t *position, int64_t *target) {
    for (; *position < forward && entries[*position] >= 0; ++*position) {
        const int64_t number = entry_number(entries[*position]);
        if (number >= first && number < last) {
            *target = number - first;
            return true;
        }
    }
    return false;
}

static bool link_range_fits(const struct lowshot_pools *pools, int64_t first_row, int64_t forward,
                            int64_t first, int64_t last, const int64_t *ends) {
    return pools_fit(pools) && first_row >= 0 && first_row <= INT32_MAX / 2 - pools->rows &&
           forward >= 1 && forward <= pools->width && first >= 0 && last >= first &&
           last <= INT32_MAX / 2 && matrix_fits(ends, last - first, 1, 1);
}

int lowshot_count_links(const struct lowshot_pools *pools, int64_t forward, int64_t first,
                        int64_t last, int64_t *counts, struct lowshot_fault *fault) {
    if (!link_range_fits(pools, 0, forward, first, last, counts))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    struct stop stop = {0};
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < pools->rows; row++) {
        if (stop_wanted_by_row(&stop))
            continue;
        const int32_t *const entries = pools->entries + row * pools->width;
        int64_t target;
        for (int64_t j = 0; next_link(entries, forward, first, last, &j, &target); j++) {
#pragma omp atomic
            counts[target]++;
        }
    }
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return LOWSHOT_OK;
}

/* Filled in any order: what is kept in the end does not depend on it. */
int lowshot_collect_links(const struct lowshot_pools *pools, int64_t first_row, int64_t forward,
                          int64_t first, int64_t last, int64_t *ends, uint64_t *links,
                          int64_t capacity, struct lowshot_fault *fault) {
    if (!link_range_fits(pools, first_row, forward, first, last, ends) ||
        !matrix_fits(links, capacity, 1, 1))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    struct stop stop = {0};
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < pools->rows; row++) {
        if (stop_wanted_by_row(&stop))
            continue;
        const int32_t *const entries = pools->entries + row * pools->width;
        int64_t target;
        for (int64_t j = 0; next_link(entries, forward, first, last, &j, &target); j++) {
            int64_t place;
#pragma omp atomic capture
            place = ends[target]++;
            if (place >= 0 && place < capacity)
                links[place] = make_candidate(pools->scores[row * pools->width + j],
                                              (int32_t)(first_row + row), entry_is_new(entries[j]));
        }
    }
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return LOWSHOT_OK;
}

/* The links of a row in both directions, each once, and new if it is in one of them; the new ones
 * first, so that where only these count nothing else is looked at. */
static void merge_links(const int32_t *entries, int64_t forward, const candidate *incoming,
                        int64_t n_incoming, int32_t *out, int64_t width) {
    int64_t count = 0;
    for (; count < forward && entries[count] >= 0; count++)
        out[count] = entries[count];
    const int64_t own = count;
    for (int64_t i = 0; i < n_incoming; i++) {
        const int32_t entry = make_entry(incoming[i]);
        int64_t j = 0;
        while (j < own && entry_number(out[j]) != entry_number(entry))
            j++;
        if (j < own)
            out[j] |= entry & 1;
        else
            out[count++] = entry;
    }
    int64_t n_new = 0;
    for (int64_t j = 0; j < count; j++)
        if (entry_is_new(out[j])) {
            const int32_t moved = out[j];
            memmove(out + n_new + 1, out + n_new, (size_t)(j - n_new) * sizeof(int32_t));
            out[n_new++] = moved;
        }
    for (; count < width; count++)
        out[count] = -1;
}

int lowshot_choose_links(const struct lowshot_pools *pools, int64_t forward, int64_t backward,
                         const int64_t *ends, uint64_t *links, int64_t capacity, int32_t *sampled,
                         struct lowshot_fault *fault) {
    if (!link_range_fits(pools, 0, forward, 0, pools != NULL ? pools->rows : 0, ends) ||
        backward < 0 || backward > LOWSHOT_MAX_NEIGHBORS || !matrix_fits(links, capacity, 1, 1) ||
        !matrix_fits(sampled, pools->rows, forward + backward, forward + backward))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    /* All of them first: with wrong ends rows would share links, and sort them at the same time. */
    for (int64_t row = 0; row < pools->rows; row++)
        if (ends[row] < (row > 0 ? ends[row - 1] : 0) || ends[row] > capacity)
            return report_fault(fault, LOWSHOT_BAD_OFFSET, 0, row, 0);
    struct stop stop = {0};
#pragma omp parallel for schedule(dynamic, 1024)
    for (int64_t row = 0; row < pools->rows; row++) {
        if (stop_wanted_by_row(&stop))
            continue;
        const int64_t begin = row > 0 ? ends[row - 1] : 0, end = ends[row];
        int64_t found = end - begin;
        candidate *const incoming = links + begin;
        if (found > backward) {
            select_best(incoming, found, backward);
            found = backward;
        }
        sort_best(incoming, found);
        merge_links(pools->entries + row * pools->width, forward, incoming, found,
                    sampled + row * (forward + backward), forward + backward);
    }
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return LOWSHOT_OK;
}

struct join_room {
    uint8_t *met; /* of each row: whether the row at work has met it; all 0 between rows */
    int32_t *numbers;
    const int8_t **vectors;
    int32_t *scores;
    candidate *candidates;
};

static void free_join_room(struct join_room *room) {
    free(room->met);
    free(room->numbers);
    free(room->vectors);
    free(room->scores);
    free(room->candidates);
}

static bool make_join_room(int64_t rows, int64_t pool_width, int64_t sample_width,
                           struct join_room *room) {
    const size_t met = (size_t)(sample_width * sample_width + sample_width);
    *room = (struct join_room){
        .met = calloc((size_t)rows + 1, 1),
        .numbers = malloc((met + 1) * sizeof(int32_t)),
        .vectors = malloc((met + 1) * sizeof(int8_t *)),
        .scores = malloc((met + 1) * sizeof(int32_t)),
        .candidates = malloc((met + (size_t)pool_width + 1) * sizeof(candidate)),
    };
    return room->met != NULL && room->numbers != NULL && room->vectors != NULL &&
           room->scores != NULL && room->candidates != NULL;
}

struct join {
    const struct lowshot_codes *codes;
    const struct lowshot_pools *pools;
    const int32_t *sampled;
    int64_t sample_width;
    struct code_kernels kernels;
};

ALWAYS_INLINE void prefetch_links(const struct join *join, int32_t row) {
    if (is_node(row, join->pools->rows))
        for (int64_t j = 0; j < join->sample_width; j += CACHE_LINE_BYTES / 4)
            PREFETCH(join->sampled + row * join->sample_width + j);
}

/* Adds a number that has not been met, without a branch that nothing could foretell. */
ALWAYS_INLINE int64_t meet(uint8_t *met, int32_t number, int32_t *numbers, int64_t count) {
    numbers[count] = number;
    count += !met[number];
    met[number] = 1;
    return count;
}

/* Adds what is linked to a neighbour, or only what is newly linked to it. Returns how many there
 * are now, or -1 for a number that is no row. */
static int64_t meet_linked(const int32_t *further, int64_t width, bool new_only, int64_t rows,
                           uint8_t *met, int32_t *numbers, int64_t count) {
    /* None that counts lies behind an entry that does not. */
    const int32_t counts = new_only ? 1 : 0;
    for (int64_t j = 0; j < width && further[j] >= 0 && (further[j] & counts) == counts; j++) {
        const int32_t number = entry_number(further[j]);
        if (!is_node(number, rows))
            return -1;
        count = meet(met, number, numbers, count);
    }
    return count;
}

static int64_t meet_neighbors(const struct join *join, int64_t row, struct join_room *room) {
    enum { AHEAD = 8 };
    const int64_t width = join->sample_width, rows = join->pools->rows;
    const int32_t *const links = join->sampled + row * width;
    int64_t count = 0;
    for (int64_t i = 0; i < AHEAD && i < width && links[i] >= 0; i++)
        prefetch_links(join, entry_number(links[i]));
    for (int64_t i = 0; i < width && links[i] >= 0; i++) {
        const int32_t neighbor = entry_number(links[i]);
        if (!is_node(neighbor, rows))
            return -1;
        if (i + AHEAD < width && links[i + AHEAD] >= 0)
            prefetch_links(join, entry_number(links[i + AHEAD]));
        const bool new_link = entry_is_new(links[i]);
        if (new_link)
            count = meet(room->met, neighbor, room->numbers, count);
        count = meet_linked(join->sampled + neighbor * width, width, !new_link, rows, room->met,
                            room->numbers, count);
        if (count < 0)
            return -1;
    }
    return count;
}

/* What is linked to a row in one or two steps, one of them new, and is not in its pool. Returns how
 * many, or -1 for a number that is no row. */
static int64_t gather_candidates(const struct join *join, int64_t row, struct join_room *room) {
    const int64_t rows = join->pools->rows;
    const int32_t *const own = join->pools->entries + row * join->pools->width;
    room->met[row] = 1;
    for (int64_t j = 0; j < join->pools->width && own[j] >= 0; j++)
        if (is_node(entry_number(own[j]), rows))
            room->met[entry_number(own[j])] = 1;
    const int64_t count = meet_neighbors(join, row, room);
    room->met[row] = 0;
    for (int64_t j = 0; j < join->pools->width && own[j] >= 0; j++)
        if (is_node(entry_number(own[j]), rows))
            room->met[entry_number(own[j])] = 0;
    /* After a number that is no row nothing counts any more, so that it may stay as it is. */
    for (int64_t c = 0; c < count; c++)
        room->met[room->numbers[c]] = 0;
    return count;
}

static bool join_row(const struct join *join, int64_t row, struct join_room *room,
                     int32_t *new_entries, int32_t *new_scores) {
    enum { AHEAD = 12, STRIP = 4 };
    const int64_t width = join->pools->width, code_width = join->codes->width;
    const int64_t count = gather_candidates(join, row, room);
    if (count < 0)
        return false;
    const int8_t *const query = join->codes->values + row * code_width;
    const int32_t query_sum = sum_of_codes(query, code_width);
    for (int64_t c = 0; c < count; c++)
        room->vectors[c] = join->codes->values + room->numbers[c] * code_width;
    for (int64_t begin = -AHEAD; begin < count; begin += STRIP) {
        for (int64_t c = begin + AHEAD; c < begin + AHEAD + STRIP && c < count; c++) {
            for (int64_t j = 0; j < code_width; j += CACHE_LINE_BYTES)
                PREFETCH(room->vectors[c] + j);
            PREFETCH(join->codes->biases + room->numbers[c]);
        }
        if (begin >= 0)
            join->kernels.score_rows(query, query_sum, room->vectors + begin,
                                     count - begin < STRIP ? count - begin : STRIP, code_width,
                                     room->scores + begin);
    }
    const int32_t *const own = join->pools->entries + row * width;
    const int32_t *const own_scores = join->pools->scores + row * width;
    int64_t found = 0;
    for (; found < width && own[found] >= 0; found++)
        room->candidates[found] = make_candidate(own_scores[found], entry_number(own[found]), 0);
    const int32_t threshold = found == width ? own_scores[width - 1] : INT32_MIN;
    const int64_t before = found;
    for (int64_t c = 0; c < count; c++) {
        const int32_t score = room->scores[c] + join->codes->biases[room->numbers[c]];
        if (score >= threshold)
            room->candidates[found++] = make_candidate(score, room->numbers[c], 1);
    }
    if (found > before) {
        if (found > width) {
            select_best(room->candidates, found, width);
            found = width;
        }
        sort_best(room->candidates, found);
    }
    for (int64_t c = 0; c < width; c++) {
        new_entries[c] = c < found ? make_entry(room->candidates[c]) : -1;
        new_scores[c] = c < found ? candidate_score(room->candidates[c]) : INT32_MIN;
    }
    return true;
}

int lowshot_join_neighbors(const struct lowshot_codes *codes, const struct lowshot_pools *pools,
                           const int32_t *sampled, int64_t sample_width, int64_t first,
                           int64_t last, int32_t *entries, int32_t *scores,
                           struct lowshot_fault *fault) {
    if (!codes_fit(codes) || !pools_fit(pools) || codes->rows != pools->rows || first < 0 ||
        last < first || last > pools->rows || sample_width < 1 ||
        sample_width > LOWSHOT_MAX_NEIGHBORS ||
        !matrix_fits(sampled, pools->rows, sample_width, sample_width) ||
        !matrix_fits(entries, last - first, pools->width, pools->width) ||
        !matrix_fits(scores, last - first, pools->width, pools->width))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int kind = check_biases(codes, fault);
    if (kind != LOWSHOT_OK)
        return kind;
    const struct join join = {codes, pools, sampled, sample_width, choose_code_kernels()};
    bool no_memory = false;
    int64_t first_bad = INT64_MAX;
    struct stop stop = {0};
#pragma omp parallel reduction(|| : no_memory) reduction(min : first_bad)
    {
        struct join_room room;
        const bool has_room = make_join_room(pools->rows, pools->width, sample_width, &room);
        no_memory = !has_room;
#pragma omp for schedule(dynamic, 256)
        for (int64_t row = first; row < last; row++) {
            const int64_t place = (row - first) * pools->width;
            if (has_room && !stop_wanted(&stop) &&
                !join_row(&join, row, &room, entries + place, scores + place))
                first_bad = row < first_bad ? row : first_bad;
        }
        free_join_room(&room);
    }
    if (no_memory)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    if (first_bad != INT64_MAX)
        return report_fault(fault, LOWSHOT_BAD_INDEX, 0, first_bad, 0);
    return LOWSHOT_OK;
}
