"""Training losses: functions of restored and clean pictures (B, C, H, W) to a scalar."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from restorekit.errors import ConfigError


def charbonnier(restored: Tensor, clean: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Return the mean of sqrt(difference**2 + epsilon**2), a smooth L1 (Charbonnier, 1994)."""
    return ((restored - clean).square() + epsilon**2).sqrt().mean()


def charbonnier_edge(restored: Tensor, clean: Tensor, weight: float = 0.05) -> Tensor:
    """Return charbonnier plus weight times that of the Laplacians (KiT, equation 11).

    The paper does not state the weight; that of the edge loss it follows is the default (MPRNet).
    """
    edges = charbonnier(laplacian(restored), laplacian(clean))
    return charbonnier(restored, clean) + weight * edges


def laplacian(picture: Tensor) -> Tensor:
    """Return the sum of the four neighbours' differences to each pixel; the border is repeated."""
    padded = F.pad(picture, (1, 1, 1, 1), "replicate")
    across, down = padded[..., 1:-1, :], padded[..., 1:-1]
    return across[..., 2:] + across[..., :-2] + down[..., 2:, :] + down[..., :-2, :] - 4 * picture


def l1(restored: Tensor, clean: Tensor) -> Tensor:
    """Return the mean absolute difference."""
    return F.l1_loss(restored, clean)


def l2(restored: Tensor, clean: Tensor) -> Tensor:
    """Return the mean squared difference."""
    return F.mse_loss(restored, clean)


def l2_gradient(restored: Tensor, clean: Tensor) -> Tensor:
    """Return the mean squared difference plus the mean absolute one of the gradients (KPN)."""
    error = restored - clean
    return error.square().mean() + error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()


def psnr_loss(restored: Tensor, clean: Tensor) -> Tensor:
    """Return the mean over pictures of log10 of the squared error (NAFNet, Section 5)."""
    error = (restored - clean).square().mean((1, 2, 3))
    return (error + 1e-8).log10().mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "charbonnier": charbonnier,
    "charbonnier+edge": charbonnier_edge,
    "l1": l1,
    "l2": l2,
    "l2+gradient": l2_gradient,
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
