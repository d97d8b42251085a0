"""Adaptive convolution of bursts: every pixel of every frame is filtered by its own kernel.

Kernel prediction networks (Mildenhall et al., CVPR 2018). The kernels are applied tap by tap to
shifted views of the padded frames, forward and backward, so that no tensor holds the neighbours of
every pixel: beside its arguments and its result, a call holds the padded frames and one product of
their size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from restorekit.ops import compiled

BLOCK_PIXELS = 1 << 17
"""Pixels whose softmax weights a CPU makes at a time, so that they stay in its cache."""
_LANES, _MOST_TAPS, _MOST_PLANES = 16, 225, 8
"""Narrowest rows, and most taps and planes, of the compiled kernel."""


def adaptive_convolution(frames: Tensor, kernels: Tensor) -> Tensor:
    """Filter every pixel by its own kernel; beyond the border lies the nearest pixel.

    Args:
        frames: (B, N, C, H, W), linear or encoded, of any range.
        kernels: (B, N, S * S, H, W), S odd: the weights of the S x S neighbours row by row, the
            same for all C planes of a frame.

    Returns:
        (B, N, C, H, W) in the wider dtype of the two; summed in float32 at least.

    Raises:
        ValueError: the shapes do not fit, or S is no odd integer.
    """
    side = kernel_side(kernels.shape[2])
    batch, count, _, height, width = frames.shape
    if kernels.shape != (batch, count, side * side, height, width):
        raise ValueError(f"kernels {tuple(kernels.shape)} do not fit frames {tuple(frames.shape)}")
    padded = _padded(frames.flatten(0, 1), side // 2)
    padded = padded.view(batch, count, *padded.shape[1:])
    filtered: Tensor = _TapwiseConvolution.apply(padded, kernels)  # type: ignore[no-untyped-call]
    return filtered


def adaptive_convolution_reference(frames: Tensor, kernels: Tensor) -> Tensor:
    """Return the same from an explicit copy of all neighbours."""
    batch, count, planes, height, width = frames.shape
    side = kernel_side(kernels.shape[2])
    padded = _padded(frames.flatten(0, 1), side // 2)
    neighbours = F.unfold(padded, side).view(batch, count, planes, side * side, height, width)
    return (neighbours * kernels[:, :, None]).sum(3)


def softmax_convolution(frames: Tensor, logits: Tensor) -> Tensor:
    """Filter every pixel by the softmax of its own logits.

    Beyond the border lies the nearest pixel. No tensor holds the weights: they are made tap by tap,
    and again in the backward pass. Logits that were predicted at a lower resolution stay as they
    lie, each pixel of a cell in a plane of its own.

    Args:
        frames: (B, N, C, H, W), linear or encoded, of any range.
        logits: (B, N, S * S, r * r, H / r, W / r), S odd, of the S x S neighbours row by row, for
            each of the r x r pixels of a cell row by row, the same for all C planes of a frame.

    Returns:
        (B, N, C, H, W) in the wider dtype of frames and float32; softmax and sum are computed in
        it.

    Raises:
        ValueError: the shapes do not fit, or S is no odd integer.
    """
    batch, count, planes, height, width = frames.shape
    side, cell = kernel_side(logits.shape[2]), math.isqrt(logits.shape[3])
    if logits.shape != (batch, count, side**2, cell**2, height // cell, width // cell) or (
        height % cell or width % cell
    ):
        raise ValueError(f"logits {tuple(logits.shape)} do not fit frames {tuple(frames.shape)}")
    padded = _padded(frames.flatten(0, 1), side // 2, -(side - 1) % cell)
    cells = F.pixel_unshuffle(padded, cell)
    cells = cells.view(batch, count, planes, -1, *cells.shape[2:])
    if _runs_compiled(cells, logits):
        filtered = _softmax_compiled(cells, logits)
    else:
        filtered = _SoftmaxConvolution.apply(cells, logits)  # type: ignore[no-untyped-call]
    return F.pixel_shuffle(filtered.flatten(2, 3), cell)


def softmax_convolution_reference(frames: Tensor, logits: Tensor) -> Tensor:
    """Return the same by adaptive_convolution_reference of the weights."""
    cell = math.isqrt(logits.shape[3])
    whole = F.pixel_shuffle(logits.flatten(2, 3), cell)
    return adaptive_convolution_reference(frames, whole.softmax(2))


def kernel_side(taps: int) -> int:
    """Return S of S * S taps.

    Raises:
        ValueError: S is no odd integer.
    """
    side = math.isqrt(taps)
    if side * side != taps or side % 2 == 0:
        raise ValueError(f"{taps} weights are no square kernel of odd side")
    return side


def _padded(frames: Tensor, reach: int, more: int = 0) -> Tensor:
    """Repeat the border of (B, C, H, W) frames, and more of it on the right and at the bottom."""
    return F.pad(frames, (reach, reach + more, reach, reach + more), mode="replicate")


class _TapwiseConvolution(torch.autograd.Function):
    """Sum kernels[tap] * shifted(padded, tap) over the taps."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, kernels: Tensor) -> Tensor:
        ctx.save_for_backward(padded, kernels)
        dtype = _sum_dtype(padded, kernels)
        shape = (*padded.shape[:3], *kernels.shape[3:])
        total = torch.zeros(shape, dtype=dtype, device=padded.device)
        for tap, view in enumerate(_shifted(padded, kernels)):
            total.addcmul_(view.to(dtype), kernels[:, :, tap, None].to(dtype))
        return total.to(torch.promote_types(padded.dtype, kernels.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        padded, kernels = ctx.saved_tensors
        dtype = _sum_dtype(padded, kernels)
        of_padded = of_kernels = None
        if ctx.needs_input_grad[1]:
            of_kernels = torch.empty_like(kernels)
            for tap, view in enumerate(_shifted(padded, kernels)):
                of_kernels[:, :, tap] = _over_planes(gradient * view)
        if ctx.needs_input_grad[0]:
            total = torch.zeros_like(padded, dtype=dtype)
            for tap, view in enumerate(_shifted(total, kernels)):
                view.addcmul_(gradient.to(dtype), kernels[:, :, tap, None].to(dtype))
            of_padded = total.to(padded.dtype)
        return of_padded, of_kernels


class _SoftmaxConvolution(torch.autograd.Function):
    """Sum softmax(logits)[tap] * the neighbour at tap, a few frames at a time."""

    @staticmethod
    def forward(ctx: Any, cells: Tensor, logits: Tensor) -> Tensor:
        dtype = _sum_dtype(cells, logits)
        shape = *cells.shape[:4], *logits.shape[4:]
        filtered = torch.zeros(shape, dtype=dtype, device=cells.device)
        log_sums = filtered.new_zeros(*logits.shape[:2], *logits.shape[3:])
        for block, pixel in _blocks(logits):
            scores = logits[block][:, :, :, pixel].unbind(2)
            mixed, log_sum = filtered[block][:, :, :, pixel], log_sums[block][:, :, pixel]
            peak = reduce(torch.maximum, scores).to(dtype)
            for score, view in zip(scores, _neighbours(cells[block], logits, pixel), strict=True):
                weight = score.to(dtype, copy=True).sub_(peak).exp_()
                log_sum += weight
                mixed.addcmul_(view.to(dtype), weight[:, :, None])
            mixed /= log_sum[:, :, None]
            log_sum.log_().add_(peak)
        ctx.save_for_backward(cells, logits, filtered, log_sums)
        return filtered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        cells, logits, filtered, log_sums = ctx.saved_tensors
        of_logits = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
        wanted = ctx.needs_input_grad[0]
        of_cells = torch.zeros_like(cells, dtype=filtered.dtype) if wanted else cells
        for block, pixel in _blocks(logits):
            scores = logits[block][:, :, :, pixel].unbind(2)
            log_sum, outer = log_sums[block][:, :, pixel], gradient[block][:, :, :, pixel]
            common = _over_planes(outer * filtered[block][:, :, :, pixel])
            views = _neighbours(cells[block], logits, pixel)
            of_views = _neighbours(of_cells[block], logits, pixel)
            slopes = of_logits[block][:, :, :, pixel].unbind(2)
            for score, slope, view, of_view in zip(scores, slopes, views, of_views, strict=True):
                weight = score.to(filtered.dtype, copy=True).sub_(log_sum).exp_()
                if wanted:
                    of_view.addcmul_(outer, weight[:, :, None])
                slope.copy_(_over_planes(outer * view).sub_(common).mul_(weight))
        return of_cells.to(cells.dtype) if wanted else None, of_logits


def _runs_compiled(cells: Tensor, logits: Tensor) -> bool:
    """Return whether the compiled kernel takes these tensors; gradients do not pass it."""
    return (
        not torch.is_grad_enabled()
        and cells.device.type == "cpu"
        and cells.dtype == torch.float32
        and logits.shape[5] >= _LANES
        and logits.shape[2] <= _MOST_TAPS
        and cells.shape[2] <= _MOST_PLANES
        and compiled.runs("softmax_convolution", logits)
    )


def _softmax_compiled(cells: Tensor, logits: Tensor) -> Tensor:
    """Return the same as _SoftmaxConvolution."""
    batch, count, planes, pixels, *padded = cells.shape
    height, width = logits.shape[4:]
    filtered = cells.new_empty(batch, count, planes, pixels, height, width)
    side, cell = kernel_side(logits.shape[2]), math.isqrt(pixels)
    compiled.call(
        "softmax_convolution",
        logits.dtype,
        (cells.contiguous(), logits.contiguous(), filtered),
        (batch * count, planes, side, cell, height, width, *padded),
        torch.get_num_threads(),
    )
    return filtered


def _blocks(logits: Tensor) -> Iterator[tuple[tuple[slice, slice], int]]:
    """Yield slices of samples and of frames, one after the other for each pixel of a cell."""
    batch, count, _, pixels, height, width = logits.shape
    room = BLOCK_PIXELS if logits.device.type == "cpu" else logits.numel()
    frames = max(1, room // max(1, height * width))
    samples = max(1, frames // count)
    for sample in range(0, batch, samples):
        for frame in range(0, count, frames):
            for pixel in range(pixels):
                yield (slice(sample, sample + samples), slice(frame, frame + frames)), pixel


def _neighbours(cells: Tensor, logits: Tensor, pixel: int) -> Iterator[Tensor]:
    """Yield what each tap sees of a pixel of every cell, row by row: (B, N, C, H / r, W / r).

    Args:
        cells: (B, N, C, r * r, H', W') padded frames.
        logits: of softmax_convolution.
        pixel: its number in the cell.
    """
    side, cell = kernel_side(logits.shape[2]), math.isqrt(logits.shape[3])
    height, width = logits.shape[4:]
    for tap in range(side**2):
        y, x = pixel // cell + tap // side, pixel % cell + tap % side
        plane = cells[:, :, :, y % cell * cell + x % cell]
        yield plane[..., y // cell : y // cell + height, x // cell : x // cell + width]


def _over_planes(product: Tensor) -> Tensor:
    """Return the sum of a (B, N, C, H, W) product over its planes."""
    return product[:, :, 0] if product.shape[2] == 1 else product.sum(2)


def _shifted(padded: Tensor, kernels: Tensor) -> Iterator[Tensor]:
    """Yield the view of padded that each tap of the kernels sees, row by row."""
    return _neighbours(padded[:, :, :, None], kernels[:, :, :, None], 0)


def _sum_dtype(first: Tensor, second: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
