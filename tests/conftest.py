from functools import partial
from pathlib import Path

import pytest
import torch

from restorekit.ops import compiled
from tests.processors import built_for

torch.set_num_threads(1)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the photographs of {SHARED_DATA}, which are not on this machine")
    return SHARED_DATA


@pytest.fixture
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Build the compiled kernels for the processor that is the parameter, or for this one."""
    name = getattr(request, "param", "native")
    monkeypatch.setattr(compiled, "library", partial(built_for, name))
    return name


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
