"""Time kernel basis attention against the published order, which fuses a kernel for every pixel.

    python tests/benchmarks/kernel_basis.py [--dtype float32] [--repeats 5]

Both run interleaved; medians are printed, with the share of the matrix product's speed and the
largest memory beside inputs and outputs.
"""

from __future__ import annotations

import argparse
import statistics
import time
import weakref
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from restorekit.engine.device import keep_freed_memory
from restorekit.models.registry import torch_dtype
from restorekit.ops.kernel_basis import kernel_basis_attention

SHAPES = ((64, 256), (128, 128), (256, 64), (512, 32), (1024, 16))
BASES, GROUP = 32, 4


def published(values: Tensor, coefficients: Tensor, bases: Tensor, biases: Tensor) -> Tensor:
    """Fuse the bases into one kernel a pixel, then apply it."""
    _, channels, height, width = values.shape
    pixels = height * width
    mixing = coefficients.flatten(2).transpose(1, 2)
    kernels = mixing @ bases.flatten(1)
    kernels = kernels.view(1, pixels, channels // GROUP, GROUP, GROUP * 9)
    patches = F.unfold(values, 3, padding=1).view(1, channels // GROUP, GROUP * 9, pixels)
    mixed = kernels @ patches.permute(0, 3, 1, 2).unsqueeze(-1)
    mixed = mixed.view(1, pixels, channels) + mixing @ biases
    return mixed.transpose(1, 2).reshape(values.shape)


class _LiveMemory(TorchDispatchMode):
    """Follow the bytes of the tensors that operators make and that still live."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(  # type: ignore[no-untyped-def]
        self, function, types, args=(), kwargs=None
    ):
        result = function(*args, **(kwargs or {}))
        given = {x.untyped_storage().data_ptr() for x in args if isinstance(x, Tensor)}
        if isinstance(result, Tensor):
            storage = result.untyped_storage()
            place, size = storage.data_ptr(), storage.nbytes()
            if place not in given | self._known:
                self._known.add(place)
                self.live += size
                self.most = max(self.most, self.live)
                weakref.finalize(storage, self._forget, place, size)
        return result

    def _forget(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.live -= size


def peak_memory(call: Callable[[], object]) -> int:
    """Return the most bytes that a call holds at once beside its inputs."""
    with _LiveMemory() as memory:
        call()
    return memory.most


def seconds(call: Callable[[], object]) -> float:
    """Return how long one call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    """Print one row a stage of KBNet_s."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    words = parser.parse_args()
    dtype = torch_dtype(words.dtype)
    keep_freed_memory()
    square = torch.randn(2048, 2048, dtype=dtype)
    ceiling = 2 * 2048**3 / min(seconds(lambda: square @ square) for _ in range(5))
    print(f"{words.dtype}, {torch.get_num_threads()} threads, product {ceiling / 1e9:.0f} GFLOP/s")
    print("| C, size | published ms | ours ms | ratio | forward+backward | of product | memory |")
    print("|---|---|---|---|---|---|---|")
    for channels, size in SHAPES:
        print(row(channels, size, dtype, words.repeats, ceiling))


def row(channels: int, size: int, dtype: torch.dtype, repeats: int, ceiling: float) -> str:
    """Measure one shape and return its row of the table."""
    generator = torch.Generator().manual_seed(0)
    shapes = (
        (1, channels, size, size),
        (1, BASES, size, size),
        (BASES, channels, GROUP, 3, 3),
        (BASES, channels),
    )
    inputs = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    needing = [x.clone().requires_grad_() for x in inputs]
    gradient = torch.ones_like(inputs[0])
    timed: dict[str, list[float]] = {"theirs": [], "ours": [], "theirs both": [], "ours both": []}
    for _ in range(repeats + 1):
        for name, operator in (("theirs", published), ("ours", kernel_basis_attention)):
            timed[name].append(seconds(lambda f=operator: f(*inputs)))
            timed[f"{name} both"].append(seconds(lambda f=operator: f(*needing).backward(gradient)))
    theirs, ours, theirs_both, ours_both = (statistics.median(t[1:]) for t in timed.values())
    memory = [peak_memory(lambda f=f: f(*inputs)) for f in (published, kernel_basis_attention)]
    share = 2 * size * size * channels * 9 * GROUP * BASES / ours / ceiling
    return (
        f"| {channels}, {size}x{size} | {1e3 * theirs:.0f} | {1e3 * ours:.0f} | "
        f"{theirs / ours:.1f} | {theirs_both / ours_both:.1f} | {share:.0%} | "
        f"1/{memory[0] / max(memory[1], 1):.0f} |"
    )


if __name__ == "__main__":
    main()
