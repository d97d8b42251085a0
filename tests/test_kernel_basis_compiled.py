"""The compiled kernels, held to the published order in float64 for each kind of processor."""

import ctypes
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from restorekit.ops import kernel_basis_compiled as compiled
from restorekit.ops.kernel_basis import kernel_basis_attention, kernel_basis_reference
from restorekit.ops.kernel_basis_compiled import kernel_basis_compiled

COMPILER = shutil.which(os.environ.get("CXX") or "g++")
PROCESSORS = ["native"]
if platform.machine() == "x86_64":
    PROCESSORS += ["x86-64", "x86-64-v3"]
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1e-2}

Arguments = tuple[Tensor, Tensor, Tensor, Tensor]

pytestmark = pytest.mark.skipif(
    COMPILER is None or platform.system() != "Linux", reason="needs g++ on Linux"
)


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(folder))
        compiled.library.cache_clear()
        yield folder / "restorekit"
    compiled.library.cache_clear()


@pytest.fixture
def library(cache_folder: Path, monkeypatch: pytest.MonkeyPatch, processor: str) -> None:
    """Build for a processor whose instructions this one may have more of."""
    assert COMPILER is not None
    flags = [flag.replace("native", processor) for flag in compiled._FLAGS]
    built = ctypes.CDLL(str(compiled.build(COMPILER, *flags)))
    monkeypatch.setattr(compiled, "library", lambda: built)


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


@pytest.mark.parametrize("processor", PROCESSORS)
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
    library: None,
    dtype: torch.dtype,
    shape: tuple[int, int, int, int],
    count: int,
) -> None:
    assert_right(arguments(generator, shape, count, dtype))


@pytest.mark.parametrize("processor", ["native"])
@pytest.mark.parametrize("dtype", list(BOUNDS))
def test_any_memory_layout_is_read(
    generator: torch.Generator, library: None, dtype: torch.dtype
) -> None:
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


@pytest.mark.parametrize("processor", ["native"])
def test_the_same_call_gives_the_same_bits(
    generator: torch.Generator, library: None, monkeypatch: pytest.MonkeyPatch
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


@pytest.mark.parametrize("processor", ["native"])
def test_what_is_not_finite_stays_where_it_is(generator: torch.Generator, library: None) -> None:
    values, *others = (x.detach() for x in arguments(generator, (1, 8, 9, 30), 4, torch.bfloat16))
    values[0, 1, 4, 7], values[0, 6, 2, 20] = torch.nan, torch.inf
    mixed = kernel_basis_compiled(values, *others)
    broken = ~mixed.isfinite()
    assert broken[0, :4, 3:6, 6:9].all()
    assert broken[0, 4:, 1:4, 19:22].all()
    assert broken.sum() == 2 * 4 * 9


def test_a_library_is_built_once_and_used(
    generator: torch.Generator, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = arguments(generator, (1, 8, 5, 6), 3)
    compiled.library.cache_clear()
    output = kernel_basis_attention(*inputs)
    assert torch.equal(output, kernel_basis_compiled(*inputs))
    compiled.library.cache_clear()
    monkeypatch.setattr(subprocess, "run", lambda *_: pytest.fail("compiled once more"))
    assert torch.equal(output, kernel_basis_attention(*inputs))
    assert all(path.suffix == ".so" for path in cache_folder.iterdir())


@pytest.mark.parametrize("lack", ["compiler", "place", "program"])
def test_without_compiled_kernels_all_works(
    generator: torch.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lack: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if lack == "compiler":
        monkeypatch.setenv("CXX", str(tmp_path / "none"))
    elif lack == "place":
        (tmp_path / "cache").write_text("a file")
    else:
        monkeypatch.setattr(compiled, "_SOURCES", (tmp_path / "none.h", tmp_path / "broken.cpp"))
        for source in compiled._SOURCES:
            source.write_text("no program")
    compiled.library.cache_clear()
    inputs = arguments(generator, (1, 8, 5, 6), 3)
    torch.testing.assert_close(kernel_basis_attention(*inputs), kernel_basis_reference(*inputs))
    assert compiled.library() is None
    compiled.library.cache_clear()
