"""Measure a denoiser by the papers' Gaussian colour protocol.

    python tests/benchmarks/gaussian.py FOLDER [--model NAME] [--sigma 15,25,50] [--dtype bfloat16]

For each picture, noise of seed 0 is added in float and not clipped; the whole picture goes through
the network at once; the result is clamped, rounded to 8 bits and compared on RGB without a border.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from restorekit.datasets import find_pictures
from restorekit.hub import load_model
from restorekit.io import read_image
from restorekit.metrics import psnr
from restorekit.models.registry import RestorationModel, torch_dtype


def protocol_psnr(
    model: RestorationModel, paths: list[Path], sigma: float, dtype: torch.dtype
) -> float:
    """Return the mean PSNR over pictures at one noise level in 0-255 units."""
    scores = []
    for path in paths:
        clean = read_image(path).pixels
        height, width = clean.shape[1:]
        drawn = np.random.RandomState(0).normal(0, sigma / 255, (height, width, len(clean)))
        noisy = (clean + torch.from_numpy(drawn).permute(2, 0, 1)).float()
        std = torch.full((1, 1, height, width), sigma / 255)
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            restored = model(noisy[None], std)[0].float()
        scores.append(psnr((restored.clamp(0, 1) * 255).round() / 255, clean))
    return float(np.mean(scores))


def main() -> None:
    """Print one row a noise level."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="kbnet_xs.gaussian")
    parser.add_argument("--sigma", default="15,25,50")
    parser.add_argument("--dtype", default="float32")
    words = parser.parse_args()
    loaded = load_model(words.model)
    paths = find_pictures([words.folder])
    print(f"{loaded.card.name} on {len(paths)} pictures of {words.folder.name}, {words.dtype}")
    for sigma in map(float, words.sigma.split(",")):
        start = time.perf_counter()
        score = protocol_psnr(loaded.model, paths, sigma, torch_dtype(words.dtype))
        print(f"sigma {sigma:g}: {score:.3f} dB, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
