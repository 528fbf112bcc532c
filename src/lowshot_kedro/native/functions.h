/* Everything Python may call. cffi parses this file as it is, so it holds plain declarations only:
 * no preprocessor lines, no includes.
 *
 * Conventions: sizes, offsets and strides are int64 and count elements. A function that returns int
 * returns a lowshot_fault_kind, and fills *fault when that is not LOWSHOT_OK; what it had written
 * to its outputs by then is of no use, but lies within them. No index or offset that is handed in
 * is followed before it has been compared with the bounds. */

enum lowshot_fault_kind {
    LOWSHOT_OK = 0,
    LOWSHOT_BAD_SIZE,
    LOWSHOT_NO_MEMORY,
    LOWSHOT_BAD_INDEX,
    LOWSHOT_BAD_OFFSET,
    LOWSHOT_BAD_MUTUAL,
    LOWSHOT_BAD_SELECTION,
    LOWSHOT_BAD_ORDER,
    LOWSHOT_BAD_SCORES,
    LOWSHOT_FULL,
    LOWSHOT_VALID_AFTER_MISSING,
    LOWSHOT_SHIFTED_INDEX_TOO_LARGE,
    LOWSHOT_NOT_FINITE,
    LOWSHOT_NOT_SORTED,
    LOWSHOT_STOPPED,
    LOWSHOT_NEGATIVE,
    LOWSHOT_UNBALANCED,
    LOWSHOT_NO_OPTIMUM
};

/* The first offending entry in row-major order, whatever the number of threads.
 * list: which of several inputs of the same kind, from 0. */
struct lowshot_fault {
    int kind;
    int list;
    int64_t row;
    int64_t column;
};

int lowshot_get_num_threads(void);
void lowshot_set_num_threads(int count);

/* What the inner loops are made for, from the slowest to the fastest of a kind of processor. Plain
 * C runs everywhere. Results do not depend on it. */
enum lowshot_kernels {
    LOWSHOT_PLAIN = 0,
    LOWSHOT_AVX2,
    LOWSHOT_AVX_VNNI,
    LOWSHOT_AVX512,
    LOWSHOT_AVX512_VNNI,
    LOWSHOT_NEON,
    LOWSHOT_NEON_DOTPROD
};

/* Not 0 if this processor, and this build, has them. */
int lowshot_has_kernels(int kernels);
int lowshot_best_kernels(void);
/* From now on; returns 0, and changes nothing, if this processor has not got them. */
int lowshot_use_kernels(int kernels);
int lowshot_kernels_in_use(void);

/* A function that the calling thread asks, while it is at work, whether to stop: not 0 is yes, and
 * the call then ends with LOWSHOT_STOPPED. It is asked once so many milliseconds have passed, then
 * again and again. NULL: nobody is asked. */
void lowshot_set_poll(int (*poll)(void), int64_t milliseconds);

/* The k nearest neighbours of every node, or of every test point: rows x width, -1 for none. */
struct lowshot_neighbors {
    const int32_t *indices;
    int64_t rows;
    int64_t width;
    int64_t stride;
};

/* An ordering of the nodes: order[new] = old, rank[old] = new. */
int lowshot_cluster_nodes(const struct lowshot_neighbors *neighbors, int32_t *order,
                          struct lowshot_fault *fault);

/* The same lists in that node_ordering: those of node order[r] in row r. */
int lowshot_renumber(const struct lowshot_neighbors *neighbors, const int32_t *order,
                     const int32_t *rank, int32_t *renumbered, struct lowshot_fault *fault);

/* A + A^T of a neighbour list, a range of rows at a time, in increasing order. incoming[r] is the
 * number of links into rows r * range_rows..(r + 1) * range_rows - 1: together with the links of
 * those rows themselves it bounds what a range adds. At most 256 ranges. capacity: the room in
 * indices and values. */
int lowshot_count_incoming(const struct lowshot_neighbors *neighbors, int64_t range_rows,
                           int64_t *incoming, struct lowshot_fault *fault);
