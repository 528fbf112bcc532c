#include "search.h"

#include <stdlib.h>

/* Vectors stand in lists around centroids. What is far from a centroid is far from its list, and
 * neither is compared with the other. Two searches follow from that: queries look through the lists
 * in reach, and the members of lists, as queries, look through the points in reach of their list.
 *
 * Of what is packed, only the first columns are scored for all queries, and the others where those
 * leave room for a score that counts: see lists.c. Whether they do follows from the floor alone, so
 * results depend neither on the order of the work nor on the number of threads. */

enum {
    /* Halves of squares are rounded, of queries and in biases. */
    ROUNDING = 3,
    FEW_QUERIES = 4,
    GROUP = 4096,
    MIN_GROUP = 64,
    GROUPS_PER_THREAD = 2,
    GROUP_WORDS = 1 << 21,
    LIST_TILE = QUERY_TILE,
    MORE_COLUMNS = 2 * CODE_WIDTH_UNIT,
    SPARE = 256,
    /* Scores are sorted by counting, into so many classes of equal width at most. What is looked
     * through ends with a class: a few more than there have to be. */
    CLASSES = 2048,
    CLASS_STRIP = 4096
};

/* A query, and what it has found so far. */
struct seeker {
    const int8_t *codes;
    candidate *candidates;
    int64_t count;
    int32_t threshold;        /* below it nothing can be among the best any more */
    int32_t prefix_threshold; /* below it, the first columns alone are too far */
    int32_t more_threshold;   /* and twice as many columns */
    int32_t packed_sum;       /* of those of its columns that are packed of vectors */
    int32_t more_sum;         /* of as many columns behind them */
    int32_t rest_sum;         /* and of all others */
};

struct reach {
    const struct lowshot_codes *codes;   /* what is found */
    const struct lowshot_codes *queries; /* what is searched for */
    const int64_t *offsets;
    const struct lowshot_codes *centroids;
    const int32_t *bounds;
    const int32_t *floors;
    int64_t prefix_share;
    int64_t more_share;
    const int32_t *first_biases; /* of the columns that are packed; NULL: not known before */
    const int32_t *more_biases;  /* of the first MORE_COLUMNS of codes */
    int64_t width;
    int64_t packed_width;
    int64_t group;
    int64_t capacity;
    int64_t chunk;
    int64_t wide_chunk; /* vectors packed at a time where all columns are */
    struct code_kernels kernels;
};

struct room {
    uint8_t *packed;
    const int8_t **vectors;
    const int8_t **rows;
    int32_t *sums;
    int32_t *scores;
    int32_t *biases;
    int32_t *prefix_biases;
    int32_t *more_biases;
    int32_t *numbers;
    candidate *candidates;
    struct seeker *seekers;
    uint8_t *packed_queries; /* of a group, all their columns */
    int32_t *least;          /* minus the bounds of the group */
    int32_t *near;           /* LIST_TILE rows: of each list, what is in reach */
    int32_t *list_scores;    /* LIST_TILE rows: of each list, the scores of all points */
    int32_t *order;          /* of the points in reach of a list */
    int32_t *limits;
    uint64_t *items;
    int32_t places[CLASS_STRIP];
    int32_t zeros[CLASS_STRIP];
    int32_t ends[CLASSES];
};

static void free_room(struct room *room) {
    if (room == NULL)
        return;
    free(room->packed);
    free(room->vectors);
    free(room->rows);
    free(room->sums);
    free(room->scores);
    free(room->biases);
    free(room->prefix_biases);
    free(room->more_biases);
    free(room->numbers);
    free(room->candidates);
    free(room->seekers);
    free(room->packed_queries);
    free(room->least);
    free(room->near);
    free(room->list_scores);
    free(room->order);
    free(room->limits);
    free(room->items);
    free(room);
}

static size_t padded(int64_t rows) { return (size_t)((rows / PACK_ROWS + 1) * PACK_ROWS); }

