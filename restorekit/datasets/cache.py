"""A memory-mapped cache of decoded photographs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restorekit.errors import ConfigError, DecodeError
from restorekit.image import Layout
from restorekit.io import is_image_path, read_image
from restorekit.io.atomic import atomic_path

Progress = Callable[[int, int], None]


def pictures_below(folder: Path) -> list[Path]:
    """Return every picture below a folder and what is linked there, sorted by path."""
    paths: list[Path] = []
    for name, folders, files in os.walk(folder, followlinks=True):
        here = Path(name)
        folders[:] = [f for f in folders if not here.resolve().is_relative_to((here / f).resolve())]
        paths += [here / file for file in files if is_image_path(here / file)]
    return sorted(path for path in paths if path.is_file())


def find_pictures(folders: Sequence[Path]) -> list[Path]:
    """Return every picture below some folders, sorted by path.

    Raises:
        ConfigError: a folder does not exist, or none holds a picture.
    """
    paths: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no folder of training pictures")
        paths.extend(pictures_below(folder))
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
        with atomic_path(pixels) as part, part.open("wb") as file:
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
        with atomic_path(index) as part:
            part.write_text(json.dumps(entries), encoding="utf-8")

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
