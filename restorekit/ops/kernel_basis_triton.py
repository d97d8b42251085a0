"""Triton kernels of kernel basis attention, forward and backward.

Tap by tap, a program fuses the bases into kernels for a block of pixels and channels by a product
on the tensor cores, (pixels, N) x (N, channels * g), and applies them in registers. Sums are taken
in float32, in an order that neither the tuned block sizes nor the scheduling of programs change, so
that results repeat bit by bit. Features come with their strides, in any memory layout; bases come
as (9, N, channels * g).
"""

import triton
import triton.language as tl

BLOCK = 64
"""Pixels and entries (channels * g) of a block where they set the order of a sum."""


@triton.jit
def _locate(block, height, width, count, PIXELS: tl.constexpr):
    """Return picture, row and column of a block of pixels, and which of them exist."""
    pixel = block * PIXELS + tl.arange(0, PIXELS)
    line = pixel // width
    picture, row, column = line // height, line % height, pixel % width
    return picture.to(tl.int64), row.to(tl.int64), column.to(tl.int64), pixel < count


@triton.jit
def _inside(row, column, height, width):
    """Return which pixels lie in the picture."""
    return (row >= 0) & (row < height) & (column >= 0) & (column < width)


@triton.jit
def _load(features, place, there, channel, channels, stride):
    """Load channels of pixels as (pixels, channels), zero where there are none."""
    return tl.load(
        features + place[:, None] + channel.to(tl.int64)[None, :] * stride,
        mask=there[:, None] & (channel < channels)[None, :],
        other=0.0,
    )


INTERPRETED = tl.constexpr(not isinstance(_load, triton.JITFunction))
"""Whether kernels run in Triton's interpreter, whose products know no bfloat16."""


@triton.jit
def _product(left, right, total, PRECISION: tl.constexpr):
    """Return a float32 total plus the matrix product of left and right."""
    if INTERPRETED:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, total, input_precision=PRECISION)


