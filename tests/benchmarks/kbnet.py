"""Time all of KBNet_s against a straightforward version of the published formulation.

    python tests/benchmarks/kbnet.py [--device cuda] [--dtype bfloat16] [--repeats 5] [--size 256]

Both have the same weights and run interleaved; medians of an inference and of a training step
(forward, L1, backward, AdamW) are printed, and how far the two results are apart.
"""

from __future__ import annotations

import argparse
import copy

import torch
import torch.nn.functional as F
from kernel_basis import published
from measure import Call, device_name, medians, peak_memory
from torch import Tensor, nn

from restorekit.engine.device import choose_device, keep_freed_memory
from restorekit.models.blocks import LayerNorm, ScaledConv
from restorekit.models.kb_unet import KBBlock
from restorekit.models.kbnet_s import KBNetS, KBNetSConfig
from restorekit.models.registry import torch_dtype


class PublishedBlock(nn.Module):
    """Compute a KBBlock step by step as the paper draws it, with one fused kernel a pixel."""

    def __init__(self, block: KBBlock) -> None:
        """Take over the parts of a block with kernel basis attention."""
        super().__init__()
        self.block = block

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, C, H, W) features."""
        block = self.block
        coefficients, kernels, attention = block.coefficients, block.kernels, block.attention
        assert coefficients is not None
        assert kernels is not None
        assert attention is not None
        assert block.values is not None
        normal = normalised(block.norm1, features)
        spatial = block.spatial(normal)
        channel = attention.mix(F.adaptive_avg_pool2d(normal, 1))
        weights = plain(coefficients.mix, gated(coefficients.spatial(normal)))
        weights = weights * scale(coefficients.scale) + coefficients.point(normal)
        values = block.values(normal)
        mixed = published(values, weights, kernels.bases, kernels.biases)
        fused = (mixed * scale(kernels.scale) + values) * spatial * channel
        fused = features + plain(block.project, fused) * scale(block.beta)
        wide = block.expand(normalised(block.norm2, fused))
        return fused + plain(block.reduce, gated(wide)) * scale(block.gamma)


def normalised(norm: LayerNorm, features: Tensor) -> Tensor:
    """Normalise every pixel over its channels by their mean and variance."""
    centred = features - features.mean(1, keepdim=True)
    normal = centred / (centred.pow(2).mean(1, keepdim=True) + 1e-6).sqrt()
    return normal * scale(norm.weight) + scale(norm.bias)


def plain(convolution: ScaledConv, features: Tensor) -> Tensor:
    """Convolve without folding a factor into the weights."""
    return F.conv2d(features, convolution.weight, convolution.bias)


def gated(features: Tensor) -> Tensor:
    """Return the product of the two halves of the channels."""
    first, second = features.chunk(2, 1)
    return first * second


def scale(factors: Tensor) -> Tensor:
    """Return a factor a channel, to multiply features by."""
    return factors.view(1, -1, 1, 1)


def as_published(network: KBNetS) -> KBNetS:
    """Return a copy of a network whose blocks run as published."""
    network = copy.deepcopy(network)
    for stage in (*network.body.encoders, network.body.middle, *network.body.decoders):
        for index, block in enumerate(stage):
            stage[index] = PublishedBlock(block)
    return network


def training_step(
    network: KBNetS, degraded: Tensor, clean: Tensor, precision: torch.autocast
) -> Call:
    """Return a call that takes one optimiser step."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        with precision:
            loss = F.l1_loss(network(degraded), clean)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def inference(network: KBNetS, degraded: Tensor, precision: torch.autocast) -> Call:
    """Return a call that restores a picture."""

    def restore() -> Tensor:
        with torch.inference_mode(), precision:
            return network(degraded)

    return restore


def main() -> None:
    """Print a row for inference and one for a training step."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1, help="pictures of a training step")
    parser.add_argument("--width", type=int, default=64, help="channels of the first level")
    words = parser.parse_args()
    device, dtype = choose_device(words.device), torch_dtype(words.dtype)
    keep_freed_memory()
    torch.manual_seed(0)
    ours = KBNetS(KBNetSConfig(width=words.width)).to(device)
    theirs = as_published(ours)
    for module in ours.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
    precision = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    degraded, clean = torch.rand(2, words.batch, 3, words.size, words.size, device=device)
    last = degraded.to(memory_format=torch.channels_last)
    restoring = {
        "theirs": inference(theirs, degraded[:1], precision),
        "ours": inference(ours, last[:1], precision),
    }
    apart = (restoring["ours"]().float() - restoring["theirs"]().float()).abs().max()
    print(f"{device_name(device)}, {words.dtype}, {words.size}x{words.size}, apart {apart:.1e}")
    print("| call | published ms | ours ms | ratio | memory |")
    print(f"|---|{'--:|' * 4}")
    training = {
        "theirs": training_step(theirs, degraded, clean, precision),
        "ours": training_step(ours, last, clean, precision),
    }
    rows = {"inference": restoring}
    if dtype != torch.float32:
        exact = inference(theirs, degraded[:1], torch.autocast(device.type, enabled=False))
        rows["inference, published in float32"] = {**restoring, "theirs": exact}
    rows["training step"] = training
    for name, calls in rows.items():
        timed = medians(calls, device, words.repeats)
        memory = {who: peak_memory(call, device) for who, call in calls.items()}
        print(
            f"| {name} | {1e3 * timed['theirs']:.4g} | {1e3 * timed['ours']:.4g} | "
            f"{timed['theirs'] / timed['ours']:.1f} | 1/{memory['theirs'] / memory['ours']:.1f} |"
        )


if __name__ == "__main__":
    main()
