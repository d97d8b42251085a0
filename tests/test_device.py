from pathlib import Path

import pytest
import torch

from restorekit.engine.device import (
    _free_in_container,
    choose_device,
    choose_dtype,
    is_out_of_memory,
    largest_batch,
    largest_tile,
)
from restorekit.errors import UnavailableError, UsageError


def test_a_named_device_must_be_there_and_auto_always_is() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(UnavailableError, match="cuda:99"):
        choose_device("cuda:99")
    for name in ("tpu", "auto:0", "cuda:", "cuda:x"):
        with pytest.raises(UsageError, match=name):
            choose_device(name)


def test_auto_takes_a_dtype_that_the_network_is_safe_in() -> None:
    cpu = torch.device("cpu")
    assert choose_dtype("auto", cpu, ("float32",)) == torch.float32
    assert choose_dtype("float16", cpu, ("float32",)) == torch.float16
    assert choose_dtype("auto", cpu, ("bfloat16", "float32")) in (torch.bfloat16, torch.float32)
    with pytest.raises(UsageError):
        choose_dtype("int8", cpu, ())


def test_tiles_and_batches_grow_with_free_memory() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    sides = [largest_tile(cpu, free) for free in (0, 1 << 29, 1 << 31, 1 << 40)]
    assert sides == sorted(sides)
    assert sides[0] == 64
    assert all(side % 64 == 0 for side in sides)
    assert largest_batch(cpu, 256, 1 << 40) == 1
    assert largest_batch(cuda, 256, 1 << 40) > largest_batch(cuda, 256, 1 << 30) >= 1


def test_pages_of_files_in_a_container_count_as_free(tmp_path: Path) -> None:
    assert _free_in_container(tmp_path) > 1 << 50
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 200\ninactive_file 600\nactive_file 100\n")
    (tmp_path / "memory.max").write_text("1000\n")
    assert _free_in_container(tmp_path) == 700
    (tmp_path / "memory.max").write_text("max\n")
    assert _free_in_container(tmp_path) > 1 << 50


def test_a_real_allocation_failure_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
