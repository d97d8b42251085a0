"""Procedural scenes, so that examples and tests need no photograph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

SUPERSAMPLING = 2


def night(height: int, width: int, generator: Generator) -> Tensor:
    """Draw a town by a lake at night.

    Returns:
        (3, height, width) linear RGB, mostly dark, lamps and windows near 1.
    """
    rows, columns = height * SUPERSAMPLING, width * SUPERSAMPLING
    y, x = _grid(rows, columns)
    shore = 0.68
    scene = _color(0.010, 0.016, 0.040) * (1 + 3 * y / shore)
    scene = scene + 0.5 * _stars(rows, columns, generator) * (y < 0.4)
    moon = ((x - 0.78) ** 2 + ((y - 0.16) * rows / columns) ** 2).sqrt()
    craters = 0.8 + 0.4 * _turbulence(rows, columns, 48, generator)
    scene = scene + _color(0.9, 0.85, 0.7) * ((0.035 - moon) * 4000).sigmoid() * craters
    scene = scene + _color(0.05, 0.05, 0.06) * (-moon * 14).exp()
    for base, tone in ((0.42, 0.6), (0.52, 0.35)):
        ridge = base + 0.12 * (_turbulence(1, columns, 5, generator) - 0.5)
        rock = 0.6 + 0.8 * _turbulence(rows, columns, 90, generator)
        hill = ((y - ridge) * 900).sigmoid()
        scene = scene * (1 - hill) + hill * _color(0.022, 0.028, 0.030) * tone * rock
    scene = _houses(scene, x, y, shore, generator)
    water = y > shore
    ripple = 0.012 * (_turbulence(rows, columns, 60, generator) - 0.5)
    source_y = (2 * shore - y + ripple).clamp(0, 1) * 2 - 1
    source_x = (x + 0.6 * ripple).expand_as(source_y) * 2 - 1
    places = torch.stack((source_x, source_y), -1)
    mirror = F.grid_sample(scene[None], places, align_corners=False, padding_mode="border")[0]
    scene = torch.where(water, 0.55 * mirror * _color(0.7, 0.85, 1.0) + 0.004, scene)
    return F.avg_pool2d(scene[None], SUPERSAMPLING)[0].clamp(0, 1)


def day(height: int, width: int, generator: Generator) -> Tensor:
    """Draw a tiled wall with a window, cloth and gravel in daylight.

    Returns:
        (3, height, width) linear RGB over the whole range.
    """
    rows, columns = height * SUPERSAMPLING, width * SUPERSAMPLING
    y, x = _grid(rows, columns)
    course = (y * 18).floor()
    joint = (y * 18) % 1
    brick_x = x * 12 + 0.5 * (course % 2)
    mortar = ((joint < 0.1) | (brick_x % 1 < 0.06)).float()
    tone = (
        0.6 + 0.8 * torch.frac(torch.sin(course * 12.99 + brick_x.floor() * 78.23) * 43758.5).abs()
    )
    grain = 0.75 + 0.5 * _turbulence(rows, columns, 160, generator)
    wall = _color(0.42, 0.16, 0.09) * tone * (1 - mortar) + 0.5 * mortar
    scene = wall * grain
    pane = (x - 0.3).abs().clamp_min((y - 0.38).abs())
    sky = _color(0.25, 0.45, 0.85) * (1.2 - y) + 0.6 * _turbulence(rows, columns, 6, generator)
    scene = torch.where(pane < 0.2, _color(0.85, 0.83, 0.78) * (0.9 + 0.1 * grain), scene)
    bars = ((x - 0.3).abs() < 0.008) | ((y - 0.38).abs() < 0.012)
    scene = torch.where((pane < 0.175) & ~bars, sky, scene)
    weave = (torch.sin(x * 700) * torch.sin(y * 460)).sign() * 0.5 + 0.5
    stripes = ((x * 30 + 3 * _turbulence(rows, columns, 3, generator)) % 2 < 1).float()
    cloth = _color(0.7, 0.08, 0.12) * stripes + _color(0.08, 0.2, 0.45) * (1 - stripes)
    scene = torch.where((x > 0.62) & (y < 0.72), cloth * (0.7 + 0.3 * weave), scene)
    pebbles = _turbulence(rows, columns, 110, generator) * _turbulence(rows, columns, 40, generator)
    scene = torch.where(y > 0.8, _color(1.3, 1.2, 1.0) * pebbles, scene)
    return F.avg_pool2d(scene[None], SUPERSAMPLING)[0].clamp(0, 1)


def with_ship(scene: Tensor, place: float) -> Tensor:
    """Draw a lit ship on the water of a night, its middle at a place in 0 to 1 from the left."""
    y, x = _grid(*scene.shape[1:])
    across, down = (x - place) / 0.16, (y - 0.80) / 0.07
    hull = (down > 0) & (down < 1) & (across.abs() < 1 - 0.3 * down)
    cabin = (down > -1) & (down <= 0) & (across.abs() < 0.62)
    funnel = (down > -2.2) & (down <= -1) & ((across - 0.1).abs() < 0.09)
    windows = cabin & ((down + 0.5).abs() < 0.22) & ((across * 9) % 1 > 0.4)
    shades = (
        (hull, (0.30, 0.05, 0.04)),
        (hull & (down < 0.25), (0.42, 0.42, 0.40)),
        (cabin, (0.30, 0.29, 0.26)),
        (windows, (0.95, 0.75, 0.35)),
        (funnel, (0.10, 0.22, 0.35)),
    )
    for part, color in shades:
        scene = torch.where(part, _color(*color), scene)
    return scene


def seen_by_hand(scene: Tensor, margin: int, motion: tuple[float, float, float]) -> Tensor:
    """Return what a camera in a hand sees of a scene, less a margin on each side.

    Args:
        scene: (3, H, W).
        margin: pixels.
        motion: shift across and down in pixels, and turn in degrees.
    """
    across, down, degrees = motion
    height, width = scene.shape[1] - 2 * margin, scene.shape[2] - 2 * margin
    turn = torch.polar(torch.ones(()), torch.deg2rad(torch.tensor(degrees)))
    y = torch.arange(height)[:, None] - (height - 1) / 2
    x = torch.arange(width) - (width - 1) / 2
    seen = torch.complex(x.expand(height, -1), y.expand(-1, width)) * turn
    size = torch.tensor((scene.shape[2], scene.shape[1]))
    places = torch.view_as_real(seen) + torch.tensor((across, down))
    grid = 2 * places / size
    return F.grid_sample(scene[None], grid[None], mode="bicubic", align_corners=False)[0].clamp(
        0, 1
    )


def _houses(scene: Tensor, x: Tensor, y: Tensor, shore: float, generator: Generator) -> Tensor:
    left = 0.0
    while left < 1:
        wide, tall, tone, offset = torch.rand(4, generator=generator).tolist()
        wide, roof = 0.05 + 0.07 * wide, shore - 0.1 - 0.22 * tall
        inside = (x >= left) & (x < left + wide) & (y >= roof) & (y < shore)
        body = _color(0.05, 0.045, 0.04) * (0.5 + tone)
        scene = torch.where(inside, body * (1 - 0.3 * ((y * 130) % 1 < 0.15).float()), scene)
        column, row = (x - left) / 0.014, (y - roof) / 0.028
        window = (column % 1 > 0.35) & (row % 1 > 0.45) & (column < wide / 0.014 - 0.4)
        lit = torch.frac(
            torch.sin(column.floor() * 127.1 + row.floor() * 311.7 + 99 * offset) * 9973
        )
        glow = _color(0.95, 0.62, 0.25) * (0.25 + 0.75 * lit.abs())
        scene = torch.where(inside & window & (lit.abs() > 0.55), glow, scene)
        left += wide + 0.01 * tone
    for place in torch.rand(7, generator=generator).tolist():
        distance = ((x - place) ** 2 + ((y - shore + 0.05) * 0.66) ** 2).sqrt()
        scene = scene + _color(1.0, 0.7, 0.35) * (
            0.25 * (-distance * 60).exp() + (distance < 0.004)
        )
    return scene


def _grid(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    y = (torch.arange(rows).view(1, rows, 1) + 0.5) / rows
    x = (torch.arange(columns).view(1, 1, columns) + 0.5) / columns
    return y, x


def _color(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor((red, green, blue)).view(3, 1, 1)


def _stars(rows: int, columns: int, generator: Generator) -> Tensor:
    places = torch.rand(1, rows, columns, generator=generator) > 0.9997
    brightness = torch.rand(1, rows, columns, generator=generator)
    return F.max_pool2d((places * brightness)[None], 3, 1, 1)[0]


def _turbulence(rows: int, columns: int, cells: int, generator: Generator) -> Tensor:
    """Return (1, rows, columns) smooth noise in [0, 1], five octaves from `cells` across."""
    total = torch.zeros(1, rows, columns)
    for octave in range(5):
        across = cells << octave
        down = max(2, across * rows // columns)
        if across > columns:
            break
        noise = torch.rand(1, 1, down, across, generator=generator)
        total += F.interpolate(noise, (rows, columns), mode="bicubic")[0] / (1 << octave)
    return (total / 2).clamp(0, 1)
