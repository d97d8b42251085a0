"""Adaptive convolution of bursts: every pixel of every frame is filtered by its own kernel.

Kernel prediction networks (Mildenhall et al., CVPR 2018). The kernels are applied tap by tap to
shifted views of the padded frames, forward and backward, so that no tensor holds the neighbours of
every pixel: beside its arguments and its result, a call holds the padded frames and one product of
their size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


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
    reach = side // 2
    padded = F.pad(frames.flatten(0, 1), (reach, reach, reach, reach), mode="replicate")
    padded = padded.view(batch, count, *padded.shape[1:])
    filtered: Tensor = _TapwiseConvolution.apply(padded, kernels)  # type: ignore[no-untyped-call]
    return filtered


def adaptive_convolution_reference(frames: Tensor, kernels: Tensor) -> Tensor:
    """Return the same from an explicit copy of all neighbours."""
    batch, count, planes, height, width = frames.shape
    side = kernel_side(kernels.shape[2])
    reach = side // 2
    padded = F.pad(frames.flatten(0, 1), (reach, reach, reach, reach), mode="replicate")
    neighbours = F.unfold(padded, side).view(batch, count, planes, side * side, height, width)
    return (neighbours * kernels[:, :, None]).sum(3)


def kernel_side(taps: int) -> int:
    """Return S of S * S taps.

    Raises:
        ValueError: S is no odd integer.
    """
    side = math.isqrt(taps)
    if side * side != taps or side % 2 == 0:
        raise ValueError(f"{taps} weights are no square kernel of odd side")
    return side


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
                product = gradient * view
                of_kernels[:, :, tap] = product[:, :, 0] if view.shape[2] == 1 else product.sum(2)
        if ctx.needs_input_grad[0]:
            total = torch.zeros_like(padded, dtype=dtype)
            for tap, view in enumerate(_shifted(total, kernels)):
                view.addcmul_(gradient.to(dtype), kernels[:, :, tap, None].to(dtype))
            of_padded = total.to(padded.dtype)
        return of_padded, of_kernels


def _shifted(padded: Tensor, kernels: Tensor) -> Iterator[Tensor]:
    """Yield the view of padded that each tap of the kernels sees, row by row."""
    height, width = kernels.shape[3:]
    side = kernel_side(kernels.shape[2])
    for y in range(side):
        for x in range(side):
            yield padded[..., y : y + height, x : x + width]


def _sum_dtype(first: Tensor, second: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
