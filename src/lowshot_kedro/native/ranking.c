#include "search.h"

#include <math.h>
#include <stdlib.h>

/* With a number that the compiler knows, so that sums stay in registers. */
ALWAYS_INLINE void add_upper_half(float *sums, int64_t half) {
    for (int64_t s = 0; s < half; s++)
        sums[s] += sums[s + half];
}

/* Sums are kept in the same 32 places whatever the vector width of the processor, and float keeps
 * up to the last digits with double for the few vectors whose squares leave its range. */
ALWAYS_INLINE float inner_product_portable(const float *first, const float *second,
                                           int64_t dimension) {
    enum { SUMS = 32 };
    float sums[SUMS] = {0};
    int64_t j = 0;
    for (; j + SUMS <= dimension; j += SUMS)
        for (int64_t s = 0; s < SUMS; s++)
            sums[s] += first[j + s] * second[j + s];
    for (int64_t s = 0; j + s < dimension; s++)
        sums[s] += first[j + s] * second[j + s];
    add_upper_half(sums, 16);
    add_upper_half(sums, 8);
    add_upper_half(sums, 4);
    add_upper_half(sums, 2);
    add_upper_half(sums, 1);
    return sums[0];
}

FOR_EVERY_WIDTH(float, inner_product, (const float *first, const float *second, int64_t dimension),
                first, second, dimension)

static float inner_product_double(const float *first, const float *second, int64_t dimension,
                                  double scale) {
    double sum = 0;
    for (int64_t j = 0; j < dimension; j++)
        sum += (double)first[j] * (double)second[j];
    return (float)(sum * scale);
}

ALWAYS_INLINE float squared_distance_portable(const float *first, const float *second,
                                              int64_t dimension) {
    enum { SUMS = 32 };
    float sums[SUMS] = {0};
    int64_t j = 0;
    for (; j + SUMS <= dimension; j += SUMS)
        for (int64_t s = 0; s < SUMS; s++) {
            const float difference = first[j + s] - second[j + s];
            sums[s] += difference * difference;
        }
    for (int64_t s = 0; j + s < dimension; s++) {
        const float difference = first[j + s] - second[j + s];
        sums[s] += difference * difference;
    }
    add_upper_half(sums, 16);
    add_upper_half(sums, 8);
    add_upper_half(sums, 4);
    add_upper_half(sums, 2);
    add_upper_half(sums, 1);
    return sums[0];
}

FOR_EVERY_WIDTH(float, squared_distance,
                (const float *first, const float *second, int64_t dimension), first, second,
                dimension)

static float squared_distance_double(const float *first, const float *second, int64_t dimension) {
    double sum = 0;
    for (int64_t j = 0; j < dimension; j++) {
        const double difference = (double)first[j] - (double)second[j];
        sum += difference * difference;
    }
    return (float)sum;
}

/* What vectors are ranked by: inner products of vectors scaled to length 1 by inverse_lengths, or
 * of length 1 already where these are NULL; or distances. */
struct measure {
    int metric;
    const float *inverse_lengths;
    int64_t dimension;
};

static float similarity_of(const struct measure *measure, const float *query, const float *vector,
                           int64_t position) {
    const int64_t dimension = measure->dimension;
    if (measure->metric == LOWSHOT_EUCLIDEAN) {
        /* Of differences this small some squares are too small for a float. */
        const float least_usual = 1e-24f;
        const float distance = squared_distance(query, vector, dimension);
        if (distance > least_usual && isfinite(distance))
            return -distance;
        return -squared_distance_double(query, vector, dimension);
    }
    if (measure->inverse_lengths == NULL)
        return inner_product(query, vector, dimension);
    const float inverse_length = measure->inverse_lengths[position];
    const float least_usual = 1e-12f, most_usual = 1e12f;
    if (inverse_length > least_usual && inverse_length < most_usual)
        return inner_product(query, vector, dimension) * inverse_length;
    return inner_product_double(query, vector, dimension, inverse_length);
}

/* Of two floats the larger has the larger key. */
static inline int32_t float_to_key(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits < 0 ? bits ^ INT32_MAX : bits;
}