/* n_points: of each list, how many scores are kept; 0: those of the group, for a moment. */
static struct room *make_room(const struct reach *reach, int64_t n_points) {
    struct room *const room = calloc(1, sizeof(struct room));
    if (room == NULL)
        return NULL;
    const size_t group = padded(reach->group), points = padded(n_points);
    const size_t width = (size_t)reach->codes->width;
    const bool by_list = n_points > 0;
    room->packed = aligned_alloc(CACHE_LINE_BYTES, (size_t)(reach->chunk * reach->packed_width));
    room->vectors = malloc((size_t)reach->chunk * sizeof(int8_t *));
    room->scores = aligned_alloc(CACHE_LINE_BYTES, QUERY_TILE * MAX_CHUNK * sizeof(int32_t));
    room->biases = malloc((size_t)reach->chunk * sizeof(int32_t));
    room->prefix_biases = malloc((size_t)reach->chunk * sizeof(int32_t));
    room->more_biases = malloc((size_t)reach->chunk * sizeof(int32_t));
    room->rows = malloc(MAX_CHUNK * sizeof(int8_t *));
    room->sums = malloc(MAX_CHUNK * sizeof(int32_t));
    room->numbers = malloc((size_t)reach->chunk * sizeof(int32_t));
    room->candidates = malloc(group * (size_t)reach->capacity * sizeof(candidate));
    room->seekers = malloc(group * sizeof(struct seeker));
    bool complete = room->packed != NULL && room->vectors != NULL && room->scores != NULL &&
                    room->biases != NULL && room->prefix_biases != NULL &&
                    room->more_biases != NULL && room->rows != NULL && room->sums != NULL &&
                    room->numbers != NULL && room->candidates != NULL && room->seekers != NULL;
    if (by_list) {
        room->list_scores = malloc(LIST_TILE * points * sizeof(int32_t));
        room->order = malloc(points * sizeof(int32_t));
        room->limits = malloc(group * sizeof(int32_t));
        room->items = malloc(group * sizeof(uint64_t));
        complete = complete && room->list_scores != NULL && room->order != NULL &&
                   room->limits != NULL && room->items != NULL;
    } else {
        room->packed_queries = aligned_alloc(CACHE_LINE_BYTES, group * width);
        room->least = malloc(group * sizeof(int32_t));
        room->near = malloc(LIST_TILE * group * sizeof(int32_t));
        complete =
            complete && room->packed_queries != NULL && room->least != NULL && room->near != NULL;
    }
    if (complete)
        return room;
    free_room(room);
    return NULL;
}

static void keep_best(struct seeker *seeker, int64_t kept) {
    select_best(seeker->candidates, seeker->count, kept);
    seeker->count = kept;
    candidate worst = seeker->candidates[0];
    for (int64_t c = 1; c < kept; c++)
        worst = seeker->candidates[c] < worst ? seeker->candidates[c] : worst;
    if (candidate_score(worst) > seeker->threshold)
        seeker->threshold = candidate_score(worst);
}

/* The sum of some columns, and of their squares if there is room for it. */
static int32_t sum_columns(const struct code_kernels *kernels, const int8_t *codes, int64_t count,
                           int32_t *square) {
    static const int8_t ones[CODE_WIDTH_UNIT] = {
#define EIGHT 1, 1, 1, 1, 1, 1, 1, 1
        EIGHT, EIGHT, EIGHT, EIGHT, EIGHT,
        EIGHT, EIGHT, EIGHT
#undef EIGHT
    };
    int32_t sum = 0;
    for (int64_t j = 0; j < count; j += CODE_WIDTH_UNIT) {
        const int8_t *const columns = codes + j;
        int32_t part;
        kernels->score_rows(ones, CODE_WIDTH_UNIT, &columns, 1, CODE_WIDTH_UNIT, &part);
        sum += part;
    }
    if (square != NULL)
        kernels->score_rows(codes, sum, &codes, 1, count, square);
    return sum;
}

/* A group of queries: the first, and every step-th behind it. */
struct group {
    int64_t first;
    int64_t step;
    int64_t count;
};

