"""The compiled kernels, held to the published order in float64 for each kind of processor."""

import pytest
import torch
from torch import Tensor

from restorekit.ops.kernel_basis import kernel_basis_attention, kernel_basis_reference
from restorekit.ops.kernel_basis_compiled import kernel_basis_compiled
from tests.processors import PROCESSORS, needs_compiler

BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1e-2}

Arguments = tuple[Tensor, Tensor, Tensor, Tensor]

pytestmark = [needs_compiler, pytest.mark.usefixtures("processor")]


def arguments(
    generator: torch.Generator,
    shape: tuple[int, int, int, int],
    count: int,
    dtype: torch.dtype = torch.float32,
) -> Arguments:
    batch, channels, height, width = shape

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(dtype).requires_grad_()

    return (
        draw(batch, channels, height, width),
        draw(batch, count, height, width),
        draw(count, channels, 4, 3, 3),
        draw(count, channels),
    )


def gradients(output: Tensor, inputs: Arguments) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(output.shape, generator=generator).to(output.dtype)
    return torch.autograd.grad(output, inputs, gradient)


def assert_right(inputs: Arguments) -> None:
    doubles = tuple(x.detach().double().requires_grad_() for x in inputs)
    output, exact = kernel_basis_compiled(*inputs), kernel_basis_reference(*doubles)
    found = output, *gradients(output, inputs)
    expected = exact, *gradients(exact, doubles)
    for one, other, like in zip(found, expected, (inputs[0], *inputs), strict=True):
        assert (one.shape, one.dtype) == (like.shape, like.dtype)
        assert (one.double() - other).norm() <= BOUNDS[one.dtype] * other.norm()


@pytest.mark.parametrize("processor", PROCESSORS, indirect=True)
@pytest.mark.parametrize("dtype", list(BOUNDS))
@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((1, 4, 1, 1), 1),
        ((1, 12, 1, 257), 5),
        ((2, 8, 63, 65), 8),
        ((3, 16, 16, 16), 32),
        ((1, 4, 2, 1500), 3),
        ((1, 8, 9, 7), 50),
    ],
)
def test_compiled_kernels_equal_the_published_order(
    generator: torch.Generator,
    dtype: torch.dtype,
    shape: tuple[int, int, int, int],
    count: int,
) -> None:
    assert_right(arguments(generator, shape, count, dtype))


@pytest.mark.parametrize("dtype", list(BOUNDS))
def test_any_memory_layout_is_read(generator: torch.Generator, dtype: torch.dtype) -> None:
    values, coefficients, bases, biases = arguments(generator, (2, 8, 9, 7), 3, dtype)
    expected = kernel_basis_compiled(values, coefficients, bases, biases)
    last = values.contiguous(memory_format=torch.channels_last)
    turned = values.transpose(2, 3).contiguous().transpose(2, 3)
    strided = torch.stack((coefficients, coefficients), -1)[..., 0]
    backwards = bases.flip(0).contiguous().flip(0)
    for layout in last, turned:
        assert torch.equal(kernel_basis_compiled(layout, strided, backwards, biases), expected)
    spread = torch.ones((), dtype=dtype).expand(expected.shape)
    given = torch.autograd.grad(expected, values, spread, retain_graph=True)
    assert torch.equal(given[0], torch.autograd.grad(expected, values, spread.contiguous())[0])


def test_the_same_call_gives_the_same_bits(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = arguments(generator, (2, 16, 33, 31), 8)
    found = []
    for threads in 1, 1, 2, 3:
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        output = kernel_basis_compiled(*inputs)
        found.append((output, *gradients(output, inputs)))
    assert all(map(torch.equal, found[0], found[1]))
    assert all(torch.equal(output, found[0][0]) for output, *_ in found[2:])
    for several in found[2:]:
        for one, other in zip(several, found[0], strict=True):
            torch.testing.assert_close(one, other)


def test_what_is_not_finite_stays_where_it_is(generator: torch.Generator) -> None:
    values, *others = (x.detach() for x in arguments(generator, (1, 8, 9, 30), 4, torch.bfloat16))
    values[0, 1, 4, 7], values[0, 6, 2, 20] = torch.nan, torch.inf
    mixed = kernel_basis_compiled(values, *others)
    broken = ~mixed.isfinite()
    assert broken[0, :4, 3:6, 6:9].all()
    assert broken[0, 4:, 1:4, 19:22].all()
    assert broken.sum() == 2 * 4 * 9


def test_gradients_do_not_depend_on_the_default_dtype(generator: torch.Generator) -> None:
    inputs = arguments(generator, (1, 8, 5, 6), 3)
    output = kernel_basis_compiled(*inputs)
    expected = torch.autograd.grad(output.sum(), inputs, retain_graph=True)
    torch.set_default_dtype(torch.float64)
    try:
        found = torch.autograd.grad(output.sum(), inputs)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("wrong", [1, 2, 3])
def test_shapes_that_do_not_fit_are_refused(generator: torch.Generator, wrong: int) -> None:
    inputs = list(arguments(generator, (1, 8, 5, 6), 3))
    inputs[wrong] = inputs[wrong][:, 1:]
    with pytest.raises(ValueError, match="do not fit values"):
        kernel_basis_attention(*inputs)
    inputs[wrong] = inputs[wrong].to("meta")
    with pytest.raises(ValueError, match="fit|one device"):
        kernel_basis_attention(*inputs)
