// How kernel basis attention on CPUs lays out its numbers, for groups of four channels: KBNet
// (Zhang et al., 2023), Section 3.1. Pixels lie along the lanes of a vector, so that a tap of a
// kernel is a load at an offset; rows of pixels are laid out as one line, with a zero after each as
// the border of both neighbours.

#pragma once

#include "kernels.h"

namespace {

// Bases whose answers are in registers at a time.
constexpr int BASES = MANY ? 2 : 1, VECTORS = 3, TILE = LANES * VECTORS;
constexpr int GROUP = 4, TAPS = 9, ROWS = BASES * GROUP;

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
        // An odd last channel is paired with itself; its second weight is zero.
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
