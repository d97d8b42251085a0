// The gradients of kernel basis attention. All but those of the values are sums over the products
// of every output's gradient with its inputs, which are written out for a tile of pixels at a time.

#include "kernel_basis.h"

namespace {

// The inputs of an output are the taps of its group, and one for the bias.
constexpr int INPUTS = GROUP * TAPS + 1, PRODUCTS = GROUP * INPUTS;
// Rows of products, and vectors of a tap, whose sums are in registers at a time.
constexpr int AT_ONCE = MANY ? 12 : 4, ABREAST = LANES == 16 ? 3 : 1;

// Store products row by row, and pixel by pixel where that is another order: two rows make a row of
// pairs, and two pixels of a row a pair.
inline void store(Vector products, Index row, Index pixel, float* by_row, float*) {
    at(by_row + row * TILE + pixel) = products;
}

inline void store(Vector products, Index row, Index pixel, uint32_t* by_row, uint32_t* by_pixel) {
    const Words bits = bfloat16_words(products);
    auto& words = *reinterpret_cast<Words*>(by_row + row / 2 * TILE + pixel);
    words = row % 2 ? words | bits << 16 : bits;
    auto* halves = reinterpret_cast<Halves*>(by_pixel + (row * TILE + pixel) / 2);
    *halves = bfloat16(products);
}

// Write the products of every output's gradient with its inputs, for one tile of pixels.
template <typename Pack>
void multiply(const float* lines, const Block& block, const float* outputs,
              typename Pack::Word* by_row, typename Pack::Word* by_pixel) {
    for (int row = 0; row < PRODUCTS; ++row) {
        const int o = row / INPUTS, k = row % INPUTS, c = k / TAPS, y = k % TAPS / 3, x = k % 3;
        const float* output = outputs + o * block.pixels;
        const float* input = lines + c * block.plane + y * block.line + x;
        for (int i = 0; i < TILE; i += LANES)
            store(k + 1 < INPUTS ? load(output + i) * load(input + i) : load(output + i), row, i,
                  by_row, by_pixel);
    }
}

// Add to the gradients of the coefficients of some bases what the products of a tile tell.
template <typename Pack>
[[gnu::noinline]] void add_to_coefficients(const typename Pack::Word* products,
                                           const typename Pack::Word* weights, float* gradient,
                                           Index stride) {
    Vector sums[ROWS][VECTORS]{};
    for (int k = 0; k < PRODUCTS; k += Pack::DEPTH, products += TILE, weights += ROWS)
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
            for (int i = 0; i < VECTORS; ++i)
                Pack::multiply_add(sums[r][i], weights[r], products + i * LANES);
    for (int r = 0; r < ROWS; ++r)
        for (int i = 0; i < VECTORS; ++i) at(gradient + r * stride + i * LANES) += sums[r][i];
}

// Add to the gradients of some taps of bases, whose bases lie along the lanes.
template <typename Pack, int R, int V>
[[gnu::noinline]] void add_to_taps(const typename Pack::Word* products,
                                   const typename Pack::Word* mixing, Index stride,
                                   float* gradient) {
    constexpr int WORDS = TILE / Pack::DEPTH;
    Vector sums[R][V]{};
    for (int word = 0; word < WORDS; ++word, ++products, mixing += stride)
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
            for (int i = 0; i < V; ++i)
                Pack::multiply_add(sums[r][i], products[r * WORDS], mixing + i * LANES);
    for (int r = 0; r < R; ++r)
        for (int i = 0; i < V; ++i) at(gradient + r * stride + i * LANES) += sums[r][i];
}

template <typename Pack, int R>
void add_to_taps(const typename Pack::Word* products, const typename Pack::Word* mixing,
                 Index stride, float* gradient) {
    Index lane = 0;
    for (; lane + 2 * LANES <= stride; lane += 2 * LANES)
        add_to_taps<Pack, R, 2>(products, mixing + lane, stride, gradient + lane);
    if (lane < stride) add_to_taps<Pack, R, 1>(products, mixing + lane, stride, gradient + lane);
}

// Add to the gradient of one channel what its taps hand back for some vectors of pixels.
template <typename Pack>
[[gnu::noinline]] void add_to_values(const float* outputs, const Block& block,
                                     const typename Pack::Word* mixing, Index words,
                                     const typename Pack::Word* weights, float* gradient) {
    Vector taps[TAPS][ABREAST]{};
    for (int o = 0; o < GROUP; ++o, outputs += block.pixels) {
        Vector kernel[TAPS][ABREAST]{};
        for (Index n = 0; n < words; ++n, weights += TAPS)
#pragma GCC unroll 9
            for (int t = 0; t < TAPS; ++t)
#pragma GCC unroll 3
                for (int i = 0; i < ABREAST; ++i)
                    Pack::multiply_add(kernel[t][i], weights[t],
                                       mixing + n * block.pixels + i * LANES);
        for (int t = 0; t < TAPS; ++t)
            for (int i = 0; i < ABREAST; ++i)
                taps[t][i] += kernel[t][i] * load(outputs + i * LANES);
    }
    for (int t = 0; t < TAPS; ++t)
        for (int i = 0; i < ABREAST; ++i)
            at(gradient + t / 3 * block.line + t % 3 + i * LANES) += taps[t][i];
}

template <typename Number>
struct Backward {
    using Pack = Factor<Number>;
    using Word = typename Pack::Word;
    using Part = typename Pack::Part;
    static constexpr int DEPTH = Pack::DEPTH;

