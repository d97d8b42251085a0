"""Results of single pictures, and the log from which a stopped evaluation goes on."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from restorekit.errors import OutputError

LOG_FILE = "results.jsonl"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Name one method on one picture; JSON values only.

    Attributes:
        model: name of the model or baseline.
        sha256: of its weights; empty for a baseline.
        variant: settings of inference that are not the card's; empty for none.
        protocol: name of the protocol.
        sigma: deviation of the added noise in steps of 0..255, or None.
        picture: its path below the data folder.
        digest: of the bytes of its files.
        device: where it is restored.
        dtype: precision of the inner values.
        tile: side of the tiles that is asked for, or None.
        gain: noise level of a burst, or None.
    """

    model: str
    sha256: str
    variant: str = ""
    protocol: str
    sigma: float | None
    picture: str
    digest: str
    device: str
    dtype: str
    tile: int | None
    gain: int | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Return what the numbers depend on: the weights and the bytes, whatever their names."""
        weights = self.sha256 or self.model, self.variant
        run = self.device, self.dtype, self.tile
        return weights, self.protocol, self.sigma, self.gain, self.digest, *run


@dataclass(frozen=True, kw_only=True)
class Result(Trial):
    """State how close a method came on one picture; JSON values only.

    Attributes:
        psnr: in dB.
        ssim: structural similarity.
        mae: mean absolute error in units of white.
        lpips: perceptual distance, or None.
        seconds: time of the method.
        megapixels: size of the picture.
        tiled: whether it went through in tiles.
        version: of this record's shape.
    """

    psnr: float
    ssim: float
    mae: float
    lpips: float | None
    seconds: float
    megapixels: float
    tiled: bool
    version: int = VERSION


class ResultLog:
    """Keep finished results by key, and in a file of one JSON object a line."""

    def __init__(self, folder: Path | None) -> None:
        """Read what an earlier run left; a line that was cut off does not count.

        Args:
            folder: of the file, made if it does not exist; None for no file.

        Raises:
            OutputError: the file cannot be written.
        """
        self._results: dict[tuple[object, ...], Result] = {}
        self._file: TextIO | None = None
        if folder is None:
            return
        path = folder / LOG_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            earlier = path.read_text(encoding="utf-8") if path.exists() else ""
            self._file = path.open("a", encoding="utf-8")
            if earlier and not earlier.endswith("\n"):
                self._file.write("\n")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error
        results = map(_parsed, earlier.splitlines())
        self._results = {result.key: result for result in results if result is not None}

    def find(self, trial: Trial) -> Result | None:
        """Return the result of a trial, under the names of the trial, if it is known."""
        result = self._results.get(trial.key)
        return result and replace(result, model=trial.model, picture=trial.picture)

    def add(self, result: Result) -> None:
        """Keep a result, in the file before this returns.

        Raises:
            OutputError: the file cannot be written.
        """
        self._results[result.key] = result
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(dataclasses.asdict(result)) + "\n")
            self._file.flush()
        except OSError as error:
            raise OutputError(f"cannot write {self._file.name}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _parsed(line: str) -> Result | None:
    """Return the result of a line, or None for one that was cut off or has another shape."""
    try:
        result = Result(**json.loads(line))
    except (ValueError, TypeError):
        return None
    return result if result.version == VERSION else None
