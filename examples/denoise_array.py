"""Denoise a NumPy array from Python, without files.

python examples/denoise_array.py
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from restorekit import Image, load_model, restore_image
from restorekit.engine.restore import RestoreOptions
from restorekit.image import Layout, Transfer


def denoise(pixels: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Denoise (H, W, 3) sRGB pixels in [0, 1] with noise of a deviation in 0-255 units."""
    planes = torch.from_numpy(pixels).permute(2, 0, 1)
    image = Image(planes, Transfer.SRGB, Layout.RGB)
    model = load_model("kbnet_xs.gaussian")
    restored, _ = restore_image(image, model, RestoreOptions(noise=sigma))
    return restored.pixels.permute(1, 2, 0).numpy()


def main() -> tuple[float, float]:
    """Return the RMS error before and after, in 0-255 units."""
    y, x = np.mgrid[0:160, 0:240] / 160
    clean = np.stack([x / 1.5, 0.5 + 0.4 * np.sin(9 * x), (y > 0.5) * 0.6], -1).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 25 / 255, clean.shape).astype(np.float32)
    before, after = clean + noise, denoise(clean + noise, 25)
    errors = [255 * float(np.sqrt(np.mean((p - clean) ** 2))) for p in (before, after)]
    print(f"RMS error {errors[0]:.1f} before, {errors[1]:.1f} after")
    return errors[0], errors[1]


if __name__ == "__main__":
    main()
