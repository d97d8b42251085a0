"""Compare tiled results with the untiled one, and frozen with global pooling.

python tests/benchmarks/tiles.py PICTURE [--model NAME] [--sigma 25] [--size 1000x1500]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from restorekit import load_model, read_image, restore_image
from restorekit.degradations import gaussian_noise
from restorekit.engine.restore import RestoreOptions
from restorekit.metrics import psnr
from restorekit.tiling import plan_tiles


def main() -> None:
    """Print one line a tile size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("--model", default="kbnet_xs.gaussian")
    parser.add_argument("--sigma", type=float, default=25)
    parser.add_argument("--size", default="1000x1500")
    words = parser.parse_args()
    height, width = map(int, words.size.split("x"))
    image = read_image(words.picture)
    enlarged = torch.nn.functional.interpolate(image.pixels[None], (height, width), mode="bicubic")
    clean = enlarged[0].clamp(0, 1)
    noisy = gaussian_noise(clean, words.sigma / 255, torch.Generator().manual_seed(0))
    loaded = load_model(words.model)
    std = torch.full((1, 1, height, width), words.sigma / 255)
    with torch.no_grad():
        pooled = loaded.model(noisy[None], std)[0]
    print(f"untiled, global pooling: {psnr(pooled, clean):.3f} dB")
    whole = None
    for tile in (max(height, width), 512, 256, 128):
        options = RestoreOptions(noise=words.sigma, tile=tile, dtype="float32")
        picture = replace(image, pixels=noisy, alpha=None)
        restored = restore_image(picture, loaded, options)[0].pixels
        whole = restored if whole is None else whole
        difference = 255 * (restored - whole).abs()
        spec = loaded.model.spec
        plan = plan_tiles(height, width, tile, spec.overlap, spec.multiple_of)
        borders = gradient_at_borders(restored, whole, sorted({box.x for box in plan.boxes}))
        print(
            f"tile {tile}: {psnr(restored, clean):.3f} dB, against untiled mean "
            f"{difference.mean():.4f} largest {difference.max():.2f} of 255, {borders}"
        )


def gradient_at_borders(restored: torch.Tensor, whole: torch.Tensor, starts: list[int]) -> str:
    """Compare gradients across the left borders of tiles with those of the untiled result."""
    ratio = [
        float(x.diff(dim=-1).abs()[..., columns].mean())
        for columns in [[c for start in starts[1:] for c in range(start, start + 24)]]
        for x in (restored, whole)
        if columns
    ]
    return f"gradients there {ratio[0] / ratio[1]:.4f} of untiled" if ratio else "no borders"


if __name__ == "__main__":
    main()
