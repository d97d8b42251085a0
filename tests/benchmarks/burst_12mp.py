"""Merge a generated burst of eight 12-megapixel files and print time, memory and shares.

python tests/benchmarks/burst_12mp.py [--rgb] [--model NAME] [--dtype bfloat16]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from restorekit.degradations import shot_read_noise
from restorekit.image import Image, Layout, Metadata, NoiseProfile, Transfer
from restorekit.io import write_image
from restorekit.io.dng import write_cfa_dng

NOISE = NoiseProfile(shot=1e-3, read=5e-3)
SIGMA = 6 / 255
HEIGHT, WIDTH, MARGIN = 3000, 4000, 80


def write_burst(folder: Path, rgb: bool) -> list[str]:
    """Write eight mosaics, or RGB files, of one scene of smooth colours and fine texture."""
    generator = torch.Generator().manual_seed(0)
    scale = 1 if rgb else 2
    height, width, margin = HEIGHT // scale, WIDTH // scale, MARGIN // scale
    size = height + 2 * margin, width + 2 * margin
    clean = torch.zeros(3 if rgb else 4, *size)
    for cells, strength in ((15, 0.4), (375, 0.15)):
        noise = torch.rand(1, 1, cells, cells * 4 // 3, generator=generator)
        clean += strength * torch.nn.functional.interpolate(noise, size, mode="bilinear")[0]
    metadata = Metadata(cfa="RGGB", white_balance=(1.9, 1.0, 1.5), noise=NOISE)
    files = []
    for number in range(8):
        y, x = torch.randint(2 * margin, (2,), generator=generator).tolist()
        frame = clean[:, y : y + height, x : x + width]
        files.append(folder / f"{number}.{'png' if rgb else 'dng'}")
        if rgb:
            noisy = frame + SIGMA * torch.randn(frame.shape, generator=generator)
            write_image(Image(noisy.clamp(0, 1), Transfer.SRGB, Layout.RGB), files[-1])
        else:
            noisy = shot_read_noise(frame, NOISE.shot, NOISE.read, generator)
            write_cfa_dng(Image(noisy, Transfer.LINEAR, Layout.BAYER, metadata), files[-1])
    return [str(file) for file in files]


def main() -> None:
    """Run the command line on the burst and print one line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rgb", action="store_true", help="PNG files in place of RAW files")
    parser.add_argument("--model", default="ame_kpn.burst8")
    parser.add_argument("--dtype", default="auto")
    words = parser.parse_args()
    with TemporaryDirectory() as place:
        files = write_burst(Path(place), words.rgb)
        options = ["--model", words.model, "--dtype", words.dtype, "--format", "json"]
        command = [sys.executable, "-m", "restorekit", "burst", *files, *options]
        started = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        seconds = time.perf_counter() - started
    [record] = json.loads(done.stdout)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    share = record["seconds_model"] / seconds
    print(
        f"8 {'RGB' if words.rgb else 'RAW'} frames of 12 MP with {record['model']} in "
        f"{record['dtype']} on {torch.get_num_threads()} threads: {seconds:.0f} s, "
        f"networks {share:.0%}, "
        f"processor time {usage.ru_utime + usage.ru_stime:.0f} s, "
        f"peak memory {usage.ru_maxrss / 2**20:.2f} GiB, "
        f"{sum(frame['status'] == 'merged' for frame in record['frames'])} frames merged"
    )


if __name__ == "__main__":
    main()
