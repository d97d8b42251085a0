"""The fused kernels, on the GPU where there is one and else in Triton's interpreter on the CPU."""

import importlib.util
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from restorekit.ops import kernel_basis
from restorekit.ops.kernel_basis import kernel_basis_attention, kernel_basis_reference

if importlib.util.find_spec("triton") is None:
    pytest.skip("needs triton, which CUDA builds of torch bring", allow_module_level=True)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

with pytest.MonkeyPatch.context() as environment:
    if DEVICE == "cpu":
        environment.setenv("TRITON_INTERPRET", "1")
    from restorekit.ops import kernel_basis_fused as fused
    from restorekit.ops.kernel_basis_fused import kernel_basis_fused

Arguments = tuple[Tensor, Tensor, Tensor, Tensor]
BOUNDS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")


def arguments(
    generator: torch.Generator,
    shape: tuple[int, int, int, int],
    count: int = 8,
    group: int = 4,
    dtype: torch.dtype = torch.float32,
) -> Arguments:
    batch, channels, height, width = shape

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(DEVICE, dtype).requires_grad_()

    return (
        draw(batch, channels, height, width),
        draw(batch, count, height, width),
        draw(count, channels, group, 3, 3),
        draw(count, channels),
    )


def results(
    operator: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], inputs: Arguments
) -> tuple[Tensor, ...]:
    """Return the output and the gradients of all inputs."""
    output = operator(*inputs)
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(output.shape, generator=generator).to(DEVICE, output.dtype)
    return output.detach(), *torch.autograd.grad(output, inputs, gradient)


def assert_near(found: tuple[Tensor, ...], exact: tuple[Tensor, ...], bound: float) -> None:
    for one, other in zip(found, exact, strict=True):
        assert one.shape == other.shape
        assert torch.isfinite(one).all()
        assert (one.double() - other).norm() <= bound * other.norm()


def assert_right(inputs: Arguments) -> None:
    """Compare the output and all gradients with the published order in float64."""
    doubles = tuple(x.detach().double().requires_grad_() for x in inputs)
    found, exact = results(kernel_basis_fused, inputs), results(kernel_basis_reference, doubles)
    assert all(x.dtype == inputs[0].dtype for x in found)
    assert_near(found, exact, BOUNDS[inputs[0].dtype])


@pytest.mark.parametrize(
    ("shape", "count", "group"),
    [
        ((1, 4, 1, 1), 8, 4),
        ((1, 8, 1, 257), 8, 2),
        ((3, 8, 6, 5), 3, 4),
        ((2, 20, 7, 4), 32, 4),
        ((2, 34, 4, 7), 128, 2),
    ],
)
def test_output_and_gradients_are_those_of_the_reference(
    generator: torch.Generator, shape: tuple[int, int, int, int], count: int, group: int
) -> None:
    assert_right(arguments(generator, shape, count, group))


