"""Run a network over the tiles of a picture, and what to do when memory or precision run out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from restorekit.engine.device import (
    choose_device,
    choose_dtype,
    empty_cache,
    free_memory,
    is_out_of_memory,
    largest_batch,
    largest_tile,
)
from restorekit.engine.reporter import Reporter
from restorekit.errors import MemoryExhaustedError, RestorekitError
from restorekit.models.registry import NoiseInput, RestorationModel
from restorekit.tiling import Blend, Box, TilePlan, cut, plan_tiles, sample_boxes, smallest_tile

NoiseStd = Tensor | float | None

_SMALLEST_TILE = 32
_WINDOWS = 64


class _NotFiniteError(Exception):
    """The network overflows in this dtype."""


class Inference:
    """Run one network, stepping down to less memory or more precision where it must.

    Attributes:
        device: where the network runs now.
        dtype: precision of its inner values now; pictures enter and leave it in float32.
        tile: largest side of a tile now.
        batch: tiles that go through it at once now.
        seconds: time spent so far.
    """

    def __init__(
        self, model: RestorationModel, device: str, dtype: str, tile: int | None, reporter: Reporter
    ) -> None:
        """Choose device, dtype, tile and batch.

        Raises:
            UsageError: an unknown device or dtype.
            UnavailableError: the named device is not there.
        """
        self._model = model
        self._dtype_name = dtype
        self._tile_wanted = tile
        self._reporter = reporter
        self._steps: list[str] = []
        self._redone = 0
        self.seconds = 0.0
        self._settle(choose_device(device))

    def _settle(self, device: torch.device) -> None:
        """Move to a device and choose what suits it."""
        self.device = device
        self.dtype = choose_dtype(self._dtype_name, device, self._model.spec.dtypes)
        free = free_memory(device)
        self.tile = self._tile_wanted or largest_tile(device, free)
        self.batch = largest_batch(device, self.tile, free)
        self._windows = _WINDOWS

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Return what had to give way, in plain words."""
        redone = (f"tiles redone in float32: {self._redone}",) if self._redone else ()
        return (*self._steps, *redone)

    def run(
        self,
        values: Tensor,
        planes: Sequence[int],
        noise_std: NoiseStd,
        part: Box | None = None,
    ) -> Tensor:
        """Restore some planes of a picture, or of a burst, that stays in host memory.

        Args:
            values: (C, H, W) floating point in the network's domain.
            planes: those that the network sees, in its order.
            noise_std: deviation of the noise in units of white, a number or a (1, H, W) map.
            part: to restore, its corner on the grid of the network; None for the whole. What the
                network pools is that of the whole.

        Returns:
            (len(planes), H, W) float32, of the part.

        Raises:
            MemoryExhaustedError: memory ran out with the smallest tiles on the CPU too.
            RestorekitError: the network gives no finite values even in float32.
        """
        started = time.perf_counter()
        spec = self._model.spec
        part = part or Box(0, 0, *values.shape[-2:])
        redone = self._redone
        while True:
            plan = plan_tiles(part.height, part.width, self.tile, spec.overlap, spec.multiple_of)
            self.tile = max(self.tile, plan.rows.length, plan.columns.length)
            try:
                restored = self._attempt(values, planes, noise_std, plan, part)
                self.seconds += time.perf_counter() - started
                return restored
            except _NotFiniteError:
                give_way = self._widen
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                give_way = self._shrink
            # The error is gone here, and with it the frames that held the memory.
            self._redone = redone
            give_way(plan)

    def _widen(self, plan: TilePlan) -> None:
        """Take float32 for every tile."""
        if self.dtype == torch.float32:
            raise RestorekitError(
                "the model gives values that are not finite, even in float32; check the picture"
            )
        self.dtype = torch.float32
        self._note("float32 for the whole picture")

    def _shrink(self, plan: TilePlan) -> None:
        """Take fewer tiles at once, then smaller ones, then the CPU."""
        empty_cache(self.device)
        longest = max(plan.rows.length, plan.columns.length)
        spec = self._model.spec
        smallest = max(_SMALLEST_TILE, smallest_tile(spec.overlap, spec.multiple_of))
        if self.batch > 1:
            self.batch //= 2
            self._note(f"batch {self.batch} after memory ran out")
        elif longest > smallest:
            self._windows = max(self._windows // 2, 1)
            self.tile = max(longest // 2, smallest)
            self._note(f"tile {self.tile} after memory ran out")
        elif self.device.type != "cpu":
            self._settle(torch.device("cpu"))
            self._note("cpu after memory ran out")
        else:
            raise MemoryExhaustedError(
                f"memory ran out even with tiles of {longest} pixels; close other programs, "
                "or restore a part with --crop"
            )

    def _note(self, fallback: str) -> None:
        self._steps.append(fallback)
        self._reporter.note(f"falling back to {fallback}")

    def _attempt(
        self, values: Tensor, planes: Sequence[int], noise_std: NoiseStd, plan: TilePlan, part: Box
    ) -> Tensor:
        boxes = tuple(replace(box, y=part.y + box.y, x=part.x + box.x) for box in plan.boxes)
        self._place_model()
        blend = Blend(plan, self._model.spec.out_channels)
        self._reporter.start(len(boxes), "tiles")
        try:
            with torch.inference_mode(), self._precision(self.dtype):
                self._freeze_pooling(values, planes, noise_std, boxes)
                for first in range(0, len(boxes), self.batch):
                    chosen = boxes[first : first + self.batch]
                    restored = self._restore(*self._inputs(values, planes, noise_std, chosen))
                    for index, tile in enumerate(restored, first):
                        blend.add(index, tile)
                    self._reporter.advance(len(chosen))
            return blend.picture()
        finally:
            self._model.release_pooling()
            self._reporter.finish()

    def _place_model(self) -> None:
        """Move the network to the device, with its convolutions in the order that is fast there."""
        self._model.to(self.device)
        for module in self._model.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _precision(self, dtype: torch.dtype) -> torch.autocast:
        """Let the network compute in a dtype; its skip connection stays in float32."""
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32)

    def _freeze_pooling(
        self, values: Tensor, planes: Sequence[int], noise_std: NoiseStd, boxes: Sequence[Box]
    ) -> None:
        """Fix pooled means on windows that depend on the picture alone, so that tiles agree."""
        _, height, width = values.shape
        windows = sample_boxes(height, width, self._model.spec.multiple_of, self._windows)
        if windows == boxes:
            return
        self._model.freeze_pooling(*self._inputs(values, planes, noise_std, windows))

    def _inputs(
        self, values: Tensor, planes: Sequence[int], noise_std: NoiseStd, boxes: Sequence[Box]
    ) -> tuple[Tensor, Tensor | None]:
        """Return (B, C, H, W) tiles and their noise map on the device, in float32."""
        tiles = torch.stack([cut(values, box)[list(planes)].float() for box in boxes])
        degraded = tiles.to(self.device, memory_format=torch.channels_last)
        if noise_std is None or self._model.spec.noise_input is NoiseInput.NONE:
            return degraded, None
        if isinstance(noise_std, Tensor):
            return degraded, torch.stack([cut(noise_std, box) for box in boxes]).to(self.device)
        count, _, height, width = tiles.shape
        return degraded, degraded.new_full((count, 1, height, width), noise_std)

    def _restore(self, degraded: Tensor, noise_std: Tensor | None) -> Tensor:
        """Return restored tiles in host memory, in float32 where the fast dtype overflows."""
        restored: Tensor = self._model(degraded, noise_std).float()
        if not _all_finite(restored):
            if self.dtype == torch.float32:
                raise _NotFiniteError
            with self._precision(torch.float32):
                restored = self._model(degraded, noise_std).float()
            if not _all_finite(restored):
                raise _NotFiniteError
            self._redone += len(degraded)
        return restored.cpu()


def _all_finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())
