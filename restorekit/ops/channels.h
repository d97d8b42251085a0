// What kernels share whose channels lie along the lanes of a vector: the norm of a pixel, and the
// product of some pixels with the matrix of a 1x1 convolution.

#pragma once

#include "kernels.h"

namespace {

// Pixels whose outputs are in registers at a time, and those that the cache holds.
constexpr int PIXELS = MANY ? 6 : 2, BLOCK = 48;
constexpr float EPSILON = 1e-6f;

inline Vector load_wide(const float* numbers) { return load(numbers); }

inline Vector load_wide(const BFloat16* numbers) {
    const auto& halves = *reinterpret_cast<const Halves*>(numbers);
    return Vector(__builtin_convertvector(halves, Words) << 16);
}

inline void store_narrow(Vector numbers, float* place) { at(place) = numbers; }

inline void store_narrow(Vector numbers, BFloat16* place) {
    *reinterpret_cast<Halves*>(place) = bfloat16(numbers);
}

// Store numbers as the factors of a product, from a channel on.
inline void store_factors(Vector numbers, float* row, Index channel) {
    at(row + channel) = numbers;
}

inline void store_factors(Vector numbers, uint32_t* row, Index channel) {
    store_narrow(numbers, reinterpret_cast<BFloat16*>(row + channel / 2));
}

inline float total(Vector numbers) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(__m512(numbers));
#else
    float sum = 0;
    for (int lane = 0; lane < LANES; ++lane) sum += numbers[lane];
    return sum;
#endif
}

// Normalise a pixel over its channels (layer norm), and store it as factors.
template <typename Number, typename Word>
void normalise(const Number* pixel, Index channels, const float* weight, const float* bias,
               Word* factors) {
    Vector sum{}, squares{};
    for (Index c = 0; c < channels; c += LANES) sum += load_wide(pixel + c);
    const float mean = total(sum) / channels;
    for (Index c = 0; c < channels; c += LANES) {
        const Vector off = load_wide(pixel + c) - mean;
        squares += off * off;
    }
    const float scale = 1 / std::sqrt(total(squares) / channels + EPSILON);
    for (Index c = 0; c < channels; c += LANES)
        store_factors((load_wide(pixel + c) - mean) * scale * load(weight + c) + load(bias + c),
                      factors, c);
}

// The (outputs, inputs) matrix of a 1x1 convolution, in columns of some vectors of outputs. If its
// outputs are GATED, their halves are multiplied with one another, and each column has as many
// vectors of both.
template <typename Pack, bool GATED = false>
struct Matrix {
    using Word = typename Pack::Word;
    Index outputs, words, vectors;
    std::vector<Word> packed;
    const float* bias;

    template <typename Number>
    Matrix(const Number* numbers, const float* bias, Index outputs, Index inputs)
        : outputs(outputs), words(inputs / Pack::DEPTH),
          vectors(outputs % (4 * LANES) == 0 ? 4 : outputs % (2 * LANES) == 0 ? 2 : 1),
          packed(outputs * words), bias(bias) {
        for (Index column = 0; column < outputs; column += vectors * LANES)
            for (Index v = 0; v < vectors; ++v)
                for (Index lane = 0; lane < LANES; ++lane) {
                    const Number* row = numbers + (first(column, v) + lane) * inputs;
                    Word* place = packed.data() + column * words + v * LANES + lane;
                    for (Index word = 0; word < words; ++word)
                        place[word * vectors * LANES] = Pack::pack(row + word * Pack::DEPTH, 1);
                }
    }

    // Return the first output of a vector of a column.
    Index first(Index column, Index v) const {
        if (!GATED) return column + v * LANES;
        const Index half = vectors / 2;
        return column / 2 + v % half * LANES + v / half * outputs / 2;
    }

    // Return the sums of a column for PIXELS rows of factors.
    template <int V>
    [[gnu::noinline]] void multiply(const Word* rows, Index column, Vector (*sums)[V]) const {
        const Word* weights = packed.data() + column * words;
        Vector found[PIXELS][V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            const Vector start = load(bias + first(column, v));
#pragma GCC unroll 6
            for (int p = 0; p < PIXELS; ++p) found[p][v] = start;
        }
        for (Index word = 0; word < words; ++word, weights += V * LANES)
#pragma GCC unroll 6
            for (int p = 0; p < PIXELS; ++p)
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v)
                    Pack::multiply_add(found[p][v], rows[p * words + word], weights + v * LANES);
        std::memcpy(sums, found, sizeof found);
    }

    // Hand the outputs of some rows of factors, up to BLOCK, to use(pixel, output, sum), or the
    // products of their halves.
    template <typename Use>
    void each(const Word* rows, Index count, Use use) const {
        if (vectors == 4) each_of<4>(rows, count, use);
        else if (vectors == 2) each_of<2>(rows, count, use);
        else each_of<1>(rows, count, use);
    }

    template <int V, typename Use>
    void each_of(const Word* rows, Index count, Use use) const {
        constexpr int HALF = V / 2;
        Vector sums[PIXELS][V];
        for (Index column = 0; column < outputs; column += V * LANES)
            for (Index pixel = 0; pixel < count; pixel += PIXELS) {
                multiply<V>(rows + pixel * words, column, sums);
                for (Index p = 0; p < std::min<Index>(PIXELS, count - pixel); ++p)
                    if constexpr (GATED)
                        for (int v = 0; v < HALF; ++v)
                            use(pixel + p, column / 2 + v * LANES, sums[p][v] * sums[p][v + HALF]);
                    else
                        for (int v = 0; v < V; ++v) use(pixel + p, column + v * LANES, sums[p][v]);
            }
    }
};

}  // namespace
