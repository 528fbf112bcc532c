#include "kernels.h"

#include <float.h>
#include <stdlib.h>

#ifdef X86_VECTORS
#include <immintrin.h>
#endif

/* Nearest centroids, exactly: 8-bit codes tell which centroids a row may be nearest to.
 *
 * Rows and centroids are moved so that the middle of the centroids is 0, and scaled by a power of
 * two. Of a row x and a centroid c so moved, the distance is the smaller the larger
 *
 *     <x, c> - |c|^2 / 2
 *
 * is. Codes are multiples x^ and c^ of steps, so that <x^, c^> is an integer times both steps, and
 *
 *     <x, c> - <x^, c^> = <x - x^, c^> + <x, c - c^> <= |x - x^| |c^| + |x| |c - c^|.
 *
 * A centroid that is not as near by this bound as one whose distance is known is left out. The
 * others, a few of a thousand, are compared in single precision, and where that leaves a doubt in
 * double precision, always in the same order of additions. */

enum {
    GROUP_ROWS = 256, /* rows of a thread: a chunk of centroids in the cache serves them all */
    FLOAT_SUMS = 64,  /* of a distance in single precision */
    DOUBLE_SUMS = 16, /* of a distance in double precision: these are what its bits follow from */
    COLUMN_UNIT = 16, /* columns of sums of rows, of one thread */
    LITTLE_WORK = 1 << 19 /* numbers to look at; codes count as a 16th */
};

/* To wake other threads takes longer than to do a little work alone. */
static int64_t threads_for(int64_t rows, int64_t columns) {
    return rows > LITTLE_WORK / columns ? lowshot_get_num_threads() : 1;
}

/* Relative to a sum of so many products, in single precision with FLOAT_SUMS sums: many times what
 * rounding does, and little beside what codes leave open. */
static float rounding_of(int64_t dimension) {
    return (float)(dimension / FLOAT_SUMS + 32) * FLT_EPSILON;
}

ALWAYS_INLINE float add_up_floats(float *sums) {
    for (int64_t width = FLOAT_SUMS / 2; width > 0; width /= 2)
        for (int64_t s = 0; s < width; s++)
            sums[s] += sums[s + width];
    return sums[0];
}

ALWAYS_INLINE float float_distance_portable(const float *restrict row,
                                            const float *restrict centroid, int64_t dimension) {
    float sums[FLOAT_SUMS] = {0};
    int64_t j = 0;
    for (; j + FLOAT_SUMS <= dimension; j += FLOAT_SUMS)
        for (int64_t s = 0; s < FLOAT_SUMS; s++) {
            const float difference = row[j + s] - centroid[j + s];
            sums[s] += difference * difference;
        }
    for (int64_t s = 0; j + s < dimension; s++) {
        const float difference = row[j + s] - centroid[j + s];
        sums[s] += difference * difference;
    }
    return add_up_floats(sums);
}

FOR_EVERY_WIDTH(float, float_distance,
                (const float *restrict row, const float *restrict centroid, int64_t dimension), row,
                centroid, dimension)

ALWAYS_INLINE double double_distance_portable(const float *restrict row,
                                              const float *restrict centroid, int64_t dimension) {
    double sums[DOUBLE_SUMS] = {0};
    int64_t j = 0;
    for (; j + DOUBLE_SUMS <= dimension; j += DOUBLE_SUMS)
        for (int64_t s = 0; s < DOUBLE_SUMS; s++) {
            const double difference = (double)row[j + s] - (double)centroid[j + s];
            sums[s] += difference * difference;
        }
    for (int64_t s = 0; j + s < dimension; s++) {
        const double difference = (double)row[j + s] - (double)centroid[j + s];
        sums[s] += difference * difference;
    }
    double total = 0;
    for (int64_t s = 0; s < DOUBLE_SUMS; s++)
        total += sums[s];
    return total;
}

FOR_EVERY_WIDTH(double, double_distance,
                (const float *restrict row, const float *restrict centroid, int64_t dimension), row,
                centroid, dimension)