    View<Number> values, coefficients, outputs;
    const Number *bases, *biases;
    float *values_gradient, *coefficients_gradient, *bases_gradient, *biases_gradient;
    Shape shape;
    Index lanes = rounded_up(shape.count, LANES), sets = (shape.count + ROWS - 1) / ROWS;
    Index words = (shape.count + DEPTH - 1) / DEPTH;
    // What the packed weights and the gradients of one group take.
    Index to_coefficients_size = sets * PRODUCTS / DEPTH * ROWS;
    Index to_values_size = GROUP * GROUP * words * TAPS, taps_size = PRODUCTS * lanes;

    // Every part takes some of the groups, through one block of pixels after the other, and has
    // gradients of the coefficients of its own, which are summed block by block.
    void run(int parts) const {
        std::vector<Word> to_coefficients(shape.groups() * to_coefficients_size);
        std::vector<Word> to_values(shape.groups() * to_values_size);
        std::vector<float> taps(shape.groups() * taps_size);
        std::vector<std::vector<float>> mixing_gradients(parts);
#pragma omp parallel num_threads(parts)
        {
#pragma omp for
            for (Index group = 0; group < shape.groups(); ++group)
                pack_bases(group, to_coefficients.data() + group * to_coefficients_size,
                           to_values.data() + group * to_values_size);
            for (Index picture = 0; picture < shape.batch; ++picture)
                for (Index top = 0; top < shape.height; top += shape.rows_at_once()) {
                    const Block block(shape, picture, top);
#pragma omp for
                    for (int part = 0; part < parts; ++part) {
                        mixing_gradients[part].assign(sets * ROWS * block.pixels, 0);
                        differentiate(block, part * shape.groups() / parts,
                                      (part + 1) * shape.groups() / parts, to_coefficients.data(),
                                      to_values.data(), taps.data(), mixing_gradients[part].data());
                    }
#pragma omp for
                    for (Index y = block.top; y < block.bottom; ++y)
                        store_coefficients(block, y, mixing_gradients);
                }
#pragma omp for
            for (Index group = 0; group < shape.groups(); ++group)
                store_bases(group, taps.data() + group * taps_size);
        }
    }

    // Parts of words are adjoining inputs for the coefficients, and adjoining bases for the values.
    void pack_bases(Index group, Word* to_coefficients, Word* to_values) const {
        auto* inputs = reinterpret_cast<Part*>(to_coefficients);
        auto* outputs = reinterpret_cast<Part*>(to_values);
        for (Index n = 0; n < shape.count; ++n)
            for (int o = 0; o < GROUP; ++o) {
                const Index channel = n * shape.channels + group * GROUP + o;
                for (int k = 0; k < INPUTS; ++k) {
                    const int row = o * INPUTS + k;
                    const Part weight = Pack::part(
                        k + 1 < INPUTS ? bases[channel * GROUP * TAPS + k] : biases[channel]);
                    const Index set = n / ROWS * PRODUCTS / DEPTH;
                    inputs[((set + row / DEPTH) * ROWS + n % ROWS) * DEPTH + row % DEPTH] = weight;
                    if (k + 1 == INPUTS) break;
                    const Index kernel = (k / TAPS * GROUP + o) * words + n / DEPTH;
                    outputs[(kernel * TAPS + k % TAPS) * DEPTH + n % DEPTH] = weight;
                }
            }
    }

