// What the kernels for CPUs share: vectors, bfloat16, and float32 sums of products of both dtypes.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

// Lanes of a vector, and whether there are 32 of them to hold sums, or 16.
#if defined(__AVX512F__)
constexpr int LANES = 16;
constexpr bool MANY = true;
#elif defined(__AVX__)
constexpr int LANES = 8;
constexpr bool MANY = false;
#else
constexpr int LANES = 4;
constexpr bool MANY = true;
#endif

using Index = int64_t;
using Vector = float __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
using Words = uint32_t __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
using Counts = int32_t __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
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

inline Halves bfloat16(Vector numbers) {
#if defined(__AVX512BF16__)
    return Halves(_mm512_cvtneps_pbh(__m512(numbers)));
#else
    const Words bits = Words(numbers), invalid = Words(numbers != numbers);
    const Words nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return __builtin_convertvector((nearest & ~invalid) | ((bits >> 16 | 0x40) & invalid), Halves);
#endif
}

inline Words bfloat16_words(Vector numbers) {
    return __builtin_convertvector(bfloat16(numbers), Words);
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
};
template <typename Number>
using Factor = std::conditional_t<std::is_same_v<Number, BFloat16>, Pair, Single>;
#else
template <typename Number>
using Factor = Single;
#endif

}  // namespace