static void begin_group(const struct reach *reach, struct group group, struct room *room) {
    const int64_t width = reach->queries->width;
    for (int64_t q = 0; q < group.count; q++) {
        struct seeker *const seeker = &room->seekers[q];
        const int64_t row = group.first + q * group.step;
        const int8_t *const query = reach->queries->values + row * width;
        const int32_t floor = reach->floors[row], bias = reach->queries->biases[row];
        int32_t square, more_square;
        *seeker = (struct seeker){.codes = query,
                                  .candidates = room->candidates + q * reach->capacity,
                                  .threshold = floor};
        seeker->packed_sum = sum_columns(&reach->kernels, query, reach->packed_width, &square);
        int64_t before = reach->packed_width;
        if (reach->prefix_share > 0)
            seeker->prefix_threshold =
                prefix_threshold(reach->prefix_share, floor, bias, square, ROUNDING);
        if (reach->more_share > 0) {
            seeker->more_sum =
                sum_columns(&reach->kernels, query + before, MORE_COLUMNS - before, &more_square);
            seeker->more_threshold = prefix_threshold(reach->more_share, floor, bias,
                                                      (int64_t)square + more_square, ROUNDING);
            before = MORE_COLUMNS;
        }
        seeker->rest_sum = sum_columns(&reach->kernels, query + before, width - before, NULL);
    }
}

static void end_group(const struct reach *reach, struct group group, struct room *room,
                      int32_t *numbers, int32_t *scores) {
    const int64_t kept = reach->width;
    for (int64_t q = 0; q < group.count; q++) {
        struct seeker *const seeker = &room->seekers[q];
        const int64_t row = group.first + q * group.step;
        if (seeker->count > kept)
            keep_best(seeker, kept);
        sort_best(seeker->candidates, seeker->count);
        for (int64_t c = 0; c < kept; c++) {
            const bool there = c < seeker->count;
            const candidate best = there ? seeker->candidates[c] : 0;
            numbers[row * kept + c] = there ? candidate_number(best) : -1;
            scores[row * kept + c] = there ? candidate_score(best) : INT32_MIN;
        }
    }
}

/* Looks up size vectors: those with these numbers, or, of NULL, from first on. */
static void name_vectors(const struct reach *reach, const int32_t *numbers, int64_t first,
                         int64_t size, struct room *room) {
    const struct lowshot_codes *const codes = reach->codes;
    for (int64_t v = 0; v < size; v++) {
        const int32_t number = numbers != NULL ? numbers[v] : (int32_t)(first + v);
        room->numbers[v] = number;
        room->vectors[v] = codes->values + number * codes->width;
        room->biases[v] = codes->biases[number];
        if (reach->more_share > 0)
            room->more_biases[v] = reach->more_biases[number];
        if (reach->prefix_share > 0 && reach->first_biases != NULL)
            room->prefix_biases[v] = reach->first_biases[number];
    }
}

/* Packs their first columns. */
static void pack_vectors(const struct reach *reach, const int32_t *numbers, int64_t first,
                         int64_t size, struct room *room) {
    name_vectors(reach, numbers, first, size, room);
    reach->kernels.pack(room->vectors, size, reach->packed_width, room->packed);
    if (reach->prefix_share == 0 || reach->first_biases != NULL)
        return;
    reach->kernels.square_packed(room->packed, size, reach->packed_width, room->prefix_biases);
    for (int64_t v = 0; v < size; v++)
        room->prefix_biases[v] = -(room->prefix_biases[v] / 2);
}

/* Moves the vectors to the front that some more columns leave; returns how many these are. sums:
 * the scores of the columns before, which become those of these columns as well. */
static int64_t score_more(const struct reach *reach, const int8_t *query, int32_t query_sum,
                          int64_t from, int64_t to, const int32_t *biases, int32_t threshold,
                          int64_t hits, struct room *room) {
    int32_t sums[MAX_CHUNK];
    for (int64_t h = 0; h < hits; h++)
        room->rows[h] = room->vectors[room->places[h]] + from;
    reach->kernels.score_rows(query + from, query_sum, room->rows, hits, to - from, sums);
    int64_t left = 0;
    for (int64_t h = 0; h < hits; h++) {
        const int32_t place = room->places[h], score = room->sums[h] + sums[h];
        room->places[left] = place;
        room->sums[left] = score;
        left += score + biases[place] >= threshold;
    }
    return left;
}

