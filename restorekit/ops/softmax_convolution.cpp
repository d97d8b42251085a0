// Filter every pixel of a burst by the softmax of its own logits, see kernel_prediction.py. Pixels
// of a row lie along the lanes; the weights of a pixel are never written out.

#include "channels.h"

namespace {

constexpr int MOST_TAPS = 225, MOST_PLANES = 8;

// Return the exponentials of numbers that are not above 0, to 2e-7 of them; far below they end at
// 1e-38. Cephes' range reduction and polynomial.
inline Vector exponential(Vector numbers) {
    numbers = numbers < -87.0f ? Vector{} - 87.0f : numbers;
    const Vector whole = (numbers * 1.44269504f + 12582912.0f) - 12582912.0f;
    const Vector rest = (numbers - whole * 0.693359375f) - whole * -2.12194440e-4f;
    Vector sum = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    for (float factor : {8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        sum = sum * rest + factor;
    sum = sum * rest * rest + rest + 1.0f;
    const Words power = Words(__builtin_convertvector(whole, Counts)) + 127;
    return sum * Vector(power << 23);
}

template <typename Number>
struct SoftmaxConvolution {
    const float* cells;
    const Number* logits;
    float* filtered;
    // Frames of all bursts, their planes, the sides of a kernel and of a cell, those of the logits
    // in cells, and those of the padded frames in cells.
    Index frames, planes, side, cell, height, width, padded_height, padded_width;

    void run(int threads) const {
        const Index rows = frames * cell * cell * height;
#pragma omp parallel for num_threads(threads)
        for (Index row = 0; row < rows; ++row) {
            const Index y = row % height, pixel = row / height % (cell * cell);
            for (Index x = 0; x < width; x += LANES)
                filter(row / height / (cell * cell), pixel, y, std::min(x, width - LANES));
        }
    }

    void filter(Index frame, Index pixel, Index y, Index x) const {
        const Index taps = side * side, pixels = cell * cell;
        Vector scores[MOST_TAPS], sums[MOST_PLANES]{}, total{};
        Vector peak = Vector{} - __builtin_inff();
        for (Index tap = 0; tap < taps; ++tap) {
            const Index plane = (frame * taps + tap) * pixels + pixel;
            scores[tap] = load_wide(logits + (plane * height + y) * width + x);
            peak = scores[tap] > peak ? scores[tap] : peak;
        }
        for (Index tap = 0; tap < taps; ++tap) {
            const Index top = pixel / cell + tap / side, left = pixel % cell + tap % side;
            const Index place = top % cell * cell + left % cell;
            const Vector weight = exponential(scores[tap] - peak);
            total += weight;
            for (Index c = 0; c < planes; ++c) {
                const Index plane = (frame * planes + c) * pixels + place;
                sums[c] += weight * load(cells + (plane * padded_height + y + top / cell) *
                                                     padded_width + x + left / cell);
            }
        }
        for (Index c = 0; c < planes; ++c) {
            const Index plane = (frame * planes + c) * pixels + pixel;
            at(filtered + (plane * height + y) * width + x) = sums[c] / total;
        }
    }
};

}  // namespace

// Rows must be LANES wide at least; there are at most MOST_TAPS and MOST_PLANES.
#define EXPORT(NAME, NUMBER)                                                                       \
    extern "C" void softmax_convolution_##NAME(const float* cells, const NUMBER* logits,           \
                                               float* filtered, const int64_t* sizes,              \
                                               int threads) {                                      \
        SoftmaxConvolution<NUMBER>{cells,    logits,   filtered, sizes[0], sizes[1], sizes[2],     \
                                   sizes[3], sizes[4], sizes[5], sizes[6], sizes[7]}               \
            .run(threads);                                                                         \
    }

EXPORT(float32, float)
EXPORT(bfloat16, BFloat16)
