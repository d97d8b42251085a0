"""Tile plans: where to cut a picture, and how the restored tiles become one picture again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from restorekit.ops.mirror import mirrored

WINDOW = 96
_SAMPLED_SHARE = 0.05
_FEWEST_WINDOWS = 16
_SMALL_PICTURE = 64 * 64


@dataclass(frozen=True)
class Box:
    """Name a rectangle of a picture; it may reach beyond the lower and right edge."""

    y: int
    x: int
    height: int
    width: int


@dataclass(frozen=True)
class Axis:
    """Divide one side of a picture into pieces of equal length that overlap.

    Attributes:
        size: pixels of the side.
        length: pixels of a piece; the last piece may reach beyond the side.
        starts: first pixel of each piece.
    """

    size: int
    length: int
    starts: tuple[int, ...]

    def seam(self, index: int) -> tuple[int, int]:
        """Return the pixels over which a piece takes over from the one before it.

        They are the middle quarter of what the two share, so that what a network makes of the
        border of a piece counts for nothing.
        """
        start = self.starts[index]
        if index == 0:
            return start, start
        shared = self.starts[index - 1] + self.length - start
        margin = shared * 3 // 8
        return start + margin, start + shared - margin


@dataclass(frozen=True)
class TilePlan:
    """Say where the tiles of a picture lie, row by row; a function of integers only."""

    rows: Axis
    columns: Axis

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Return every tile; all have the same shape."""
        rows, columns = self.rows, self.columns
        return tuple(
            Box(y, x, rows.length, columns.length) for y in rows.starts for x in columns.starts
        )


def plan_tiles(height: int, width: int, tile: int, overlap: int, multiple_of: int = 1) -> TilePlan:
    """Plan tiles of one shape that cover a picture.

    Tiles start at multiples of multiple_of and their sides are multiples of it. A side takes as few
    tiles as the largest size allows; these are then made as small as still covers it.

    Args:
        height: rows of the picture.
        width: columns of the picture.
        tile: largest side of a tile; raised to smallest_tile.
        overlap: pixels that neighbours share at least.
        multiple_of: grid of the network.
    """
    return TilePlan(
        _plan_axis(height, tile, overlap, multiple_of),
        _plan_axis(width, tile, overlap, multiple_of),
    )


def smallest_tile(overlap: int, multiple_of: int) -> int:
    """Return the side of a tile that holds twice the overlap on the grid of a network."""
    return max(2 * _ceil(overlap, multiple_of), multiple_of)


def _plan_axis(size: int, tile: int, overlap: int, multiple_of: int) -> Axis:
    """Divide a side; all sums are in cells of multiple_of pixels."""
    cells = -(-size // multiple_of)
    shared = -(-overlap // multiple_of)
    longest = max(tile, smallest_tile(overlap, multiple_of)) // multiple_of
    if cells <= longest:
        return Axis(size, cells * multiple_of, (0,))
    count = -(-(cells - shared) // (longest - shared))
    length = -(-(cells + (count - 1) * shared) // count)
    starts = (index * (cells - length) // (count - 1) for index in range(count))
    return Axis(size, length * multiple_of, tuple(start * multiple_of for start in starts))


def sample_boxes(height: int, width: int, multiple_of: int = 1, most: int = 64) -> tuple[Box, ...]:
    """Choose the windows of a picture over which a network's pooled means are frozen.

    They are spread evenly, cover about a twentieth of a large picture, and depend on its size
    alone, never on the tile plan. A small picture is one window.

    Args:
        height: rows of the picture.
        width: columns of the picture.
        multiple_of: grid of the network.
        most: windows at most; a picture of fewer than 64x64 pixels for each of them is small.
    """
    if height * width <= most * _SMALL_PICTURE:
        return (Box(0, 0, _ceil(height, multiple_of), _ceil(width, multiple_of)),)
    side = _ceil(WINDOW, multiple_of)
    wanted = int(height * width * _SAMPLED_SHARE) // (side * side)
    count = min(max(wanted, _FEWEST_WINDOWS), most)
    across = min(max(round((count * width / height) ** 0.5), 1), count)
    ys, xs = _spread(height, side, count // across), _spread(width, side, across)
    return tuple(Box(y, x, side, side) for y in ys for x in xs)


def _ceil(size: int, multiple_of: int) -> int:
    """Return the next multiple."""
    return -(-size // multiple_of) * multiple_of


def _spread(size: int, length: int, count: int) -> tuple[int, ...]:
    """Return the starts of pieces that lie evenly along a side, the outer ones off its ends."""
    room = max(size - length, 0)
    return tuple((2 * index + 1) * room // (2 * count) for index in range(count))


def cut(pixels: Tensor, box: Box) -> Tensor:
    """Return a rectangle of a picture, mirrored where it reaches beyond the edge.

    Args:
        pixels: (C, H, W).
        box: where to cut; its corner lies inside the picture.

    Returns:
        (C, box.height, box.width), a view where the box lies inside.
    """
    height, width = pixels.shape[-2:]
    inside = pixels[:, box.y : box.y + box.height, box.x : box.x + box.width]
    if inside.shape[-2:] == (box.height, box.width):
        return inside
    rows = mirrored(torch.arange(box.y, box.y + box.height), height)
    columns = mirrored(torch.arange(box.x, box.x + box.width), width)
    return pixels[:, rows[:, None], columns]


class Blend:
    """Put restored tiles together in host memory, feathered where they overlap.

    Tiles of a row are blended into a band, bands into the picture. Each step is a + w * (b - a), so
    that tiles that agree give exactly what they agree on.
    """

    def __init__(self, plan: TilePlan, channels: int) -> None:
        """Make room for a float32 picture of so many channels."""
        self._plan = plan
        self._picture = torch.empty(channels, plan.rows.size, plan.columns.size)
        self._band = torch.empty(channels, plan.rows.length, plan.columns.size)

    def add(self, index: int, tile: Tensor) -> None:
        """Lay down a tile (C, height, width); tiles come in the order of the plan's boxes."""
        rows, columns = self._plan.rows, self._plan.columns
        row, column = divmod(index, len(columns.starts))
        _lay(self._band, tile, columns, column, dim=2)
        if column == len(columns.starts) - 1:
            _lay(self._picture, self._band, rows, row, dim=1)

    def picture(self) -> Tensor:
        """Return the picture (C, H, W) after the last tile."""
        return self._picture


def _lay(target: Tensor, piece: Tensor, axis: Axis, index: int, dim: int) -> None:
    """Lay a piece of an axis over its predecessor in the target."""
    start = axis.starts[index]
    begin, end = axis.seam(index)
    stop = min(start + axis.length, axis.size)
    if begin < end:
        seam = target.narrow(dim, begin, end - begin)
        weights = (torch.arange(end - begin) + 0.5) / (end - begin)
        shape = [-1 if axis_dim == dim else 1 for axis_dim in range(3)]
        seam.lerp_(piece.narrow(dim, begin - start, end - begin), weights.view(shape))
    rest = stop - end
    target.narrow(dim, end, rest).copy_(piece.narrow(dim, end - start, rest))
