#include "search.h"

#include <stdlib.h>

/* Queries are searched in groups. What a group probes is sorted by list, so that every list is
 * packed once for all queries of the group that probe it, and scored QUERY_TILE queries at a time.
 * Groups are independent of each other and go to the threads as they come.
 *
 * Codes are rotated at random, so that the first P of w columns hold about P / w of a squared
 * distance, with a relative deviation of sqrt(2 (1 / P - 1 / w)). A vector whose first columns are
 * too far from a query's for that to be chance need not be scored in full: J. Gao, C. Long,
 * "High-dimensional approximate nearest neighbor search: with reliable and efficient distance
 * comparison operations" (SIGMOD 2023). Unlike there, what is too far follows from the floor, and
 * from what a query has found in the first lists that it probes, all of which are scored in full:
 * if it followed from what has been found so far, whether a vector is left out would depend on the
 * order of lists, and with it on the number of threads. */

enum {
    GROUP = 4096,
    MIN_GROUP = 64,
    GROUPS_PER_THREAD = 2,
    STRIP = 128,
    MAX_PREFETCHED = 512,
    GROUP_WORDS = 1 << 21,
    SPARE = 256
};

/* What a query has found so far. */
struct found {
    candidate *candidates;
    int64_t count;
    int32_t threshold;        /* below it nothing can be among the best any more */
    int32_t prefix_threshold; /* below it, the first columns alone are too far */
};

struct group_room {
    uint8_t *packed;
    const int8_t **vectors;
    int32_t *scores;
    candidate *candidates;
    int32_t *slots;  /* of each list: its place in lists below, or -1 */
    int32_t *lists;  /* those the group probes, in the order in which it first names them */
    int32_t *ends;   /* of each of these: where its queries end in items */
    uint64_t *items; /* queries, those of one list together, with what they look through of it */
    int32_t *biases; /* of the packed vectors */
    int32_t *prefix_biases;
    int32_t *numbers;
    struct found *found;  /* of each query */
    int32_t *packed_sums; /* of those of its columns that are packed of vectors */
    int32_t *rest_sums;   /* and of its others */
};

struct search {
    const struct lowshot_codes *codes;
    const struct lowshot_lists *lists;
    const struct lowshot_codes *queries;
    const int32_t *probes;
    int64_t n_probes;
    int64_t full_probes; /* the first of them, whose vectors are scored in full */
    const int32_t *limits;
    const int32_t *floors;
    int64_t prefix_share;
    int64_t width;
    int64_t group;    /* queries that are searched together */
    int64_t capacity; /* candidates of a query before the best are selected */
    struct code_kernels kernels;
};

/* The search of some of the lists that each query probes. */
struct phase {
    int64_t first_probe;
    int64_t last_probe;
    bool by_prefix;
    int64_t packed_width; /* columns that are packed, and scored of every vector */
    int64_t chunk;        /* how many vectors are packed at a time */
};

/* Enough for first columns as well. */
static size_t packed_bytes(int64_t width) {
    const int64_t packed = chunk_rows(width) * width;
    return packed < PACKED_BYTES ? PACKED_BYTES : (size_t)packed;
}

static void free_room(struct group_room *room) {
    free(room->packed);
    free(room->vectors);
    free(room->scores);
    free(room->candidates);
    free(room->slots);
    free(room->lists);
    free(room->ends);
    free(room->items);
    free(room->biases);
    free(room->prefix_biases);
    free(room->numbers);
    free(room->found);
    free(room->rest_sums);
    free(room->packed_sums);
}

static bool make_room(const struct search *search, struct group_room *room) {
    const size_t queries = (size_t)search->group;
    const size_t pairs = queries * (size_t)search->n_probes + 1;
    const size_t lists = (size_t)search->lists->count + 1;
    *room = (struct group_room){
        .packed = aligned_alloc(CACHE_LINE_BYTES, packed_bytes(search->codes->width)),
        .vectors = malloc(MAX_CHUNK * sizeof(int8_t *)),
        .scores = aligned_alloc(CACHE_LINE_BYTES, QUERY_TILE * MAX_CHUNK * sizeof(int32_t)),
        .candidates = malloc(queries * (size_t)search->capacity * sizeof(candidate)),
        .slots = malloc(lists * sizeof(int32_t)),
        .lists = malloc(pairs * sizeof(int32_t)),
        .ends = malloc(pairs * sizeof(int32_t)),
        .items = malloc(pairs * sizeof(uint64_t)),
        .biases = malloc(MAX_CHUNK * sizeof(int32_t)),
        .prefix_biases = malloc(MAX_CHUNK * sizeof(int32_t)),
        .numbers = malloc(MAX_CHUNK * sizeof(int32_t)),
        .found = malloc(queries * sizeof(struct found)),
        .rest_sums = malloc(queries * sizeof(int32_t)),
        .packed_sums = malloc(queries * sizeof(int32_t)),
    };
    if (room->packed == NULL || room->vectors == NULL || room->scores == NULL ||
        room->candidates == NULL || room->slots == NULL || room->lists == NULL ||
        room->ends == NULL || room->items == NULL || room->biases == NULL ||
        room->prefix_biases == NULL || room->numbers == NULL || room->found == NULL ||
        room->rest_sums == NULL || room->packed_sums == NULL)
        return false;
    for (size_t list = 0; list < lists; list++)
        room->slots[list] = -1;
    return true;
}

