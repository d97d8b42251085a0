import csv
import io
import json
import math
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from torch import Tensor

from restorekit.engine import methods as methods_module
from restorekit.engine.evaluate import Evaluation, Row, evaluate
from restorekit.engine.methods import Method, Restored, baseline, network
from restorekit.engine.plot import plot
from restorekit.engine.protocols import Level, Sample, find_sources, read_sample
from restorekit.engine.published import published
from restorekit.engine.report import json_rows, markdown, results_csv, rows_csv, table
from restorekit.engine.results import LOG_FILE
from restorekit.errors import NoInputError, RestorekitError, UsageError
from restorekit.hub import LoadedModel, load_model
from restorekit.metrics import PROTOCOLS
from tests.toy import Toy, ToyConfig, save_toy

GOLDEN = (20.697749, 0.181222, 0.073222)
"""PSNR, SSIM and MAE by numpy and scikit-image alone."""

COLOUR, GREY, SIDD = (PROTOCOLS[name] for name in ("gaussian-colour", "gaussian-grey", "sidd"))


def save(path: Path, pixels: np.ndarray[Any, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    iio.imwrite(path, pixels.astype(np.uint8))
    return path


def middle_grey(path: Path, side: int = 96) -> Path:
    """Save a picture that noise of sigma 25 does not drive to black or white."""
    values = np.random.default_rng(len(path.name)).integers(118, 138, (side, side, 3))
    return save(path, values)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    middle_grey(tmp_path / "photos" / "a.png")
    middle_grey(tmp_path / "photos" / "below" / "bb.png")
    return tmp_path / "photos"


@pytest.fixture
def toy(tmp_path: Path) -> LoadedModel:
    return load_model(str(save_toy(tmp_path / "toy")))


class Recorder(Toy):
    """Give the input back, remember the sizes, and fail where the test says so."""

    def __init__(self, answer: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__(ToyConfig())
        self.sizes: Any = []
        self.answer = answer

    def forward(self, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        if degraded.is_meta:
            return degraded
        self.sizes.append(tuple(degraded.shape))
        return self.answer(degraded)

    def __deepcopy__(self, memo: object) -> "Recorder":
        return Recorder()


def recorded(toy: LoadedModel, answer: Callable[[Tensor], Tensor] = lambda x: x) -> LoadedModel:
    return LoadedModel(Recorder(answer).eval(), toy.card)


def counting(calls: list[Sample], sha256: str = "") -> Method:
    def restore(sample: Sample) -> Restored:
        calls.append(sample)
        return Restored(sample.degraded.pixels, 0.5)

    return Method("counting", sha256, restore)


def test_an_identity_has_the_psnr_of_the_noise(photos: Path, toy: LoadedModel) -> None:
    rows = evaluate([network(toy, device="cpu")], COLOUR, photos, [25, 50]).rows
    assert [row.sigma for row in rows] == [25, 50]
    assert rows[0].psnr == pytest.approx(20 * math.log10(255 / 25), abs=0.1)
    assert rows[0].mae == pytest.approx(25 / 255 * math.sqrt(2 / math.pi), rel=0.02)
    assert (rows[0].pictures, rows[0].tiled, rows[0].parameters) == (2, 0, 1)


def test_noise_follows_the_papers_to_the_bit(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 2, (20, 30, 3)) * 255
    save(tmp_path / "a.png", pixels)
    sample = read_sample(COLOUR, find_sources(COLOUR, tmp_path)[0], Level(25))
    np.random.seed(0)  # noqa: NPY002 - the papers' own way of drawing
    expected = np.float32(pixels) / 255 + np.random.normal(0, 25 / 255, pixels.shape)  # noqa: NPY002
    degraded = sample.degraded.pixels
    assert np.abs(degraded.permute(1, 2, 0).numpy() - expected).max() < 1e-6
    assert degraded.min() < 0
    assert degraded.max() > 1


def test_golden_numbers_of_the_noise(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:48, :64]
    save(tmp_path / "a.png", np.stack([rows * 5, columns * 4, rows + columns], -1))
    (row,) = evaluate([baseline("none", COLOUR)], COLOUR, tmp_path, [25]).rows
    assert (row.psnr, row.ssim, row.mae) == pytest.approx(GOLDEN, abs=1e-5)


def test_grey_pictures_pass_through_a_colour_network(tmp_path: Path, toy: LoadedModel) -> None:
    save(tmp_path / "grey.png", np.random.default_rng(0).integers(0, 256, (32, 40)))
    model = recorded(toy)
    both = [network(model, device="cpu"), baseline("none", GREY)]
    first, second = evaluate(both, GREY, tmp_path, [15]).rows
    assert model.model.sizes == [(1, 3, 32, 40)]
    assert first.psnr == pytest.approx(second.psnr, abs=1e-6)


def test_colour_pictures_become_grey_for_the_grey_protocol(photos: Path) -> None:
    sample = read_sample(GREY, find_sources(GREY, photos)[0], Level(15))
    assert sample.clean.pixels.shape == (1, 96, 96)
    steps = sample.clean.pixels * 255
    assert torch.allclose(steps, steps.round(), atol=1e-4)


def test_a_picture_goes_through_whole(photos: Path, toy: LoadedModel) -> None:
    model = recorded(toy)
    evaluate([network(model, device="cpu")], COLOUR, photos, [25])
    assert model.model.sizes == [(1, 3, 96, 96)] * 2


def test_tiles_on_request_and_for_large_pictures(
    photos: Path, toy: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = recorded(toy)
    (row,) = evaluate([network(model, device="cpu", tile=48)], COLOUR, photos, [25]).rows
    assert row.tiled == 2
    assert max(size[2] for size in model.model.sizes) <= 48
    monkeypatch.setattr(methods_module, "LARGEST_WHOLE", 96 * 96 - 1)
    (large,) = evaluate([network(model, device="cpu")], COLOUR, photos, [25]).rows
    assert large.tiled == 2
    assert large.psnr == pytest.approx(row.psnr, abs=1e-3)


def test_tiles_when_memory_runs_out(photos: Path, toy: LoadedModel) -> None:
    def answer(degraded: Tensor) -> Tensor:
        if degraded.shape[-1] > 64:
            raise torch.OutOfMemoryError("out of memory")
        return degraded

    (row,) = evaluate([network(recorded(toy, answer), device="cpu")], COLOUR, photos, [25]).rows
    assert row.tiled == 2
    assert row.psnr == pytest.approx(20.17, abs=0.1)


def test_values_that_are_not_finite_are_an_error(photos: Path, toy: LoadedModel) -> None:
    broken = network(recorded(toy, lambda x: x * math.nan), device="cpu")
    with pytest.raises(RestorekitError, match="not finite"):
        evaluate([broken], COLOUR, photos, [25])


def pairs(folder: Path, names: tuple[str, str] = ("input", "target")) -> Path:
    for number, stem in enumerate(("x-1", "x-2")):
        middle_grey(folder / names[1] / f"{stem}.png", 32)
        values = iio.imread(folder / names[1] / f"{stem}.png").astype(int) + 10 * (number + 1)
        save(folder / names[0] / f"rainy-{stem}.png", values)
    return folder


@pytest.mark.parametrize("names", [("input", "target"), ("noisy", "clean")])
def test_pairs_are_found_and_measured(tmp_path: Path, names: tuple[str, str]) -> None:
    (row,) = evaluate([baseline("none", SIDD)], SIDD, pairs(tmp_path, names)).rows
    expected = (20 * math.log10(255 / 10) + 20 * math.log10(255 / 20)) / 2
    assert row.psnr == pytest.approx(expected, abs=1e-6)
    assert row.mae == pytest.approx(15 / 255)
    assert row.sigma is None


def test_wrong_pairs_are_errors(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="no such folder"):
        find_sources(SIDD, tmp_path / "none")
    with pytest.raises(NoInputError, match="input and target, or noisy and clean"):
        find_sources(SIDD, tmp_path)
    folder = pairs(tmp_path)
    with pytest.raises(UsageError, match="takes no --sigma"):
        evaluate([baseline("none", SIDD)], SIDD, folder, [25])
    middle_grey(folder / "target" / "x-1.png", 31)
    with pytest.raises(UsageError, match="differ in size"):
        evaluate([baseline("none", SIDD)], SIDD, folder)
    middle_grey(folder / "target" / "x-3.png")
    with pytest.raises(UsageError, match=r"x-3\.png has no degraded partner"):
        find_sources(SIDD, folder)


def test_a_small_picture_is_named(tmp_path: Path) -> None:
    middle_grey(tmp_path / "tiny.png", 8)
    with pytest.raises(UsageError, match=r"tiny\.png: SSIM needs"):
        evaluate([baseline("none", COLOUR)], COLOUR, tmp_path, [25])


def test_a_second_run_measures_nothing_again(photos: Path, tmp_path: Path) -> None:
    calls: list[Sample] = []
    folder = tmp_path / "log"
    first = evaluate([counting(calls)], COLOUR, photos, [15, 25], folder=folder)
    assert len(calls) == 4
    assert evaluate([counting(calls)], COLOUR, photos, [15, 25], folder=folder) == first
    assert len(calls) == 4
    evaluate([counting(calls)], COLOUR, photos, [50], folder=folder)
    assert len(calls) == 6
    evaluate([counting(calls, "other weights")], COLOUR, photos, [50], folder=folder)
    assert len(calls) == 8
    middle_grey(photos / "a.png", 64)
    evaluate([counting(calls)], COLOUR, photos, [15, 25, 50], folder=folder)
    assert len(calls) == 11


def test_a_line_that_was_cut_off_is_measured_again(photos: Path, tmp_path: Path) -> None:
    calls: list[Sample] = []
    folder = tmp_path / "log"
    first = evaluate([counting(calls)], COLOUR, photos, [25], folder=folder)
    log = folder / LOG_FILE
    log.write_bytes(log.read_bytes()[:-40])
    assert evaluate([counting(calls)], COLOUR, photos, [25], folder=folder) == first
    assert len(calls) == 3
    evaluate([counting(calls)], COLOUR, photos, [25], folder=folder)
    assert len(calls) == 3


def test_a_stopped_run_keeps_what_it_finished(photos: Path, tmp_path: Path) -> None:
    calls: list[Sample] = []
    whole = counting(calls)

    def stop_at_second(sample: Sample) -> Restored:
        if len(calls) == 1:
            raise KeyboardInterrupt
        return whole.restore(sample)

    stopped = replace(whole, restore=stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        evaluate([stopped], COLOUR, photos, [25], folder=tmp_path)
    assert len((tmp_path / LOG_FILE).read_text().splitlines()) == 1
    evaluate([whole], COLOUR, photos, [25], folder=tmp_path)
    assert len(calls) == 2


@pytest.mark.parametrize("protocol", [COLOUR, GREY])
def test_non_local_means_removes_noise(photos: Path, protocol: Any) -> None:
    none, nlm = (baseline(name, protocol) for name in ("none", "nlm"))
    rows = evaluate([none, nlm], protocol, photos, [25]).rows
    assert rows[1].psnr > rows[0].psnr + 3
    assert rows[1].parameters is None


def test_non_local_means_measures_noise_of_pairs(tmp_path: Path) -> None:
    clean = np.tile(np.linspace(60, 180, 64)[None, :, None], (64, 1, 3))
    noise = np.random.default_rng(0).normal(0, 20, clean.shape)
    save(tmp_path / "clean" / "a.png", clean.round())
    save(tmp_path / "noisy" / "a.png", (clean + noise).round().clip(0, 255))
    both = [baseline(name, SIDD) for name in ("none", "nlm")]
    none, nlm = evaluate(both, SIDD, tmp_path).rows
    assert nlm.psnr > none.psnr + 3


def test_baselines_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="no method 'bm3d'"):
        baseline("bm3d", COLOUR)
    with pytest.raises(UsageError, match="no meaning for gopro"):
        baseline("nlm", PROTOCOLS["gopro"])


def test_lpips_where_its_package_is_present(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Distance(torch.nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()

        def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
            assert clean.min() < 0
            return (restored - clean).abs().mean() / 2

    calls: list[Sample] = []
    without = evaluate([counting(calls)], COLOUR, photos, [25], folder=tmp_path / "log")
    assert without.rows[0].lpips is None
    package = ModuleType("lpips")
    package.__spec__ = ModuleSpec("lpips", None)
    package.LPIPS = Distance  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", package)
    (row,) = evaluate([counting(calls)], COLOUR, photos, [25], folder=tmp_path / "log").rows
    assert row.lpips == pytest.approx(row.mae, rel=1e-4)
    assert len(calls) == 4


def row_of(data: str = "cbsd68", sigma: float | None = 25.0, psnr: float = 31.0) -> Row:
    return Row(
        model="net|a",
        sha256="",
        protocol="gaussian-colour",
        data=data,
        sigma=sigma,
        pictures=1,
        tiled=0,
        parameters=2_660_000,
        macs_layers=1_820_000_000,
        macs=2_120_000_000,
        seconds_per_megapixel=1.5,
        psnr=psnr,
        ssim=0.9,
        mae=0.02,
        lpips=None,
        device="cpu",
        dtype="float32",
    )


TWO = Evaluation((row_of(), row_of(sigma=50.0, psnr=math.inf)), ())


def test_published_numbers_are_known_by_folder_and_sigma() -> None:
    known = {each.model: each.psnr for each in published("gaussian-colour", "CBSD68", 50.0)}
    assert known["KBNet_s"] == 28.62
    assert list(known) == ["DnCNN", "FFDNet", "DRUNet", "Restormer", "KBNet_s"]
    grey = published("gaussian-grey", "set12", 15.0)
    assert [(each.model, each.psnr) for each in grey] == [("DnCNN", 32.67), ("KBNet_s", 33.40)]
    for unknown in [("gaussian-grey", "cbsd68", 15.0), ("gaussian-colour", "cbsd68", 30.0)]:
        assert published(*unknown) == []
    assert published("sidd", "cbsd68", None) == []


def test_published_rows_stand_below_those_of_their_sigma() -> None:
    shown = table(TWO)
    assert shown.headings[:3] == ("sigma", "model", "params")
    assert "LPIPS" not in shown.headings
    assert [line[0] for line in shown.lines] == ["25"] * 6 + ["50"] * 6
    assert [line[1] for line in shown.lines][:2] == ["net|a", "DnCNN (published)"]
    assert shown.is_published == (False, *[True] * 5) * 2
    text = markdown(shown).splitlines()
    assert len(text) == 14
    assert all(line.count("|") == len(shown.headings) + 1 for line in text)


def test_json_has_one_object_a_measured_row() -> None:
    first, second = json_rows(TWO)
    assert (first["sigma"], first["psnr"], first["ssim"]) == (25, 31, 0.9)
    assert first["published"]["KBNet_s"] == 31.80
    assert second["psnr"] is None
    assert "lpips" not in first
    json.dumps([first, second], allow_nan=False)


def test_csv_has_full_precision() -> None:
    lines = list(csv.DictReader(io.StringIO(rows_csv(TWO))))
    assert len(lines) == 12
    assert [line["published"] for line in lines[:2]] == ["False", "True"]
    assert lines[0]["macs"] == "2120000000"
    assert (lines[1]["model"], lines[1]["macs_layers"]) == ("DnCNN", "37000000000")


def test_csv_of_pictures(photos: Path) -> None:
    results = evaluate([baseline("none", COLOUR)], COLOUR, photos, [25]).results
    lines = list(csv.DictReader(io.StringIO(results_csv(results))))
    assert [line["picture"] for line in lines] == ["a.png", str(Path("below", "bb.png"))]
    assert float(lines[0]["psnr"]) == results[0].psnr


def test_plot_as_svg_names_every_dot(tmp_path: Path) -> None:
    path = tmp_path / "figure.svg"
    plot(Evaluation((row_of(), row_of(sigma=50.0, psnr=28.0)), ()), path)
    root = ET.fromstring(path.read_text())
    space = {"s": "http://www.w3.org/2000/svg"}
    words = [text.text for text in root.findall(".//s:text", space)]
    for name in ("net|a", "DnCNN", "KBNet_s", "PSNR (dB)"):
        assert words.count(name) == 2
    assert "FFDNet" not in words
    assert len(root.findall("s:g", space)) == 2


def test_plot_as_png(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    plot(Evaluation((row_of(data="mine"),), ()), path)
    with PillowImage.open(path) as picture:
        assert picture.size == (880, 640)
        colours = picture.convert("RGB").getcolors(1 << 20)
    assert colours is not None
    assert (0xC2, 0x41, 0x0C) in {colour for _, colour in colours}


def test_plots_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.svg or \.png"):
        plot(TWO, tmp_path / "figure.pdf")
    empty = Evaluation((replace(row_of(data="mine"), macs_layers=None),), ())
    with pytest.raises(UsageError, match="nothing to draw"):
        plot(empty, tmp_path / "figure.svg")
