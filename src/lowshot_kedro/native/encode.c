#include "search.h"

#include <math.h>
#include <stdlib.h>

/* A vector is scaled to length 1 unless distances count, the mean is subtracted, signs are flipped
 * at random, and a Hadamard transform spreads what is left evenly over all coordinates: they become
 * alike in size, so that 8 bits serve all of them, whatever the vectors are. The transform is
 * orthogonal and changes neither inner products nor distances. */

/* Shorter vectors count as 0: their inverse length would leave the range of float. */
static const double MIN_LENGTH = 1e-36;
/* Sums of the transform would leave it with a longer mean. */
static const double LONGEST_MEAN = 1e30;
/* The mean of vectors of length 1 is not longer, but for rounding. */
static const double LONGEST_MEAN_OF_DIRECTIONS = 1.001;
/* So would squares of distances to vectors that are farther from the mean. */
static const double FARTHEST = 1e18;

static int64_t power_of_two_up_to(int64_t number) {
    int64_t power = 1;
    while (2 * power <= number)
        power *= 2;
    return power;
}

/* Butterflies between rows of a (length / columns) x columns matrix, all columns at a time. */
ALWAYS_INLINE void mix_rows(float *restrict values, int64_t length, int64_t columns) {
    for (int64_t half = columns; half < length; half *= 2)
        for (int64_t first = 0; first < length; first += 2 * half) {
            float *restrict const low = values + first;
            float *restrict const high = values + first + half;
            for (int64_t j = 0; j < half; j++) {
                const float sum = low[j] + high[j], difference = low[j] - high[j];
                low[j] = sum;
                high[j] = difference;
            }
        }
}

/* In place, length a power of two of at least 16. Turning the matrix between two halves of the
 * work keeps every inner loop long. */
ALWAYS_INLINE void hadamard(float *restrict values, float *restrict turned, int64_t length) {
    enum { COLUMNS = 16 };
    const int64_t rows = length / COLUMNS;
    mix_rows(values, length, COLUMNS);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t column = 0; column < COLUMNS; column++)
            turned[column * rows + row] = values[row * COLUMNS + column];
    mix_rows(turned, length, rows);
    const float scale = 1.0f / sqrtf((float)length);
    for (int64_t j = 0; j < length; j++)
        values[j] = turned[j] * scale;
}

/* The vector scaled to length 1, less the mean. */
ALWAYS_INLINE bool center_direction(const struct lowshot_encoder *encoder, const float *vector,
                                    float *values, float *inverse_length) {
    const int64_t dimension = encoder->dimension;
    const double length = length_of(vector, dimension);
    if (!isfinite(length))
        return false;
    const double inverse = length >= MIN_LENGTH ? 1.0 / length : 0.0;
    *inverse_length = (float)inverse;
    for (int64_t j = 0; j < dimension; j++)
        values[j] = (float)((double)vector[j] * inverse);
    for (int64_t j = 0; j < dimension; j++)
        values[j] = (values[j] - encoder->mean[j]) * encoder->signs[j];
    return true;
}

/* The vector itself, less the mean. */
ALWAYS_INLINE bool center_vector(const struct lowshot_encoder *encoder, const float *vector,
                                 float *values) {
    for (int64_t j = 0; j < encoder->dimension; j++)
        values[j] = (vector[j] - encoder->mean[j]) * encoder->signs[j];
    return length_of(values, encoder->dimension) <= FARTHEST;
}

/* With the bias -|v|^2 / 2 of the codes v, the score for q is (|q|^2 - |q - v|^2) / 2. What
 * rounding changes in a distance is in proportion to it, and nothing for equal vectors; what
 * cutting off changes makes it smaller, never larger, so that nobody is taken for farther away than
 * he is. Of vectors of length 1 the nearer one has the larger inner product. */
ALWAYS_INLINE int32_t bias_of_distance(const int8_t *codes, int64_t width) {
    int32_t sum = 0;
    for (int64_t j = 0; j < width; j++)
        sum += codes[j] * codes[j];
    return -(sum / 2);
}

/* Returns false for a vector that is not finite. room: two rows of the width of codes. Everything
 * above is inlined here, so that one choice of the processor's vectors serves all of it. */
