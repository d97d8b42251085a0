"""Pairs of clean pictures and what a degradation makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Generator, Tensor

from restorekit.datasets.sampling import TrainingPairs
from restorekit.models.registry import Batch

Degrade = Callable[[Tensor, Generator], Batch]


@dataclass(frozen=True)
class SyntheticPairs(TrainingPairs):
    """Degrade clean pictures; a scene is one picture.

    Attributes:
        degrade: makes a batch of pairs from (B, C, H, W) clean pictures in [0, 1].
    """

    degrade: Degrade = field(kw_only=True)

    pictures_each: ClassVar[int] = 1

    def pair(self, pictures: Tensor, generator: Generator) -> Batch:
        """Return the clean picture with what degrade makes of it."""
        return self.degrade(pictures, generator)
