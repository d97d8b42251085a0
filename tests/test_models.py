import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from restorekit.errors import ConfigError
from restorekit.models import NoiseInput, RestorationModel, architectures, create_model
from restorekit.models.blocks import START_SCALE, ChannelAttention, LayerNorm
from restorekit.models.complexity import count_macs
from restorekit.models.kb_unet import KBBlock
from restorekit.models.kit import KiT
from restorekit.models.registry import Batch

NAMES = sorted(name for name in architectures() if name.startswith(("kbnet", "kit")))


@pytest.fixture(params=NAMES)
def tiny(request: pytest.FixtureRequest) -> RestorationModel:
    torch.manual_seed(0)
    architecture = architectures()[request.param]
    model: RestorationModel = architecture.build(architecture.tiny)
    return model


def noise_of(model: RestorationModel, picture: Tensor) -> Tensor | None:
    if model.spec.noise_input is NoiseInput.NONE:
        return None
    return torch.full_like(picture[:, :1], 0.1)


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (40, 56), (33, 17)])
def test_any_size_comes_back(
    tiny: RestorationModel, generator: torch.Generator, size: tuple[int, int]
) -> None:
    picture = torch.rand(2, tiny.spec.in_channels, *size, generator=generator)
    restored = tiny(picture, noise_of(tiny, picture))
    assert restored.shape == (2, tiny.spec.out_channels, *size)
    assert restored.isfinite().all()


def test_every_parameter_has_a_gradient(tiny: RestorationModel, generator: torch.Generator) -> None:
    clean = torch.rand(2, tiny.spec.in_channels, 32, 32, generator=generator)
    degraded = clean + 0.1 * torch.randn(clean.shape, generator=generator)
    batch = Batch(degraded, clean, noise_of(tiny, clean))
    tiny.loss(batch, torch.nn.functional.l1_loss, 0).backward()
    for name, parameter in tiny.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_weights_and_config_rebuild_the_network(
    tiny: RestorationModel, generator: torch.Generator, tmp_path: Path
) -> None:
    name = next(n for n, a in architectures().items() if a.build is type(tiny))
    config = json.loads(json.dumps(tiny.config_values()))
    save_file(tiny.state_dict(), tmp_path / "model.safetensors")
    again = create_model(name, config)
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    picture = torch.rand(1, tiny.spec.in_channels, 24, 24, generator=generator)
    with torch.no_grad():
        expected = tiny(picture, noise_of(tiny, picture))
        assert torch.equal(again(picture, noise_of(again, picture)), expected)


def test_bfloat16_stays_near_float32(tiny: RestorationModel, generator: torch.Generator) -> None:
    picture = torch.rand(1, tiny.spec.in_channels, 32, 32, generator=generator)
    with torch.no_grad():
        exact = tiny(picture, noise_of(tiny, picture))
        with torch.autocast("cpu", torch.bfloat16):
            rough = tiny(picture, noise_of(tiny, picture))
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.05
    assert (rough - exact).abs().mean() < 0.01


def test_frozen_pooling_makes_a_crop_equal_the_whole(
    tiny: RestorationModel, generator: torch.Generator
) -> None:
    if isinstance(tiny, KiT):
        pytest.skip("sorting sees every patch of the input, whatever is frozen")
    tiny = tiny.double().eval()
    side = tiny.spec.multiple_of
    picture = torch.rand(
        1, tiny.spec.in_channels, 16 * side, 16 * side, generator=generator, dtype=torch.float64
    )
    noise = noise_of(tiny, picture)
    margin, piece = 8 * side, slice(4 * side, None)
    crop = picture[..., piece, piece]
    with torch.no_grad():
        tiny.freeze_pooling(picture, noise)
        whole = tiny(picture, noise)
        part = tiny(crop, noise_of(tiny, crop))
        difference = (whole[..., piece, piece] - part)[..., margin:, margin:].abs().max()
        assert difference < 1e-6
        tiny.release_pooling()
        assert not torch.equal(tiny(crop, noise_of(tiny, crop)), part)


def test_published_sizes() -> None:
    published = {
        ("kbnet_s", ()): (141.97, 68.7, 45.9 + 1.4 + 1.3),
        ("kbnet_s", (("lightweight", True), ("ffn_scale", 1.5))): (128.40, 57.8, 48.6),
        ("kbnet_l", ()): (29.57, 107.7, None),
    }
    for (name, changes), (parameters, layers, basis) in published.items():
        with torch.device("meta"):
            model = create_model(name, dict(changes))
        complexity = count_macs(model)
        assert round(complexity.parameters / 1e6, 2) == parameters
        assert round(complexity.macs_layers / 1e9, 1) == layers
        if basis is not None:
            extra = (complexity.macs - complexity.macs_layers) / 1e9
            assert extra == pytest.approx(basis, abs=0.1)


def test_macs_of_one_convolution_by_hand() -> None:
    with torch.device("meta"):
        small = create_model("kbnet_xs", dataclasses.asdict(architectures()["kbnet_xs"].tiny))
    once = count_macs(small, 64, 64)
    assert count_macs(small, 128, 128).macs_layers == pytest.approx(4 * once.macs_layers, rel=0.01)
    assert once.macs > once.macs_layers