ALWAYS_INLINE bool encode_row_portable(const struct lowshot_encoder *encoder, const float *vector,
                                       float *room, int8_t *codes, int32_t *bias,
                                       float *inverse_length) {
    const int64_t dimension = encoder->dimension, width = encoder->width;
    float *const values = room, *const turned = room + width;
    const bool euclidean = encoder->metric == LOWSHOT_EUCLIDEAN;
    if (!(euclidean ? center_vector(encoder, vector, values)
                    : center_direction(encoder, vector, values, inverse_length)))
        return false;
    for (int64_t j = dimension; j < width; j++)
        values[j] = 0.0f;
    const int64_t transformed = power_of_two_up_to(width);
    hadamard(values, turned, transformed);
    if (transformed < width) {
        for (int64_t j = 0; j < width; j++)
            values[j] *= encoder->signs[j];
        hadamard(values + width - transformed, turned, transformed);
    }
    /* Added to this number, a small one leaves its nearest integer in the last bits. */
    const float rounding = 12582912.0f;
    for (int64_t j = 0; j < width; j++) {
        const float steps = values[j] * encoder->scale;
        const float below = steps < 127.0f ? steps : 127.0f;
        values[j] = (below > -127.0f ? below : -127.0f) + rounding;
    }
    for (int64_t j = 0; j < width; j++) {
        uint32_t bits;
        memcpy(&bits, &values[j], sizeof(bits));
        codes[j] = (int8_t)(uint8_t)bits;
    }
    *bias = bias_of_distance(codes, width);
    /* The inner product with 0 is 0, as it is of vectors of length 1 whose distance squared is 2: 1
     * more than it is from 0. */
    if (!euclidean && *inverse_length == 0.0f)
        *bias -= (int32_t)lrintf(encoder->scale * encoder->scale / 2);
    return true;
}

FOR_EVERY_WIDTH(bool, encode_row,
                (const struct lowshot_encoder *encoder, const float *vector, float *room,
                 int8_t *codes, int32_t *bias, float *inverse_length),
                encoder, vector, room, codes, bias, inverse_length)

/* What would make codes or biases that are no integers. */
static int check_encoder(const struct lowshot_encoder *encoder, struct lowshot_fault *fault) {
    const double longest =
        encoder->metric == LOWSHOT_EUCLIDEAN ? LONGEST_MEAN : LONGEST_MEAN_OF_DIRECTIONS;
    if (!(length_of(encoder->mean, encoder->dimension) <= longest))
        return report_fault(fault, LOWSHOT_NOT_FINITE, 1, 0, 0);
    for (int64_t j = 0; j < encoder->width; j++)
        if (!(fabsf(encoder->signs[j]) == 1.0f))
            return report_fault(fault, LOWSHOT_NOT_FINITE, 2, j, 0);
    return LOWSHOT_OK;
}

/* Distances are as large as they are, so that a step may be of any size. */
static bool scale_fits(const struct lowshot_encoder *encoder) {
    return encoder->scale > 0 &&
           encoder->scale < (encoder->metric == LOWSHOT_EUCLIDEAN ? 1e36f : 1e4f);
}

int lowshot_encode(const struct lowshot_encoder *encoder, const float *vectors, int64_t rows,
                   int64_t stride, int8_t *codes, int32_t *biases, float *inverse_lengths,
                   struct lowshot_fault *fault) {
    if (encoder == NULL || encoder->mean == NULL || encoder->signs == NULL ||
        (encoder->metric != LOWSHOT_COSINE && encoder->metric != LOWSHOT_EUCLIDEAN) ||
        encoder->dimension < 1 || encoder->width < encoder->dimension ||
        encoder->width % CODE_WIDTH_UNIT != 0 || encoder->width > LOWSHOT_MAX_CODE_WIDTH ||
        !scale_fits(encoder) || !matrix_fits(vectors, rows, encoder->dimension, stride) ||
        !matrix_fits(codes, rows, encoder->width, encoder->width) ||
        !matrix_fits(biases, rows, 1, 1) ||
        (encoder->metric == LOWSHOT_COSINE && !matrix_fits(inverse_lengths, rows, 1, 1)))
        return report_fault(fault, LOWSHOT_BAD_SIZE, 0, 0, 0);
    const int kind = check_encoder(encoder, fault);
    if (kind != LOWSHOT_OK)
        return kind;
    int64_t first_bad = INT64_MAX;
    bool no_memory = false;
    struct stop stop = {0};
#pragma omp parallel reduction(min : first_bad) reduction(|| : no_memory)
    {
        float *const room = malloc(2 * (size_t)encoder->width * sizeof(float));
        if (room == NULL)
            no_memory = true;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            if (room == NULL || stop_wanted_by_row(&stop))
                continue;
            if (!encode_row(encoder, vectors + row * stride, room, codes + row * encoder->width,
                            biases + row, inverse_lengths != NULL ? inverse_lengths + row : NULL))
                first_bad = row < first_bad ? row : first_bad;
        }
        free(room);
    }
    if (no_memory)
        return report_fault(fault, LOWSHOT_NO_MEMORY, 0, 0, 0);
    if (stop.wanted)
        return report_fault(fault, LOWSHOT_STOPPED, 0, 0, 0);
    if (first_bad != INT64_MAX)
        return report_fault(fault, LOWSHOT_NOT_FINITE, 0, first_bad, 0);
    return LOWSHOT_OK;
}
