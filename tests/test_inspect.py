from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from PIL import ImageOps

from restorekit.cli import main as entry
from restorekit.engine import inspect as engine
from restorekit.engine.inspect import COLOURS, inspect, principal_colours, upright
from restorekit.errors import UsageError
from restorekit.hub import LoadedModel, load_model
from restorekit.image import Image, Layout, Metadata, Transfer
from restorekit.models.kit import KNNAttention
from tests.tiny_model import save_tiny
from tests.toy import save_toy

Run = Callable[..., tuple[int, str]]
RED = tuple(bytes.fromhex(COLOURS[0][1:]))
GREEN = tuple(bytes.fromhex(COLOURS[1][1:]))


def picture_of(height: int, width: int) -> Image:
    generator = torch.Generator().manual_seed(0)
    return Image(torch.rand(3, height, width, generator=generator), Transfer.SRGB, Layout.RGB)


@pytest.fixture
def kit(tmp_path: Path) -> LoadedModel:
    return load_model(str(save_tiny(tmp_path / "kit", "kit")))


@pytest.fixture
def kbnet(tmp_path: Path) -> LoadedModel:
    return load_model(str(save_tiny(tmp_path / "kbnet", "kbnet_xs")))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = (picture_of(40, 52).pixels * 255).byte().permute(1, 2, 0).numpy()
    PillowImage.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            entry.main(["inspect", *map(str, words)])
        assert isinstance(stop.value.code, int)
        shown = capsys.readouterr()
        return stop.value.code, shown.out + shown.err

    return run


