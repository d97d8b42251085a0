"""Kernel basis attention: every pixel mixes N shared kernels by its own coefficients.

KBNet (Zhang et al., 2023), Section 3.1. The published order fuses the bases into one kernel a
pixel; here the bases are applied first and their responses mixed, so that no tensor holds a
kernel for every pixel. Tensors go to the kernels of kernel_basis_compiled (CPU) and
kernel_basis_fused (CUDA) where those run.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from restorekit.ops.kernel_basis_compiled import kernel_basis_compiled, runs_compiled

BLOCK_BYTES = 1 << 22
BLOCK_THREADS = 4
"""Bytes of the responses that a thread has at a time, and the threads whose share grows a block."""
_FUSED_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_FUSED_GROUPS = (2, 4)
_FUSED_BASES = 128


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
    time, also again in the backward pass, so that extra memory is a few blocks; the compiled and
    the fused kernels unfold nothing. The result has the dtype of the values.

    Raises:
        ValueError: the shapes do not fit, or the tensors lie on several devices.
    """
    batch, channels, *size = values.shape
    count, _, group = bases.shape[:3]
    wanted = (batch, count, *size), (count, channels, group, 3, 3), (count, channels)
    others = coefficients, bases, biases
    if channels % group or wanted != tuple(tuple(x.shape) for x in others):
        found = ", ".join(str(tuple(x.shape)) for x in others)
        raise ValueError(f"{found} do not fit values {tuple(values.shape)}")
    if any(x.device != values.device for x in others):
        raise ValueError("values, coefficients, bases and biases must lie on one device")
    dtype = values.dtype
    arguments = values, coefficients.to(dtype), bases.to(dtype), biases.to(dtype)
    if _runs_fused(values, bases):
        from restorekit.ops.kernel_basis_fused import kernel_basis_fused

        return kernel_basis_fused(*arguments)
    if runs_compiled(values, bases):
        return kernel_basis_compiled(*arguments)
    mixed: Tensor = _BlockedKernelBasis.apply(*arguments)  # type: ignore[no-untyped-call]
    return mixed


def _triton_builds() -> bool:
    """Return whether Triton is there, and the compiler and headers that its launchers need."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    header = Path(sysconfig.get_config_var("INCLUDEPY") or "", "Python.h")
    return bool(importlib.util.find_spec("triton") and compiler and header.is_file())


_TRITON_BUILDS = _triton_builds()


def _runs_fused(values: Tensor, bases: Tensor) -> bool:
    """Return whether the fused kernels run on these tensors' device and take their sizes."""
    count, _, group = bases.shape[:3]
    return (
        _TRITON_BUILDS
        and values.is_cuda
        and torch.version.hip is None
        and torch.cuda.get_device_properties(values.device).major >= 8
        and values.dtype in _FUSED_DTYPES
        and values.numel() > 0
        and group in _FUSED_GROUPS
        and count <= _FUSED_BASES
    )