int lowshot_symmetrize_range(const struct lowshot_neighbors *neighbors, const float *weights,
                             int reciprocal, int64_t first, int64_t last, int64_t capacity,
                             int64_t *indptr, int32_t *mutual, int32_t *indices, float *values,
                             struct lowshot_fault *fault);

int lowshot_normalize_rows(const int64_t *indptr, float *values, int64_t rows, int64_t edges,
                           struct lowshot_fault *fault);

/* What a row of scores is summed over: the rows of a sparse matrix (indptr), or a neighbour list
 * (indptr NULL: row r stands at r * stride, -1 is no link). With weights, links count as much as
 * those. With mutual, the first mutual[r] links of row r count twice and the others once, and the
 * sum is divided by the total. With neither, it is a plain sum. */
struct lowshot_links {
    int64_t rows;
    int64_t nodes;
    int64_t edges;
    const int64_t *indptr;
    int64_t width;
    int64_t stride;
    const int32_t *indices;
    const int32_t *mutual;
    const float *weights;
};

int lowshot_check_links(const struct lowshot_links *links, struct lowshot_fault *fault);

/* totals[j] = sum over rows i of W[i, j]. */
int lowshot_column_totals(const struct lowshot_links *links, float *totals,
                          struct lowshot_fault *fault);

enum lowshot_format { LOWSHOT_FLOAT32 = 0, LOWSHOT_BFLOAT16 };

struct lowshot_dense {
    void *values;
    int64_t rows;
    int64_t columns;
    int64_t stride;
    int format;
};

/* Row r holds span_count(spans[r]) entries from span_begin(spans[r]) on, columns increasing; see
 * native.h. Rows need not stand in order. format tells how values are rounded when written. */
struct lowshot_entry {
    float value;
    int32_t column;
};
struct lowshot_sparse {
    uint64_t *spans;
    struct lowshot_entry *entries;
    int64_t rows;
    int64_t columns;
    int64_t capacity;
    int format;
};

/* out[q, c] = factors[c] * (sum of in[j, c] over the links of row selection[q]), all rows if
 * selection is NULL. sums[c], unless NULL, becomes the sum of column c of out. */
int lowshot_gather(const struct lowshot_links *links, const int32_t *selection, int64_t selected,
                   const struct lowshot_dense *in, const float *factors,
                   const struct lowshot_dense *out, double *sums, struct lowshot_fault *fault);
int lowshot_gather_sparse(const struct lowshot_links *links, const int32_t *selection,
                          int64_t selected, const struct lowshot_sparse *in, const float *factors,
                          const struct lowshot_dense *out, double *sums,
                          struct lowshot_fault *fault);
/* The same from sparse to sparse; LOWSHOT_FULL if out has too little room. */
int lowshot_gather_to_sparse(const struct lowshot_links *links, const int32_t *selection,
                             int64_t selected, const struct lowshot_sparse *in,
                             const float *factors, const struct lowshot_sparse *out, int64_t *used,
                             double *sums, struct lowshot_fault *fault);

/* sums[c] = sum over rows r of row_weights[r] * scores[r, c]; row_weights NULL: of scores[r, c]. */
int lowshot_column_sums(const struct lowshot_dense *scores, const float *row_weights, double *sums,
                        struct lowshot_fault *fault);
int lowshot_column_sums_sparse(const struct lowshot_sparse *scores, const float *row_weights,
                               double *sums, struct lowshot_fault *fault);

int lowshot_scale_columns(const struct lowshot_dense *scores, const float *factors,
                          struct lowshot_fault *fault);

/* Neighbour lists with their similarities, for merging. */
struct lowshot_ranking {
    const int32_t *indices;
    const float *similarities;
    int64_t width;
    int64_t indices_stride;
    int64_t similarities_stride;
    int64_t offset;
};

int lowshot_merge_neighbors(const struct lowshot_ranking *first,
                            const struct lowshot_ranking *second, int64_t rows, int64_t width,
                            int32_t *indices, float *similarities, struct lowshot_fault *fault);

