"""Kernel basis attention by compiled kernels for CPUs, for groups of four channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from restorekit.ops import compiled

_GROUP = 4


def runs_compiled(values: Tensor, bases: Tensor) -> bool:
    """Return whether the compiled kernels take these tensors, and can be built here."""
    sizes_fit = bases.shape[2] == _GROUP and bases.numel() > 0
    return sizes_fit and compiled.runs("kernel_basis_forward", values)


class _CompiledKernelBasis(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, coefficients: Tensor, bases: Tensor, biases: Tensor
    ) -> Tensor:
        ctx.save_for_backward(values, coefficients, bases, biases)
        mixed = torch.empty_like(values, memory_format=torch.channels_last)
        compiled.call(
            "kernel_basis_forward",
            values.dtype,
            (values, coefficients, bases, biases, mixed),
            (*values.shape, len(bases), *values.stride(), *coefficients.stride()),
            torch.get_num_threads(),
        )
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values, coefficients, bases, biases = ctx.saved_tensors
        batch, channels, height, width = values.shape
        pixels = batch, height, width
        found = (
            torch.zeros(*pixels, channels, dtype=torch.float32),
            torch.empty(*pixels, len(bases), dtype=torch.float32),
            torch.empty(bases.shape, dtype=torch.float32),
            torch.empty(biases.shape, dtype=torch.float32),
        )
        viewed = values, coefficients, gradient.resolve_neg()
        compiled.call(
            "kernel_basis_backward",
            values.dtype,
            (*viewed, bases, biases, *found),
            (*values.shape, len(bases), *(stride for x in viewed for stride in x.stride())),
            min(torch.get_num_threads(), channels // _GROUP),
        )
        by_values, by_coefficients, by_bases, by_biases = found
        return (
            by_values.to(values.dtype).permute(0, 3, 1, 2),
            by_coefficients.to(values.dtype).permute(0, 3, 1, 2),
            by_bases.to(values.dtype),
            by_biases.to(values.dtype),
        )


def kernel_basis_compiled(
    values: Tensor, coefficients: Tensor, bases: Tensor, biases: Tensor
) -> Tensor:
    """Apply kernel basis attention by compiled kernels.

    Arguments and result are those of kernel_basis_reference, all of one dtype of float32 and
    bfloat16, in any memory layout; g is 4. Sums are float32.
    """
    mixed: Tensor = _CompiledKernelBasis.apply(  # type: ignore[no-untyped-call]
        values.resolve_neg(),
        coefficients.resolve_neg(),
        bases.resolve_neg().contiguous(),
        biases.resolve_neg().contiguous(),
    )
    return mixed