/* What codes are of a vector. */
struct coded {
    float step;
    float square;   /* of its length */
    float residual; /* length of what the codes leave over */
    int32_t sum;    /* of the codes */
};

/* room: dimension floats. */
ALWAYS_INLINE struct coded encode_vector_portable(const float *restrict vector,
                                                  const float *restrict middle, float scale,
                                                  int64_t dimension, float *restrict room,
                                                  int8_t *restrict codes) {
    float sums[FLOAT_SUMS] = {0}, largest[FLOAT_SUMS] = {0};
    int64_t j = 0;
    for (; j + FLOAT_SUMS <= dimension; j += FLOAT_SUMS)
        for (int64_t s = 0; s < FLOAT_SUMS; s++) {
            const float value = (vector[j + s] - middle[j + s]) * scale;
            const float size = value < 0 ? -value : value;
            room[j + s] = value;
            sums[s] += value * value;
            largest[s] = largest[s] > size ? largest[s] : size;
        }
    for (int64_t s = 0; j + s < dimension; s++) {
        const float value = (vector[j + s] - middle[j + s]) * scale;
        const float size = value < 0 ? -value : value;
        room[j + s] = value;
        sums[s] += value * value;
        largest[s] = largest[s] > size ? largest[s] : size;
    }
    for (int64_t width = FLOAT_SUMS / 2; width > 0; width /= 2)
        for (int64_t s = 0; s < width; s++)
            largest[s] = largest[s] > largest[s + width] ? largest[s] : largest[s + width];
    struct coded coded = {.square = add_up_floats(sums)};
    /* What is as small as this may count as 0. */
    const bool is_zero = !(largest[0] > 1e-30f);
    coded.step = is_zero ? 1.0f : largest[0] / 127.0f;
    const float steps = is_zero ? 0.0f : 127.0f / largest[0];
    /* Added to this number, a small one leaves its nearest integer in the last bits. */
    const float rounding = 12582912.0f;
    for (int64_t s = 0; s < FLOAT_SUMS; s++)
        sums[s] = 0;
    for (j = 0; j + FLOAT_SUMS <= dimension; j += FLOAT_SUMS)
        for (int64_t s = 0; s < FLOAT_SUMS; s++) {
            const float shifted = room[j + s] * steps + rounding;
            const float left = room[j + s] - (shifted - rounding) * coded.step;
            room[j + s] = shifted;
            sums[s] += left * left;
        }
    for (int64_t s = 0; j + s < dimension; s++) {
        const float shifted = room[j + s] * steps + rounding;
        const float left = room[j + s] - (shifted - rounding) * coded.step;
        room[j + s] = shifted;
        sums[s] += left * left;
    }
    coded.residual = sqrtf(add_up_floats(sums));
    for (j = 0; j < dimension; j++) {
        uint32_t bits;
        memcpy(&bits, &room[j], sizeof(bits));
        codes[j] = (int8_t)(uint8_t)bits;
    }
    for (j = 0; j < dimension; j++)
        coded.sum += codes[j];
    return coded;
}

FOR_EVERY_WIDTH(struct coded, encode_vector,
                (const float *restrict vector, const float *restrict middle, float scale,
                 int64_t dimension, float *restrict room, int8_t *restrict codes),
                vector, middle, scale, dimension, room, codes)

