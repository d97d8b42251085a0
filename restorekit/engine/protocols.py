"""The pictures of a protocol: degraded and clean, from a folder of clean ones or of pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restorekit.datasets import KNOWN_PAIRS, find_pairs, pictures_below
from restorekit.errors import ConfigError, DecodeError, NoInputError, UsageError
from restorekit.image import Image, Layout, Transfer
from restorekit.io import read_image
from restorekit.metrics import Protocol
from restorekit.ops.color import luma


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
class Sample:
    """Hold one picture to restore and its truth.

    Attributes:
        degraded: sRGB-encoded, of the protocol's layout (RGB for y).
        clean: likewise.
        sigma: deviation of the added noise in steps of 0..255; None for pairs.
    """

    degraded: Image
    clean: Image
    sigma: float | None


def find_sources(protocol: Protocol, folder: Path) -> list[Source]:
    """Return the pictures of a data folder, sorted by path.

    Where noise is added, every picture below the folder is a clean one. Else the folder holds
    pairs as datasets.find_pairs knows them.

    Raises:
        NoInputError: the folder does not exist, holds no pictures or no pairs.
        UsageError: a file has no partner.
    """
    if not folder.is_dir():
        raise NoInputError(f"{folder}: no such folder of pictures")
    if protocol.sigmas:
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


def read_sample(protocol: Protocol, source: Source, sigma: float | None) -> Sample:
    """Read one picture and its truth, or make it by adding noise of this sigma.

    Raises:
        DecodeError: a file is no finished picture.
        UsageError: the two files differ in size.
    """
    clean = _read(protocol, source.clean)
    if source.degraded is None:
        assert sigma is not None
        degraded = clean.with_pixels(_noisy(protocol, clean.pixels, sigma))
    else:
        degraded = _read(protocol, source.degraded)
        if degraded.pixels.shape != clean.pixels.shape:
            raise UsageError(f"{source.degraded} and {source.clean} differ in size; no pair")
    if protocol.clipped:
        degraded = degraded.with_pixels(degraded.pixels.clamp(0, 1))
    return Sample(degraded, clean, sigma)


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


def chosen_sigmas(protocol: Protocol, sigmas: Sequence[float]) -> list[float | None]:
    """Return the noise levels of a run: those asked for, the protocol's own, or None for pairs.

    Raises:
        UsageError: sigmas for pairs, or one out of range.
    """
    if not protocol.sigmas:
        if sigmas:
            raise UsageError(f"{protocol.name} measures pairs of files and takes no --sigma")
        return [None]
    for sigma in sigmas:
        if not 0 < sigma <= 255:
            raise UsageError(f"--sigma {sigma:g} is not between 0 and 255")
    return list(sigmas or protocol.sigmas)
