#include "native.h"

#include <math.h>
#include <stdlib.h>

#ifdef X86_VECTORS
#include <immintrin.h>
#endif
#ifdef ARM_VECTORS
#include <arm_neon.h>
#endif

/* A + A^T, a range of rows at a time, so that little is held besides input and output.
 *
 * Every thread reads through its share of the neighbour lists and catches the links into the range.
 * Then every thread sorts, by target, what all have caught for its share of the range; catches are
 * gone through in the order of their sources, so the shares do not show in the result. Last, it
 * compares each row's own links with the incoming ones: a link in both is mutual. */
struct catch {
    int64_t count;
    int64_t capacity;
    int32_t *targets;
    int32_t *sources;
    float *weights;
};

struct piece {
    int64_t first; /* rows first..last - 1 */
    int64_t last;
    int64_t incoming; /* links into the piece, sorted by target, then source */
    int64_t *starts;  /* of a row's incoming links */
    int32_t *sources;
    float *weights;
    int64_t edges; /* of the result */
    int32_t *indices;
    float *values;
    int32_t *keys; /* one row's own links, with room for padding; their places once sorted */
    int32_t *places;
    int32_t *own; /* the same, sorted */
    float *own_weights;
    int32_t *single; /* one row's links in one direction */
    float *single_weights;
};

/* Whole vectors are compared. */
static inline int64_t padded_width(int64_t width) { return (width + 15) / 16 * 16; }

static void free_catch(struct catch *caught) {
    free(caught->targets);
    free(caught->sources);
    free(caught->weights);
    *caught = (struct catch){0};
}

static void free_piece(struct piece *piece) {
    free(piece->starts);
    free(piece->sources);
    free(piece->weights);
    free(piece->indices);
    free(piece->values);
    free(piece->keys);
    free(piece->places);
    free(piece->own);
    free(piece->own_weights);
    free(piece->single);
    free(piece->single_weights);
}

/* False, and the old array stays, if there is no memory. */
static bool enlarge(void **array, int64_t count, size_t size) {
    void *const larger = realloc(*array, ((size_t)count + 1) * size);
    if (larger == NULL)
        return false;
    *array = larger;
    return true;
}

static bool make_room(struct catch *caught, int64_t more, bool weighted) {
    caught->capacity += caught->capacity / 8 + more + 4096;
    return enlarge((void **)&caught->targets, caught->capacity, sizeof(int32_t)) &&
           enlarge((void **)&caught->sources, caught->capacity, sizeof(int32_t)) &&
           (!weighted || enlarge((void **)&caught->weights, caught->capacity, sizeof(float)));
}

/* Links are caught from this many rows at a time, and a vector of them at a time. */
enum { CATCH_ROWS = 64, VECTOR_LINKS = 16 };

/* What to catch: the links of sources begin..end - 1 into rows first..first + range - 1. */
struct net {
    const struct lowshot_neighbors *neighbors;
    const float *weights;
    int64_t begin;
    int64_t end;
    uint32_t first;
    uint32_t range;
};

/* Expects room for all links and one vector more. */
static void catch_links(const struct net *net, struct catch *caught) {
    const int64_t width = net->neighbors->width;
    int64_t count = caught->count;
    for (int64_t source = net->begin; source < net->end; source++) {
        const int32_t *const row = net->neighbors->indices + source * net->neighbors->stride;
        for (int64_t column = 0; column < width; column++) {
            /* Written every time, and kept by moving on: hits are too irregular to predict. */
            caught->targets[count] = row[column];
            caught->sources[count] = (int32_t)source;
            if (net->weights != NULL)
                caught->weights[count] = net->weights[source * width + column];
            count += (uint32_t)row[column] - net->first < net->range;
        }
    }
    caught->count = count;
}

