/* Prints a checksum of what native functions make of the same random input, for each set of kernels
 * that the processor has: for processors that Python does not run on here, under an emulator. */

#include "search.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    ROWS = 600,
    DIMENSION = 200,
    WIDTH = 256,
    QUERIES = 150,
    LISTS = 9,
    PROBES = 4,
    FOUND = 20,
    LINKS = 13,
    COLUMNS = 37
};

static const char *const names[] = {"plain",       "avx2", "avx-vnni",    "avx512",
                                    "avx512-vnni", "neon", "neon-dotprod"};

static uint64_t state;

static uint32_t next_random(void) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33);
}

static float next_float(void) { return (float)(next_random() % 2001) / 1000.0f - 1.0f; }

static void *room_for(size_t count, size_t size) {
    void *const room = calloc(count + 1, size);
    if (room == NULL)
        exit(3);
    return room;
}

static uint64_t checksum = 0;

static void add_to_checksum(const void *bytes, size_t count) {
    for (size_t i = 0; i < count; i++)
        checksum = (checksum ^ ((const unsigned char *)bytes)[i]) * UINT64_C(1099511628211);
}

static void require(int kind, const char *what) {
    if (kind == LOWSHOT_OK)
        return;
    fprintf(stderr, "%s: fault %d\n", what, kind);
    exit(2);
}

