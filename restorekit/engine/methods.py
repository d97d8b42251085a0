"""What can be measured: networks run as the papers run them, and the baselines beside them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from restorekit.degradations.burst import Bursts
from restorekit.engine.device import choose_device, choose_dtype, empty_cache, is_out_of_memory
from restorekit.engine.domain import enter, measure_noise
from restorekit.engine.inference import Inference, NoiseStd
from restorekit.engine.protocols import Sample
from restorekit.engine.reporter import Reporter, SilentReporter
from restorekit.errors import RestorekitError, UsageError
from restorekit.hub import LoadedModel
from restorekit.metrics import Protocol
from restorekit.models.complexity import Complexity, count_macs
from restorekit.models.registry import NoiseInput, architectures, create_model
from restorekit.ops.color import linear_to_srgb
from restorekit.ops.finished_noise import finished_noise

BASELINES = ("none", "nlm", "mean")
LARGEST_WHOLE = 2_000_000
"""Pixels of the largest picture that goes through a network in one piece."""
NLM_COLOUR, NLM_GREY = 0.6, 0.85
"""Filter strength h over sigma; the best of a search on training photographs, sigma 15 to 50."""

_SILENT = SilentReporter()


@dataclass(frozen=True)
class Restored:
    """Hold what a method made of one picture.

    Attributes:
        pixels: (C, H, W) sRGB-encoded, neither clamped nor rounded.
        seconds: time in the method itself.
        tiled: whether the picture went through in tiles.
    """

    pixels: Tensor
    seconds: float
    tiled: bool = False


@dataclass(frozen=True)
class Method:
    """Name something that restores pictures.

    Attributes:
        name: of the model or the baseline.
        sha256: of the weights; empty for a baseline.
        restore: restores the degraded picture of a sample and does not look at the clean one.
        device: where it runs.
        dtype: precision of its inner values.
        tile: side of the tiles, or None for whole pictures.
        variant: settings of inference that are not the card's; the name states them too.
        complexity: of the network for 256 x 256 pixels, or None.
    """

    name: str
    sha256: str
    restore: Callable[[Sample], Restored]
    device: str = "cpu"
    dtype: str = "float32"
    tile: int | None = None
    variant: str = ""
    complexity: Complexity | None = None


def network(
    loaded: LoadedModel,
    *,
    device: str = "auto",
    dtype: str = "float32",
    tile: int | None = None,
    neighbours: int | None = None,
    rounds: int | None = None,
    reporter: Reporter = _SILENT,
) -> Method:
    """Return a network that pools over the whole picture, as in the papers' tests.

    Pictures above LARGEST_WHOLE pixels, or for which memory runs out, go through in tiles; so do
    all pictures when a tile is given.

    Args:
        loaded: network and card; the network moves to the device.
        device: auto, cpu, cuda, cuda:N or mps.
        dtype: auto, bfloat16, float16 or float32.
        tile: side of the tiles.
        neighbours: patches of a chunk in place of the card's, of a network that matches patches.
        rounds: of hashing in place of the card's, of such a network.
        reporter: told of tiles and of what has to give way.

    Raises:
        UsageError: an unknown device or dtype, or a network that matches no patches.
        UnavailableError: the named device is not there.
    """
    changes = {"neighbours": neighbours, "rounds": rounds}
    search = {name: value for name, value in changes.items() if value is not None}
    if search:
        loaded = _searching(loaded, search)
    variant = " ".join(f"{name}={value}" for name, value in search.items())
    complexity = count_macs(loaded.model)
    place = choose_device(device)
    precision = choose_dtype(dtype, place, loaded.model.spec.dtypes)
    runner = _Network(loaded, place, precision, tile, reporter)
    return Method(
        f"{loaded.card.name} {variant}".strip(),
        loaded.card.sha256,
        runner.restore,
        str(place),
        str(precision).removeprefix("torch."),
        tile,
        variant,
        complexity,
    )


def matches_patches(loaded: LoadedModel) -> bool:
    """Return whether a network searches for alike patches, so that the search can be varied."""
    settings = dataclasses.fields(architectures()[loaded.card.architecture].config_type)
    return {setting.name for setting in settings} >= {"neighbours", "rounds"}


def _searching(loaded: LoadedModel, search: dict[str, int]) -> LoadedModel:
    """Return a network of the same weights with another search for patches."""
    if not matches_patches(loaded):
        raise UsageError(
            f"{loaded.card.name} matches no patches; leave out --neighbours and --rounds"
        )
    model = create_model(loaded.card.architecture, loaded.card.config | search)
    model.load_state_dict(loaded.model.state_dict())
    return LoadedModel(model.eval(), loaded.card)


@dataclass(frozen=True)
class _Network:
    loaded: LoadedModel
    device: torch.device
    dtype: torch.dtype
    tile: int | None
    reporter: Reporter

    def restore(self, sample: Sample) -> Restored:
        """Restore a picture by the domain of the card, whole where that is possible.

        Raises:
            UsageError: a burst for a network of single pictures, or the other way round.
        """
        if sample.burst is not None or self.loaded.model.spec.frames > 1:
            return self._merged(sample.burst)
        image = sample.degraded
        told = self.loaded.model.spec.noise_input is NoiseInput.STD_MAP
        noise = measure_noise(image, self.loaded.model.spec, sample.sigma if told else None)
        domain = enter(image, self.loaded.card, noise)

        def restored(run: Callable[[Tensor, NoiseStd], Tensor], *, tiled: bool) -> Restored:
            started = time.perf_counter()
            results = [run(domain.values[list(p)], domain.noise_std) for p in domain.passes]
            results = domain.without_bias(results)
            seconds = time.perf_counter() - started
            return Restored(domain.leave(results), seconds, tiled)

        if self.tile is None and image.height * image.width <= LARGEST_WHOLE:
            try:
                return restored(self._whole, tiled=False)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            empty_cache(self.device)
            self.reporter.note(f"{image.metadata.path}: falling back to tiles, memory ran out")
        return restored(self._tiled, tiled=True)

    def _merged(self, burst: Bursts | None) -> Restored:
        """Make one picture of a burst as a whole, each colour by itself for a grey network."""
        name, spec = self.loaded.card.name, self.loaded.model.spec
        if burst is None:
            raise UsageError(f"{name} makes a picture from a burst; use --protocol burst")
        if spec.frames == 1 or spec.out_channels != burst.clean.shape[1]:
            raise UsageError(f"{name} is no network for bursts of grey frames")
        started = time.perf_counter()
        merged = self._run(burst.frames.flatten(1, 2), burst.noise_std)
        return Restored(linear_to_srgb(merged / burst.white[0]), time.perf_counter() - started)

    def _whole(self, values: Tensor, noise_std: NoiseStd) -> Tensor:
        std = None
        if noise_std is not None:
            std = torch.zeros_like(values[None, :1]) + noise_std
        return self._run(values[None], std)

    def _run(self, degraded: Tensor, std: Tensor | None) -> Tensor:
        """Return what the network makes of a batch of one."""
        model = self.loaded.model.to(self.device)
        degraded, std = degraded.to(self.device), std if std is None else std.to(self.device)
        mixed = self.dtype is not torch.float32
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=self.dtype, enabled=mixed),
        ):
            restored: Tensor = model(degraded, std)[0].float().cpu()
        if not restored.isfinite().all():
            remedy = "use --dtype float32" if mixed else "check the picture"
            raise RestorekitError(
                f"{self.loaded.card.name} gives values that are not finite; {remedy}"
            )
        return restored

    def _tiled(self, values: Tensor, noise_std: NoiseStd) -> Tensor:
        dtype = str(self.dtype).removeprefix("torch.")
        inference = Inference(self.loaded.model, str(self.device), dtype, self.tile, self.reporter)
        return inference.run(values, range(len(values)), noise_std)


def baseline(name: str, protocol: Protocol) -> Method:
    """Return the degraded picture itself (none), OpenCV's non-local means (nlm), or mean frames.

    Of a burst, none is the reference and mean the mean of its frames.

    Raises:
        UsageError: no such baseline, or one that does not fit the task.
    """
    if name == "none":
        return Method("none", "", lambda sample: Restored(sample.degraded.pixels, 0.0))
    if name == "mean" and protocol.gains:
        return Method("mean", "", mean_of_frames)
    if name not in BASELINES:
        raise UsageError(f"there is no method {name!r}; use one of {', '.join(BASELINES)}")
    if name == "mean" or protocol.task != "denoise":
        kind = "is made of the frames of a burst" if name == "mean" else "removes noise"
        raise UsageError(f"{name} {kind} and has no meaning for {protocol.name}")
    return Method("nlm", "", non_local_means, dtype="uint8")


def mean_of_frames(sample: Sample) -> Restored:
    """Return the mean of the frames of a burst."""
    assert sample.burst is not None
    mean = sample.burst.frames[0].mean(0) / sample.burst.white[0]
    return Restored(linear_to_srgb(mean), 0.0)


def non_local_means(sample: Sample) -> Restored:
    """Denoise by OpenCV's fast non-local means (Buades et al., 2005), windows of 7 and 21 pixels.

    The picture is clipped and rounded to 8 bits, the only kind that OpenCV takes. The strength h
    is NLM_COLOUR (of lightness and of colour) or NLM_GREY times sigma, which is measured where no
    noise was added.
    """
    import cv2
    import numpy as np

    degraded = sample.degraded.pixels
    sigma = 255 * finished_noise(degraded).coarse if sample.sigma is None else sample.sigma
    pixels = (degraded.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    started = time.perf_counter()
    if pixels.shape[2] == 1:
        restored = cv2.fastNlMeansDenoising(np.ascontiguousarray(pixels), h=NLM_GREY * sigma)
        restored = restored.reshape(pixels.shape)
    else:
        h = NLM_COLOUR * sigma
        bgr = np.ascontiguousarray(pixels[..., ::-1])
        restored = cv2.fastNlMeansDenoisingColored(bgr, h=h, hColor=h)[..., ::-1]
    seconds = time.perf_counter() - started
    values = torch.from_numpy(np.ascontiguousarray(restored)).permute(2, 0, 1)
    return Restored(values.float() / 255, seconds)