/* Neighbours' numbers moved up by the list's offset, rows x width, -1 staying; refuses what is not
 * among so many nodes, and similarities of nodes that are no numbers. */
int lowshot_shift_neighbors(const struct lowshot_ranking *neighbors, int64_t rows, int64_t nodes,
                            int32_t *shifted, struct lowshot_fault *fault);

/* Searching for neighbours. A vector is kept as a row of 8-bit codes, its width a multiple of 64;
 * padding is 0. The score of vector v for query q is biases[v] + sum over j of q[j] * v[j]. */
enum { LOWSHOT_MAX_CODE_WIDTH = 65536, LOWSHOT_MAX_NEIGHBORS = 8192 };

struct lowshot_codes {
    const int8_t *values;
    const int32_t *biases;
    int64_t rows;
    int64_t width;
};

/* What scores grow with: the inner product of vectors scaled to length 1, or their nearness. */
enum lowshot_metric { LOWSHOT_COSINE = 0, LOWSHOT_EUCLIDEAN };

/* signs: +1 or -1, one for each column of the codes. scale: steps of a code in 1. */
struct lowshot_encoder {
    const float *mean;
    const float *signs;
    int64_t dimension;
    int64_t width;
    float scale;
    int metric;
};

/* Codes of vectors. Cosine: they are scaled to length 1 first; 0 stays 0. Euclidean: they are taken
 * as they are, and inverse_lengths is NULL. */
int lowshot_encode(const struct lowshot_encoder *encoder, const float *vectors, int64_t rows,
                   int64_t stride, int8_t *codes, int32_t *biases, float *inverse_lengths,
                   struct lowshot_fault *fault);

/* Row i of codes becomes row positions[i] of values and biases, which have so many rows. Positions
 * must be different. */
int lowshot_place_codes(const struct lowshot_codes *codes, const int32_t *positions, int8_t *values,
                        int32_t *biases, int64_t rows, struct lowshot_fault *fault);

/* List l holds the vectors members[offsets[l]..offsets[l + 1] - 1]; with members NULL, these are
 * the numbers themselves. entries: the last offset. */
struct lowshot_lists {
    const int64_t *offsets;
    const int32_t *members;
    int64_t count;
    int64_t entries;
};

/* scores[q]: of vector numbers[q] for query q. */
int lowshot_score_pairs(const struct lowshot_codes *codes, const int32_t *numbers,
                        const struct lowshot_codes *queries, int32_t *scores,
                        struct lowshot_fault *fault);

/* scores: queries x vectors, of every vector for every query. */
int lowshot_score_all(const struct lowshot_codes *codes, const struct lowshot_codes *queries,
                      int32_t *scores, struct lowshot_fault *fault);

/* The width best vectors of the lists that a query probes, best first; of equal scores the smaller
 * number first; -1 and INT32_MIN where there are fewer. Lists probed (-1: none) must be different
 * and have no vector in common. limits, unless NULL: queries x n_probes, how many of the first
 * members of each list a query looks through. floors, unless NULL: least score that counts, for
 * each query. In lists behind the first full_probes that a query names, vectors are left out whose
 * first 64 columns hold more than prefix_share, in 1/LOWSHOT_WHOLE, of the squared distance at the
 * floor, or at the width-th best of the lists before if that is nearer. This takes wider codes, and
 * biases of queries and vectors that are minus half their squared lengths; with full_probes ==
 * n_probes there are no such lists. */
enum { LOWSHOT_WHOLE = 65536 };
int lowshot_search_lists(const struct lowshot_codes *codes, const struct lowshot_lists *lists,
                         const struct lowshot_codes *queries, const int32_t *probes,
                         int64_t n_probes, const int32_t *limits, const int32_t *floors,
                         int64_t prefix_share, int64_t full_probes, int64_t width, int32_t *numbers,
                         int32_t *scores, struct lowshot_fault *fault);

