import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor

from restorekit.errors import ConfigError
from restorekit.losses import l1
from restorekit.models import NoiseInput, RestorationModel, Tiling, create_model
from restorekit.models.complexity import count_macs
from restorekit.models.kpn import KernelPredictionNetwork, KPNConfig, PlanarConv
from restorekit.models.registry import Batch
from restorekit.ops.color import linear_to_srgb
from restorekit.ops.kernel_prediction import adaptive_convolution_reference
from restorekit.tiling import Blend, cut, plan_tiles

PUBLISHED = KPNConfig(frames=4, widths=(8, 12), convolutions=1, kernel_sizes=(3,))
KPN = replace(PUBLISHED, channel_attention=False, spatial_attention=False, residual=False)
MKPN = replace(KPN, kernel_sizes=(1, 3, 5), separable=True)
COMPACT = replace(PUBLISHED, compact=True)
COLOUR = replace(PUBLISHED, channels=3)
CONFIGS = {"published": PUBLISHED, "kpn": KPN, "mkpn": MKPN, "compact": COMPACT, "colour": COLOUR}
ABLATION = [
    (False, False, False),
    (True, False, False),
    (False, True, False),
    (True, True, False),
    (False, False, True),
    (True, True, True),
]
"""Channel attention, spatial attention and residual map of Models 1 to 6 in the paper's Table 2."""


@pytest.fixture(params=CONFIGS)
def network(request: pytest.FixtureRequest) -> RestorationModel:
    return build(CONFIGS[request.param])


def build(config: KPNConfig) -> RestorationModel:
    torch.manual_seed(0)
    return create_model("ame_kpn", asdict(config)).eval()