static inline float key_to_float(int32_t key) {
    const int32_t bits = key < 0 ? key ^ INT32_MAX : key;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* Queries that stand together have many candidates in common. They are taken in groups, and each
 * vector that a group needs is read once, in the order in which vectors lie in memory or in a file,
 * and compared with all queries of the group that want it: these stay in the cache. */
enum {
    GROUP_BYTES = 1 << 18,
    MAX_GROUP_PAIRS = 1 << 17,
    MAX_GROUP_ROWS = 1024,
    MIN_GROUP_ROWS = 32
};

/* A query and a candidate: the position of the candidate above, then row and column in the group's
 * candidates. */
typedef uint64_t pair;

static inline pair make_pair(int32_t position, int64_t row, int64_t column) {
    return (uint64_t)(uint32_t)position << 32 | (uint64_t)row << 16 | (uint64_t)column;
}

static inline int64_t pair_position(pair word) { return (int64_t)(word >> 32); }
static inline int64_t pair_row(pair word) { return (int64_t)(word >> 16 & 0xffff); }
static inline int64_t pair_column(pair word) { return (int64_t)(word & 0xffff); }

struct rank_room {
    pair *pairs;
    pair *spare;
    const char **vectors; /* of each position among the pairs */
    float *vector;
    candidate *words;
    candidate *of_row;
};

static void free_rank_room(struct rank_room *room) {
    free(room->pairs);
    free(room->spare);
    free(room->vectors);
    free(room->vector);
    free(room->words);
    free(room->of_row);
}

static bool make_rank_room(int64_t rows, int64_t n_candidates, int64_t width, int64_t dimension,
                           struct rank_room *room) {
    const size_t count = (size_t)(rows * n_candidates) + 1;
    *room = (struct rank_room){malloc(count * sizeof(pair)),
                               malloc(count * sizeof(pair)),
                               malloc(count * sizeof(char *)),
                               malloc(((size_t)dimension + 1) * sizeof(float)),
                               malloc(count * sizeof(candidate)),
                               malloc(((size_t)(n_candidates + width) + 1) * sizeof(candidate))};
    return room->pairs != NULL && room->spare != NULL && room->vectors != NULL &&
           room->vector != NULL && room->words != NULL && room->of_row != NULL;
}

/* By position, digit by digit from the last. */
static void sort_pairs(struct rank_room *room, int64_t count) {
    enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS };
    uint64_t least = UINT64_MAX, most = 0;
    for (int64_t i = 0; i < count; i++) {
        least = room->pairs[i] < least ? room->pairs[i] : least;
        most = room->pairs[i] > most ? room->pairs[i] : most;
    }
    least &= UINT64_C(0xffffffff00000000);
    for (int shift = 32; shift < 64 && (most - least) >> shift != 0; shift += DIGIT_BITS) {
        uint32_t ends[DIGITS] = {0};
        for (int64_t i = 0; i < count; i++)
            ends[(room->pairs[i] - least) >> shift & (DIGITS - 1)]++;
        uint32_t end = 0;
        for (int64_t digit = 0; digit < DIGITS; digit++) {
            const uint32_t begin = end;
            end += ends[digit];
            ends[digit] = begin;
        }
        for (int64_t i = 0; i < count; i++)
            room->spare[ends[(room->pairs[i] - least) >> shift & (DIGITS - 1)]++] = room->pairs[i];
        pair *const sorted = room->spare;
        room->spare = room->pairs;
        room->pairs = sorted;
    }
}

/* Where the vectors of sorted pairs lie: one address for each different position. Returns how many
 * these are. */
static int64_t find_vectors(const struct lowshot_vectors *vectors, int64_t count,
                            struct rank_room *room) {
    int64_t part = 0, found = 0, last = -1;
    for (int64_t i = 0; i < count; i++) {
        const int64_t position = pair_position(room->pairs[i]);
        if (position == last)
            continue;
        last = position;
        while (position >= vectors->offsets[part + 1])
            part++;
        const int64_t row = position - vectors->offsets[part];
        room->vectors[found++] =
            (const char *)vectors->parts[part] + row * vectors->stride * (int64_t)sizeof(float);
    }
    return found;
}

