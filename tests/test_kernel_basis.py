import pytest
import torch
from torch import Tensor

from restorekit.ops import kernel_basis
from restorekit.ops.kernel_basis import kernel_basis_attention, kernel_basis_reference


@pytest.fixture(autouse=True)
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the compiled kernels, which have tests of their own, aside."""
    monkeypatch.setattr(kernel_basis, "runs_compiled", lambda *_: False)


def arguments(
    generator: torch.Generator,
    shape: tuple[int, int, int, int],
    count: int = 3,
    group: int = 4,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, channels, height, width = shape

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)

    return (
        draw(batch, channels, height, width),
        draw(batch, count, height, width),
        draw(count, channels, group, 3, 3),
        draw(count, channels),
    )


def test_reference_is_the_sum_over_bases_of_grouped_convolutions(
    generator: torch.Generator,
) -> None:
    values, coefficients, bases, biases = arguments(generator, (2, 8, 6, 5))
    expected = sum(
        coefficients[:, n, None]
        * torch.nn.functional.conv2d(values, bases[n], biases[n], padding=1, groups=2)
        for n in range(3)
    )
    torch.testing.assert_close(
        kernel_basis_reference(values, coefficients, bases, biases), expected
    )


@pytest.mark.parametrize("group", [2, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 257), (63, 65), (8, 8)])
@pytest.mark.parametrize("block_bytes", [1, 1 << 14, 1 << 30])
def test_blocks_equal_the_reference(
    generator: torch.Generator,
    monkeypatch: pytest.MonkeyPatch,
    group: int,
    size: tuple[int, int],
    block_bytes: int,
) -> None:
    monkeypatch.setattr(kernel_basis, "BLOCK_BYTES", block_bytes)
    inputs = arguments(generator, (3, 8, *size), group=group)
    torch.testing.assert_close(
        kernel_basis_attention(*inputs), kernel_basis_reference(*inputs), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_low_precision_stays_near_float64(
    generator: torch.Generator, dtype: torch.dtype, bound: float
) -> None:
    inputs = arguments(generator, (2, 16, 33, 31), count=8, dtype=dtype)
    exact = kernel_basis_reference(*(x.double() for x in inputs))
    mixed = kernel_basis_attention(*inputs)
    assert mixed.dtype == dtype
    assert (mixed.double() - exact).norm() / exact.norm() < bound


def test_any_memory_layout_gives_the_same(generator: torch.Generator) -> None:
    values, coefficients, bases, biases = arguments(generator, (2, 8, 6, 9))
    expected = kernel_basis_attention(values, coefficients, bases, biases)
    last = values.to(memory_format=torch.channels_last)
    strided = torch.stack((values, values), -1)[..., 0]
    for layout in (last, strided):
        assert torch.equal(kernel_basis_attention(layout, coefficients, bases, biases), expected)


@pytest.mark.parametrize("block_bytes", [700, 1 << 21])
def test_gradients_are_right(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(kernel_basis, "BLOCK_BYTES", block_bytes)
    inputs = tuple(x.requires_grad_() for x in arguments(generator, (2, 4, 5, 4), count=2))
    assert torch.autograd.gradcheck(kernel_basis_attention, inputs)


def test_no_tensor_holds_a_kernel_for_every_pixel(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_basis, "BLOCK_BYTES", 1 << 15)
    values, coefficients, bases, biases = arguments(
        generator, (1, 8, 64, 64), count=4, dtype=torch.float32
    )
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.numel())
            return result

    with Watch(), torch.no_grad():
        kernel_basis_attention(values, coefficients, bases, biases)
    assert largest <= 2 * values.numel()
    assert largest < values.numel() * bases.shape[2] * 9 / 10
