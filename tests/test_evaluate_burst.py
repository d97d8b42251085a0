import csv
import io
import math
from dataclasses import asdict, replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from torch import Tensor

from restorekit.engine.evaluate import Evaluation, evaluate
from restorekit.engine.methods import Method, baseline, network
from restorekit.engine.plot import plot
from restorekit.engine.protocols import Level, find_sources, read_sample
from restorekit.engine.published import published
from restorekit.engine.report import json_rows, rows_csv, table
from restorekit.errors import UsageError
from restorekit.hub import LoadedModel, ModelCard, load_model
from restorekit.metrics import PROTOCOLS
from restorekit.models import create_model
from restorekit.models.kpn import KernelPredictionNetwork, KPNConfig
from tests.toy import save_toy

ALIGNED, UNALIGNED = PROTOCOLS["burst"], PROTOCOLS["burst-unaligned"]
SIDE = 252


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        coarse = np.random.default_rng(number).integers(40, 220, (16, 16, 3), dtype=np.uint8)
        iio.imwrite(folder / f"{number}.png", coarse.repeat(16, 0).repeat(16, 1)[:SIDE, :SIDE])
    return folder


@pytest.fixture
def loaded() -> LoadedModel:
    return LoadedModel(create_model("ame_kpn", asdict(tiny())).eval(), card())


def tiny() -> KPNConfig:
    return KPNConfig(widths=(8, 12), convolutions=1, kernel_sizes=(3,), compact=True)


def card() -> ModelCard:
    return ModelCard("ame_kpn.test", "ame_kpn", asdict(tiny()), "burst", "linear", "gray")


