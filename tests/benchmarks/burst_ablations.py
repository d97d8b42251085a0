"""Train the rows of AME-KPN's Table 2 and MKPN at CPU size for equal steps, and print a table.

python tests/benchmarks/burst_ablations.py PHOTOGRAPHS [--steps 300] [--seeds 0 1] [--rows KPN]

The networks are the published ones with levels of 16, 32 and 64 channels; bursts, loss and
validation are those of the bundled network's recipe. Every network sees the same bursts.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import torch

from restorekit.engine.recipe import TrainConfig
from restorekit.engine.train import TrainResult, train
from restorekit.models import create_model
from restorekit.models.complexity import count_macs

NETWORK = {"widths": (16, 32, 64), "convolutions": 2, "annealed": 0.0}
PLAIN = {"channel_attention": False, "spatial_attention": False, "residual": False}
ROWS: dict[str, dict[str, Any]] = {
    "1: KPN": PLAIN,
    "2: channel attention": {**PLAIN, "channel_attention": True},
    "3: spatial attention": {**PLAIN, "spatial_attention": True},
    "4: both": {"residual": False},
    "5: residual": {**PLAIN, "residual": True},
    "6: AME-KPN": {},
    "MKPN": {**PLAIN, "kernel_sizes": (1, 3, 5, 7, 9), "separable": True},
    "compact AME-KPN": {"compact": True, "widths": (48, 96, 160)},
}


def train_once(
    switches: dict[str, Any], photographs: Path, steps: int, seed: int, folder: Path
) -> TrainResult:
    """Train one network for some steps."""
    config = TrainConfig(
        task="burst",
        name="ame_kpn.ablation",
        architecture="ame_kpn",
        config={**NETWORK, **switches},
        data=(str(photographs),),
        run=str(folder / "run"),
        cache=str(folder.parent / "cache"),
        steps=steps,
        batch_size=8,
        patch=240,
        warmup_steps=20,
        ema=0.95,
        loss="psnr",
        seed=seed,
        validate_every=steps,
        holdout=20,
        validation_crop=240,
    )
    return train(config)


def row(name: str, switches: dict[str, Any], results: list[TrainResult]) -> str:
    """Return a line of the table."""
    with torch.device("meta"):
        size = count_macs(create_model("ame_kpn", {**NETWORK, **switches}))
    scores = [result.validation_psnr for result in results]
    cells = (
        name,
        f"{size.parameters / 1e3:.0f} k",
        f"{size.macs_layers / 1e9:.2f}",
        f"{size.macs / 1e9:.2f}",
        *(f"{mean(each[level] for each in scores):.2f}" for level in scores[0]),
        " ".join(f"{mean(each.values()):.2f}" for each in scores),
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Train network after network and print each row when it is known."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--steps", type=int, default=300, help="for each network and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), help="beginnings of their names")
    words = parser.parse_args()
    rows = {name: ROWS[name] for name in ROWS if name.startswith(tuple(words.rows))}
    print("| network | parameters | GMACs, layers | GMACs | gain 1 | gain 3 | mean, each seed |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    with TemporaryDirectory() as place:
        for name, switches in rows.items():
            results = [
                train_once(
                    switches, words.photographs, words.steps, seed, Path(place) / f"{name} {seed}"
                )
                for seed in words.seeds
            ]
            print(row(name, switches, results), flush=True)


if __name__ == "__main__":
    main()
