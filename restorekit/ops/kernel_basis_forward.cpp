// Kernel basis attention: the bases are applied first, and their answers mixed while they are in
// registers, so that no kernel of a pixel is ever written out.

#include "kernel_basis.h"

namespace {

// Mix the answers of all bases to one tile of pixels of a group. This and the other sums over many
// factors stay functions of their own: inlined, they may lose their registers.
template <typename Pack>
[[gnu::noinline]] void mix_tile(const typename Pack::Word* values, const Block& block,
                                const float* mixing, const typename Pack::Word* weights,
                                const float* biases, Index sets, Vector mixed[GROUP][VECTORS]) {
    std::fill_n(&mixed[0][0], GROUP * VECTORS, Vector{});
    for (Index set = 0; set < sets; ++set, biases += ROWS) {
        Vector answers[ROWS][VECTORS];
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
            for (int i = 0; i < VECTORS; ++i) answers[r][i] = biases[r] + Vector{};
        for (int c = 0; c < GROUP; c += Pack::DEPTH) {
            const auto* first = values + c / Pack::DEPTH * block.plane;
#pragma GCC unroll 9
            for (int t = 0; t < TAPS; ++t, weights += ROWS)
#pragma GCC unroll 8
                for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
                    for (int i = 0; i < VECTORS; ++i)
                        Pack::multiply_add(answers[r][i], weights[r],
                                           first + t / 3 * block.line + t % 3 + i * LANES);
        }
#pragma GCC unroll 2
        for (int n = 0; n < BASES; ++n, mixing += block.pixels)
#pragma GCC unroll 3
            for (int i = 0; i < VECTORS; ++i) {
                const Vector weight = load(mixing + i * LANES);
#pragma GCC unroll 4
                for (int o = 0; o < GROUP; ++o) mixed[o][i] += weight * answers[n * GROUP + o][i];
            }
    }
}

template <typename Number>
struct Forward {
    using Pack = Factor<Number>;
    using Word = typename Pack::Word;
    static constexpr int PLANES = GROUP / Pack::DEPTH;

    View<Number> values, coefficients;
    const Number *bases, *biases;
    Number* mixed;
    Shape shape;

    // Blocks of rows are shared among the threads, and stretches of groups where they are few.
    void run(int threads) const {
        const Index rows = shape.rows_at_once(), each = (shape.height + rows - 1) / rows;
        const Index blocks = shape.batch * each;
        const Index stretches =
            std::min((4 * threads + blocks - 1) / blocks, shape.groups());
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (Index task = 0; task < blocks * stretches; ++task) {
            const Index block = task / stretches, stretch = task % stretches;
            mix({shape, block / each, block % each * rows},
                stretch * shape.groups() / stretches, (stretch + 1) * shape.groups() / stretches);
        }
    }

    void mix(const Block& block, Index first, Index last) const {
        const Index sets = (shape.count + BASES - 1) / BASES;
        std::vector<Word> lines(PLANES * block.plane), weights(sets * PLANES * TAPS * ROWS);
        std::vector<float> mixing(sets * BASES * block.pixels), set_biases(sets * ROWS);
        lay_out<Single>(coefficients, shape, block.picture, 0, shape.count, block.top,
                        block.bottom, mixing.data(), block.pixels);
        for (Index group = first; group < last; ++group) {
            pack_bases(group, weights.data(), set_biases.data());
            lay_out<Pack>(values, shape, block.picture, group * GROUP, GROUP, block.top - 1,
                          block.bottom + 1, lines.data() + 1, block.plane);
            for (Index pixel = 0; pixel < block.pixels; pixel += TILE) {
                Vector sums[GROUP][VECTORS];
                mix_tile<Pack>(lines.data() + pixel, block, mixing.data() + pixel, weights.data(),
                               set_biases.data(), sets, sums);
                store(block, group, pixel, sums);
            }
        }
    }

    void pack_bases(Index group, Word* weights, float* set_biases) const {
        constexpr int KERNEL = GROUP * TAPS;
        for (Index n = 0; n < shape.count; ++n) {
            const Index channel = n * shape.channels + group * GROUP;
            const Index set = n / BASES, row = n % BASES * GROUP;
            const Number* kernels = bases + channel * KERNEL;
            Word* words = weights + set * PLANES * TAPS * ROWS + row;
            for (int c = 0; c < PLANES; ++c, kernels += (Pack::DEPTH - 1) * TAPS)
                for (int t = 0; t < TAPS; ++t, ++kernels, words += ROWS)
                    for (int o = 0; o < GROUP; ++o)
                        words[o] = Pack::pack(kernels + o * KERNEL, TAPS);
            for (int o = 0; o < GROUP; ++o)
                set_biases[set * ROWS + row + o] = widen(biases[channel + o]);
        }
    }

    void store(const Block& block, Index group, Index pixel,
               const Vector sums[GROUP][VECTORS]) const {
        constexpr int WORDS = GROUP * sizeof(Number) / sizeof(uint32_t);
        Words words[WORDS][VECTORS];
        for (int w = 0; w < WORDS; ++w)
            for (int i = 0; i < VECTORS; ++i)
                words[w][i] = WORDS == GROUP ? Words(sums[w][i])
                                             : bfloat16_words(sums[2 * w][i]) |
                                                   bfloat16_words(sums[2 * w + 1][i]) << 16;
        const auto* lanes = reinterpret_cast<const Lane*>(words);
        Index y = block.top + pixel / block.line, x = pixel % block.line;
        for (int i = 0; i < TILE && y < block.bottom; ++i) {
            if (x < shape.width) {
                const Index place = (block.picture * shape.height + y) * shape.width + x;
                uint32_t outputs[WORDS];
                for (int w = 0; w < WORDS; ++w) outputs[w] = lanes[w * TILE + i];
                std::memcpy(mixed + place * shape.channels + group * GROUP, outputs,
                            sizeof outputs);
            }
            if (++x == block.line) x = 0, ++y;
        }
    }
};

}  // namespace

// Sizes are B, C, H, W and N, and the strides of the values and the coefficients.
#define EXPORT(NAME, NUMBER)                                                                       \
    extern "C" void kernel_basis_forward_##NAME(                                                   \
        const NUMBER* values, const NUMBER* coefficients, const NUMBER* bases,                     \
        const NUMBER* biases, NUMBER* mixed, const int64_t* sizes, int threads) {                  \
        Forward<NUMBER>{{values, sizes + 5}, {coefficients, sizes + 9}, bases, biases, mixed,      \
                        Shape(sizes)}                                                              \
            .run(threads);                                                                         \
    }

EXPORT(float32, float)
EXPORT(bfloat16, BFloat16)
