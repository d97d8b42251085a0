"""Measure k-nearest-patch local attention: growth with the picture, and what its matches are worth.

    python tests/benchmarks/knn_attention.py [--device cuda] [--dtype float32] [--repeats 3]
    python tests/benchmarks/knn_attention.py --textures [--minutes 10]

The first prints time and peak memory of the operator for 256, 512 and 1024 squared with the slope
of their logarithms, 1 where they grow with the number of pixels, and compares it with torch's
fused attention over the pairs of a block. The second trains one small KiT with k = 1 and one with
k = 4 for the same number of steps to denoise repeated textures, and prints their PSNR.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
import torch.nn.functional as F
from measure import device_name, medians, peak_memory
from torch import Tensor

from restorekit.engine.device import choose_device, keep_freed_memory
from restorekit.losses import charbonnier
from restorekit.metrics import psnr
from restorekit.models import RestorationModel, create_model
from restorekit.models.registry import torch_dtype
from restorekit.ops.knn_attention import Chunks, knn_attention, patch_hashes, to_patches

SIDES = (256, 512, 1024)
CHANNELS, PATCH, NEIGHBOURS, ROUNDS, BUCKETS = 32, 4, 4, 4, 64
SIGMA, SIDE, BATCH, HELD = 50 / 255, 48, 4, 16


def fused_pairs(queries: Tensor, keys: Tensor, values: Tensor, hashes: Tensor) -> Tensor:
    """Attend by scaled_dot_product_attention to each pair of a block; return sorted patches."""
    q, k, v = (to_patches(x, PATCH).flatten(0, 1) for x in (queries, keys, values))
    total = torch.zeros_like(q)
    for found in hashes.unbind(1):
        chunks = Chunks.sort(found, NEIGHBOURS)
        for start, stop in chunks.blocks(2 * (NEIGHBOURS * PATCH**2) ** 2 * q.element_size()):
            own = chunks.rows[start + 1 : stop + 1]
            near = torch.cat((chunks.rows[start:stop], own), 1)
            counted = chunks.window(start, stop)
            mine = q[own][:, :, None].expand(-1, -1, 2 * NEIGHBOURS, -1, -1)
            seen, mixed = (x[near][:, None].expand_as(mine) for x in (k, v))
            outputs = F.scaled_dot_product_attention(mine, seen, mixed)
            similar = (mine * seen).sum((-1, -2)) / (PATCH * CHANNELS**0.5)
            weights = similar.masked_fill(~counted[:, None], -torch.inf).softmax(-1)
            attended = (weights[..., None, None] * outputs).sum(2)
            total.index_add_(0, own.flatten(), attended.flatten(0, 1))
    return total / hashes.shape[1]


def inputs(side: int, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Draw queries, keys, values and features to hash."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(4, 1, CHANNELS, side, side, generator=generator)
    return list(drawn.to(device, dtype))


def print_growth(device: torch.device, dtype: torch.dtype, repeats: int) -> None:
    """Print one row a size, and the slopes between the first and the last."""
    shape = ROUNDS, PATCH**2 * CHANNELS, BUCKETS // 2
    rotations = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device)
    print(f"{device_name(device)}, {dtype}, k = {NEIGHBOURS}, h = {ROUNDS}, C = {CHANNELS}")
    print("| size | seconds | peak MB beside the inputs | fused pairs / ours |")
    print("|---|--:|--:|--:|")
    rows = []
    for side in SIDES:
        *three, features = inputs(side, dtype, device)

        def ours(three: list[Tensor] = three, features: Tensor = features) -> Tensor:
            hashes = patch_hashes(features, rotations, PATCH)
            return knn_attention(*three, hashes, PATCH, NEIGHBOURS)

        def fused(three: list[Tensor] = three, features: Tensor = features) -> Tensor:
            return fused_pairs(*three, patch_hashes(features, rotations, PATCH))

        spent = medians({"ours": ours, "fused": fused}, device, repeats)
        rows.append((spent["ours"], peak_memory(ours, device)))
        ratio = spent["fused"] / spent["ours"]
        print(f"| {side}x{side} | {spent['ours']:.3f} | {rows[-1][1] / 1e6:.0f} | {ratio:.1f} |")
    octaves = 2 * math.log(SIDES[-1] / SIDES[0])
    slopes = [math.log(last / first) / octaves for first, last in zip(*rows[::2], strict=True)]
    print(f"slope of time {slopes[0]:.2f}, of memory {slopes[1]:.2f}")


def textures(count: int, generator: torch.Generator) -> Tensor:
    """Draw pictures that repeat a tile of 12 x 12 random pixels, each with its own."""
    tiles = torch.rand(count, 3, 12, 12, generator=generator)
    return tiles.repeat(1, 1, 6, 6)[..., :SIDE, :SIDE].contiguous()


def noisy(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Add white Gaussian noise of SIGMA."""
    return clean + SIGMA * torch.randn(clean.shape, generator=generator)


def update(
    model: RestorationModel, optimiser: torch.optim.Optimizer, degraded: Tensor, clean: Tensor
) -> None:
    """Take one optimiser step."""
    loss = charbonnier(model(degraded), clean)
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()


def print_textures(minutes: float) -> None:
    """Train both networks in turn on the same batches until the time is over."""
    config = {"width": 16, "blocks": (1, 1), "ffn_ratios": (2.0, 2.0), "rounds": 2}
    models: dict[int, RestorationModel] = {}
    optimisers = {}
    for neighbours in (1, 4):
        torch.manual_seed(0)
        models[neighbours] = create_model("kit", {**config, "neighbours": neighbours})
        optimisers[neighbours] = torch.optim.AdamW(models[neighbours].parameters(), 1e-3)
    generator = torch.Generator().manual_seed(0)
    held = textures(HELD, torch.Generator().manual_seed(1))
    held_noisy = noisy(held, torch.Generator().manual_seed(2))
    started, steps = time.monotonic(), 0
    while time.monotonic() - started < 60 * minutes:
        clean = textures(BATCH, generator)
        degraded = noisy(clean, generator)
        for neighbours, model in models.items():
            update(model, optimisers[neighbours], degraded, clean)
        steps += 1
        if steps % 100 == 0:
            print(f"{steps} steps: {scores(models, held_noisy, held)}", flush=True)
    print(f"{steps} steps: {scores(models, held_noisy, held)}")


def scores(models: dict[int, RestorationModel], degraded: Tensor, clean: Tensor) -> str:
    """Return the PSNR of every network on the same pictures, as text."""
    with torch.no_grad():
        found = {k: psnr(model(degraded).clamp(0, 1), clean) for k, model in models.items()}
    return ", ".join(f"k = {neighbours} {value:.2f} dB" for neighbours, value in found.items())


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--textures", action="store_true")
    parser.add_argument("--minutes", type=float, default=10.0)
    words = parser.parse_args()
    keep_freed_memory()
    if words.textures:
        print_textures(words.minutes)
    else:
        print_growth(choose_device(words.device), torch_dtype(words.dtype), words.repeats)


if __name__ == "__main__":
    main()
