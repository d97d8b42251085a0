"""One quick score of every bundled model, as `models verify --scores` measures it."""

import json

import pytest
import torch

from restorekit.cli.main import main
from restorekit.engine.quick_score import TOLERANCE, drawn_pictures, quick_score
from restorekit.hub import DRAWN_SCORE, bundled_cards, load_model


@pytest.mark.parametrize("name", bundled_cards())
def test_a_bundled_model_scores_what_its_card_says(name: str) -> None:
    model = load_model(name)
    assert quick_score(model) == pytest.approx(model.card.scores[DRAWN_SCORE], abs=TOLERANCE)


def test_drawn_pictures_fill_the_range(generator: torch.Generator) -> None:
    pictures = drawn_pictures(generator)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert pictures.flatten(1).std(1).min() > 0.1


def test_verify_names_a_score_that_does_not_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "kbnet_xs.gaussian"
    card = bundled_cards()[name]
    monkeypatch.setattr("restorekit.engine.quick_score.quick_score", lambda _: 20.0)
    with pytest.raises(SystemExit, match="69"):
        main(["models", "verify", name, "--scores"])
    stated = card.scores[DRAWN_SCORE]
    said = capsys.readouterr().err
    assert f"{name} restores drawn pictures to 20.00 dB, its card says {stated:.2f} dB" in said
    monkeypatch.setattr("restorekit.engine.quick_score.quick_score", lambda _: stated + 0.01)
    with pytest.raises(SystemExit, match="0"):
        main(["models", "verify", name, "--scores", "--format", "json"])
    (verified,) = json.loads(capsys.readouterr().out)
    assert verified["scores"][DRAWN_SCORE] == pytest.approx(stated + 0.01)
