"""Restore one picture in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lcm
from pathlib import Path

import torch

from restorekit.engine.domain import (
    Noise,
    cut_off,
    ends,
    enter,
    in_usual_range,
    measure_noise,
    unclipped_mosaic,
    without_hot_pixels,
)
from restorekit.engine.guard import BLOCK, guarded
from restorekit.engine.inference import Inference
from restorekit.engine.reporter import Reporter, SilentReporter
from restorekit.errors import DecodeError, UsageError
from restorekit.hub import LoadedModel
from restorekit.image import Image, Layout, Metadata, NoiseProfile
from restorekit.io import raw
from restorekit.models.registry import ModelSpec
from restorekit.ops.fill import filled
from restorekit.tasks import TASKS
from restorekit.tiling import Box

_SEEN_BY_DEMOSAIC = 8
_MANY_HOT = 1e-4
"""Share of hot pixels that a sensor in order does not have."""
_NOISELESS = "it shows no noise, so that it stays as it is; --noise SIGMA takes out what you see"


@dataclass(frozen=True)
class RestoreOptions:
    """Say how pictures are restored.

    Attributes:
        model: bundled name, folder or Hub repository; None for the model of the task.
        device: auto, cpu, cuda, cuda:N or mps.
        dtype: auto, bfloat16, float16 or float32.
        tile: largest side of a tile in pixels; None to choose it from free memory.
        noise: deviation in steps of 0..255, the profile of a RAW picture, or None to measure it.
        strength: 0 gives the input back, 1 is the full effect.
        crop: x, y, width and height, in pixels of the upright picture, of the part to restore.
        denoise: whether the mosaic of a RAW picture is denoised first, where a task restores
            developed pictures.
        psf: picture of a known blur that is to be undone, in place of the task's network.
    """

    model: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    tile: int | None = None
    noise: float | NoiseProfile | None = None
    strength: float = 1.0
    crop: tuple[int, int, int, int] | None = None
    denoise: bool = True
    psf: Path | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range.

        Raises:
            UsageError: one is.
        """
        if not 0 <= self.strength <= 1:
            raise UsageError(f"the strength {self.strength} is not between 0 and 1")
        if self.tile is not None and self.tile < 1:
            raise UsageError(f"a tile has at least one pixel, not {self.tile}")
        if isinstance(self.noise, float | int) and not 0 <= self.noise <= 255:
            raise UsageError(f"the noise {self.noise} is not between 0 and 255")
        if self.crop is not None and min(self.crop[2:]) < 1:
            raise UsageError(f"the crop {','.join(map(str, self.crop))} is empty")


@dataclass(frozen=True)
class RestoreReport:
    """Say how a picture was restored.

    Attributes:
        device: where the network ran.
        dtype: precision of its inner values.
        tile: largest side of a tile.
        fallbacks: what had to give way, in plain words.
        noise: what the network was told.
        seconds_model: time in the network and its tiles.
        warnings: what the user should know.
        denoised_by: model that denoised the picture first, if one did; the noise is what it was
            told.
    """

    device: str
    dtype: str
    tile: int
    fallbacks: tuple[str, ...]
    noise: Noise
    seconds_model: float
    warnings: tuple[str, ...] = ()
    denoised_by: str | None = None


_DEFAULTS = RestoreOptions()
_SILENT = SilentReporter()


def restore_image(
    image: Image,
    model: LoadedModel,
    options: RestoreOptions = _DEFAULTS,
    reporter: Reporter = _SILENT,
) -> tuple[Image, RestoreReport]:
    """Restore a picture and keep its transfer, layout, alpha and metadata.

    A crop is restored as in the whole picture: its noise and what the network pools are those of
    the whole, and what lies around it is seen. Of an RGB or grey picture the crop is returned; a
    mosaic comes back whole, restored where the crop needs it, since only a whole mosaic can be
    developed. What a network does that is not told how much is wrong passes the guard.

    A grey picture that is stored as RGB stays grey. Colours that are wholly transparent stay, and
    show nowhere. A few values far beyond black and white keep what they have beyond; where they are
    many, all are scaled to lie between, and back. Hot and dead pixels of a mosaic are repaired
    before its noise is measured. Where the noise is 0 the picture stays as it is, and where the
    network changes nothing its pixels do.

    Args:
        image: RGB, grey, or the packed planes of a mosaic.
        model: network and card; the network moves to the device.
        options: how; its model, its psf and whether to denoise first are not looked at.
        reporter: told of the tiles.

    Raises:
        DecodeError: the picture holds infinite values or no numbers.
        UsageError: the model, the noise or the crop does not fit the picture.
        UnavailableError: the named device is not there.
        MemoryExhaustedError: memory ran out after every fallback.
    """
    check_finite(image)
    image = image.with_pixels(image.pixels.float())
    if image.alpha is None or not 0 < (image.alpha == 0).sum() < image.alpha.numel():
        return _restore(image, model, options, reporter)
    going_on = image.with_pixels(filled(image.pixels, image.alpha > 0))
    restored, report = _restore(going_on, model, options, reporter)
    part = image.crop(*stored_part(image, options.crop))
    assert part.alpha is not None
    return restored.with_pixels(torch.where(part.alpha > 0, restored.pixels, part.pixels)), report


