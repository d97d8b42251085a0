"""The frames of a burst as they lie on their reference."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from restorekit.engine.frames import Frame, guide, stabilised, stops_between
from restorekit.image import Image, NoiseProfile, Transfer
from restorekit.ops.agreement import agreement, slope_squared
from restorekit.ops.alignment import align, warp_lanczos, warp_nearest
from restorekit.ops.color import linear_to_srgb, srgb_to_linear
from restorekit.ops.gaussian import blurred

_FEWEST_INLIERS = 0.1
_LEAST_WEIGHT = 0.05
_CLIPPED = 0.98
_UNSTEADY = 0.5
"""Pixels that an edge in a frame may lie off; the mean trades its blur against noise."""


@dataclass(frozen=True)
class FrameReport:
    """State what became of a frame.

    Attributes:
        input: its file.
        status: reference, merged, rejected, unneeded, failed, or unused where no burst was merged.
        reason: why it has no part in the picture.
        shift: how far it lies off the reference at its centre, across and down, in pixels.
        rotation: its turn in degrees.
        inliers: share of its tiles that moved so.
        weight: share of the picture to which it added.
        stops: of exposure above the reference.
        noise: shot and read in linear light.
    """

    input: str
    status: str
    reason: str | None = None
    shift: tuple[float, float] | None = None
    rotation: float | None = None
    inliers: float | None = None
    weight: float | None = None
    stops: float | None = None
    noise: tuple[float, float] | None = None


class Stack:
    """Hold the frames as they lie on the reference, and how far each shows what it shows.

    Values are kept in half precision, whose steps are far below the noise of any sensor.

    Attributes:
        pixels: (C, H, W) of the reference, linear, float32.
        noise: of the reference.
        count: frames so far, the reference among them.
    """

    def __init__(self, image: Image, reference: Frame, most: int) -> None:
        """Begin with the reference, and make room for so many frames in all."""
        self._reference = reference
        self.noise = reference.noise
        self.pixels = image.to_linear().pixels
        self._encoded = image.transfer is Transfer.SRGB
        self._values = torch.empty(most, *self.pixels.shape, dtype=torch.float16)
        self._weights = torch.empty(most, *self.pixels.shape[1:], dtype=torch.float16)
        self._values[0], self._weights[0] = self.pixels, 1
        self.count = 1
        slope = slope_squared(blurred(stabilised(self.pixels, self.noise), 1.0)).mean(0)
        self._steady = slope.mul_(_UNSTEADY**2).add_(1).reciprocal_()
        self._sum = linear_to_srgb(self.pixels) if self._encoded else self.pixels.clone()
        self._total, self._squares = torch.ones_like(slope), torch.ones_like(slope)

    @property
    def values(self) -> Tensor:
        """Return the frames, (count, C, H, W) linear, the reference first."""
        return self._values[: self.count]

    @property
    def weights(self) -> Tensor:
        """Return (count, H, W): 1 where a frame shows what the reference shows, 0 elsewhere."""
        return self._weights[: self.count]

    def add(self, frame: Frame) -> FrameReport:
        """Lay a frame on the reference, unless there are enough or it shows another scene.

        Raises:
            DecodeError: it cannot be read any more.
        """
        stops = stops_between(self._reference.metadata, frame.metadata)
        noise = (frame.noise.shot, frame.noise.read)
        report = FrameReport(frame.name, "merged", stops=stops, noise=noise)
        if self.count == len(self._values):
            return replace(report, status="unneeded", reason=f"{self.count} others are sharper")
        gain = 2**-stops
        common = _between(self.noise, frame.noise, gain)
        planes = frame.load().to_linear().pixels * gain
        alignment = align(guide(self.pixels, common), guide(planes, common))
        report = replace(report, inliers=alignment.inliers)
        if alignment.inliers < _FEWEST_INLIERS:
            reason = f"only {alignment.inliers:.0%} of its tiles fit the reference"
            return replace(report, status="rejected", reason=reason)
        smooth = warp_lanczos(planes, alignment.motion)
        planes, inside = warp_nearest(planes, alignment.motion)
        weights = agreement(stabilised(self.pixels, common), stabilised(smooth, common))
        weights *= inside
        if stops:
            weights *= (planes < _CLIPPED * gain).all(0)
        weight = float(weights.mean())
        height, width = planes.shape[1:]
        middle = complex(width - 1, height - 1) / 2
        shift = (alignment.motion.place(middle) - middle) * (self._reference.size[0] // width)
        report = replace(
            report,
            shift=(shift.real, shift.imag),
            rotation=alignment.motion.degrees,
            weight=weight,
        )
        if weight < _LEAST_WEIGHT:
            reason = f"only {weight:.0%} of it shows what the reference shows"
            return replace(report, status="rejected", reason=reason)
        self._values[self.count], self._weights[self.count] = planes, weights
        self.count += 1
        weights *= self._steady
        self._sum += (linear_to_srgb(smooth) if self._encoded else smooth).mul_(weights)
        self._total += weights
        self._squares += weights.square_()
        return report

    def alone(self) -> Tensor:
        """Return (H, W): 1 where no frame shows what the reference shows, 0 where one does."""
        agreeing = self.weights[1:].float().sum(0)
        return ((0.75 - agreeing) / 0.5).clamp_(0, 1)

    def mean(self) -> tuple[Tensor, Tensor]:
        """Return the weighted mean (C, H, W) and the share (H, W) of the variance left in it.

        Frames lie between the pixels of the reference as they do, interpolated by a filter that
        keeps their noise nearly as strong and white as it is. Encoded frames are averaged as they
        are encoded. At an edge a frame may be wrong by the slope times what it lies off, which is
        weighed against its noise.
        """
        mean = self._sum / self._total
        return srgb_to_linear(mean) if self._encoded else mean, self._squares / self._total**2

    def fill(self, pixels: Tensor) -> None:
        """Put (C, H, W) linear pixels where a frame shows something else than the reference."""
        for values, weights in zip(self.values[1:], self.weights[1:], strict=True):
            values.copy_(torch.lerp(pixels, values.float(), weights.float()))


def _between(noise: NoiseProfile, other: NoiseProfile, gain: float) -> NoiseProfile:
    """Return the mean of two noises, the second of a frame that is brightened by a gain.

    Both frames are stabilised by it, so that equal light stays equal.
    """
    shot = (noise.shot + other.shot * gain) / 2
    return NoiseProfile(shot, ((noise.read**2 + (other.read * gain) ** 2) / 2) ** 0.5)
