"""The frames of a burst as they lie on their reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from restorekit.engine.frames import MOST_DRIFT, Frame, guide, stabilised, stops_between
from restorekit.image import Image, Layout, NoiseProfile, Transfer
from restorekit.ops.agreement import agreement, light_gain, slope_squared
from restorekit.ops.alignment import align
from restorekit.ops.color import linear_to_srgb, srgb_to_linear
from restorekit.ops.gaussian import blurred
from restorekit.ops.warp import Motion, warp_lanczos, warp_mosaic, warp_nearest

_FEWEST_INLIERS = 0.1
_LEAST_WEIGHT = 0.05
_CLIPPED = 0.98
_COPIED = 0.05
"""Difference of a frame from another, in units of their noise, up to which it is a copy."""
_SAMPLES = 1 << 16
_FROM_OTHER_COLOURS = 0.85
"""Share of a mosaic's detail that is demosaiced; the rest is what each colour shows alone, whose
noise is its own."""
_STILL_BELIEVED, _SPREAD = 1.5, 1.5
"""By how much of the variance of the noise a demosaiced frame may be less like the reference until
nothing of it counts, and the deviation of the window for it."""
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
        stops: of light above the reference, by the exposure that its file states and as it shows.
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
        self._cfa = image.cfa if image.layout is Layout.BAYER else None
        self._encoded = image.transfer is Transfer.SRGB
        self._values = torch.empty(most, *self.pixels.shape, dtype=torch.float16)
        self._weights = torch.empty(most, *self.pixels.shape[1:], dtype=torch.float16)
        self._values[0], self._weights[0] = self.pixels, 1
        self._names = [reference.name]
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
        """Lay a frame on the reference, unless there are enough, or it is a copy or another scene.

        It is brought to the light of the reference, by the exposure that its file states, and by
        up to half a stop as it shows.

        Raises:
            DecodeError: it cannot be read any more.
        """
        stops = stops_between(self._reference.metadata, frame.metadata)
        stated = (frame.noise.shot, frame.noise.read)
        report = FrameReport(frame.name, "merged", stops=stops, noise=stated)
        if self.count == len(self._values):
            return replace(report, status="unneeded", reason=f"{self.count} others are sharper")
        gain = 2**-stops
        planes = frame.load().to_linear().pixels * gain
        noise = _between(self.noise, frame.noise, gain)
        motion, inliers, laid, inside = self._lay(planes, noise)
        shown = inside & ((self.pixels < _CLIPPED) & (laid < _CLIPPED * gain)).all(0)
        light = light_gain(self.pixels, laid, shown, noise.shot, noise.read)
        if light != 1:
            gain *= light
            noise = _between(self.noise, frame.noise, gain)
            motion, inliers, laid, inside = self._lay(planes.mul_(light), noise)
        report = replace(report, inliers=inliers)
        if inliers < _FEWEST_INLIERS:
            return _rejected(report, f"only {inliers:.0%} of its tiles fit the reference")
        height, width = laid.shape[1:]
        middle = complex(width - 1, height - 1) / 2
        shift = (motion.place(middle) - middle) * (self._reference.size[0] // width)
        drift = -math.log2(light)
        report = replace(
            report,
            shift=(shift.real, shift.imag),
            rotation=motion.degrees,
            stops=stops + drift,
        )
        original = self._original(laid, shown, noise)
        if original:
            return _rejected(report, f"a copy of {original}")
        pixels = stabilised(self.pixels, noise)
        smooth = self._between_pixels(planes, motion, noise, pixels)
        del planes
        white = not self._reference.from_camera
        weights = agreement(pixels, stabilised(smooth, noise), white=white)
        del pixels
        weights *= inside
        if stops:
            weights *= (laid < _CLIPPED * gain).all(0)
        weight = float(weights.mean())
        report = replace(report, weight=weight)
        if weight < _LEAST_WEIGHT:
            return _rejected(report, f"only {weight:.0%} of it shows what the reference shows")
        if abs(drift) > MOST_DRIFT:
            more = f"{abs(drift):.1f} stops {'brighter' if drift > 0 else 'darker'}"
            reason = f"it is {more} than the reference, which its exposure does not explain"
            return _rejected(report, reason)
        self._values[self.count], self._weights[self.count] = laid, weights
        self._names.append(frame.name)
        self.count += 1
        weights *= self._steady
        self._sum += (linear_to_srgb(smooth) if self._encoded else smooth).mul_(weights)
        self._total += weights
        self._squares += weights.square_()
        return report

    def _lay(self, planes: Tensor, noise: NoiseProfile) -> tuple[Motion, float, Tensor, Tensor]:
        """Return how (C, H, W) planes moved, how many tiles so, them laid, and where they lie."""
        alignment = align(guide(self.pixels, noise), guide(planes, noise))
        return alignment.motion, alignment.inliers, *warp_nearest(planes, alignment.motion)

    def _between_pixels(
        self, planes: Tensor, motion: Motion, noise: NoiseProfile, reference: Tensor
    ) -> Tensor:
        """Return (C, H, W) planes laid on the reference as they show what lies between pixels.

        Of a mosaic, what the other colours tell counts unless it is less like the reference than
        what a colour shows alone, as in light of one colour.

        Args:
            planes: of the frame, linear.
            motion: from the reference to the frame.
            noise: of both.
            reference: stabilised by it.
        """
        alone = warp_lanczos(planes, motion)
        if self._cfa is None:
            return alone
        together = warp_mosaic(planes, motion, self._cfa)
        first, second = (stabilised(laid, noise) for laid in (alone, together))
        worse = (second - first).mul_(second.add_(first).sub_(reference, alpha=2))
        share = blurred(worse, _SPREAD).neg_().add_(_STILL_BELIEVED).clamp_(0, 1)
        return alone.lerp_(together, share.mul_(_FROM_OTHER_COLOURS))

    def _original(self, laid: Tensor, shown: Tensor, noise: NoiseProfile) -> str | None:
        """Return the name of the frame of which another is a copy, by a sample of their pixels.

        Two shots differ by the noise of both, unless black or white holds none.

        Args:
            laid: (C, H, W) linear, as it lies on the reference.
            shown: (H, W) where it and the reference are not clipped to white.
            noise: of both.
        """
        step = max(1, math.isqrt(shown.numel() // _SAMPLES))
        part = (..., slice(None, None, step), slice(None, None, step))
        sample = laid[part].half().float()
        noisy = shown[part] & (sample > 0).all(0)
        others = stabilised(self.values[part].float(), noise)
        differences = (others - stabilised(sample, noise)).square_().mean(1)[:, noisy].mean(1) / 2
        for name, difference in zip(self._names, differences.tolist(), strict=True):
            if difference < _COPIED**2:
                return name
        return None

    def alone(self) -> Tensor:
        """Return (H, W): 1 where no frame shows what the reference shows, 0 where one does."""
        agreeing = self.weights[1:].float().sum(0)
        return ((0.75 - agreeing) / 0.5).clamp_(0, 1)

    def mean(self) -> tuple[Tensor, Tensor]:
        """Return the weighted mean (C, H, W) and the share (H, W) of the variance left in it.

        Frames are interpolated to the pixels of the reference by filters that leave their noise a
        little weaker than the share says, and of mosaics not quite independent of colour. Encoded
        frames are averaged as they are encoded. At an edge a frame may be wrong by the slope times
        what it lies off, which is weighed against its noise.
        """
        mean = self._sum / self._total
        return srgb_to_linear(mean) if self._encoded else mean, self._squares / self._total**2

    def fill(self, pixels: Tensor) -> None:
        """Put (C, H, W) linear pixels where a frame shows something else than the reference."""
        for values, weights in zip(self.values[1:], self.weights[1:], strict=True):
            values.copy_(torch.lerp(pixels, values.float(), weights.float()))


def _rejected(report: FrameReport, reason: str) -> FrameReport:
    """Return the report of a frame that is left out."""
    return replace(report, status="rejected", reason=reason)


def _between(noise: NoiseProfile, other: NoiseProfile, gain: float) -> NoiseProfile:
    """Return the mean of two noises, the second of a frame that is brightened by a gain.

    Both frames are stabilised by it, so that equal light stays equal.
    """
    shot = (noise.shot + other.shot * gain) / 2
    return NoiseProfile(shot, ((noise.read**2 + (other.read * gain) ** 2) / 2) ** 0.5)