/* Adds the first size of the packed vectors that score at least the threshold, if their first
 * columns do as well. scores: of these columns. */
static void collect(const struct reach *reach, struct room *room, const int32_t *scores,
                    int64_t size, struct seeker *seeker) {
    const bool by_prefix = reach->prefix_share > 0;
    int64_t hits =
        find_scores(scores, by_prefix ? room->prefix_biases : room->biases, size,
                    by_prefix ? seeker->prefix_threshold : seeker->threshold, room->places);
    for (int64_t h = 0; h < hits; h++)
        room->sums[h] = scores[room->places[h]];
    if (by_prefix) {
        const int64_t width = reach->codes->width;
        int64_t from = CODE_WIDTH_UNIT;
        if (reach->more_share > 0 && hits > 0) {
            hits = score_more(reach, seeker->codes, seeker->more_sum, from, MORE_COLUMNS,
                              room->more_biases, seeker->more_threshold, hits, room);
            from = MORE_COLUMNS;
        }
        if (hits > 0)
            hits = score_more(reach, seeker->codes, seeker->rest_sum, from, width, room->biases,
                              seeker->threshold, hits, room);
    }
    for (int64_t begin = 0; begin < hits; begin += SPARE) {
        for (int64_t h = begin; h < hits && h < begin + SPARE; h++) {
            const int32_t place = room->places[h];
            seeker->candidates[seeker->count++] =
                make_candidate(room->sums[h] + room->biases[place], room->numbers[place], 0);
        }
        if (seeker->count > reach->capacity - SPARE)
            keep_best(seeker, reach->width);
    }
}

/* Scores up to QUERY_TILE queries of the group against what is packed; sizes[i] says how many of
 * these vectors the i-th looks through, the first of them most. */
static void search_tile(const struct reach *reach, const int32_t *tile, const int64_t *sizes,
                        int64_t count, struct room *room) {
    const int8_t *queries[QUERY_TILE];
    int32_t sums[QUERY_TILE];
    for (int64_t i = 0; i < QUERY_TILE; i++) {
        const struct seeker *const seeker = &room->seekers[tile[i < count ? i : 0]];
        queries[i] = seeker->codes;
        sums[i] = seeker->packed_sum;
    }
    reach->kernels.score_packed(queries, sums, room->packed, sizes[0], reach->packed_width,
                                room->scores);
    for (int64_t i = 0; i < count; i++)
        collect(reach, room, room->scores + i * MAX_CHUNK, sizes[i], &room->seekers[tile[i]]);
}

/* Packs all columns of count vectors, so many steps from each other. */
static void pack_whole(const struct reach *reach, const int8_t *first, int64_t step, int64_t count,
                       uint8_t *packed) {
    const int64_t width = reach->codes->width;
    const int8_t *vectors[PACK_ROWS];
    for (int64_t begin = 0; begin < count; begin += PACK_ROWS) {
        const int64_t few = count - begin < PACK_ROWS ? count - begin : PACK_ROWS;
        for (int64_t v = 0; v < few; v++)
            vectors[v] = first + (begin + v) * step * width;
        reach->kernels.pack(vectors, few, width, packed + begin * width);
    }
}

/* The codes and sums of up to LIST_TILE centroids from a list on; returns how many there are. */
static int64_t tile_of_lists(const struct reach *reach, int64_t list, const int8_t **tile,
                             int32_t *sums) {
    const int64_t left = reach->centroids->rows - list, width = reach->codes->width;
    const int64_t few = left < LIST_TILE ? left : LIST_TILE;
    for (int64_t i = 0; i < LIST_TILE; i++) {
        tile[i] = reach->centroids->values + (list + (i < few ? i : 0)) * width;
        sums[i] = sum_of_codes(tile[i], width);
    }
    return few;
}

static void search_list(const struct reach *reach, int64_t list, const int32_t *near,
                        int64_t n_near, struct room *room) {
    const int64_t end = reach->offsets[list + 1];
    for (int64_t from = reach->offsets[list]; from < end && n_near > 0; from += reach->chunk) {
        const int64_t size = end - from < reach->chunk ? end - from : reach->chunk;
        const int64_t sizes[QUERY_TILE] = {size, size, size, size, size, size, size, size};
        pack_vectors(reach, NULL, from, size, room);
        for (int64_t i = 0; i < n_near; i += QUERY_TILE)
            search_tile(reach, near + i, sizes, n_near - i < QUERY_TILE ? n_near - i : QUERY_TILE,
                        room);
    }
}