ALWAYS_INLINE bool any_not_finite_portable(const float *values, int64_t count) {
    uint32_t found = 0;
    for (int64_t j = 0; j < count; j++) {
        uint32_t bits;
        memcpy(&bits, &values[j], sizeof(bits));
        found |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return found != 0;
}

FOR_EVERY_WIDTH(bool, any_not_finite, (const float *values, int64_t count), values, count)

static bool centroids_fit(const struct lowshot_centroids *centroids) {
    return centroids != NULL && centroids->count > 0 && centroids->dimension > 0 &&
           centroids->count <= INT32_MAX && centroids->width >= centroids->dimension &&
           centroids->width % CODE_WIDTH_UNIT == 0 && centroids->width <= LOWSHOT_MAX_CODE_WIDTH &&
           centroids->scale > 0 && centroids->scale <= FLT_MAX &&
           matrix_fits(centroids->values, centroids->count, centroids->dimension,
                       centroids->dimension) &&
           matrix_fits(centroids->packed, padded(centroids->count), centroids->width,
                       centroids->width) &&
           (uintptr_t)centroids->packed % CACHE_LINE_BYTES == 0 && centroids->middle != NULL &&
           centroids->steps != NULL && centroids->halves != NULL && centroids->lengths != NULL &&
           centroids->ratio != NULL;
}

/* The mean of the centroids, a block of columns after the other. */
static void find_middle(const struct lowshot_centroids *centroids) {
    enum { COLUMNS = 256 };
    const int64_t dimension = centroids->dimension;
#pragma omp parallel for schedule(static) if (centroids->count > LITTLE_WORK / dimension)
    for (int64_t first = 0; first < dimension; first += COLUMNS) {
        const int64_t columns = dimension - first < COLUMNS ? dimension - first : COLUMNS;
        double sums[COLUMNS] = {0};
        for (int64_t c = 0; c < centroids->count; c++)
            for (int64_t j = 0; j < columns; j++)
                sums[j] += (double)centroids->values[c * dimension + first + j];
        for (int64_t j = 0; j < columns; j++)
            centroids->middle[first + j] = (float)(sums[j] / (double)centroids->count);
    }
}

int lowshot_prepare_centroids(const struct lowshot_centroids *centroids,
                              struct lowshot_fault *fault) {
    if (!centroids_fit(centroids))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int64_t count = centroids->count, dimension = centroids->dimension;
    const int64_t width = centroids->width, chunk = chunk_rows(width);
    const int64_t chunks = count / chunk + (count % chunk != 0);
    const float rounding = rounding_of(dimension);
    const struct code_kernels kernels = choose_code_kernels();
    find_middle(centroids);
    int64_t first_bad = INT64_MAX;
    bool no_memory = false;
    float ratio = 0;
    struct stop stop = {0};
#pragma omp parallel reduction(min : first_bad) reduction(|| : no_memory)                          \
    reduction(max : ratio) if (chunks > 1)
    {
        int8_t *const codes = calloc((size_t)(chunk * width), 1);
        const int8_t **const vectors = malloc((size_t)chunk * sizeof(int8_t *));
        float *const room = malloc((size_t)dimension * sizeof(float));
        no_memory = codes == NULL || vectors == NULL || room == NULL;
#pragma omp for schedule(dynamic, 1)
        for (int64_t part = 0; part < chunks; part++) {
            if (codes == NULL || vectors == NULL || room == NULL || stop_wanted(&stop))
                continue;
            const int64_t first = part * chunk;
            const int64_t size = count - first < chunk ? count - first : chunk;
            for (int64_t v = 0; v < size; v++) {
                const int64_t c = first + v;
                const float *const values = centroids->values + c * dimension;
                vectors[v] = codes + v * width;
                if (any_not_finite(values, dimension)) {
                    first_bad = c < first_bad ? c : first_bad;
                    continue;
                }
                const struct coded coded =
                    encode_vector(values, centroids->middle, centroids->scale, dimension, room,
                                  codes + v * width);
                int64_t square = 0;
                for (int64_t j = 0; j < dimension; j++)
                    square += codes[v * width + j] * codes[v * width + j];
                const float length = (float)(sqrt((double)square) * (double)coded.step);
                centroids->steps[c] = coded.step;
                centroids->halves[c] = coded.square / 2 * (1 - 4 * rounding);
                centroids->lengths[c] = length;
                if (length > 0 && coded.residual / length > ratio)
                    ratio = coded.residual / length;
            }
            for (int64_t c = first + size; c < padded(first + size); c++) {
                centroids->steps[c] = 0;
                centroids->halves[c] = INFINITY;
                centroids->lengths[c] = 0;
            }
            kernels.pack(vectors, size, width, centroids->packed + first * width);
        }
        free(codes);
        free(vectors);
        free(room);
    }
    if (no_memory)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    if (first_bad != INT64_MAX)
        return report_fault(fault, LOWSHOT_NOT_FINITE, 0, first_bad, 0);
    *centroids->ratio = ratio * (1 + 4 * rounding) + 8 * rounding;
    return LOWSHOT_OK;
}

/* What is known of a row. A centroid whose bound is below `least` is farther than the nearest so
 * far. Bounds are relative to the step of the row: score * step - half * inverse + length * reach.
 */
struct assigned {
    double distance; /* of the nearest so far: squared, not scaled */
    int32_t number;  /* of that; -1: none yet */
    float inverse;
    float reach;
    float least;
    float square;
    int32_t sum; /* of the codes */
};

/* Of centroids of a chunk, each of 32 more if need be, that cannot be nearest. */
struct bounds {
    const float *steps;
    const float *halves;
    const float *lengths;
};

ALWAYS_INLINE float bound_of(int32_t score, struct bounds bounds, int64_t c,
                             const struct assigned *row) {
    return (float)score * bounds.steps[c] - bounds.halves[c] * row->inverse +
           bounds.lengths[c] * row->reach;
}

/* The places of those of count centroids whose bound reaches the least one, in order. places has
 * room for count, rounded up to PACK_ROWS. */
ALWAYS_INLINE int64_t screen_portable(const int32_t *restrict scores, struct bounds bounds,
                                      int64_t count, const struct assigned *row,
                                      int32_t *restrict places) {
    const struct assigned copy = *row;
    int64_t found = 0;
    for (int64_t first = 0; first < count; first += PACK_ROWS) {
        float values[PACK_ROWS];
        uint32_t any = 0;
        for (int64_t v = 0; v < PACK_ROWS; v++) {
            values[v] = bound_of(scores[first + v], bounds, first + v, &copy);
            any |= values[v] >= copy.least;
        }
        if (any)
            for (int64_t v = 0; v < PACK_ROWS; v++) {
                places[found] = (int32_t)(first + v);
                found += values[v] >= copy.least;
            }
    }
    return found;
}

#ifdef X86_VECTORS
TARGET_AVX512 static int64_t screen_avx512(const int32_t *restrict scores, struct bounds bounds,
                                           int64_t count, const struct assigned *row,
                                           int32_t *restrict places) {
    enum { NUMBERS = 16 };
    const __m512 inverse = _mm512_set1_ps(row->inverse), reach = _mm512_set1_ps(row->reach);
    const __m512 least = _mm512_set1_ps(row->least);
    const __m512i step = _mm512_set1_epi32(NUMBERS);
    __m512i numbers = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    int64_t found = 0;
    for (int64_t c = 0; c < count; c += NUMBERS) {
        const __m512 score = _mm512_cvtepi32_ps(_mm512_loadu_si512(scores + c));
        __m512 bound = _mm512_mul_ps(score, _mm512_loadu_ps(bounds.steps + c));
        bound = _mm512_fnmadd_ps(_mm512_loadu_ps(bounds.halves + c), inverse, bound);
        bound = _mm512_fmadd_ps(_mm512_loadu_ps(bounds.lengths + c), reach, bound);
        const __mmask16 hits = _mm512_cmp_ps_mask(bound, least, _CMP_GE_OQ);
        if (hits) {
            _mm512_storeu_si512(places + found, _mm512_maskz_compress_epi32(hits, numbers));
            found += __builtin_popcount(hits);
        }
        numbers = _mm512_add_epi32(numbers, step);
    }
    return found;
}

TARGET_AVX2 static int64_t screen_avx2(const int32_t *restrict scores, struct bounds bounds,
                                       int64_t count, const struct assigned *row,
                                       int32_t *restrict places) {
    return screen_portable(scores, bounds, count, row, places);
}
#endif

static int64_t screen(const int32_t *scores, struct bounds bounds, int64_t count,
                      const struct assigned *row, int32_t *places) {
    switch (kernels_in_use()) {
#ifdef X86_VECTORS
    case LOWSHOT_AVX512:
    case LOWSHOT_AVX512_VNNI:
        return screen_avx512(scores, bounds, count, row, places);
    case LOWSHOT_AVX2:
    case LOWSHOT_AVX_VNNI:
        return screen_avx2(scores, bounds, count, row, places);
#endif
    default:
        return screen_portable(scores, bounds, count, row, places);
    }
}

/* The place of the centroid of a chunk that is probably nearest. */
ALWAYS_INLINE int64_t guess_portable(const int32_t *restrict scores, struct bounds bounds,
                                     int64_t count, const struct assigned *row) {
    const float inverse = row->inverse;
    float best[PACK_ROWS];
    int32_t places[PACK_ROWS];
    for (int32_t v = 0; v < PACK_ROWS; v++) {
        best[v] = -INFINITY;
        places[v] = v;
    }
    for (int64_t first = 0; first < count; first += PACK_ROWS)
        for (int64_t v = 0; v < PACK_ROWS; v++) {
            const int64_t c = first + v;
            const float value = (float)scores[c] * bounds.steps[c] - bounds.halves[c] * inverse;
            places[v] = value > best[v] ? (int32_t)c : places[v];
            best[v] = value > best[v] ? value : best[v];
        }
    int64_t lane = 0;
    for (int64_t v = 1; v < PACK_ROWS; v++)
        if (best[v] > best[lane])
            lane = v;
    return places[lane] < count ? places[lane] : 0;
}

FOR_EVERY_WIDTH(int64_t, guess,
                (const int32_t *restrict scores, struct bounds bounds, int64_t count,
                 const struct assigned *row),
                scores, bounds, count, row)

static void keep_nearest(const struct lowshot_centroids *centroids, float rounding,
                         struct assigned *row, int32_t number, double distance) {
    const double scale = (double)centroids->scale, scaled = distance * scale * scale;
    const double square = (double)row->square;
    /* What is smaller is lost in single precision. */
    const double tiny = 1e-24;
    const double least = (square - scaled) / 2 - (double)rounding * (square + scaled) - tiny;
    row->distance = distance;
    row->number = number;
    row->least = (float)(least * (double)row->inverse);
    if (!(row->least >= -FLT_MAX))
        row->least = -FLT_MAX;
}

static bool is_nearer(double distance, int32_t number, const struct assigned *row) {
    return distance < row->distance || (distance == row->distance && number < row->number);
}

/* Compares a row with the centroids of a chunk, first..first + count - 1. */
static void compare_chunk(const struct lowshot_centroids *centroids, const float *values,
                          const int32_t *scores, int64_t first, int64_t count, float rounding,
                          int32_t *places, struct assigned *row) {
    const int64_t dimension = centroids->dimension;
    const struct bounds bounds = {centroids->steps + first, centroids->halves + first,
                                  centroids->lengths + first};
    if (row->number < 0) {
        const int32_t number = (int32_t)(first + guess(scores, bounds, count, row));
        keep_nearest(centroids, rounding, row, number,
                     double_distance(values, centroids->values + number * dimension, dimension));
    }
    const int64_t found = screen(scores, bounds, count, row, places);
    for (int64_t i = 0; i < found; i++) {
        const int64_t place = places[i];
        const int32_t number = (int32_t)(first + place);
        if (number == row->number || bound_of(scores[place], bounds, place, row) < row->least)
            continue;
        const float *const centroid = centroids->values + number * dimension;
        const float about = float_distance(values, centroid, dimension);
        if ((double)about * (1 - (double)rounding) > row->distance && about <= FLT_MAX)
            continue;
        const double distance = double_distance(values, centroid, dimension);
        if (is_nearer(distance, number, row))
            keep_nearest(centroids, rounding, row, number, distance);
    }
}

struct group_room {
    int8_t *codes; /* GROUP_ROWS x width */
    float *values; /* dimension */
    int32_t *scores;
    int32_t *places;
    struct assigned *rows;
};

static void free_group_room(struct group_room *room) {
    free(room->codes);
    free(room->values);
    free(room->scores);
    free(room->places);
    free(room->rows);
}

static bool make_group_room(int64_t group_rows, int64_t dimension, int64_t width,
                            struct group_room *room) {
    const size_t scores = QUERY_TILE * MAX_CHUNK * sizeof(int32_t);
    /* Codes behind the last column stay 0. */
    room->codes = calloc((size_t)(group_rows * width), 1);
    room->values = malloc((size_t)dimension * sizeof(float));
    room->scores = aligned_alloc(CACHE_LINE_BYTES, scores);
    room->places = malloc((MAX_CHUNK + PACK_ROWS) * sizeof(int32_t));
    room->rows = malloc((size_t)group_rows * sizeof(struct assigned));
    if (room->scores != NULL)
        memset(room->scores, 0, scores);
    return room->codes != NULL && room->values != NULL && room->scores != NULL &&
           room->places != NULL && room->rows != NULL;
}

/* Returns false for a row that is not finite. */
static bool begin_row(const struct lowshot_centroids *centroids, const float *values, int32_t label,
                      float rounding, int8_t *codes, float *room, struct assigned *row) {
    const int64_t dimension = centroids->dimension;
    const struct coded coded =
        encode_vector(values, centroids->middle, centroids->scale, dimension, room, codes);
    if (!(coded.square <= FLT_MAX))
        return false;
    const float length = sqrtf(coded.square);
    row->square = coded.square;
    row->inverse = 1 / coded.step;
    row->reach = (coded.residual + length * *centroids->ratio) * (1 + rounding) * row->inverse;
    row->sum = coded.sum;
    row->number = -1;
    if (label >= 0)
        keep_nearest(centroids, rounding, row, label,
                     double_distance(values, centroids->values + label * dimension, dimension));
    return true;
}

/* Rows first..last - 1, at most as many as there is room for. Returns the first that is not finite,
 * or -1. */
static int64_t assign_group(const struct lowshot_centroids *centroids, const float *rows,
                            int64_t stride, int64_t first, int64_t last,
                            const struct code_kernels *kernels, struct group_room *room,
                            int32_t *labels, double *distances) {
    const int64_t width = centroids->width, chunk = chunk_rows(width);
    const float rounding = rounding_of(centroids->dimension);
    for (int64_t r = first; r < last; r++)
        if (!begin_row(centroids, rows + r * stride, labels[r], rounding,
                       room->codes + (r - first) * width, room->values, room->rows + (r - first)))
            return r;
    for (int64_t from = 0; from < centroids->count; from += chunk) {
        const int64_t size = centroids->count - from < chunk ? centroids->count - from : chunk;
        for (int64_t r = first; r < last; r += QUERY_TILE) {
            const int64_t few = last - r < QUERY_TILE ? last - r : QUERY_TILE;
            const int8_t *tile[QUERY_TILE];
            int32_t sums[QUERY_TILE];
            for (int64_t i = 0; i < QUERY_TILE; i++) {
                const int64_t place = r - first + (i < few ? i : 0);
                tile[i] = room->codes + place * width;
                sums[i] = room->rows[place].sum;
            }
            kernels->score_packed(tile, sums, centroids->packed + from * width, size, width,
                                  room->scores);
            for (int64_t i = 0; i < few; i++)
                compare_chunk(centroids, rows + (r + i) * stride, room->scores + i * MAX_CHUNK,
                              from, size, rounding, room->places, room->rows + (r + i - first));
        }
    }
    for (int64_t r = first; r < last; r++) {
        labels[r] = room->rows[r - first].number;
        distances[r] = room->rows[r - first].distance;
    }
    return -1;
}

int lowshot_assign_rows(const struct lowshot_centroids *centroids, const float *rows, int64_t count,
                        int64_t stride, int32_t *labels, double *distances,
                        struct lowshot_fault *fault) {
    if (!centroids_fit(centroids) || !matrix_fits(rows, count, centroids->dimension, stride) ||
        !matrix_fits(labels, count, 1, 1) || !matrix_fits(distances, count, 1, 1))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int kind = check_indices(labels, count, 1, 1, -1, centroids->count, fault);
    if (kind != LOWSHOT_OK)
        return kind;
    const struct code_kernels kernels = choose_code_kernels();
    const int64_t work_of_row = (centroids->count / 16 + 8) * centroids->dimension;
    const int64_t threads = threads_for(count, work_of_row);
    /* Some groups for each thread, so that none waits long for the others. */
    const int64_t share = count / (4 * threads);
    int64_t group_rows = (share / QUERY_TILE + 1) * QUERY_TILE;
    group_rows = group_rows < GROUP_ROWS ? group_rows : GROUP_ROWS;
    const int64_t groups = count / group_rows + (count % group_rows != 0);
    int64_t first_bad = INT64_MAX;
    bool no_memory = false;
    struct stop stop = {0};
#pragma omp parallel reduction(min : first_bad) reduction(|| : no_memory) if (threads > 1)
    {
        struct group_room room;
        const bool has_room =
            make_group_room(group_rows, centroids->dimension, centroids->width, &room);
        no_memory = !has_room;
#pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; group++) {
            if (!has_room || stop_wanted(&stop))
                continue;
            const int64_t first = group * group_rows;
            const int64_t last = count - first < group_rows ? count : first + group_rows;
            const int64_t bad = assign_group(centroids, rows, stride, first, last, &kernels, &room,
                                             labels, distances);
            if (bad >= 0 && bad < first_bad)
                first_bad = bad;
        }
        free_group_room(&room);
    }
    if (no_memory)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    if (first_bad != INT64_MAX)
        return report_fault(fault, LOWSHOT_NOT_FINITE, 1, first_bad, 0);
    return LOWSHOT_OK;
}

