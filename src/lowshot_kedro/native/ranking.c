#include "search.h"

#include <math.h>
#include <stdlib.h>

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
    for (int64_t half = SUMS / 2; half > 0; half /= 2)
        for (int64_t s = 0; s < half; s++)
            sums[s] += sums[s + half];
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
    for (int64_t half = SUMS / 2; half > 0; half /= 2)
        for (int64_t s = 0; s < half; s++)
            sums[s] += sums[s + half];
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

static float similarity_of(const float *query, const float *vector, int64_t dimension,
                           const float *inverse_length) {
    if (inverse_length == NULL) {
        /* Of differences this small some squares are too small for a float. */
        const float least_usual = 1e-24f;
        const float distance = squared_distance(query, vector, dimension);
        if (distance > least_usual && isfinite(distance))
            return -distance;
        return -squared_distance_double(query, vector, dimension);
    }
    const float least_usual = 1e-12f, most_usual = 1e12f;
    if (*inverse_length > least_usual && *inverse_length < most_usual)
        return inner_product(query, vector, dimension) * *inverse_length;
    return inner_product_double(query, vector, dimension, *inverse_length);
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

/* Queries that stand together have many candidates in common, which lie all over the vectors. Each
 * is copied once for all of them. */
enum { MAX_COPIED = 1 << 24, MAX_TOGETHER = 512 };

struct copies {
    float *vectors;
    int32_t *numbers;
    uint64_t *places; /* number + 1 in the upper half, slot in the lower; 0: free */
    uint32_t mask;
    int64_t count;
};

static uint32_t place_of(const struct copies *copies, int32_t number) {
    uint32_t place = ((uint32_t)number * UINT32_C(2654435769)) >> 7 & copies->mask;
    while (copies->places[place] != 0 && copies->places[place] >> 32 != (uint64_t)number + 1)
        place = (place + 1) & copies->mask;
    return place;
}

static inline int64_t slot_of(const struct copies *copies, int32_t number) {
    return (int64_t)(uint32_t)copies->places[place_of(copies, number)];
}

static bool make_copies(int64_t most, int64_t dimension, struct copies *copies) {
    size_t places = 64;
    while (places < 2 * (size_t)most)
        places *= 2;
    *copies = (struct copies){malloc(((size_t)(most * dimension) + 1) * sizeof(float)),
                              malloc(((size_t)most + 1) * sizeof(int32_t)),
                              malloc(places * sizeof(uint64_t)), (uint32_t)places - 1, 0};
    return copies->vectors != NULL && copies->numbers != NULL && copies->places != NULL;
}

static void free_copies(struct copies *copies) {
    free(copies->vectors);
    free(copies->numbers);
    free(copies->places);
}

/* Candidates that are no vectors are left out. */
static void copy_vectors(const struct lowshot_matrix *vectors, const int32_t *candidates,
                         int64_t count, struct copies *copies) {
    enum { AHEAD = 6 };
    memset(copies->places, 0, ((size_t)copies->mask + 1) * sizeof(uint64_t));
    copies->count = 0;
    for (int64_t c = 0; c < count; c++) {
        if (!is_node(candidates[c], vectors->rows))
            continue;
        const uint32_t place = place_of(copies, candidates[c]);
        if (copies->places[place] != 0)
            continue;
        copies->places[place] = ((uint64_t)candidates[c] + 1) << 32 | (uint64_t)copies->count;
        copies->numbers[copies->count++] = candidates[c];
    }
    const int64_t dimension = vectors->columns;
    for (int64_t slot = 0; slot < copies->count; slot++) {
        if (slot + AHEAD < copies->count)
            for (int64_t j = 0; j < dimension; j += CACHE_LINE_BYTES / 4)
                PREFETCH(vectors->values + copies->numbers[slot + AHEAD] * vectors->stride + j);
        memcpy(copies->vectors + slot * dimension,
               vectors->values + copies->numbers[slot] * vectors->stride,
               (size_t)dimension * sizeof(float));
    }
}

/* Returns the place of the first candidate that is no vector or whose similarity is no number;
 * n_candidates if there is none. */
static int64_t rank_row(const struct lowshot_matrix *vectors, const float *inverse_lengths,
                        const float *query, const int32_t *candidates, int64_t n_candidates,
                        int64_t width, const struct copies *copies, candidate *room,
                        int32_t *indices, float *similarities) {
    const int64_t dimension = vectors->columns;
    int64_t found = 0;
    for (int64_t c = 0; c < n_candidates; c++) {
        const int32_t number = candidates[c];
        if (number == -1)
            continue;
        if (!is_node(number, vectors->rows))
            return c;
        const float *const vector = copies->vectors + slot_of(copies, number) * dimension;
        const float similarity = similarity_of(
            query, vector, dimension, inverse_lengths != NULL ? inverse_lengths + number : NULL);
        if (!isfinite(similarity))
            return c;
        /* Minus zero is zero, or equal similarities would be ranked by their signs. */
        room[found++] = make_candidate(float_to_key(similarity + 0.0f), number, 0);
    }
    if (found > width) {
        select_best(room, found, width);
        found = width;
    }
    sort_best(room, found);
    for (int64_t c = 0; c < width; c++) {
        indices[c] = c < found ? candidate_number(room[c]) : -1;
        similarities[c] = c < found ? key_to_float(candidate_score(room[c])) : -INFINITY;
    }
    return n_candidates;
}

int lowshot_rank_candidates(const struct lowshot_matrix *vectors, const float *inverse_lengths,
                            const struct lowshot_matrix *queries, const int32_t *candidates,
                            int64_t n_candidates, int64_t width, int32_t *indices,
                            float *similarities, struct lowshot_fault *fault) {
    if (!floats_fit(vectors) || !floats_fit(queries) || queries->columns != vectors->columns ||
        n_candidates > LOWSHOT_MAX_NEIGHBORS || width < 1 || width > LOWSHOT_MAX_NEIGHBORS ||
        (inverse_lengths != NULL && !matrix_fits(inverse_lengths, vectors->rows, 1, 1)) ||
        !matrix_fits(candidates, queries->rows, n_candidates, n_candidates) ||
        !matrix_fits(indices, queries->rows, width, width) ||
        !matrix_fits(similarities, queries->rows, width, width))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    bool no_memory = false;
    struct stop stop = {0};
    int64_t first_bad = INT64_MAX;
    /* Rows of queries that share candidates with each other: few of wide vectors, so that copies
     * of all candidates stay small. */
    const int64_t bytes = (n_candidates > 0 ? n_candidates : 1) * (vectors->columns + 1) * 4;
    const int64_t most = MAX_COPIED / bytes;
    const int64_t size = most < 1 ? 1 : most > MAX_TOGETHER ? MAX_TOGETHER : most;
    const int64_t groups = queries->rows / size + (queries->rows % size != 0);
#pragma omp parallel reduction(|| : no_memory) reduction(min : first_bad)
    {
        struct copies copies;
        candidate *const room = malloc(((size_t)n_candidates + 1) * sizeof(candidate));
        const bool has_room = make_copies(size * n_candidates, vectors->columns, &copies);
        if (room == NULL || !has_room)
            no_memory = true;
#pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; group++) {
            if (room == NULL || !has_room || stop_wanted(&stop))
                continue;
            const int64_t begin = group * size;
            const int64_t end = begin + size < queries->rows ? begin + size : queries->rows;
            copy_vectors(vectors, candidates + begin * n_candidates, (end - begin) * n_candidates,
                         &copies);
            for (int64_t row = begin; row < end; row++) {
                const int64_t bad =
                    rank_row(vectors, inverse_lengths, queries->values + row * queries->stride,
                             candidates + row * n_candidates, n_candidates, width, &copies, room,
                             indices + row * width, similarities + row * width);
                const int64_t place = row * n_candidates + bad;
                if (bad < n_candidates && place < first_bad)
                    first_bad = place;
            }
        }
        free(room);
        free_copies(&copies);
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
