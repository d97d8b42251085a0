"""Rain: streaks of falling drops at several depths, and the veil of the drops behind them.

A drop shows a wide piece of the sky, so its streak has the light of the surroundings and covers
the scene only for the part of the exposure in which the drop passes (Garg & Nayar, IJCV 2007).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from restorekit.degradations.raster import smooth_field

DEPTHS = (1.0, 1.6, 2.6, 4.2)
SHARES = {depth: depth**2 / sum(d**2 for d in DEPTHS) for depth in DEPTHS}
STEEPEST = 60.0
PIXEL = 1.2
SOFT_END = 0.3
DEPTH_CELLS = 3
CHUNK = 2048


@dataclass(frozen=True)
class RainParameters:
    """Say how hard it rains.

    Attributes:
        density: streaks in 1000 pixels, all depths together; 0 is none.
        angle: degrees from the vertical, positive falls to the right.
        spread: deviation of the angle from streak to streak, degrees.
        length: pixels that the nearest drops fall during the exposure.
        width: pixels of the nearest streaks at half of their opacity.
        opacity: optical thickness in the middle of a streak.
        light: linear brightness of the drops and of the veil, white 1.
        haze: optical thickness of the veil where the scene is farthest; 0 is none.
    """

    density: float
    angle: float
    spread: float
    length: float
    width: float
    opacity: float
    light: float
    haze: float


def sample_rain(
    generator: Generator, lightest: float = 0.0, heaviest: float = 1.0
) -> RainParameters:
    """Draw a rain between next to nothing and a cloudburst, light rain more often.

    Args:
        generator: source of the draws.
        lightest: least heaviness, 0 for next to nothing.
        heaviest: greatest heaviness, 1 for a cloudburst.

    Ranges: density 0..20, angle normal of deviation 18 and at most 50, spread 0.5..4, width 0.8..4
    (log-uniform), length 8..40 widths (log-uniform) but at most 80 pixels, opacity 0.15..1.2, light
    0.35..1, haze 0..0.4; density, opacity and haze grow together.
    """
    draws = torch.rand(7, generator=generator, dtype=torch.float64).tolist()
    lean = float(torch.randn((), generator=generator))
    heaviness = lightest + draws[0] * (heaviest - lightest)
    width = 0.8 * 5 ** draws[2]
    return RainParameters(
        density=20 * heaviness**1.5,
        angle=max(-50.0, min(50.0, 18 * lean)),
        spread=0.5 + 3.5 * draws[1] ** 2,
        length=min(80.0, width * 8 * 5 ** draws[3]),
        width=width,
        opacity=0.15 + 1.05 * draws[4] * (0.4 + 0.6 * heaviness),
        light=0.35 + 0.65 * draws[5],
        haze=0.4 * heaviness * draws[6],
    )


def rain_streaks(linear: Tensor, rain: RainParameters, generator: Generator) -> Tensor:
    """Let it rain in pictures: the same rain, other drops in each.

    Streaks move the scene towards the light of the drops where it is darker and leave brighter
    parts alone; the veil moves all of it, most where a random depth is farthest.

    Args:
        linear: (*batch, C, H, W) linear light in [0, 1].
        rain: how hard it rains.
        generator: source of drops and depth.

    Returns:
        (*batch, C, H, W) in [0, 1]; the picture itself where density and haze are 0.
    """
    height, width = linear.shape[-2:]
    batch = linear.shape[:-3]
    distance = 1 - torch.linspace(0, 1, height)[:, None]
    hills = smooth_field(batch, height, width, DEPTH_CELLS, generator)
    veil = -torch.expm1(-rain.haze * (0.4 + 0.6 * hills) * (0.6 + 0.4 * distance))
    hazy = linear + veil * (rain.light - linear)
    cover = _streak_cover(linear.shape, rain, generator)
    return hazy + cover * (rain.light - hazy).clamp_min(0)


def added_streaks(encoded: Tensor, rain: RainParameters, generator: Generator) -> Tensor:
    """Add the light of streaks to encoded values, as most published sets of pairs were made.

    Args:
        encoded: (*batch, C, H, W) sRGB-encoded in [0, 1].
        rain: how hard it rains; it has no veil, and its light is taken as encoded.
        generator: source of drops.

    Returns:
        (*batch, C, H, W), clipped at 1.
    """
    cover = _streak_cover(encoded.shape, rain, generator)
    return (encoded + rain.light * cover).clamp_max(1)


def _streak_cover(shape: torch.Size, rain: RainParameters, generator: Generator) -> Tensor:
    """Return the share of the scene that drops hide, (*batch, 1, H, W) for pictures of a shape."""
    *batch, _, height, width = shape
    thickness = torch.zeros(math.prod(batch), height, width)
    for depth in DEPTHS:
        _add_layer(thickness, rain, depth, generator)
    return -torch.expm1(-thickness).view(*batch, 1, height, width)


def _add_layer(thickness: Tensor, rain: RainParameters, depth: float, generator: Generator) -> None:
    """Add the optical thickness of the streaks at one depth to (B, H, W)."""
    pictures, height, width = thickness.shape
    layer_lean = rain.angle + rain.spread * float(torch.randn((), generator=generator))
    reach, tilt = 0.75 * rain.length / depth + rain.width, math.radians(layer_lean)
    margin = torch.tensor((reach * math.cos(tilt), reach * abs(math.sin(tilt)) + 1))
    field = torch.tensor((height, width)) + 2 * margin
    expected = rain.density * SHARES[depth] * float(field.prod()) / 1000
    count = int(expected + float(torch.rand((), generator=generator)))
    middle = torch.rand(pictures, count, 2, generator=generator) * field - margin
    stretch, swell, strength = torch.rand(3, pictures, count, generator=generator)
    lean = layer_lean + rain.spread * torch.randn(pictures, count, generator=generator)
    streaks = torch.stack(
        (
            *middle.unbind(-1),
            lean.clamp(-STEEPEST, STEEPEST).deg2rad(),
            rain.length / depth * (0.5 + stretch),
            rain.width / depth * (0.6 + 0.8 * swell),
            rain.opacity * (0.3 + 0.7 * strength),
        ),
        -1,
    )
    for part in torch.split(streaks, CHUNK, dim=1):
        _draw_streaks(thickness, part)


def _draw_streaks(thickness: Tensor, streaks: Tensor) -> None:
    """Add soft bars to (B, H, W): streaks (B, N, 6) are row, column, lean, length, width, peak.

    Each is drawn on the rows that it meets, on a band of pixels around its middle line. Bars
    are widened by the blur of a pixel, and weakened by as much.
    """
    pictures, height, width = thickness.shape
    if streaks.numel() == 0:
        return
    row, column, lean, length, thin, peak = streaks[..., None, None].unbind(2)
    breadth = (thin**2 + PIXEL**2).sqrt()
    end = torch.maximum(breadth, SOFT_END * length)
    half_rows = (length + end) / 2 * lean.cos() + breadth * lean.sin().abs()
    half_band = math.ceil(float((breadth / lean.cos()).amax()))
    rows = torch.arange(2 * math.ceil(float(half_rows.amax())) + 1)[:, None]
    y = (row - half_rows).ceil() + rows
    x = (column + (y - row) * lean.tan()).round() + torch.arange(-half_band, half_band + 1)
    along = (y - row) * lean.cos() + (x - column) * lean.sin()
    across = (x - column) * lean.cos() - (y - row) * lean.sin()
    taper = ((length / 2 - along.abs()) / end + 0.5).clamp(0, 1)
    profile = (-4 * math.log(2) * (across / breadth) ** 2).exp()
    weights = peak * (thin / breadth) * taper * profile
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width) & (taper > 0)
    picture = torch.arange(pictures).view(-1, 1, 1, 1) * height
    index = ((picture + y.long()) * width + x.long())[inside]
    thickness.view(-1).index_add_(0, index, weights[inside])
