"""Pairs of pictures that were taken or made as such, from published datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Generator, Tensor

from restorekit.datasets.cache import PictureCache, Progress
from restorekit.datasets.layouts import KNOWN_PAIRS, Pair, find_pairs
from restorekit.datasets.sampling import TrainingPairs
from restorekit.errors import ConfigError
from restorekit.models.registry import Batch


@dataclass(frozen=True)
class PairedFolder(TrainingPairs):
    """Cut the same crops from both files of a pair; a scene is the degraded and the clean one."""

    pictures_each: ClassVar[int] = 2

    def pair(self, pictures: Tensor, generator: Generator) -> Batch:
        """Return the two pictures; how strong the noise is, nobody knows."""
        return Batch(pictures[:1], pictures[1:])


def find_training_pairs(folders: Sequence[Path]) -> list[Pair]:
    """Return the pairs of some data folders, one after the other.

    Raises:
        ConfigError: a folder does not exist or holds no pairs, or a file has no partner.
    """
    pairs: list[Pair] = []
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no folder of training pairs")
        found = find_pairs(folder)
        if not found:
            raise ConfigError(f"{folder}: no pairs there; it needs the folders {KNOWN_PAIRS}")
        pairs += found
    if not pairs:
        raise ConfigError("no folder of training pairs is given")
    return pairs


def cache_pairs(
    pairs: Sequence[Pair], folder: Path, progress: Progress | None = None
) -> PictureCache:
    """Decode pairs once into a cache of degraded and clean pictures in turn.

    Raises:
        ConfigError: the files of a pair differ in size.
    """
    paths = [path for pair in pairs for path in (pair.degraded, pair.clean)]
    cache = PictureCache.build(paths, folder, progress)
    for pair, degraded, clean in zip(pairs, cache.shapes[::2], cache.shapes[1::2], strict=True):
        if degraded != clean:
            sizes = " and ".join(f"{width}x{height}" for height, width in (degraded, clean))
            raise ConfigError(f"{pair.degraded} and {pair.clean} differ in size, {sizes}; no pair")
    return cache
