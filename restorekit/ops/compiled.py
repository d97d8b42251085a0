"""Kernels for CPUs that the machine's own compiler builds from the C++ beside this file.

Each is built at its first use, in about a second, into the user's cache folder. Without g++ (or the
compiler that CXX names), or without a place to write, there are none, and plain PyTorch serves.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

_FOLDER = Path(__file__).parent
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared")
_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


@cache
def library(name: str) -> ctypes.CDLL | None:
    """Return the compiled kernels of a source file, or None where they cannot be built."""
    compiler = shlex.split(os.environ.get("CXX") or "g++")
    if sys.platform != "linux" or shutil.which(compiler[0]) is None:
        return None
    for _ in range(2):
        try:
            built = build(name, *compiler, *_FLAGS)
        except (OSError, RuntimeError, subprocess.SubprocessError):
            return None
        try:
            return ctypes.CDLL(str(built))
        except OSError:
            # What was cached is broken, or of another system.
            built.unlink(missing_ok=True)
    return None


def build(name: str, *command: str) -> Path:
    """Return the library that a compiler and its flags make of a source file, cached.

    Raises:
        OSError: the cache folder cannot be written, or the compiler not be run.
        RuntimeError: there is no home folder.
        subprocess.SubprocessError: the compiler failed, or took over a minute.
    """
    processor = platform.machine(), *_instructions()
    source = _FOLDER / f"{name}.cpp"
    texts = [path.read_text(encoding="utf-8") for path in (*sorted(_FOLDER.glob("*.h")), source)]
    digest = sha256(repr((texts, command, processor)).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    folder = (cache if cache.is_absolute() else Path.home() / ".cache") / "restorekit"
    library = folder / f"{name}-{digest}.so"
    if not library.is_file():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as place:
            made = Path(place) / library.name
            subprocess.run(
                [*command, "-o", str(made), str(source)],
                check=True,
                capture_output=True,
                timeout=60,
            )
            with made.open("rb") as written:
                os.fsync(written.fileno())
            made.replace(library)
    return library


def _instructions() -> list[str]:
    """Return the lines in which Linux names the instructions that the processor has."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines()
    return sorted({line for line in lines if line.lower().startswith(("flags", "features"))})


def runs(name: str, values: Tensor) -> bool:
    """Return whether a source file's kernels take a tensor's device and dtype, and can be built.

    torch.compile cannot look into them, and gets plain PyTorch.
    """
    return (
        values.device.type == "cpu"
        and values.dtype in _DTYPES
        and values.numel() > 0
        and not torch.compiler.is_compiling()
        and library(name) is not None
    )


def call(
    name: str, dtype: torch.dtype, tensors: Sequence[Tensor], sizes: Sequence[int], threads: int
) -> None:
    """Call the kernel for a dtype, of the same name as its source file.

    Args:
        name: of the source file.
        dtype: float32 or bfloat16.
        tensors: whose memory it takes, in its order.
        sizes: of them, and strides.
        threads: that share the work.
    """
    kernel = getattr(library(name), f"{name}_{_DTYPES[dtype]}")
    kernel(
        *(ctypes.c_void_p(x.data_ptr()) for x in tensors),
        (ctypes.c_int64 * len(sizes))(*sizes),
        ctypes.c_int(threads),
    )
