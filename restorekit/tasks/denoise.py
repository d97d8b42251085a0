"""Remove sensor noise from a single picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from restorekit.tasks.task import Task

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from restorekit.models.registry import Batch

FACTOR_SHARE = 0.8
FACTORS = 0.25, 7.0
"""Share of RAW pictures whose noise is weaker or stronger than sample_noise_levels has it, and the
range of the factors of its deviation."""
CLEAN_SHARE = 0.15
STRONGEST = 4.0
"""Share of photographs by cameras that have no noise, and how many times stronger than usual it is
at most in the others."""
WHITE_SHARE = 0.35
LARGEST_WHITE = 40 / 255
"""Share of photographs with white noise, and its largest deviation."""


def gaussian(
    clean: Tensor, generator: Generator, sigma: tuple[float, float] = (0.0, 75.0)
) -> Batch:
    """Add white Gaussian noise of a deviation drawn for every picture from a range in 0-255."""
    import torch

    from restorekit.degradations import gaussian_noise
    from restorekit.models.registry import Batch

    low, high = (bound / 255 for bound in sigma)
    std = torch.rand(len(clean), 1, 1, 1, generator=generator) * (high - low) + low
    return Batch(gaussian_noise(clean, std, generator), clean, std)


def raw(clean: Tensor, generator: Generator) -> Batch:
    """Photograph pictures by a Bayer sensor, and stabilise its noise as for any RAW file.

    Mosaics of half the size, (B, 4, H/2, W/2), of cameras, shot and read noise that are drawn for
    every picture; the clean ones are what the way back turns into the noise-free mosaic.
    """
    import torch

    from restorekit.degradations import (
        mosaic,
        sample_camera,
        sample_noise_levels,
        shot_read_noise,
        unprocess,
    )
    from restorekit.models.registry import Batch
    from restorekit.ops.anscombe import Stabiliser

    batch = (len(clean),)
    planes = mosaic(unprocess(clean, sample_camera(batch, generator)))
    shots, reads = sample_noise_levels(batch, generator)
    changed, exponent = torch.rand(2, *batch, generator=generator)
    low, high = FACTORS
    factors = torch.where(changed < FACTOR_SHARE, low * (high / low) ** exponent, 1.0)
    noisy, truths, stds = torch.empty_like(planes), torch.empty_like(planes), list[float]()
    for number, (shot, read, factor) in enumerate(zip(shots, reads, factors, strict=True)):
        profile = float(shot * factor**2), float(read * factor)
        stabiliser = Stabiliser(*profile)
        noisy[number] = stabiliser.encode(shot_read_noise(planes[number], *profile, generator))
        truths[number] = stabiliser.encode_mean(planes[number])
        stds.append(stabiliser.std)
    return Batch(noisy, truths, torch.tensor(stds).view(-1, 1, 1, 1))


def photo(clean: Tensor, generator: Generator) -> Batch:
    """Take pictures by cameras that smooth the noise; some have white noise in its place.

    The deviation of each is that of its noise over all.
    """
    import torch

    from restorekit.degradations import grainy, photographed
    from restorekit.models.registry import Batch

    truths = clean[..., : clean.shape[-2] // 2 * 2, : clean.shape[-1] // 2 * 2].clone()
    noisy = torch.empty_like(truths)
    for number, picture in enumerate(truths):
        white, strength = torch.rand(2, generator=generator).tolist()
        if white < WHITE_SHARE:
            noisy[number] = grainy(picture, LARGEST_WHITE * strength, generator)
        else:
            noisy[number], truths[number] = photographed(picture, generator, CLEAN_SHARE, STRONGEST)
    return Batch(noisy, truths, (noisy - truths).std((1, 2, 3), keepdim=True))


TASK = Task(
    name="denoise",
    summary="Remove noise from photographs, RAW or RGB.",
    default_model="kbnet_xs.gaussian",
    degradations={"gaussian": gaussian, "raw": raw, "photo": photo},
    default_bayer_model="kbnet_xs.raw",
    default_photo_model="kbnet_xs.photo",
    sigma_degradations=("gaussian",),
    takes_noise_level=True,
    takes_mosaics=True,
)
