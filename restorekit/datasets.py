"""Training pictures: a memory-mapped cache of decoded photographs, and pairs made from them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from restorekit.errors import ConfigError, DecodeError
from restorekit.image import Layout
from restorekit.io import is_image_path, read_image
from restorekit.models.registry import Batch
from restorekit.ops.color import luma

Degrade = Callable[[Tensor, Generator], Batch]
Progress = Callable[[int, int], None]

MIXUP_SHAPE = 1.2


def find_pictures(folders: Sequence[Path]) -> list[Path]:
    """Return every picture below some folders, sorted by path.

    Raises:
        ConfigError: a folder does not exist, or none holds a picture.
    """
    paths: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no folder of training pictures")
        paths.extend(p for p in sorted(folder.rglob("*")) if p.is_file() and is_image_path(p))
    if not paths:
        raise ConfigError(f"no pictures in {', '.join(str(folder) for folder in folders)}")
    return paths


@dataclass(frozen=True)
class PictureCache:
    """Hold decoded RGB pictures in one memory-mapped file.

    Attributes:
        names: file names of the pictures.
        shapes: (height, width) of each picture.
        starts: first byte of each picture.
        data: all pixels, uint8, each picture as (H, W, 3).
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]
    starts: tuple[int, ...]
    data: np.memmap[tuple[int], np.dtype[np.uint8]]

    @classmethod
    def build(
        cls, paths: Sequence[Path], folder: Path, progress: Progress | None = None
    ) -> PictureCache:
        """Decode pictures once into folder, or open what an earlier call left there.

        Args:
            paths: pictures; grey ones are repeated on three planes, deeper ones cut to 8 bits.
            folder: where the cache lies; its name is made from paths, sizes and times.
            progress: called with (pictures done, pictures in all).
        """
        stamp = hashlib.sha256()
        for path in paths:
            status = path.stat()
            stamp.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
        pixels = folder / f"{stamp.hexdigest()[:16]}.pixels"
        index = pixels.with_suffix(".json")
        if not index.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            cls._decode(paths, pixels, index, progress)
        entries = json.loads(index.read_text())
        shapes = tuple((int(e["height"]), int(e["width"])) for e in entries)
        sizes = [h * w * 3 for h, w in shapes]
        starts = tuple(int(s) for s in np.cumsum([0, *sizes[:-1]]))
        data = np.memmap(pixels, dtype=np.uint8, mode="r", shape=(sum(sizes),))
        return cls(tuple(e["name"] for e in entries), shapes, starts, data)

    @staticmethod
    def _decode(
        paths: Sequence[Path], pixels: Path, index: Path, progress: Progress | None
    ) -> None:
        entries = []
        part = pixels.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as file:
            for number, path in enumerate(paths):
                picture = read_image(path)
                if picture.layout is Layout.BAYER:
                    raise DecodeError(f"{path}: training on RAW files needs a RAW task")
                rgb = picture.to_srgb().pixels.expand(3, -1, -1)
                bytes_ = (rgb * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
                file.write(bytes_.contiguous().numpy().tobytes())
                entries.append(
                    {"name": path.name, "height": picture.height, "width": picture.width}
                )
                if progress is not None:
                    progress(number + 1, len(paths))
        os.replace(part, pixels)
        listing = index.with_suffix(f".{os.getpid()}.part")
        listing.write_text(json.dumps(entries))
        os.replace(listing, index)

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.names)

    def crop(self, number: int, y: int, x: int, height: int, width: int) -> Tensor:
        """Return (3, height, width) uint8 pixels of a picture."""
        rows, columns = self.shapes[number]
        start = self.starts[number]
        picture = self.data[start : start + rows * columns * 3].reshape(rows, columns, 3)
        window = picture[y : y + height, x : x + width].copy()
        return torch.from_numpy(window).permute(2, 0, 1)


@dataclass(frozen=True)
class SyntheticPairs:
    """Make training batches from clean pictures; every sample depends on (seed, index) alone.

    Attributes:
        cache: clean pictures.
        pictures: numbers of those that may be used.
        degrade: makes a batch of pairs from (B, 3, H, W) clean pictures in [0, 1].
        seed: seed of crops, flips, rotations and degradations.
        mixup: whether half of the samples are mixtures of two (Zhang et al., 2018).
        gray: whether pictures are reduced to their luma, one plane.
    """

    cache: PictureCache
    pictures: tuple[int, ...]
    degrade: Degrade
    seed: int
    mixup: bool = False
    gray: bool = False

    def batch(self, first: int, size: int, patch: int) -> Batch:
        """Return the samples first..first+size-1 of an endless sequence, patch x patch each."""
        samples = [self._sample(index, patch) for index in range(first, first + size)]
        stds = [sample.noise_std for sample in samples if sample.noise_std is not None]
        return Batch(
            torch.cat([sample.degraded for sample in samples]),
            torch.cat([sample.clean for sample in samples]),
            torch.cat(stds) if stds else None,
        )

    def _sample(self, index: int, patch: int) -> Batch:
        sample = self._pair(index, patch, "first")
        generator = _generator(self.seed, index, "mixup")
        if not self.mixup or torch.rand((), generator=generator) < 0.5:
            return sample
        shapes = torch.full((2,), MIXUP_SHAPE)
        parts = torch._standard_gamma(shapes, generator=generator)
        share = float(parts[0] / parts.sum())
        return _mix(sample, self._pair(index, patch, "second"), share)

    def _pair(self, index: int, patch: int, stream: str) -> Batch:
        crop = self._crop(patch, _generator(self.seed, index, f"{stream} crop"))
        clean = crop.float().div_(255)[None]
        if self.gray:
            clean = luma(clean)
        return self.degrade(clean, _generator(self.seed, index, f"{stream} degradation"))

    def _crop(self, patch: int, generator: Generator) -> Tensor:
        draws = torch.rand(6, generator=generator).tolist()
        number = self.pictures[int(draws[0] * len(self.pictures))]
        height, width = self.cache.shapes[number]
        side = min(patch, height, width)
        y, x = int(draws[1] * (height - side + 1)), int(draws[2] * (width - side + 1))
        crop = self.cache.crop(number, y, x, side, side)
        if side < patch:
            repeats = -(-patch // side)
            crop = crop.repeat(1, repeats, repeats)[:, :patch, :patch]
        if draws[3] < 0.5:
            crop = crop.flip(-1)
        if draws[4] < 0.5:
            crop = crop.flip(-2)
        return crop.transpose(-1, -2) if draws[5] < 0.5 else crop


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
