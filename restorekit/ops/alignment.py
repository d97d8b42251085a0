"""How one frame of a burst lies on another.

Motions are those of a hand: a shift and a small turn. They are found coarse to fine from the phase
correlation of tiles (Kuglin & Hines, 1975), of which a consensus is taken (Fischler & Bolles,
1981), and refined by the enhanced correlation coefficient (Evangelidis & Psarakis, 2008).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from restorekit.ops.agreement import agreement
from restorekit.ops.warp import Motion, warp_nearest

_TILE = 128
_SMALLEST_TILE = 16
_LONGEST_SIDE = 1280
_PASSBAND = 0.12
_HYPOTHESES = 1000
_TOLERANCE = 1.5
_STEEPEST_TURN = math.radians(5)
_LARGEST_ZOOM = 0.03
_ECC_STEPS, _ECC_GAIN, _ECC_BLUR = 50, 1e-5, 5
_BATCH = 64


@dataclass(frozen=True)
class Alignment:
    """State how a frame moved.

    Attributes:
        motion: from the reference to the frame.
        inliers: share of the tiles that moved so, less the two that any motion fits.
    """

    motion: Motion
    inliers: float


def align(reference: Tensor, frame: Tensor) -> Alignment:
    """Find the motion from one picture to another of the same scene.

    Args:
        reference: (H, W), noise of deviation 1 and black 0.
        frame: (H, W), likewise.

    Returns:
        the motion that most tiles agree on; of unrelated pictures, any with few inliers.
    """
    factor = -(-max(reference.shape) // _LONGEST_SIDE)
    pyramid = [(_reduced(reference, factor), _reduced(frame, factor))]
    while min(pyramid[-1][0].shape) >= 2 * _TILE:
        pyramid.append((_reduced(pyramid[-1][0], 2), _reduced(pyramid[-1][1], 2)))
    whole = _shifts(*(picture[None] for picture in pyramid[-1]))
    guesses = [Motion(), Motion(shift=complex(whole.item()))]
    for level in reversed(pyramid[1:]):
        found = [motion for guess in guesses for motion in _motions(*level, guess)]
        guesses = _distinct([Motion(), *(motion.enlarged(2) for motion in found)])
    finest = pyramid[0]
    found = _distinct([motion for guess in guesses for motion in _motions(*finest, guess)])
    motion = max(found, key=lambda motion: float(_agreement(*finest, motion).mean()))
    fitting = _fitting(*tile_motion(*finest, motion), motion)
    inliers = max(int(fitting.sum()) - 2, 0) / max(len(fitting) - 2, 1)
    return Alignment(_refined(*finest, motion).enlarged(factor), inliers)


def _motions(reference: Tensor, frame: Tensor, guess: Motion) -> list[Motion]:
    """Return the motion that most tiles follow, and that which most of the others follow."""
    centers, targets = tile_motion(reference, frame, guess)
    first, fitting = consensus(centers, targets)
    if int((~fitting).sum()) < 3:
        return [first]
    return [first, consensus(centers[~fitting], targets[~fitting])[0]]


def _distinct(motions: list[Motion]) -> list[Motion]:
    """Return motions of which none shifts nearly as one before it."""
    kept: list[Motion] = []
    for motion in motions:
        if all(abs(motion.shift - other.shift) > _TILE / 8 for other in kept):
            kept.append(motion)
    return kept


def tile_motion(reference: Tensor, frame: Tensor, motion: Motion) -> tuple[Tensor, Tensor]:
    """Measure by phase correlation where the tiles of a picture lie in another.

    Args:
        reference: (H, W).
        frame: (H, W).
        motion: where to look; half a tile around it is searched.

    Returns:
        the centres of the tiles and their places in the frame, complex numbers x + iy.
    """
    height, width = reference.shape
    side = _tile_side(height, width)
    rows, columns = (
        torch.arange(0, size - side + 1, side // 2, dtype=torch.float64) for size in (height, width)
    )
    corners = torch.complex(columns.expand(len(rows), -1), rows[:, None].expand(-1, len(columns)))
    corners = corners.flatten()
    half = (side - 1) / 2 * (1 + 1j)
    expected = motion.turn * (corners + half) + motion.shift - half
    starts = torch.complex(
        expected.real.round().clamp(0, width - side), expected.imag.round().clamp(0, height - side)
    )
    batches = zip(torch.split(corners, _BATCH), torch.split(starts, _BATCH), strict=True)
    shifts = [
        _shifts(_tiles(reference, here, side), _tiles(frame, there, side))
        for here, there in batches
    ]
    return corners + half, starts + torch.cat(shifts) + half


def _tile_side(height: int, width: int) -> int:
    """Return a power of 2 of which at least three fit into a side."""
    fitting = 1 << int(math.log2(max(min(height, width) / 3, 1)))
    return min(max(fitting, _SMALLEST_TILE), _TILE)


def _tiles(picture: Tensor, corners: Tensor, side: int) -> Tensor:
    return torch.stack(
        [
            picture[y : y + side, x : x + side]
            for x, y in torch.view_as_real(corners).long().tolist()
        ]
    )


def _shifts(pictures: Tensor, others: Tensor) -> Tensor:
    """Return by how much each of (B, H, W) pictures must be moved to give the other, (B,)."""
    height, width = pictures.shape[1:]
    window = torch.hann_window(height, False)[:, None] * torch.hann_window(width, False)
    first, second = (
        torch.fft.rfft2((p - p.mean((1, 2), keepdim=True)) * window) for p in (pictures, others)
    )
    cross = first.conj() * second
    frequency = torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width) ** 2
    low_pass = (-frequency / (2 * _PASSBAND**2)).exp()
    cross *= low_pass / cross.abs().clamp_min(1e-12)
    surface = torch.fft.irfft2(cross, s=(height, width))
    peaks = surface.flatten(1).argmax(1)
    y, x = peaks // width, peaks % width
    batch = torch.arange(len(pictures))
    dx = _vertex(*(surface[batch, y, (x + step) % width] for step in (-1, 0, 1)))
    dy = _vertex(*(surface[batch, (y + step) % height, x] for step in (-1, 0, 1)))
    x, y = x - width * (x > width // 2), y - height * (y > height // 2)
    return torch.complex((x + dx).double(), (y + dy).double())


def _vertex(before: Tensor, peak: Tensor, after: Tensor) -> Tensor:
    """Return where the parabola through three neighbours is highest, in -0.5 to 0.5."""
    bend = (2 * peak - before - after).clamp_min(1e-12)
    return ((after - before) / (2 * bend)).clamp(-0.5, 0.5)


def consensus(places: Tensor, targets: Tensor) -> tuple[Motion, Tensor]:
    """Find the motion that takes most places to their targets.

    Args:
        places: (N,) complex.
        targets: (N,) complex, many of them wrong.

    Returns:
        the motion, and which of the N it fits.
    """
    generator = torch.Generator().manual_seed(0)
    count = len(places)
    first, second = torch.randint(count, (2, _HYPOTHESES), generator=generator)
    first, second = first[first != second], second[first != second]
    turns = (targets[first] - targets[second]) / (places[first] - places[second])
    shifts = targets[first] - turns * places[first]
    turns = torch.cat((torch.ones_like(targets), turns))
    shifts = torch.cat((targets - places, shifts))
    likely = ((turns.abs() - 1).abs() < _LARGEST_ZOOM) & (turns.angle().abs() < _STEEPEST_TURN)
    turns, shifts = turns[likely], shifts[likely]
    errors = (turns[:, None] * places + shifts[:, None] - targets).abs()
    best = int((errors < _TOLERANCE).sum(1).argmax())
    motion = Motion(complex(turns[best].item()), complex(shifts[best].item()))
    for _ in range(3):
        fitting = _fitting(places, targets, motion)
        if int(fitting.sum()) < 3:
            break
        here, there = places[fitting].mean(), targets[fitting].mean()
        spread = places[fitting] - here
        turn = (spread.conj() * (targets[fitting] - there)).sum() / spread.abs().square().sum()
        motion = Motion(complex(turn.item()), complex((there - turn * here).item()))
    return motion, _fitting(places, targets, motion)


def _fitting(places: Tensor, targets: Tensor, motion: Motion) -> Tensor:
    """Return which places a motion takes to their targets."""
    return (motion.turn * places + motion.shift - targets).abs() < _TOLERANCE


def _refined(reference: Tensor, frame: Tensor, motion: Motion) -> Motion:
    """Refine a motion where the pictures agree under it; the motion itself where that fails."""
    import cv2

    height, width = reference.shape
    agreeing = _agreement(reference, frame, motion) > 0.5
    try:
        _, found = cv2.findTransformECC(
            templateImage=frame.numpy(),
            inputImage=reference.numpy(),
            warpMatrix=motion.inverse.matrix,
            motionType=cv2.MOTION_EUCLIDEAN,
            criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ECC_STEPS, _ECC_GAIN),
            inputMask=agreeing.to(torch.uint8).mul_(255).numpy(),
            gaussFiltSize=_ECC_BLUR,
        )
    except cv2.error:  # flat pictures, or no convergence
        return motion
    turn, shift = complex(found[0, 0], found[1, 0]), complex(found[0, 2], found[1, 2])
    refined = Motion(turn, shift).inverse
    corners = (complex(x, y) for x in (0, width) for y in (0, height))
    moved = max(abs(refined.place(corner) - motion.place(corner)) for corner in corners)
    return refined if moved < 2 * _TOLERANCE else motion


def _agreement(reference: Tensor, frame: Tensor, motion: Motion) -> Tensor:
    warped, inside = warp_nearest(frame[None], motion)
    return agreement(reference[None], warped) * inside


def _reduced(picture: Tensor, factor: int) -> Tensor:
    """Return the picture at a smaller size, its noise as strong as before."""
    return factor * functional.avg_pool2d(picture[None], factor)[0] if factor > 1 else picture
