"""Kernel prediction networks for bursts: KPN, MKPN and AME-KPN as one network with switches.

AME-KPN (Zhang et al., ICASSP 2020), Section 2; KPN (Mildenhall et al., CVPR 2018); MKPN (Marinc et
al., 2019). A U-Net sees all frames and predicts for every pixel of every frame a kernel, and with
residual maps also a picture of its own and how far to trust the kernel; the frames that it makes of
them are averaged. The compact variant works at half resolution behind a pixel-unshuffled stem on
values in square-root units. Its kernels and the shares of its frames are softmaxes, and its
residuals correct what the kernels give, so that it starts as a mean of the frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restorekit.errors import ConfigError
from restorekit.models.attention_unet import UNet, fresh_convolution, with_more_convolutions
from restorekit.models.blocks import pad_mirrored
from restorekit.models.registry import (
    Batch,
    Criterion,
    ModelSpec,
    NoiseInput,
    RestorationModel,
    Tiling,
    register_model,
)
from restorekit.ops.color import linear_to_srgb
from restorekit.ops.kernel_prediction import adaptive_convolution, softmax_convolution

TOE = 0.01
"""Linear value below which square-root units turn linear."""
SEEN_SCALE = 4.0
"""Factor that brings square-root units to a variance near 1."""
START_SCALE = 0.1
"""Factor of the last weights of fresh heads."""
START_CENTRE = 3.0
"""Logit of the middle tap of a fresh softmax kernel, of those of the other taps 0."""
START_SHARE = 1.5
"""Logit of the share of a fresh network's reference, of those of the other frames 0."""
START_TRUST = 3.0
"""Logit of the trust that a fresh network has in its kernels."""


@dataclass(frozen=True)
class KPNConfig:
    """Describe a network for bursts; the defaults are the published AME-KPN.

    Without channel_attention, spatial_attention and residual it is KPN, and with kernel_sizes of
    1, 3, 5, 7 and 9 and separable MKPN.

    Attributes:
        channels: planes of a frame.
        frames: most frames of a burst.
        widths: channels of each level, the first at the size of the picture.
        convolutions: 3x3 convolutions a level.
        kernel_sizes: sides of the kernels that are predicted for every pixel; their results are
            averaged.
        separable: whether a kernel is the product of a column and a row.
        channel_attention: whether the decoder weighs channels by pooled statistics.
        spatial_attention: whether the decoder weighs pixels.
        residual: whether residual maps and their weights are predicted.
        compact: whether softmax weights, corrections in square-root units and half resolution take
            the place of free kernels, residual pictures and full resolution.
        annealed: weight of the loss of each frame by itself at the first step.
        annealing: its factor from step to step.
    """

    channels: int = 1
    frames: int = 8
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    convolutions: int = 3
    kernel_sizes: tuple[int, ...] = (5,)
    separable: bool = False
    channel_attention: bool = True
    spatial_attention: bool = True
    residual: bool = True
    compact: bool = False
    annealed: float = 100.0
    annealing: float = 0.9998

    def __post_init__(self) -> None:
        """Check sizes and switches."""
        if self.frames < 2:
            raise ConfigError("frames must be at least 2")
        if not self.kernel_sizes or any(side < 1 or side % 2 == 0 for side in self.kernel_sizes):
            raise ConfigError("kernel_sizes must be odd")
        if self.compact and (self.separable or len(self.kernel_sizes) > 1):
            raise ConfigError("a compact network has kernels of one size that are not separable")


class PlanarConv(nn.Conv2d):
    """Convolve 1x1 into planes that lie one after the other, whatever the layout of the input."""

    bias: nn.Parameter

    def __init__(self, channels: int, start: Tensor) -> None:
        """Start with planes near each of these numbers, whatever the input."""
        super().__init__(channels, len(start), 1)
        nn.init.normal_(self.weight, std=START_SCALE * (2 / channels) ** 0.5)
        self.bias = nn.Parameter(start)

    def forward(self, input: Tensor) -> Tensor:
        """Return (B, out_channels, H, W), contiguous; one product holds weights and biases."""
        pixels = F.pad(input.flatten(2), (0, 0, 0, 1), value=1.0)
        matrix = torch.cat((self.weight.flatten(1), self.bias[:, None]), 1)
        planes = torch.bmm(matrix.expand(len(pixels), -1, -1), pixels)
        return planes.view(len(planes), -1, *input.shape[2:])