@triton.jit
def _outer(outputs, inputs, GROUP: tl.constexpr):
    """Return the products of every output with the inputs of its group, (pixels, channels * g)."""
    PIXELS: tl.constexpr = outputs.shape[0]
    CHANNELS: tl.constexpr = outputs.shape[1]
    left = tl.reshape(outputs.to(tl.float32), (PIXELS, CHANNELS // GROUP, GROUP, 1))
    right = tl.reshape(inputs.to(tl.float32), (PIXELS, CHANNELS // GROUP, 1, GROUP))
    return tl.reshape(left * right, (PIXELS, CHANNELS * GROUP)).to(inputs.dtype)


def _configs(*choices: tuple[int, int, int, int]) -> list[triton.Config]:
    """Return what the tuner tries: pixels, entries (channels * g), warps and stages."""
    configs = [
        triton.Config(
            {"PIXELS": pixels, "ENTRIES": entries, "enable_fp_fusion": True},
            num_warps=warps,
            num_stages=stages,
        )
        for pixels, entries, warps, stages in choices
    ]
    return configs[:1] if INTERPRETED else configs


@triton.autotune(
    _configs((64, 64, 4, 2), (64, 64, 4, 3), (128, 64, 8, 3), (128, 128, 8, 2), (64, 64, 4, 1)),
    key=["channels", "BASES", "ADJOINT", "PRECISION"],
)
@triton.jit(do_not_specialize=["count", "height", "width"])
def mix(
    values,
    coefficients,
    bases,
    biases,
    mixed,
    v_picture,
    v_channel,
    v_row,
    v_column,
    c_picture,
    c_basis,
    c_row,
    c_column,
    m_picture,
    m_channel,
    m_row,
    m_column,
    count,
    height,
    width,
    channels,
    BASES: tl.constexpr,
    PADDED: tl.constexpr,
    GROUP: tl.constexpr,
    ADJOINT: tl.constexpr,
    PRECISION: tl.constexpr,
    PIXELS: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """Mix values by their kernels; the adjoint takes every neighbour's own coefficients instead."""
    CHANNELS: tl.constexpr = ENTRIES // GROUP
    picture, row, column, there = _locate(tl.program_id(0), height, width, count, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    entry = tl.program_id(1) * ENTRIES + tl.arange(0, ENTRIES)
    basis = tl.arange(0, PADDED)
    value_place = picture * v_picture + row * v_row + column * v_column
    weight_place = picture * c_picture + row * c_row + column * c_column
    own = _load(coefficients, weight_place, there, basis, BASES, c_basis)
    known = (basis < BASES)[:, None]
    entry_known = known & (entry < channels * GROUP)[None, :]
    basis_place = basis[:, None] * channels * GROUP + entry[None, :]
    total = tl.zeros((PIXELS, CHANNELS // GROUP, GROUP, GROUP), tl.float32)
    for tap in range(9):
        down, right = tap // 3 - 1, tap % 3 - 1
        near = there & _inside(row + down, column + right, height, width)
        place = value_place + down * v_row + right * v_column
        seen = _load(values, place, near, channel, channels, v_channel)
        if ADJOINT:
            place = weight_place + down * c_row + right * c_column
            weights = _load(coefficients, place, near, basis, BASES, c_basis)
        else:
            weights = own
        tap_bases = bases + tap * BASES * channels * GROUP
        kernels = _product(
            weights,
            tl.load(tap_bases + basis_place, mask=entry_known, other=0.0),
            tl.zeros((PIXELS, ENTRIES), tl.float32),
            PRECISION,
        )
        kernels = tl.reshape(kernels, (PIXELS, CHANNELS // GROUP, GROUP, GROUP))
        total += kernels * tl.reshape(seen, (PIXELS, CHANNELS // GROUP, 1, GROUP)).to(tl.float32)
    result = tl.reshape(tl.sum(total, 3), (PIXELS, CHANNELS))
    if not ADJOINT:
        bias_place = basis[:, None] * channels + channel[None, :]
        bias = tl.load(biases + bias_place, known & (channel < channels)[None, :], 0.0)
        result = _product(own, bias, result, PRECISION)
    result_place = picture * m_picture + row * m_row + column * m_column
    tl.store(
        mixed + result_place[:, None] + channel.to(tl.int64)[None, :] * m_channel,
        result.to(mixed.dtype.element_ty),
        mask=there[:, None] & (channel < channels)[None, :],
    )


@triton.autotune(
    _configs((64, BLOCK, 4, 2), (64, BLOCK, 4, 3), (128, BLOCK, 4, 3), (128, BLOCK, 8, 3)),
    key=["channels", "BASES", "PRECISION"],
)
@triton.jit(do_not_specialize=["count", "height", "width"])
def coefficient_gradient(
    values,
    gradient,
    bases,
    biases,
    partial,
    v_picture,
    v_channel,
    v_row,
    v_column,
    g_picture,
    g_channel,
    g_row,
    g_column,
    p_split,
    p_picture,
    p_basis,
    p_row,
    p_column,
    count,
    height,
    width,
    channels,
    BASES: tl.constexpr,
    PADDED: tl.constexpr,
    GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
    PIXELS: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """Sum gradient times response over a share of the channels, for every basis of a pixel."""
    CHANNELS: tl.constexpr = ENTRIES // GROUP
    picture, row, column, there = _locate(tl.program_id(0), height, width, count, PIXELS)
    basis = tl.arange(0, PADDED)
    known = (basis < BASES)[None, :]
    value_place = picture * v_picture + row * v_row + column * v_column
    gradient_place = picture * g_picture + row * g_row + column * g_column
    total = tl.zeros((PIXELS, PADDED), tl.float32)
    for block in range(tl.program_id(1), tl.cdiv(channels, CHANNELS), tl.num_programs(1)):
        channel = block * CHANNELS + tl.arange(0, CHANNELS)
        entry = block * ENTRIES + tl.arange(0, ENTRIES)
        outputs = _load(gradient, gradient_place, there, channel, channels, g_channel)
        bias_place = basis[None, :] * channels + channel[:, None]
        bias = tl.load(biases + bias_place, known & (channel < channels)[:, None], 0.0)
        total = _product(outputs, bias, total, PRECISION)
        entry_known = known & (entry < channels * GROUP)[:, None]
        basis_place = basis[None, :] * channels * GROUP + entry[:, None]
        for tap in range(9):
            down, right = tap // 3 - 1, tap % 3 - 1
            near = there & _inside(row + down, column + right, height, width)
            place = value_place + down * v_row + right * v_column
            seen = _load(values, place, near, channel, channels, v_channel)
            tap_bases = bases + tap * BASES * channels * GROUP
            kernels = tl.load(tap_bases + basis_place, mask=entry_known, other=0.0)
            total = _product(_outer(outputs, seen, GROUP), kernels, total, PRECISION)
    place = tl.program_id(1).to(tl.int64) * p_split
    place += picture * p_picture + row * p_row + column * p_column
    tl.store(
        partial + place[:, None] + basis.to(tl.int64)[None, :] * p_basis,
        total.to(partial.dtype.element_ty),
        mask=there[:, None] & known,
    )


@triton.autotune(
    _configs((BLOCK, 64, 4, 2), (BLOCK, 64, 4, 3), (BLOCK, 64, 8, 3), (BLOCK, 128, 8, 2)),
    key=["channels", "BASES", "PRECISION"],
)
@triton.jit(do_not_specialize=["count", "height", "width"])
def basis_gradient(
    values,
    gradient,
    coefficients,
    bases_partial,
    biases_partial,
    v_picture,
    v_channel,
    v_row,
    v_column,
    g_picture,
    g_channel,
    g_row,
    g_column,
    c_picture,
    c_basis,
    c_row,
    c_column,
    count,
    height,
    width,
    channels,
    BASES: tl.constexpr,
    PADDED: tl.constexpr,
    GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
    PIXELS: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """Sum coefficient times gradient times value over a share of the pixels, a row of taps each."""
    CHANNELS: tl.constexpr = ENTRIES // GROUP
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    entry = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    down = tl.program_id(1) - 1
    basis = tl.arange(0, PADDED)
    left = tl.zeros((ENTRIES, PADDED), tl.float32)
    middle = tl.zeros((ENTRIES, PADDED), tl.float32)
    right = tl.zeros((ENTRIES, PADDED), tl.float32)
    bias = tl.zeros((CHANNELS, PADDED), tl.float32)
    for block in range(tl.program_id(2), tl.cdiv(count, PIXELS), tl.num_programs(2)):
        picture, row, column, there = _locate(block, height, width, count, PIXELS)
        place = picture * c_picture + row * c_row + column * c_column
        weights = _load(coefficients, place, there, basis, BASES, c_basis)
        place = picture * g_picture + row * g_row + column * g_column
        outputs = _load(gradient, place, there, channel, channels, g_channel)
        bias = _product(tl.trans(outputs), weights, bias, PRECISION)
        place = picture * v_picture + (row + down) * v_row + column * v_column
        near = there & _inside(row + down, column - 1, height, width)
        seen = _load(values, place - v_column, near, channel, channels, v_channel)
        left = _product(tl.trans(_outer(outputs, seen, GROUP)), weights, left, PRECISION)
        near = there & _inside(row + down, column, height, width)
        seen = _load(values, place, near, channel, channels, v_channel)
        middle = _product(tl.trans(_outer(outputs, seen, GROUP)), weights, middle, PRECISION)
        near = there & _inside(row + down, column + 1, height, width)
        seen = _load(values, place + v_column, near, channel, channels, v_channel)
        right = _product(tl.trans(_outer(outputs, seen, GROUP)), weights, right, PRECISION)
    known = (basis < BASES)[None, :]
    entries = channels * GROUP
    first = (tl.program_id(2) * 9 + tl.program_id(1) * 3) * BASES
    place = bases_partial + (first + basis)[None, :] * entries + entry[:, None]
    tap = BASES * entries
    entry_known = known & (entry < entries)[:, None]
    tl.store(place, left, mask=entry_known)
    tl.store(place + tap, middle, mask=entry_known)
    tl.store(place + 2 * tap, right, mask=entry_known)
    if down == 0:
        bias_place = (tl.program_id(2) * BASES + basis)[None, :] * channels + channel[:, None]
        tl.store(biases_partial + bias_place, bias, mask=known & (channel < channels)[:, None])
