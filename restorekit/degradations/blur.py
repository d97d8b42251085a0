"""Motion and defocus blur, in linear light."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from restorekit.degradations.psf import disk_psf, line_track, polygon_psf, shake_track, track_psf
from restorekit.degradations.raster import smooth_field

STRAIGHT_SHARE = 0.2
ROUND_SHARE = 0.3
DEPTH_LAYERS = 5
DEPTH_CELLS = 4


def convolve(linear: Tensor, psf: Tensor, border: str = "reflect") -> Tensor:
    """Blur pictures by point spread functions.

    Args:
        linear: (*batch, C, H, W) linear light.
        psf: (K, L) for all pictures or (*batch, K, L), odd sides, middle pixel at rest.
        border: what lies beyond the picture: "reflect", "replicate" or "circular".

    Returns:
        (*batch, C, H, W), exact but for rounding near 1e-7 of the brightest value.

    Raises:
        ValueError: a side of psf is even, or at "reflect" the picture is not larger than K // 2.
    """
    rows, columns = psf.shape[-2:]
    height, width = linear.shape[-2:]
    if rows % 2 == 0 or columns % 2 == 0:
        raise ValueError(f"a point spread function has odd sides, not {rows}x{columns}")
    down, right = rows // 2, columns // 2
    if border == "reflect" and (down >= height or right >= width):
        raise ValueError(f"{rows}x{columns} blur does not fit a {height}x{width} picture")
    flat = linear.reshape(-1, *linear.shape[-3:])
    padded = F.pad(flat, (right, right, down, down), mode=border)
    padded = padded.view(*linear.shape[:-2], height + 2 * down, width + 2 * right)
    size = [_fast_length(height + 2 * down), _fast_length(width + 2 * right)]
    spectrum = torch.fft.rfft2(padded, size) * torch.fft.rfft2(psf, size)[..., None, :, :]
    blurred: Tensor = torch.fft.irfft2(spectrum, size)
    return blurred[..., 2 * down : 2 * down + height, 2 * right : 2 * right + width]


def motion_blur(
    linear: Tensor, longest: float, generator: Generator, shortest: float = 0.0
) -> Tensor:
    """Blur pictures by random motion: mostly camera shake, one in five straight.

    Args:
        linear: (*batch, C, H, W) linear light, sides above longest + 2.
        longest: pixels that the longest motion spans; drawn uniformly.
        generator: source of the motion.
        shortest: pixels that the shortest one spans.
    """
    batch = linear.shape[:-3]
    extent, angle, choice = torch.rand(3, *batch, 1, 1, generator=generator)
    straight = line_track(2 * math.pi * angle[..., 0, 0])
    track = torch.where(choice < STRAIGHT_SHARE, straight, shake_track(batch, generator))
    return convolve(linear, track_psf(track * (shortest + extent * (longest - shortest))))


def defocus_blur(
    linear: Tensor, largest: float, generator: Generator, smallest: float = 0.0
) -> Tensor:
    """Blur each picture as a whole by a random aperture: round or with 5 to 9 blades.

    Args:
        linear: (*batch, C, H, W) linear light.
        largest: pixels of the largest radius; drawn uniformly.
        generator: source of radius and aperture.
        smallest: pixels of the smallest one.
    """
    batch = linear.shape[:-3]
    share = torch.rand(tuple(batch), generator=generator)
    radius = smallest + share * (largest - smallest)
    return convolve(linear, _aperture_psfs(radius[None], batch, generator)[0])


def depth_blur(linear: Tensor, largest: float, generator: Generator) -> Tensor:
    """Blur pictures by a radius that follows a smooth random depth, sharp where that is in focus.

    Each pixel blends the two nearest of a few pictures blurred by growing radii. This is no model
    of occlusion: at an edge of depth, nothing hides behind the nearer side.

    Args:
        linear: (*batch, C, H, W) linear light.
        largest: pixels of the largest radius that may be met.
        generator: source of depth and aperture.
    """
    batch = linear.shape[:-3]
    near, far = 2 * torch.rand(2, *batch, 1, 1, 1, generator=generator) - 1
    depth = smooth_field(batch, linear.shape[-2], linear.shape[-1], DEPTH_CELLS, generator)
    level = (near + (far - near) * depth).abs() * (DEPTH_LAYERS - 1)
    radii = torch.linspace(0, largest, DEPTH_LAYERS).view(-1, *(1 for _ in batch))
    layers = convolve(linear[None], _aperture_psfs(radii, batch, generator))
    steps = torch.arange(DEPTH_LAYERS).view(-1, *(1 for _ in linear.shape))
    shares = (1 - (level - steps).abs()).clamp_min(0)
    return torch.sum(layers * shares, 0)


def _aperture_psfs(radii: Tensor, batch: Sequence[int], generator: Generator) -> Tensor:
    """Return (N, *batch, K, K) for radii (N, *batch) or (N, 1...), one aperture a picture."""
    blades = torch.randint(5, 10, tuple(batch), generator=generator)
    rotation, choice = torch.rand(2, *batch, generator=generator)
    polygons = polygon_psf(radii, blades, 2 * math.pi * rotation)
    return torch.where((choice < ROUND_SHARE)[..., None, None], disk_psf(radii), polygons)


def _fast_length(length: int) -> int:
    return -(-length // 16) * 16
