"""The domain of a model's card: how a picture enters a network and comes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from restorekit.engine.inference import NoiseStd
from restorekit.errors import UsageError
from restorekit.hub import ModelCard, bundled_cards
from restorekit.image import Image, Layout, NoiseProfile, Transfer
from restorekit.models.registry import ModelSpec, NoiseInput
from restorekit.ops.anscombe import Stabiliser
from restorekit.ops.clipping import unclipped
from restorekit.ops.color import linear_to_srgb, srgb_to_linear
from restorekit.ops.finished_noise import FinishedNoise, finished_noise, noise_by_brightness
from restorekit.ops.hot_pixels import repaired
from restorekit.ops.noise import estimate_noise_profile
from restorekit.ops.noise_curve import NoiseCurve
from restorekit.tasks import Task

_BORROWED = {
    (Layout.GRAY, Layout.RGB): ((0, 0, 0),),
    (Layout.BAYER, Layout.RGB): ((0, 1, 3), (0, 2, 3)),
}
_GRAY_AS_COLOUR = 3**0.5
"""Grey noise repeated on three planes is as strong in the luma as independent noise of sqrt(3)
times its deviation; that is what a colour network is told."""
_TRUSTED_RATIO = 2.0
_CLIPPED_SHARE = 0.02
_FAR_BEYOND = 2.0
"""How far values lie beyond black or white that no noise takes there."""
_LITTLE_BEYOND = 0.5
"""How far a network may see highlights lie beyond white; brighter ones disturb what is around."""
_FEW = 0.01
"""Largest share of values far beyond that are highlights and not the scale of the picture."""
LEAST_SHOT = 1e-6

Noise = float | NoiseProfile | NoiseCurve | None
"""Of a picture: steps of 0..255, that of linear light, that by brightness, or not to be told."""


@dataclass(frozen=True)
class Domain:
    """Hold a picture as a network sees it.

    Attributes:
        values: (C, H, W) float32 in the units of the card.
        noise_std: deviation of the noise in those units, a number or a (1, H, W) map, or None for a
            network that is not told.
        passes: planes that go through the network together, one entry a pass.
        original: the picture that entered.
        decode: from network units to those of the picture, plane by plane; None for the same.
        deviation: of the noise of a finished picture, which black and white may clip, in those
            units, a number or a (1, H, W) map; None where it is not known.
        curve: of that noise, where it depends on brightness.
    """

    values: Tensor
    noise_std: NoiseStd
    passes: tuple[tuple[int, ...], ...]
    original: Image
    decode: Callable[[Tensor], Tensor] | None = None
    deviation: NoiseStd = None
    curve: NoiseCurve | None = None

    def crop(self, x: int, y: int, width: int, height: int) -> Domain:
        """Return the rectangle at column x, row y; it must lie inside."""
        rows, columns = slice(y, y + height), slice(x, x + width)
        told, deviation = (
            each[:, rows, columns] if isinstance(each, Tensor) else each
            for each in (self.noise_std, self.deviation)
        )
        return replace(
            self,
            values=self.values[:, rows, columns],
            noise_std=told,
            original=self.original.crop(x, y, width, height),
            deviation=deviation,
        )

    def without_bias(self, restored: Sequence[Tensor]) -> list[Tensor]:
        """Return restored values as if the noise had neither been clipped nor bent by encoding.

        Args:
            restored: one (planes, H, W) result a pass.
        """
        if self.deviation is None:
            return list(restored)
        results = []
        for planes, result in zip(self.passes, restored, strict=True):
            seen = self.values[list(planes)]
            if self.curve and self.curve.clean:
                results.append(self.curve.without_bias(result, seen))
            else:
                results.append(unclipped(result, seen, self.deviation))
        return results

    def leave(self, restored: Sequence[Tensor]) -> Tensor:
        """Return restored pixels in the units of the picture.

        A plane that went through several passes is their mean. A value that the network left
        alone is that of the picture, bit for bit.

        Args:
            restored: one (planes, H, W) result a pass.
        """
        if self.passes == (tuple(range(len(self.values))),):
            mean = restored[0]
        else:
            mean = torch.zeros_like(self.values)
            seen = [0] * len(mean)
            for planes, result in zip(self.passes, restored, strict=True):
                for plane, values in zip(planes, result, strict=True):
                    seen[plane] += 1
                    mean[plane].lerp_(values, 1 / seen[plane])
        if self.decode is None:
            return mean
        for plane, entered, pixels in zip(mean, self.values, self.original.pixels, strict=True):
            torch.where(plane == entered, pixels, self.decode(plane), out=plane)
        return mean


def measure_noise(image: Image, spec: ModelSpec, given: float | NoiseProfile | None) -> Noise:
    """Return the noise of a picture as a network or the Anscombe transform needs it.

    Args:
        image: the whole picture.
        spec: of the network.
        given: what the user states, or None to measure.

    Returns:
        A NoiseProfile for a RAW picture; else the deviation in steps of 0..255, a NoiseCurve where
        it was measured and depends on brightness, or None for a network that is not told.

    Raises:
        UsageError: what is given does not fit the picture or the network.
    """
    if image.layout is Layout.BAYER:
        return mosaic_noise(image, given)
    if isinstance(given, NoiseProfile):
        name = image.metadata.path or "the picture"
        raise UsageError(f"{name}: give the noise of an RGB picture as one number of 0..255")
    if spec.noise_input is NoiseInput.STD_MAP:
        return _noise_to_tell(image.visible().to_srgb().pixels) if given is None else float(given)
    if given is not None:
        raise UsageError("this model finds the noise by itself; leave out --noise")
    return None


def _noise_to_tell(pixels: Tensor) -> float | NoiseCurve:
    measured = noise_by_brightness(pixels)
    return measured if isinstance(measured, NoiseCurve) else 255 * measured


def finished_noise_of(image: Image) -> FinishedNoise:
    """Return the noise that a finished picture shows, in units of its white."""
    return finished_noise(in_usual_range(image.visible()).to_srgb().pixels)


def in_usual_range(image: Image) -> Image:
    """Return a finished picture of which no value lies far beyond black and white.

    A few highlights are cut; where they are many, the ends of the picture become 0 and 1. A mosaic
    and a picture in that range are returned as they are.
    """
    low, high = (float(value) for value in image.pixels.aminmax())
    if image.layout is Layout.BAYER or (low >= -_FAR_BEYOND and high <= 1 + _FAR_BEYOND):
        return image
    black, white = ends(image)
    pixels = (image.pixels - black) / (white - black)
    return image.with_pixels(pixels.clamp_(-_LITTLE_BEYOND, 1 + _LITTLE_BEYOND))


def ends(image: Image) -> tuple[float, float]:
    """Return what is black and white in a finished picture.

    These are 0 and 1, but for a picture of which many values lie far beyond: its ends.
    """
    beyond = (image.pixels < -_FAR_BEYOND) | (image.pixels > 1 + _FAR_BEYOND)
    if beyond.count_nonzero() <= _FEW * beyond.numel():
        return 0.0, 1.0
    low, high = (float(value) for value in image.pixels.aminmax())
    return min(low, 0.0), max(high, 1.0)


def default_model(task: Task, layout: Layout, *, from_camera: bool = False) -> str:
    """Return the bundled model of a task for a layout.

    Args:
        task: names the models.
        layout: of the picture.
        from_camera: whether a finished picture has noise as cameras and JPEG leave it.
    """
    own = task.default_bayer_model if layout is Layout.BAYER else None
    if from_camera:
        own = task.default_photo_model
    elif layout is Layout.GRAY:
        own = task.default_gray_model
    return own if own in bundled_cards() else task.default_model


def cut_off(image: Image) -> tuple[float | None, ...]:
    """Return the least value of each plane of a mosaic, None where it does not cut off the noise.

    Args:
        image: the whole picture.
    """
    levels = []
    for plane in image.pixels:
        least = float(plane.min())
        often = (plane == least).float().mean() > _CLIPPED_SHARE
        levels.append(least if least <= 0 and often else None)
    return tuple(levels)


def unclipped_mosaic(
    pixels: Tensor, noisy: Tensor, noise: NoiseProfile, cut: tuple[float | None, ...]
) -> Tensor:
    """Return restored planes as if their noise had not been cut off.

    Args:
        pixels: (4, H, W) linear.
        noisy: (4, H, W) what they were restored from.
        noise: of it.
        cut: where, from cut_off.
    """
    planes = []
    for plane, seen, least in zip(pixels, noisy, cut, strict=True):
        if least is not None:
            std = (noise.shot * plane.clamp_min(0) + noise.read**2).sqrt_()
            plane = unclipped(plane[None], seen[None], std[None], black=least, white=None)[0]
        planes.append(plane)
    return torch.stack(planes)


def without_hot_pixels(image: Image, given: float | NoiseProfile | None) -> Image:
    """Return a mosaic without its hot and dead pixels, and other pictures as they are.

    Args:
        image: the whole picture.
        given: its noise, if the user states it.
    """
    if image.layout is not Layout.BAYER:
        return image
    noise = given if isinstance(given, NoiseProfile) else image.metadata.noise
    if noise is None:
        seen = cut_off(image) == (None,) * len(image.pixels)
        noise = NoiseProfile(0, 0) if seen else mosaic_noise(image, None)
    return image.with_pixels(repaired(image.pixels, image.cfa, noise.shot, noise.read))


def mosaic_noise(image: Image, given: float | NoiseProfile | None) -> NoiseProfile:
    """Return the profile of the user, of the file where the picture agrees, else an estimate.

    Raises:
        UsageError: what is given is no profile with shot noise.
    """
    if given is not None:
        if not isinstance(given, NoiseProfile) or given.shot <= 0:
            name = image.metadata.path or "the picture"
            raise UsageError(f"{name}: give the noise of a RAW picture as SHOT,READ, shot above 0")
        return given
    shot, read = estimate_noise_profile(image.pixels)
    estimate = NoiseProfile(max(shot, LEAST_SHOT), read)
    stated = image.metadata.noise
    if stated is None or stated.shot <= 0:
        return estimate
    level = image.pixels.mean().clamp_min(0).item()
    ratio = _deviation(stated, level) / max(_deviation(estimate, level), 1e-12)
    return stated if 1 / _TRUSTED_RATIO <= ratio <= _TRUSTED_RATIO else estimate


def _deviation(noise: NoiseProfile, level: float) -> float:
    return float((noise.shot * level + noise.read**2) ** 0.5)


def enter(image: Image, card: ModelCard, noise: Noise) -> Domain:
    """Bring a picture into the domain of a card.

    A mosaic is stabilised by the generalised Anscombe transform and scaled so that black is 0 and
    white 1; a network for mosaics sees it whole, one for colour (R, G1, B) and (R, G2, B). Restored
    values are means of stabilised ones, so the way back is the unbiased inverse.

    Args:
        image: the picture, or the part of it that is restored.
        card: of the model.
        noise: from measure_noise.

    Raises:
        UsageError: the model cannot take pictures of this layout.
    """
    passes = network_passes(image.layout, card)
    if isinstance(noise, NoiseProfile):
        return _stabilised(image, noise, passes)
    deviation: NoiseStd
    curve = noise if isinstance(noise, NoiseCurve) else None
    if isinstance(noise, NoiseCurve):
        deviation = noise.around(image.to_srgb().pixels)
    else:
        deviation = None if noise is None else noise / 255
    told = deviation
    if told is not None and image.layout is Layout.GRAY and card.layout == Layout.RGB.value:
        told = told * _GRAY_AS_COLOUR
    if image.transfer.value == card.transfer:
        return Domain(image.pixels, told, passes, image, None, deviation, curve)
    pixels = image.pixels
    if image.transfer is Transfer.LINEAR:
        return Domain(linear_to_srgb(pixels), told, passes, image, srgb_to_linear, deviation, curve)
    return Domain(srgb_to_linear(pixels), told, passes, image, linear_to_srgb, deviation)


def network_passes(layout: Layout, card: ModelCard) -> tuple[tuple[int, ...], ...]:
    """Return which planes of a picture go through the network together.

    Raises:
        UsageError: the model cannot take pictures of this layout.
    """
    planes = range(layout.planes)
    if card.layout == layout.value:
        return (tuple(planes),)
    if card.layout == Layout.GRAY.value:
        return tuple((plane,) for plane in planes)
    try:
        return _BORROWED[layout, Layout(card.layout)]
    except KeyError:
        raise UsageError(
            f"{card.name} restores {card.layout} pictures, not {layout.value}; choose another model"
        ) from None


def _stabilised(image: Image, noise: NoiseProfile, passes: tuple[tuple[int, ...], ...]) -> Domain:
    stabiliser = Stabiliser(noise.shot, noise.read)
    values = torch.stack([stabiliser.encode(plane) for plane in image.pixels])
    return Domain(values, stabiliser.std, passes, image, stabiliser.decode)
