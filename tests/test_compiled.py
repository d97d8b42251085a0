"""How compiled kernels come to be, and what happens without them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from restorekit.ops import compiled
from restorekit.ops.kernel_basis import kernel_basis_attention, kernel_basis_reference
from tests.processors import needs_compiler

pytestmark = needs_compiler


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiled.library.cache_clear()
    yield tmp_path / "cache" / "restorekit"
    compiled.library.cache_clear()


def mixed(generator: torch.Generator) -> torch.Tensor:
    """Return kernel basis attention, which is right by whatever path."""
    sizes = (1, 8, 5, 6), (1, 3, 5, 6), (3, 8, 4, 3, 3), (3, 8)
    inputs = [torch.randn(size, generator=generator) for size in sizes]
    found = kernel_basis_attention(*inputs)
    torch.testing.assert_close(found, kernel_basis_reference(*inputs))
    return found


def test_a_library_is_built_once_and_used(
    generator: torch.Generator, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed(generator)
    assert compiled.library("kernel_basis_forward") is not None
    compiled.library.cache_clear()
    monkeypatch.setattr(subprocess, "run", lambda *_: pytest.fail("compiled once more"))
    mixed(generator)
    assert [path.suffix for path in cache_folder.iterdir()] == [".so"]


def test_a_broken_library_is_built_anew(generator: torch.Generator, cache_folder: Path) -> None:
    mixed(generator)
    [path] = cache_folder.iterdir()
    path.unlink()
    path.write_text("no library")
    compiled.library.cache_clear()
    mixed(generator)
    assert compiled.library("kernel_basis_forward") is not None


def test_a_compiler_may_have_words(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "g++ -pipe")
    mixed(generator)
    assert compiled.library("kernel_basis_forward") is not None


@pytest.mark.parametrize("lack", ["compiler", "place", "program"])
def test_without_compiled_kernels_all_works(
    generator: torch.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lack: str
) -> None:
    if lack == "compiler":
        monkeypatch.setenv("CXX", str(tmp_path / "none"))
    elif lack == "place":
        (tmp_path / "cache").write_text("a file")
    else:
        monkeypatch.setattr(compiled, "_FOLDER", tmp_path)
        (tmp_path / "kernel_basis_forward.cpp").write_text("no program")
    mixed(generator)
    assert compiled.library("kernel_basis_forward") is None