/* A query and the vectors of a list that it looks through in one word. Sorted as candidates are,
 * queries that look through more come first. */
static inline uint64_t make_item(int64_t limit, int64_t query) {
    return (uint64_t)limit << 32 | (uint64_t)query;
}

static inline int64_t item_limit(uint64_t item) { return (int64_t)(item >> 32); }

static inline int32_t item_query(uint64_t item) { return (int32_t)(uint32_t)item; }

static int64_t limit_of(const struct search *search, int64_t pair, int32_t list) {
    const int64_t size = search->lists->offsets[list + 1] - search->lists->offsets[list];
    if (search->limits == NULL || search->limits[pair] >= size)
        return size < INT32_MAX ? size : INT32_MAX;
    return search->limits[pair] > 0 ? search->limits[pair] : 0;
}

/* Sorts the pairs of query and probed list by list; returns how many lists there are. The lists
 * that queries name first come first, so that thresholds are high early. */
static int64_t sort_by_list(const struct search *search, const struct phase *phase, int64_t first,
                            int64_t count, struct group_room *room) {
    int64_t n_lists = 0;
    const int32_t *const probes = search->probes + first * search->n_probes;
    for (int64_t p = phase->first_probe; p < phase->last_probe; p++)
        for (int64_t q = 0; q < count; q++) {
            const int32_t list = probes[q * search->n_probes + p];
            if (list < 0)
                continue;
            if (room->slots[list] < 0) {
                room->slots[list] = (int32_t)n_lists;
                room->lists[n_lists] = list;
                room->ends[n_lists++] = 0;
            }
            room->ends[room->slots[list]]++;
        }
    int32_t begin = 0;
    for (int64_t slot = 0; slot < n_lists; slot++) {
        const int32_t size = room->ends[slot];
        room->ends[slot] = begin;
        begin += size;
    }
    for (int64_t q = 0; q < count; q++)
        for (int64_t p = phase->first_probe; p < phase->last_probe; p++) {
            const int32_t list = probes[q * search->n_probes + p];
            if (list < 0)
                continue;
            const int64_t limit = limit_of(search, (first + q) * search->n_probes + p, list);
            room->items[room->ends[room->slots[list]]++] = make_item(limit, q);
        }
    for (int64_t slot = 0; slot < n_lists; slot++)
        room->slots[room->lists[slot]] = -1;
    /* Queries that look through equally much of a list are scored together. */
    begin = 0;
    for (int64_t slot = 0; slot < n_lists && search->limits != NULL; slot++) {
        sort_best(room->items + begin, room->ends[slot] - begin);
        begin = room->ends[slot];
    }
    return n_lists;
}

/* With enough candidates at hand, nothing below the worst of them counts any more. */
static void raise_threshold(struct found *found) {
    candidate worst = found->candidates[0];
    for (int64_t c = 1; c < found->count; c++)
        worst = found->candidates[c] < worst ? found->candidates[c] : worst;
    if (candidate_score(worst) > found->threshold)
        found->threshold = candidate_score(worst);
}

/* Forgets all but about the best. */
static void keep_best(struct found *found, int64_t kept) {
    found->count = select_about(found->candidates, found->count, kept, kept + kept / 4 + 8);
    raise_threshold(found);
}

/* Adds the vectors that score at least the threshold. numbers: of the vectors. */
static void collect(const int32_t *scores, const int32_t *biases, const int32_t *numbers,
                    int64_t count, int64_t kept, int64_t capacity, struct found *found) {
    for (int64_t begin = 0; begin < count; begin += STRIP) {
        const int64_t size = count - begin < STRIP ? count - begin : STRIP;
        found->count += catch_scores(scores + begin, biases + begin, numbers + begin, size,
                                     found->threshold, found->candidates + found->count);
        if (found->count > capacity - STRIP)
            keep_best(found, kept);
    }
}

