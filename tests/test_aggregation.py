import json

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from restorekit.errors import ConfigError
from restorekit.models import RestorationModel, create_model
from restorekit.models.aggregation import (
    AGGREGATIONS,
    WINDOW,
    Aggregation,
    DynamicConv,
    KernelPrediction,
    SoftmaxCoefficients,
    WindowAttention,
)
from restorekit.models.complexity import count_macs
from restorekit.models.kbnet_s import BRANCHES
from restorekit.models.registry import count_parameters

TINY = {
    "width": 16,
    "encoder_blocks": [2],
    "middle_blocks": 1,
    "decoder_blocks": [1],
    "bases": 4,
    "lightweight": True,
    "ffn_scale": 1.5,
}
SWITCHES = [
    *({"aggregation": name} for name in AGGREGATIONS),
    *({"branches": name} for name in BRANCHES[:-1]),
]


def tiny(**switches: str) -> RestorationModel:
    torch.manual_seed(0)
    return create_model("kbnet_s", {**TINY, **switches})


def gathered(aggregation: Aggregation, features: Tensor) -> Tensor:
    with torch.no_grad():
        aggregation.scale.fill_(1)
        return aggregation(features) - features


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_every_switch_restores_odd_sizes_and_learns(
    switches: dict[str, str], generator: torch.Generator
) -> None:
    model = tiny(**switches)
    for size in ((1, 1), (19, 35)):
        picture = torch.rand(2, 3, *size, generator=generator)
        restored = model(picture)
        assert restored.shape == picture.shape
        assert restored.isfinite().all()
    restored.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_switches_are_part_of_the_config(
    switches: dict[str, str], generator: torch.Generator
) -> None:
    model = tiny(**switches)
    again = create_model("kbnet_s", json.loads(json.dumps(model.config_values())))
    again.load_state_dict(model.state_dict())
    picture = torch.rand(1, 3, 16, 24, generator=generator)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(again(picture), model(picture))
    assert all(tensor.is_floating_point() for tensor in model.state_dict().values())


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_frozen_pooling_makes_a_crop_equal_the_whole(
    aggregation: str, generator: torch.Generator
) -> None:
    model = tiny(aggregation=aggregation).double()
    picture = torch.rand(1, 3, 96, 96, generator=generator, dtype=torch.float64)
    crop = picture[..., 32:, 32:]
    with torch.no_grad():
        model.freeze_pooling(picture)
        difference = (model(picture)[..., 32:, 32:] - model(crop)).abs()
        assert difference[..., 32:, 32:].max() < 1e-12
        model.release_pooling()
        assert not torch.equal(model(crop), model(picture)[..., 32:, 32:])


def test_dynamic_frozen_coefficients_serve_every_picture(generator: torch.Generator) -> None:
    layer = DynamicConv(16, 4)
    pictures = torch.randn(3, 16, 6, 6, generator=generator)
    expected = layer.coefficients(pictures)
    assert not torch.allclose(expected[0], expected[1])
    layer.pool.measuring = True
    frozen = layer.coefficients(pictures)
    layer.pool.measuring = False
    assert frozen.shape == (3, 4)
    assert torch.equal(layer.coefficients(pictures[:2] + 1), frozen[:2])


def test_softmax_coefficients_sum_to_one(generator: torch.Generator) -> None:
    coefficients = SoftmaxCoefficients(16, 8, 16)(torch.randn(2, 16, 5, 7, generator=generator))
    assert coefficients.shape == (2, 8, 5, 7)
    assert coefficients.min() > 0
    torch.testing.assert_close(coefficients.sum(1), torch.ones(2, 5, 7))
    plain, softmax = tiny(aggregation="kba"), tiny(aggregation="kba-softmax")
    softmax.load_state_dict(plain.state_dict())
    picture = torch.rand(1, 3, 16, 16, generator=generator)
    assert not torch.equal(plain(picture), softmax(picture))


def test_dynamic_is_a_convolution_of_each_picture(generator: torch.Generator) -> None:
    layer = DynamicConv(16, 4)
    features = torch.randn(2, 16, 5, 7, generator=generator)
    with torch.no_grad():
        layer.biases.normal_(generator=generator)
    result = gathered(layer, features)
    coefficients = layer.coefficients(features).detach()
    for picture, weights, output in zip(features, coefficients, result, strict=True):
        assert float(weights.sum()) == pytest.approx(1)
        kernel = sum(w * base for w, base in zip(weights, layer.bases, strict=True))
        bias = sum(w * base for w, base in zip(weights, layer.biases, strict=True))
        expected = F.conv2d(picture[None], kernel, bias, padding=1, groups=4)[0]
        torch.testing.assert_close(output, expected.detach(), rtol=1e-4, atol=1e-5)


