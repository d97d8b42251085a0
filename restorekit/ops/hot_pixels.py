"""Repair the samples of a mosaic that tell of the sensor and not of the light.

Whatever the lens draws is spread over neighbouring samples, of other colours too; what one sample
shows alone is a hot or a dead pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from restorekit.ops.color import bayer_offsets
from restorekit.ops.mirror import mirrored

_ROWS = 128
_AROUND = torch.tensor([(y, x) for y in range(-3, 4) for x in range(-3, 4) if y or x])
_PHASE = _AROUND % 2 @ torch.tensor((2, 1))
_COLOURS = [phase == _PHASE for phase in range(4)]
_BESIDE = _AROUND.abs().sum(1) == 1
_OUTLYING = 6.0
"""How far a wrong sample lies off at least, by the second farthest off of the 48 around it, which
in noise lies some 2 deviations off."""
_BEYOND_NOISE = 8.0
"""The same in deviations of noise that is known."""
_SHOWN_BESIDE = 0.03
"""Share of a point of light that the samples beside it show at least, even in another colour."""
_SEEN = 0.002, 0.05
"""What is worth a repair: a share of white, and of the light around."""


def repaired(planes: Tensor, cfa: str, shot: float = 0.0, read: float = 0.0) -> Tensor:
    """Replace single samples far off their surroundings by the median of those of their colour.

    The surroundings are 7x7 samples of all colours, so that texture and noise raise what is far.
    Where samples beside it deviate alike, it is a point of light and stays.

    Args:
        planes: (4, H, W) linear R, G1, G2, B, black 0 and white 1, as pack_bayer gives them.
        cfa: colours of the upper left 2x2 cell row by row, such as "GBRG".
        shot: variance of the noise a unit of signal, where it is known; else the surroundings tell.
        read: deviation of the noise at black, likewise.

    Returns:
        (4, H, W); the planes themselves where nothing is to be repaired.
    """
    places, medians = [], []
    for suspects in _suspects(planes, max(_SEEN[0], _BEYOND_NOISE * read)):
        own, around = planes[suspects], _surroundings(planes, suspects, cfa)
        deviation = torch.empty_like(around)
        for colour in _COLOURS:
            deviation[:, colour] = around[:, colour] - _median(around[:, colour])
        median = _median(around[:, _COLOURS[0]])[:, 0]
        excess = (own - median).abs()
        beside = deviation[:, _BESIDE].mean(1) * (own - median).sign()
        noise = (shot * median.clamp_min(0) + read**2).sqrt()
        wrong = excess > _OUTLYING * deviation.abs().topk(2).values[:, 1]
        wrong &= beside < _SHOWN_BESIDE * excess
        wrong &= excess > (_SEEN[0] + _SEEN[1] * median).maximum(_BEYOND_NOISE * noise)
        places.append(torch.stack(suspects)[:, wrong])
        medians.append(median[wrong])
    values = torch.cat(medians)
    return planes.index_put(tuple(torch.cat(places, 1)), values) if len(values) else planes


def _suspects(planes: Tensor, least: float) -> Iterator[tuple[Tensor, ...]]:
    """Yield plane, row and column of samples far off the range of the 8 around in their plane."""
    _, height, width = planes.shape
    columns = mirrored(torch.arange(-1, width + 1), width)
    for index, plane in enumerate(planes):
        for top in range(0, height, _ROWS):
            rows = mirrored(torch.arange(top - 1, min(top + _ROWS, height) + 1), height)
            band = plane[rows][:, columns]
            high, low = (_extreme(band, choose) for choose in (torch.maximum, torch.minimum))
            excess = (band[1:-1, 1:-1] - (high + low) / 2).abs_()
            row, column = (excess > (2.5 * (high - low)).clamp_min_(least)).nonzero(as_tuple=True)
            yield torch.full_like(row, index), row + top, column


def _extreme(band: Tensor, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the extreme value of the 8 samples around each inner one."""
    ends = choose(band[:-2], band[2:])
    three = choose(ends, band[1:-1])
    return choose(choose(three[:, :-2], three[:, 2:]), ends[:, 1:-1])


def _surroundings(planes: Tensor, places: tuple[Tensor, ...], cfa: str) -> Tensor:
    """Return the (N, 48) samples of the mosaic around N samples of its planes."""
    cell = torch.tensor(bayer_offsets(cfa))
    plane_at = torch.empty(2, 2, dtype=torch.long)
    plane_at[tuple(cell.T)] = torch.arange(4)
    plane, *place = places
    _, height, width = planes.shape
    rows, columns = (
        (2 * place[axis] + cell[plane, axis])[:, None] + _AROUND[:, axis] for axis in range(2)
    )
    inner_rows, inner_columns = mirrored(rows // 2, height), mirrored(columns // 2, width)
    return planes[plane_at[rows % 2, columns % 2], inner_rows, inner_columns]


def _median(values: Tensor) -> Tensor:
    half = values.shape[1] // 2
    return values.sort(1).values[:, half - 1 : half + 1].mean(1, keepdim=True)
