"""What a restoration network promises, and the one table of architectures."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from restorekit.errors import ConfigError
from restorekit.models.pooling import PooledStatistic


class NoiseInput(Enum):
    """Whether a network is told how strong the noise is."""

    NONE = "none"
    STD_MAP = "std_map"


class Tiling(Enum):
    """Whether tiles give exactly what the whole picture gives."""

    EXACT = "exact"
    APPROXIMATE = "approximate"


@dataclass(frozen=True)
class ModelSpec:
    """State what an architecture needs, whatever its weights.

    Attributes:
        in_channels: planes of the degraded picture.
        out_channels: planes of the restored picture.
        multiple_of: a tile whose sides are multiples of this is not padded inside the network.
        overlap: pixels that neighbouring tiles share.
        frames: pictures of one input; 1 but for bursts.
        noise_input: whether forward takes noise_std.
        tiling: EXACT, or APPROXIMATE within tolerance.
        tolerance: largest difference between tiled and whole, in units of white.
        dtypes: names of the dtypes that are safe for inference, best first.
    """

    in_channels: int
    out_channels: int
    multiple_of: int
    overlap: int
    frames: int = 1
    noise_input: NoiseInput = NoiseInput.NONE
    tiling: Tiling = Tiling.EXACT
    tolerance: float = 0.0
    dtypes: tuple[str, ...] = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class Batch:
    """Hold training pairs.

    Attributes:
        degraded: (B, C, H, W) pictures.
        clean: (B, C, H, W) truth.
        noise_std: (B, 1, H, W) noise deviation, if known.
        white: (B, 1, 1, 1) value of white in linear pictures; None for encoded ones, white 1.
    """

    degraded: Tensor
    clean: Tensor
    noise_std: Tensor | None = None
    white: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""

        def moved(tensor: Tensor | None) -> Any:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        tensors = self.degraded, self.clean, self.noise_std, self.white
        return Batch(*map(moved, tensors))


Criterion = Callable[[Tensor, Tensor], Tensor]


class RestorationModel(nn.Module):
    """Restore pictures; a tensor function that reads no files and moves no devices."""

    spec: ModelSpec
    config: Any

    def config_values(self) -> dict[str, Any]:
        """Return the settings that create_model needs to build this network again."""
        return dataclasses.asdict(self.config)

    def forward(self, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        """Return the restored picture.

        Args:
            degraded: (B, in_channels, H, W) in the domain of the card, any H and W.
            noise_std: (B, 1, H, W) deviation of the noise in units of white.

        Returns:
            (B, out_channels, H, W).
        """
        raise NotImplementedError

    def loss(self, batch: Batch, criterion: Criterion, step: int) -> Tensor:
        """Return the scalar training loss of a batch at an optimiser step."""
        return criterion(self(batch.degraded, batch.noise_std), batch.clean)

    def adopted(self, start: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of another network as this one can begin with them."""
        return dict(start)

    def freeze_pooling(self, windows: Tensor, noise_std: Tensor | None = None) -> None:
        """Fix every pooled mean to its average over sample windows of one picture.

        Until release_pooling, the result at a pixel depends on its receptive field alone, so that
        tiles agree with the whole. A network that pools nothing does nothing.

        Args:
            windows: (B, in_channels, H, W) pieces of the picture.
            noise_std: (B, 1, H, W), or None.
        """
        self.release_pooling()
        pools = [module for module in self.modules() if isinstance(module, PooledStatistic)]
        for pool in pools:
            pool.measuring = True
        try:
            if pools:
                with torch.no_grad():
                    self(windows, noise_std)
        finally:
            for pool in pools:
                pool.measuring = False

    def release_pooling(self) -> None:
        """Pool over each input again."""
        for module in self.modules():
            if isinstance(module, PooledStatistic):
                module.frozen = None


ModelFactory = Callable[[Any], RestorationModel]


@dataclass(frozen=True)
class Architecture:
    """Name a network, the dataclass of its config, and a small config for tests."""

    name: str
    config_type: type[Any]
    tiny: Any
    build: ModelFactory


_ARCHITECTURES: dict[str, Architecture] = {}
_DTYPES = ("bfloat16", "float16", "float32")


def register_model(name: str, config_type: type[Any], *, tiny: Any) -> Callable[[Any], Any]:
    """Register a RestorationModel subclass that is built from one config."""

    def register(model_type: Any) -> Any:
        if name in _ARCHITECTURES:
            raise ConfigError(f"the architecture {name!r} is registered twice")
        _ARCHITECTURES[name] = Architecture(name, config_type, tiny, model_type)
        return model_type

    return register


def architectures() -> Mapping[str, Architecture]:
    """Return every registered architecture by name."""
    return dict(_ARCHITECTURES)


def create_model(name: str, config: Mapping[str, Any] | None = None) -> RestorationModel:
    """Build a network with fresh weights from an architecture's name and a JSON config.

    Raises:
        ConfigError: no such architecture, or settings that it does not have or cannot take.
    """
    if name not in _ARCHITECTURES:
        known = ", ".join(sorted(_ARCHITECTURES))
        raise ConfigError(f"there is no architecture {name!r}; known: {known}")
    architecture = _ARCHITECTURES[name]
    values = dict(config or {})
    defaults = {f.name: f.default for f in dataclasses.fields(architecture.config_type)}
    if unknown := values.keys() - defaults.keys():
        raise ConfigError(f"{name} has no setting {', '.join(sorted(unknown))}")
    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    for key, value in settings.items():
        if not _is_like(value, defaults[key]):
            raise ConfigError(
                f"{name} cannot take these settings: {key} is of the kind of {defaults[key]!r}, "
                f"not {value!r}"
            )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element")
            return architecture.build(architecture.config_type(**settings))
    except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{name} cannot take these settings: {reason}") from error


def _is_like(value: object, default: object) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_is_like(item, default[0]) for item in value)
    return type(value) is type(default) or (type(value), type(default)) == (int, float)


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable numbers."""
    return sum(p.numel() for p in model.parameters())


def torch_dtype(name: str) -> torch.dtype:
    """Return the dtype of a name such as bfloat16."""
    if name not in _DTYPES:
        raise ConfigError(f"{name!r} is no dtype; choose one of {', '.join(_DTYPES)}")
    dtype: torch.dtype = getattr(torch, name)
    return dtype
