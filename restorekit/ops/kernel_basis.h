// How kernel basis attention on CPUs lays out its numbers, for groups of four channels: KBNet
// (Zhang et al., 2023), Section 3.1. Pixels lie along the lanes of a vector, so that a tap of a
// kernel is a load at an offset; rows of pixels are laid out as one line, with a zero after each as
// the border of both neighbours. Sums are float32.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace {

// Lanes of a vector, bases whose answers are in registers at a time, and for gradients the rows of
// products and the vectors of a tap: as many as the registers hold.
#if defined(__AVX512F__)
constexpr int LANES = 16, BASES = 2, AT_ONCE = 12, ABREAST = 3;
#elif defined(__AVX__)
constexpr int LANES = 8, BASES = 1, AT_ONCE = 4, ABREAST = 1;
#else
constexpr int LANES = 4, BASES = 2, AT_ONCE = 12, ABREAST = 1;
#endif
constexpr int VECTORS = 3, TILE = LANES * VECTORS;
constexpr int GROUP = 4, TAPS = 9, ROWS = BASES * GROUP;
// The inputs of an output are the taps of its group, and one for the bias.
constexpr int INPUTS = GROUP * TAPS + 1, PRODUCTS = GROUP * INPUTS;

using Index = int64_t;
using Vector = float __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
using Words = uint32_t __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
using Lane = uint32_t __attribute__((may_alias));
using Halves = uint16_t __attribute__((vector_size(LANES * 2), aligned(2), may_alias));

inline Vector load(const float* numbers) { return *reinterpret_cast<const Vector*>(numbers); }
inline Vector& at(float* numbers) { return *reinterpret_cast<Vector*>(numbers); }

inline Index rounded_up(Index number, Index unit) { return (number + unit - 1) / unit * unit; }

struct BFloat16 {
    uint16_t bits;
};

inline float widen(float number) { return number; }

inline float widen(BFloat16 number) {
    const uint32_t bits = uint32_t(number.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}

inline Words bfloat16_bits(Vector numbers) {
    const Words bits = Words(numbers), invalid = Words(numbers != numbers);
    const Words nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (nearest & ~invalid) | ((bits >> 16 | 0x40) & invalid);
}

// The word that a sum takes at a time: one float32 factor, or two of bfloat16, whose products with
// the two of another word are added.
struct Single {
    using Word = float;
    using Part = float;
    static constexpr int DEPTH = 1;

    template <typename Number>
    static Part part(Number number) {
        return widen(number);
    }
    template <typename Number>
    static Word pack(const Number* number, Index) {
        return widen(*number);
    }
    static void store(Vector products, Index row, Index pixel, Word* by_row, Word*) {
        at(by_row + row * TILE + pixel) = products;
    }
    static void multiply_add(Vector& sum, Word weight, const Word* pixels) {
        sum += weight * load(pixels);
    }
};

#if defined(__AVX512BF16__)
struct Pair {
    using Word = uint32_t;
    using Part = uint16_t __attribute__((may_alias));
    static constexpr int DEPTH = 2;

    static Part part(BFloat16 number) { return number.bits; }
    static Word pack(const BFloat16* number, Index stride) {
        return number[0].bits | uint32_t(number[stride].bits) << 16;
    }
    static void multiply_add(Vector& sum, Word weight, const Word* pixels) {
        const auto weights = reinterpret_cast<__m512bh>(_mm512_set1_epi32(int(weight)));
        const auto values = reinterpret_cast<__m512bh>(_mm512_loadu_si512(pixels));
        sum = Vector(_mm512_dpbf16_ps(__m512(sum), weights, values));
    }
    // Join two rows to a row of words, and two pixels to a word of a row.
    static void store(Vector products, Index row, Index pixel, Word* by_row, Word* by_pixel) {
        const Words bits = bfloat16_bits(products);
        auto& words = *reinterpret_cast<Words*>(by_row + row / 2 * TILE + pixel);
        words = row % 2 ? words | bits << 16 : bits;
        auto* halves = reinterpret_cast<Halves*>(by_pixel + (row * TILE + pixel) / 2);
        *halves = __builtin_convertvector(bits, Halves);
    }
};
template <typename Number>
using Factor = std::conditional_t<std::is_same_v<Number, BFloat16>, Pair, Single>;
#else
template <typename Number>
using Factor = Single;
#endif

// (B, C, H, W) numbers in any layout, by their strides.
template <typename Number>
struct View {
    const Number* numbers;
    Index picture, channel, row, column;

    View(const Number* start, const Index* strides)
        : numbers(start), picture(strides[0]), channel(strides[1]), row(strides[2]),
          column(strides[3]) {}
};

struct Shape {
    Index batch, channels, height, width, count;

    explicit Shape(const Index* sizes)
        : batch(sizes[0]), channels(sizes[1]), height(sizes[2]), width(sizes[3]), count(sizes[4]) {}
    Index groups() const { return channels / GROUP; }
    Index line() const { return width + 1; }
    // Rows whose pixels stay in the cache while one group after the other is read.
    Index rows_at_once() const { return std::clamp<Index>(1024 / width, 1, height); }
};

// Rows of a picture, and the pixels of their line, padded to whole tiles.
struct Block {
    Index picture, top, bottom, line, pixels, plane;

    Block(const Shape& shape, Index picture, Index top)
        : picture(picture), top(top),
          bottom(std::min(top + shape.rows_at_once(), shape.height)), line(shape.line()),
          pixels(rounded_up((bottom - top) * line, TILE)), plane(pixels + 2 * line + LANES) {}
};

// Lay the rows from top to bottom of some channels out; rows outside the picture are zero.
template <typename Pack, typename Number>
void lay_out(const View<Number>& view, const Shape& shape, Index picture, Index channel,
             Index channels, Index top, Index bottom, typename Pack::Word* lines, Index stride) {
    for (Index c = 0; c < channels; c += Pack::DEPTH, lines += stride) {
        const Number* plane =
            view.numbers + picture * view.picture + (channel + c) * view.channel;
        // Without a partner a number is its own, and meets a weight of zero.
        const Index partner = c + Pack::DEPTH > channels ? 0 : view.channel;
        auto* line = lines;
        for (Index y = top; y < bottom; ++y, line += shape.line()) {
            if (y < 0 || y >= shape.height) {
                std::fill_n(line, shape.line(), 0);
                continue;
            }
            for (Index x = 0; x < shape.width; ++x)
                line[x] = Pack::pack(plane + y * view.row + x * view.column, partner);
            line[shape.width] = 0;
        }
    }
}

}  // namespace
