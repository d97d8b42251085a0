"""Merge the frames of a burst into one picture.

Frames are laid on the sharpest of them, in its light, and count where they show what it shows; a
copy of another frame tells nothing new and is left out. Three pictures are made of them. The
network for single pictures denoises the reference, and the weighted mean of all frames, told for
each pixel how much noise is left in it; the network for bursts sees all frames. The mean is
cleanest where nothing is finer than the frames lie off each other, so it counts where it differs
little from the denoised reference. Elsewhere the reference stands, and the weaker the noise, the
more of the network for bursts with it. Where a thing moved, the reference stands alone, so that it
leaves no trail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from restorekit.engine.domain import (
    Domain,
    Noise,
    cut_off,
    enter,
    measure_noise,
    network_passes,
    unclipped_mosaic,
)
from restorekit.engine.frames import Frame, by_sharpness, stabilised
from restorekit.engine.inference import Inference
from restorekit.engine.picture import RestoreOptions, RestoreReport
from restorekit.engine.reporter import Reporter, SilentReporter
from restorekit.engine.stack import FrameReport, Stack
from restorekit.errors import UsageError
from restorekit.hub import LoadedModel
from restorekit.image import Image, Layout, NoiseProfile, Transfer
from restorekit.ops.color import linear_to_srgb, srgb_to_linear
from restorekit.ops.curve import equal_parts, interpolated
from restorekit.ops.gaussian import blurred

_WEAK_NOISE, _STRONG_NOISE, _LARGEST_SHARE = 0.005, 0.025, 0.6
"""Deviation at the mean brightness up to which the network for bursts counts most, and from which
on it does not count any more; and how far it counts at most."""
_SURPRISE = 1.0
"""Squared difference of the denoised mean from the denoised reference, in units of the noise, at
which the mean counts for half."""
_FLAT, _OVER_FLAT = 0.1, 6.0
"""Share of the picture that is taken for flat, and how many times its difference is no surprise."""
_SPREAD = 1.5
"""Deviation of the window for it in pixels of a plane."""
_CURVE_POINTS, _BLOCK = 24, 8
"""Points of the curve of brightness, and side of the blocks that tell it."""
_BLACK, _MOSTLY_CLIPPED = 1.5 / 255, 0.1
"""Encoded values that count as cut off at black, or at white; and their share at a brightness from
which on the curve counts in full."""
_SAMPLES = 1 << 20


@dataclass(frozen=True)
class BurstReport(RestoreReport):
    """Say how a burst was merged.

    Attributes:
        frames: what became of each, in the order of the input.
    """

    frames: tuple[FrameReport, ...] = ()


@dataclass(frozen=True)
class _Network:
    """Name a network and what runs it."""

    loaded: LoadedModel
    inference: Inference


_DEFAULTS = RestoreOptions()
_SILENT = SilentReporter()


def merge_burst(
    frames: Sequence[Frame],
    model: LoadedModel,
    denoiser: LoadedModel,
    options: RestoreOptions = _DEFAULTS,
    reporter: Reporter = _SILENT,
) -> tuple[Image, BurstReport]:
    """Merge frames that check_frames let pass into a picture like that of the reference.

    Args:
        frames: of one size, kind and camera.
        model: network for bursts.
        denoiser: network for single pictures.
        options: how; model, strength and crop are not looked at.
        reporter: told of the frames and the tiles.

    Raises:
        DecodeError: a frame cannot be read any more.
        UsageError: a model does not fit the frames.
        UnavailableError: the named device is not there.
        MemoryExhaustedError: memory ran out after every fallback.
    """
    most = model.model.spec.frames
    if most < 2:
        raise UsageError(f"{model.card.name} is a model for single pictures; choose another")
    first, *others = by_sharpness(frames)
    image, stack, reports = _stacked(frames, first, others, most, reporter)
    if len(others) > 1 and all(reports[index].shift is None for index in others):  # it fits none
        first, *others = others[0], first, *others[1:]
        image, stack, reports = _stacked(frames, first, others, most, reporter)
    reference = frames[first]
    given = reference.noise if image.layout is Layout.BAYER else options.noise
    merging, denoising = (
        _Network(each, Inference(each.model, options.device, options.dtype, options.tile, reporter))
        for each in (model, denoiser)
    )
    mean, left = stack.mean()
    noise = measure_noise(image, denoiser.model.spec, given)
    pixels = single = _denoised(image, stack.pixels, None, denoising, noise)
    if stack.count > 1:
        alone = stack.alone()
        if noise is None:
            mean = _evenly_noisy(mean, single, left)
        pixels = _denoised(image, mean, left, denoising, noise)
        if not isinstance(noise, NoiseProfile):
            even = isinstance(noise, float)
            pixels = _as_bright(pixels, single, image.to_srgb().pixels, everywhere=even)
        trust = _trust_in_mean(pixels, single, stack.noise) * (1 - alone)
        share = _share_of_network(stack)
        if share:
            stack.fill(torch.lerp(stack.pixels, single, alone))
            single = torch.lerp(single, _merged(image, stack, merging), share * (1 - alone))
        pixels = torch.lerp(single, pixels, trust)
    if isinstance(noise, NoiseProfile):
        pixels = unclipped_mosaic(pixels, image.pixels, noise, cut_off(image))
    inferences = (denoising.inference, merging.inference)
    report = BurstReport(
        device=str(merging.inference.device),
        dtype=str(merging.inference.dtype).removeprefix("torch."),
        tile=merging.inference.tile,
        fallbacks=tuple(step for inference in inferences for step in inference.fallbacks),
        noise=reference.noise,
        seconds_model=sum(inference.seconds for inference in inferences),
        frames=tuple(reports[index] for index in range(len(frames))),
    )
    return _finished(image, pixels, reference.noise, float(left.mean())), report


def _stacked(
    frames: Sequence[Frame], first: int, others: Sequence[int], most: int, reporter: Reporter
) -> tuple[Image, Stack, dict[int, FrameReport]]:
    """Lay frames on the first, and return it with what became of each."""
    reference = frames[first]
    image = reference.load()
    stack = Stack(image, reference, most)
    noise = (reference.noise.shot, reference.noise.read)
    reports = {first: FrameReport(reference.name, "reference", noise=noise)}
    reporter.start(len(others), "frames")
    for index in others:
        reports[index] = stack.add(frames[index])
        reporter.advance()
    reporter.finish()
    return image, stack, reports


def _denoised(
    image: Image,
    mean: Tensor,
    left: Tensor | None,
    network: _Network,
    noise: Noise,
) -> Tensor:
    """Return what a network for single pictures makes of a mean of frames.

    Args:
        image: the reference.
        mean: (C, H, W) linear.
        left: (H, W) share of the variance of the reference in it; None of the reference itself,
            whose noise alone is clipped.
        network: that is told the noise.
        noise: of the reference, from measure_noise.

    Returns:
        (C, H, W) linear.
    """
    entered = replace(image.to_linear(), pixels=mean)
    if image.transfer is Transfer.SRGB:
        entered = entered.to_srgb()
    domain = enter(entered, network.loaded.card, noise)
    noise_std = domain.noise_std
    if noise_std is not None and left is not None:
        noise_std = noise_std * left.sqrt()[None]
    results = [network.inference.run(domain.values, p, noise_std) for p in domain.passes]
    if left is None:
        results = domain.without_bias(results)
    pixels = entered.with_pixels(domain.leave(results)).to_linear().pixels
    if isinstance(noise, NoiseProfile) and left is not None:
        # The way back expects the noise of one frame in the mean of its roots.
        pixels -= noise.shot / 4 * (1 - left)
    return pixels


def _merged(image: Image, stack: Stack, network: _Network) -> Tensor:
    """Return what a network for bursts makes of all frames, (C, H, W) linear."""
    passes = network_passes(image.layout, network.loaded.card)
    noise, channels = stack.noise, len(stack.pixels)
    values = stack.values.flatten(0, 1)
    results = []
    for planes in passes:
        seen = [channels * frame + plane for frame in range(stack.count) for plane in planes]
        signal = stack.pixels[list(planes)].clamp_min(0).mean(0, keepdim=True)
        noise_std = (noise.shot * signal + noise.read**2).sqrt()
        results.append(network.inference.run(values, seen, noise_std))
    return Domain(stack.pixels, None, passes, image).leave(results)


def _share_of_network(stack: Stack) -> float:
    """Return how far the network for bursts counts, by the noise at the mean brightness."""
    noise, level = stack.noise, float(stack.pixels.mean().clamp_min(0))
    deviation = max((noise.shot * level + noise.read**2) ** 0.5, _WEAK_NOISE)
    share = math.log(_STRONG_NOISE / deviation) / math.log(_STRONG_NOISE / _WEAK_NOISE)
    return _LARGEST_SHARE * max(share, 0.0)


def _evenly_noisy(mean: Tensor, single: Tensor, left: Tensor) -> Tensor:
    """Return the mean of frames with the denoised reference mixed in where few frames tell it.

    A network that finds the noise by itself takes what is noisier than its surroundings for a part
    of the picture. The mixture is as noisy as the quarter of the mean that is cleanest.

    Args:
        mean: (C, H, W) linear.
        single: (C, H, W) linear.
        left: (H, W) share of the variance of the reference in the mean.
    """
    return torch.lerp(single, mean, (_quantile(left, 0.25) / left).sqrt_().clamp_(max=1))


def _as_bright(mean: Tensor, single: Tensor, reference: Tensor, *, everywhere: bool) -> Tensor:
    """Return the denoised mean of encoded frames, of each brightness as bright as it should be.

    Where noise is cut off at black or white, the mean of frames is not that of the scene. A network
    that finds the noise by itself has learnt what that does to one frame, not what it does to the
    mean, and of one frame clipping can be undone; so what is told of one frame decides: a curve of
    each colour, at the brightnesses at which noise is cut off, brings the mean to it. Noise that is
    as strong everywhere in encoded light, where it has no mean, has one in linear light.

    Args:
        mean: (C, H, W) linear.
        single: (C, H, W) linear.
        reference: (C, H, W) encoded, what single was made of.
        everywhere: whether the curve counts at every brightness.
    """
    planes = []
    for *denoised, noisy in zip(mean, single, reference, strict=True):
        values, target = (linear_to_srgb(plane) for plane in denoised)
        clipped = (noisy <= _BLACK) | (noisy >= 1 - _BLACK)
        blocks = torch.stack([values, target - values, clipped.float()])[None]
        told = functional.avg_pool2d(blocks, _BLOCK, ceil_mode=True)[0].flatten(1)
        points = [told[:, where].mean(1) for where in equal_parts(told[0], _CURVE_POINTS)]
        places, change, share = torch.stack(points, 1)
        if not everywhere:
            change *= (share / _MOSTLY_CLIPPED).clamp_(max=1)
        planes.append(srgb_to_linear(values + interpolated(places, change, values)))
    return torch.stack(planes)


def _trust_in_mean(mean: Tensor, single: Tensor, noise: NoiseProfile) -> Tensor:
    """Return (H, W): how far the denoised mean is believed, by its difference from the reference.

    Where even flat parts differ, as from noise that the network took for the picture, differences
    are no surprise.

    Args:
        mean: (C, H, W) linear, the denoised mean.
        single: (C, H, W) linear, the denoised reference.
        noise: of the reference.
    """
    difference = stabilised(mean, noise).sub_(stabilised(single, noise)).square_().mean(0)
    surprise = blurred(difference[None], _SPREAD)[0]
    flat = float(_quantile(surprise, _FLAT))
    return 1 / (1 + (surprise / max(_SURPRISE, _OVER_FLAT * flat)).square_())


def _quantile(values: Tensor, share: float) -> Tensor:
    """Return a quantile of values, by a sample of them, since PyTorch takes no more than 16 M."""
    return values.flatten()[:: -(-values.numel() // _SAMPLES)].quantile(share)


def _finished(image: Image, pixels: Tensor, noise: NoiseProfile, left: float) -> Image:
    """Return the picture of linear pixels, like the reference, with the noise left of it."""
    profile = NoiseProfile(noise.shot * left, noise.read * left**0.5)
    metadata = replace(image.metadata, noise=profile, bit_depth=max(16, image.metadata.bit_depth))
    merged = replace(image.to_linear(), pixels=pixels, metadata=metadata)
    return merged if image.transfer is Transfer.LINEAR else merged.to_srgb()
