"""Time a tile of a bundled network with the compiled kernels and with plain PyTorch.

    python tests/benchmarks/compiled.py [MODEL ...] [--repeats 5]

Both run interleaved on one tile of 512x512 with frozen pooling, as the engine runs them; medians
are printed, and how far the results lie apart.
"""

from __future__ import annotations

import argparse

import torch
from measure import device_name, medians
from torch import Tensor, nn

from restorekit import load_model
from restorekit.engine.device import keep_freed_memory
from restorekit.ops import compiled

MODELS = ("kbnet_xs.gaussian", "kbnet_xs.photo", "kbnet_xs.raw", "kbnet_xs.rain")
SIZE = 512


def main() -> None:
    """Print one row for each model and dtype."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--repeats", type=int, default=5)
    words = parser.parse_args()
    keep_freed_memory()
    print(f"{device_name(torch.device('cpu'))}, a tile of {SIZE}x{SIZE}")
    print("| model | dtype | plain ms | compiled ms | ratio | apart |")
    print("|---|---|--:|--:|--:|--:|")
    for name in words.models:
        for dtype in (torch.float32, torch.bfloat16):
            print(row(name, dtype, words.repeats))


def row(name: str, dtype: torch.dtype, repeats: int) -> str:
    """Measure one model in one dtype and return its row of the table."""
    network = load_model(name).model
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(0)
    planes = torch.rand(1, network.spec.in_channels, SIZE, SIZE, generator=generator)
    planes = planes.contiguous(memory_format=torch.channels_last)
    noise = torch.full((1, 1, SIZE, SIZE), 0.05)
    network.freeze_pooling(planes, noise)
    library = compiled.library

    def plain() -> Tensor:
        compiled.library = lambda name: None  # type: ignore[assignment]
        try:
            restored: Tensor = network(planes, noise)
            return restored
        finally:
            compiled.library = library

    calls = {"plain": plain, "compiled": lambda: network(planes, noise)}
    half = dtype != torch.float32
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=half):
        apart = float((calls["compiled"]() - plain()).abs().max())
        timed = medians(calls, torch.device("cpu"), repeats)
    return (
        f"| {name} | {str(dtype).removeprefix('torch.')} | {1e3 * timed['plain']:.0f} | "
        f"{1e3 * timed['compiled']:.0f} | {timed['plain'] / timed['compiled']:.2f} | {apart:.1e} |"
    )


if __name__ == "__main__":
    main()
