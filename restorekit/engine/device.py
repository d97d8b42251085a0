"""Where and how precisely a network runs: device, dtype, free memory and the largest tile."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from restorekit.errors import UnavailableError, UsageError
from restorekit.models.registry import torch_dtype

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "bfloat16", "float16", "float32")

_ALLOCATION_FAILURES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "ALLOC_FAILED",
)
_BYTES_A_PIXEL = 10_000
"""Activations of a network of 64 channels in float32, about ten of them alive at once."""
_LARGEST_TILE = {"cpu": 512, "cuda": 1024, "mps": 512}
_LARGEST_BATCH = 16
_UNKNOWN_MEMORY = 4 << 30
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def choose_device(name: str) -> torch.device:
    """Return the device of a name; auto takes the first of CUDA, MPS and CPU that is there.

    Raises:
        UsageError: no such kind of device.
        UnavailableError: the named device is not on this machine.
    """
    if name == "auto":
        return next(torch.device(kind) for kind in ("cuda", "mps", "cpu") if _count(kind) > 0)
    kind, colon, index = name.partition(":")
    if kind not in DEVICES[1:] or (colon and not index.isdecimal()):
        raise UsageError(f"{name!r} is no device; use one of {', '.join(DEVICES)}")
    if int(index or 0) >= _count(kind):
        raise UnavailableError(f"there is no device {name} here; use --device auto or cpu")
    return torch.device(name)


def _count(kind: str) -> int:
    """Return how many devices of a kind this machine has."""
    if kind == "cuda":
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    return 1


def choose_dtype(name: str, device: torch.device, safe: Sequence[str]) -> torch.dtype:
    """Return the dtype of a name; auto takes the fast one of the device where a network allows it.

    Args:
        name: auto, bfloat16, float16 or float32.
        device: where the network runs.
        safe: names of the dtypes that the network is safe in.

    Raises:
        UsageError: no such dtype.
    """
    if name not in DTYPES:
        raise UsageError(f"{name!r} is no dtype; use one of {', '.join(DTYPES)}")
    if name == "auto":
        fast = _fast_dtype(device)
        name = fast if fast in safe else "float32"
    return torch_dtype(name)


def _fast_dtype(device: torch.device) -> str:
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0) or torch.version.hip
        return "bfloat16" if native else "float16"
    if device.type == "mps":
        return "float16"
    able = torch.cpu.get_capabilities()
    fast = any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bfloat16" if fast else "float32"


def free_memory(device: torch.device) -> int:
    """Return the bytes that a device, or the host within its container's limit, has left."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return min(_free_on_host(), _free_in_container())


def _free_on_host() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable"))
        return int(kilobytes) * 1024
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return _UNKNOWN_MEMORY


def _free_in_container(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """Return what the control group (version 2) of this process may still take.

    Pages of files that were read count as used there, but the system gives them up on demand.
    """
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
        cached = next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    except (OSError, StopIteration, ValueError):
        return 1 << 62
    return max(limit - max(used - cached, 0), 0)


def largest_tile(device: torch.device, free: int) -> int:
    """Return the side of the largest tile that free bytes allow, in steps of 64 pixels.

    A CPU gains nothing from tiles that leave its cache.
    """
    side = int((free / 2 / _BYTES_A_PIXEL) ** 0.5)
    return min(max(side // 64 * 64, 64), _LARGEST_TILE[device.type])


def largest_batch(device: torch.device, tile: int, free: int) -> int:
    """Return how many tiles go through the network at once; one on a CPU."""
    if device.type == "cpu":
        return 1
    return min(max(free // 2 // (tile * tile * _BYTES_A_PIXEL), 1), _LARGEST_BATCH)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that an allocation failed, on whatever device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in _ALLOCATION_FAILURES
    )


def keep_freed_memory() -> None:
    """Let the C library reuse what tiles free, instead of asking the system for it anew.

    By default glibc maps and unmaps every large tensor, which costs a CPU a quarter of its time.
    Elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        library.mallopt(_M_TRIM_THRESHOLD, 256 << 20)


def empty_cache(device: torch.device) -> None:
    """Give memory that torch holds in reserve back to a device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
