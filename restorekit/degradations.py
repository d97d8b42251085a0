"""How pictures get worse: noise models for training and for tests."""

from __future__ import annotations

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


def shot_read_noise(clean: Tensor, shot: float, read: float, generator: Generator) -> Tensor:
    """Add the Gaussian model of sensor noise, variance shot * clean + read**2, unclipped.

    Args:
        clean: linear picture, black 0, white 1.
        shot: variance a unit of signal.
        read: deviation at black.
        generator: source of the noise.
    """
    std = (shot * clean.clamp_min(0) + read**2).sqrt()
    return gaussian_noise(clean, std, generator)
