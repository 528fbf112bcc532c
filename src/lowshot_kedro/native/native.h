#ifndef LOWSHOT_NATIVE_H
#define LOWSHOT_NATIVE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "functions.h"
#include "processor.h"

#if defined(__GNUC__)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define ALWAYS_INLINE static inline
#define PREFETCH(address) ((void)(address))
#endif

enum { CACHE_LINE_BYTES = 64 };

/* Work is cut into blocks of rows whose bounds depend on the number of rows alone. Sums over rows
 * are kept per block and added in block order: that makes results independent of the number of
 * threads. The two limits bound the memory of those sums, to MAX_BLOCKS doubles a column and to
 * 1/128 of the size of the matrix they belong to. */
enum { MAX_BLOCKS = 1024, MIN_BLOCK_ROWS = 256 };

struct blocks {
    int64_t rows;
    int64_t block_rows;
    int64_t count;
};

static inline struct blocks split_rows(int64_t rows) {
    int64_t block_rows = rows / MAX_BLOCKS + (rows % MAX_BLOCKS != 0);
    if (block_rows < MIN_BLOCK_ROWS)
        block_rows = MIN_BLOCK_ROWS;
    const int64_t count = rows / block_rows + (rows % block_rows != 0);
    return (struct blocks){rows, block_rows, count};
}

static inline int64_t block_begin(struct blocks blocks, int64_t block) {
    return block * blocks.block_rows;
}

static inline int64_t block_end(struct blocks blocks, int64_t block) {
    return block + 1 == blocks.count ? blocks.rows : (block + 1) * blocks.block_rows;
}

/* Whether a call is to stop, for its loops to look at: they go on to the next row if so, and the
 * call ends with LOWSHOT_STOPPED. Only the thread that has made the call asks. */
struct stop {
    atomic_bool wanted;
    int64_t next_poll;
    uint32_t looks;
};

bool ask_whether_to_stop(struct stop *stop);
bool is_calling_thread(void);

static inline bool stop_wanted(struct stop *stop) {
    if (atomic_load_explicit(&stop->wanted, memory_order_relaxed))
        return true;
    return is_calling_thread() && ask_whether_to_stop(stop);
}

/* For loops whose rows take less than a microsecond. */
static inline bool stop_wanted_by_row(struct stop *stop) {
    enum { ROWS_BETWEEN_LOOKS = 64 };
    if (atomic_load_explicit(&stop->wanted, memory_order_relaxed))
        return true;
    return is_calling_thread() && ++stop->looks % ROWS_BETWEEN_LOOKS == 0 &&
           ask_whether_to_stop(stop);
}

int report_fault(struct lowshot_fault *fault, int kind, int list, int64_t row, int64_t column);

/* True if a rows x stride matrix of at most 8-byte elements can be addressed at all, and pointer is
 * there if anything is to be read from it. */
bool matrix_fits(const void *pointer, int64_t rows, int64_t width, int64_t stride);

/* Every entry must lie in lowest..limit - 1. */
int check_indices(const int32_t *indices, int64_t rows, int64_t width, int64_t stride,
                  int32_t lowest, int64_t limit, struct lowshot_fault *fault);

int check_offsets(const int64_t *indptr, int64_t rows, int64_t edges, struct lowshot_fault *fault);

/* Sizes and pointers only; contents are compared with the bounds when they are used. */
bool links_fit(const struct lowshot_links *links);
bool dense_fits(const struct lowshot_dense *scores);
bool sparse_fits(const struct lowshot_sparse *scores);

/* Finds out what an inner loop has tripped over. */
int explain_bad_link(const struct lowshot_links *links, const int32_t *selection, int64_t selected,
                     struct lowshot_fault *fault);

static inline int lowest_bit(uint64_t word) {
#if defined(__GNUC__)
    return __builtin_ctzll(word);
#else
    int bit = 0;
    while (!(word >> bit & 1))
        bit++;
    return bit;
#endif
}

static inline bool is_node(int32_t index, int64_t nodes) {
    return (uint64_t)(uint32_t)index < (uint64_t)nodes;
}

/* The links of one row: begin..end - 1, of which those before doubled_end count twice. */
struct span {
    int64_t begin;
    int64_t doubled_end;
    int64_t end;
    float scale;
};

/* Returns false, and an empty span, for a row that does not exist or whose offsets are wrong. */
ALWAYS_INLINE bool row_links(const struct lowshot_links *links, int64_t row, struct span *span) {
    *span = (struct span){0, 0, 0, 1.0f};
    if (row < 0 || row >= links->rows)
        return false;
    if (links->indptr == NULL) {
        const int64_t begin = row * links->stride;
        *span = (struct span){begin, begin, begin + links->width, 1.0f};
        return true;
    }
    const int64_t begin = links->indptr[row], end = links->indptr[row + 1];
    const int64_t doubled = links->mutual != NULL ? links->mutual[row] : 0;
    if (begin < 0 || end < begin || end > links->edges || doubled < 0 || doubled > end - begin)
        return false;
    float scale = 1.0f;
    if (links->mutual != NULL && end > begin)
        scale = 1.0f / (float)(end - begin + doubled);
    *span = (struct span){begin, begin + doubled, end, scale};
    return true;
}

/* A span of sparse entries in one word: fewer than 2^24 entries, beginning before 2^40. */
enum { SPAN_COUNT_BITS = 24 };
static const int64_t MAX_SPAN_COUNT = ((int64_t)1 << SPAN_COUNT_BITS) - 1;
static const int64_t MAX_SPAN_BEGIN = ((int64_t)1 << (64 - SPAN_COUNT_BITS)) - 1;

static inline uint64_t make_span(int64_t begin, int64_t count) {
    return (uint64_t)begin << SPAN_COUNT_BITS | (uint64_t)count;
}

static inline int64_t span_begin(uint64_t span) { return (int64_t)(span >> SPAN_COUNT_BITS); }

static inline int64_t span_count(uint64_t span) {
    return (int64_t)(span & (uint64_t)MAX_SPAN_COUNT);
}

static inline float bits_to_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* bfloat16 is the upper half of a float32; on little-endian machines, that of the odd column is the
 * upper half of a word that holds two columns. */
static inline float from_bfloat16(uint16_t stored) { return bits_to_float((uint32_t)stored << 16); }

/* To the nearest, ties to even. Scores are finite, so rounding up never runs into NaN. */
static inline uint16_t to_bfloat16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline float round_to(int format, float value) {
    return format == LOWSHOT_BFLOAT16 ? from_bfloat16(to_bfloat16(value)) : value;
}

/* sums[c] += scores[r, c] for rows begin..end - 1, each times its weight if there are weights. */
void add_rows(const struct lowshot_dense *scores, int64_t begin, int64_t end,
              const float *row_weights, double *sums);

/* Sums of columns, one row of them for each block of rows. */
double *allocate_block_sums(struct blocks blocks, int64_t columns);
void add_block_sums(const double *block_sums, struct blocks blocks, int64_t columns, double *sums);

#endif
