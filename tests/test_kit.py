from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor

from restorekit.errors import ConfigError
from restorekit.models import architectures, create_model
from restorekit.models.complexity import count_macs
from restorekit.models.kit import KiTConfig, KNNAttention
from restorekit.ops.knn_attention import knn_attention_reference, patch_hashes

TINY: KiTConfig = architectures()["kit"].tiny


def built(**changes: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model("kit", asdict(TINY) | changes).eval()


def attention(**changes: object) -> KNNAttention:
    torch.manual_seed(0)
    return KNNAttention(8, 3, replace(TINY, **changes), seed=0)


def test_published_size() -> None:
    with torch.device("meta"):
        model = create_model("kit")
    complexity = count_macs(model)
    assert complexity.parameters == pytest.approx(20.6e6, rel=0.03)
    assert complexity.macs_layers == pytest.approx(43.08e9, rel=0.03)
    assert [len(stage) for stage in model.encoders] == [2, 2, 2]
    assert len(model.bottleneck) == 2
    assert [len(stage) for stage in model.decoders] == [2, 2, 2]
    assert all(block.attention.neighbours == 1 for block in model.bottleneck)


def test_attention_is_the_reference_on_its_projections(generator: torch.Generator) -> None:
    features = torch.randn(2, 8, 10, 12, generator=generator)
    module = attention()
    queries, keys, values = module.project(features).chunk(3, 1)
    hashes = patch_hashes(features, module.rotations, TINY.patch)
    expected = knn_attention_reference(queries, keys, values, hashes, TINY.patch, 3)
    torch.testing.assert_close(module(features), expected, rtol=1e-5, atol=1e-5)


def test_shared_projections_have_queries_for_keys(generator: torch.Generator) -> None:
    features = torch.randn(1, 8, 8, 8, generator=generator)
    module = attention(share_qk=True)
    shared, values = module.project(features).chunk(2, 1)
    hashes = patch_hashes(features, module.rotations, TINY.patch)
    expected = knn_attention_reference(shared, shared, values, hashes, TINY.patch, 3)
    torch.testing.assert_close(module(features), expected, rtol=1e-5, atol=1e-5)


def test_the_search_changes_results_and_no_parameter(generator: torch.Generator) -> None:
    picture = torch.rand(1, 3, 32, 32, generator=generator)
    first = built()
    with torch.no_grad():
        plain: Tensor = first(picture)
        for change in ({"neighbours": 1}, {"rounds": 1}, {"buckets": 2}, {"seed": 7}):
            other = built(**change)
            other.load_state_dict(first.state_dict())
            assert not torch.equal(other(picture), plain)
            assert (other(picture) - plain).abs().max() < 0.1


def test_fewer_rounds_are_the_first_ones() -> None:
    few, many = attention(rounds=2), attention(rounds=4)
    assert torch.equal(few.rotations, many.rotations[:2])
    blocks = [m for m in built().modules() if isinstance(m, KNNAttention)]
    drawn = {m.rotations[0, 0].sum().item() for m in blocks}
    assert len(drawn) == len(blocks)


def test_attention_macs_by_hand() -> None:
    features = torch.zeros(1, 8, 16, 16)
    module = attention(rounds=2, buckets=6)
    flat, patches = 16 * 8, 16
    pairs = patches * 2 * 3
    expected = 2 * (patches * flat * 3 + pairs * 16 * 16 * 8 * 2)
    assert module.extra_macs(features) == expected


def test_cost_is_linear_in_pixels() -> None:
    with torch.device("meta"):
        model = create_model("kit_xs")
    small, large = count_macs(model, 128, 128), count_macs(model, 512, 512)
    assert large.macs == pytest.approx(16 * small.macs, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"blocks": (1, 1)}, "not 2 and 3"),
        ({"neighbours": 0}, "at least 1"),
        ({"buckets": 5}, "even"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(TINY, **changes)