def test_kernel_prediction_is_a_loop_over_pixels(generator: torch.Generator) -> None:
    layer = KernelPrediction(3)
    features = torch.randn(1, 3, 3, 4, generator=generator)
    kernels = layer.kernels(features)[0].detach()
    result = gathered(layer, features)[0]
    for c in range(3):
        for y in range(3):
            for x in range(4):
                total = 0.0
                for k in range(9):
                    row, column = y + k // 3 - 1, x + k % 3 - 1
                    if 0 <= row < 3 and 0 <= column < 4:
                        total += float(kernels[9 * c + k, y, x] * features[0, c, row, column])
                assert float(result[c, y, x]) == pytest.approx(total, abs=1e-5)


def plain_attention(layer: WindowAttention, pixels: Tensor, places: Tensor) -> Tensor:
    """Attend between (P, C) pixels at (P, 2) places of one window, and project."""
    weight = layer.qkv.weight[:, :, 0, 0]
    parts = (pixels @ weight.t() + layer.qkv.bias).view(len(pixels), 3, -1, layer.size)
    query, key, value = parts.permute(1, 2, 0, 3)
    apart = places[:, None] - places + WINDOW - 1
    bias = layer.biases.view(-1, 2 * WINDOW - 1, 2 * WINDOW - 1)[:, apart[..., 0], apart[..., 1]]
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    joined = mixed.transpose(0, 1).flatten(1)
    return joined @ layer.project.weight[:, :, 0, 0].t() + layer.project.bias


@pytest.mark.parametrize("shifted", [False, True])
def test_each_window_is_plain_attention(shifted: bool, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    layer = WindowAttention(64, shifted)
    height, width = 11, 16
    features = torch.randn(1, 64, height, width, generator=generator)
    with torch.no_grad():
        layer.biases.normal_(generator=generator)
        result = gathered(layer, features)[0]
    borders = [4, 12] if shifted else [8]
    rows = [range(height)[a:b] for a, b in zip([None, *borders], [*borders, None], strict=True)]
    columns = [range(width)[a:b] for a, b in zip([None, *borders], [*borders, None], strict=True)]
    for window in ((r, c) for r in rows for c in columns if r):
        places = torch.cartesian_prod(*(torch.tensor(side) for side in window))
        y, x = places.unbind(1)
        expected = plain_attention(layer, features[0, :, y, x].t(), places)
        torch.testing.assert_close(result[:, y, x].t(), expected, rtol=1e-4, atol=1e-4)


def test_multiplications_are_those_of_the_table() -> None:
    network = {"width": 32, "lightweight": True, "ffn_scale": 1.5}
    table = {
        "dynamic": 12.0,
        "kernel-prediction": 55.1,
        "window": 21.9,
        "kba-softmax": 15.3,
        "kba": 15.3,
    }
    for aggregation, published in table.items():
        with torch.device("meta"):
            model = create_model("kbnet_s", {**network, "aggregation": aggregation})
        complexity = count_macs(model)
        assert complexity.macs_layers / 1e9 == pytest.approx(published, rel=0.035)
        assert complexity.macs > complexity.macs_layers


def test_multiplications_of_operators_by_hand() -> None:
    features = torch.empty(2, 16, 12, 8)
    pixels = 2 * 12 * 8
    assert KernelPrediction(16).extra_macs(features) == pixels * 16 * 9
    assert DynamicConv(16, 4).extra_macs(features) == pixels * 16 * 36 + 2 * 4 * 16 * 36
    assert WindowAttention(16, False).extra_macs(features) == 2 * 2 * (16 * 8) * 64 * 16
    assert WindowAttention(16, True).extra_macs(features) == 2 * 2 * (16 * 16) * 64 * 16


def test_branches_and_bases_change_the_size() -> None:
    sizes = [count_parameters(tiny(branches=name)) for name in BRANCHES]
    assert sizes == sorted(set(sizes))
    more = create_model("kbnet_s", {**TINY, "bases": 128})
    assert count_parameters(more) > sizes[-1]
    assert more(torch.zeros(1, 3, 8, 8)).isfinite().all()


def test_unknown_switches_are_refused() -> None:
    with pytest.raises(ConfigError, match="aggregation must be one of kba, kba-softmax"):
        tiny(aggregation="involution")
    with pytest.raises(ConfigError, match="branches must be one of dw, dw\\+ca"):
        tiny(branches="ca")
    with pytest.raises(ConfigError, match="needs bases"):
        create_model("kbnet_s", {"aggregation": "dynamic", "bases": 0})
