"""Rain, shake and defocus as photographs have them, for training and for sets of pairs.

Light mixes in linear values; what a sensor, a codec and the 8 bits of a file do comes after it.
Pictures are (C, H, W), sRGB-encoded in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from restorekit.degradations.blur import defocus_blur, depth_blur, motion_blur
from restorekit.degradations.compression import random_jpeg
from restorekit.degradations.noise import gaussian_noise
from restorekit.degradations.rain import added_streaks, rain_streaks, sample_rain
from restorekit.ops.color import linear_to_srgb, srgb_to_linear

SPARED_SHARE = 0.1
ADDED_SHARE = 0.5
CROSSED_SHARE = 0.25
DEPTH_SHARE = 0.4
MIXED_SHARE = 0.2
SLIGHT_DEFOCUS = 1.5
SLIGHT_MOTION = 4.0
BRIGHT_SHARE = 0.5
WHITE = 0.95
BRIGHTEST = 4.0
NOISY_SHARE = 0.4
LARGEST_NOISE = 4 / 255
JPEG_SHARE = 0.25
JPEG_QUALITIES = 70, 98


def rainy(
    clean: Tensor, generator: Generator, heaviness: tuple[float, float] = (0.0, 1.0)
) -> Tensor:
    """Let it rain in a picture.

    Half of the rains fall in linear light and have a veil; the others are streaks that are added to
    encoded values, as published sets of pairs have them, and some of these cross a second rain.

    Args:
        clean: the picture.
        generator: source of all draws.
        heaviness: range in [0, 1], see sample_rain.
    """
    rain = sample_rain(generator, *heaviness)
    if not _chance(ADDED_SHARE, generator):
        wet = linear_to_srgb(rain_streaks(srgb_to_linear(clean), rain, generator))
    else:
        wet = added_streaks(clean, rain, generator)
        if _chance(CROSSED_SHARE, generator):
            wet = added_streaks(wet, sample_rain(generator, *heaviness), generator)
    return as_file(wet, generator)


def shaken(
    clean: Tensor, generator: Generator, shortest: float = 0.0, longest: float = 17.0
) -> Tensor:
    """Take a picture with a moving camera, sometimes slightly out of focus too.

    Args:
        clean: the picture, sides above longest + 2.
        generator: source of all draws.
        shortest: pixels that the shortest motion spans.
        longest: pixels that the longest one spans.
    """
    light = motion_blur(_scene_light(clean, generator), longest, generator, shortest)
    if _chance(MIXED_SHARE, generator):
        light = defocus_blur(light, SLIGHT_DEFOCUS, generator)
    return as_file(linear_to_srgb(light.clamp(0, 1)), generator)


def defocused(
    clean: Tensor, generator: Generator, smallest: float = 0.0, largest: float = 5.0
) -> Tensor:
    """Take a picture out of focus, as a whole or by depth, sometimes slightly shaken too.

    Args:
        clean: the picture.
        generator: source of all draws.
        smallest: pixels of the smallest radius, but in the plane of focus it is always 0.
        largest: pixels of the largest radius.
    """
    light = _scene_light(clean, generator)
    if _chance(DEPTH_SHARE, generator):
        light = depth_blur(light, largest, generator)
    else:
        light = defocus_blur(light, largest, generator, smallest)
    if _chance(MIXED_SHARE, generator):
        light = motion_blur(light, SLIGHT_MOTION, generator)
    return as_file(linear_to_srgb(light.clamp(0, 1)), generator)


def mostly(
    degrade: Callable[[Tensor, Generator], Tensor], clean: Tensor, generator: Generator
) -> Tensor:
    """Degrade the pictures of a (B, C, H, W) batch, but only store one in ten as a file.

    A network that is trained on such pairs leaves clean pictures alone.
    """
    return torch.stack(
        [
            (as_file if _chance(SPARED_SHARE, generator) else degrade)(picture, generator)
            for picture in clean
        ]
    )


def as_file(encoded: Tensor, generator: Generator) -> Tensor:
    """Store a picture in 8 bits, sometimes with little noise, sometimes as JPEG."""
    if _chance(NOISY_SHARE, generator):
        std = LARGEST_NOISE * torch.rand((), generator=generator)
        encoded = gaussian_noise(encoded, std, generator)
    if _chance(JPEG_SHARE, generator):
        encoded = random_jpeg(encoded, *JPEG_QUALITIES, generator)
    return (encoded.clamp(0, 1) * 255).round() / 255


def _scene_light(encoded: Tensor, generator: Generator) -> Tensor:
    """Return linear light, in half of the cases with a guess of what was clipped at white."""
    linear = srgb_to_linear(encoded)
    if not _chance(BRIGHT_SHARE, generator):
        return linear
    gain = 1 + (BRIGHTEST - 1) * torch.rand((), generator=generator) ** 2
    return torch.where(linear.amin(-3, keepdim=True) > WHITE, linear * gain, linear)


def _chance(share: float, generator: Generator) -> bool:
    return float(torch.rand((), generator=generator)) < share
