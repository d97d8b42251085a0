"""Train the ablations of KBNet's Tables 7 to 9 at CPU size for equal minutes, and print a table.

python tests/benchmarks/ablations.py PHOTOGRAPHS [--minutes 5] [--seeds 0 1] [--tables 7 9]

As in the paper: colour pictures with white Gaussian noise of sigma 50, of which the network is not
told, and a lightweight KBNet_s with ffn_scale 1.5, here of width 16 and two levels. What a switch
costs in time it loses in steps.
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

NETWORK = {
    "width": 16,
    "encoder_blocks": (2, 2),
    "middle_blocks": 4,
    "decoder_blocks": (2, 2),
    "lightweight": True,
    "ffn_scale": 1.5,
}
SWITCHES: dict[int, dict[str, dict[str, Any]]] = {
    7: {
        "dynamic": {"aggregation": "dynamic"},
        "kernel-prediction": {"aggregation": "kernel-prediction"},
        "window": {"aggregation": "window"},
        "kba-softmax": {"aggregation": "kba-softmax"},
        "kba": {},
    },
    8: {f"kba, N = {bases}": {"bases": bases} for bases in (4, 8, 16, 64, 128)} | {"kba": {}},
    9: {"none: dw": {"branches": "dw"}, "none: dw+ca": {"branches": "dw+ca"}, "kba": {}},
}
SIGMA = 50.0


def train_once(
    switches: dict[str, Any], photographs: Path, minutes: float, seed: int, folder: Path
) -> TrainResult:
    """Train one network until its minutes are over."""
    config = TrainConfig(
        name="kbnet_s.ablation",
        architecture="kbnet_s",
        config={**NETWORK, **switches},
        data=(str(photographs),),
        run=str(folder / "run"),
        cache=str(folder.parent / "cache"),
        steps=1_000_000,
        batch_size=8,
        patch=64,
        sigma=(SIGMA, SIGMA),
        warmup_steps=50,
        seed=seed,
        validate_every=1_000_000,
        holdout=20,
        validation_sigma=(SIGMA,),
        validation_crop=128,
        max_minutes=minutes,
        finish=True,
    )
    return train(config)


def row(name: str, switches: dict[str, Any], results: list[TrainResult]) -> str:
    """Return a line of the table."""
    with torch.device("meta"):
        size = count_macs(create_model("kbnet_s", {**NETWORK, **switches}))
    scores = [score for result in results for score in result.validation_psnr.values()]
    cells = (
        name,
        f"{size.parameters / 1e6:.2f} M",
        f"{size.macs_layers / 1e9:.2f}",
        f"{size.macs / 1e9:.2f}",
        f"{mean(result.steps for result in results):.0f}",
        f"{mean(scores):.2f}",
        " ".join(f"{score:.2f}" for score in scores),
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Train network after network and print each row when it is known."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--minutes", type=float, default=5, help="for each network and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tables", type=int, nargs="+", default=[7, 9], choices=list(SWITCHES))
    words = parser.parse_args()
    rows = {name: switches for table in words.tables for name, switches in SWITCHES[table].items()}
    print("| aggregation | parameters | GMACs, layers | GMACs | steps | PSNR (dB) | each seed |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    with TemporaryDirectory() as place:
        for name, switches in rows.items():
            results = [
                train_once(
                    switches, words.photographs, words.minutes, seed, Path(place) / f"{name} {seed}"
                )
                for seed in words.seeds
            ]
            print(row(name, switches, results), flush=True)


if __name__ == "__main__":
    main()
