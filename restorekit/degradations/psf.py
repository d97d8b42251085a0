"""Point spread functions of moving cameras and of lenses out of focus.

All are (*batch, K, K) of odd side, not negative, of sum 1, their centroid on the middle pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from restorekit.degradations.raster import splat

STEPS = 128
POINTS = 1024
SUBPIXELS = 8
SMALLEST_RADIUS = 0.5


def shake_psf(extent: Tensor, generator: Generator) -> Tensor:
    """Draw point spread functions of a camera that is held by hand.

    Args:
        extent: (*batch,) pixels that the track spans at the full exposure; the shutter closes
            after 30 to 100 % of it.
        generator: source of the tracks.
    """
    return track_psf(shake_track(extent.shape, generator) * extent[..., None, None])


def line_psf(length: Tensor, angle: Tensor) -> Tensor:
    """Return point spread functions of uniform motion.

    Args:
        length: (*batch,) pixels.
        angle: (*batch,) radians from the row axis towards the column axis, 0 is vertical motion.
    """
    return track_psf(line_track(angle) * length[..., None, None])


def disk_psf(radius: Tensor) -> Tensor:
    """Return point spread functions of a defocused lens with a round aperture.

    Args:
        radius: (*batch,) pixels; at 0.5 and below it is a point.
    """
    radius = radius.clamp_min(SMALLEST_RADIUS)
    distance, _ = _polar_grid(radius)
    return _coverage(distance <= radius[..., None, None])


def polygon_psf(radius: Tensor, blades: Tensor, rotation: Tensor) -> Tensor:
    """Return point spread functions of a defocused lens whose aperture is a regular polygon.

    Args:
        radius: (*batch,) pixels from the centre to a corner; at 0.5 and below it is a point.
        blades: (*batch,) number of sides, 3 or more.
        rotation: (*batch,) radians by which a corner is turned.
    """
    radius = radius.clamp_min(SMALLEST_RADIUS)
    distance, angle = _polar_grid(radius)
    half = (math.pi / blades)[..., None, None]
    to_side = torch.remainder(angle - rotation[..., None, None], 2 * half) - half
    return _coverage(distance * to_side.cos() <= radius[..., None, None] * half.cos())


def shake_track(batch: Sequence[int], generator: Generator) -> Tensor:
    """Draw tracks of an image point while the shutter is open and the hand trembles.

    The velocity starts anywhere, is driven by white noise and by one or two sudden jerks, and
    forgets itself after a drawn time, from 2 % of the full exposure (crinkled tracks) to all of it
    (arcs).

    Returns:
        (*batch, POINTS, 2) rows and columns at equal steps of time; the track of the full exposure
        spans 1, of which 30 to 100 % are returned.
    """
    memory = 0.02 * 50 ** torch.rand(*batch, 1, generator=generator)
    decay = (-1 / (memory * STEPS)).exp()
    steady = (1 - decay**2).rsqrt()
    push = torch.randn(*batch, STEPS, 2, generator=generator)
    jerk = torch.randn(*batch, STEPS, 2, generator=generator) * steady[..., None]
    times = torch.rand(*batch, STEPS, 1, generator=generator)
    push = push + 2 * jerk * (times < 1.5 / STEPS)
    push[..., 0, :] *= steady
    age = torch.arange(STEPS)[:, None] - torch.arange(STEPS)
    response = (decay[..., None] ** age.clamp_min(0)).tril()
    track = (response @ push).cumsum(-2)
    span = (track.amax(-2) - track.amin(-2)).amax(-1)
    exposure = 0.3 + 0.7 * torch.rand(*batch, 1, generator=generator)
    moment = torch.linspace(0, STEPS - 1.001, POINTS) * exposure
    before = moment.long()
    index = before[..., None].expand(*batch, POINTS, 2)
    start, end = track.gather(-2, index), track.gather(-2, index + 1)
    return (start + (moment - before)[..., None] * (end - start)) / span[..., None, None]


def line_track(angle: Tensor) -> Tensor:
    """Return straight tracks (*batch, POINTS, 2) of length 1 at angle (*batch,) in radians."""
    direction = torch.stack((angle.cos(), angle.sin()), -1)
    times = (torch.arange(POINTS) + 0.5) / POINTS - 0.5
    return times[:, None] * direction[..., None, :]


def track_psf(track: Tensor) -> Tensor:
    """Rasterise tracks (*batch, N, 2) in pixels, equal times between points, into (*batch, K, K).

    The centroid is moved to the middle pixel; K is what the longest track of the batch needs.
    """
    centred = track - track.mean(-2, keepdim=True)
    margin = math.ceil(float(centred.abs().amax())) + 1
    weights = torch.full(track.shape[:-1], 1 / track.shape[-2])
    side = 2 * margin + 1
    return splat(centred + margin, weights, side, side)


def _polar_grid(radius: Tensor) -> tuple[Tensor, Tensor]:
    """Return distance and angle of the sub-pixels of all pixels that the largest radius meets."""
    margin = math.ceil(float(radius.amax()) - 0.5)
    count = (2 * margin + 1) * SUBPIXELS
    axis = (torch.arange(count) + 0.5) / SUBPIXELS - margin - 0.5
    return torch.hypot(axis[:, None], axis), torch.atan2(axis[:, None], axis)


def _coverage(inside: Tensor) -> Tensor:
    side = inside.shape[-1] // SUBPIXELS
    cells = inside.view(*inside.shape[:-2], side, SUBPIXELS, side, SUBPIXELS)
    area = cells.sum((-3, -1), dtype=torch.float32)
    return area / area.sum((-2, -1), keepdim=True)