static int64_t square_of_prefix(const int8_t *query) {
    int64_t square = 0;
    for (int64_t j = 0; j < CODE_WIDTH_UNIT; j++)
        square += query[j] * query[j];
    return square;
}

/* Adds the vectors that score at least the threshold, of those whose first columns do as well.
 * scores: of these columns. sum: of the query's others. */
static void collect_near(const struct search *search, const int8_t *query, int32_t sum,
                         const struct group_room *room, const int32_t *scores, int64_t count,
                         struct found *found) {
    /* What was packed is at hand, the other columns are not. */
    const int64_t width = search->codes->width - CODE_WIDTH_UNIT;
    const int64_t prefetched = width < MAX_PREFETCHED ? width : MAX_PREFETCHED;
    int32_t places[STRIP], rest[STRIP];
    const int8_t *vectors[STRIP];
    for (int64_t begin = 0; begin < count; begin += STRIP) {
        const int64_t size = count - begin < STRIP ? count - begin : STRIP;
        const int64_t hits = find_scores(scores + begin, room->prefix_biases + begin, size,
                                         found->prefix_threshold, places);
        for (int64_t h = 0; h < hits; h++) {
            vectors[h] = room->vectors[begin + places[h]] + CODE_WIDTH_UNIT;
            for (int64_t j = 0; j < prefetched; j += CACHE_LINE_BYTES)
                PREFETCH(vectors[h] + j);
        }
        search->kernels.score_rows(query + CODE_WIDTH_UNIT, sum, vectors, hits, width, rest);
        for (int64_t h = 0; h < hits; h++) {
            const int64_t v = begin + places[h];
            const int32_t score = scores[v] + rest[h] + room->biases[v];
            if (score >= found->threshold)
                found->candidates[found->count++] = make_candidate(score, room->numbers[v], 0);
        }
        if (found->count > search->capacity - STRIP)
            keep_best(found, search->width);
    }
}

/* Packs size vectors of the lists from a member on. */
static void pack_members(const struct search *search, const struct phase *phase, int64_t from,
                         int64_t size, struct group_room *room) {
    const struct lowshot_codes *const codes = search->codes;
    const int32_t *const members = search->lists->members;
    for (int64_t v = 0; v < size; v++) {
        room->numbers[v] = members != NULL ? members[from + v] : (int32_t)(from + v);
        room->vectors[v] = codes->values + room->numbers[v] * codes->width;
        room->biases[v] = codes->biases[room->numbers[v]];
    }
    search->kernels.pack(room->vectors, size, phase->packed_width, room->packed);
    if (!phase->by_prefix)
        return;
    search->kernels.square_packed(room->packed, size, phase->packed_width, room->prefix_biases);
    for (int64_t v = 0; v < size; v++)
        room->prefix_biases[v] = -(room->prefix_biases[v] / 2);
}

/* Scores up to QUERY_TILE queries of the group against what is packed: size vectors of a list, the
 * first being its from-th. */
static void search_tile(const struct search *search, const struct phase *phase, int64_t first,
                        const uint64_t *items, int64_t count, int64_t from, int64_t size,
                        struct group_room *room) {
    const int64_t width = search->codes->width;
    const int8_t *tile[QUERY_TILE];
    int32_t sums[QUERY_TILE];
    for (int64_t i = 0; i < QUERY_TILE; i++) {
        const int32_t q = item_query(items[i < count ? i : 0]);
        tile[i] = search->queries->values + (first + q) * width;
        sums[i] = room->packed_sums[q];
    }
    /* The first looks through most of the list. */
    const int64_t left = item_limit(items[0]) - from;
    search->kernels.score_packed(tile, sums, room->packed, left < size ? left : size,
                                 phase->packed_width, room->scores);
    for (int64_t i = 0; i < count; i++) {
        const int32_t q = item_query(items[i]);
        const int32_t *const scores = room->scores + i * MAX_CHUNK;
        const int64_t more = item_limit(items[i]) - from;
        const int64_t of_query = more < 0 ? 0 : more < size ? more : size;
        if (phase->by_prefix)
            collect_near(search, tile[i], room->rest_sums[q], room, scores, of_query,
                         &room->found[q]);
        else
            collect(scores, room->biases, room->numbers, of_query, search->width, search->capacity,
                    &room->found[q]);
    }
}