class Head(nn.Module):
    """Turn features into maps by two convolutions."""

    def __init__(self, width: int, start: Tensor) -> None:
        """Start with a map near each of these numbers, whatever the features."""
        super().__init__()
        self.first = fresh_convolution(width, width, 3)
        self.last = PlanarConv(width, start)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, maps, H, W)."""
        maps: Tensor = self.last(self.first(features).relu())
        return maps


class AdaptiveConvolution(nn.Module):
    """Apply predicted kernels; a module so that its products can be counted."""

    def __init__(self, softmax: bool) -> None:
        """Take kernels as they are, or as the logits of weights that sum to 1."""
        super().__init__()
        self.convolve = softmax_convolution if softmax else adaptive_convolution

    def forward(self, frames: Tensor, kernels: Tensor) -> Tensor:
        """Return the frames filtered, see ops.kernel_prediction."""
        return self.convolve(frames, kernels)

    def extra_macs(self, frames: Tensor, kernels: Tensor) -> int:
        """Return one product for each plane, tap and pixel."""
        return kernels.numel() * frames.shape[2]


@register_model(
    "ame_kpn",
    KPNConfig,
    tiny=KPNConfig(widths=(8, 16), convolutions=1, kernel_sizes=(3,)),
)
class KernelPredictionNetwork(RestorationModel):
    """Restore the first frame of a burst from all of its frames, in linear light.

    Frame 0 is the reference. Frames that are missing at the end, and frames of a sample that are
    zero everywhere, are absent: they have no part in the result.
    """

    def __init__(self, config: KPNConfig) -> None:
        """Build the network with fresh weights."""
        super().__init__()
        self.config = config
        self.shrink = 2 if config.compact else 1
        self.spec = ModelSpec(
            in_channels=config.frames * config.channels,
            out_channels=config.channels,
            multiple_of=self.shrink << (len(config.widths) - 1),
            overlap=48,
            frames=config.frames,
            noise_input=NoiseInput.STD_MAP,
            tiling=Tiling.APPROXIMATE,
            tolerance=2 / 255,
        )
        count, planes, cells = config.frames, config.channels, self.shrink**2
        width = config.widths[0]
        self.features = UNet(
            (count * planes + 1) * cells,
            config.widths,
            config.convolutions,
            channel_attention=config.channel_attention,
            spatial_attention=config.spatial_attention,
        )
        starts = [_fresh_kernel(side, config).repeat(count) for side in config.kernel_sizes]
        starts.append(torch.zeros(count * planes * config.residual))
        self._parts = [len(start) for start in starts]
        self.predict = Head(width, torch.cat(starts).repeat_interleave(cells))
        trusts = torch.full((count * config.residual,), 0.0 if config.compact else START_TRUST)
        shares = torch.zeros(count * config.compact)
        shares[:1] = START_SHARE
        weights = torch.cat((trusts, shares)).repeat_interleave(cells)
        self.weigh = Head(width, weights) if len(weights) else None
        self.convolve = AdaptiveConvolution(config.compact)

    def adopted(self, start: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of a network with as many convolutions a level, or fewer."""
        return with_more_convolutions(start, "features.", self.config.convolutions)

    def forward(self, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        """Return the restored reference.

        Args:
            degraded: (B, n * channels, H, W) linear, unclipped, n from 1 to spec.frames, frame by
                frame; any H and W.
            noise_std: (B, 1, H, W) deviation of the noise of the reference.

        Returns:
            (B, channels, H, W) linear, unclipped.

        Raises:
            ValueError: there is no noise_std, or there are too many planes.
        """
        predictions, shares = self._predict(degraded, noise_std)
        return (predictions * shares).sum(1)

    def loss(self, batch: Batch, criterion: Criterion, step: int) -> Tensor:
        """Return the loss of the result and, annealed, of what each frame gives by itself.

        The criterion compares sRGB-encoded pictures whose white is 1.
        """
        predictions, shares = self._predict(batch.degraded, batch.noise_std)
        white = 1.0 if batch.white is None else batch.white
        clean = linear_to_srgb(batch.clean / white)

        def compared(restored: Tensor, truth: Tensor) -> Tensor:
            return criterion(linear_to_srgb(restored / white), truth)

        total = compared((predictions * shares).sum(1), clean)
        weight = self.config.annealed * self.config.annealing**step
        if weight > 1e-3:
            present = self._present(self._frames(batch.degraded))[:, :, None, None, None]
            own = torch.where(present, predictions, batch.clean[:, None])
            losses = [compared(frame, clean) for frame in own.unbind(1)]
            total = total + weight * torch.stack(losses).sum()
        return total

    def _frames(self, degraded: Tensor) -> Tensor:
        """Return (B, frames, channels, H, W), zero where a burst has fewer frames."""
        config = self.config
        missing = self.spec.in_channels - degraded.shape[1]
        if missing < 0 or missing % config.channels:
            raise ValueError(
                f"{degraded.shape[1]} planes are no burst of up to {config.frames} frames of "
                f"{config.channels}"
            )
        whole = F.pad(degraded, (0, 0, 0, 0, 0, missing)).contiguous()
        return whole.view(len(whole), config.frames, config.channels, *whole.shape[2:])

    @staticmethod
    def _present(frames: Tensor) -> Tensor:
        """Return (B, frames): whether a frame is there, as the reference always is."""
        present = (frames != 0).flatten(2).any(2)
        present[:, 0] = True
        return present

    def _predict(self, degraded: Tensor, noise_std: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what each frame gives, (B, N, C, H, W), and its share, (B, N, 1, H or 1, W or 1).

        The shares of the frames that are there sum to 1; those of the others are 0.
        """
        if noise_std is None:
            raise ValueError("this network needs the noise deviation of its reference")
        multiple, (height, width) = self.spec.multiple_of, degraded.shape[2:]
        noise_std = noise_std.expand_as(degraded[:, :1])
        predictions, shares = self._predict_whole(
            self._frames(pad_mirrored(degraded, multiple)), pad_mirrored(noise_std, multiple)
        )
        return predictions[..., :height, :width], shares[..., :height, :width]

    def _predict_whole(self, frames: Tensor, noise_std: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same as _predict, of sides that the U-Net can halve."""
        config = self.config
        features = self.features(self._seen(frames, noise_std))

        cells = self.shrink**2
        *kernels, residuals = self.predict(features).split_with_sizes(
            [part * cells for part in self._parts], 1
        )
        filtered = self._filtered(frames, kernels)
        present = self._present(frames)
        shares = (present / present.sum(1, keepdim=True))[:, :, None, None, None]
        if self.weigh is None:
            return filtered, shares
        weights = F.pixel_shuffle(self.weigh(features), self.shrink).float()
        weights = weights.reshape(len(frames), -1, config.frames, 1, *frames.shape[3:])
        if config.compact:
            absent = ~present[:, :, None, None, None]
            shares = weights[:, -1].masked_fill(absent, -torch.inf).softmax(1)
        if not config.residual:
            return filtered, shares
        residuals = F.pixel_shuffle(residuals, self.shrink).float().reshape(frames.shape)
        trust = weights[:, 0].sigmoid()
        if config.compact:
            return _from_root(_to_root(filtered) + (1 - trust) * residuals), shares
        return trust * filtered + (1 - trust) * residuals, shares

    def _seen(self, frames: Tensor, noise_std: Tensor) -> Tensor:
        """Return what the U-Net sees: all frames and the noise map."""
        if self.config.compact:
            noise_std = noise_std / (2 * (frames[:, 0].abs().mean(1, keepdim=True) + TOE).sqrt())
            noise_std, frames = SEEN_SCALE * noise_std, SEEN_SCALE * _to_root(frames)
        seen = F.pixel_unshuffle(torch.cat((frames.flatten(1, 2), noise_std), 1), self.shrink)
        return seen.contiguous(memory_format=torch.channels_last)

    def _filtered(self, frames: Tensor, kernels: Sequence[Tensor]) -> Tensor:
        """Return the frames filtered by their kernels, the mean over the sizes of kernels."""
        config, results = self.config, []
        for side, flat in zip(config.kernel_sizes, kernels, strict=True):
            kernel = flat.reshape(*frames.shape[:2], -1, *flat.shape[2:])
            if config.compact:
                kernel = kernel.view(*frames.shape[:2], side**2, -1, *flat.shape[2:])
            elif config.separable:
                column, row = kernel[:, :, :side], kernel[:, :, side:]
                kernel = (column[:, :, :, None] * row[:, :, None]).flatten(2, 3)
            results.append(self.convolve(frames, kernel))
        return torch.stack(results).mean(0)


def _fresh_kernel(side: int, config: KPNConfig) -> Tensor:
    """Return the numbers of a kernel that gives its frame back, nearly if compact."""
    line = torch.zeros(side)
    line[side // 2] = START_CENTRE if config.compact else 1.0
    return line.repeat(2) if config.separable else F.pad(line, (side * (side // 2),) * 2)


def _to_root(linear: Tensor) -> Tensor:
    """Return odd square-root units, nearly linear around 0."""
    root: Tensor = linear.sign() * ((linear.abs() + TOE).sqrt() - TOE**0.5)
    return root


def _from_root(root: Tensor) -> Tensor:
    """Undo _to_root."""
    linear: Tensor = root.sign() * ((root.abs() + TOE**0.5).square() - TOE)
    return linear
