"""The type of a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from restorekit.models.registry import Batch


class Degrade(Protocol):
    """Make training pairs from (B, C, H, W) clean pictures in [0, 1]."""

    def __call__(
        self, clean: Tensor, generator: Generator, sigma: tuple[float, float] = ...
    ) -> Batch:
        """Return pairs; sigma is the range of noise deviations in 0-255 units."""


@dataclass(frozen=True)
class Task:
    """Say what a task is, from which its command and its training are made.

    Attributes:
        name: verb on the command line.
        summary: one line for the help.
        default_model: bundled model for colour pictures.
        degrade: makes training pairs from clean pictures.
        default_gray_model: bundled model for grey pictures, or None to use the colour model.
        burst: whether many frames give one picture.
        takes_noise_level: whether --noise has a meaning.
    """

    name: str
    summary: str
    default_model: str
    degrade: Degrade
    default_gray_model: str | None = None
    burst: bool = False
    takes_noise_level: bool = False