    void differentiate(const Block& block, Index first, Index last, const Word* to_coefficients,
                       const Word* to_values, float* taps, float* mixing_gradient) const {
        const Index pixels = block.pixels, plane = block.plane;
        std::vector<Word> mixing(words * pixels), mixing_by_pixel(pixels / DEPTH * lanes);
        std::vector<Word> products(PRODUCTS * TILE), products_by_pixel(PRODUCTS * TILE);
        std::vector<float> lines(GROUP * plane), gradient(GROUP * pixels), lines_gradient;
        Word* by_row = products.data();
        Word* by_pixel = DEPTH == 1 ? by_row : products_by_pixel.data();
        lay_out<Pack>(coefficients, shape, block.picture, 0, shape.count, block.top, block.bottom,
                      mixing.data(), pixels);
        turn(mixing.data(), pixels, mixing_by_pixel.data());
        for (Index group = first; group < last; ++group) {
            const Index channel = group * GROUP;
            const Word* group_to_coefficients = to_coefficients + group * to_coefficients_size;
            const Word* group_to_values = to_values + group * to_values_size;
            float* group_taps = taps + group * taps_size;
            lay_out<Single>(values, shape, block.picture, channel, GROUP, block.top - 1,
                            block.bottom + 1, lines.data() + 1, plane);
            lay_out<Single>(outputs, shape, block.picture, channel, GROUP, block.top, block.bottom,
                            gradient.data(), pixels);
            lines_gradient.assign(GROUP * plane, 0);
            for (Index pixel = 0; pixel < pixels; pixel += TILE) {
                multiply<Pack>(lines.data() + pixel, block, gradient.data() + pixel, by_row,
                               by_pixel);
                for (Index set = 0; set < sets; ++set)
                    add_to_coefficients<Pack>(
                        by_row, group_to_coefficients + set * PRODUCTS / DEPTH * ROWS,
                        mixing_gradient + set * ROWS * pixels + pixel, pixels);
                const Word* tile_mixing = mixing_by_pixel.data() + pixel / DEPTH * lanes;
                int row = 0;
                for (; row + AT_ONCE <= PRODUCTS; row += AT_ONCE)
                    add_to_taps<Pack, AT_ONCE>(by_pixel + row * TILE / DEPTH, tile_mixing, lanes,
                                               group_taps + row * lanes);
                for (; row < PRODUCTS; row += GROUP)
                    add_to_taps<Pack, GROUP>(by_pixel + row * TILE / DEPTH, tile_mixing, lanes,
                                             group_taps + row * lanes);
                for (int c = 0; c < GROUP; ++c)
                    for (Index i = pixel; i < pixel + TILE; i += ABREAST * LANES)
                        add_to_values<Pack>(gradient.data() + i, block, mixing.data() + i, words,
                                            group_to_values + c * GROUP * words * TAPS,
                                            lines_gradient.data() + c * plane + i);
            }
            add_lines(block, channel, lines_gradient.data() + 1);
        }
    }

    // Lay the bases along the lanes, with adjoining pixels as the parts of a word.
    void turn(const Word* mixing, Index pixels, Word* mixing_by_pixel) const {
        const auto* from = reinterpret_cast<const Part*>(mixing);
        auto* to = reinterpret_cast<Part*>(mixing_by_pixel);
        for (Index n = 0; n < shape.count; ++n)
            for (Index pixel = 0; pixel < pixels; ++pixel)
                to[(pixel / DEPTH * lanes + n) * DEPTH + pixel % DEPTH] =
                    from[(n / DEPTH * pixels + pixel) * DEPTH + n % DEPTH];
    }

    void add_lines(const Block& block, Index channel, const float* lines) const {
        for (Index y = block.top - 1; y < block.bottom + 1; ++y, lines += block.line) {
            if (y < 0 || y >= shape.height) continue;
            const Index first = (block.picture * shape.height + y) * shape.width;
            float* row = values_gradient + first * shape.channels + channel;
            for (Index x = 0; x < shape.width; ++x)
                for (int c = 0; c < GROUP; ++c)
                    row[x * shape.channels + c] += lines[c * block.plane + x];
        }
    }

    void store_coefficients(const Block& block, Index y,
                            const std::vector<std::vector<float>>& gradients) const {
        float* row = coefficients_gradient +
                     (block.picture * shape.height + y) * shape.width * shape.count;
        for (Index x = 0; x < shape.width; ++x)
            for (Index n = 0; n < shape.count; ++n) {
                float sum = 0;
                for (const auto& gradient : gradients)
                    sum += gradient[n * block.pixels + (y - block.top) * block.line + x];
                row[x * shape.count + n] = sum;
            }
    }

    void store_bases(Index group, const float* taps) const {
        for (Index n = 0; n < shape.count; ++n)
            for (int o = 0; o < GROUP; ++o) {
                const Index channel = n * shape.channels + group * GROUP + o;
                const float* inputs = taps + o * INPUTS * lanes + n;
                for (int k = 0; k < GROUP * TAPS; ++k)
                    bases_gradient[channel * GROUP * TAPS + k] = inputs[k * lanes];
                biases_gradient[channel] = inputs[(INPUTS - 1) * lanes];
            }
    }
};

}  // namespace

// Sizes are B, C, H, W and N, and the strides of the values, the coefficients and the outputs.
#define EXPORT(NAME, NUMBER)                                                                       \
    extern "C" void kernel_basis_backward_##NAME(                                                  \
        const NUMBER* values, const NUMBER* coefficients, const NUMBER* outputs,                   \
        const NUMBER* bases, const NUMBER* biases, float* values_gradient,                         \
        float* coefficients_gradient, float* bases_gradient, float* biases_gradient,               \
        const int64_t* sizes, int parts) {                                                         \
        Backward<NUMBER>{{values, sizes + 5},   {coefficients, sizes + 9}, {outputs, sizes + 13},  \
                         bases,                 biases,                    values_gradient,        \
                         coefficients_gradient, bases_gradient,            biases_gradient,        \
                         Shape(sizes)}                                                             \
            .run(parts);                                                                           \
    }

EXPORT(float32, float)
EXPORT(bfloat16, BFloat16)