/* The compiler does not find the instructions that move the hits of a vector together. */
#if defined(X86_VECTORS) || defined(ARM_VECTORS)
/* For each mask of four links, their bytes in the order that puts the masked ones first. */
enum { FEW_LINKS = 4 };
#define LINK(i) 4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3
#define ORDER(a, b, c, d) {LINK(a), LINK(b), LINK(c), LINK(d)}
static const uint8_t links_first[1 << FEW_LINKS][16] = {
    ORDER(0, 1, 2, 3), ORDER(0, 1, 2, 3), ORDER(1, 0, 2, 3), ORDER(0, 1, 2, 3),
    ORDER(2, 0, 1, 3), ORDER(0, 2, 1, 3), ORDER(1, 2, 0, 3), ORDER(0, 1, 2, 3),
    ORDER(3, 0, 1, 2), ORDER(0, 3, 1, 2), ORDER(1, 3, 0, 2), ORDER(0, 1, 3, 2),
    ORDER(2, 3, 0, 1), ORDER(0, 2, 3, 1), ORDER(1, 2, 3, 0), ORDER(0, 1, 2, 3)};
#undef ORDER
#undef LINK

/* The links of a row behind its last whole vector. */
ALWAYS_INLINE int64_t catch_rest(const struct net *net, int64_t source, int64_t column,
                                 int64_t count, struct catch *caught) {
    const int32_t *const row = net->neighbors->indices + source * net->neighbors->stride;
    for (; column < net->neighbors->width; column++) {
        caught->targets[count] = row[column];
        caught->sources[count] = (int32_t)source;
        if (net->weights != NULL)
            caught->weights[count] = net->weights[source * net->neighbors->width + column];
        count += (uint32_t)row[column] - net->first < net->range;
    }
    return count;
}
#endif

#ifdef X86_VECTORS
TARGET_AVX2 static void catch_links_avx2(const struct net *net, struct catch *caught) {
    const int64_t width = net->neighbors->width;
    /* There is a comparison of signed numbers only. */
    const __m128i sign = _mm_set1_epi32(INT32_MIN);
    const __m128i first = _mm_set1_epi32((int32_t)net->first);
    const __m128i range = _mm_xor_si128(_mm_set1_epi32((int32_t)net->range), sign);
    int64_t count = caught->count;
    for (int64_t source = net->begin; source < net->end; source++) {
        const int32_t *const row = net->neighbors->indices + source * net->neighbors->stride;
        int64_t column = 0;
        for (; column + FEW_LINKS <= width; column += FEW_LINKS) {
            const __m128i links = _mm_loadu_si128((const __m128i *)(row + column));
            const __m128i places = _mm_xor_si128(_mm_sub_epi32(links, first), sign);
            const int hits = _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpgt_epi32(range, places)));
            const __m128i order = _mm_loadu_si128((const __m128i *)(const void *)links_first[hits]);
            _mm_storeu_si128((__m128i *)(caught->targets + count), _mm_shuffle_epi8(links, order));
            _mm_storeu_si128((__m128i *)(caught->sources + count), _mm_set1_epi32((int32_t)source));
            if (net->weights != NULL) {
                const float *const weights = net->weights + source * width + column;
                const __m128i bits = _mm_loadu_si128((const __m128i *)(const void *)weights);
                _mm_storeu_si128((__m128i *)(void *)(caught->weights + count),
                                 _mm_shuffle_epi8(bits, order));
            }
            count += __builtin_popcount((unsigned)hits);
        }
        count = catch_rest(net, source, column, count, caught);
    }
    caught->count = count;
}

TARGET_AVX512 static void catch_links_avx512(const struct net *net, struct catch *caught) {
    const int64_t width = net->neighbors->width;
    const __m512i first = _mm512_set1_epi32((int32_t)net->first);
    const __m512i range = _mm512_set1_epi32((int32_t)net->range);
    int64_t count = caught->count;
    for (int64_t source = net->begin; source < net->end; source++) {
        const int32_t *const row = net->neighbors->indices + source * net->neighbors->stride;
        for (int64_t column = 0; column < width; column += VECTOR_LINKS) {
            const int64_t left = width - column;
            const __mmask16 present = left < VECTOR_LINKS ? (__mmask16)((1u << left) - 1) : 0xffff;
            const __m512i links = _mm512_maskz_loadu_epi32(present, row + column);
            const __mmask16 hits =
                _mm512_mask_cmplt_epu32_mask(present, _mm512_sub_epi32(links, first), range);
            _mm512_storeu_si512(caught->targets + count, _mm512_maskz_compress_epi32(hits, links));
            _mm512_storeu_si512(caught->sources + count, _mm512_set1_epi32((int32_t)source));
            if (net->weights != NULL) {
                const float *const weights = net->weights + source * width + column;
                _mm512_storeu_ps(
                    caught->weights + count,
                    _mm512_maskz_compress_ps(hits, _mm512_maskz_loadu_ps(present, weights)));
            }
            count += __builtin_popcount(hits);
        }
    }
    caught->count = count;
}
#endif

