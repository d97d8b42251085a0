"""Kernel basis attention: every pixel mixes N shared kernels by its own coefficients.

KBNet (Zhang et al., 2023), Section 3.1. The published order fuses the bases into one kernel a
pixel; here the bases are applied first and their responses mixed, so that no tensor holds a
kernel for every pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_BYTES = 1 << 21


def kernel_basis_reference(
    values: Tensor, coefficients: Tensor, bases: Tensor, biases: Tensor
) -> Tensor:
    """Apply kernel basis attention as the paper states it, with one fused kernel a pixel.

    Args:
        values: (B, C, H, W) features that the kernels act on.
        coefficients: (B, N, H, W) weight of every basis at every pixel.
        bases: (N, C, g, 3, 3) grouped kernels; output channel c sees the g channels of its group.
        biases: (N, C) bias of every basis.

    Returns:
        (B, C, H, W), the sum over n of coefficients_n * (conv(values, bases_n) + biases_n).
    """
    batch, channels, height, width = values.shape
    count, _, group = bases.shape[:3]
    kernels = torch.einsum("bnhw,nck->bckhw", coefficients, bases.reshape(count, channels, -1))
    kernels = kernels.view(batch, channels // group, group, group * 9, height, width)
    patches = F.unfold(values, 3, padding=1).view(
        batch, channels // group, 1, group * 9, height, width
    )
    mixed = (kernels * patches).sum(3).reshape(batch, channels, height, width)
    return mixed + torch.einsum("bnhw,nc->bchw", coefficients, biases)


def kernel_basis_attention(
    values: Tensor, coefficients: Tensor, bases: Tensor, biases: Tensor
) -> Tensor:
    """Apply kernel basis attention block by block, forward and backward.

    Arguments and result are those of kernel_basis_reference. Blocks of rows are unfolded one at a
    time, also again in the backward pass, so that extra memory is a few blocks.
    """
    dtype = values.dtype
    mixed: Tensor = _BlockedKernelBasis.apply(  # type: ignore[no-untyped-call]
        values, coefficients.to(dtype), bases.to(dtype), biases.to(dtype)
    )
    return mixed


def _blocks(batch: int, height: int, bytes_a_row: int) -> Iterator[tuple[slice, int, int]]:
    """Yield (pictures, top, rows) of blocks near BLOCK_BYTES: whole pictures, or rows of one."""
    pictures = max(1, BLOCK_BYTES // (bytes_a_row * height))
    rows = max(1, min(height, BLOCK_BYTES // bytes_a_row))
    for first in range(0, batch, pictures):
        for top in range(0, height, rows):
            yield slice(first, first + pictures), top, min(rows, height - top)


def _planar(features: Tensor, border: int = 0) -> Tensor:
    """Return (B, C, H, W) features as (C, B, H, W) with a zero border."""
    return F.pad(features.transpose(0, 1), (border,) * 4).contiguous()


def _unfold(padded: Tensor, pictures: slice, top: int, rows: int, group: int) -> Tensor:
    """Return the 3x3 patches of a block of padded planes as (C/g, 9g, P)."""
    channels, _, _, width = padded.shape
    source = padded[:, pictures]
    patches = padded.new_empty(channels, 9, source.shape[1], rows, width - 2)
    for tap in range(9):
        y, x = divmod(tap, 3)
        patches[:, tap] = source[:, :, top + y : top + y + rows, x : x + width - 2]
    return patches.view(channels // group, group * 9, -1)


class _BlockedKernelBasis(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, coefficients: Tensor, bases: Tensor, biases: Tensor
    ) -> Tensor:
        ctx.save_for_backward(values, coefficients, bases, biases)
        batch, channels, height, width = values.shape
        count, _, group = bases.shape[:3]
        groups = channels // group
        matrix = _bases_as_matrix(bases)
        padded, weights = _planar(values, 1), _planar(coefficients)
        mixed = values.new_empty(channels, batch, height, width)
        for pictures, top, rows in _blocks(batch, height, _row_bytes(values, count)):
            patches = _unfold(padded, pictures, top, rows, group)
            weight = weights[:, pictures, top : top + rows].reshape(count, -1)
            responses = torch.bmm(matrix, patches).view(groups, count, group, -1)
            responses *= weight[:, None]
            block = mixed[:, pictures, top : top + rows]
            block.copy_((responses.sum(1).view(channels, -1) + biases.t() @ weight).view_as(block))
        return mixed.transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values, coefficients, bases, biases = ctx.saved_tensors
        batch, channels, height, width = values.shape
        count, _, group = bases.shape[:3]
        groups = channels // group
        matrix = _bases_as_matrix(bases)
        padded, weights, outputs = _planar(values, 1), _planar(coefficients), _planar(gradient)
        padded_gradient = torch.zeros_like(padded)
        weights_gradient = torch.empty_like(weights)
        exact = torch.promote_types(values.dtype, torch.float32)
        matrix_gradient = torch.zeros_like(matrix, dtype=exact)
        biases_gradient = torch.zeros_like(biases, dtype=exact)
        for pictures, top, rows in _blocks(batch, height, _row_bytes(values, count)):
            patches = _unfold(padded, pictures, top, rows, group)
            weight = weights[:, pictures, top : top + rows].reshape(count, -1)
            output = outputs[:, pictures, top : top + rows].reshape(channels, -1)
            grouped = output.view(groups, 1, group, -1)
            responses = torch.bmm(matrix, patches).view(groups, count, group, -1)
            responses *= grouped
            block = weights_gradient[:, pictures, top : top + rows]
            block.copy_((responses.sum((0, 2)) + biases @ output).view_as(block))
            torch.mul(grouped, weight[:, None], out=responses)
            products = responses.view(groups, count * group, -1)
            matrix_gradient += torch.bmm(products, patches.transpose(1, 2))
            biases_gradient += weight @ output.t()
            torch.bmm(matrix.transpose(1, 2), products, out=patches)
            spread = patches.view(channels, 9, -1, rows, width)
            target = padded_gradient[:, pictures]
            for tap in range(9):
                y, x = divmod(tap, 3)
                target[:, :, top + y : top + y + rows, x : x + width] += spread[:, tap]
        grouped_gradient = matrix_gradient.view(groups, count, group, group, 3, 3)
        return (
            padded_gradient[..., 1:-1, 1:-1].transpose(0, 1),
            weights_gradient.transpose(0, 1),
            grouped_gradient.transpose(0, 1).reshape(bases.shape).to(bases.dtype),
            biases_gradient.to(biases.dtype),
        )


def _row_bytes(values: Tensor, count: int) -> int:
    """Return the bytes that the responses of all bases to one row of one picture take."""
    return values.shape[1] * count * values.shape[3] * values.element_size()


def _bases_as_matrix(bases: Tensor) -> Tensor:
    """Return (N, C, g, 3, 3) bases as one (N * g, 9 * g) matrix for each of the C/g groups."""
    count, channels, group = bases.shape[:3]
    grouped = bases.view(count, channels // group, group, group * 9).transpose(0, 1)
    return grouped.reshape(channels // group, count * group, group * 9)