struct rank {
    const struct lowshot_vectors *vectors;
    const int32_t *numbers;
    struct measure measure;
    const struct lowshot_matrix *queries;
    const int32_t *candidates;
    int64_t n_candidates;
    int64_t width;
    bool continued;
    int32_t *indices;
    float *similarities;
};

/* Compares queries begin..end - 1 with their candidates. Returns the place of the first candidate
 * that is no vector or whose similarity is no number; INT64_MAX if there is none. */
static int64_t compare_group(const struct rank *rank, int64_t begin, int64_t end,
                             struct rank_room *room) {
    enum { AHEAD = 6 };
    const int64_t n_candidates = rank->n_candidates, dimension = rank->measure.dimension;
    const int32_t *const candidates = rank->candidates + begin * n_candidates;
    int64_t count = 0, first_bad = INT64_MAX;
    for (int64_t row = 0; row < end - begin; row++)
        for (int64_t column = 0; column < n_candidates; column++) {
            const int64_t place = row * n_candidates + column;
            room->words[place] = 0;
            if (is_node(candidates[place], rank->vectors->rows))
                room->pairs[count++] = make_pair(candidates[place], row, column);
            else if (candidates[place] != -1 && place < first_bad)
                first_bad = place;
        }
    sort_pairs(room, count);
    const int64_t n_vectors = find_vectors(rank->vectors, count, room);
    for (int64_t i = 0, found = 0; i < count; found++) {
        for (int64_t next = found == 0 ? 1 : found + AHEAD;
             next <= found + AHEAD && next < n_vectors; next++)
            for (int64_t j = 0; j < dimension; j += CACHE_LINE_BYTES / 4)
                PREFETCH(room->vectors[next] + j * (int64_t)sizeof(float));
        const int64_t position = pair_position(room->pairs[i]);
        const int32_t number = rank->numbers != NULL ? rank->numbers[position] : (int32_t)position;
        /* Vectors in a file need not be aligned. */
        memcpy(room->vector, room->vectors[found], (size_t)dimension * sizeof(float));
        for (; i < count && pair_position(room->pairs[i]) == position; i++) {
            const int64_t row = pair_row(room->pairs[i]);
            const int64_t place = row * n_candidates + pair_column(room->pairs[i]);
            const float similarity = similarity_of(
                &rank->measure, rank->queries->values + (begin + row) * rank->queries->stride,
                room->vector, position);
            if (!isfinite(similarity))
                first_bad = place < first_bad ? place : first_bad;
            else
                /* Minus zero is zero, or equal similarities would be ranked by their signs. */
                room->words[place] = make_candidate(float_to_key(similarity + 0.0f), number, 0);
        }
    }
    return first_bad == INT64_MAX ? INT64_MAX : begin * n_candidates + first_bad;
}

/* Keeps the best of the candidates that have been compared, whose word is not 0, and of those that
 * the row has already. */
static void keep_best(const struct rank *rank, int64_t row, const candidate *words,
                      candidate *best) {
    int32_t *const indices = rank->indices + row * rank->width;
    float *const similarities = rank->similarities + row * rank->width;
    int64_t found = 0;
    for (int64_t column = 0; column < rank->n_candidates; column++)
        if (words[column] != 0)
            best[found++] = words[column];
    for (int64_t c = 0; rank->continued && c < rank->width; c++)
        if (indices[c] >= 0)
            best[found++] = make_candidate(float_to_key(similarities[c]), indices[c], 0);
    if (found > rank->width) {
        select_best(best, found, rank->width);
        found = rank->width;
    }
    sort_best(best, found);
    for (int64_t c = 0; c < rank->width; c++) {
        indices[c] = c < found ? candidate_number(best[c]) : -1;
        similarities[c] = c < found ? key_to_float(candidate_score(best[c])) : -INFINITY;
    }
}

static int check_vectors(const struct lowshot_vectors *vectors, struct lowshot_fault *fault) {
    if (vectors == NULL || vectors->rows < 0 || vectors->rows > INT32_MAX || vectors->count < 0 ||
        !matrix_fits(vectors->parts, vectors->count, 1, 1) ||
        !matrix_fits(vectors->offsets, vectors->count + 1, 1, 1))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int kind = check_offsets(vectors->offsets, vectors->count, vectors->rows, fault);
    if (kind != LOWSHOT_OK)
        return kind;
    for (int64_t part = 0; part < vectors->count; part++)
        if (!matrix_fits(vectors->parts[part], vectors->offsets[part + 1] - vectors->offsets[part],
                         vectors->columns, vectors->stride))
            return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    return LOWSHOT_OK;
}