#ifdef ARM_VECTORS
static void catch_links_neon(const struct net *net, struct catch *caught) {
    const int64_t width = net->neighbors->width;
    const uint32x4_t first = vdupq_n_u32(net->first), range = vdupq_n_u32(net->range);
    const uint32_t bits[FEW_LINKS] = {1, 2, 4, 8};
    const uint32x4_t bit_of_place = vld1q_u32(bits);
    int64_t count = caught->count;
    for (int64_t source = net->begin; source < net->end; source++) {
        const int32_t *const row = net->neighbors->indices + source * net->neighbors->stride;
        int64_t column = 0;
        for (; column + FEW_LINKS <= width; column += FEW_LINKS) {
            const uint32x4_t links = vreinterpretq_u32_s32(vld1q_s32(row + column));
            const uint32x4_t hits =
                vandq_u32(vcltq_u32(vsubq_u32(links, first), range), bit_of_place);
            const uint32_t mask = vaddvq_u32(hits);
            const uint8x16_t order = vld1q_u8(links_first[mask]);
            vst1q_u8((uint8_t *)(caught->targets + count),
                     vqtbl1q_u8(vreinterpretq_u8_u32(links), order));
            vst1q_s32(caught->sources + count, vdupq_n_s32((int32_t)source));
            if (net->weights != NULL) {
                const float *const weights = net->weights + source * width + column;
                vst1q_u8((uint8_t *)(caught->weights + count),
                         vqtbl1q_u8(vreinterpretq_u8_f32(vld1q_f32(weights)), order));
            }
            count += __builtin_popcount(mask);
        }
        count = catch_rest(net, source, column, count, caught);
    }
    caught->count = count;
}
#endif

typedef void (*catching)(const struct net *net, struct catch *caught);

static catching choose_catching(void) {
    switch (kernels_in_use()) {
#ifdef X86_VECTORS
    case LOWSHOT_AVX512:
    case LOWSHOT_AVX512_VNNI:
        return catch_links_avx512;
    case LOWSHOT_AVX2:
    case LOWSHOT_AVX_VNNI:
        return catch_links_avx2;
#endif
#ifdef ARM_VECTORS
    case LOWSHOT_NEON:
    case LOWSHOT_NEON_DOTPROD:
        return catch_links_neon;
#endif
    default:
        return catch_links;
    }
}

static bool catch_all_links(const struct lowshot_neighbors *neighbors, const float *weights,
                            int64_t first_source, int64_t last_source, int64_t first_target,
                            int64_t last_target, struct catch *caught, struct stop *stop) {
    const catching catch_some = choose_catching();
    const int64_t room = CATCH_ROWS * neighbors->width + VECTOR_LINKS;
    struct net net = {.neighbors = neighbors,
                      .weights = weights,
                      .first = (uint32_t)first_target,
                      .range = (uint32_t)(last_target - first_target)};
    for (net.begin = first_source; net.begin < last_source && !stop_wanted(stop);
         net.begin = net.end) {
        net.end = last_source - net.begin < CATCH_ROWS ? last_source : net.begin + CATCH_ROWS;
        if (caught->capacity - caught->count < room && !make_room(caught, room, weights != NULL))
            return false;
        catch_some(&net, caught);
    }
    return true;
}

