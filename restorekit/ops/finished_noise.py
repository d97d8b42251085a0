"""Estimate the noise of an encoded picture from the picture alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional

from restorekit.ops.clipping import at_ends
from restorekit.ops.color import srgb_to_linear
from restorekit.ops.noise import bands, estimate_noise_profile, residual
from restorekit.ops.noise_curve import NoiseCurve, curve_of_light, curve_of_white

_PATCH = 6
_SURROUNDINGS = 24
_AREA = _SURROUNDINGS**2 - (_PATCH + 2) ** 2
_PATCHES = 40_000
_FLATTEST, _NEEDED = 0.1, 4
"""Share of the patches, and how many a covariance needs for each of its rows."""
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
_MOST = 1.5
_STILL = 1e-6
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
    ratios = (torch.tensor(half.deviation) / expected.clamp_min(_STILL))[telling]
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
    rows = len(planes) * _PATCH**2
    if min(planes.shape[-2:]) < _SURROUNDINGS + 2:
        return _Levels(None)
    sites = _Sites(planes)
    noisy = sites.noisy
    count = int(len(noisy) * _FLATTEST_OF_RANGE)
    if count <= _NEEDED * rows:
        return _Levels(None)
    ranges = min(max(count // (_NEEDED_OF_RANGE * rows), 1), _RANGES)
    brightness = sites.around(planes.mean(0)) / _AREA
    clipped = sites.around(at_ends(planes).float().mean(0)) / _AREA
    levels, shared = [], []
    for inside in noisy[brightness[noisy].argsort(stable=True)].tensor_split(ranges):
        count = int(len(inside) * _FLATTEST_OF_RANGE)
        flattest = inside[sites.texture[inside].topk(count, largest=False).indices]
        covariance = sites.covariance(flattest)
        means = (float(values[flattest].mean()) for values in (brightness, clipped))
        levels.append((*means, math.sqrt(_white_power(covariance))))
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
    turn = torch.kron(functional.normalize(opponents), torch.eye(_PATCH**2).to(opponents))
    turned = turn @ covariance @ turn.mT
    luma = torch.linalg.eigvalsh(turned[: _PATCH**2, : _PATCH**2]).clamp_min(0).quantile(_LUMA)
    return float(luma) / max(_white_power(turned[_PATCH**2 :, _PATCH**2 :]), _STILL**2)


class _Sites:
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
        power, still = (
            _ring_sum(left.square().mean(0)),
            _ring_sum((left.abs() < _STILL).all(0).float()),
        )
        self._step = max(1, round((power.numel() * _FLATTEST / _PATCHES) ** 0.5))
        power = power[:: self._step, :: self._step]
        still = still[:: self._step, :: self._step].flatten()
        self._columns = power.shape[1]
        self.texture = power.flatten()
        self.noisy = (still < _AREA / 2).nonzero()[:, 0]
        margin = (_SURROUNDINGS - _PATCH) // 2 + 1
        inner = planes[:, margin:-margin, margin:-margin]
        self._patches = inner.unfold(1, _PATCH, 1).unfold(2, _PATCH, 1)

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
    if min(planes.shape[-2:]) < _SURROUNDINGS + 2:
        return _deviation_of_residual(planes)
    sites = _Sites(planes)
    noisy = sites.noisy
    count = int(len(noisy) * _FLATTEST)
    if count <= _NEEDED * len(planes) * _PATCH**2:
        return _deviation_of_residual(planes)
    clipped = sites.around(at_ends(planes).float().mean(0))[noisy]
    allowed = clipped.kthvalue(count).values.clamp_min(0.01 * _SURROUNDINGS**2)
    texture = sites.texture[noisy].masked_fill(clipped > allowed, torch.inf)
    power = _white_power(sites.covariance(noisy[texture.topk(count, largest=False).indices]))
    return min(math.sqrt(power), _MOST * _deviation_of_residual(planes))


def _white_power(covariance: Tensor) -> float:
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
    core = _PATCH + 2
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
    still = (sizes < _STILL).all(0).float()
    if still.mean() > _MOSTLY_STILL and min(still.shape) >= _NEIGHBOURS:
        noisy = _sum_of_windows(still, _NEIGHBOURS) < _HARDLY_STILL * _NEIGHBOURS**2
        edge = _NEIGHBOURS // 2
        if noisy.float().mean() > _LEAST_NOISY:
            sizes = sizes[:, edge:-edge, edge:-edge][:, noisy]
    return float(sizes.median() / 0.6745)