def _restore(
    image: Image, model: LoadedModel, options: RestoreOptions, reporter: Reporter
) -> tuple[Image, RestoreReport]:
    """Restore a picture whose colours go on where it is transparent."""
    if image.layout is Layout.RGB and (image.pixels == image.pixels[:1]).all():
        grey = replace(image, pixels=image.pixels[:1], layout=Layout.GRAY)
        restored, report = _restore(grey, model, options, reporter)
        pixels = restored.pixels.expand(3, -1, -1).contiguous()
        return replace(restored, pixels=pixels, layout=Layout.RGB), report
    usual = in_usual_range(image)
    if usual is not image:
        return _restore_far_beyond(image, usual, model, options, reporter)
    task = TASKS.get(model.card.task)
    if image.layout is Layout.BAYER and task is not None and not task.takes_mosaics:
        raise UsageError(f"{model.card.name} restores developed pictures; develop the RAW first")
    network = model.model
    inference = Inference(network, options.device, options.dtype, options.tile, reporter)
    sound = without_hot_pixels(image, options.noise)
    noise = measure_noise(sound, network.spec, options.noise)
    cut = cut_off(sound) if isinstance(noise, NoiseProfile) else ()
    x, y, width, height = stored_part(image, options.crop)
    box = _with_surroundings((x, y, width, height), image, network.spec)
    rectangle = box.x, box.y, box.width, box.height
    part = image.crop(*rectangle)
    pixels = part.pixels
    if noise != 0:
        domain = enter(sound, model.card, noise)
        results = [inference.run(domain.values, p, domain.noise_std, box) for p in domain.passes]
        domain = domain.crop(*rectangle)
        results = domain.without_bias(results)
        if task is not None and not task.takes_noise_level:
            seen = (domain.values[list(planes)] for planes in domain.passes)
            results = [guarded(*pair) for pair in zip(seen, results, strict=True)]
        pixels = domain.leave(results)
        if isinstance(noise, NoiseProfile):
            entered = domain.original.pixels
            pixels = unclipped_mosaic(pixels, entered, noise, cut)
            pixels = torch.where(pixels == entered, part.pixels, pixels)
    if options.strength < 1:
        pixels = torch.lerp(part.pixels, pixels, options.strength)
    inner = x - box.x, y - box.y, width, height
    warnings = _many_repaired(part.crop(*inner), sound.crop(x, y, width, height))
    if noise == 0 and options.noise is None:
        warnings = (*warnings, _NOISELESS)
    report = report_of(inference, noise, warnings)
    image = replace(image, metadata=_less_noise(image.metadata, 1 - options.strength))
    restored = replace(part, pixels=pixels, metadata=image.metadata).crop(*inner)
    if options.crop is None or image.layout is not Layout.BAYER:
        return restored, report
    mosaic = image.pixels.clone()
    mosaic[:, y : y + height, x : x + width] = restored.pixels
    return image.with_pixels(mosaic), report


def _restore_far_beyond(
    image: Image, usual: Image, model: LoadedModel, options: RestoreOptions, reporter: Reporter
) -> tuple[Image, RestoreReport]:
    """Restore a picture of which values lie far beyond black and white, usual where they do not."""
    restored, report = _restore(usual, model, options, reporter)
    black, white = ends(image)
    if (black, white) != (0, 1):
        note = f"its values reach from {black:.3g} to {white:.3g}, which were taken for 0 and 1"
        report = replace(report, warnings=(*report.warnings, note))
    x, y, width, height = stored_part(image, options.crop)
    part, usual = (whole.crop(x, y, width, height) for whole in (image, usual))
    beyond = (part.pixels - black) / (white - black) - usual.pixels
    pixels = (restored.pixels + beyond) * (white - black) + black
    left_alone = restored.pixels == usual.pixels
    return restored.with_pixels(torch.where(left_alone, part.pixels, pixels)), report