/* What scoring a tile will read and write: it is not at hand where groups are large. */
static void prefetch_tile(const struct search *search, const struct phase *phase, int64_t first,
                          const uint64_t *items, int64_t count, const struct group_room *room) {
    for (int64_t i = 0; i < count; i++) {
        const int32_t q = item_query(items[i]);
        const int8_t *const query = search->queries->values + (first + q) * search->codes->width;
        for (int64_t j = 0; j < phase->packed_width; j += CACHE_LINE_BYTES)
            PREFETCH(query + j);
        const candidate *const next = room->found[q].candidates + room->found[q].count;
        PREFETCH(next);
        PREFETCH(next + CACHE_LINE_BYTES / sizeof(candidate));
    }
}

static void search_phase(const struct search *search, const struct phase *phase, int64_t first,
                         int64_t count, struct group_room *room, struct stop *stop) {
    const int64_t width = search->codes->width;
    for (int64_t q = 0; q < count; q++) {
        const int8_t *const query = search->queries->values + (first + q) * width;
        room->packed_sums[q] = sum_of_codes(query, phase->packed_width);
        room->rest_sums[q] = sum_of_codes(query + phase->packed_width, width - phase->packed_width);
    }
    const int64_t n_lists = sort_by_list(search, phase, first, count, room);
    int64_t begin = 0;
    for (int64_t slot = 0; slot < n_lists; slot++) {
        const int64_t end = room->ends[slot];
        const int64_t first_member = search->lists->offsets[room->lists[slot]];
        const int64_t limit = item_limit(room->items[begin]);
        for (int64_t from = 0; from < limit; from += phase->chunk) {
            if (stop_wanted(stop))
                return;
            const int64_t size = limit - from < phase->chunk ? limit - from : phase->chunk;
            pack_members(search, phase, first_member + from, size, room);
            for (int64_t item = begin; item < end; item += QUERY_TILE) {
                if (item_limit(room->items[item]) <= from)
                    break;
                const int64_t few = end - item < QUERY_TILE ? end - item : QUERY_TILE;
                const int64_t left = end - item - few;
                prefetch_tile(search, phase, first, room->items + item + few,
                              left < QUERY_TILE ? left : QUERY_TILE, room);
                search_tile(search, phase, first, room->items + item, few, from, size, room);
            }
        }
        begin = end;
    }
}

/* Forgets all but the best `kept`, in any order. */
static void keep_exactly(struct found *found, int64_t kept) {
    if (found->count > kept) {
        select_best(found->candidates, found->count, kept);
        found->count = kept;
    }
}

/* What counts besides the best that have been found so far: those that may be better. */
static void set_thresholds(const struct search *search, int64_t row, struct found *found) {
    keep_exactly(found, search->width);
    if (found->count == search->width)
        raise_threshold(found);
    found->prefix_threshold =
        prefix_threshold(search->prefix_share, found->threshold, search->queries->biases[row],
                         square_of_prefix(search->queries->values + row * search->codes->width), 0);
}

static void search_group(const struct search *search, int64_t first, int64_t count,
                         struct group_room *room, int32_t *numbers, int32_t *scores,
                         struct stop *stop) {
    const int64_t width = search->codes->width, kept = search->width;
    struct found *const found = room->found;
    for (int64_t q = 0; q < count; q++) {
        const int32_t floor = search->floors != NULL ? search->floors[first + q] : INT32_MIN;
        found[q] = (struct found){room->candidates + q * search->capacity, 0, floor, INT32_MIN};
    }
    const struct phase in_full = {0, search->full_probes, false, width, chunk_rows(width)};
    search_phase(search, &in_full, first, count, room, stop);
    if (search->full_probes < search->n_probes) {
        for (int64_t q = 0; q < count; q++)
            set_thresholds(search, first + q, &found[q]);
        const struct phase by_prefix = {search->full_probes, search->n_probes, true,
                                        CODE_WIDTH_UNIT, chunk_rows(CODE_WIDTH_UNIT)};
        search_phase(search, &by_prefix, first, count, room, stop);
    }
    for (int64_t q = 0; q < count; q++) {
        keep_exactly(&found[q], kept);
        sort_best(found[q].candidates, found[q].count);
        for (int64_t c = 0; c < kept; c++) {
            const bool there = c < found[q].count;
            const candidate best = there ? found[q].candidates[c] : 0;
            numbers[(first + q) * kept + c] = there ? candidate_number(best) : -1;
            scores[(first + q) * kept + c] = there ? candidate_score(best) : INT32_MIN;
        }
    }
}

