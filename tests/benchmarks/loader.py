"""Compare how fast training pairs are made with how fast a training step uses them.

python tests/benchmarks/loader.py [RECIPE] [--threads 1]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import imageio.v3 as iio
import numpy as np
import torch

from restorekit.datasets import (
    PairedFolder,
    PictureCache,
    SyntheticPairs,
    TrainingPairs,
    find_pictures,
)
from restorekit.engine.recipe import TrainConfig
from restorekit.losses import criterion_by_name
from restorekit.models import create_model
from restorekit.models.registry import torch_dtype
from restorekit.tasks import TASKS

RECIPE = Path(__file__).parents[2] / "examples" / "recipes" / "kbnet_xs_gaussian.toml"
PICTURES, HEIGHT, WIDTH = 8, 768, 1024
SECONDS = 2.0


def main() -> None:
    """Print patches per second, one line a kind of pairs, and the share of time in the loader."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipe", type=Path, nargs="?", default=RECIPE)
    parser.add_argument("--threads", type=int, default=1)
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    config = TrainConfig.read(words.recipe)
    patch, size = config.stage(0)
    used = rate(training_step(config), size)
    print(f"{config.name}: a step uses {used:.0f} patches of {patch}x{patch} a second")
    with TemporaryDirectory() as folder:
        for name, pairs in kinds(Path(folder)).items():
            made = rate(lambda pairs=pairs: pairs.batch(0, size, patch), size)
            share = (1 / made) / (1 / made + 1 / used)
            print(f"{name}: {made:.0f} a second, {made / used:.1f} x the step, {share:.1%} of time")


def kinds(folder: Path) -> dict[str, TrainingPairs]:
    """Return the datasets that are compared, from pictures of noise."""
    random = np.random.default_rng(0)
    for number in range(PICTURES):
        pixels = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        iio.imwrite(folder / f"{number}.bmp", pixels)
    cache = PictureCache.build(find_pictures([folder]), folder / "cache")
    degrade, every = TASKS["denoise"].degradations["gaussian"], tuple(range(PICTURES))
    return {
        "clean pictures with noise": SyntheticPairs(cache, every, 0, degrade=degrade),
        "the same with mixup": SyntheticPairs(cache, every, 0, mixup=True, degrade=degrade),
        "pairs of files": PairedFolder(cache, every[: PICTURES // 2], 0),
    }


def training_step(config: TrainConfig) -> Callable[[], object]:
    """Return a function that takes one optimiser step on a batch that is always the same."""
    model = create_model(config.architecture, config.config).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    criterion, dtype = criterion_by_name(config.loss), torch_dtype(config.dtype)
    patch, size = config.stage(0)
    clean = torch.rand(size, model.spec.in_channels, patch, patch)
    batch = TASKS["denoise"].degradations["gaussian"](clean, torch.Generator().manual_seed(0))

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            loss = model.loss(batch, criterion, 0)
        torch.autograd.backward(loss)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def rate(work: Callable[[], object], size: int) -> float:
    """Return how many patches a second go through work, which is given one warm-up."""
    work()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        work()
        done += size
    return done / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
