"""What the benchmarks measure: time, memory and the machine's own ceilings, on CPU and CUDA."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

Call = Callable[[], object]


def seconds(call: Call, device: torch.device, calls: int = 1) -> float:
    """Return how long a call takes, the mean of some in a row."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        for _ in range(calls):
            call()
        end.record()
        torch.cuda.synchronize(device)
        return float(start.elapsed_time(end)) / 1e3 / calls
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - started) / calls


def medians(
    calls: Mapping[str, Call], device: torch.device, repeats: int, calls_each: int = 1
) -> dict[str, float]:
    """Return the median seconds of every call, all run in turn after one round to warm up."""
    timed: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            timed[name].append(seconds(call, device, calls_each))
    return {name: statistics.median(times[1:]) for name, times in timed.items()}


def replayed(call: Call, device: torch.device) -> Call:
    """Return a call as a CUDA graph, whose launches cost the device no waiting; on a CPU as is."""
    if device.type != "cuda":
        return call
    aside = torch.cuda.Stream(device)
    aside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(aside):
        for _ in range(3):
            call()
    torch.cuda.current_stream(device).wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def peak_memory(call: Call, device: torch.device) -> int:
    """Return the most bytes that a call holds at once beside its inputs; on a CPU, as Linux counts.

    Raises:
        OSError: this is a CPU, and the system is not Linux.
    """
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _resident("VmRSS")
    call()
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    """Return the bytes that Linux counts under a name; the peak since clear_refs is VmHWM."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name))) << 10


def product_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Return the operations a second of a large square matrix product."""
    side = 8192 if device.type == "cuda" else 2048
    square = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / min(seconds(lambda: square @ square, device) for _ in range(5))


def copy_rate(device: torch.device) -> float:
    """Return the bytes a second, read and written, of a copy that no cache holds."""
    source = torch.empty(1 << (32 if device.type == "cuda" else 28), dtype=torch.uint8)
    source = source.to(device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(seconds(lambda: target.copy_(source), device) for _ in range(5))


def device_name(device: torch.device) -> str:
    """Return what the numbers were measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
