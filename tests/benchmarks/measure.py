"""What the benchmarks measure: time, memory and the machine's own ceilings, on CPU and CUDA."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

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


class _LiveMemory(TorchDispatchMode):
    """Follow the bytes of the tensors that operators make and that still live."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(  # type: ignore[no-untyped-def]
        self, function, types, args=(), kwargs=None
    ):
        result = function(*args, **(kwargs or {}))
        given = {x.untyped_storage().data_ptr() for x in args if isinstance(x, Tensor)}
        if isinstance(result, Tensor):
            storage = result.untyped_storage()
            place, size = storage.data_ptr(), storage.nbytes()
            if place not in given | self._known:
                self._known.add(place)
                self.live += size
                self.most = max(self.most, self.live)
                weakref.finalize(storage, self._forget, place, size)
        return result

    def _forget(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.live -= size


def peak_memory(call: Call, device: torch.device) -> int:
    """Return the most bytes that a call holds at once beside its inputs."""
    if device.type == "cuda":
        call()
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _LiveMemory() as memory:
        call()
    return memory.most


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