def trained(config: KPNConfig, generator: Generator, strength: float = 0.2) -> RestorationModel:
    """Return a network whose predictions depend on its input, as a fresh one's hardly do."""
    network = build(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += strength * torch.randn(parameter.shape, generator=generator)
    return network


def burst(network: RestorationModel, generator: Generator, *size: int, count: int = 4) -> Tensor:
    return torch.rand(2, count * network.spec.out_channels, *size, generator=generator)


def noise(picture: Tensor) -> Tensor:
    return torch.full_like(picture[:, :1], 0.05)


def test_the_contract(network: RestorationModel) -> None:
    spec = network.spec
    assert spec.frames == 4
    assert spec.in_channels == spec.frames * spec.out_channels
    assert spec.noise_input is NoiseInput.STD_MAP
    assert spec.tiling is Tiling.APPROXIMATE
    with pytest.raises(ValueError, match="noise deviation"):
        network(torch.zeros(1, spec.in_channels, 8, 8))
    with pytest.raises(ValueError, match="no burst of up to 4 frames"):
        network(torch.zeros(1, spec.in_channels + 1, 8, 8), torch.ones(1, 1, 8, 8))


@pytest.mark.parametrize("size", [(1, 1), (1, 19), (24, 32), (17, 9)])
def test_any_size_comes_back(
    network: RestorationModel, generator: Generator, size: tuple[int, int]
) -> None:
    frames = burst(network, generator, *size)
    restored = network(frames, noise(frames))
    assert restored.shape == (2, network.spec.out_channels, *size)
    assert restored.isfinite().all()


def test_every_parameter_has_a_gradient(network: RestorationModel, generator: Generator) -> None:
    frames = burst(network, generator, 24, 24)
    clean = frames[:, : network.spec.out_channels]
    white = torch.full((2, 1, 1, 1), 0.7)
    network.loss(Batch(frames, clean, noise(frames), white), l1, 0).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_weights_and_config_rebuild_the_network(
    network: RestorationModel, generator: Generator, tmp_path: Path
) -> None:
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    again = create_model("ame_kpn", json.loads(json.dumps(network.config_values()))).eval()
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    frames = burst(network, generator, 16, 16)
    assert torch.equal(again(frames, noise(frames)), network(frames, noise(frames)))


def test_bfloat16_stays_near_float32(network: RestorationModel, generator: Generator) -> None:
    frames = burst(network, generator, 32, 32)
    with torch.no_grad():
        exact = network(frames, noise(frames))
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(frames, noise(frames))
    assert (rough - exact).abs().max() < 0.02
    assert (rough - exact).abs().mean() < 0.003


@pytest.mark.parametrize("config", [PUBLISHED, COMPACT, COLOUR])
def test_missing_and_zero_frames_are_absent(config: KPNConfig, generator: Generator) -> None:
    network = trained(config, generator)
    planes = config.channels
    frames = burst(network, generator, 12, 12)
    few = network(frames[:, : 2 * planes], noise(frames))
    zeros = frames.clone()
    zeros[:, 2 * planes :] = 0
    assert torch.equal(network(zeros, noise(frames)), few)
    mixed = torch.stack((frames[0], zeros[1]))
    together = network(mixed, noise(frames))
    torch.testing.assert_close(together[0], network(frames, noise(frames))[0])
    torch.testing.assert_close(together[1], few[1])
    assert not torch.allclose(together[1], network(frames, noise(frames))[1], atol=1e-4)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_compact_shares_sum_to_one_over_the_frames_that_are_there(
    generator: Generator, count: int, residual: bool
) -> None:
    network = trained(replace(COMPACT, residual=residual), generator)
    assert isinstance(network, KernelPredictionNetwork)
    frames = burst(network, generator, 12, 12, count=count)
    _, shares = network._predict(frames, noise(frames))
    torch.testing.assert_close(shares.sum(1), torch.ones(2, 1, 12, 12))
    assert (shares[:, count:] == 0).all()
    if not residual:
        flat = torch.full((1, count, 12, 12), 0.3)
        torch.testing.assert_close(network(flat, noise(flat)), flat[:, :1])


@pytest.mark.parametrize("count", [2, 4])
def test_a_fresh_network_gives_nearly_the_mean(generator: Generator, count: int) -> None:
    for config in (PUBLISHED, KPN, MKPN):
        network = build(config)
        smooth = F.interpolate(torch.rand(1, count, 3, 3, generator=generator), (32, 32))
        restored = network(smooth, noise(smooth))
        assert (restored - smooth.mean(1, keepdim=True)).abs().mean() < 0.06


def test_separable_kernels_are_products(generator: Generator) -> None:
    network = build(replace(MKPN, kernel_sizes=(1, 3)))
    assert isinstance(network, KernelPredictionNetwork)
    frames = torch.rand(1, 4, 1, 5, 6, generator=generator)
    small, large = (torch.rand(1, 4 * 2 * side, 5, 6, generator=generator) for side in (1, 3))
    column, row = large.view(1, 4, 2, 3, 5, 6).unbind(2)
    dense = torch.einsum("bnyhw,bnxhw->bnyxhw", column, row).flatten(2, 3)
    point = small.view(1, 4, 2, 1, 5, 6).prod(2)
    expected = (frames * point + adaptive_convolution_reference(frames, dense)) / 2
    torch.testing.assert_close(network._filtered(frames, (small, large)), expected)


def test_the_output_follows_the_papers_equation(generator: Generator) -> None:
    network = trained(PUBLISHED, generator)
    assert isinstance(network, KernelPredictionNetwork)
    frames = burst(network, generator, 8, 8)
    features = network.features(network._seen(frames[:, :, None], noise(frames)))
    assert network.weigh is not None
    kernels, residuals = network.predict(features).split((36, 4), 1)
    trust = network.weigh(features).sigmoid()
    filtered = adaptive_convolution_reference(frames[:, :, None], kernels.unflatten(1, (4, 9)))
    expected = (trust * filtered[:, :, 0] + (1 - trust) * residuals).mean(1, keepdim=True)
    torch.testing.assert_close(network(frames, noise(frames)), expected)


def test_the_loss_of_single_frames_is_annealed(generator: Generator) -> None:
    network = trained(PUBLISHED, generator)
    assert isinstance(network, KernelPredictionNetwork)
    frames = burst(network, generator, 8, 8)
    frames[:, 3] = 0
    clean, white = frames[:, :1] * 0.9, torch.full((2, 1, 1, 1), 0.5)
    batch = Batch(frames, clean, noise(frames), white)
    own, _ = network._predict(frames, noise(frames))

    def compared(picture: Tensor) -> Tensor:
        return l1(linear_to_srgb(picture / white), linear_to_srgb(clean / white))

    last = compared(network(frames, noise(frames)))
    each = sum(compared(own[:, index]) for index in range(3))
    for step in (0, 5000):
        expected = last + 100 * 0.9998**step * each
        torch.testing.assert_close(network.loss(batch, l1, step), expected)
    torch.testing.assert_close(network.loss(batch, l1, 100_000), last)


@pytest.mark.parametrize("config", [PUBLISHED, COMPACT])
def test_tiles_of_an_odd_picture_agree_with_the_whole(
    config: KPNConfig, generator: Generator
) -> None:
    network = trained(config, generator, 0.02)
    side = network.spec.multiple_of
    picture = torch.rand(4, 40 * side + 1, 41 * side - 1, generator=generator)
    plan = plan_tiles(*picture.shape[1:], 24 * side, 12 * side, side)
    blend = Blend(plan, 1)
    with torch.no_grad():
        network.freeze_pooling(picture[None], noise(picture[None]))
        for index, box in enumerate(plan.boxes):
            tile = cut(picture, box)[None]
            blend.add(index, network(tile, noise(tile))[0])
        whole = network(picture[None], noise(picture[None]))[0]
    assert len(plan.boxes) > 1
    assert (blend.picture() - whole).abs().max() < 1e-3


@pytest.mark.parametrize("config", [PUBLISHED, COMPACT])
def test_frozen_pooling_makes_a_crop_equal_the_whole(
    config: KPNConfig, generator: Generator
) -> None:
    network = trained(config, generator).double()
    side = network.spec.multiple_of
    picture = burst(network, generator, 24 * side, 24 * side).double()
    piece = slice(8 * side, None)
    crop = picture[..., piece, piece]
    margin = 12 * side
    with torch.no_grad():
        network.freeze_pooling(picture, noise(picture))
        whole = network(picture, noise(picture))[..., piece, piece]
        part = network(crop, noise(crop))
        assert (whole - part)[..., margin:, margin:].abs().max() < 1e-9
        network.release_pooling()
        assert not torch.allclose(network(crop, noise(crop)), part, atol=1e-6)


def test_the_six_ablation_rows_differ_by_their_modules() -> None:
    sizes = []
    for channel, spatial, residual in ABLATION:
        switches = {"channel_attention": channel, "spatial_attention": spatial}
        with torch.device("meta"):
            model = create_model("ame_kpn", {**switches, "residual": residual})
        sizes.append(count_macs(model, 64, 64))
    plain, channel_, spatial_, both, residual_, everything = (size.parameters for size in sizes)
    assert channel_ + spatial_ - plain == both
    assert residual_ + both - plain == everything
    assert spatial_ - plain == 4 * (2 * 7 * 7 + 1)
    assert residual_ - plain == (64 + 1) * 8 + (64 * 9 + 1) * 64 + (64 + 1) * 8
    for size in sizes:
        assert size.macs - size.macs_layers == 64 * 64 * 8 * 25


def test_the_published_widths_by_hand() -> None:
    with torch.device("meta"):
        model = create_model(
            "ame_kpn",
            {"channel_attention": False, "spatial_attention": False, "residual": False},
        )
    ins = [(9, 64), (64, 128), (128, 256), (256, 512), (512, 512)]
    ins += [(1024, 512), (768, 256), (384, 128), (192, 64)]
    levels = sum(9 * i * o + o + 2 * (9 * o * o + o) for i, o in ins)
    head = 9 * 64 * 64 + 64 + 65 * 200
    assert sum(p.numel() for p in model.parameters()) == levels + head


def test_configs_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        KPNConfig(frames=1)
    with pytest.raises(ConfigError, match="must be odd"):
        KPNConfig(kernel_sizes=(4,))
    with pytest.raises(ConfigError, match="one size"):
        KPNConfig(compact=True, separable=True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_planar_convolution_equals_a_convolution(
    generator: torch.Generator, layout: torch.memory_format
) -> None:
    features = torch.randn(2, 6, 5, 7, generator=generator).contiguous(memory_format=layout)
    convolution = PlanarConv(6, torch.randn(10, generator=generator))
    planes = convolution(features)
    assert planes.is_contiguous()
    torch.testing.assert_close(planes, F.conv2d(features, convolution.weight, convolution.bias))


@pytest.mark.parametrize("attention", [True, False])
def test_a_deeper_network_begins_as_a_shallower_one(
    attention: bool, generator: torch.Generator
) -> None:
    config = KPNConfig(
        widths=(8, 16),
        convolutions=1,
        kernel_sizes=(3,),
        channel_attention=attention,
        spatial_attention=attention,
        compact=True,
    )
    shallow = KernelPredictionNetwork(config).eval()
    deep = KernelPredictionNetwork(replace(config, convolutions=3)).eval()
    deep.load_state_dict(deep.adopted(shallow.state_dict()))
    frames, noise = torch.rand(2, 8, 16, 12, generator=generator), torch.full((2, 1, 1, 1), 0.1)
    with torch.no_grad():
        torch.testing.assert_close(deep(frames, noise), shallow(frames, noise))
    kept = shallow.adopted(shallow.state_dict())
    assert kept.keys() == shallow.state_dict().keys()
