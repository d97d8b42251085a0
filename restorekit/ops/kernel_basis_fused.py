"""Kernel basis attention by fused Triton kernels, as a custom operator of torch.

The operator passes whole through torch.compile. The values' gradient is the same operation on the
output's gradient, with bases turned round, so it gathers and needs no atomic additions; sums over
channels or pixels that are split among programs are put together in a fixed order.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from restorekit.ops.kernel_basis_triton import BLOCK, basis_gradient, coefficient_gradient, mix

_PROGRAMS = 512
"""Programs among which a long sum is split: about four a multiprocessor of a large GPU."""


def _sizes(values: Tensor, bases: Tensor) -> dict[str, Any]:
    """Return the arguments that all kernels share."""
    batch, channels, height, width = values.shape
    fast = values.dtype is torch.float32 and torch.backends.cuda.matmul.allow_tf32
    return {
        "count": batch * height * width,
        "height": height,
        "width": width,
        "channels": channels,
        "BASES": len(bases),
        "PADDED": max(triton.next_power_of_2(len(bases)), 16),
        "GROUP": bases.shape[2],
        "PRECISION": "tf32" if fast else "ieee",
    }


def _by_tap(bases: Tensor) -> Tensor:
    """Return bases as (9, N, C, g)."""
    return bases.flatten(3).permute(3, 0, 1, 2).contiguous()


def _launch_mix(
    values: Tensor,
    coefficients: Tensor,
    bases: Tensor,
    biases: Tensor,
    mixed: Tensor,
    *,
    adjoint: bool,
) -> None:
    sizes = _sizes(values, bases)

    def grid(meta: dict[str, int]) -> tuple[int, int]:
        entries = sizes["channels"] * sizes["GROUP"]
        return triton.cdiv(sizes["count"], meta["PIXELS"]), triton.cdiv(entries, meta["ENTRIES"])

    mix[grid](
        values,
        coefficients,
        _by_tap(bases),
        biases.contiguous(),
        mixed,
        *values.stride(),
        *coefficients.stride(),
        *mixed.stride(),
        **sizes,
        ADJOINT=adjoint,
    )


def _launch_coefficient_gradient(
    gradient: Tensor, values: Tensor, coefficients: Tensor, bases: Tensor, biases: Tensor
) -> Tensor:
    sizes = _sizes(values, bases)
    blocks = triton.cdiv(sizes["channels"] * sizes["GROUP"], BLOCK)
    splits = max(min(_PROGRAMS // triton.cdiv(sizes["count"], BLOCK), blocks), 1)
    found = torch.empty_like(coefficients)
    partial = found[None]
    if splits > 1:
        partial = found.new_empty((splits, *found.shape), dtype=torch.float32)
    coefficient_gradient[lambda meta: (triton.cdiv(sizes["count"], meta["PIXELS"]), splits)](
        values,
        gradient,
        _by_tap(bases),
        biases.contiguous(),
        partial,
        *values.stride(),
        *gradient.stride(),
        *partial.stride(),
        **sizes,
    )
    return found if splits == 1 else found.copy_(partial.sum(0))


def _launch_basis_gradient(
    gradient: Tensor, values: Tensor, coefficients: Tensor, bases: Tensor, biases: Tensor
) -> tuple[Tensor, Tensor]:
    sizes = _sizes(values, bases)
    count, channels, group = bases.shape[:3]
    programs = 3 * triton.cdiv(channels * group, BLOCK)
    splits = max(min(_PROGRAMS // programs, triton.cdiv(sizes["count"], BLOCK)), 1)
    bases_partial = values.new_empty((splits, 9, count, channels, group), dtype=torch.float32)
    biases_partial = values.new_empty((splits, count, channels), dtype=torch.float32)
    basis_gradient[lambda meta: (triton.cdiv(channels * group, meta["ENTRIES"]), 3, splits)](
        values,
        gradient,
        coefficients,
        bases_partial,
        biases_partial,
        *values.stride(),
        *gradient.stride(),
        *coefficients.stride(),
        **sizes,
    )
    return (
        torch.empty_like(bases).copy_(bases_partial.sum(0).permute(1, 2, 3, 0).view(bases.shape)),
        torch.empty_like(biases).copy_(biases_partial.sum(0)),
    )


@torch.library.custom_op("restorekit::kernel_basis", mutates_args=())
def _forward(values: Tensor, coefficients: Tensor, bases: Tensor, biases: Tensor) -> Tensor:
    mixed = torch.empty_like(values)
    with torch.cuda.device_of(values):  # type: ignore[no-untyped-call]
        _launch_mix(values, coefficients, bases, biases, mixed, adjoint=False)
    return mixed


@_forward.register_fake
def _(values: Tensor, coefficients: Tensor, bases: Tensor, biases: Tensor) -> Tensor:
    return torch.empty_like(values)


@torch.library.custom_op("restorekit::kernel_basis_backward", mutates_args=())
def _backward(
    gradient: Tensor, values: Tensor, coefficients: Tensor, bases: Tensor, biases: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    values_gradient = torch.empty_like(values)
    count, channels, group = bases.shape[:3]
    turned = bases.reshape(count, channels // group, group, group, 3, 3).transpose(2, 3)
    turned = turned.reshape(bases.shape).flip(-2, -1)
    with torch.cuda.device_of(values):  # type: ignore[no-untyped-call]
        _launch_mix(gradient, coefficients, turned, biases, values_gradient, adjoint=True)
        return (
            values_gradient,
            _launch_coefficient_gradient(gradient, values, coefficients, bases, biases),
            *_launch_basis_gradient(gradient, values, coefficients, bases, biases),
        )


@_backward.register_fake
def _(
    gradient: Tensor, values: Tensor, coefficients: Tensor, bases: Tensor, biases: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(values),
        torch.empty_like(coefficients),
        torch.empty_like(bases),
        torch.empty_like(biases),
    )


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor, Tensor] = _backward(gradient, *ctx.saved_tensors)
    return found


_forward.register_autograd(_differentiate, setup_context=_keep)


def kernel_basis_fused(
    values: Tensor, coefficients: Tensor, bases: Tensor, biases: Tensor
) -> Tensor:
    """Apply kernel basis attention by fused kernels.

    Arguments and result are those of kernel_basis_reference, all of one dtype of float32, float16
    and bfloat16, in any memory layout; g is 2 or 4 and N at most 128. float32 is multiplied as
    TF32 where torch.backends.cuda.matmul.allow_tf32 permits it.
    """
    mixed: Tensor = _forward(values, coefficients, bases, biases)
    return mixed
