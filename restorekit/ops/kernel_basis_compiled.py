"""Kernel basis attention by compiled kernels for CPUs.

The machine's own compiler builds kernel_basis_forward.cpp and kernel_basis_backward.cpp once, in a
few seconds, into the user's cache folder. Without g++ (or the compiler that CXX names), or without
a place to write, there are none.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_SOURCES = tuple(
    Path(__file__).with_name(f"kernel_basis{name}")
    for name in (".h", "_forward.cpp", "_backward.cpp")
)
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared")
_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_GROUP = 4


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, or None where they cannot be built."""
    compiler = shutil.which(os.environ.get("CXX") or "g++")
    if sys.platform != "linux" or compiler is None:
        return None
    try:
        return ctypes.CDLL(str(build(compiler, *_FLAGS)))
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return None


def build(*command: str) -> Path:
    """Return the library that a compiler and its flags make of the kernels, cached.

    Raises:
        OSError: the cache folder cannot be written, or the compiler not be run.
        RuntimeError: there is no home folder.
        subprocess.SubprocessError: the compiler failed, or took over a minute.
    """
    processor = next(
        line
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.lower().startswith(("flags", "features"))
    )
    made_of = *(source.read_text(encoding="utf-8") for source in _SOURCES), *command, processor
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "restorekit"
    library = folder / f"kernel_basis-{sha256(repr(made_of).encode()).hexdigest()[:16]}.so"
    if not library.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as place:
            made = Path(place) / library.name
            subprocess.run(
                [*command, "-o", str(made), *map(str, _SOURCES[1:])],
                check=True,
                capture_output=True,
                timeout=60,
            )
            made.replace(library)
    return library


def runs_compiled(values: Tensor, bases: Tensor) -> bool:
    """Return whether the compiled kernels take these tensors, and can be built here.

    torch.compile cannot look into them, and gets the blocks of kernel_basis.
    """
    return (
        values.device.type == "cpu"
        and values.dtype in _DTYPES
        and bases.shape[2] == _GROUP
        and min(values.numel(), bases.numel()) > 0
        and not torch.compiler.is_compiling()
        and library() is not None
    )


def _call(
    name: str, viewed: tuple[Tensor, ...], dense: tuple[Tensor, ...], count: int, threads: int
) -> None:
    """Call a kernel on tensors in any layout, whose strides it is told, and on contiguous ones."""
    sizes = [*viewed[0].shape, count, *(stride for x in viewed for stride in x.stride())]
    kernel = getattr(library(), f"{name}_{_DTYPES[viewed[0].dtype]}")
    kernel(
        *(ctypes.c_void_p(x.data_ptr()) for x in (*viewed, *dense)),
        (ctypes.c_int64 * len(sizes))(*sizes),
        ctypes.c_int(threads),
    )


class _CompiledKernelBasis(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, coefficients: Tensor, bases: Tensor, biases: Tensor
    ) -> Tensor:
        ctx.save_for_backward(values, coefficients, bases, biases)
        mixed = torch.empty_like(values, memory_format=torch.channels_last)
        dense = bases, biases, mixed
        _call("forward", (values, coefficients), dense, len(bases), torch.get_num_threads())
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values, coefficients, bases, biases = ctx.saved_tensors
        batch, channels, height, width = values.shape
        parts = min(torch.get_num_threads(), channels // _GROUP)
        found = (
            torch.zeros(batch, height, width, channels),
            torch.empty(parts, batch, height, width, len(bases)),
            torch.empty(bases.shape),
            torch.empty(biases.shape),
        )
        viewed, dense = (values, coefficients, gradient), (bases, biases, *found)
        _call("backward", viewed, dense, len(bases), parts)
        by_values, by_coefficients, by_bases, by_biases = found
        return (
            by_values.to(values.dtype).permute(0, 3, 1, 2),
            by_coefficients.sum(0).to(values.dtype).permute(0, 3, 1, 2),
            by_bases.to(values.dtype),
            by_biases.to(values.dtype),
        )


def kernel_basis_compiled(
    values: Tensor, coefficients: Tensor, bases: Tensor, biases: Tensor
) -> Tensor:
    """Apply kernel basis attention by compiled kernels.

    Arguments and result are those of kernel_basis_reference, all of one dtype of float32 and
    bfloat16, in any memory layout; g is 4. Sums are float32.
    """
    mixed: Tensor = _CompiledKernelBasis.apply(  # type: ignore[no-untyped-call]
        values, coefficients, bases.contiguous(), biases.contiguous()
    )
    return mixed