/* Counting sort, which keeps the order of a row's sources. */
static bool sort_incoming(const struct catch *caught, int64_t catches, bool weighted,
                          struct piece *piece) {
    const int64_t rows = piece->last - piece->first;
    const uint32_t first = (uint32_t)piece->first;
    piece->starts = calloc((size_t)rows + 2, sizeof *piece->starts);
    if (piece->starts == NULL)
        return false;
    /* While filling, next[r] moves from the start of row r to its end, the start of row r + 1.
     * Links into other pieces are counted for a row behind the last, and all written to one place
     * behind the last: which they are is too irregular to predict. */
    int64_t *const next = piece->starts + 1;
    for (int64_t c = 0; c < catches; c++)
        for (int64_t i = 0; i < caught[c].count; i++) {
            const uint32_t row = (uint32_t)caught[c].targets[i] - first;
            next[row < (uint32_t)rows ? row : rows]++;
        }
    int64_t start = 0;
    for (int64_t row = 0; row < rows; row++) {
        const int64_t links = next[row];
        next[row] = start;
        start += links;
    }
    next[rows] = piece->incoming = start;
    if (!enlarge((void **)&piece->sources, piece->incoming, sizeof(int32_t)) ||
        (weighted && !enlarge((void **)&piece->weights, piece->incoming, sizeof(float))))
        return false;
    int32_t *const sources = piece->sources;
    float *const weights = piece->weights;
    for (int64_t c = 0; c < catches; c++)
        for (int64_t i = 0; i < caught[c].count; i++) {
            const uint32_t row = (uint32_t)caught[c].targets[i] - first;
            int64_t *const place = next + (row < (uint32_t)rows ? row : rows);
            sources[*place] = caught[c].sources[i];
            if (weighted)
                weights[*place] = caught[c].weights[i];
            *place += row < (uint32_t)rows;
        }
    return true;
}

/* A row's own links, sorted by neighbour; of a neighbour that is listed twice, the first entry.
 *
 * The place of a neighbour is the number of smaller ones: more comparisons than other ways to sort,
 * but without a branch, so that the compiler can vectorise. Equal neighbours want the same place;
 * the places that they leave empty are closed up. */
ALWAYS_INLINE int64_t sort_own_links_portable(const struct lowshot_neighbors *neighbors,
                                              const float *weights, int64_t row,
                                              const struct piece *piece) {
    const int64_t width = neighbors->width, padded = padded_width(width);
    const int32_t *const own = neighbors->indices + row * neighbors->stride;
    int32_t *const restrict keys = piece->keys;
    int32_t *const restrict places = piece->places;
    int32_t *const restrict sorted = piece->own;
    for (int64_t i = 0; i < padded; i++) {
        keys[i] = i < width && is_node(own[i], neighbors->rows) ? own[i] : INT32_MAX;
        places[i] = 0;
        sorted[i] = -1;
    }
    for (int64_t other = 0; other < width; other++) {
        const int32_t key = keys[other];
        for (int64_t i = 0; i < padded; i++)
            places[i] += key < keys[i];
    }
    for (int64_t column = width - 1; column >= 0; column--) {
        if (keys[column] == INT32_MAX)
            continue;
        sorted[places[column]] = keys[column];
        if (weights != NULL)
            piece->own_weights[places[column]] = weights[row * width + column];
    }
    int64_t count = 0;
    for (int64_t place = 0; place < width; place++) {
        sorted[count] = sorted[place];
        if (weights != NULL)
            piece->own_weights[count] = piece->own_weights[place];
        count += sorted[place] >= 0;
    }
    return count;
}

FOR_EVERY_WIDTH(int64_t, sort_own_links,
                (const struct lowshot_neighbors *neighbors, const float *weights, int64_t row,
                 const struct piece *piece),
                neighbors, weights, row, piece)

/* Merges a row's own links and the incoming ones, both sorted. The mutual ones are written to the
 * front; the others wait until it is known how many those are. Returns the number of both. */