def test_grey_networks_have_one_plane(generator: torch.Generator) -> None:
    for name in NAMES:
        config = dataclasses.asdict(architectures()[name].tiny) | {"channels": 1}
        model = create_model(name, config)
        picture = torch.rand(1, 1, 16, 16, generator=generator)
        assert model(picture, noise_of(model, picture)).shape == picture.shape


def test_layer_norm_normalises_channels(generator: torch.Generator) -> None:
    features = 5 + 3 * torch.randn(2, 16, 4, 5, generator=generator)
    normal = LayerNorm(16)(features)
    torch.testing.assert_close(normal.mean(1), torch.zeros(2, 4, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        normal.var(1, unbiased=False), torch.ones(2, 4, 5), atol=1e-4, rtol=0
    )


def test_fresh_block_is_nearly_the_identity(generator: torch.Generator) -> None:
    features = torch.randn(1, 16, 12, 12, generator=generator)
    block = KBBlock(16, 4, False, 2.0)
    assert (block(features) - features).abs().mean() < 10 * START_SCALE


def test_channel_attention_weighs_by_the_mean(generator: torch.Generator) -> None:
    attention = ChannelAttention(4, 6)
    features = torch.randn(2, 4, 8, 8, generator=generator)
    expected = features.mean((2, 3)) @ attention.mix.weight[:, :, 0, 0].t() + attention.mix.bias
    torch.testing.assert_close(attention(features)[..., 0, 0], expected)


def test_gradients_of_channel_attention_keep_channels_innermost(
    generator: torch.Generator,
) -> None:
    features = torch.randn(2, 4, 5, 7, generator=generator, dtype=torch.float64)
    attention = ChannelAttention(4, 6).double()
    assert torch.autograd.gradcheck(attention, features.requires_grad_())
    attention(features).sum().backward()
    assert features.grad is not None
    expected = attention.mix.weight.sum(0).view(1, 4, 1, 1).expand_as(features) / 35
    torch.testing.assert_close(features.grad, expected)
    [gradient] = torch.autograd.grad(attention(features).sum(), features)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", architectures())
def test_every_network_refuses_settings_that_make_none(name: str) -> None:
    tiny = dataclasses.asdict(architectures()[name].tiny)
    setting, value = ("width", 0) if "width" in tiny else ("widths", (0, 0))
    with pytest.raises(ConfigError, match=f"{name} cannot take these settings"):
        create_model(name, tiny | {setting: value})


def test_unknown_names_and_settings_are_refused() -> None:
    for settings in ({"width": "x"}, {"bases": 8}, {"bases": [0, "8"]}, {"noise_map": 1}):
        with pytest.raises(ConfigError, match=r"kbnet_xs cannot take .* is of the kind of .*, not"):
            create_model("kbnet_xs", settings)
    with pytest.raises(ConfigError, match="no architecture 'kbnet_z'"):
        create_model("kbnet_z")
    with pytest.raises(ConfigError, match="no setting widht"):
        create_model("kbnet_xs", {"widht": 3})


def test_a_noise_map_network_asks_for_its_map() -> None:
    tiny = architectures()["kbnet_xs"].tiny
    with pytest.raises(ValueError, match="noise deviation"):
        create_model("kbnet_xs", dataclasses.asdict(tiny))(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("name", ["kbnet_s", "kbnet_xs"])
def test_an_encoder_and_a_decoder_of_different_depth_are_refused(name: str) -> None:
    for decoder in ((1,), (1, 1, 1)):
        config = {"width": 8, "encoder_blocks": (1, 1), "decoder_blocks": decoder}
        with pytest.raises(ConfigError, match=rf"not 2 and {len(decoder)}$"):
            create_model(name, config)


def test_a_network_for_mosaics_begins_as_one_for_colour(generator: torch.Generator) -> None:
    tiny = dataclasses.asdict(architectures()["kbnet_xs"].tiny)
    torch.manual_seed(0)
    colour = create_model("kbnet_xs", tiny)
    mosaic = create_model("kbnet_xs", {**tiny, "channels": 4})
    mosaic.load_state_dict(mosaic.adopted(colour.state_dict()))
    picture = torch.rand(2, 3, 24, 40, generator=generator)
    told = torch.full_like(picture[:, :1], 0.1)
    restored = mosaic(picture[:, [0, 1, 1, 2]], told)
    assert torch.allclose(restored, colour(picture, told)[:, [0, 1, 1, 2]], atol=1e-5)


def test_a_deeper_network_begins_as_a_shallower_one(generator: torch.Generator) -> None:
    config = {"width": 8, "encoder_blocks": (1, 2), "middle_blocks": 1, "decoder_blocks": (2, 1)}
    shallow = create_model("kbnet_xs", {**config, "bases": (0, 4, 4)}).eval()
    deep = create_model(
        "kbnet_xs",
        {
            "width": 8,
            "encoder_blocks": (1, 4),
            "middle_blocks": 3,
            "decoder_blocks": (3, 1),
            "bases": (0, 4, 4),
        },
    ).eval()
    start = deep.adopted(shallow.state_dict())
    assert start.keys() < deep.state_dict().keys()
    deep.load_state_dict({**deep.state_dict(), **start})
    picture, noise = torch.rand(1, 3, 16, 16, generator=generator), torch.full((1, 1, 1, 1), 0.1)
    with torch.no_grad():
        torch.testing.assert_close(deep(picture, noise), shallow(picture, noise))
    assert shallow.adopted(shallow.state_dict()).keys() == shallow.state_dict().keys()
