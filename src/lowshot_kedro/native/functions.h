/* Everything Python may call. cffi parses this file as it is, so it holds plain declarations only:
 * no preprocessor lines, no includes.
 *
 * Conventions: sizes, offsets and strides are int64 and count elements. A function that returns int
 * returns a lowshot_fault_kind, and fills *fault when that is not LOWSHOT_OK; what it had written
 * to its outputs by then is of no use, but lies within them. */

enum lowshot_fault_kind {
    LOWSHOT_OK = 0,
    LOWSHOT_BAD_SIZE,
    LOWSHOT_NO_MEMORY,
    LOWSHOT_BAD_INDEX,
    LOWSHOT_BAD_OFFSET,
    LOWSHOT_VALID_AFTER_MISSING,
    LOWSHOT_SHIFTED_INDEX_TOO_LARGE,
    LOWSHOT_NOT_FINITE,
    LOWSHOT_NOT_SORTED
};

/* The first offending entry in row-major order, whatever the number of threads.
 * list: which of several inputs of the same kind, from 0. */
struct lowshot_fault {
    int kind;
    int list;
    int64_t row;
    int64_t column;
};

/* Neighbour lists with their similarities, for merging. */
struct lowshot_ranking {
    const int32_t *indices;
    const float *similarities;
    int64_t width;
    int64_t indices_stride;
    int64_t similarities_stride;
    int64_t offset;
};

int lowshot_get_num_threads(void);
void lowshot_set_num_threads(int count);

int lowshot_check_graph(const int64_t *indptr, const int32_t *indices, int64_t rows, int64_t nodes,
                        int64_t edges, struct lowshot_fault *fault);

/* Symmetrising takes three calls, because the size of the result is known only on the way:
 * count leaves the start of every row in indptr and the room needed in *capacity; fill writes the
 * packed entries and leaves their number in *edges; unpack splits them into indices and values. */
int lowshot_symmetrize_count(const int32_t *neighbors, int64_t rows, int64_t width, int64_t stride,
                             int64_t *indptr, int64_t *capacity, struct lowshot_fault *fault);
int lowshot_symmetrize_fill(const int32_t *neighbors, int64_t rows, int64_t width, int64_t stride,
                            int64_t *indptr, int32_t *entries, int64_t capacity, int64_t *edges,
                            struct lowshot_fault *fault);
int lowshot_symmetrize_unpack(int32_t *entries, float *values, int64_t edges,
                              struct lowshot_fault *fault);

int lowshot_normalize_rows(const int64_t *indptr, float *values, int64_t rows, int64_t edges,
                           struct lowshot_fault *fault);

int lowshot_normalize_columns(float *scores, int64_t rows, int64_t columns,
                              struct lowshot_fault *fault);

int lowshot_diffusion_step(const int64_t *indptr, const int32_t *indices, const float *values,
                           int64_t rows, int64_t edges, const float *scores, int64_t columns,
                           float *out, struct lowshot_fault *fault);

int lowshot_sum_neighbors(const int32_t *neighbors, int64_t rows, int64_t width, int64_t stride,
                          const float *scores, int64_t nodes, int64_t columns, float *out,
                          struct lowshot_fault *fault);

int lowshot_merge_neighbors(const struct lowshot_ranking *first,
                            const struct lowshot_ranking *second, int64_t rows, int64_t width,
                            int32_t *indices, float *similarities, struct lowshot_fault *fault);
