"""How good a network is on pictures that its training never sees."""

from __future__ import annotations

import torch

from restorekit.datasets import PictureCache
from restorekit.degradations import gaussian_noise
from restorekit.metrics import psnr
from restorekit.models.registry import RestorationModel
from restorekit.ops.color import luma


def validation_psnr(
    model: RestorationModel,
    cache: PictureCache,
    numbers: range,
    sigma: float,
    side: int,
    precision: torch.autocast,
) -> float:
    """Return the mean PSNR in dB over the centres of some pictures with white Gaussian noise.

    Args:
        model: network in evaluation mode, on its device.
        cache: clean pictures.
        numbers: those to use; each has its own fixed noise.
        sigma: deviation of the noise in 0-255 units.
        side: largest side of the centres.
        precision: autocast to run in.
    """
    device = next(model.parameters()).device
    scores = []
    for number in numbers:
        height, width = cache.shapes[number]
        h, w = min(side, height), min(side, width)
        crop = cache.crop(number, (height - h) // 2, (width - w) // 2, h, w)
        clean = crop.float()[None].div(255)
        if model.spec.in_channels == 1:
            clean = luma(clean)
        generator = torch.Generator().manual_seed(number)
        std = torch.full((1, 1, 1, 1), sigma / 255)
        noisy = gaussian_noise(clean, std, generator).to(device)
        with torch.no_grad(), precision:
            restored = model(noisy, std.to(device)).float().cpu()
        scores.append(psnr(restored.clamp(0, 1), clean))
    return sum(scores) / len(scores)
