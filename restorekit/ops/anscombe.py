"""The generalised Anscombe transform, in which the noise of a sensor is white."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

NEWTON_STEPS = 8


@dataclass(frozen=True)
class Stabiliser:
    """Encode linear values so that their noise has the same deviation everywhere.

    Black is 0 and white is 1 in both.

    Attributes:
        shot: variance per unit of signal, above 0.
        read: deviation in black.
    """

    shot: float
    read: float

    @cached_property
    def _bounds(self) -> tuple[float, float]:
        black, white = anscombe(torch.tensor([0.0, 1.0]), self.shot, self.read).tolist()
        return black, white

    @property
    def std(self) -> float:
        """Return the deviation of the noise of encoded values."""
        black, white = self._bounds
        return 1 / (white - black)

    def encode(self, linear: Tensor) -> Tensor:
        """Encode noisy values."""
        return self._scaled(anscombe(linear, self.shot, self.read))

    def encode_mean(self, linear: Tensor) -> Tensor:
        """Encode what noisy values are on average, so that decode gives it back."""
        return self._scaled(anscombe_of_mean(linear, self.shot, self.read))

    def decode(self, encoded: Tensor) -> Tensor:
        """Decode means of encoded noisy values."""
        black, white = self._bounds
        stabilised = encoded * (white - black) + black
        return anscombe_inverse_unbiased(stabilised, self.shot, self.read)

    def _scaled(self, stabilised: Tensor) -> Tensor:
        black, white = self._bounds
        return stabilised.sub_(black).div_(white - black)


def anscombe(signal: Tensor, shot: float, read: float) -> Tensor:
    """Give noise of variance shot * signal + read**2 unit variance at every level.

    This is the generalised Anscombe transform (Starck, Murtagh & Bijaoui, 1998).

    Args:
        signal: linear values of any shape; those below black are allowed.
        shot: variance per unit of signal, above 0.
        read: deviation in black.

    Raises:
        ValueError: shot is not above 0.
    """
    if shot <= 0:
        raise ValueError("the Anscombe transform needs shot noise above 0")
    variance = shot * signal + 0.375 * shot**2 + read**2
    return variance.clamp_min(0).sqrt() * (2 / shot)


def anscombe_inverse_unbiased(stabilised: Tensor, shot: float, read: float) -> Tensor:
    """Return the linear signal whose noisy values have the given mean after anscombe.

    This is the closed-form approximation of the exact unbiased inverse (Makitalo & Foi, IEEE TIP
    2013). Squaring alone would darken the picture, since the mean of a root is not the root of the
    mean.

    Args:
        stabilised: denoised values of anscombe, any shape.
        shot: variance per unit of signal, above 0.
        read: deviation in black.

    Raises:
        ValueError: shot is not above 0.
    """
    if shot <= 0:
        raise ValueError("the Anscombe transform needs shot noise above 0")
    root = 1.5**0.5
    inverse = 1 / stabilised.clamp_min(root)
    bias = (root / 4) * inverse - 1.375 * inverse**2 + (0.625 * root) * inverse**3 - 0.125
    counts: Tensor = stabilised.clamp_min(root) ** 2 / 4 + bias
    return shot * (counts - (read / shot) ** 2)


def anscombe_of_mean(signal: Tensor, shot: float, read: float) -> Tensor:
    """Return what anscombe_inverse_unbiased gives back as the signal, found by Newton's method.

    Args:
        signal: linear means of noisy values, any shape; those below black count as black.
        shot: variance per unit of signal, above 0.
        read: deviation in black.

    Raises:
        ValueError: shot is not above 0.
    """
    stabilised = anscombe(signal.clamp_min(0), shot, read)
    for _ in range(NEWTON_STEPS):
        error = anscombe_inverse_unbiased(stabilised, shot, read) - signal.clamp_min(0)
        stabilised = stabilised - error * (2 / shot) / stabilised
    return stabilised
