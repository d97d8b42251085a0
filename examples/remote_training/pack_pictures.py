"""Cut crops from photographs, as many as fit into so many megabytes, to train on elsewhere.

python examples/remote_training/pack_pictures.py PHOTOGRAPHS packed [--megabytes 60] [--side 320]

Photographs take turns, each time with another crop, so that none fills the folder alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from restorekit import read_image, write_image
from restorekit.datasets import find_pictures
from restorekit.errors import UsageError


def pack_pictures(
    photographs: Path, packed: Path, megabytes: float = 60, side: int = 320, seed: int = 0
) -> int:
    """Write crops as PNG files until the next one would be too much, and return how many."""
    generator = torch.Generator().manual_seed(seed)
    paths = find_pictures([photographs])
    left, count = megabytes * 1e6, 0
    while True:
        before = count
        for path in paths:
            image = read_image(path).to_srgb()
            if min(image.height, image.width) < side:
                continue
            top, x = (
                int(torch.randint(size - side + 1, (), generator=generator))
                for size in (image.height, image.width)
            )
            target = packed / f"{count:05}.png"
            write_image(image.crop(x, top, side, side), target, strip="all")
            left -= target.stat().st_size
            if left < 0:
                target.unlink()
                return count
            count += 1
        if count == before:
            raise UsageError(f"{photographs}: no picture has {side} x {side} pixels")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photographs", type=Path, help="folder of clean pictures")
    parser.add_argument("packed", type=Path, help="folder for the crops")
    parser.add_argument("--megabytes", type=float, default=60, help="of all crops")
    parser.add_argument("--side", type=int, default=320, help="of a crop in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of their places")
    given = parser.parse_args()
    count = pack_pictures(given.photographs, given.packed, given.megabytes, given.side, given.seed)
    print(f"{count} crops")