static int64_t merge_links(struct piece *piece, int64_t row, int64_t own_count, bool reciprocal,
                           int32_t *mutual) {
    const int64_t start = piece->starts[row - piece->first];
    const int64_t incoming = piece->starts[row - piece->first + 1] - start;
    const int32_t *const own = piece->own, *const sources = piece->sources + start;
    const bool weighted = piece->weights != NULL;
    int32_t *const indices = piece->indices + piece->edges;
    float *const values = weighted ? piece->values + piece->edges : NULL;
    int64_t doubles = 0, singles = 0, i = 0, j = 0;
    while (i < own_count || j < incoming) {
        const int32_t mine = i < own_count ? own[i] : INT32_MAX;
        const int32_t theirs = j < incoming ? sources[j] : INT32_MAX;
        const int32_t neighbor = mine < theirs ? mine : theirs;
        const bool is_mutual = mine == theirs;
        indices[doubles] = neighbor;
        piece->single[singles] = neighbor;
        if (weighted) {
            const float value = (mine <= theirs ? piece->own_weights[i] : 0.0f) +
                                (theirs <= mine ? piece->weights[start + j] : 0.0f);
            values[doubles] = value;
            piece->single_weights[singles] = value;
        }
        /* Both were written; which of the two is kept is too irregular to predict. */
        doubles += is_mutual;
        singles += !is_mutual;
        i += mine == neighbor;
        while (j < incoming && sources[j] == neighbor)
            j++;
    }
    *mutual = (int32_t)doubles;
    if (reciprocal)
        return doubles;
    memcpy(indices + doubles, piece->single, (size_t)singles * sizeof *indices);
    if (weighted)
        memcpy(values + doubles, piece->single_weights, (size_t)singles * sizeof *values);
    return doubles + singles;
}

static bool allocate_result(struct piece *piece, int64_t width, bool weighted) {
    const int64_t room = (piece->last - piece->first) * width + piece->incoming;
    const int64_t row_room = width + piece->incoming;
    return enlarge((void **)&piece->keys, padded_width(width), sizeof(int32_t)) &&
           enlarge((void **)&piece->places, padded_width(width), sizeof(int32_t)) &&
           enlarge((void **)&piece->own, padded_width(width), sizeof(int32_t)) &&
           enlarge((void **)&piece->single, row_room, sizeof(int32_t)) &&
           enlarge((void **)&piece->indices, room, sizeof(int32_t)) &&
           (!weighted || (enlarge((void **)&piece->own_weights, width, sizeof(float)) &&
                          enlarge((void **)&piece->single_weights, row_room, sizeof(float)) &&
                          enlarge((void **)&piece->values, room, sizeof(float))));
}

static bool symmetrize_piece(const struct lowshot_neighbors *neighbors, const float *weights,
                             bool reciprocal, struct piece *piece, int64_t *lengths,
                             int32_t *mutual, struct stop *stop) {
    if (!allocate_result(piece, neighbors->width, weights != NULL))
        return false;
    for (int64_t row = piece->first; row < piece->last && !stop_wanted_by_row(stop); row++) {
        const int64_t own_count = sort_own_links(neighbors, weights, row, piece);
        lengths[row] = merge_links(piece, row, own_count, reciprocal, mutual + row);
        piece->edges += lengths[row];
    }
    return true;
}

enum { MAX_RANGES = 256 };

int lowshot_count_incoming(const struct lowshot_neighbors *neighbors, int64_t range_rows,
                           int64_t *incoming, struct lowshot_fault *fault) {
    if (neighbors == NULL || range_rows < 1 || incoming == NULL)
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int64_t rows = neighbors->rows;
    const int status = check_indices(neighbors->indices, rows, neighbors->width, neighbors->stride,
                                     -1, rows, fault);
    if (status != LOWSHOT_OK)
        return status;
    const int64_t ranges = rows / range_rows + (rows % range_rows != 0);
    if (ranges > MAX_RANGES)
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    int64_t counts[MAX_RANGES] = {0};
    struct stop stop = {0};
#pragma omp parallel for schedule(static) reduction(+ : counts)
    for (int64_t row = 0; row < rows; row++) {
        if (stop_wanted_by_row(&stop))
            continue;
        for (int64_t column = 0; column < neighbors->width; column++) {
            const int32_t neighbor = neighbors->indices[row * neighbors->stride + column];
            if (is_node(neighbor, rows))
                counts[neighbor / range_rows]++;
        }
    }
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    for (int64_t range = 0; range < ranges; range++)
        incoming[range] = counts[range];
    return LOWSHOT_OK;
}

