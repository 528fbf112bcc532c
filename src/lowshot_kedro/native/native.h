#ifndef LOWSHOT_NATIVE_H
#define LOWSHOT_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "functions.h"

/* One build has to run on any x86-64 and still use wide vectors where they exist. Choosing among
 * the copies of a function at load time needs glibc. Contraction into fused multiply-adds is off in
 * the build, so all copies give the same bits. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) &&                             \
    !defined(LOWSHOT_NO_MULTIVERSIONING) &&                                                        \
    ((defined(__clang__) && __clang_major__ >= 14) || (!defined(__clang__) && __GNUC__ >= 6))
#define MULTIVERSIONED __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define MULTIVERSIONED
#endif

#if defined(__GNUC__)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define ALWAYS_INLINE static inline
#define PREFETCH(address) ((void)(address))
#endif

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

int report_fault(struct lowshot_fault *fault, int kind, int list, int64_t row, int64_t column);

/* True if a rows x stride matrix of at most 8-byte elements can be addressed at all, and pointer is
 * there if anything is to be read from it. */
bool matrix_fits(const void *pointer, int64_t rows, int64_t width, int64_t stride);

/* Every entry must lie in lowest..limit - 1, where lowest is 0 or -1. */
int check_indices(const int32_t *indices, int64_t rows, int64_t width, int64_t stride,
                  int32_t lowest, int64_t limit, struct lowshot_fault *fault);

int check_offsets(const int64_t *indptr, int64_t rows, int64_t edges, struct lowshot_fault *fault);

#endif
