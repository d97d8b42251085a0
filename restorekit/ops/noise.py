"""Estimate the noise of a picture from the picture alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_BLOCK = 8
_BINS = 40
_QUANTILE = 0.1
_BLOCKS_IN_BIN = 40
_ROUNDS = 4
_PIXELS = 4_000_000
_PATCH = 6
_SURROUNDINGS = 24
_PATCHES = 40_000
_COARSER = 1.4
_SEEN = 1.5 / 255
_SHARED = 1.2
_MOST = 1.5
_STILL = 1e-6
_MOSTLY_STILL, _HARDLY_STILL, _LEAST_NOISY = 0.2, 0.05, 0.02
"""Share of the residual that is 0, in a picture of which a part has no noise and in the
neighbourhood of pixels of the other; and share of the picture that this has at least."""
_NEIGHBOURS = 33


def estimate_noise_profile(planes: Tensor) -> tuple[float, float]:
    """Estimate shot and read of noise with variance shot * signal + read**2.

    Every plane is cut into 8x8 blocks. In each of 40 ranges of brightness the tenth of the blocks
    that is flattest in the *other* planes tells the variance there: noise is independent between
    planes and texture is not, so this choice does not favour small noise, as the choice by a
    block's own variance would. A line through the ranges that trusts low variances most is the
    profile. Blocks that touch a clipped value do not count.

    Args:
        planes: (C, H, W) linear, black 0 and white 1, values below black kept; the noise of its
            pixels is uncorrelated. A single plane is split into its four phases.

    Returns:
        shot and read, never negative. Flat pictures tell one level only: shot is 0 then.
    """
    if planes.shape[0] == 1:
        height, width = planes.shape[-2] // 2 * 2, planes.shape[-1] // 2 * 2
        planes = functional.pixel_unshuffle(planes[:, :height, :width], 2)
    planes = _bands(planes.float())
    if min(planes.shape[-2:]) < _BLOCK + 2:
        return 0.0, 0.0
    signal, variance, whole = _block_statistics(planes)
    shot = read_variance = 0.0
    expected = torch.ones_like(variance)
    for _ in range(_ROUNDS):
        ratio = variance / expected
        texture = ratio.sum(0, keepdim=True) - ratio
        levels = _variance_by_level(signal, variance, texture, whole)
        shot, read_variance = _fit_line(*levels)
        expected = (shot * signal.clamp_min(0) + read_variance).clamp_min(1e-12)
    return shot, read_variance**0.5


def _bands(planes: Tensor) -> Tensor:
    """Return evenly spaced bands of rows when a picture has more pixels than are needed."""
    count, height, width = planes.shape
    keep = max(64, int(_PIXELS / max(1, count * width)))
    if height <= 2 * keep:
        return planes
    band = _BLOCK * 8
    starts = torch.linspace(0, height - band, max(1, keep // band)).long()
    return torch.cat([planes[:, start : start + band] for start in starts.tolist()], dim=1)


def residual(planes: Tensor) -> Tensor:
    """Return the Laplacian of rows and columns, which keeps the strength of white noise.

    Args:
        planes: (C, H, W).

    Returns:
        (C, H - 2, W - 2).
    """
    rows = planes[:, 2:] - 2 * planes[:, 1:-1] + planes[:, :-2]
    return (rows[:, :, 2:] - 2 * rows[:, :, 1:-1] + rows[:, :, :-2]) / 6


def _block_statistics(planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, variance of the Laplacian residual, and freedom from clipping of all blocks."""
    inner = planes[:, 1:-1, 1:-1]
    flat = planes.flatten(1)
    clipped = torch.zeros_like(inner)
    for limit in (flat.amin(1), flat.amax(1)):
        at_limit = planes == limit.view(-1, 1, 1)
        often = at_limit.flatten(1).float().mean(1) > 1e-3
        clipped += at_limit[:, 1:-1, 1:-1] * often.view(-1, 1, 1)
    signal, variance, touched = (
        functional.avg_pool2d(values, _BLOCK).flatten(1)
        for values in (inner, residual(planes).square(), clipped)
    )
    return signal, variance, touched == 0


