"""Undo a blur whose point spread function is known.

Half-quadratic splitting with a denoiser as prior: a step towards the picture that was seen, then
the denoiser, told less noise from turn to turn (Zhang et al., "Plug-and-Play Image Restoration
with Deep Denoiser Prior", 2021, arXiv:2008.13751).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from restorekit.engine.domain import enter, measure_noise
from restorekit.engine.inference import Inference
from restorekit.engine.picture import (
    RestoreOptions,
    RestoreReport,
    check_finite,
    report_of,
    stored_part,
)
from restorekit.engine.reporter import Reporter, SilentReporter
from restorekit.errors import UsageError
from restorekit.hub import LoadedModel
from restorekit.image import Image, Layout, Transfer
from restorekit.models.registry import NoiseInput
from restorekit.ops.deconvolution import (
    close_seam,
    fast_length,
    pull_seen,
    transfer_function,
)
from restorekit.ops.noise_curve import NoiseCurve
from restorekit.ops.orientation import stored

TURNS = 8
FIRST_NOISE = 49.0
"""What the denoiser is told in the first turn, in steps of 0..255; in the last, the noise."""
ROUNDS = 4
"""In which what lies beyond the edges settles, in each turn."""
PRIOR_WEIGHT = 0.5
"""Weight of the prior where the denoiser is told the noise; the best on blurred photographs."""
LEAST_STATED, LEAST_MEASURED, LEAST_COMPRESSED = 0.3, 1.5, 3.0
"""Noise that any file has by its 8 bits, and what is assumed at least unless noise is stated: the
error of a point spread function and compression count as noise and are not seen in flat places."""
COMPRESSED = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif")
GAMMA = 1.4
"""Between linear light, where noise that was deconvolved is even, and the encoding that the
denoiser was trained in; better than both by 0.5 dB on blurred photographs."""
CLIPPED, BRIGHTEST = 0.98, 10.0
"""Linear light above which a pixel only says how bright it is at least, and what it may become."""

_DEFAULTS = RestoreOptions()
_SILENT = SilentReporter()


def deconvolve(
    image: Image,
    psf: Tensor,
    prior: LoadedModel,
    options: RestoreOptions = _DEFAULTS,
    reporter: Reporter = _SILENT,
) -> tuple[Image, RestoreReport]:
    """Sharpen a picture that was blurred alike everywhere, in linear light.

    The Fourier transform works on the whole picture in host memory, the denoiser on tiles. A crop
    is restored with its surroundings and alone returned.

    Args:
        image: RGB or grey.
        psf: (K, L) of the upright picture, odd sides, of sum 1.
        prior: a denoiser that is told the noise; its network moves to the device.
        options: how; its noise is that of the blurred picture, its model is not looked at.
        reporter: told of the tiles of every turn.

    Raises:
        DecodeError: the picture holds infinite values or no numbers.
        UsageError: the point spread function is larger than the picture, or the model is no such
            denoiser, or the noise or the crop does not fit the picture.
        UnavailableError: the named device is not there.
        MemoryExhaustedError: memory ran out after every fallback.
    """
    check_finite(image)
    psf = stored(psf, image.metadata.orientation)
    _check_fit(image, psf, prior)
    measured = measure_noise(image, prior.model.spec, options.noise)
    noise = 255 * measured.overall if isinstance(measured, NoiseCurve) else cast(float, measured)
    noise = max(noise, LEAST_STATED if options.noise is not None else _least_noise(image))
    rows, columns = psf.shape
    inference = Inference(prior.model, options.device, options.dtype, options.tile, reporter)
    x, y, width, height = stored_part(image, options.crop)
    across, down = columns + prior.model.spec.overlap, rows + prior.model.spec.overlap
    left, top = max(x - across, 0), max(y - down, 0)
    right, bottom = min(x + width + across, image.width), min(y + height + down, image.height)
    around = image.crop(left, top, right - left, bottom - top).to_linear()

    def denoise(light: Tensor, told: float) -> Tensor:
        values = light.clamp_min(0) ** (1 / GAMMA)
        shown = replace(around, pixels=values, transfer=Transfer(prior.card.transfer), alpha=None)
        domain = enter(shown, prior.card, told)
        results = [inference.run(domain.values, p, domain.noise_std) for p in domain.passes]
        return domain.leave(results).clamp_min(0) ** GAMMA

    restored = around.with_pixels(_sharpened(around.pixels, psf, noise, denoise))
    if image.transfer is Transfer.SRGB:
        restored = restored.to_srgb()
    restored = restored.crop(x - left, y - top, width, height)
    if options.strength < 1:
        before = image.crop(x, y, width, height).pixels
        restored = restored.with_pixels(torch.lerp(before, restored.pixels, options.strength))
    return restored, report_of(inference, noise)


def _least_noise(image: Image) -> float:
    path = image.metadata.path
    compressed = path is not None and path.suffix.lower() in COMPRESSED
    return LEAST_COMPRESSED if compressed else LEAST_MEASURED


def _check_fit(image: Image, psf: Tensor, prior: LoadedModel) -> None:
    name = image.metadata.path or "the picture"
    rows, columns = psf.shape
    if prior.model.spec.noise_input is not NoiseInput.STD_MAP:
        raise UsageError(
            f"{prior.card.name} is no prior for a known blur; name a denoiser that is told the "
            "noise, such as kbnet_xs.gaussian, or leave out --model"
        )
    if image.layout is Layout.BAYER:
        raise UsageError(f"{name}: a blur is undone in developed pictures; develop the RAW first")
    if rows > image.height or columns > image.width:
        raise UsageError(
            f"{name}: a PSF of {columns} x {rows} pixels is larger than the picture of "
            f"{image.width} x {image.height}; cut its black borders off"
        )


def _sharpened(
    seen: Tensor, psf: Tensor, noise: float, denoise: Callable[[Tensor, float], Tensor]
) -> Tensor:
    """Return the sharp picture of a blurred one, (C, H, W) in linear light.

    What lies beyond the edges, and how bright clipped lights are, is told by the sharp picture.
    """
    height, width = seen.shape[-2:]
    rows, columns = fast_length(height + len(psf) - 1), fast_length(width + len(psf.T) - 1)
    transfer = transfer_function(psf, rows, columns)
    beyond = (0, columns - width, 0, rows - height)
    clipped = (seen >= CLIPPED) & (seen <= 1)
    known, least = F.pad(~clipped, beyond), F.pad(seen * clipped, beyond)
    brightest = max(BRIGHTEST, float(seen.amax()))
    observed = guess = close_seam(seen, rows, columns)
    first = max(FIRST_NOISE, noise)
    for turn in range(TURNS):
        told = first * (noise / first) ** (turn / (TURNS - 1))
        weight = PRIOR_WEIGHT * (noise / told) ** 2
        sharp = pull_seen(observed, known, least, guess, transfer, weight, ROUNDS)
        guess = denoise(sharp.clamp(0, brightest), told)
    return guess[..., :height, :width].clamp(max=max(1.0, float(seen.amax())))
