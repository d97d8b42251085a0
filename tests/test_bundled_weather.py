"""What the bundled derainer and deblurrers gain on held pictures, degraded by a fixed seed."""

import importlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from restorekit.engine.evaluate import evaluate
from restorekit.engine.methods import baseline, network
from restorekit.engine.restore import restore_image
from restorekit.hub import LoadedModel, bundled_cards, load_model
from restorekit.io import read_image, write_image
from restorekit.metrics import PROTOCOLS, psnr

EXAMPLES = Path(__file__).parents[1] / "examples"
PICTURES = 12
SIDE = 256


def bundled(name: str) -> LoadedModel:
    if name not in bundled_cards():
        pytest.skip(f"{name} is not bundled")
    return load_model(name)


def middle(pixels: Tensor) -> Tensor:
    top, left = ((size - SIDE) // 2 for size in pixels.shape[-2:])
    return pixels[:, top : top + SIDE, left : left + SIDE]


@pytest.fixture
def photographs(shared_data: Path, tmp_path: Path) -> Path:
    """Return a folder with the middles of pictures that no training has seen."""
    for path in sorted((shared_data / "test" / "kodak24").iterdir())[:PICTURES]:
        image = read_image(path)
        write_image(image.with_pixels(middle(image.pixels)), tmp_path / "clean" / path.name)
    return tmp_path / "clean"


@pytest.mark.parametrize(
    ("model", "task", "folders", "protocol", "gain"),
    [
        ("kbnet_xs.rain", "rain", ("rain_light", "rain_heavy"), "derain-y", 4.0),
        ("kbnet_xs.motion", "motion", ("motion",), "gopro", 1.5),
        ("kbnet_xs.defocus", "defocus", ("defocus",), "dpdd", 1.0),
    ],
)
def test_degraded_photographs_gain(
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    task: str,
    folders: tuple[str, ...],
    protocol: str,
    gain: float,
) -> None:
    loaded = bundled(model)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    importlib.import_module("make_pairs").make_pairs(photographs, tmp_path / "pairs", task)
    measure = PROTOCOLS[protocol]
    both = [baseline("none", measure), network(loaded, device="cpu")]
    gains = []
    for folder in folders:
        none, own = evaluate(both, measure, tmp_path / "pairs" / folder).rows
        gains.append(own.psnr - none.psnr)
        assert own.ssim > none.ssim
    assert sum(gains) / len(gains) >= gain


def test_clean_photographs_stay_clean(photographs: Path) -> None:
    loaded = bundled("kbnet_xs.rain")
    scores = []
    for path in sorted(photographs.iterdir()):
        clean = read_image(path)
        with torch.no_grad():
            restored, _ = restore_image(clean, loaded)
        scores.append(psnr(restored.pixels.clamp(0, 1), clean.pixels))
    assert sum(scores) / len(scores) >= 38
