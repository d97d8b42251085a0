"""The pictures of a protocol: degraded and clean, from a folder of clean ones or of pairs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restorekit.datasets import KNOWN_PAIRS, find_pairs, pictures_below
from restorekit.degradations.burst import FAR, PUBLISHED, Bursts, make_bursts
from restorekit.errors import ConfigError, DecodeError, NoInputError, UsageError
from restorekit.image import Image, Layout, Transfer
from restorekit.io import read_image
from restorekit.metrics import SSIM_WINDOW, Protocol
from restorekit.ops.color import linear_to_srgb, luma


@dataclass(frozen=True)
class Source:
    """Name the files of one picture.

    Attributes:
        name: path of the degraded or only file below the data folder.
        clean: file of the truth.
        degraded: file to restore; None where noise is added to the truth.
    """

    name: str
    clean: Path
    degraded: Path | None = None


@dataclass(frozen=True)
class Level:
    """State how strong the noise is that a protocol adds; pairs have none of the two.

    Attributes:
        sigma: deviation in steps of 0..255.
        gain: of a burst, 1 to 4.
    """

    sigma: float | None = None
    gain: int | None = None

    def __str__(self) -> str:
        """Return the level in words, nothing for pairs."""
        if self.gain is not None:
            return f"gain {self.gain}"
        return "" if self.sigma is None else f"sigma {self.sigma:g}"


@dataclass(frozen=True)
class Sample:
    """Hold one picture to restore and its truth.

    Attributes:
        degraded: sRGB-encoded, of the protocol's layout (RGB for y); of a burst the reference.
        clean: likewise.
        sigma: deviation of the added noise in steps of 0..255; None for pairs and bursts.
        burst: all frames in linear light, a batch of one.
    """

    degraded: Image
    clean: Image
    sigma: float | None = None
    burst: Bursts | None = None


def find_sources(protocol: Protocol, folder: Path) -> list[Source]:
    """Return the pictures of a data folder, sorted by path.

    Where noise is added or a burst made, every picture below the folder is a clean one. Else the
    folder holds pairs as datasets.find_pairs knows them.

    Raises:
        NoInputError: the folder does not exist, holds no pictures or no pairs.
        UsageError: a file has no partner.
    """
    if not folder.is_dir():
        raise NoInputError(f"{folder}: no such folder of pictures")
    if protocol.sigmas or protocol.gains:
        paths = pictures_below(folder)
        if not paths:
            raise NoInputError(f"{folder}: no picture there")
        return [Source(str(path.relative_to(folder)), path) for path in paths]
    try:
        pairs = find_pairs(folder)
    except ConfigError as error:
        raise UsageError(str(error)) from None
    if not pairs:
        raise NoInputError(
            f"{folder}: no pairs there; {protocol.name} needs its folders {KNOWN_PAIRS}"
        )
    return [
        Source(str(pair.degraded.relative_to(folder)), pair.clean, pair.degraded) for pair in pairs
    ]


def digest(source: Source) -> str:
    """Return what names the bytes of a picture's files, hexadecimal."""
    content = hashlib.blake2b(digest_size=8)
    for path in (source.clean, source.degraded):
        if path is not None:
            content.update(path.read_bytes())
    return content.hexdigest()


def read_sample(protocol: Protocol, source: Source, level: Level) -> Sample:
    """Read one picture and its truth, or make it by adding noise of this level.

    Raises:
        DecodeError: a file is no finished picture.
        UsageError: the two files differ in size, or the picture is too small for a burst.
    """
    clean = _read(protocol, source.clean)
    if level.gain is not None:
        return _burst(protocol, source, clean, level.gain)
    if level.sigma is not None:
        degraded = clean.with_pixels(_noisy(protocol, clean.pixels, level.sigma))
    else:
        assert source.degraded is not None
        degraded = _read(protocol, source.degraded)
        if degraded.pixels.shape != clean.pixels.shape:
            raise UsageError(f"{source.degraded} and {source.clean} differ in size; no pair")
    if protocol.clipped:
        degraded = degraded.with_pixels(degraded.pixels.clamp(0, 1))
    return Sample(degraded, clean, level.sigma)


def _burst(protocol: Protocol, source: Source, clean: Image, gain: int) -> Sample:
    """Make a burst; offsets and noise follow from the seed and the name of the picture."""
    rule = dataclasses.replace(PUBLISHED, aligned=protocol.aligned).at_gain(gain)
    smallest = rule.shrink * (2 * FAR + 2 * protocol.border + SSIM_WINDOW)
    if min(clean.height, clean.width) < smallest:
        raise UsageError(
            f"{source.clean}: {protocol.name} needs {smallest} x {smallest} pixels at least"
        )
    stream = hashlib.blake2b(f"{protocol.seed} {source.name}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(stream, "big"))
    burst = make_bursts(clean.pixels[None], rule, generator)
    reference, truth = (
        linear_to_srgb(p[0] / burst.white[0]) for p in (burst.frames[:, 0], burst.clean)
    )
    return Sample(clean.with_pixels(reference), clean.with_pixels(truth), burst=burst)


def _read(protocol: Protocol, path: Path) -> Image:
    """Read a picture in the layout of a protocol; grey of colour is BT.601 luma in 8 bits."""
    image = read_image(path).to_srgb()
    if image.layout is Layout.BAYER:
        raise DecodeError(f"{path}: {protocol.name} measures finished pictures, not RAW")
    pixels = image.pixels
    if protocol.layout == "gray":
        if len(pixels) == 3:
            pixels = (luma(pixels) * 255).round() / 255
        return Image(pixels, Transfer.SRGB, Layout.GRAY, image.metadata)
    return Image(pixels.expand(3, -1, -1), Transfer.SRGB, Layout.RGB, image.metadata)


def _noisy(protocol: Protocol, clean: Tensor, sigma: float) -> Tensor:
    """Add noise drawn as (H, W, C), the order in which the papers' code holds pictures."""
    planes, height, width = clean.shape
    drawn = np.random.RandomState(protocol.seed).normal(0, sigma / 255, (height, width, planes))
    return (clean + torch.from_numpy(drawn).permute(2, 0, 1)).float()


def chosen_levels(protocol: Protocol, sigmas: Sequence[float]) -> list[Level]:
    """Return the noise levels of a run: those asked for, the protocol's own, or none for pairs.

    Raises:
        UsageError: sigmas for pairs or bursts, or one out of range.
    """
    if not protocol.sigmas:
        if sigmas:
            measured = "bursts" if protocol.gains else "pairs of files"
            raise UsageError(f"{protocol.name} measures {measured} and takes no --sigma")
        return [Level(gain=gain) for gain in protocol.gains] or [Level()]
    for sigma in sigmas:
        if not 0 < sigma <= 255:
            raise UsageError(f"--sigma {sigma:g} is not between 0 and 255")
    return [Level(sigma) for sigma in sigmas or protocol.sigmas]
