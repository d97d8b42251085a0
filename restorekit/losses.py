"""Training losses: functions of restored and clean pictures (B, C, H, W) to a scalar."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from restorekit.errors import ConfigError


def charbonnier(restored: Tensor, clean: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Return the mean of sqrt(difference**2 + epsilon**2), a smooth L1 (Charbonnier, 1994)."""
    return ((restored - clean).square() + epsilon**2).sqrt().mean()


def l1(restored: Tensor, clean: Tensor) -> Tensor:
    """Return the mean absolute difference."""
    return F.l1_loss(restored, clean)


def l2(restored: Tensor, clean: Tensor) -> Tensor:
    """Return the mean squared difference."""
    return F.mse_loss(restored, clean)


def psnr_loss(restored: Tensor, clean: Tensor) -> Tensor:
    """Return the mean over pictures of log10 of the squared error (NAFNet, Section 5)."""
    error = (restored - clean).square().mean((1, 2, 3))
    return (error + 1e-8).log10().mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "charbonnier": charbonnier,
    "l1": l1,
    "l2": l2,
    "psnr": psnr_loss,
}


def criterion_by_name(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss of a recipe.

    Raises:
        ConfigError: there is no such loss.
    """
    if name not in LOSSES:
        raise ConfigError(f"there is no loss {name!r}; known: {', '.join(sorted(LOSSES))}")
    return LOSSES[name]