/* Vectors in lists around centroids, list l holding offsets[l]..offsets[l + 1] - 1. Biases are at
 * most half as large as they may be elsewhere.
 *
 * The width best vectors of the lists whose centroids score at least a query's bound, as
 * lowshot_search_lists finds them: floors and prefix_share are those of there. */
int lowshot_search_lists_in_reach(const struct lowshot_codes *codes, const int64_t *offsets,
                                  const struct lowshot_codes *centroids,
                                  const struct lowshot_codes *queries, const int32_t *bounds,
                                  const int32_t *floors, int64_t prefix_share, int64_t more_share,
                                  int64_t width, int32_t *numbers, int32_t *scores,
                                  struct lowshot_fault *fault);

/* The other way round: for each member of the lists, as a query, the best of those points whose
 * score for the centroid of its list, added to the centroid's bias, reaches its bound. A few points
 * that do not may be among what is found. */
int lowshot_search_points_in_reach(const struct lowshot_codes *points,
                                   const struct lowshot_codes *centroids, const int64_t *offsets,
                                   const struct lowshot_codes *members, const int32_t *bounds,
                                   const int32_t *floors, int64_t prefix_share, int64_t more_share,
                                   int64_t width, int32_t *numbers, int32_t *scores,
                                   struct lowshot_fault *fault);

/* Lists of neighbours in the making: an entry is twice the number of a neighbour, plus 1 if it was
 * not there a round ago; -1 is none. Best first. */
struct lowshot_pools {
    const int32_t *entries;
    const int32_t *scores;
    int64_t rows;
    int64_t width;
};

/* Links to follow: of each row its best `forward` entries, then the best `backward` rows that have
 * it among their best `forward` entries. Pools may come in parts, in three passes: count the links
 * into rows first..last - 1 (added to counts), collect them where the rows before have theirs
 * (ends[t] is where those of first + t begin, and moves on), and choose, for all rows of the pools.
 * first_row: number of the first row of a part. sampled: rows x (forward + backward), of each row
 * the new links first, each once, then -1. */
int lowshot_count_links(const struct lowshot_pools *pools, int64_t forward, int64_t first,
                        int64_t last, int64_t *counts, struct lowshot_fault *fault);
int lowshot_collect_links(const struct lowshot_pools *pools, int64_t first_row, int64_t forward,
                          int64_t first, int64_t last, int64_t *ends, uint64_t *links,
                          int64_t capacity, struct lowshot_fault *fault);
int lowshot_choose_links(const struct lowshot_pools *pools, int64_t forward, int64_t backward,
                         const int64_t *ends, uint64_t *links, int64_t capacity, int32_t *sampled,
                         struct lowshot_fault *fault);

/* New pools of rows first..last - 1: the best of their own and of what is linked in two steps,
 * where one of both steps is new. sampled: rows x sample_width, of each row the new links first;
 * none behind a negative one counts. */
int lowshot_join_neighbors(const struct lowshot_codes *codes, const struct lowshot_pools *pools,
                           const int32_t *sampled, int64_t sample_width, int64_t first,
                           int64_t last, int32_t *entries, int32_t *scores,
                           struct lowshot_fault *fault);

struct lowshot_matrix {
    const float *values;
    int64_t rows;
    int64_t columns;
    int64_t stride;
};

/* Vectors in parts that lie anywhere, aligned or not: part p holds vectors offsets[p] to
 * offsets[p + 1] - 1, each stride floats after the one before. rows: the last offset. */
struct lowshot_vectors {
    const float *const *parts;
    const int64_t *offsets;
    int64_t count;
    int64_t rows;
    int64_t columns;
    int64_t stride;
};

/* The width most similar of the candidates of each query (-1: none); of equal similarities the
 * smaller number first; -1 and minus infinity where there are fewer. Candidates say where vectors
 * stand, numbers what they are called; NULL: the same. Cosine: similarities are inner products with
 * the queries; inverse_lengths scales vectors to length 1, unless NULL, when they have it already.
 * Euclidean: minus squared distances. continued: not 0 if indices and similarities hold what has
 * been found already, which counts too. */