static int64_t candidate_capacity(int64_t width) { return 2 * width + SPARE; }

/* Large groups share the work of packing; of few queries there should still be enough groups for
 * all threads, and candidates and probes of a group take no more than GROUP_WORDS if they can. */
static int64_t group_rows(int64_t queries, int64_t n_probes, int64_t width) {
    const int64_t threads = lowshot_get_num_threads();
    const int64_t share = threads > 1 ? queries / (GROUPS_PER_THREAD * threads) : queries;
    const int64_t words =
        n_probes > candidate_capacity(width) ? n_probes : candidate_capacity(width);
    const int64_t fitting = GROUP_WORDS / words;
    const int64_t largest = fitting < GROUP ? fitting : GROUP;
    return share < MIN_GROUP || largest < MIN_GROUP ? MIN_GROUP : share > largest ? largest : share;
}

/* The last queries go in smaller groups, so that threads end at about the same time. */
struct groups {
    int64_t queries;
    int64_t size;
    int64_t n_large;
    int64_t small;
    int64_t count;
};

static struct groups divide_queries(int64_t queries, int64_t size) {
    const int64_t threads = lowshot_get_num_threads();
    const int64_t small = threads > 1 && size / 4 > MIN_GROUP ? size / 4 : size;
    const int64_t n_large = queries / size > threads ? queries / size - threads : 0;
    const int64_t rest = queries - n_large * size;
    return (struct groups){queries, size, n_large, small,
                           n_large + rest / small + (rest % small != 0)};
}

static int64_t group_begin(struct groups groups, int64_t group) {
    const int64_t begin = group <= groups.n_large ? group * groups.size
                                                  : groups.n_large * groups.size +
                                                        (group - groups.n_large) * groups.small;
    return begin < groups.queries ? begin : groups.queries;
}

int lowshot_score_pairs(const struct lowshot_codes *codes, const int32_t *numbers,
                        const struct lowshot_codes *queries, int32_t *scores,
                        struct lowshot_fault *fault) {
    if (!codes_fit(codes) || !codes_fit(queries) || queries->width != codes->width ||
        !matrix_fits(numbers, queries->rows, 1, 1) || !matrix_fits(scores, queries->rows, 1, 1))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    int kind = check_indices(numbers, queries->rows, 1, 1, 0, codes->rows, fault);
    if (kind == LOWSHOT_OK)
        kind = check_biases(codes, fault);
    if (kind != LOWSHOT_OK)
        return kind;
    const struct code_kernels kernels = choose_code_kernels();
    const int64_t width = codes->width;
    struct stop stop = {0};
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < queries->rows; row++) {
        if (stop_wanted_by_row(&stop))
            continue;
        const int8_t *const query = queries->values + row * width;
        const int8_t *const vector = codes->values + numbers[row] * width;
        int32_t product;
        kernels.score_rows(query, sum_of_codes(query, width), &vector, 1, width, &product);
        scores[row] = product + codes->biases[numbers[row]];
    }
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return LOWSHOT_OK;
}

