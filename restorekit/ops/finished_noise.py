"""Tell the noise of an encoded picture by its ranges of brightness."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional

from restorekit.ops.clipping import at_ends
from restorekit.ops.color import srgb_to_linear
from restorekit.ops.noise import bands, estimate_noise_profile
from restorekit.ops.noise_curve import NoiseCurve, curve_of_light, curve_of_white
from restorekit.ops.white_noise import (
    AREA,
    LEAST_SIDE,
    NEEDED,
    PATCH,
    STILL,
    Sites,
    estimate_noise_std,
    white_power,
)

_RANGES, _FLATTEST_OF_RANGE, _NEEDED_OF_RANGE = 6, 0.15, 24
_UNEVEN, _CLIPPED = 1.25, 0.15
_ALIKE, _HARDLY_ALIKE, _FEWEST = 0.2, 0.33, 3
"""How near noise of light must be to most of its ranges and to each, in the logarithm, and to how
many that are not clipped."""
_SPREAD, _EXPLAINED = 0.05, 1.3
"""How far ranges spread about noise of one strength at least, in the logarithm, and beside their
spread about noise of light."""
_COARSER, _COARSER_IN_SMALL = 1.25, 1.4
_TELLING = 0.25
_LUMA, _SHARED = 0.1, 16.0


def noise_by_brightness(pixels: Tensor) -> NoiseCurve | float:
    """Estimate the deviation of white noise, where it differs in six ranges of brightness.

    Where noise of linear light that was encoded explains the ranges, its profile tells more than
    they, and what its mean is. Of any other noise only clear differences count. Noise of one
    strength, and that of small pictures, is told by estimate_noise_std.

    Args:
        pixels: (C, H, W) in [0, 1], colour or grey.

    Returns:
        a curve, or one deviation in units of white.
    """
    planes = bands(pixels.float())
    even = estimate_noise_std(planes)
    levels, alone = _levels(planes), len(planes) == 1
    curve = levels.uneven(even, alone=alone)
    if even and (curve or not alone):
        ends = float(planes.min().clamp_max(0)), float(planes.max().clamp_min(1))
        profile = estimate_noise_profile(srgb_to_linear(planes))
        light = curve_of_light(*profile, curve.overall if curve else even, ends)
        if levels.explained_by(light, rather_than=curve_of_white(even, ends)):
            return light
    return curve or even


@dataclass(frozen=True)
class FinishedNoise:
    """Describe the noise of an encoded picture.

    Attributes:
        fine: its deviation in units of white, as by estimate_noise_std.
        coarse: deviation of white noise that would be as strong as it at half the size. It equals
            fine where noise is white, and is greater where a camera has smoothed it.
        from_camera: whether it is that of a finished photograph, smoothed or shared by the colours,
            not that of every pixel by itself. In the chroma of a JPEG hardly any is left, so that
            the colours share what there is.
        curve: it by brightness, where it clearly differs.
    """

    fine: float
    coarse: float
    from_camera: bool
    curve: NoiseCurve | None = None


def finished_noise(pixels: Tensor) -> FinishedNoise:
    """Measure the noise of an encoded picture that a camera may have smoothed.

    Each range of brightness tells how much stronger its noise is at half the size than white noise
    would be, and how much noisier the mean of the colours is than their differences; their median
    decides. Ranges that show hardly any of the noise tell nothing.

    Args:
        pixels: (C, H, W) in [0, 1], colour or grey; grey ones share none.

    Returns:
        fine and coarse noise, whether a camera left it, and how it differs.
    """
    planes = bands(pixels.float())
    if (planes == planes[:1]).all():
        planes = planes[:1]
    fine, levels = estimate_noise_std(planes), _levels(planes)
    if not fine or levels.curve is None:
        return FinishedNoise(fine, fine, from_camera=False)
    half, alone = functional.avg_pool2d(planes[None], 2)[0], len(planes) == 1
    coarse, half_curve = 2 * estimate_noise_std(half), _levels(half).curve
    if half_curve is None:
        smoothed = coarse > _COARSER_IN_SMALL * fine
    else:
        smoothed = _coarser(levels.curve, half_curve, alone=alone) > _COARSER
    return FinishedNoise(
        fine,
        max(coarse, fine) if smoothed else fine,
        from_camera=smoothed or levels.shared > _SHARED,
        curve=levels.uneven(fine, alone=alone),
    )


def _coarser(whole: NoiseCurve, half: NoiseCurve, *, alone: bool) -> float:
    """Return how much stronger noise is at half the size than white noise would be.

    Of a plane that is alone, the range with the least texture decides.
    """
    expected = whole.at(torch.tensor(half.brightness)) / 2
    telling = expected > _TELLING * expected.max()
    ratios = (torch.tensor(half.deviation) / expected.clamp_min(STILL))[telling]
    if not len(ratios):
        return 1.0
    return float(ratios.min() if alone else ratios.median())


@dataclass(frozen=True)
class _Levels:
    """Hold the noise by brightness, None in small pictures, and what else the ranges tell.

    Attributes:
        curve: the noise of each range.
        clipped: share of the values of each that are black or white.
        shared: power of the noise in the mean of the colours to that in their differences.
    """

    curve: NoiseCurve | None
    clipped: tuple[float, ...] = ()
    shared: float = 1.0

    def uneven(self, even: float, *, alone: bool) -> NoiseCurve | None:
        """Return the noise by brightness where it clearly differs from one strength.

        A range where much is clipped, and noise is seen in part, has at least that of the whole. Of
        a plane that is alone, what grows with brightness is texture, for the noise of encoded light
        does not.
        """
        if not even or self.curve is None:
            return None
        seen = zip(self.curve.deviation, self.clipped, strict=True)
        deviation = tuple(max(each, even) if often > _CLIPPED else each for each, often in seen)
        if alone:
            deviation = tuple(accumulate(deviation, min))
        differs = max(deviation) > _UNEVEN * min(deviation)
        return _measured(self.curve.brightness, deviation) if differs else None

    def explained_by(self, light: NoiseCurve, *, rather_than: NoiseCurve) -> bool:
        """Return whether one curve tells why the ranges differ, as another does not."""
        seen = torch.tensor(self.clipped) <= _CLIPPED
        if self.curve is None or seen.count_nonzero() < _FEWEST:
            return False
        places, measured = torch.tensor(self.curve.brightness), torch.tensor(self.curve.deviation)
        left, by_other = ((measured / each.at(places)).log()[seen] for each in (light, rather_than))
        spread, unexplained = (float(x.std(correction=0)) for x in (by_other, left))
        near = left.abs().median() < _ALIKE and left.abs().max() < _HARDLY_ALIKE
        return bool(near) and spread > max(_SPREAD, _EXPLAINED * unexplained)


def _levels(planes: Tensor) -> _Levels:
    """Measure white noise in ranges of brightness with as many pixels each.

    Surroundings without any noise, as of a caption or a frame, do not count.

    The power that colours share is a low quantile of the eigenvalues of their mean, since texture
    raises the others; that of their differences, in which there is little texture, divides it.
    """
    rows = len(planes) * PATCH**2
    if min(planes.shape[-2:]) < LEAST_SIDE:
        return _Levels(None)
    sites = Sites(planes)
    noisy = sites.noisy
    count = int(len(noisy) * _FLATTEST_OF_RANGE)
    if count <= NEEDED * rows:
        return _Levels(None)
    ranges = min(max(count // (_NEEDED_OF_RANGE * rows), 1), _RANGES)
    brightness = sites.around(planes.mean(0)) / AREA
    clipped = sites.around(at_ends(planes).float().mean(0)) / AREA
    levels, shared = [], []
    for inside in noisy[brightness[noisy].argsort(stable=True)].tensor_split(ranges):
        count = int(len(inside) * _FLATTEST_OF_RANGE)
        flattest = inside[sites.texture[inside].topk(count, largest=False).indices]
        covariance = sites.covariance(flattest)
        means = (float(values[flattest].mean()) for values in (brightness, clipped))
        levels.append((*means, math.sqrt(white_power(covariance))))
        if len(planes) == 3:
            shared.append(_shared(covariance))
    levels.sort()
    places, often, deviation = zip(*levels, strict=True)
    together = float(torch.tensor(shared).median()) if shared else 1.0
    return _Levels(_measured(places, deviation), often, together)


def _measured(brightness: tuple[float, ...], deviation: tuple[float, ...]) -> NoiseCurve:
    """Return a curve around each of whose points lie as many pixels."""
    overall = float(torch.tensor(deviation).square().mean().sqrt())
    return NoiseCurve(brightness, deviation, overall)


def _shared(covariance: Tensor) -> float:
    """Return the power of white noise in the mean of three colours to that in their differences."""
    opponents = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=covariance.dtype)
    turn = torch.kron(functional.normalize(opponents), torch.eye(PATCH**2).to(opponents))
    turned = turn @ covariance @ turn.mT
    luma = torch.linalg.eigvalsh(turned[: PATCH**2, : PATCH**2]).clamp_min(0).quantile(_LUMA)
    return float(luma) / max(white_power(turned[PATCH**2 :, PATCH**2 :]), STILL**2)
