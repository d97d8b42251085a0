// The gated feed-forward of KBNet's block: a norm, a 1x1 convolution whose halves are multiplied, a
// 1x1 convolution back, and the sum with the input. What lies between stays in the cache.

#include "channels.h"

namespace {

template <typename Number>
void feed_forward(const Number* features, const float* norm, const float* norm_bias,
                  const Number* expand, const float* expand_bias, const Number* reduce,
                  const float* reduce_bias, Number* result, const Index* sizes, int threads) {
    using Pack = Factor<Number>;
    using Word = typename Pack::Word;
    const Index pixels = sizes[0], channels = sizes[1], hidden = sizes[2];
    const Matrix<Pack, true> there(expand, expand_bias, 2 * hidden, channels);
    const Matrix<Pack> back(reduce, reduce_bias, channels, hidden);
#pragma omp parallel num_threads(threads)
    {
        std::vector<Word> normal(BLOCK * there.words), gated(BLOCK * back.words);
#pragma omp for
        for (Index first = 0; first < pixels; first += BLOCK) {
            const Index count = std::min<Index>(BLOCK, pixels - first);
            const Number* block = features + first * channels;
            for (Index pixel = 0; pixel < count; ++pixel)
                normalise(block + pixel * channels, channels, norm, norm_bias,
                          normal.data() + pixel * there.words);
            there.each(normal.data(), count, [&](Index pixel, Index output, Vector product) {
                store_factors(product, gated.data() + pixel * back.words, output);
            });
            back.each(gated.data(), count, [&](Index pixel, Index output, Vector sum) {
                const Index place = pixel * channels + output;
                store_narrow(load_wide(block + place) + sum, result + first * channels + place);
            });
        }
    }
}

}  // namespace

// Sizes are the pixels, the channels and those between.
#define EXPORT(NAME, NUMBER)                                                                       \
    extern "C" void feed_forward_##NAME(const NUMBER* features, const float* norm,                 \
                                        const float* norm_bias, const NUMBER* expand,              \
                                        const float* expand_bias, const NUMBER* reduce,            \
                                        const float* reduce_bias, NUMBER* result,                  \
                                        const int64_t* sizes, int threads) {                       \
        feed_forward(features, norm, norm_bias, expand, expand_bias, reduce, reduce_bias, result,  \
                     sizes, threads);                                                              \
    }

EXPORT(float32, float)
EXPORT(bfloat16, BFloat16)
