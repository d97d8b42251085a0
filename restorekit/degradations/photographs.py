"""Rain, shake, defocus and noise as photographs have them, for training and for sets of pairs.

Light mixes in linear values; what a sensor, a codec and the 8 bits of a file do comes after it.
Pictures are (C, H, W), sRGB-encoded in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from restorekit.degradations.blur import defocus_blur, depth_blur, motion_blur
from restorekit.degradations.camera import mosaic, process, sample_camera, unprocess
from restorekit.degradations.compression import random_jpeg
from restorekit.degradations.noise import (
    gaussian_noise,
    sample_sensor_noise_levels,
    shot_read_noise,
)
from restorekit.degradations.rain import added_streaks, rain_streaks, sample_rain
from restorekit.ops.color import linear_to_srgb, luma, srgb_to_linear
from restorekit.ops.gaussian import blurred

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
SMOOTHED_SHARE = 0.7
LARGEST_SMOOTHING = 2.5, 6.0
"""Deviations of the Gaussians by which cameras smooth the noise of luma and of colours."""
_LEAST_SMOOTHING = 0.1
CAMERA_JPEG_SHARE = 0.7
CAMERA_JPEG_QUALITIES = 75, 100
SHARED_SHARE = 0.5
"""Share of white noises that all colours have in common, to a varying extent."""
WHITE_JPEG_QUALITIES = 60, 100
GREY_SHARE = 0.1


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


def photographed(
    clean: Tensor, generator: Generator, spared: float = SPARED_SHARE, strongest: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Take a picture by a noisy sensor, and develop it as cameras do.

    They smooth the noise, that of colours most, the more the stronger it is, and often store the
    picture as JPEG. Some have no noise, so that a network which is trained on such pairs leaves
    clean pictures alone.

    Args:
        clean: the picture, of even sides.
        generator: source of all draws.
        spared: share of pictures without noise.
        strongest: times the usual deviation that the noise has at most, 1 or more.

    Returns:
        the picture in steps of 1/255, and the same without noise and compression; both are grey
        in one case of ten.
    """
    camera = sample_camera((), generator)
    planes = mosaic(unprocess(clean, camera))
    shot, read = sample_sensor_noise_levels((), generator)
    if strongest > 1:  # without it, seeds keep their draws
        factor = strongest ** float(torch.rand((), generator=generator).square())
        shot, read = shot * factor**2, read * factor
    truth = process(planes, camera)
    noise = process(shot_read_noise(planes, shot, read, generator), camera) - truth
    if _chance(spared, generator):
        noise.zero_()
    if _chance(SMOOTHED_SHARE, generator):
        of_luma, of_colours = (
            max(largest * float(torch.rand((), generator=generator)), _LEAST_SMOOTHING)
            for largest in LARGEST_SMOOTHING
        )
        bright, before = luma(noise), noise.std()
        noise = blurred(bright, of_luma) + blurred(noise - bright, max(of_luma, of_colours))
        gain = (before / noise.std().clamp_min(1e-6)) ** torch.rand((), generator=generator)
        noise = torch.lerp(noise.mean((1, 2), keepdim=True), noise, gain)
    noisy = truth + noise
    if _chance(CAMERA_JPEG_SHARE, generator):
        noisy = random_jpeg(noisy, *CAMERA_JPEG_QUALITIES, generator)
    if _chance(GREY_SHARE, generator):
        noisy, truth = (luma(picture).expand_as(picture) for picture in (noisy, truth))
    return (noisy.clamp(0, 1) * 255).round() / 255, truth


def grainy(clean: Tensor, std: float, generator: Generator) -> Tensor:
    """Add white noise, which colours may share, and often store the picture as JPEG.

    Args:
        clean: the picture.
        std: deviation of the noise in units of white.
        generator: source of all draws.

    Returns:
        the picture in steps of 1/255.
    """
    noise = torch.randn(clean.shape, generator=generator)
    if _chance(SHARED_SHARE, generator):
        shared = torch.rand((), generator=generator).sqrt()
        common = torch.randn(clean[:1].shape, generator=generator)
        noise = (1 - shared).sqrt() * noise + shared.sqrt() * common
    noisy = clean + std * noise
    if _chance(CAMERA_JPEG_SHARE, generator):
        noisy = random_jpeg(noisy, *WHITE_JPEG_QUALITIES, generator)
    return (noisy.clamp(0, 1) * 255).round() / 255


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