int lowshot_symmetrize_range(const struct lowshot_neighbors *neighbors, const float *weights,
                             int reciprocal, int64_t first, int64_t last, int64_t capacity,
                             int64_t *indptr, int32_t *mutual, int32_t *indices, float *values,
                             struct lowshot_fault *fault) {
    if (neighbors == NULL)
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int64_t rows = neighbors->rows;
    if (rows > INT32_MAX ||
        !matrix_fits(neighbors->indices, rows, neighbors->width, neighbors->stride) || first < 0 ||
        last < first || last > rows || indptr == NULL || !matrix_fits(mutual, rows, 1, 1) ||
        !matrix_fits(indices, capacity, 1, 1) || (weights == NULL) != (values == NULL))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    if (first == 0)
        indptr[0] = 0;
    if (indptr[first] < 0 || indptr[first] > capacity)
        return report_fault(fault, LOWSHOT_BAD_OFFSET, 0, first, 0);
    /* What is in there must not be added up if there is no memory for the numbers of links. */
    memset(indptr + first + 1, 0, (size_t)(last - first) * sizeof *indptr);
    const int64_t threads = lowshot_get_num_threads();
    struct catch *const caught = calloc((size_t)threads, sizeof *caught);
    if (caught == NULL)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    bool enough_memory = true, enough_room = true;
    struct stop stop = {0};
    struct piece *const pieces = calloc((size_t)threads, sizeof *pieces);
    if (pieces == NULL) {
        free(caught);
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    }
    /* Shares are numbered, not threads: the system may provide fewer threads than asked for. */
#pragma omp parallel reduction(&& : enough_memory, enough_room)
    {
#pragma omp for schedule(static, 1)
        for (int64_t share = 0; share < threads; share++)
            enough_memory =
                catch_all_links(neighbors, weights, rows * share / threads,
                                rows * (share + 1) / threads, first, last, caught + share, &stop) &&
                enough_memory;
#pragma omp for schedule(static, 1)
        for (int64_t share = 0; share < threads; share++) {
            pieces[share].first = first + (last - first) * share / threads;
            pieces[share].last = first + (last - first) * (share + 1) / threads;
            enough_memory =
                sort_incoming(caught, threads, weights != NULL, pieces + share) && enough_memory;
        }
#pragma omp for schedule(static, 1)
        for (int64_t share = 0; share < threads; share++) {
            free_catch(caught + share);
            enough_memory =
                enough_memory && symmetrize_piece(neighbors, weights, reciprocal != 0,
                                                  pieces + share, indptr + 1, mutual, &stop);
        }
#pragma omp single
        for (int64_t row = first; row < last; row++)
            indptr[row + 1] += indptr[row];
#pragma omp for schedule(static, 1)
        for (int64_t share = 0; share < threads; share++) {
            const struct piece *const piece = pieces + share;
            const int64_t begin = indptr[piece->first];
            if (begin < 0 || begin > capacity - piece->edges) {
                enough_room = false;
            } else if (piece->edges > 0) {
                memcpy(indices + begin, piece->indices, (size_t)piece->edges * sizeof *indices);
                if (values != NULL)
                    memcpy(values + begin, piece->values, (size_t)piece->edges * sizeof *values);
            }
            free_piece(pieces + share);
        }
    }
    free(caught);
    free(pieces);
    if (!enough_memory)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return enough_room ? LOWSHOT_OK : report_fault(fault, LOWSHOT_FULL, 0, 0, 0);
}

int lowshot_normalize_rows(const int64_t *indptr, float *values, int64_t rows, int64_t edges,
                           struct lowshot_fault *fault) {
    if (!matrix_fits(values, edges, 1, 1))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int status = check_offsets(indptr, rows, edges, fault);
    if (status != LOWSHOT_OK)
        return status;
    struct stop stop = {0};
#pragma omp parallel for schedule(dynamic, MIN_BLOCK_ROWS)
    for (int64_t row = 0; row < rows; row++) {
        if (stop_wanted_by_row(&stop))
            continue;
        double sum = 0.0;
        for (int64_t edge = indptr[row]; edge < indptr[row + 1]; edge++)
            sum += fabs((double)values[edge]);
        if (sum == 0.0)
            continue;
        for (int64_t edge = indptr[row]; edge < indptr[row + 1]; edge++)
            values[edge] = (float)((double)values[edge] / sum);
    }
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    return LOWSHOT_OK;
}