/* A group of queries, of each list those in reach. */
static void search_group(const struct reach *reach, struct group group, struct room *room,
                         struct stop *stop) {
    const int64_t count = group.count;
    const int64_t width = reach->codes->width, n_lists = reach->centroids->rows;
    const int32_t most = largest_bias(width);
    const size_t row = padded(reach->group);
    for (int64_t q = 0; q < count; q++) {
        const int32_t bound = reach->bounds[group.first + q * group.step];
        room->least[q] = bound < -most ? most : bound > most ? -most : -bound;
    }
    pack_whole(reach, reach->queries->values + group.first * width, group.step, count,
               room->packed_queries);
    for (int64_t list = 0; list < n_lists; list += LIST_TILE) {
        const int8_t *tile[LIST_TILE];
        int32_t sums[LIST_TILE];
        int64_t n_near[LIST_TILE] = {0};
        if (stop_wanted(stop))
            return;
        const int64_t few = tile_of_lists(reach, list, tile, sums);
        for (int64_t from = 0; from < count; from += reach->wide_chunk) {
            const int64_t left = count - from;
            const int64_t size = left < reach->wide_chunk ? left : reach->wide_chunk;
            reach->kernels.score_packed(tile, sums, room->packed_queries + from * width, size,
                                        width, room->scores);
            for (int64_t i = 0; i < few; i++) {
                int32_t *const near = room->near + (size_t)i * row;
                const int64_t hits =
                    find_scores(room->scores + i * MAX_CHUNK, room->least + from, size,
                                -reach->centroids->biases[list + i], room->places);
                for (int64_t h = 0; h < hits; h++)
                    near[n_near[i]++] = (int32_t)from + room->places[h];
            }
        }
        for (int64_t i = 0; i < few; i++)
            search_list(reach, list + i, room->near + (size_t)i * row, n_near[i], room);
    }
}

static inline uint32_t class_of(int32_t best, int32_t score, int shift) {
    return ((uint32_t)best - (uint32_t)score) >> shift;
}

/* The points whose scores reach the least of the bounds, the best about first; limits: for each
 * bound, how many of them hold all that reach it. */