/* Encoding, comparing, searching, descending, ranking. */
static void search(void) {
    struct lowshot_fault fault;
    float *const vectors = room_for(ROWS * DIMENSION, sizeof(float));
    float *const signs = room_for(WIDTH, sizeof(float));
    float *const mean = room_for(DIMENSION, sizeof(float));
    float *const inverse = room_for(ROWS, sizeof(float));
    int8_t *const values = room_for(ROWS * WIDTH, 1);
    int32_t *const biases = room_for(ROWS, sizeof(int32_t));
    for (int i = 0; i < ROWS * DIMENSION; i++)
        vectors[i] = next_float();
    for (int i = 0; i < WIDTH; i++)
        signs[i] = next_random() % 2 ? 1.0f : -1.0f;
    const struct lowshot_encoder encoder = {mean, signs, DIMENSION, WIDTH, 500.0f, LOWSHOT_COSINE};
    require(lowshot_encode(&encoder, vectors, ROWS, DIMENSION, values, biases, inverse, &fault),
            "encode");
    add_to_checksum(values, ROWS * WIDTH);
    add_to_checksum(inverse, ROWS * sizeof(float));
    /* The largest codes there are, too, which encoding does not give. */
    for (int i = 0; i < ROWS * WIDTH; i += 1 + (int)(next_random() % 97))
        values[i] = -128;
    const struct lowshot_codes codes = {values, biases, ROWS, WIDTH};
    const struct lowshot_codes queries = {values, biases, QUERIES, WIDTH};
    int32_t *const scores = room_for(ROWS * QUERIES, sizeof(int32_t));
    require(lowshot_score_all(&codes, &queries, scores, &fault), "score_all");
    add_to_checksum(scores, ROWS * QUERIES * sizeof(int32_t));
    int64_t offsets[LISTS + 1];
    for (int list = 0; list <= LISTS; list++)
        offsets[list] = list * ROWS / LISTS;
    const struct lowshot_lists lists = {offsets, NULL, LISTS, ROWS};
    int32_t *const probes = room_for(QUERIES * PROBES, sizeof(int32_t));
    int32_t *const floors = room_for(QUERIES, sizeof(int32_t));
    int32_t *const numbers = room_for(ROWS * FOUND, sizeof(int32_t));
    int32_t *const found = room_for(ROWS * FOUND, sizeof(int32_t));
    for (int q = 0; q < QUERIES; q++)
        for (int p = 0; p < PROBES; p++)
            probes[q * PROBES + p] = (int32_t)((q / 10 + 2 * p) % LISTS);
    require(lowshot_search_lists(&codes, &lists, &queries, probes, PROBES, NULL, NULL, 0, PROBES,
                                 FOUND, numbers, found, &fault),
            "search_lists");
    add_to_checksum(numbers, QUERIES * FOUND * sizeof(int32_t));
    add_to_checksum(found, QUERIES * FOUND * sizeof(int32_t));
    for (int q = 0; q < QUERIES; q++)
        floors[q] = found[q * FOUND + FOUND / 2];
    require(lowshot_search_lists(&codes, &lists, &queries, probes, PROBES, NULL, floors,
                                 LOWSHOT_WHOLE / 3, 1, FOUND, numbers, found, &fault),
            "search_lists with a prefix");
    add_to_checksum(numbers, QUERIES * FOUND * sizeof(int32_t));
    /* Every list is around its first vector, and near enough to half of the queries. */
    int8_t centers[LISTS * WIDTH];
    int32_t bias_of_centers[LISTS], bounds[ROWS], all_floors[ROWS];
    for (int list = 0; list < LISTS; list++) {
        memcpy(centers + list * WIDTH, values + offsets[list] * WIDTH, WIDTH);
        bias_of_centers[list] = biases[offsets[list]];
    }
    for (int row = 0; row < ROWS; row++) {
        bounds[row] = row % 2 ? INT32_MIN / 2 : -100000;
        all_floors[row] = floors[row % QUERIES];
    }
    const struct lowshot_codes around = {centers, bias_of_centers, LISTS, WIDTH};
    require(lowshot_search_lists_in_reach(&codes, offsets, &around, &queries, bounds, floors,
                                          LOWSHOT_WHOLE / 2, LOWSHOT_WHOLE, FOUND, numbers, found,
                                          &fault),
            "search_lists_in_reach");
    add_to_checksum(numbers, QUERIES * FOUND * sizeof(int32_t));
    require(lowshot_search_points_in_reach(&queries, &around, offsets, &codes, bounds, all_floors,
                                           LOWSHOT_WHOLE / 2, LOWSHOT_WHOLE, FOUND, numbers, found,
                                           &fault),
            "search_points_in_reach");
    add_to_checksum(numbers, ROWS * FOUND * sizeof(int32_t));
    require(lowshot_search_lists(&codes, &lists, &queries, probes, PROBES, NULL, NULL, 0, PROBES,
                                 FOUND, numbers, found, &fault),
            "search_lists");
    float *const similarities = room_for(QUERIES * LINKS, sizeof(float));
    int32_t *const ranked = room_for(QUERIES * LINKS, sizeof(int32_t));
    const float *const parts[] = {vectors, vectors + ROWS / 3 * DIMENSION};
    const int64_t of_parts[] = {0, ROWS / 3, ROWS};
    const struct lowshot_vectors stored = {parts, of_parts, 2, ROWS, DIMENSION, DIMENSION};
    const struct lowshot_matrix few = {vectors, QUERIES, DIMENSION, DIMENSION};
    for (int metric = LOWSHOT_COSINE; metric <= LOWSHOT_EUCLIDEAN; metric++) {
        require(lowshot_rank_candidates(&stored, NULL, inverse, metric, &few, numbers, FOUND, LINKS,
                                        0, ranked, similarities, &fault),
                "rank_candidates");
        add_to_checksum(ranked, QUERIES * LINKS * sizeof(int32_t));
        add_to_checksum(similarities, QUERIES * LINKS * sizeof(float));
    }
    int32_t *const entries = room_for(ROWS * FOUND, sizeof(int32_t));
    int32_t *const sampled = room_for(ROWS * LINKS, sizeof(int32_t));
    for (int row = 0; row < ROWS; row++)
        for (int c = 0; c < FOUND; c++) {
            entries[row * FOUND + c] = 2 * ((row + 7 * c + 1) % ROWS) + (c % 3 == 0);
            found[row * FOUND + c] = -c;
        }
    for (int i = 0; i < ROWS * LINKS; i++)
        sampled[i] = (int32_t)(next_random() % (2 * ROWS));
    const struct lowshot_pools pools = {entries, found, ROWS, FOUND};
    int32_t *const joined = room_for(ROWS * FOUND, sizeof(int32_t));
    int32_t *const joined_scores = room_for(ROWS * FOUND, sizeof(int32_t));
    require(lowshot_join_neighbors(&codes, &pools, sampled, LINKS, 0, ROWS, joined, joined_scores,
                                   &fault),
            "join_neighbors");
    add_to_checksum(joined, ROWS * FOUND * sizeof(int32_t));
    void *const all[] = {vectors, signs,   mean,   inverse,       values,      biases,
                         scores,  probes,  floors, numbers,       found,       ranked,
                         entries, sampled, joined, joined_scores, similarities};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

/* Symmetrising, and the sparse step. */
static void diffuse(void) {
    struct lowshot_fault fault;
    int32_t *const neighbors = room_for(ROWS * LINKS, sizeof(int32_t));
    float *const weights = room_for(ROWS * LINKS, sizeof(float));
    for (int i = 0; i < ROWS * LINKS; i++) {
        neighbors[i] = (int32_t)(next_random() % (ROWS + 1)) - 1;
        weights[i] = next_float() + 2.0f;
    }
    const struct lowshot_neighbors lists = {neighbors, ROWS, LINKS, LINKS};
    const int64_t capacity = 2 * ROWS * LINKS;
    int64_t *const indptr = room_for(ROWS + 1, sizeof(int64_t));
    int32_t *const mutual = room_for(ROWS, sizeof(int32_t));
    int32_t *const indices = room_for((size_t)capacity, sizeof(int32_t));
    float *const values = room_for((size_t)capacity, sizeof(float));
    for (int weighted = 1; weighted >= 0; weighted--) {
        require(lowshot_symmetrize_range(&lists, weighted ? weights : NULL, 0, 0, ROWS, capacity,
                                         indptr, mutual, indices, weighted ? values : NULL, &fault),
                "symmetrize_range");
        add_to_checksum(indices, (size_t)indptr[ROWS] * sizeof(int32_t));
        add_to_checksum(mutual, ROWS * sizeof(int32_t));
    }
    add_to_checksum(values, (size_t)indptr[ROWS] * sizeof(float));
    const struct lowshot_links links = {ROWS, ROWS,    indptr[ROWS], indptr, 0,
                                        0,    indices, mutual,       NULL};
    float *const in = room_for(ROWS * COLUMNS, sizeof(float));
    float *const out = room_for(ROWS * COLUMNS, sizeof(float));
    uint16_t *const half = room_for(ROWS * COLUMNS, sizeof(uint16_t));
    float factors[COLUMNS];
    double sums[COLUMNS];
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        in[i] = next_float();
        half[i] = to_bfloat16(in[i]);
    }
    for (int c = 0; c < COLUMNS; c++)
        factors[c] = next_float();
    const struct lowshot_dense target = {out, ROWS, COLUMNS, COLUMNS, LOWSHOT_FLOAT32};
    const struct lowshot_dense wide = {in, ROWS, COLUMNS, COLUMNS, LOWSHOT_FLOAT32};
    const struct lowshot_dense narrow = {half, ROWS, COLUMNS, COLUMNS, LOWSHOT_BFLOAT16};
    require(lowshot_gather(&links, NULL, ROWS, &wide, factors, &target, sums, &fault), "gather");
    add_to_checksum(out, ROWS * COLUMNS * sizeof(float));
    add_to_checksum(sums, sizeof sums);
    require(lowshot_gather(&links, NULL, ROWS, &narrow, factors, &target, sums, &fault), "gather");
    add_to_checksum(out, ROWS * COLUMNS * sizeof(float));
    int32_t *const order = room_for(ROWS, sizeof(int32_t));
    require(lowshot_cluster_nodes(&lists, order, &fault), "cluster_nodes");
    add_to_checksum(order, ROWS * sizeof(int32_t));
    void *const all[] = {neighbors, weights, indptr, mutual, indices, values, in, out, half, order};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

int main(void) {
    for (int kernels = LOWSHOT_PLAIN; kernels <= LOWSHOT_NEON_DOTPROD; kernels++) {
        if (!lowshot_use_kernels(kernels))
            continue;
        state = 1;
        checksum = UINT64_C(14695981039346656037);
        search();
        diffuse();
        printf("%s %016llx\n", names[kernels], (unsigned long long)checksum);
    }
    return 0;
}
