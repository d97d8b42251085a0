from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from restorekit.ops import compiled, kernel_prediction
from restorekit.ops.kernel_prediction import (
    adaptive_convolution,
    adaptive_convolution_reference,
    softmax_convolution,
    softmax_convolution_reference,
)
from tests.processors import PROCESSORS, needs_compiler


def draw(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class Allocations(TorchDispatchMode):
    """Remember the size of every tensor that an operator makes, views of its arguments aside."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, Tensor)}
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in known:
            self.sizes.append(result.numel())
        return result


@pytest.mark.parametrize("side", [1, 3, 5, 9])
@pytest.mark.parametrize("planes", [1, 3])
def test_taps_equal_the_unfolded_reference(generator: Generator, side: int, planes: int) -> None:
    frames, kernels = draw(generator, 2, 3, planes, 9, 7), draw(generator, 2, 3, side**2, 9, 7)
    torch.testing.assert_close(
        adaptive_convolution(frames, kernels), adaptive_convolution_reference(frames, kernels)
    )


def test_one_pixel_by_hand(generator: Generator) -> None:
    frames, kernels = draw(generator, 1, 1, 1, 5, 6), draw(generator, 1, 1, 9, 5, 6)
    inner = sum(
        frames[0, 0, 0, 2 + dy, 3 + dx] * kernels[0, 0, 3 * (dy + 1) + dx + 1, 2, 3]
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    )
    corner = sum(
        frames[0, 0, 0, max(dy, 0), max(dx, 0)] * kernels[0, 0, 3 * (dy + 1) + dx + 1, 0, 0]
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    )
    filtered = adaptive_convolution(frames, kernels)[0, 0, 0]
    torch.testing.assert_close(filtered[2, 3], inner)
    torch.testing.assert_close(filtered[0, 0], corner)


@pytest.mark.parametrize("planes", [1, 2])
def test_gradients_are_exact(generator: Generator, planes: int) -> None:
    frames = draw(generator, 2, 2, planes, 4, 5).requires_grad_()
    kernels = draw(generator, 2, 2, 9, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(adaptive_convolution, (frames, kernels))


def test_bfloat16_is_summed_in_float32(generator: Generator) -> None:
    frames = draw(generator, 1, 2, 1, 16, 16).abs().bfloat16()
    kernels = draw(generator, 1, 2, 81, 16, 16).abs().bfloat16()
    exact = adaptive_convolution_reference(frames.double(), kernels.double())
    filtered = adaptive_convolution(frames, kernels)
    assert filtered.dtype == torch.bfloat16
    assert ((filtered.double() - exact) / exact).abs().max() <= 2**-8
    mixed = adaptive_convolution(frames.float(), kernels)
    assert mixed.dtype == torch.float32
    assert ((mixed.double() - exact) / exact).abs().max() < 1e-5


def test_no_tensor_holds_the_neighbours_of_every_pixel(generator: Generator) -> None:
    side, height, width = 5, 24, 20
    frames = draw(generator, 1, 8, 3, height, width).float().requires_grad_()
    kernels = draw(generator, 1, 8, side**2, height, width).float().requires_grad_()
    padded = 8 * 3 * (height + side - 1) * (width + side - 1)
    with Allocations() as forward:
        filtered = adaptive_convolution(frames, kernels)
    assert max(forward.sizes) <= padded
    with Allocations() as backward:
        filtered.sum().backward()
    large = [size for size in backward.sizes if size > padded]
    assert set(large) == {kernels.numel()}
    with Allocations() as reference:
        adaptive_convolution_reference(frames, kernels)
    assert max(reference.sizes) >= side**2 * frames.numel()


def test_channels_last_kernels_give_the_same(generator: Generator) -> None:
    frames = draw(generator, 2, 2, 1, 6, 7)
    flat = draw(generator, 2, 18, 6, 7)
    expected = adaptive_convolution(frames, flat.unflatten(1, (2, 9)))
    strided = flat.contiguous(memory_format=torch.channels_last).unflatten(1, (2, 9))
    assert torch.equal(adaptive_convolution(frames, strided), expected)


@pytest.mark.parametrize("shape", [(1, 2, 8, 4, 4), (1, 2, 4, 4, 4), (1, 3, 9, 4, 4)])
def test_kernels_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"no square kernel of odd side|do not fit frames"):
        adaptive_convolution(torch.zeros(1, 2, 1, 4, 4), torch.zeros(shape))


@pytest.mark.parametrize(("side", "cell"), [(1, 1), (3, 1), (5, 1), (3, 2), (5, 2), (3, 3), (5, 4)])
@pytest.mark.parametrize("planes", [1, 3])
def test_softmax_weights_equal_the_reference(
    generator: Generator, side: int, cell: int, planes: int
) -> None:
    frames = draw(generator, 2, 3, planes, 5 * cell, 3 * cell)
    logits = draw(generator, 2, 3, side**2, cell**2, 5, 3)
    torch.testing.assert_close(
        softmax_convolution(frames, logits), softmax_convolution_reference(frames, logits)
    )


@pytest.mark.parametrize("pixels", [1, 40, 130])
def test_blocks_of_any_size_give_the_same(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, pixels: int
) -> None:
    frames, logits = draw(generator, 3, 5, 1, 8, 10), draw(generator, 3, 5, 9, 4, 4, 5)
    whole = softmax_convolution(frames, logits)
    monkeypatch.setattr(kernel_prediction, "BLOCK_PIXELS", pixels)
    assert torch.equal(softmax_convolution(frames, logits), whole)


@pytest.mark.parametrize(("planes", "cell"), [(1, 1), (2, 2)])
def test_gradients_of_softmax_weights_are_exact(
    generator: Generator, planes: int, cell: int
) -> None:
    frames = draw(generator, 2, 2, planes, 2 * cell, 3 * cell).requires_grad_()
    logits = draw(generator, 2, 2, 9, cell**2, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(softmax_convolution, (frames, logits))


def test_softmax_of_bfloat16_is_computed_in_float32(generator: Generator) -> None:
    frames = draw(generator, 1, 2, 1, 16, 16).abs().float()
    logits = draw(generator, 1, 2, 25, 4, 8, 8).bfloat16().requires_grad_()
    exact_logits = logits.detach().double().requires_grad_()
    exact = softmax_convolution_reference(frames.double(), exact_logits)
    filtered = softmax_convolution(frames, logits)
    assert filtered.dtype == torch.float32
    assert ((filtered.double() - exact) / exact).abs().max() < 1e-5
    torch.autograd.backward([filtered.sum(), exact.sum()])
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16
    torch.testing.assert_close(logits.grad.double(), exact_logits.grad, rtol=2**-8, atol=1e-6)


def test_logits_far_from_0_do_not_overflow(generator: Generator) -> None:
    frames, logits = draw(generator, 1, 2, 1, 4, 4).float(), draw(generator, 1, 2, 9, 1, 4, 4)
    for shift in (-1e4, 1e4):
        shifted = softmax_convolution(frames, logits.float() + shift)
        torch.testing.assert_close(
            shifted, softmax_convolution(frames, logits.float()), rtol=1e-2, atol=1e-2
        )


def test_no_tensor_holds_the_softmax_weights(generator: Generator) -> None:
    frames = draw(generator, 1, 8, 1, 24, 20).float()
    logits = draw(generator, 1, 8, 25, 4, 12, 10).float().requires_grad_()
    with Allocations() as forward:
        filtered = softmax_convolution(frames, logits)
    assert max(forward.sizes) <= 8 * 28 * 24
    with Allocations() as backward:
        filtered.sum().backward()
    assert {size for size in backward.sizes if size > 8 * 28 * 24} == {logits.numel()}


@pytest.mark.parametrize("shape", [(1, 2, 8, 1, 4, 4), (1, 2, 9, 4, 4, 4), (1, 3, 9, 1, 4, 4)])
def test_logits_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"no square kernel of odd side|do not fit frames"):
        softmax_convolution(torch.zeros(1, 2, 1, 4, 4), torch.zeros(shape))


@needs_compiler
@pytest.mark.parametrize("processor", PROCESSORS, indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("planes", "side", "cell", "height", "width"),
    [(1, 5, 2, 7, 19), (3, 3, 1, 5, 16), (4, 15, 1, 2, 33), (1, 1, 2, 1, 40)],
)
def test_compiled_softmax_weights_equal_the_reference(
    generator: Generator,
    processor: str,
    dtype: torch.dtype,
    planes: int,
    side: int,
    cell: int,
    height: int,
    width: int,
) -> None:
    frames = draw(generator, 2, 3, planes, height * cell, width * cell).float()
    logits = (30 * draw(generator, 2, 3, side**2, cell**2, height, width)).to(dtype)
    with torch.no_grad():
        assert compiled.library("softmax_convolution") is not None
        filtered = softmax_convolution(frames, logits)
    expected = softmax_convolution_reference(frames.double(), logits.double())
    assert filtered.dtype == torch.float32
    torch.testing.assert_close(filtered.double(), expected, rtol=1e-5, atol=1e-5)


@needs_compiler
def test_compiled_softmax_weights_pass_on_what_is_not_finite(generator: Generator) -> None:
    frames = draw(generator, 1, 2, 1, 6, 40).float()
    frames[0, 0, 0, 3, 20] = torch.nan
    logits = draw(generator, 1, 2, 9, 1, 6, 40).float()
    with torch.no_grad():
        broken = softmax_convolution(frames, logits).isnan()
    assert broken[0, 0, 0, 2:5, 19:22].all()
    assert broken.sum() == 9
