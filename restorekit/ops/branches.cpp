// The branches of KBNet's block without kernel bases: a norm, two branches of a 1x1 and a depthwise
// 3x3 convolution, their product weighed by channel, a 1x1 convolution, and the sum with the input.
// Rows go through three lines of the cache, so that what lies between is never written out.

#include "channels.h"

namespace {

constexpr int TAPS = 9;

// Stretches of rows are shared among the threads; each makes the row above and below it anew.
template <typename Number>
struct Branches {
    using Pack = Factor<Number>;
    using Word = typename Pack::Word;

    const Number* features;
    const float *norm, *norm_bias;
    Matrix<Pack> points;
    const float *depthwise, *depthwise_bias, *weights;
    Matrix<Pack> project;
    Number* result;
    Index batch, channels, height, width;

    void run(int threads) const {
        const Index rows = std::clamp<Index>(height / threads, 8, 64);
        const Index each = (height + rows - 1) / rows;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (Index task = 0; task < batch * each; ++task)
            run_rows(task / each, task % each * rows, std::min(task % each * rows + rows, height));
    }

    Index row_size() const { return (width + 2) * 2 * channels; }

    void run_rows(Index picture, Index top, Index bottom) const {
        std::vector<float> lines(3 * row_size());
        std::vector<Word> factors(BLOCK * points.words);
        auto line = [&](Index y) { return lines.data() + (y + 3) % 3 * row_size(); };
        expand(picture, top - 1, line(top - 1), factors.data());
        expand(picture, top, line(top), factors.data());
        for (Index y = top; y < bottom; ++y) {
            expand(picture, y + 1, line(y + 1), factors.data());
            for (Index x = 0; x < width; x += BLOCK)
                join(picture, y, x, {line(y - 1), line(y), line(y + 1)}, factors.data());
        }
    }

    // Write what the 1x1 convolutions of both branches make of a row, with a zero at either end.
    void expand(Index picture, Index y, float* line, Word* factors) const {
        if (y < 0 || y >= height) {
            std::fill_n(line, row_size(), 0.0f);
            return;
        }
        const Number* row = features + (picture * height + y) * width * channels;
        for (Index first = 0; first < width; first += BLOCK) {
            const Index count = std::min<Index>(BLOCK, width - first);
            for (Index pixel = 0; pixel < count; ++pixel)
                normalise(row + (first + pixel) * channels, channels, norm, norm_bias,
                          factors + pixel * points.words);
            float* place = line + (first + 1) * 2 * channels;
            points.each(factors, count, [&](Index pixel, Index output, Vector sum) {
                at(place + pixel * 2 * channels + output) = sum;
            });
        }
        std::fill_n(line, 2 * channels, 0.0f);
        std::fill_n(line + (width + 1) * 2 * channels, 2 * channels, 0.0f);
    }

    struct Lines {
        const float* rows[3];
    };

    // Convolve the three rows around some pixels, and write what comes of both branches.
    void join(Index picture, Index y, Index x, Lines lines, Word* factors) const {
        const Index count = std::min<Index>(BLOCK, width - x);
        for (Index c = 0; c < channels; c += LANES)
            join_channels(lines, x, count, c, weights + picture * channels, factors);
        const Index first = ((picture * height + y) * width + x) * channels;
        project.each(factors, count, [&](Index pixel, Index output, Vector sum) {
            const Index place = first + pixel * channels + output;
            store_narrow(load_wide(features + place) + sum, result + place);
        });
    }

    [[gnu::noinline]] void join_channels(Lines lines, Index x, Index count, Index c,
                                         const float* weights, Word* factors) const {
        Vector taps[2][TAPS];
        for (int branch = 0; branch < 2; ++branch)
            for (int t = 0; t < TAPS; ++t)
                taps[branch][t] = load(depthwise + (t * 2 + branch) * channels + c);
        const Vector first = load(depthwise_bias + c), second = load(depthwise_bias + channels + c);
        const Vector weight = load(weights + c);
        for (Index pixel = 0; pixel < count; ++pixel) {
            Vector sums[2] = {first, second};
#pragma GCC unroll 2
            for (int branch = 0; branch < 2; ++branch)
#pragma GCC unroll 9
                for (int t = 0; t < TAPS; ++t)
                    sums[branch] += taps[branch][t] *
                                    load(lines.rows[t / 3] +
                                         ((x + pixel + t % 3) * 2 + branch) * channels + c);
            store_factors(sums[0] * sums[1] * weight, factors + pixel * project.words, c);
        }
    }
};

template <typename Number>
void branches(const Number* features, const float* norm, const float* norm_bias,
              const Number* points, const float* points_bias, const float* depthwise,
              const float* depthwise_bias, const float* weights, const Number* project,
              const float* project_bias, Number* result, const Index* sizes, int threads) {
    const Index channels = sizes[1];
    Branches<Number>{features,
                     norm,
                     norm_bias,
                     {points, points_bias, 2 * channels, channels},
                     depthwise,
                     depthwise_bias,
                     weights,
                     {project, project_bias, channels, channels},
                     result,
                     sizes[0],
                     channels,
                     sizes[2],
                     sizes[3]}
        .run(threads);
}

}  // namespace

// Sizes are B, C, H and W. The depthwise weights are (3, 3, 2C), those of the values first.
#define EXPORT(NAME, NUMBER)                                                                       \
    extern "C" void branches_##NAME(const NUMBER* features, const float* norm,                     \
                                    const float* norm_bias, const NUMBER* points,                  \
                                    const float* points_bias, const float* depthwise,              \
                                    const float* depthwise_bias, const float* weights,             \
                                    const NUMBER* project, const float* project_bias,              \
                                    NUMBER* result, const int64_t* sizes, int threads) {           \
        branches(features, norm, norm_bias, points, points_bias, depthwise, depthwise_bias,        \
                 weights, project, project_bias, result, sizes, threads);                          \
    }

EXPORT(float32, float)
EXPORT(bfloat16, BFloat16)
