"""Restore a generated 24-megapixel RAW file and print time, memory and the network's share.

python tests/benchmarks/raw_24mp.py [--model NAME] [--dtype bfloat16]
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
from restorekit.io.dng import write_cfa_dng

NOISE = NoiseProfile(shot=4e-3, read=6e-3)


def write_raw(path: Path) -> None:
    """Write a 6000x4000 mosaic of smooth colours and fine texture with sensor noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 4, 20, 30, generator=generator)
    fine = torch.rand(1, 4, 500, 750, generator=generator)
    planes = [
        torch.nn.functional.interpolate(x, (2000, 3000), mode="bilinear")[0] for x in (coarse, fine)
    ]
    clean = 0.4 * planes[0] + 0.1 * planes[1]
    noisy = shot_read_noise(clean, NOISE.shot, NOISE.read, generator)
    metadata = Metadata(cfa="RGGB", white_balance=(1.9, 1.0, 1.5), noise=NOISE)
    write_cfa_dng(Image(noisy, Transfer.LINEAR, Layout.BAYER, metadata), path)


def main() -> None:
    """Run the command line on one file and print one line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="kbnet_xs.raw")
    parser.add_argument("--dtype", default="auto")
    words = parser.parse_args()
    with TemporaryDirectory() as place:
        source = Path(place) / "raw.dng"
        write_raw(source)
        command = [sys.executable, "-m", "restorekit", "denoise", str(source), "--format", "json"]
        started = time.perf_counter()
        done = subprocess.run(
            [*command, "--model", words.model, "--dtype", words.dtype],
            stdout=subprocess.PIPE,
            check=True,
        )
        seconds = time.perf_counter() - started
    answer = json.loads(done.stdout)
    record = answer[0] if isinstance(answer, list) else answer["records"][0]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    share = record["seconds_model"] / seconds
    print(
        f"24 MP RAW with {record['model']} in {record['dtype']} on {torch.get_num_threads()} "
        f"threads: {seconds:.0f} s, network {share:.0%}, peak memory {peak:.2f} GiB"
    )


if __name__ == "__main__":
    main()