/* Adding 1.5 * 2^52 leaves the nearest integer, ties to even, in the last bits of a double. Sums
 * are unsigned, so that they may wrap. */
ALWAYS_INLINE void add_row_portable(const float *restrict row, int64_t columns, double units,
                                    uint64_t *restrict sums) {
    const double rounding = 6755399441055744.0;
    uint64_t zero;
    memcpy(&zero, &rounding, sizeof(zero));
    for (int64_t j = 0; j < columns; j++) {
        const double shifted = (double)row[j] * units + rounding;
        uint64_t bits;
        memcpy(&bits, &shifted, sizeof(bits));
        sums[j] += bits - zero;
    }
}

FOR_EVERY_WIDTH(void, add_row,
                (const float *restrict row, int64_t columns, double units, uint64_t *restrict sums),
                row, columns, units, sums)

int lowshot_add_to_clusters(const struct lowshot_matrix *rows, const int32_t *labels, double units,
                            int64_t *sums, int64_t clusters, struct lowshot_fault *fault) {
    if (!floats_fit(rows) || !matrix_fits(labels, rows->rows, 1, 1) ||
        !matrix_fits(sums, clusters, rows->columns, rows->columns))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int kind = check_indices(labels, rows->rows, 1, 1, 0, clusters, fault);
    if (kind != LOWSHOT_OK)
        return kind;
    const int64_t columns = rows->columns;
    if (columns == 0)
        return LOWSHOT_OK;
    struct stop stop = {0};
    /* Each thread has columns of its own of all clusters. */
    const int64_t threads = threads_for(rows->rows, columns);
    const int64_t units_of_columns = (columns + COLUMN_UNIT - 1) / COLUMN_UNIT;
    const int64_t at_once = (units_of_columns + threads - 1) / threads * COLUMN_UNIT;
#pragma omp parallel for schedule(static, 1) if (threads > 1)
    for (int64_t first = 0; first < columns; first += at_once) {
        const int64_t few = columns - first < at_once ? columns - first : at_once;
        for (int64_t r = 0; r < rows->rows && !stop_wanted_by_row(&stop); r++)
            add_row(rows->values + r * rows->stride + first, few, units,
                    (uint64_t *)sums + labels[r] * columns + first);
    }
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return LOWSHOT_OK;
}
