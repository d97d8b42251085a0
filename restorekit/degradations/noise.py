"""White Gaussian noise, and the shot and read noise of sensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor


def gaussian_noise(clean: Tensor, std: Tensor | float, generator: Generator) -> Tensor:
    """Add white Gaussian noise, unclipped.

    Args:
        clean: picture or batch in [0, 1].
        std: deviation in units of white, a number or a tensor that broadcasts over the picture.
        generator: source of the noise.
    """
    noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    return clean + noise * std


def shot_read_noise(
    clean: Tensor, shot: Tensor | float, read: Tensor | float, generator: Generator
) -> Tensor:
    """Add the Gaussian model of sensor noise, variance shot * clean + read**2, unclipped.

    Args:
        clean: linear picture, black 0, white 1.
        shot: variance a unit of signal, a number or a tensor that broadcasts over the picture.
        read: deviation at black, likewise.
        generator: source of the noise.
    """
    std = (shot * clean.clamp_min(0) + read**2).sqrt()
    return gaussian_noise(clean, std, generator)


def sample_noise_levels(batch: Sequence[int], generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw shot and read noise apart from each other, over all levels that bursts are made with.

    These are the ranges of kernel prediction networks (Mildenhall et al., CVPR 2018): shot
    log-uniform in [1e-4, 1e-2], read log-uniform in [1e-3, 10**-1.5].

    Args:
        batch: (B,), or () for one picture.
        generator: source of the draws.

    Returns:
        shot and read, each (*batch, 1, 1, 1), as shot_read_noise takes them.
    """
    shot_draw, read_draw = torch.rand(2, *batch, 1, 1, 1, generator=generator)
    return 10 ** (2 * shot_draw - 4), 10 ** (1.5 * read_draw - 3)


def sample_sensor_noise_levels(batch: Sequence[int], generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw shot and read noise that grow together, as on the sensors of real cameras.

    Brooks et al. (CVPR 2019) fitted this to the Darmstadt noise dataset: log shot uniform between
    log 1e-4 and log 0.012, log read variance normal around 2.18 log shot + 1.2 with deviation 0.26.

    Args:
        batch: (B,), or () for one picture.
        generator: source of the draws.

    Returns:
        shot and read, each (*batch, 1, 1, 1), as shot_read_noise takes them.
    """
    shape = (*batch, 1, 1, 1)
    low, high = math.log(1e-4), math.log(0.012)
    log_shot = low + (high - low) * torch.rand(shape, generator=generator)
    log_variance = 2.18 * log_shot + 1.2 + 0.26 * torch.randn(shape, generator=generator)
    return log_shot.exp(), (log_variance / 2).exp()