def _variance_by_level(
    signal: Tensor, variance: Tensor, texture: Tensor, whole: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return brightness, variance and number of the flattest blocks in each range."""
    sample = signal.flatten()
    sample = sample[:: max(1, sample.numel() // 100_000)]
    low, high = torch.quantile(sample, sample.new_tensor([0.001, 0.999])).tolist()
    position = ((signal - low) / max(high - low, 1e-12)).clamp(0, 1).sqrt()
    bins = (position * _BINS).long().clamp_max(_BINS - 1)
    levels = []
    for index in range(_BINS):
        inside = bins == index
        usable = inside & whole
        total, count = int(inside.sum()), int(usable.sum())
        if count < max(1, min(_BLOCKS_IN_BIN, variance.numel() // 10)) or count < 0.95 * total:
            continue
        flattest = texture[usable].topk(max(1, int(count * _QUANTILE)), largest=False).indices
        levels.append(
            (
                signal[usable][flattest].mean().item(),
                variance[usable][flattest].mean().item(),
                float(len(flattest)),
            )
        )
    if not levels:
        levels = [(signal.mean().item(), variance.median().item(), 1.0)]
    table = torch.tensor(levels, dtype=torch.float64)
    return table[:, 0], table[:, 1], table[:, 2]


def _fit_line(signal: Tensor, variance: Tensor, count: Tensor) -> tuple[float, float]:
    """Return slope and offset, neither below 0, of a line that points above it pull little."""
    weight = count / variance.clamp_min(1e-12).square()
    level = (weight * variance).sum() / weight.sum()
    if signal.max() - signal.min() < 0.02:
        return 0.0, float(level)
    slope, offset = 0.0, float(level)
    for _ in range(6):
        x, y = (weight * signal).sum() / weight.sum(), (weight * variance).sum() / weight.sum()
        spread = (weight * (signal - x).square()).sum()
        slope = float((weight * (signal - x) * (variance - y)).sum() / spread.clamp_min(1e-30))
        offset = float(y - slope * x)
        if offset < 0:
            positive = weight * signal.clamp_min(0)
            square = (positive * signal).sum().clamp_min(1e-30)
            slope, offset = float((positive * variance).sum() / square), 0.0
        if slope < 0:
            slope, offset = 0.0, float(y)
        fitted = (slope * signal + offset).clamp_min(1e-12)
        excess = ((variance - fitted) / fitted).clamp_min(0)
        weight = count / fitted.square() / (1 + (excess / 0.1).square())
    return slope, offset


def estimate_noise_std(pixels: Tensor) -> float:
    """Estimate the deviation of white noise of one strength in an encoded picture.

    Where all colours together show less than half of the mean power of each alone, as where JPEG
    smooths the chroma or one colour alone is noisy, that power decides.

    Args:
        pixels: (C, H, W) in [0, 1], colour or grey.

    Returns:
        deviation in units of white, never negative.
    """
    return _decisive(*_together_and_each(_bands(pixels.float())))


@dataclass(frozen=True)
class FinishedNoise:
    """Describe the noise of an encoded picture.

    Attributes:
        fine: its deviation in units of white, as by estimate_noise_std.
        coarse: deviation of white noise that would be as strong as it at half the size. It equals
            fine where noise is white, and is greater where a camera has smoothed it.
        shared: whether the mean of three colours is noisier than that of independent ones.
    """

    fine: float
    coarse: float
    shared: bool

    @property
    def from_camera(self) -> bool:
        """Return whether it is that of a finished photograph, not that of every colour by itself.

        In the chroma of a JPEG hardly any is left, so that the colours share what there is.
        """
        return self.coarse > self.fine or self.shared


def finished_noise(pixels: Tensor) -> FinishedNoise:
    """Measure the noise of an encoded picture that a camera may have smoothed.

    White noise of 5 or more steps of 0..255 is found to be white in nine of ten photographs, of 10
    in all; weaker noise may count as smoothed, but not where most pixels show none at all.

    Args:
        pixels: (C, H, W) in [0, 1], colour or grey; grey ones, and those that show hardly any
            noise, share none.

    Returns:
        fine and coarse noise, and whether colours share it.
    """
    planes = _bands(pixels.float())
    together, each = _together_and_each(planes)
    fine = coarse = _decisive(together, each)
    if fine and min(planes.shape[-2:]) >= 2 * _SURROUNDINGS + 4:
        half = 2 * estimate_noise_std(functional.avg_pool2d(planes[None], 2)[0])
        coarse = half if half > _COARSER * fine else fine
    shared = False
    if len(planes) == 3 and each > _SEEN and not (planes == planes[:1]).all():
        mean = _white_noise_std(planes.mean(0, keepdim=True))
        shared = 3 * mean**2 > (_SHARED * each) ** 2
    return FinishedNoise(fine, coarse, shared)


def _together_and_each(planes: Tensor) -> tuple[float, float]:
    """Return the deviation of noise of all planes, and that of each colour in the mean."""
    together = _white_noise_std(planes)
    if len(planes) != 3:
        return together, together
    powers = [_white_noise_std(plane[None]) ** 2 for plane in planes]
    return together, (sum(powers) / 3) ** 0.5


def _decisive(together: float, each: float) -> float:
    return together if together > 0.5 * each else each


def _white_noise_std(planes: Tensor) -> float:
    """Return the deviation of noise that is white in space and between planes.

    The covariance of small patches has large eigenvalues from the picture and many equal ones from
    the noise; the largest are dropped until mean and median of the rest agree (Chen, Zhu & Heng,
    "An Efficient Statistical Method for Image Noise Level Estimation", ICCV 2015). Only patches
    with flat surroundings take part: texture reaches into the surroundings and noise does not, so
    the choice does not favour small noise. Surroundings that are clipped at 0 or 1 are avoided. The
    median of the residual bounds the result, for what fills less than half of a picture, as the
    letters of a page, is no noise.
    """
    if min(planes.shape[-2:]) < _SURROUNDINGS + 2:
        return _deviation_of_residual(planes)
    texture = _ring_sum(residual(planes).square().mean(0))
    clipped = _ring_sum(((planes == 0) | (planes == 1)).float().mean(0)[1:-1, 1:-1])
    margin = (_SURROUNDINGS - _PATCH) // 2 + 1
    patches = planes[:, margin:-margin, margin:-margin].unfold(1, _PATCH, 1).unfold(2, _PATCH, 1)
    step = max(1, round((texture.numel() * _QUANTILE / _PATCHES) ** 0.5))
    texture, clipped = texture[::step, ::step], clipped[::step, ::step].flatten()
    columns = texture.shape[1]
    texture = texture.flatten()
    count = max(1, int(texture.numel() * _QUANTILE))
    allowed = clipped.kthvalue(count).values.clamp_min(0.01 * _SURROUNDINGS**2)
    texture = texture.masked_fill(clipped > allowed, torch.inf)
    flattest = texture.topk(count, largest=False).indices
    chosen = patches[:, flattest // columns * step, flattest % columns * step]
    rows = chosen.transpose(0, 1).flatten(1)
    if len(rows) <= 4 * rows.shape[1]:
        return _deviation_of_residual(planes)
    values = torch.linalg.eigvalsh(rows.T.cov().double()).clamp_min(0)
    kept = len(values)
    while kept > 1 and values[:kept].mean() > values[:kept].median():
        kept -= 1
    return min(float(values[:kept].mean().sqrt()), _MOST * _deviation_of_residual(planes))


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