class MeanNetwork(KernelPredictionNetwork):
    """Give the mean of the frames and remember what came in."""

    def forward(self, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        self.seen = degraded, noise_std
        return degraded.mean(1, keepdim=True)


def baselines() -> list[Method]:
    return [baseline("none", ALIGNED), baseline("mean", ALIGNED)]


def measured(photos: Path, *methods: Method) -> Evaluation:
    return evaluate([*baselines(), *methods], ALIGNED, photos)


def encoded(linear: np.ndarray) -> np.ndarray:
    """Return sRGB of linear values by the standard's formula."""
    low = linear * 12.92
    return np.where(linear <= 0.0031308, low, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def test_rows_by_gain_and_their_numbers_by_hand(photos: Path) -> None:
    evaluation = measured(photos)
    assert [(row.model, row.gain) for row in evaluation.rows] == [
        (name, gain) for gain in (1, 2, 3, 4) for name in ("none", "mean")
    ]
    scores = []
    for source in find_sources(ALIGNED, photos):
        sample = read_sample(ALIGNED, source, Level(gain=3))
        assert sample.burst is not None
        mean = encoded(sample.burst.frames[0, :, 0].double().numpy().mean(0))
        clean = encoded(sample.burst.clean[0, 0].double().numpy())
        error = np.clip(mean, 0, 1) - np.clip(clean, 0, 1)
        scores.append(-10 * math.log10((error[8:-8, 8:-8] ** 2).mean()))
    row = next(row for row in evaluation.rows if (row.model, row.gain) == ("mean", 3))
    assert row.psnr == pytest.approx(sum(scores) / 2, abs=1e-3)
    assert (row.sigma, row.pictures, row.tiled) == (None, 2, 0)


def test_a_mean_of_aligned_frames_beats_the_reference_where_there_is_noise(photos: Path) -> None:
    rows = {(row.model, row.gain): row.psnr for row in measured(photos).rows}
    assert rows["mean", 3] > rows["none", 3] + 5
    assert rows["mean", 4] > rows["none", 4] + 5
    (far,) = evaluate([baseline("mean", UNALIGNED)], UNALIGNED, photos).rows[3:]
    assert far.psnr < rows["mean", 4] - 1


def test_bursts_depend_on_seed_and_name_alone(photos: Path) -> None:
    source = find_sources(ALIGNED, photos)[0]
    first, again = (read_sample(ALIGNED, source, Level(gain=1)).burst for _ in range(2))
    other = read_sample(replace(ALIGNED, seed=1), source, Level(gain=1)).burst
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first.frames, again.frames)
    assert not torch.equal(first.frames, other.frames)
    made = read_sample(UNALIGNED, source, Level(gain=1)).burst
    assert made is not None
    assert torch.equal(first.frames[:, 0], made.frames[:, 0])


def test_a_network_gets_linear_frames_and_the_noise_map(photos: Path) -> None:
    model = MeanNetwork(tiny()).eval()
    evaluation = measured(photos, network(LoadedModel(model, card()), device="cpu"))
    frames, noise_std = model.seen
    assert frames.shape == (1, 8, SIDE // 4 - 32, SIDE // 4 - 32)
    assert frames.min() < 0
    assert noise_std is not None
    read, shot = 8e-2, 2.3e-2
    expected = (read**2 + shot * frames[:, :1].clamp_min(0)).sqrt()
    torch.testing.assert_close(noise_std, expected)
    rows = {(row.model, row.gain): row for row in evaluation.rows}
    for gain in (1, 2, 3, 4):
        assert rows["ame_kpn.test", gain].psnr == pytest.approx(rows["mean", gain].psnr, abs=1e-4)


def test_the_table_has_a_column_for_each_gain(photos: Path, loaded: LoadedModel) -> None:
    shown = table(measured(photos, network(loaded, device="cpu")))
    assert shown.headings[:3] == ("model", "params", "GMACs")
    assert [heading.split(":")[0] for heading in shown.headings[3:]] == [
        f"gain {gain}" for gain in (1, 2, 3, 4)
    ]
    names = [line[0] for line in shown.lines]
    assert names[:3] == ["none", "mean", "ame_kpn.test"]
    assert names[3:] == [
        "reference frame (published)",
        "KPN 5x5 (published)",
        "MKPN (published)",
        "AME-KPN 5x5 (published)",
    ]
    assert shown.is_published == (False,) * 3 + (True,) * 4
    assert shown.lines[6][3:] == (
        "39.92 / 0.9776",
        "37.02 / 0.9561",
        "35.46 / 0.9295",
        "32.29 / 0.8663",
    )
    assert all(len(line) == 7 for line in shown.lines)


def test_other_formats_name_the_gain(photos: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    evaluation = measured(photos, network(loaded, device="cpu"))
    lines = list(csv.DictReader(io.StringIO(rows_csv(evaluation))))
    paper = [line for line in lines if line["published"] == "True"]
    assert [(line["gain"], line["psnr"], line["ssim"]) for line in paper[:1]] == [
        ("1", "33.98", "0.8625")
    ]
    objects = json_rows(evaluation)
    assert [each["gain"] for each in objects] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert objects[3]["published"]["MKPN"] == 35.82
    plot(evaluation, tmp_path / "plot.svg")
    assert "gain 4" in (tmp_path / "plot.svg").read_text()


def test_published_gains_over_the_reference() -> None:
    gains = []
    for gain in (1, 2, 3, 4):
        known = {each.model: each.psnr for each in published("burst", "any", None, gain)}
        gains.append(round(known["AME-KPN 5x5"] - known["reference frame"], 2))
    assert gains == [5.94, 10.08, 13.96, 15.85]


def test_a_second_run_measures_nothing_again(photos: Path, tmp_path: Path) -> None:
    first = evaluate(baselines(), ALIGNED, photos, folder=tmp_path / "log").rows
    calls = []

    def restore(sample: object) -> None:
        calls.append(sample)

    never = [replace(method, restore=restore) for method in baselines()]
    assert evaluate(never, ALIGNED, photos, folder=tmp_path / "log").rows == first
    assert calls == []


def test_methods_and_protocols_must_fit(photos: Path, tmp_path: Path, loaded: LoadedModel) -> None:
    single = network(load_model(str(save_toy(tmp_path / "toy"))), device="cpu")
    with pytest.raises(UsageError, match=r"toy\.test is no network for bursts"):
        evaluate([single], ALIGNED, photos)
    with pytest.raises(UsageError, match="use --protocol burst"):
        evaluate([network(loaded, device="cpu")], PROTOCOLS["gaussian-grey"], photos)
    with pytest.raises(UsageError, match="mean is made of the frames of a burst"):
        baseline("mean", PROTOCOLS["gaussian-grey"])
    with pytest.raises(UsageError, match="nlm removes noise and has no meaning for burst"):
        baseline("nlm", ALIGNED)
    with pytest.raises(UsageError, match="measures bursts and takes no --sigma"):
        evaluate(baselines(), ALIGNED, photos, [25])
    iio.imwrite(photos / "small.png", np.zeros((235, 300, 3), np.uint8))
    with pytest.raises(UsageError, match=r"small\.png: burst needs 236 x 236 pixels"):
        evaluate(baselines(), ALIGNED, photos)
