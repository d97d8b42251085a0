"""Measure methods by a protocol, picture by picture."""

from __future__ import annotations

import importlib
import importlib.util
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from restorekit.engine.methods import Method
from restorekit.engine.protocols import (
    Level,
    Sample,
    Source,
    chosen_levels,
    digest,
    find_sources,
    read_sample,
)
from restorekit.engine.reporter import Reporter, SilentReporter
from restorekit.engine.results import Result, ResultLog, Trial
from restorekit.errors import UsageError
from restorekit.metrics import Protocol, compared, measure

_SILENT = SilentReporter()
_Distance = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Row:
    """State the means of one method over the pictures of a folder.

    Attributes:
        model: name of the model or baseline.
        sha256: of its weights; empty for a baseline.
        protocol: name of the protocol.
        data: name of the folder.
        sigma: deviation of the added noise in steps of 0..255, or None.
        pictures: how many.
        tiled: how many of them went through in tiles.
        parameters: trainable numbers, or None for a baseline.
        macs_layers: multiply-accumulates of 256 x 256 pixels in layers, as papers count them.
        macs: those, and the products inside attention operators.
        seconds_per_megapixel: median over the pictures.
        psnr: in dB.
        ssim: structural similarity.
        mae: mean absolute error in units of white.
        lpips: perceptual distance, or None.
        device: where it ran.
        dtype: precision of the inner values.
        gain: noise level of bursts, or None.
    """

    model: str
    sha256: str
    protocol: str
    data: str
    sigma: float | None
    pictures: int
    tiled: int
    parameters: int | None
    macs_layers: int | None
    macs: int | None
    seconds_per_megapixel: float
    psnr: float
    ssim: float
    mae: float
    lpips: float | None
    device: str
    dtype: str
    gain: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """Hold the rows of a table, by level and then by method, and the results behind them."""

    rows: tuple[Row, ...]
    results: tuple[Result, ...]


def evaluate(
    methods: Sequence[Method],
    protocol: Protocol,
    data: Path,
    sigmas: Sequence[float] = (),
    *,
    folder: Path | None = None,
    reporter: Reporter = _SILENT,
) -> Evaluation:
    """Measure methods on every picture of a folder.

    Args:
        methods: what is measured.
        protocol: how.
        data: folder of pictures or pairs, see protocols.find_sources.
        sigmas: noise levels in steps of 0..255; those of the protocol without any.
        folder: where finished results are logged and taken from; None to keep no log.
        reporter: told of finished pictures.

    Raises:
        NoInputError: no pictures.
        UsageError: sigmas or pictures that do not fit the protocol or a method.
        OutputError: the log cannot be written.
    """
    levels = chosen_levels(protocol, sigmas)
    sources = find_sources(protocol, data)
    run = _Run(methods, protocol, _perceptual_distance(protocol), ResultLog(folder))
    rows: list[Row] = []
    results: list[Result] = []
    reporter.start(len(levels) * len(sources) * len(methods), "pictures")
    try:
        for level in levels:
            found: list[list[Result]] = [[] for _ in methods]
            for source in sources:
                for finished, result in zip(found, run.results(source, level), strict=True):
                    finished.append(result)
                    reporter.advance()
            for method, finished in zip(methods, found, strict=True):
                rows.append(_row(method, data, finished))
                results += finished
    finally:
        reporter.finish()
        run.log.close()
    return Evaluation(tuple(rows), tuple(results))


@dataclass(frozen=True)
class _Run:
    methods: Sequence[Method]
    protocol: Protocol
    distance: _Distance | None
    log: ResultLog

    def results(self, source: Source, level: Level) -> Iterator[Result]:
        """Yield the result of each method on one picture, from the log where it is there."""
        content = digest(source)
        sample: Sample | None = None
        for method in self.methods:
            trial = Trial(
                model=method.name,
                sha256=method.sha256,
                variant=method.variant,
                protocol=self.protocol.name,
                sigma=level.sigma,
                gain=level.gain,
                picture=source.name,
                digest=content,
                device=method.device,
                dtype=method.dtype,
                tile=method.tile,
            )
            result = self.log.find(trial)
            if result is None or (result.lpips is None and self.distance is not None):
                sample = sample or read_sample(self.protocol, source, level)
                try:
                    result = self._measured(trial, method, sample)
                except UsageError as error:
                    raise UsageError(f"{source.clean}: {error}") from None
                self.log.add(result)
            yield result

    def _measured(self, trial: Trial, method: Method, sample: Sample) -> Result:
        restored, clean = method.restore(sample), sample.clean
        scores = measure(restored.pixels, clean.pixels, self.protocol)
        lpips = None
        if self.distance is not None:
            lpips = self.distance(
                compared(restored.pixels, self.protocol), compared(clean.pixels, self.protocol)
            )
        return Result(
            **asdict(trial),
            **asdict(scores),
            lpips=lpips,
            seconds=restored.seconds,
            megapixels=clean.height * clean.width / 1e6,
            tiled=restored.tiled,
        )


def _row(method: Method, data: Path, results: Sequence[Result]) -> Row:
    distances = [result.lpips for result in results if result.lpips is not None]
    complexity = method.complexity
    return Row(
        model=method.name,
        sha256=method.sha256,
        protocol=results[0].protocol,
        data=Path(os.path.abspath(data)).name,
        sigma=results[0].sigma,
        gain=results[0].gain,
        pictures=len(results),
        tiled=sum(result.tiled for result in results),
        parameters=complexity.parameters if complexity else None,
        macs_layers=complexity.macs_layers if complexity else None,
        macs=complexity.macs if complexity else None,
        seconds_per_megapixel=statistics.median(r.seconds / r.megapixels for r in results),
        psnr=statistics.fmean(result.psnr for result in results),
        ssim=statistics.fmean(result.ssim for result in results),
        mae=statistics.fmean(result.mae for result in results),
        lpips=statistics.fmean(distances) if distances else None,
        device=method.device,
        dtype=method.dtype,
    )


def _perceptual_distance(protocol: Protocol) -> _Distance | None:
    """Return LPIPS on AlexNet (Zhang et al., 2018) for colour, where its package is installed."""
    if protocol.layout != "rgb" or importlib.util.find_spec("lpips") is None:
        return None
    import torch

    network = importlib.import_module("lpips").LPIPS(net="alex", verbose=False).eval()

    def distance(restored: Tensor, clean: Tensor) -> float:
        with torch.inference_mode():
            return float(network(restored[None].float() * 2 - 1, clean[None].float() * 2 - 1))

    return distance