int lowshot_score_all(const struct lowshot_codes *codes, const struct lowshot_codes *queries,
                      int32_t *scores, struct lowshot_fault *fault) {
    enum { QUERIES = 256 };
    if (!codes_fit(codes) || !codes_fit(queries) || queries->width != codes->width ||
        !matrix_fits(scores, queries->rows, codes->rows, codes->rows))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int kind = check_biases(codes, fault);
    if (kind != LOWSHOT_OK)
        return kind;
    const struct code_kernels kernels = choose_code_kernels();
    const int64_t width = codes->width, chunk = chunk_rows(width);
    const int64_t groups = queries->rows / QUERIES + (queries->rows % QUERIES != 0);
    const int64_t chunks = codes->rows / chunk + (codes->rows % chunk != 0);
    bool no_memory = false;
    struct stop stop = {0};
#pragma omp parallel reduction(|| : no_memory)
    {
        uint8_t *const packed = aligned_alloc(CACHE_LINE_BYTES, (size_t)(chunk * width));
        const int8_t **const vectors = malloc((size_t)chunk * sizeof(int8_t *));
        int32_t *const tile_scores =
            aligned_alloc(CACHE_LINE_BYTES, QUERY_TILE * MAX_CHUNK * sizeof(int32_t));
        no_memory = packed == NULL || vectors == NULL || tile_scores == NULL;
#pragma omp for schedule(dynamic, 1)
        for (int64_t part = 0; part < groups * chunks; part++) {
            if (packed == NULL || vectors == NULL || tile_scores == NULL || stop_wanted(&stop))
                continue;
            const int64_t from = part % chunks * chunk, first = part / chunks * QUERIES;
            const int64_t size = codes->rows - from < chunk ? codes->rows - from : chunk;
            const int64_t last = queries->rows - first < QUERIES ? queries->rows : first + QUERIES;
            for (int64_t v = 0; v < size; v++)
                vectors[v] = codes->values + (from + v) * width;
            kernels.pack(vectors, size, width, packed);
            for (int64_t row = first; row < last; row += QUERY_TILE) {
                const int8_t *tile[QUERY_TILE];
                int32_t tile_sums[QUERY_TILE];
                const int64_t few = last - row < QUERY_TILE ? last - row : QUERY_TILE;
                for (int64_t i = 0; i < QUERY_TILE; i++) {
                    tile[i] = queries->values + (row + (i < few ? i : 0)) * width;
                    tile_sums[i] = sum_of_codes(tile[i], width);
                }
                kernels.score_packed(tile, tile_sums, packed, size, width, tile_scores);
                for (int64_t i = 0; i < few; i++)
                    for (int64_t v = 0; v < size; v++)
                        scores[(row + i) * codes->rows + from + v] =
                            tile_scores[i * MAX_CHUNK + v] + codes->biases[from + v];
            }
        }
        free(packed);
        free(vectors);
        free(tile_scores);
    }
    if (no_memory)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return LOWSHOT_OK;
}

int lowshot_search_lists(const struct lowshot_codes *codes, const struct lowshot_lists *lists,
                         const struct lowshot_codes *queries, const int32_t *probes,
                         int64_t n_probes, const int32_t *limits, const int32_t *floors,
                         int64_t prefix_share, int64_t full_probes, int64_t width, int32_t *numbers,
                         int32_t *scores, struct lowshot_fault *fault) {
    if (!codes_fit(codes) || !codes_fit(queries) || queries->width != codes->width ||
        lists == NULL || lists->count < 0 || lists->count >= INT32_MAX || lists->entries < 0 ||
        (lists->members == NULL && lists->entries != codes->rows) || n_probes < 0 ||
        n_probes > INT32_MAX / MIN_GROUP || prefix_share < 0 || prefix_share > LOWSHOT_WHOLE ||
        (prefix_share > 0 && codes->width <= CODE_WIDTH_UNIT) || full_probes < 0 ||
        full_probes > n_probes || (prefix_share == 0 && full_probes < n_probes) || width < 1 ||
        width > LOWSHOT_MAX_NEIGHBORS || !matrix_fits(probes, queries->rows, n_probes, n_probes) ||
        !matrix_fits(numbers, queries->rows, width, width) ||
        !matrix_fits(scores, queries->rows, width, width))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    int kind = check_offsets(lists->offsets, lists->count, lists->entries, fault);
    if (kind == LOWSHOT_OK && lists->members != NULL) {
        kind = check_indices(lists->members, lists->entries, 1, 1, 0, codes->rows, fault);
        if (kind != LOWSHOT_OK && fault != NULL)
            fault->list = 1;
    }
    if (kind == LOWSHOT_OK)
        kind = check_indices(probes, queries->rows, n_probes, n_probes, -1, lists->count, fault);
    if (kind == LOWSHOT_OK)
        kind = check_biases(codes, fault);
    if (kind != LOWSHOT_OK)
        return kind;
    const struct search search = {codes,
                                  lists,
                                  queries,
                                  probes,
                                  n_probes,
                                  full_probes,
                                  limits,
                                  floors,
                                  prefix_share,
                                  width,
                                  group_rows(queries->rows, n_probes, width),
                                  candidate_capacity(width),
                                  choose_code_kernels()};
    const struct groups groups = divide_queries(queries->rows, search.group);
    bool no_memory = false;
    struct stop stop = {0};
#pragma omp parallel reduction(|| : no_memory)
    {
        struct group_room room;
        const bool has_room = make_room(&search, &room);
        no_memory = !has_room;
#pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups.count; group++) {
            const int64_t first = group_begin(groups, group);
            if (has_room)
                search_group(&search, first, group_begin(groups, group + 1) - first, &room, numbers,
                             scores, &stop);
        }
        free_room(&room);
    }
    if (no_memory)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return LOWSHOT_OK;
}