def _many_repaired(image: Image, sound: Image) -> tuple[str, ...]:
    """Return what is to be said of a mosaic's repair, which is nothing where it is the usual."""
    if image.layout is not Layout.BAYER:
        return ()
    count = int((sound.pixels != image.pixels).sum())
    usual = count <= _MANY_HOT * image.pixels.numel()
    return () if usual else (f"hot or dead pixels repaired: {count}",)


def check_finite(image: Image) -> None:
    """Refuse a picture that holds something else than numbers.

    Raises:
        DecodeError: it does.
    """
    if not torch.stack(image.pixels.aminmax()).isfinite().all():
        name = image.metadata.path or "the picture"
        raise DecodeError(f"{name}: some pixels are infinite or no numbers; repair them first")


def report_of(inference: Inference, noise: Noise, warnings: tuple[str, ...] = ()) -> RestoreReport:
    """Return what is to be said of a network's work on a picture."""
    return RestoreReport(
        device=str(inference.device),
        dtype=str(inference.dtype).removeprefix("torch."),
        tile=inference.tile,
        fallbacks=inference.fallbacks,
        noise=noise,
        seconds_model=inference.seconds,
        warnings=warnings,
    )


def _less_noise(metadata: Metadata, left: float) -> Metadata:
    """Scale the deviation that a file states by the share of its noise that is left."""
    if metadata.noise is None:
        return metadata
    shot, read = metadata.noise.shot * left**2, metadata.noise.read * left
    return replace(metadata, noise=NoiseProfile(shot, read) if left else None)


def stored_part(image: Image, crop: tuple[int, int, int, int] | None) -> tuple[int, int, int, int]:
    """Return x, y, width and height of the stored planes that a crop of the upright picture needs.

    A developed crop also sees the mosaic around it; where developing stretches it, all of it.

    Raises:
        UsageError: the crop does not lie inside the picture.
        DecodeError: the file of the mosaic cannot be read any more.
    """
    whole = 0, 0, image.width, image.height
    if crop is None:
        return whole
    turned = image.metadata.orientation >= 5
    scale, margin = (2, _SEEN_BY_DEMOSAIC) if image.layout is Layout.BAYER else (1, 0)
    upright = _upright_size(image, scale)
    x, y, width, height = crop
    if min(x, y) < 0 or x + width > upright[0] or y + height > upright[1]:
        name = image.metadata.path or "the picture"
        raise UsageError(
            f"{name}: the crop {x},{y},{width},{height} does not lie inside "
            f"its {upright[0]} x {upright[1]} pixels"
        )
    stored = upright[::-1] if turned else upright
    if (stored[0] // scale, stored[1] // scale) != (image.width, image.height):
        return whole
    if turned:
        x, y, width, height = y, x, height, width
    if image.metadata.orientation in (2, 3, 7, 8):
        x = stored[0] - x - width
    if image.metadata.orientation in (3, 4, 6, 7):
        y = stored[1] - y - height
    left, right = _cells(x - margin, x + width + margin, scale, image.width)
    top, bottom = _cells(y - margin, y + height + margin, scale, image.height)
    return left, top, right - left, bottom - top


def _with_surroundings(part: tuple[int, int, int, int], image: Image, spec: ModelSpec) -> Box:
    """Return a part and what a network sees around it, on the grid of the network and the guard."""
    x, y, width, height = part
    margin, grid = spec.overlap, lcm(spec.multiple_of, BLOCK)
    top, left = (max(start - margin, 0) // grid * grid for start in (y, x))
    bottom, right = (-(-(end + margin) // grid) * grid for end in (y + height, x + width))
    return Box(top, left, min(bottom, image.height) - top, min(right, image.width) - left)


def _upright_size(image: Image, scale: int) -> tuple[int, int]:
    if image.layout is Layout.BAYER and image.metadata.path is not None:
        return raw.developed_size(image)
    width, height = image.width * scale, image.height * scale
    return (height, width) if image.metadata.orientation >= 5 else (width, height)


def _cells(start: int, end: int, scale: int, count: int) -> tuple[int, int]:
    """Return the first cell, and the one after the last, that hold the pixels of a range."""
    return max(start // scale, 0), min(-(-end // scale), count)