static void order_points(const int32_t *scores, int64_t n_points, const int32_t *bounds,
                         int64_t count, struct room *room) {
    int32_t best = INT32_MIN, least = INT32_MAX;
    for (int64_t p = 0; p < n_points; p++)
        best = scores[p] > best ? scores[p] : best;
    for (int64_t b = 0; b < count; b++) {
        least = bounds[b] < least ? bounds[b] : least;
        room->limits[b] = 0;
    }
    if (best < least)
        return;
    int shift = 0;
    while (class_of(best, least, shift) >= CLASSES)
        shift++;
    memset(room->ends, 0, sizeof(room->ends));
    for (int64_t first = 0; first < n_points; first += CLASS_STRIP) {
        const int64_t size = n_points - first < CLASS_STRIP ? n_points - first : CLASS_STRIP;
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
    for (int64_t first = 0; first < n_points; first += CLASS_STRIP) {
        const int64_t size = n_points - first < CLASS_STRIP ? n_points - first : CLASS_STRIP;
        const int64_t hits = find_scores(scores + first, room->zeros, size, least, room->places);
        for (int64_t h = 0; h < hits; h++) {
            const int64_t p = first + room->places[h];
            room->order[room->ends[class_of(best, scores[p], shift)]++] = (int32_t)p;
        }
    }
    for (int64_t b = 0; b < count; b++)
        if (bounds[b] <= best)
            room->limits[b] = room->ends[class_of(best, bounds[b], shift)];
}

/* A query of a group, and what it looks through, in one word: sorted as candidates are, queries
 * that look through more come first. */
static inline int64_t item_limit(uint64_t item) { return (int64_t)(item >> 32); }

static inline int32_t item_query(uint64_t item) { return (int32_t)(uint32_t)item; }

/* Members first..first + count - 1 of a list; scores: of the points for its centroid. */
static void search_members(const struct reach *reach, int64_t first, int64_t count,
                           const int32_t *scores, struct room *room) {
    order_points(scores, reach->codes->rows, reach->bounds + first, count, room);
    for (int64_t q = 0; q < count; q++)
        room->items[q] = (uint64_t)room->limits[q] << 32 | (uint64_t)q;
    sort_best(room->items, count);
    /* What few queries look through is not worth packing. */
    const int64_t most = count > FEW_QUERIES ? item_limit(room->items[FEW_QUERIES]) : 0;
    for (int64_t from = 0; from < most; from += reach->chunk) {
        const int64_t size = most - from < reach->chunk ? most - from : reach->chunk;
        pack_vectors(reach, room->order + from, 0, size, room);
        for (int64_t begin = 0; begin < count; begin += QUERY_TILE) {
            int32_t tile[QUERY_TILE];
            int64_t sizes[QUERY_TILE], few = 0;
            while (few < QUERY_TILE && begin + few < count) {
                const int64_t more = item_limit(room->items[begin + few]) - from;
                if (more <= 0)
                    break;
                sizes[few] = more < size ? more : size;
                tile[few] = item_query(room->items[begin + few]);
                few++;
            }
            if (few == 0)
                break;
            search_tile(reach, tile, sizes, few, room);
        }
    }
    for (int64_t i = 0; i < count && i < FEW_QUERIES; i++)
        for (int64_t from = most; from < item_limit(room->items[i]); from += reach->chunk) {
            const int64_t left = item_limit(room->items[i]) - from;
            const int64_t size = left < reach->chunk ? left : reach->chunk;
            struct seeker *const seeker = &room->seekers[item_query(room->items[i])];
            name_vectors(reach, room->order + from, 0, size, room);
            reach->kernels.score_rows(seeker->codes, seeker->packed_sum, room->vectors, size,
                                      reach->packed_width, room->scores);
            collect(reach, room, room->scores, size, seeker);
        }
}

static bool reach_fits(const struct reach *reach, const int32_t *numbers, const int32_t *scores) {
    const struct lowshot_codes *const codes = reach->codes, *const queries = reach->queries,
                                      *const centroids = reach->centroids;
    return codes_fit(codes) && codes_fit(queries) && codes_fit(centroids) &&
           queries->width == codes->width && centroids->width == codes->width &&
           reach->prefix_share >= 0 && reach->prefix_share <= LOWSHOT_WHOLE &&
           (reach->prefix_share == 0 || codes->width > CODE_WIDTH_UNIT) && reach->more_share >= 0 &&
           reach->more_share <= LOWSHOT_WHOLE &&
           (reach->more_share == 0 || (reach->prefix_share > 0 && codes->width > MORE_COLUMNS)) &&
           reach->width >= 1 && reach->width <= LOWSHOT_MAX_NEIGHBORS &&
           matrix_fits(reach->bounds, queries->rows, 1, 1) &&
           matrix_fits(reach->floors, queries->rows, 1, 1) &&
           matrix_fits(numbers, queries->rows, reach->width, reach->width) &&
           matrix_fits(scores, queries->rows, reach->width, reach->width);
}

static int check_reach(const struct reach *reach, int64_t entries, struct lowshot_fault *fault) {
    int kind = check_offsets(reach->offsets, reach->centroids->rows, entries, fault);
    const struct lowshot_codes *const all[] = {reach->codes, reach->queries, reach->centroids};
    /* Two of them are added. */
    const int32_t most = largest_bias(reach->codes->width) / 2;
    for (int i = 0; i < 3 && kind == LOWSHOT_OK; i++) {
        kind = check_indices(all[i]->biases, all[i]->rows, 1, 1, -most, (int64_t)most + 1, fault);
        if (kind != LOWSHOT_OK && fault != NULL)
            fault->list = 1 + i;
    }
    return kind;
}

static void set_sizes(struct reach *reach) {
    reach->packed_width = reach->prefix_share > 0 ? CODE_WIDTH_UNIT : reach->codes->width;
    reach->capacity = 2 * reach->width + SPARE;
    reach->chunk = chunk_rows(reach->packed_width);
    reach->wide_chunk = chunk_rows(reach->codes->width);
    reach->kernels = choose_code_kernels();
    const int64_t threads = lowshot_get_num_threads(), queries = reach->queries->rows;
    const int64_t fitting = GROUP_WORDS / reach->capacity;
    const int64_t largest = fitting < GROUP ? fitting : GROUP;
    const int64_t share = threads > 1 ? queries / (GROUPS_PER_THREAD * threads) + 1 : queries;
    reach->group = share > largest ? largest : share;
    if (reach->group < MIN_GROUP)
        reach->group = MIN_GROUP;
}

/* Minus half the squared lengths of so many first columns of some codes. */
static void set_biases(const struct lowshot_codes *codes, const struct code_kernels *kernels,
                       int64_t columns, int64_t first, int64_t last, int32_t *biases) {
    for (int64_t v = first; v < last; v++) {
        int32_t square;
        sum_columns(kernels, codes->values + v * codes->width, columns, &square);
        biases[v] = -(square / 2);
    }
}

static int outcome(bool no_memory, struct stop *stop, struct lowshot_fault *fault) {
    if (no_memory)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    if (stop->wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return LOWSHOT_OK;
}

int lowshot_search_lists_in_reach(const struct lowshot_codes *codes, const int64_t *offsets,
                                  const struct lowshot_codes *centroids,
                                  const struct lowshot_codes *queries, const int32_t *bounds,
                                  const int32_t *floors, int64_t prefix_share, int64_t more_share,
                                  int64_t width, int32_t *numbers, int32_t *scores,
                                  struct lowshot_fault *fault) {
    struct reach reach = {.codes = codes,
                          .queries = queries,
                          .offsets = offsets,
                          .centroids = centroids,
                          .bounds = bounds,
                          .floors = floors,
                          .prefix_share = prefix_share,
                          .more_share = more_share,
                          .width = width};
    if (!reach_fits(&reach, numbers, scores))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int kind = check_reach(&reach, codes->rows, fault);
    if (kind != LOWSHOT_OK)
        return kind;
    set_sizes(&reach);
    const int64_t size = reach.group;
    const int64_t groups = queries->rows / size + (queries->rows % size != 0);
    const struct blocks blocks = split_rows(codes->rows);
    int32_t *const more_biases = malloc(padded(codes->rows) * sizeof(int32_t));
    if (more_biases == NULL)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    reach.more_biases = more_biases;
    bool no_memory = false;
    struct stop stop = {0};
#pragma omp parallel reduction(|| : no_memory)
    {
        struct room *const room = make_room(&reach, 0);
        no_memory = room == NULL;
#pragma omp for schedule(static)
        for (int64_t block = 0; block < blocks.count; block++)
            if (more_share > 0 && !stop_wanted(&stop))
                set_biases(codes, &reach.kernels, MORE_COLUMNS, block_begin(blocks, block),
                           block_end(blocks, block), more_biases);
#pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; group++) {
            /* Neighbouring queries look through about equally many lists, some of them many. */
            const struct group rows = {group, groups,
                                       (queries->rows - group + groups - 1) / groups};
            if (room == NULL || stop_wanted(&stop))
                continue;
            begin_group(&reach, rows, room);
            search_group(&reach, rows, room, &stop);
            end_group(&reach, rows, room, numbers, scores);
        }
        free_room(room);
    }
    free(more_biases);
    return outcome(no_memory, &stop, fault);
}

/* The scores of all points for up to LIST_TILE centroids from a list on, with both biases. */
static int64_t score_points(const struct reach *reach, const uint8_t *packed_points, int64_t list,
                            struct room *room) {
    const int64_t width = reach->codes->width, n_points = reach->codes->rows;
    const int8_t *tile[LIST_TILE];
    int32_t sums[LIST_TILE];
    const int64_t few = tile_of_lists(reach, list, tile, sums);
    for (int64_t from = 0; from < n_points; from += reach->wide_chunk) {
        const int64_t left = n_points - from;
        const int64_t size = left < reach->wide_chunk ? left : reach->wide_chunk;
        reach->kernels.score_packed(tile, sums, packed_points + from * width, size, width,
                                    room->scores);
        for (int64_t i = 0; i < few; i++) {
            int32_t *const scores = room->list_scores + (size_t)i * padded(n_points) + from;
            const int32_t bias = reach->centroids->biases[list + i];
            for (int64_t p = 0; p < size; p++)
                scores[p] =
                    room->scores[i * MAX_CHUNK + p] + (reach->codes->biases[from + p] + bias);
        }
    }
    return few;
}

int lowshot_search_points_in_reach(const struct lowshot_codes *points,
                                   const struct lowshot_codes *centroids, const int64_t *offsets,
                                   const struct lowshot_codes *members, const int32_t *bounds,
                                   const int32_t *floors, int64_t prefix_share, int64_t more_share,
                                   int64_t width, int32_t *numbers, int32_t *scores,
                                   struct lowshot_fault *fault) {
    struct reach reach = {.codes = points,
                          .queries = members,
                          .offsets = offsets,
                          .centroids = centroids,
                          .bounds = bounds,
                          .floors = floors,
                          .prefix_share = prefix_share,
                          .more_share = more_share,
                          .width = width};
    if (!reach_fits(&reach, numbers, scores))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int kind = check_reach(&reach, members->rows, fault);
    if (kind != LOWSHOT_OK)
        return kind;
    set_sizes(&reach);
    const int64_t n_points = points->rows, n_lists = centroids->rows, code_width = points->width;
    const int64_t packs = n_points / PACK_ROWS + (n_points % PACK_ROWS != 0);
    const int64_t tiles = n_lists / LIST_TILE + (n_lists % LIST_TILE != 0);
    uint8_t *const packed = aligned_alloc(CACHE_LINE_BYTES, padded(n_points) * (size_t)code_width);
    int32_t *const first_biases = malloc(padded(n_points) * sizeof(int32_t));
    int32_t *const more_biases = malloc(padded(n_points) * sizeof(int32_t));
    if (packed == NULL || first_biases == NULL || more_biases == NULL) {
        free(packed);
        free(first_biases);
        free(more_biases);
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    }
    reach.first_biases = first_biases;
    reach.more_biases = more_biases;
    bool no_memory = false;
    struct stop stop = {0};
#pragma omp parallel reduction(|| : no_memory)
    {
        struct room *const room = make_room(&reach, n_points + 1);
        no_memory = room == NULL;
#pragma omp for schedule(static)
        for (int64_t pack = 0; pack < packs; pack++) {
            const int64_t first = pack * PACK_ROWS, left = n_points - first;
            const int64_t few = left < PACK_ROWS ? left : PACK_ROWS;
            pack_whole(&reach, points->values + first * code_width, 1, few,
                       packed + first * code_width);
            if (prefix_share > 0)
                set_biases(points, &reach.kernels, CODE_WIDTH_UNIT, first, first + few,
                           first_biases);
            if (more_share > 0)
                set_biases(points, &reach.kernels, MORE_COLUMNS, first, first + few, more_biases);
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t tile = 0; tile < tiles; tile++) {
            const int64_t list = tile * LIST_TILE;
            if (room == NULL || stop_wanted(&stop))
                continue;
            const int64_t few = score_points(&reach, packed, list, room);
            for (int64_t i = 0; i < few; i++) {
                const int64_t end = offsets[list + i + 1];
                for (int64_t first = offsets[list + i]; first < end; first += reach.group) {
                    const int64_t count = end - first < reach.group ? end - first : reach.group;
                    if (stop_wanted(&stop))
                        break;
                    const struct group rows = {first, 1, count};
                    begin_group(&reach, rows, room);
                    search_members(&reach, first, count,
                                   room->list_scores + (size_t)i * padded(n_points), room);
                    end_group(&reach, rows, room, numbers, scores);
                }
            }
        }
        free_room(room);
    }
    free(packed);
    free(first_biases);
    free(more_biases);
    return outcome(no_memory, &stop, fault);
}