int lowshot_rank_candidates(const struct lowshot_vectors *vectors, const int32_t *numbers,
                            const float *inverse_lengths, int metric,
                            const struct lowshot_matrix *queries, const int32_t *candidates,
                            int64_t n_candidates, int64_t width, int continued, int32_t *indices,
                            float *similarities, struct lowshot_fault *fault);

/* copies[places[i]] = factors[rows[i]] * vectors[rows[i]] for i < count. No two places are the
 * same; copies: n_copies x columns. */
int lowshot_copy_rows(const struct lowshot_matrix *vectors, const float *factors,
                      const int32_t *rows, const int64_t *places, int64_t count, float *copies,
                      int64_t n_copies, struct lowshot_fault *fault);

/* checksums[row] = sum over j of factors[j] times the bits of column j of that row, modulo 2^64.
 * Cosine: of the row scaled to length 1; 0 stays 0. Minus zero counts as zero. */
int lowshot_checksum_rows(const struct lowshot_matrix *vectors, int metric, const uint64_t *factors,
                          uint64_t *checksums, struct lowshot_fault *fault);
/* taken: count x columns, of the vectors with these numbers, times their inverse lengths unless
 * these are NULL. */
int lowshot_take_vectors(const struct lowshot_matrix *vectors, const float *inverse_lengths,
                         const int32_t *numbers, int64_t count, float *taken,
                         struct lowshot_fault *fault);

/* Transport problems of which each has costs, supplies x demands, and weights: what is supplied and
 * what is demanded, at least 0. Both sums of a problem are the same but for a millionth; demands
 * are scaled to the sum of the supplies. */
struct lowshot_transport {
    int64_t problems;
    int64_t supplies;
    int64_t demands;
    const double *costs;
    const double *supply_weights;
    const double *demand_weights;
};

/* Optima: the total cost of each problem, what goes where, and dual variables. */
struct lowshot_transport_optima {
    double *total;
    double *flow;
    double *supply_potential;
    double *demand_potential;
};

/* In so many threads. Of a fault: list 0 is costs, 1 supplies, 2 demands; row is the problem,
 * column the entry within it. */
int lowshot_solve_transport(const struct lowshot_transport *problems, int threads,
                            const struct lowshot_transport_optima *optima,
                            struct lowshot_fault *fault);

/* Centroids that rows are assigned to, count x dimension; everything else is made of them. packed:
 * count, rounded up to 32, x width bytes, on a cache line; width: the dimension, rounded up to 64.
 * middle has a place for each column, ratio one; steps, halves and lengths have places for count,
 * rounded up to 32. scale: a power of two by which no number of a row or centroid exceeds 1. */
struct lowshot_centroids {
    const float *values;
    int64_t count;
    int64_t dimension;
    int64_t width;
    float scale;
    float *middle;
    uint8_t *packed;
    float *steps;
    float *halves;
    float *lengths;
    float *ratio;
};

/* Must have been called, with the same kernels in use, before rows are assigned. */
int lowshot_prepare_centroids(const struct lowshot_centroids *centroids,
                              struct lowshot_fault *fault);

/* labels: of each row a centroid that is probably near, or -1; then the nearest one, of equally
 * near ones the first. distances: squared, in double precision; the columns are added to 16 sums in
 * turn. Of a fault: list 0 is labels, or centroids that are not finite, 1 rows. */
int lowshot_assign_rows(const struct lowshot_centroids *centroids, const float *rows, int64_t count,
                        int64_t stride, int32_t *labels, double *distances,
                        struct lowshot_fault *fault);

/* sums[labels[r]] += rows[r], each number times units, rounded to the nearest integer, ties to
 * even. That has to be less than 2^51. sums: clusters x columns. */
int lowshot_add_to_clusters(const struct lowshot_matrix *rows, const int32_t *labels, double units,
                            int64_t *sums, int64_t clusters, struct lowshot_fault *fault);
