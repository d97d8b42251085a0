"""Statistics that a network pools over the whole picture, and that tiles must share."""

from __future__ import annotations

from torch import Tensor, nn


class PooledStatistic(nn.Module):
    """Pass a pooled statistic through, or replace it by one that was measured beforehand."""

    def __init__(self) -> None:
        """Start by passing statistics through."""
        super().__init__()
        self.measuring = False
        self.frozen: Tensor | None = None

    def forward(self, statistic: Tensor) -> Tensor:
        """Return the (B, ...) statistic of this input, or the frozen (1, ...) one."""
        if self.measuring:
            self.frozen = statistic.mean(0, keepdim=True)
        return statistic if self.frozen is None else self.frozen.to(statistic.dtype)
