"""Crops, flips, rotations and mixtures: what all training pairs have in common."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from restorekit.datasets.cache import PictureCache
from restorekit.models.registry import Batch
from restorekit.ops.color import luma

MIXUP_SHAPE = 1.2


@dataclass(frozen=True)
class TrainingPairs:
    """Make training batches from scenes; every sample depends on (seed, index) alone.

    Attributes:
        cache: pictures, those of a scene one after the other.
        scenes: numbers of the scenes that may be used.
        seed: seed of crops, flips, rotations and degradations.
        mixup: whether half of the samples are mixtures of two (Zhang et al., 2018).
        gray: whether pictures are reduced to their luma, one plane.
    """

    cache: PictureCache
    scenes: tuple[int, ...]
    seed: int
    mixup: bool = False
    gray: bool = False

    pictures_each: ClassVar[int]

    def batch(self, first: int, size: int, patch: int) -> Batch:
        """Return the samples first..first+size-1 of an endless sequence, patch x patch each."""
        samples = [self._sample(index, patch) for index in range(first, first + size)]
        stds = [sample.noise_std for sample in samples if sample.noise_std is not None]
        whites = [sample.white for sample in samples if sample.white is not None]
        return Batch(
            torch.cat([sample.degraded for sample in samples]),
            torch.cat([sample.clean for sample in samples]),
            torch.cat(stds) if stds else None,
            torch.cat(whites) if whites else None,
        )

    def pair(self, pictures: Tensor, generator: Generator) -> Batch:
        """Return one pair from the (pictures_each, C, H, W) pictures of a scene in [0, 1]."""
        raise NotImplementedError

    def centre(self, scene: int, side: int) -> Tensor:
        """Return the (pictures_each, C, H, W) centres of a scene in [0, 1], side x side at most."""
        height, width = self.cache.shapes[scene * self.pictures_each]
        h, w = min(side, height), min(side, width)
        return self._unit(self._window(scene, (height - h) // 2, (width - w) // 2, h, w))

    def _sample(self, index: int, patch: int) -> Batch:
        sample = self._draw(index, patch, "first")
        generator = _generator(self.seed, index, "mixup")
        if not self.mixup or torch.rand((), generator=generator) < 0.5:
            return sample
        shapes = torch.full((2,), MIXUP_SHAPE)
        parts = torch._standard_gamma(shapes, generator=generator)
        share = float(parts[0] / parts.sum())
        return _mix(sample, self._draw(index, patch, "second"), share)

    def _draw(self, index: int, patch: int, stream: str) -> Batch:
        crop = self._crop(patch, _generator(self.seed, index, f"{stream} crop"))
        degradation = _generator(self.seed, index, f"{stream} degradation")
        return self.pair(self._unit(crop), degradation)

    def _crop(self, patch: int, generator: Generator) -> Tensor:
        draws = torch.rand(6, generator=generator).tolist()
        scene = self.scenes[int(draws[0] * len(self.scenes))]
        height, width = self.cache.shapes[scene * self.pictures_each]
        side = min(patch, height, width)
        y, x = int(draws[1] * (height - side + 1)), int(draws[2] * (width - side + 1))
        crop = self._window(scene, y, x, side, side)
        if side < patch:
            repeats = -(-patch // side)
            crop = crop.repeat(1, 1, repeats, repeats)[..., :patch, :patch]
        if draws[3] < 0.5:
            crop = crop.flip(-1)
        if draws[4] < 0.5:
            crop = crop.flip(-2)
        return crop.transpose(-1, -2) if draws[5] < 0.5 else crop

    def _window(self, scene: int, y: int, x: int, height: int, width: int) -> Tensor:
        """Return the same (3, height, width) uint8 window of every picture of a scene, stacked."""
        first = scene * self.pictures_each
        numbers = range(first, first + self.pictures_each)
        return torch.stack([self.cache.crop(n, y, x, height, width) for n in numbers])

    def _unit(self, pixels: Tensor) -> Tensor:
        unit = pixels.float().div_(255)
        return luma(unit) if self.gray else unit


def _mix(first: Batch, second: Batch, share: float) -> Batch:
    """Blend two samples; the deviations of their independent noise add in squares."""
    std = None
    if first.noise_std is not None and second.noise_std is not None:
        std = torch.hypot(first.noise_std * share, second.noise_std * (1 - share))
    return Batch(
        torch.lerp(second.degraded, first.degraded, share),
        torch.lerp(second.clean, first.clean, share),
        std,
    )


def _generator(seed: int, index: int, stream: str) -> Generator:
    digest = hashlib.blake2b(f"{seed} {index} {stream}".encode(), digest_size=7).digest()
    return Generator().manual_seed(int.from_bytes(digest, "big"))
