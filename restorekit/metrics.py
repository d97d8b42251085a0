"""How close a restored picture is to the truth, and the protocols by which papers measure it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from restorekit.errors import UsageError
from restorekit.ops.gaussian import gaussian_taps, separable_means

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
_SSIM_CONSTANTS = 0.01**2, 0.03**2
_LUMA_WEIGHTS = 65.481, 128.553, 24.966
_LUMA_BLACK = 16


def psnr(restored: Tensor, clean: Tensor) -> float:
    """Return 10 log10(1 / MSE) in dB of two pictures in [0, 1] of any equal shape."""
    error = float((restored.double() - clean.double()).square().mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def mae(restored: Tensor, clean: Tensor) -> float:
    """Return the mean absolute difference of two pictures of any equal shape."""
    return float((restored.double() - clean.double()).abs().mean())


def ssim(restored: Tensor, clean: Tensor) -> float:
    """Return the mean structural similarity, as MATLAB's ssim_index measures it.

    The window is an 11 x 11 Gaussian of deviation 1.5; only windows that lie inside the picture
    count; the planes are measured one by one and averaged (Wang et al., 2004).

    Args:
        restored: (C, H, W) in [0, 1].
        clean: (C, H, W) in [0, 1].

    Raises:
        UsageError: the pictures are smaller than the window.
    """
    if min(clean.shape[-2:]) < SSIM_WINDOW:
        raise UsageError(f"SSIM needs {SSIM_WINDOW} x {SSIM_WINDOW} pixels at least")
    planes = zip(restored.double(), clean.double(), strict=True)
    return sum(_plane_ssim(x, y) for x, y in planes) / len(clean)


def _plane_ssim(x: Tensor, y: Tensor) -> float:
    taps = gaussian_taps(SSIM_SIGMA, SSIM_WINDOW // 2)
    mean_x, mean_y, xx, yy, xy = (
        separable_means(plane, taps) for plane in (x, y, x * x, y * y, x * y)
    )
    c1, c2 = _SSIM_CONSTANTS
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    variance = (xx - mean_x**2) + (yy - mean_y**2)
    structure = (2 * (xy - mean_x * mean_y) + c2) / (variance + c2)
    return float((luminance * structure).mean())


def luma_bt601(rgb: Tensor) -> Tensor:
    """Return Y of YCbCr by ITU-R BT.601 with black 16 and white 235, as MATLAB's rgb2ycbcr does.

    Args:
        rgb: (..., 3, H, W) encoded R, G, B: uint8, or floating point in [0, 1].

    Returns:
        (..., 1, H, W): uint8 rounded to integers for uint8, else float64 with Y / 255.
    """
    integers = rgb.dtype == torch.uint8
    weights = torch.tensor(_LUMA_WEIGHTS, dtype=torch.float64, device=rgb.device).view(3, 1, 1)
    unit = rgb.double() / 255 if integers else rgb.double()
    y = (unit * weights).sum(-3, keepdim=True) + _LUMA_BLACK
    return (y + 0.5).floor().to(torch.uint8) if integers else y / 255


def crop_border(pixels: Tensor, border: int) -> Tensor:
    """Return (..., H, W) pixels without so many rows and columns on each side."""
    height, width = pixels.shape[-2:]
    return pixels[..., border : height - border, border : width - border]


@dataclass(frozen=True)
class Protocol:
    """Fix everything that a measured number depends on beside the model and the pictures.

    Attributes:
        name: by which it is asked for.
        task: verb that it measures.
        description: of the pictures, in a few words.
        reference: papers whose tables it makes.
        layout: what is compared: rgb, gray, or y for luma by luma_bt601.
        sigmas: deviations of the noise that is added, in steps of 0..255; none for pairs of files.
        gains: noise levels of the bursts that are made, see degradations.burst.GAINS; else none.
        aligned: whether the frames of these bursts are shifted back by whole pixels.
        seed: of the noise, the same for every picture; None for pairs of files.
        clipped: whether degraded values are clipped to [0, 1] before they are restored.
        rounded: whether the restored and the clean picture are rounded to 8 bits.
        border: rows and columns at each side that are not compared.
    """

    name: str
    task: str
    description: str
    reference: str
    layout: str
    sigmas: tuple[float, ...] = ()
    gains: tuple[int, ...] = ()
    aligned: bool = False
    seed: int | None = None
    clipped: bool = True
    rounded: bool = True
    border: int = 0

    def summary(self) -> str:
        """Return pictures, colour space, range, border, rounding and noise in one line."""
        space = {"rgb": "RGB", "gray": "grey", "y": "Y of BT.601 (16-235)"}[self.layout]
        parts = [
            f"{self.name} ({self.reference}): {self.description}",
            f"compared on {space}, sRGB-encoded, range 0-1",
            f"border {self.border}",
            "clamped and rounded to 8 bits" if self.rounded else "clamped, not rounded",
        ]
        if self.gains:
            frames = "aligned to whole pixels" if self.aligned else "not aligned"
            parts.append(f"bursts of seed {self.seed} and the picture's name, frames {frames}")
        elif self.seed is not None:
            clipping = "clipped" if self.clipped else "not clipped"
            parts.append(f"noise of numpy seed {self.seed} for each picture, {clipping}")
        return "; ".join([*parts, "mean over pictures"])


_UNALIGNED = Protocol(
    "burst-unaligned",
    "burst",
    "bursts of 8 frames made from clean pictures, at a quarter of their resolution",
    "AME-KPN, Table 1",
    "gray",
    gains=(1, 2, 3, 4),
    seed=0,
    clipped=False,
    rounded=False,
    border=8,
)
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "gaussian-colour",
            "denoise",
            "colour pictures with added Gaussian noise",
            "KBNet, Table 1",
            "rgb",
            sigmas=(15, 25, 50),
            seed=0,
            clipped=False,
        ),
        Protocol(
            "gaussian-grey",
            "denoise",
            "grey pictures with added Gaussian noise",
            "KBNet, Table 2",
            "gray",
            sigmas=(15, 25, 50),
            seed=0,
            clipped=False,
        ),
        Protocol("sidd", "denoise", "pairs with sensor noise", "KBNet, Table 3", "rgb"),
        Protocol("gopro", "deblur", "pairs with motion blur", "KiT", "rgb"),
        Protocol("derain-y", "derain", "pairs with rain", "KBNet, Table 6; KiT", "y"),
        Protocol(
            "dpdd", "deblur", "pairs with defocus blur", "KBNet, Table 5", "rgb", rounded=False
        ),
        replace(_UNALIGNED, name="burst", aligned=True),
        _UNALIGNED,
    )
}
"""The protocols by name; the first of a task is the one that the task's name stands for."""


@dataclass(frozen=True)
class Scores:
    """Hold how close one picture is: PSNR in dB, SSIM, and MAE in units of white."""

    psnr: float
    ssim: float
    mae: float


def compared(pixels: Tensor, protocol: Protocol) -> Tensor:
    """Return what a protocol compares of a picture.

    Args:
        pixels: (C, H, W) sRGB-encoded, of any range.
        protocol: with layout y, of three planes.

    Returns:
        (C, H, W) float64 in [0, 1]; one plane for layout y.
    """
    pixels = pixels.double().clamp(0, 1)
    if protocol.rounded:
        pixels = (pixels * 255).round().to(torch.uint8)
    if protocol.layout == "y":
        pixels = luma_bt601(pixels)
    pixels = crop_border(pixels, protocol.border)
    return pixels.double() / 255 if protocol.rounded else pixels


def measure(restored: Tensor, clean: Tensor, protocol: Protocol) -> Scores:
    """Measure a restored picture against the clean one, both (C, H, W) sRGB-encoded.

    Raises:
        UsageError: the picture is too small for SSIM.
    """
    x, y = compared(restored, protocol), compared(clean, protocol)
    return Scores(psnr(x, y), ssim(x, y), mae(x, y))
