"""Time kernel basis attention against the published order, which fuses a kernel for every pixel.

    python tests/benchmarks/kernel_basis.py [--device cuda] [--dtype float32] [--repeats 5]

Both run interleaved; medians are printed, with the share of the speeds of the matrix product and
of copying, and the largest memory beside the inputs. CUDA calls are replayed as graphs.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from measure import copy_rate, device_name, medians, peak_memory, product_rate, replayed
from torch import Tensor

from restorekit.engine.device import choose_device, keep_freed_memory
from restorekit.models.registry import torch_dtype
from restorekit.ops.kernel_basis import kernel_basis_attention

SHAPES = ((64, 256), (128, 128), (256, 64), (512, 32), (1024, 16))
BASES, GROUP = 32, 4


def published(values: Tensor, coefficients: Tensor, bases: Tensor, biases: Tensor) -> Tensor:
    """Fuse the bases into one kernel a pixel, then apply it."""
    batch, channels, height, width = values.shape
    pixels, group = height * width, bases.shape[2]
    mixing = coefficients.flatten(2).transpose(1, 2)
    kernels = mixing @ bases.flatten(1)
    kernels = kernels.view(batch, pixels, channels // group, group, group * 9)
    patches = F.unfold(values, 3, padding=1).view(batch, channels // group, group * 9, pixels)
    mixed = kernels @ patches.permute(0, 3, 1, 2).unsqueeze(-1)
    mixed = mixed.view(batch, pixels, channels) + mixing @ biases
    return mixed.transpose(1, 2).reshape(values.shape)


def main() -> None:
    """Print one row a stage of KBNet_s."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shapes", nargs="*", metavar="CxSIZE", help="as 64x256; default all")
    words = parser.parse_args()
    device, dtype = choose_device(words.device), torch_dtype(words.dtype)
    keep_freed_memory()
    product, copy = product_rate(dtype, device), copy_rate(device)
    print(
        f"{device_name(device)}, {words.dtype}, product {product / 1e9:.0f} GFLOP/s, "
        f"copy {copy / 1e9:.0f} GB/s"
    )
    print(
        "| C, size | published ms | ours ms | ratio | of product | of copy | memory | "
        "both ways: published ms | ours ms | ratio | memory |"
    )
    print(f"|---|{'--:|' * 10}")
    shapes = [tuple(map(int, shape.split("x"))) for shape in words.shapes or ()]
    for channels, size in shapes or SHAPES:
        print(row(channels, size, dtype, device, words.repeats, product, copy))


def row(
    channels: int,
    size: int,
    dtype: torch.dtype,
    device: torch.device,
    repeats: int,
    product: float,
    copy: float,
) -> str:
    """Measure one shape and return its row of the table."""
    generator = torch.Generator().manual_seed(0)
    shapes = (
        (1, channels, size, size),
        (1, BASES, size, size),
        (BASES, channels, GROUP, 3, 3),
        (BASES, channels),
    )
    inputs = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    needing = [x.clone().requires_grad_() for x in inputs]
    gradient = torch.ones_like(inputs[0])
    operators = {"theirs": published, "ours": kernel_basis_attention}
    calls = {name: lambda f=f: f(*inputs) for name, f in operators.items()}
    for name, f in operators.items():
        calls[f"{name} both"] = lambda f=f: torch.autograd.grad(f(*needing), needing, gradient)
    memory = {name: max(peak_memory(call, device), 1) for name, call in calls.items()}
    each = 10 if device.type == "cuda" else 1
    timed = medians({k: replayed(v, device) for k, v in calls.items()}, device, repeats, each)
    operations = 2 * size * size * channels * 9 * GROUP * BASES
    moved = sum(x.nbytes for x in (inputs[0], *inputs))
    return (
        f"| {channels}, {size}x{size} | {1e3 * timed['theirs']:.3g} | {1e3 * timed['ours']:.3g} | "
        f"{timed['theirs'] / timed['ours']:.1f} | {operations / timed['ours'] / product:.0%} | "
        f"{moved / timed['ours'] / copy:.0%} | 1/{memory['theirs'] / memory['ours']:.0f} | "
        f"{1e3 * timed['theirs both']:.3g} | {1e3 * timed['ours both']:.3g} | "
        f"{timed['theirs both'] / timed['ours both']:.1f} | "
        f"1/{memory['theirs both'] / memory['ours both']:.0f} |"
    )


if __name__ == "__main__":
    main()
