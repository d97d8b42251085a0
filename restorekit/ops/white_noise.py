"""Estimate white noise of one strength from a picture alone, in patches with flat surroundings."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from restorekit.ops.clipping import at_ends
from restorekit.ops.noise import bands, residual

PATCH = 6
_SURROUNDINGS = 24
LEAST_SIDE = _SURROUNDINGS + 2
AREA = _SURROUNDINGS**2 - (PATCH + 2) ** 2
_PATCHES = 40_000
_FLATTEST, NEEDED = 0.1, 4
"""Share of the patches, and how many a covariance needs for each of its rows."""
_MOST = 1.5
STILL = 1e-6
_MOSTLY_STILL, _HARDLY_STILL, _LEAST_NOISY = 0.2, 0.05, 0.02
"""Share of the residual that is 0, in a picture of which a part has no noise and in the
neighbourhood of pixels of the other; and share of the picture that this has at least."""
_NEIGHBOURS = 33


def estimate_noise_std(pixels: Tensor) -> float:
    """Estimate the deviation of white noise of one strength in an encoded picture.

    Where all colours together show less than half of the mean power of each alone, as where JPEG
    smooths the chroma or one colour alone is noisy, that power decides.

    Args:
        pixels: (C, H, W) in [0, 1], colour or grey.

    Returns:
        deviation in units of white, never negative.
    """
    planes = bands(pixels.float())
    together = _white_noise_std(planes)
    if len(planes) != 3:
        return together
    each = (sum(_white_noise_std(plane[None]) ** 2 for plane in planes) / 3) ** 0.5
    return together if together > 0.5 * each else each


class Sites:
    """Choose patches of a picture by what lies around them.

    Texture reaches from a patch into its surroundings and noise does not, so that a choice by the
    surroundings does not favour small noise.

    Attributes:
        texture: (N) power of the residual around each patch.
        noisy: of those around which there is any.
    """

    def __init__(self, planes: Tensor) -> None:
        """Place patches on (C, H, W) planes, evenly and about as many as are needed."""
        left = residual(planes)
        power = _ring_sum(left.square().mean(0))
        still = _ring_sum((left.abs() < STILL).all(0).float())
        self._step = max(1, round((power.numel() * _FLATTEST / _PATCHES) ** 0.5))
        power = power[:: self._step, :: self._step]
        still = still[:: self._step, :: self._step].flatten()
        self._columns = power.shape[1]
        self.texture = power.flatten()
        self.noisy = (still < AREA / 2).nonzero()[:, 0]
        margin = (_SURROUNDINGS - PATCH) // 2 + 1
        inner = planes[:, margin:-margin, margin:-margin]
        self._patches = inner.unfold(1, PATCH, 1).unfold(2, PATCH, 1)

    def around(self, values: Tensor) -> Tensor:
        """Return the (N) sums of (H, W) values around the patches."""
        return _ring_sum(values[1:-1, 1:-1])[:: self._step, :: self._step].flatten()

    def covariance(self, chosen: Tensor) -> Tensor:
        """Return the covariance of the pixels of chosen patches, plane by plane."""
        rows, columns = chosen // self._columns * self._step, chosen % self._columns * self._step
        return self._patches[:, rows, columns].transpose(0, 1).flatten(1).T.cov().double()


def _white_noise_std(planes: Tensor) -> float:
    """Return the deviation of noise that is white in space and between planes.

    Only patches with flat surroundings take part. Surroundings that are clipped at 0 or 1 are
    avoided, and those without any noise do not count. The median of the residual bounds the result,
    for what fills less than half of a picture, as the letters of a page, is no noise.
    """
    if min(planes.shape[-2:]) < LEAST_SIDE:
        return _deviation_of_residual(planes)
    sites = Sites(planes)
    noisy = sites.noisy
    count = int(len(noisy) * _FLATTEST)
    if count <= NEEDED * len(planes) * PATCH**2:
        return _deviation_of_residual(planes)
    clipped = sites.around(at_ends(planes).float().mean(0))[noisy]
    allowed = clipped.kthvalue(count).values.clamp_min(0.01 * _SURROUNDINGS**2)
    texture = sites.texture[noisy].masked_fill(clipped > allowed, torch.inf)
    power = white_power(sites.covariance(noisy[texture.topk(count, largest=False).indices]))
    return min(math.sqrt(power), _MOST * _deviation_of_residual(planes))


def white_power(covariance: Tensor) -> float:
    """Return the variance of white noise in patches of a given covariance.

    It has large eigenvalues from the picture and many equal ones from the noise; the largest are
    dropped until mean and median of the rest agree (Chen, Zhu & Heng, "An Efficient Statistical
    Method for Image Noise Level Estimation", ICCV 2015).
    """
    values = torch.linalg.eigvalsh(covariance).clamp_min(0)
    kept = len(values)
    while kept > 1 and values[:kept].mean() > values[:kept].median():
        kept -= 1
    return float(values[:kept].mean())


def _ring_sum(values: Tensor) -> Tensor:
    """Return the sum around, but not in, the patch at the centre of each window of (H, W)."""
    core = PATCH + 2
    edge = (_SURROUNDINGS - core) // 2
    window = _sum_of_windows(values, _SURROUNDINGS)
    return (window - _sum_of_windows(values[edge:-edge, edge:-edge], core)).clamp_min(0)


def _sum_of_windows(values: Tensor, side: int) -> Tensor:
    """Return the sums of all (side, side) windows of (H, W), from sums of 1, 2, 4, ... values."""
    for dim in (0, 1):
        length = values.shape[dim] - side + 1
        total, place, width = torch.zeros(()), 0, 1
        while True:
            if side & width:
                total = total + values.narrow(dim, place, length)
                place += width
            if place == side:
                break
            kept = values.shape[dim] - width
            values = values.narrow(dim, 0, kept) + values.narrow(dim, width, kept)
            width *= 2
        values = total
    return values


def _deviation_of_residual(planes: Tensor) -> float:
    """Return the deviation that the median of the residual tells, which texture raises.

    Where a picture is partly without any noise, as around a cut-out, only the rest counts, unless
    that is as sparse as letters on a page.
    """
    if min(planes.shape[-2:]) < 3:
        return 0.0
    sizes = residual(planes).abs_()
    still = (sizes < STILL).all(0).float()
    if still.mean() > _MOSTLY_STILL and min(still.shape) >= _NEIGHBOURS:
        noisy = _sum_of_windows(still, _NEIGHBOURS) < _HARDLY_STILL * _NEIGHBOURS**2
        edge = _NEIGHBOURS // 2
        if noisy.float().mean() > _LEAST_NOISY:
            sizes = sizes[:, edge:-edge, edge:-edge][:, noisy]
    return float(sizes.median() / 0.6745)
