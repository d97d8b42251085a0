"""The compiled halves of KBNet's block, held to its layers in float64."""

import copy

import pytest
import torch
from torch import nn

from restorekit.models.kb_unet import KBBlock
from restorekit.ops import gated_block
from tests.processors import PROCESSORS, needs_compiler

BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1e-2}

pytestmark = [needs_compiler, pytest.mark.usefixtures("processor")]


def block(channels: int, bases: int, lightweight: bool, ffn_scale: float) -> KBBlock:
    """Return a block whose branches all tell."""
    torch.manual_seed(0)
    made = KBBlock(channels, bases, lightweight, ffn_scale)
    for name, parameter in made.named_parameters():
        if name in ("beta", "gamma") or name.endswith("scale"):
            nn.init.uniform_(parameter, 0.5, 1)
        elif "norm" in name:
            nn.init.normal_(parameter, std=0.5)
    return made


@pytest.mark.parametrize("processor", PROCESSORS, indirect=True)
@pytest.mark.parametrize("dtype", list(BOUNDS))
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("shape", "bases", "lightweight", "ffn_scale"),
    [
        ((1, 16, 1, 1), 0, True, 2),
        ((2, 32, 19, 50), 0, True, 2),
        ((1, 48, 9, 101), 0, True, 4),
        ((1, 64, 33, 7), 8, True, 2),
        ((1, 32, 12, 9), 8, False, 3),
        ((2, 128, 8, 8), 0, True, 2),
    ],
)
def test_compiled_blocks_equal_their_layers(
    generator: torch.Generator,
    dtype: torch.dtype,
    shape: tuple[int, int, int, int],
    bases: int,
    lightweight: bool,
    ffn_scale: float,
    frozen: bool,
) -> None:
    layers = block(shape[1], bases, lightweight, ffn_scale).to(dtype)
    features = torch.randn(shape, generator=generator).to(dtype)
    if frozen:
        assert layers.attention is not None
        layers.attention.pool.frozen = torch.randn(1, shape[1], 1, 1, generator=generator)
    with torch.no_grad():
        expected = copy.deepcopy(layers).double()(features.double())
        assert gated_block.runs_compiled(features, layers.reduce.in_channels)
        found = layers(features)
    assert (found.shape, found.dtype) == (features.shape, dtype)
    assert (found.double() - expected).norm() <= BOUNDS[dtype] * expected.norm()


def test_threads_and_layout_change_no_bit(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = block(32, 0, True, 2)
    features = torch.randn((2, 32, 21, 50), generator=generator)
    layouts = features, features.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        found = [layers(x) for x in layouts]
        for threads in 2, 5:
            monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
            found.append(layers(features))
    assert all(torch.equal(other, found[0]) for other in found)


def test_autocast_computes_in_its_dtype(generator: torch.Generator) -> None:
    layers = block(32, 0, True, 2)
    features = torch.randn((1, 32, 9, 9), generator=generator)
    with torch.no_grad():
        expected = layers(features)
        with torch.autocast("cpu", torch.bfloat16):
            found = layers(features.bfloat16())
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() <= 1e-2 * expected.norm()


def test_gradients_take_the_layers(generator: torch.Generator) -> None:
    features = torch.randn((1, 32, 9, 9), generator=generator)
    assert not gated_block.runs_compiled(features, 32)
    with torch.no_grad():
        assert gated_block.runs_compiled(features, 32)
        assert not gated_block.runs_compiled(features, 40)
        assert not gated_block.runs_compiled(features[:, :24], 32)
        assert not gated_block.runs_compiled(features.double(), 32)