def test_output_of_many_blocks_is_that_of_the_reference(generator: torch.Generator) -> None:
    inputs = tuple(x.detach() for x in arguments(generator, (1, 4, 63, 65)))
    exact = kernel_basis_reference(*(x.double() for x in inputs))
    assert_near((kernel_basis_fused(*inputs),), (exact,), 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("group", [2, 4])
def test_low_precision_stays_near_float64(
    generator: torch.Generator, dtype: torch.dtype, group: int
) -> None:
    assert_right(arguments(generator, (2, 20, 7, 9), 16, group, dtype))


def test_any_memory_layout_gives_the_same_bits(generator: torch.Generator) -> None:
    inputs = arguments(generator, (2, 8, 5, 7))
    expected = results(kernel_basis_fused, inputs)
    values, coefficients, bases, biases = (x.detach() for x in inputs)
    for change in (
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: torch.stack((x, x), -1)[..., 0],
        lambda x: torch.nn.functional.pad(x, (1, 2, 3, 1))[..., 3:-1, 1:-2],
        lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    ):
        laid = (change(values), change(coefficients), bases.clone(), biases.clone())
        found = results(kernel_basis_fused, tuple(x.requires_grad_() for x in laid))
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_an_expanded_gradient_is_read_by_its_strides(generator: torch.Generator) -> None:
    inputs = arguments(generator, (2, 4, 3, 5))
    found = torch.autograd.grad(kernel_basis_fused(*inputs).sum(), inputs)
    doubles = tuple(x.detach().double().requires_grad_() for x in inputs)
    exact = torch.autograd.grad(kernel_basis_reference(*doubles).sum(), doubles)
    assert_near(found, exact, 1e-5)


@pytest.mark.parametrize("programs", [1, 1 << 20])
def test_sums_split_among_any_number_of_programs_are_right(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch, programs: int
) -> None:
    monkeypatch.setattr(fused, "_PROGRAMS", programs)
    assert_right(arguments(generator, (2, 36, 9, 10)))


def test_results_repeat_bit_by_bit(generator: torch.Generator) -> None:
    inputs = arguments(generator, (2, 20, 7, 9), dtype=torch.bfloat16)
    first, second = (results(kernel_basis_fused, inputs) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_the_operators_keep_the_rules_of_torch(generator: torch.Generator) -> None:
    inputs = arguments(generator, (2, 4, 3, 5))
    torch.library.opcheck(torch.ops.restorekit.kernel_basis, inputs)
    plain = tuple(x.detach() for x in (inputs[0], *inputs))
    torch.library.opcheck(torch.ops.restorekit.kernel_basis_backward, plain)


def test_compiled_code_holds_the_operator_whole(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_basis, "_runs_fused", lambda values, bases: True)
    inputs = arguments(generator, (1, 4, 3, 5))
    compiled = torch.compile(kernel_basis_attention, backend="aot_eager", fullgraph=True)
    found, expected = results(compiled, inputs), results(kernel_basis_fused, inputs)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_autocast_computes_in_the_dtype_of_the_values(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_basis, "_runs_fused", lambda values, bases: True)
    values, coefficients, bases, biases = arguments(generator, (1, 8, 4, 6))
    point = torch.nn.Conv2d(8, 8, 1, device=DEVICE)
    with torch.autocast(DEVICE, torch.bfloat16):
        mixed = kernel_basis_attention(point(values), coefficients, bases, biases)
        mixed.float().square().mean().backward()
    assert mixed.dtype == torch.bfloat16
    assert all(x.grad.dtype == torch.float32 for x in (values, coefficients, bases, biases))
    exact = kernel_basis_reference(point(values), coefficients, bases, biases)
    assert (mixed - exact).norm() < 2e-2 * exact.norm()


def test_tf32_is_used_only_where_torch_permits_it(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, _, bases, _ = arguments(generator, (1, 4, 1, 1))
    for permitted, precision in ((False, "ieee"), (True, "tf32")):
        monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(allow_tf32=permitted))
        assert fused._sizes(values, bases)["PRECISION"] == precision
        assert fused._sizes(values.half(), bases)["PRECISION"] == "ieee"


def test_the_cpu_keeps_the_blocked_path(generator: torch.Generator) -> None:
    values, _, bases, _ = arguments(generator, (1, 4, 2, 2))
    assert not kernel_basis._runs_fused(values.cpu(), bases.cpu())


@pytest.mark.gpu
@pytest.mark.parametrize(("channels", "size"), [(64, 256), (128, 63), (1024, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("group", [2, 4])
def test_real_sizes_on_the_gpu(
    generator: torch.Generator, channels: int, size: int, dtype: torch.dtype, group: int
) -> None:
    inputs = arguments(generator, (1, channels, size, size), 32, group, dtype)
    assert kernel_basis._runs_fused(inputs[0], inputs[2])
    assert_right(inputs)


@pytest.mark.gpu
def test_memory_on_the_gpu_holds_no_kernel_for_every_pixel(generator: torch.Generator) -> None:
    inputs = arguments(generator, (1, 64, 256, 256), 32, dtype=torch.bfloat16)
    results(kernel_basis_attention, inputs)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results(kernel_basis_attention, inputs)
    kernels = inputs[0].numel() * 36 * inputs[0].element_size()
    assert torch.cuda.max_memory_allocated() - before < kernels / 4


@pytest.mark.gpu
def test_a_cuda_graph_replays_the_kernels(generator: torch.Generator) -> None:
    inputs = tuple(x.detach() for x in arguments(generator, (2, 64, 33, 47), 32))
    expected = kernel_basis_attention(*inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = kernel_basis_attention(*inputs)
    captured.zero_()
    graph.replay()
    assert torch.equal(captured, expected)
