"""The processes of one training run, as torchrun starts them, or just this one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Processes:
    """Say which of how many processes this is, and on which device it works."""

    rank: int
    count: int
    device: torch.device

    def wait(self) -> None:
        """Return once every process has come here."""
        if self.count > 1:
            dist.barrier()

    def first(self, value: float) -> float:
        """Return the value of process 0 in every process."""
        if self.count == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return float(tensor)

    def any(self, wish: bool) -> bool:
        """Return in every process whether one of them has a wish."""
        if self.count == 1:
            return wish
        tensor = torch.tensor([float(wish)], device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return bool(tensor.item())


@contextmanager
def join_processes() -> Iterator[Processes]:
    """Join the processes of this run, over NCCL on CUDA devices and over gloo elsewhere."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if count == 1:
        yield Processes(0, 1, device)
        return
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Processes(dist.get_rank(), count, device)
    finally:
        dist.destroy_process_group()
