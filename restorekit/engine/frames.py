"""The frames of a burst: which files make one, what each is, and whether they fit together."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from restorekit.engine.domain import (
    LEAST_SHOT,
    finished_noise_of,
    mosaic_noise,
    without_hot_pixels,
)
from restorekit.errors import DecodeError, UsageError
from restorekit.image import Image, Layout, Metadata, NoiseProfile
from restorekit.io import read_metadata
from restorekit.ops.anscombe import anscombe
from restorekit.ops.finished_noise import FinishedNoise
from restorekit.ops.gaussian import blurred
from restorekit.ops.noise import estimate_noise_profile
from restorekit.ops.warp import LONGEST_WARPED

MOST_STOPS = 0.3
MOST_DRIFT = 0.5
"""Stops by which the light may change beyond the exposure that the files state."""
_DARKEST = 1e-3
_PAUSE = 2.0
_SHOT_OF_ENCODED = 4.5
_READ_OF_ENCODED = 1 / 12.92
"""The slope of the sRGB curve turns a deviation s of encoded values into about this linear noise:
variance 4.5 s**2 x, and s / 12.92 in black."""
_LEAST_ENCODED = 0.5 / 255
_LEAST_SIDE = 16
_FAR_BEYOND_WHITE = 1e6


@dataclass(frozen=True)
class Frame:
    """State what a frame of a burst is; its pixels are read again when they are needed.

    Attributes:
        name: of its file, for messages.
        load: reads it, without its hot pixels.
        layout: of its planes.
        size: width and height of the picture.
        metadata: what its file says.
        noise: in linear light.
        from_camera: whether the noise is such as cameras and JPEG leave in a finished picture.
        sharpness: more is sharper, among frames of equal noise.
        light: mean, linear.
    """

    name: str
    load: Callable[[], Image]
    layout: Layout
    size: tuple[int, int]
    metadata: Metadata
    noise: NoiseProfile
    from_camera: bool
    sharpness: float
    light: float

    @property
    def exposure(self) -> float | None:
        """Return time times sensitivity over the square of the f-number, if the file says so."""
        return _exposure(self.metadata)


def inspect_frame(
    name: str,
    load: Callable[[], Image],
    noise: float | NoiseProfile | None = None,
    like: Frame | None = None,
) -> Frame:
    """Read a frame and state what it is.

    Args:
        name: of its file.
        load: reads it.
        noise: deviation in steps of 0..255, the profile of a RAW picture, or None to measure it.
        like: frame to compare its sharpness with; none is sharper by what is taken for its noise.

    Raises:
        DecodeError: it cannot be read, or holds infinite values or no numbers.
        UsageError: the noise does not fit the picture, or its size cannot be aligned.
    """

    def repaired() -> Image:
        return without_hot_pixels(load(), noise)

    image = load()
    if not (torch.stack(image.pixels.aminmax()).abs() < _FAR_BEYOND_WHITE).all():
        raise DecodeError(
            f"{name}: some pixels are infinite, no numbers or far beyond white; repair them first"
        )
    if min(image.pixels.shape[1:]) < _LEAST_SIDE:
        raise UsageError(f"{name}: too small for a burst; restore it by denoise")
    scale = 2 if image.layout is Layout.BAYER else 1
    if scale * max(image.pixels.shape[1:]) > LONGEST_WARPED:
        raise UsageError(f"{name}: too large for a burst; restore it by denoise")
    image = without_hot_pixels(image, noise)
    linear = image.to_linear().pixels
    profile, from_camera = _linear_noise(name, image, linear, noise)
    return Frame(
        name=name,
        load=repaired,
        layout=image.layout,
        size=(scale * image.width, scale * image.height),
        metadata=image.metadata,
        noise=profile,
        from_camera=from_camera,
        sharpness=_sharpness(guide(linear, like.noise if like else profile)),
        light=float(linear.mean()),
    )


def _linear_noise(
    name: str, image: Image, linear: Tensor, given: float | NoiseProfile | None
) -> tuple[NoiseProfile, bool]:
    """Return the noise in linear light, and whether it is such as cameras and JPEG leave."""
    if image.layout is Layout.BAYER:
        return mosaic_noise(image, given), False
    if isinstance(given, NoiseProfile):
        raise UsageError(f"{name}: give the noise of RGB frames as one number of 0..255")
    if given is None:
        found = finished_noise_of(image)
        if found.curve and not found.from_camera:
            shot, read = estimate_noise_profile(linear)
            return NoiseProfile(max(shot, LEAST_SHOT), read), False
    else:
        found = FinishedNoise(given / 255, given / 255, from_camera=False)
    deviation = max(found.coarse, _LEAST_ENCODED)
    shot, read = _SHOT_OF_ENCODED * deviation**2, _READ_OF_ENCODED * deviation
    return NoiseProfile(shot, read), found.from_camera


def stabilised(planes: Tensor, noise: NoiseProfile) -> Tensor:
    """Return linear planes of any shape with noise of deviation 1 and black 0."""
    black = float(anscombe(torch.zeros(()), noise.shot, noise.read))
    return anscombe(planes, noise.shot, noise.read).sub_(black)


def guide(planes: Tensor, noise: NoiseProfile) -> Tensor:
    """Return the green of a frame with noise of deviation 1 and black 0.

    Args:
        planes: (C, H, W) linear, a packed mosaic, RGB or grey.
        noise: of the frame.

    Returns:
        (H, W).
    """
    greens = planes[1:3] if len(planes) == 4 else planes[len(planes) // 2][None]
    return stabilised(greens, noise).sum(0).div_(len(greens) ** 0.5)


def _sharpness(plane: Tensor) -> float:
    """Return the variance of the Laplacian at half the size."""
    half = functional.avg_pool2d(plane[None], 2) if min(plane.shape) >= 8 else plane[None]
    smooth = blurred(half, 1.0)[0]
    return float((smooth[1:-1].diff(n=2) + smooth[:, 1:-1].diff(n=2, dim=0)).var())


def check_frames(frames: Sequence[Frame], *, bracket: bool = False) -> None:
    """Refuse frames that make no burst.

    Args:
        frames: all of them.
        bracket: whether exposures may differ.

    Raises:
        UsageError: they are fewer than two, or of differing size, kind, camera or exposure.
    """
    if len(frames) < 2:
        names = ", ".join(frame.name for frame in frames) or "nothing"
        raise UsageError(f"{names}: a burst has at least two frames")
    for trait in (_kind, _size, _camera):
        values = [trait(frame) for frame in frames]
        common, count = Counter(values).most_common(1)[0]
        if count < len(frames):
            names = ", ".join(f.name for f, v in zip(frames, values, strict=True) if v != common)
            odd = ", ".join(sorted(set(values) - {common}))
            raise UsageError(
                f"{names}: {odd}, but the other frames of the burst are {common}; "
                "leave out what does not belong to it"
            )
    stated = sorted((f for f in frames if f.exposure), key=lambda frame: frame.exposure or 0)
    if stated and not bracket:
        stops = stops_between(stated[0].metadata, stated[-1].metadata)
        if stops > MOST_STOPS:
            raise UsageError(
                f"{stated[0].name} and {stated[-1].name}: their exposures differ by {stops:.1f} "
                "stops; a burst has one exposure, unless --bracket says that it may have several"
            )


def _kind(frame: Frame) -> str:
    if frame.layout is Layout.BAYER:
        return f"RAW of a {frame.metadata.cfa} sensor"
    return "grey" if frame.layout is Layout.GRAY else "RGB"


def _size(frame: Frame) -> str:
    return f"{frame.size[0]} x {frame.size[1]} pixels"


def _camera(frame: Frame) -> str:
    names = " ".join(filter(None, (frame.metadata.make, frame.metadata.model)))
    return f"from {names or 'an unknown camera'}"


def by_sharpness(frames: Sequence[Frame]) -> list[int]:
    """Return the indices of the frames, the sharpest, which is the reference, first.

    Those in which the light is not that of the others, as of a flash, come last.
    """
    first = frames[0]
    stops = [
        math.log2(max(frame.light, _DARKEST) / max(first.light, _DARKEST))
        - stops_between(first.metadata, frame.metadata)
        for frame in frames
    ]
    usual = statistics.median(stops)
    return sorted(
        range(len(frames)),
        key=lambda index: (abs(stops[index] - usual) > MOST_DRIFT, -frames[index].sharpness),
    )


def _exposure(metadata: Metadata) -> float | None:
    if not metadata.exposure_time or not metadata.iso:
        return None
    return metadata.exposure_time * metadata.iso / (metadata.f_number or 1.0) ** 2


def stops_between(metadata: Metadata, other: Metadata) -> float:
    """Return by how many stops the second exposure is above the first; 0 where one is unknown."""
    first, second = _exposure(metadata), _exposure(other)
    return math.log2(second / first) if first and second else 0.0


def group_files(files: Sequence[Path], by: str | None) -> list[list[Path]]:
    """Divide files into bursts.

    Args:
        files: all of them.
        by: "folder"; "time" for pauses of over two seconds, and changes of camera or exposure,
            between shots; or None for one burst.

    Raises:
        UsageError: a file does not say when it was taken.
    """
    if by is None:
        return [list(files)]
    if by == "folder":
        folders: dict[Path, list[Path]] = {}
        for file in files:
            folders.setdefault(file.parent, []).append(file)
        return list(folders.values())
    shots, groups = [], []
    for file in files:
        try:
            metadata = read_metadata(file)
        except DecodeError:  # said again when the burst is read
            groups.append([file])
            continue
        if metadata.taken is None:
            raise UsageError(f"{file}: it does not say when it was taken; try --group-by folder")
        shots.append((metadata.make or "", metadata.model or "", metadata.taken, file, metadata))
    before: Metadata | None = None
    for *_, file, metadata in sorted(shots, key=lambda shot: shot[:4]):
        if before is None or not _follows(before, metadata):
            groups.append([])
        groups[-1].append(file)
        before = metadata
    return groups


def _follows(before: Metadata, after: Metadata) -> bool:
    """Return whether a shot belongs to the same burst as the one before it."""
    pause = (after.taken or 0) - (before.taken or 0) - (before.exposure_time or 0)
    same_camera = (before.make, before.model) == (after.make, after.model)
    return same_camera and pause <= _PAUSE and abs(stops_between(before, after)) <= MOST_STOPS