def test_matches_of_chosen_patches_are_framed(
    kit: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first block a patch is 4 x 4 pixels, and 64 pixels are padded to from 52."""

    def matches(self: KNNAttention, features: torch.Tensor) -> torch.Tensor:
        assert features.shape[2:] == (48, 64)
        found = torch.full((1, 2, 12 * 16, 4), -1)
        found[0, 0, 2 * 16 + 3] = torch.tensor([2 * 16 + 3, 5 * 16 + 12, 2 * 16 + 3, -1])
        found[0, 1, 2 * 16 + 3, 0] = 11 * 16 + 15
        found[0, 0, 16, 0] = 16 + 7
        return found

    monkeypatch.setattr(KNNAttention, "matches", matches)
    drawn = np.asarray(inspect(picture_of(40, 52), kit, block=1, at=[(13, 9), (0, 7)]))
    assert drawn.shape == (40, 52, 3)
    expected = (picture_of(40, 52).pixels * 255).round().byte().permute(1, 2, 0).numpy()
    changed = (drawn != expected).any(-1)
    cells = changed.reshape(10, 4, 13, 4).any((1, 3))
    assert sorted(zip(*map(list, cells.nonzero()), strict=True)) == [
        (1, 0),
        (1, 7),
        (2, 3),
        (5, 12),
    ]
    assert tuple(drawn[2 * 4, 3 * 4]) == tuple(drawn[5 * 4, 12 * 4]) == RED
    assert tuple(drawn[4, 0]) == tuple(drawn[4, 7 * 4]) == GREEN


def test_what_is_framed_is_what_attends(kit: LoadedModel) -> None:
    drawn = np.asarray(inspect(picture_of(32, 32), kit, block=1, at=[(0, 0)]))
    framed = (drawn == RED).all(-1)
    assert framed[:4, :4].sum() > framed[4:8, :4].sum()
    frames = framed.reshape(8, 4, 8, 4).any((1, 3)).sum()
    most = kit.model.config.rounds * 2 * kit.model.config.neighbours
    assert 2 <= frames <= most


def test_equal_coefficients_have_equal_colours() -> None:
    kinds = torch.tensor([[9.0, 0.0, 0.0, 1.0], [0.0, 5.0, 0.0, 2.0], [0.0, 0.0, 2.0, 3.0]])
    chosen = torch.arange(60).view(6, 10) % 3
    colours = principal_colours(kinds[chosen].permute(2, 0, 1))
    assert colours.shape == (3, 6, 10)
    assert colours.min() >= 0
    assert colours.max() <= 1
    first = [colours[:, 0, kind] for kind in range(3)]
    for kind in range(3):
        same = colours[:, chosen == kind]
        torch.testing.assert_close(same, first[kind][:, None].expand_as(same))
        assert (first[kind] - first[kind - 1]).abs().max() > 0.2


def test_the_widest_component_is_red(generator: torch.Generator) -> None:
    ramp = torch.linspace(-1, 1, 64).expand(64, 64)
    noise = torch.randn(64, 64, generator=generator)
    colours = principal_colours(torch.stack((5 * ramp, 0.01 * noise)))
    correlation = torch.corrcoef(torch.stack((colours[0].flatten(), ramp.flatten())))[0, 1]
    assert abs(correlation) > 0.99
    assert (colours[2] == 0.5).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_pillow_turns_them(orientation: int) -> None:
    image = picture_of(3, 5)
    image = replace(image, metadata=Metadata(orientation=orientation))
    stored = PillowImage.fromarray((image.pixels * 255).byte().permute(1, 2, 0).numpy())
    stored.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(stored))
    turned = upright(image)
    assert turned.metadata.orientation == 1
    assert np.array_equal((turned.pixels * 255).byte().permute(1, 2, 0).numpy(), expected)


def test_a_crop_lies_inside() -> None:
    image = picture_of(6, 8)
    assert torch.equal(upright(image, (2, 1, 3, 4)).pixels, image.pixels[:, 1:5, 2:5])
    with pytest.raises(UsageError, match="does not lie inside"):
        upright(image, (6, 0, 3, 3))


def test_pixels_and_blocks_that_are_not_there(kit: LoadedModel, kbnet: LoadedModel) -> None:
    image = picture_of(16, 16)
    with pytest.raises(UsageError, match="pixel 16,3 lies outside"):
        inspect(image, kit, at=[(16, 3)])
    with pytest.raises(UsageError, match="blocks 1 to 5, not 6"):
        inspect(image, kit, block=6)
    with pytest.raises(UsageError, match="leave out --at"):
        inspect(image, kbnet, at=[(1, 1)])


def test_large_pictures_are_refused(kit: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "LARGEST_WHOLE", 100)
    with pytest.raises(UsageError, match="--crop"):
        inspect(picture_of(11, 10), kit)


@pytest.mark.parametrize("architecture", ["kit_xs", "kbnet_xs"])
def test_the_command_writes_a_png_of_the_same_size(
    run: Run, tmp_path: Path, photo: Path, architecture: str
) -> None:
    model = save_tiny(tmp_path / "model", architecture)
    code, text = run(photo, "--model", model, "--device", "cpu")
    target = tmp_path / "photo_inspect.png"
    assert (code, text.strip()) == (0, str(target))
    with PillowImage.open(target) as drawn, PillowImage.open(photo) as before:
        assert drawn.size == before.size
        assert not np.array_equal(np.asarray(drawn), np.asarray(before))
    code, text = run(photo, "--model", model)
    assert code != 0
    assert "exists" in text
    code, _ = run(photo, "--model", model, "-o", tmp_path / "new" / "looks" / "photo.png")
    assert code == 0


def test_the_command_says_what_is_wrong(run: Run, tmp_path: Path, photo: Path) -> None:
    toy = save_toy(tmp_path / "toy")
    for words, message in (
        (("--model", toy), "matches no patches and mixes no kernels"),
        (("--model", "kbnet_xs.raw"), "takes the mosaics of RAW files; choose another model"),
        (("--model", toy, "-o", "x.jpg"), "writes PNG"),
        (("--model", toy, "--at", "3"), "--at 3: give x,y"),
    ):
        code, text = run(photo, *words)
        assert code == 2
        assert message in text
        assert text.count("\n") == 1
