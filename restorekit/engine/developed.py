"""Noisy and RAW pictures for what expects developed ones without noise: rain and blur."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from restorekit.engine.domain import mosaic_noise
from restorekit.engine.picture import RestoreOptions, RestoreReport, restore_image
from restorekit.engine.reporter import Reporter
from restorekit.hub import LoadedModel
from restorekit.image import Image, NoiseProfile
from restorekit.io import raw
from restorekit.ops.color import linear_to_srgb

NEGLIGIBLE = 1.0
NOISY = 4 / 255
"""Deviation of the noise up to which networks for rain and blur were trained."""
_EVERY = 4

Restore = Callable[[Image, RestoreOptions], tuple[Image, RestoreReport]]


def restore_developed(
    mosaic: Image,
    denoiser: LoadedModel | None,
    restore: Restore,
    options: RestoreOptions,
    reporter: Reporter,
) -> tuple[Image, RestoreReport]:
    """Denoise a mosaic where its noise is not negligible, develop it, and restore the picture.

    Args:
        mosaic: the packed planes of a RAW file.
        denoiser: of the mosaic; None to leave its noise.
        restore: restores the developed picture.
        options: how; the noise is that of the mosaic. At a strength below 1 the result is mixed
            with the mosaic as it was, developed.
        reporter: told of the tiles.

    Raises:
        RestorekitError: as restore_image and raw.develop say.
    """
    whole = replace(options, strength=1.0)
    cleaned, first = mosaic, None
    if denoiser is not None:
        noise = mosaic_noise(mosaic, options.noise)
        if shown_noise(mosaic, noise) >= NEGLIGIBLE:
            cleaned, first = restore_image(mosaic, denoiser, whole, reporter)
    restored, report = restore(raw.develop(cleaned), replace(whole, noise=None))
    if options.strength < 1:
        restored = _mixed(raw.develop(mosaic), restored, options)
    if denoiser is None or first is None:
        return restored, report
    return restored, _joined(first, report, denoiser)


def restore_denoised(
    image: Image,
    denoiser: LoadedModel,
    restore: Restore,
    options: RestoreOptions,
    reporter: Reporter,
) -> tuple[Image, RestoreReport]:
    """Denoise a finished picture and restore it.

    Args:
        image: RGB or grey.
        denoiser: of such pictures; the noise is measured.
        restore: restores the denoised picture.
        options: how. At a strength below 1 the result is mixed with the picture as it was.
        reporter: told of the tiles.

    Raises:
        RestorekitError: as restore_image says.
    """
    whole = replace(options, strength=1.0)
    cleaned, first = restore_image(image, denoiser, replace(whole, crop=None), reporter)
    restored, report = restore(cleaned, whole)
    if options.strength < 1:
        restored = _mixed(image, restored, options)
    return restored, _joined(first, report, denoiser)


def _mixed(before: Image, restored: Image, options: RestoreOptions) -> Image:
    """Return the restored picture, or crop, mixed with the whole one before by the strength."""
    if options.crop is not None:
        before = before.crop(*options.crop)
    return restored.with_pixels(torch.lerp(before.pixels, restored.pixels, options.strength))


def _joined(first: RestoreReport, report: RestoreReport, denoiser: LoadedModel) -> RestoreReport:
    """Return the report of a picture that was denoised before it was restored."""
    return replace(
        report,
        fallbacks=(*first.fallbacks, *report.fallbacks),
        noise=first.noise,
        seconds_model=first.seconds_model + report.seconds_model,
        warnings=(*first.warnings, *report.warnings),
        denoised_by=denoiser.card.name,
    )


def shown_noise(mosaic: Image, noise: NoiseProfile) -> float:
    """Return the deviation of a mosaic's noise as developing shows it, in steps of 0..255.

    White balance and the transfer curve count, as the mean over the picture; the mixing of colours
    does not.
    """
    red, green, blue = mosaic.metadata.white_balance or (1.0, 1.0, 1.0)
    gains = torch.tensor((red, green, green, blue)).view(4, 1, 1)
    light = mosaic.pixels[:, ::_EVERY, ::_EVERY].clamp_min(0)
    deviation = (noise.shot * light + noise.read**2).sqrt() * gains
    light = light * gains
    shown = linear_to_srgb(light + deviation) - linear_to_srgb(light)
    return 255 * float(shown.square().mean().sqrt())
