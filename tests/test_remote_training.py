"""The scripts that train on a machine that is lent for minutes at a time."""

import importlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from restorekit.engine.run_folder import CHECKPOINT_FILE
from restorekit.errors import UsageError
from restorekit.hub import load_model
from restorekit.image import Image, Layout, Transfer
from restorekit.io import read_image, write_image

FOLDER = Path(__file__).parents[1] / "examples" / "remote_training"
RECIPE = """
steps = 4000
batch_size = 2
patch = 16
validate_every = 4000
holdout = 3
validation_crop = 32
validation_sigma = [25.0]
cache = "{cache}"

[config]
width = 8
encoder_blocks = [1]
middle_blocks = 1
decoder_blocks = [1]
bases = [0, 4]
"""


@pytest.fixture
def photographs(tmp_path: Path, generator: torch.Generator) -> Path:
    for number, side in enumerate((40, 64, 90)):
        pixels = torch.rand(3, side, side, generator=generator)
        write_image(
            Image(pixels, Transfer.SRGB, Layout.RGB), tmp_path / "photographs" / f"{number}.png"
        )
    return tmp_path / "photographs"


def test_crops_fill_the_folder(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    pack_pictures = importlib.import_module("pack_pictures").pack_pictures
    count = pack_pictures(photographs, tmp_path / "packed", megabytes=0.05, side=48)
    crops = sorted((tmp_path / "packed").iterdir())
    assert len(crops) == count >= 4
    assert 0.03e6 < sum(crop.stat().st_size for crop in crops) <= 0.05e6
    assert {tuple(read_image(crop).pixels.shape) for crop in crops} == {(3, 48, 48)}
    again = pack_pictures(photographs, tmp_path / "again", megabytes=0.05, side=48)
    assert again == count
    assert all((tmp_path / "again" / c.name).read_bytes() == c.read_bytes() for c in crops)
    with pytest.raises(UsageError, match="no picture has 100 x 100 pixels"):
        pack_pictures(photographs, tmp_path / "none", side=100)


@pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("bash", "timeout", "sha256sum", "split")),
    reason="needs the GNU tools of the script",
)
def test_a_second_stretch_goes_on_where_the_first_ended(photographs: Path, tmp_path: Path) -> None:
    recipe, parts = tmp_path / "recipe.toml", tmp_path / "parts"
    recipe.write_text(RECIPE.format(cache=tmp_path / "cache"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # Nothing is compiled in the seconds of a stretch.
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(FOLDER.parents[1]), "CXX": "none"}

    def stretch(minutes: str) -> int:
        """Return the steps that are done after a stretch."""
        command = [FOLDER / "stretch.sh", recipe, photographs, parts, "5", "--max-minutes", minutes]
        subprocess.run(command, check=True, env=environment, capture_output=True, timeout=120)
        with tarfile.open(parts / "run.tar.000") as archive:
            archive.extractall(tmp_path, filter="data")
        step: int = torch.load(tmp_path / "run" / CHECKPOINT_FILE, weights_only=True)["step"]
        return step

    first = stretch("0.01")
    assert 0 < first < stretch("0.02")
    assert load_model(str(tmp_path / "run")).card.task == "denoise"
    with (parts / "run.tar.000").open("r+b") as part:
        part.write(b"broken")
    with pytest.raises(subprocess.CalledProcessError):
        stretch("0.03")