class _Planes:
    """Lay features out as one line of pixels a channel, so that a shifted picture is a slice.

    A zero follows every row and a zero row every picture, which serve as the border of the next.
    """

    def __init__(self, shape: torch.Size) -> None:
        self.batch, _, self.height, self.width = shape
        self.length = self.batch * (self.height + 1) * (self.width + 1)
        self.margin = self.width + 2
        self.shifts = [y * (self.width + 1) + x for y in (-1, 0, 1) for x in (-1, 0, 1)]

    def lay(self, features: Tensor, margin: int = 0) -> Tensor:
        """Return (B, C, H, W) features as (C, length), with zeros at both ends."""
        line = features.new_zeros(features.shape[1], self.length + 2 * margin)
        self.pictures(line[:, margin : margin + self.length]).copy_(features)
        return line

    def pictures(self, line: Tensor) -> Tensor:
        """Return the (B, C, H, W) view of a (C, length) line."""
        cells = line.view(len(line), self.batch, self.height + 1, self.width + 1)
        return cells[..., :-1, :-1].transpose(0, 1)

    def patches(self, line: Tensor, block: slice, group: int, memory: Tensor) -> Tensor:
        """Return the 3x3 patches of a block of pixels of a line with margins, (C/g, 9g, P)."""
        shape = len(line), 3, 3, block.stop - block.start
        first = self.margin + block.start + self.shifts[0]
        taps = line.as_strided(shape, (line.stride(0), self.width + 1, 1, 1), first)
        found = _within(memory, *shape).copy_(taps)
        return found.view(len(line) // group, 9 * group, -1)

    def add_patches(self, line: Tensor, block: slice, patches: Tensor) -> None:
        """Add (C/g, 9g, P) patches of a block to a line with margins."""
        spread = patches.view(len(line), 9, -1)
        for tap, shift in enumerate(self.shifts):
            first = self.margin + block.start + shift
            line[:, first : first + spread.shape[2]] += spread[:, tap]

    def responses(
        self, line: Tensor, matrix: Tensor, group: int
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield each block of pixels, its patches and what the bases answer to them.

        Both lie in memory that the next block takes. A block needs nothing that lies in the line
        before its own place, since that is a margin before its pixels.

        Args:
            line: with margins.
            matrix: from _bases_as_matrix, (C/g, N * g, 9g).
            group: g.

        Yields:
            the block, (C/g, 9g, P) and (C/g, N * g, P).
        """
        answers = matrix.shape[0] * matrix.shape[1]
        size = _pixels_at_once(answers * line.element_size(), self.length)
        unfolded = line.new_empty(size * len(line) * 9)
        answered = line.new_empty(size * answers)
        for first in range(0, self.length, size):
            block = slice(first, min(first + size, self.length))
            patches = self.patches(line, block, group, unfolded)
            found = _within(answered, *matrix.shape[:2], block.stop - block.start)
            yield block, patches, torch.bmm(matrix, patches, out=found)


def _within(memory: Tensor, *shape: int) -> Tensor:
    """Return a tensor of a shape at the beginning of memory that blocks use one after the other."""
    return memory[: math.prod(shape)].view(shape)


class _BlockedKernelBasis(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, coefficients: Tensor, bases: Tensor, biases: Tensor
    ) -> Tensor:
        ctx.save_for_backward(values, coefficients, bases, biases)
        planes = _Planes(values.shape)
        line = planes.lay(values, planes.margin)
        _mix_in_place(planes, line, coefficients, bases, biases)
        mixed = planes.pictures(line[:, : planes.length])
        return mixed.contiguous(memory_format=torch.channels_last)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values, coefficients, bases, biases = ctx.saved_tensors
        count, channels, group = bases.shape[:3]
        matrix, planes = _bases_as_matrix(bases), _Planes(values.shape)
        line, weights = planes.lay(values, planes.margin), planes.lay(coefficients)
        outputs = planes.lay(gradient)
        line_gradient, weights_gradient = torch.zeros_like(line), biases @ outputs
        exact = torch.promote_types(values.dtype, torch.float32)
        matrix_gradient = torch.zeros_like(matrix, dtype=exact)
        for block, patches, responses in planes.responses(line, matrix, group):
            weight, output = weights[:, block], outputs[:, block]
            products = responses.view(-1, count, group, weight.shape[1])
            grouped = output.reshape(-1, 1, group, weight.shape[1])
            products *= grouped
            over_groups = responses.sum(0).view(count, group, -1)
            weights_gradient[:, block] += over_groups.sum(1)
            torch.mul(grouped, weight[:, None], out=products)
            matrix_gradient += torch.bmm(responses, patches.transpose(1, 2))
            planes.add_patches(
                line_gradient, block, torch.bmm(matrix.transpose(1, 2), responses, out=patches)
            )
        inner = line_gradient[:, planes.margin : planes.margin + planes.length]
        grouped_gradient = matrix_gradient.view(-1, count, group, group, 3, 3)
        return (
            planes.pictures(inner).contiguous(memory_format=torch.channels_last),
            planes.pictures(weights_gradient).contiguous(memory_format=torch.channels_last),
            grouped_gradient.transpose(0, 1).reshape(bases.shape).to(bases.dtype),
            weights @ outputs.t(),
        )


def _mix_in_place(
    planes: _Planes, line: Tensor, coefficients: Tensor, bases: Tensor, biases: Tensor
) -> None:
    """Replace a line with margins by what kernel basis attention makes of it, without margins."""
    count, channels, group = bases.shape[:3]
    matrix, weights = _bases_as_matrix(bases), planes.lay(coefficients)
    for block, _, responses in planes.responses(line, matrix, group):
        weight = weights[:, block]
        products = responses.view(-1, count, group, weight.shape[1]).mul_(weight[:, None])
        mixed = products.sum(1).view(channels, -1)
        torch.addmm(mixed, biases.t(), weight, out=line[:, block])


def _pixels_at_once(bytes_each: int, most: int) -> int:
    """Return the pixels of a block whose responses take so many bytes each."""
    room = BLOCK_BYTES * min(torch.get_num_threads(), BLOCK_THREADS)
    return max(1, min(room // bytes_each, most))


def _bases_as_matrix(bases: Tensor) -> Tensor:
    """Return (N, C, g, 3, 3) bases as one (N * g, 9 * g) matrix for each of the C/g groups."""
    count, channels, group = bases.shape[:3]
    grouped = bases.view(count, channels // group, group, group * 9).transpose(0, 1)
    return grouped.reshape(channels // group, count * group, group * 9)