/* As many rows as their queries fit into the cache, and fewer where threads would have none. */
static int64_t choose_group_rows(int64_t rows, int64_t dimension, int64_t n_candidates) {
    const int64_t of_cache = GROUP_BYTES / ((dimension + 1) * (int64_t)sizeof(float));
    const int64_t of_pairs = MAX_GROUP_PAIRS / (n_candidates + 1);
    const int64_t shares = rows / (4 * (int64_t)lowshot_get_num_threads());
    int64_t most = shares > MIN_GROUP_ROWS ? shares : MIN_GROUP_ROWS;
    most = of_cache < most ? of_cache : most;
    most = of_pairs < most ? of_pairs : most;
    most = MAX_GROUP_ROWS < most ? MAX_GROUP_ROWS : most;
    return most < 1 ? 1 : most;
}

int lowshot_rank_candidates(const struct lowshot_vectors *vectors, const int32_t *numbers,
                            const float *inverse_lengths, int metric,
                            const struct lowshot_matrix *queries, const int32_t *candidates,
                            int64_t n_candidates, int64_t width, int continued, int32_t *indices,
                            float *similarities, struct lowshot_fault *fault) {
    const int kind = check_vectors(vectors, fault);
    if (kind != LOWSHOT_OK)
        return kind;
    if (!floats_fit(queries) || queries->columns != vectors->columns ||
        (metric != LOWSHOT_COSINE && metric != LOWSHOT_EUCLIDEAN) ||
        n_candidates > LOWSHOT_MAX_NEIGHBORS || width < 1 || width > LOWSHOT_MAX_NEIGHBORS ||
        (inverse_lengths != NULL && !matrix_fits(inverse_lengths, vectors->rows, 1, 1)) ||
        (numbers != NULL && !matrix_fits(numbers, vectors->rows, 1, 1)) ||
        !matrix_fits(candidates, queries->rows, n_candidates, n_candidates) ||
        !matrix_fits(indices, queries->rows, width, width) ||
        !matrix_fits(similarities, queries->rows, width, width))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const struct rank rank = {.vectors = vectors,
                              .numbers = numbers,
                              .measure = {metric, inverse_lengths, vectors->columns},
                              .queries = queries,
                              .candidates = candidates,
                              .n_candidates = n_candidates,
                              .width = width,
                              .continued = continued != 0,
                              .indices = indices,
                              .similarities = similarities};
    bool no_memory = false;
    struct stop stop = {0};
    int64_t first_bad = INT64_MAX;
    const int64_t size = choose_group_rows(queries->rows, vectors->columns, n_candidates);
    const int64_t groups = queries->rows / size + (queries->rows % size != 0);
#pragma omp parallel reduction(|| : no_memory) reduction(min : first_bad)
    {
        struct rank_room room;
        const bool has_room = make_rank_room(size, n_candidates, width, vectors->columns, &room);
        no_memory = !has_room;
#pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; group++) {
            if (!has_room || stop_wanted(&stop))
                continue;
            const int64_t begin = group * size;
            const int64_t end = begin + size < queries->rows ? begin + size : queries->rows;
            const int64_t bad = compare_group(&rank, begin, end, &room);
            first_bad = bad < first_bad ? bad : first_bad;
            for (int64_t row = begin; row < end; row++)
                keep_best(&rank, row, room.words + (row - begin) * n_candidates, room.of_row);
        }
        free_rank_room(&room);
    }
    if (no_memory)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    if (first_bad != INT64_MAX)
        return report_fault(fault,
                            is_node(candidates[first_bad], vectors->rows) ? LOWSHOT_NOT_FINITE
                                                                          : LOWSHOT_BAD_INDEX,
                            0, first_bad / n_candidates, first_bad % n_candidates);
    return LOWSHOT_OK;
}
