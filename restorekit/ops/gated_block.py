"""Both halves of KBNet's block, without kernel bases, by compiled kernels for CPUs.

KBNet (Zhang et al., 2023), Section 3.2. What lies between the input and the sum with it stays in
the cache of the processor; sums are float32. models.kb_unet holds the same as layers of PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from restorekit.ops import compiled

Layer = tuple[Tensor, Tensor]
"""Weight and bias of a norm or of a convolution, in any dtype."""
_LANES = 16


def runs_compiled(features: Tensor, hidden: int) -> bool:
    """Return whether the kernels take these features, and as many channels between.

    Gradients do not pass them.
    """
    return (
        not torch.is_grad_enabled()
        and features.shape[1] % _LANES == 0
        and hidden % _LANES == 0
        and compiled.runs("branches", features)
        and compiled.runs("feed_forward", features)
    )


def branches(
    features: Tensor,
    norm: Layer,
    points: Layer,
    depthwise: Layer,
    weights: Tensor,
    project: Layer,
) -> Tensor:
    """Add the weighed product of two branches, projected, to the features.

    Args:
        features: (B, C, H, W), float32 or bfloat16, C a multiple of 16.
        norm: (C) of the layer norm over channels.
        points: (2C, C, 1, 1) of the 1x1 convolutions of both branches.
        depthwise: (2C, 1, 3, 3) of the depthwise convolutions that follow, padded by zeros.
        weights: (B or 1, C, 1, 1) of the channels of their product.
        project: (C, C, 1, 1).

    Returns:
        (B, C, H, W) in the dtype of the features.
    """
    batch, channels, height, width = features.shape
    exact = torch.float32
    taps, bias = depthwise
    return _added(
        "branches",
        features,
        (
            *_layer(norm, exact),
            *_layer(points, features.dtype),
            taps.to(exact).reshape(2 * channels, 9).t().contiguous(),
            bias.to(exact).contiguous(),
            weights.to(exact).expand(batch, -1, -1, -1).contiguous(),
            *_layer(project, features.dtype),
        ),
        (batch, channels, height, width),
    )


def feed_forward(features: Tensor, norm: Layer, expand: Layer, reduce: Layer) -> Tensor:
    """Add the gated feed-forward of the features to them.

    Args:
        features: (B, C, H, W), float32 or bfloat16, C a multiple of 16.
        norm: (C) of the layer norm over channels.
        expand: (2M, C, 1, 1) of a convolution whose halves are multiplied, M a multiple of 16.
        reduce: (C, M, 1, 1).

    Returns:
        (B, C, H, W) in the dtype of the features.
    """
    batch, channels, height, width = features.shape
    layers = _layer(norm, torch.float32), _layer(expand, features.dtype)
    return _added(
        "feed_forward",
        features,
        [x for layer in (*layers, _layer(reduce, features.dtype)) for x in layer],
        (batch * height * width, channels, len(expand[0]) // 2),
    )


def _layer(layer: Layer, dtype: torch.dtype) -> Layer:
    """Return the weight of a layer in a dtype, and its bias in float32."""
    weight, bias = layer
    return weight.to(dtype).contiguous(), bias.to(torch.float32).contiguous()


def _added(
    name: str, features: Tensor, parameters: Sequence[Tensor], sizes: Sequence[int]
) -> Tensor:
    features = features.contiguous(memory_format=torch.channels_last)
    result = torch.empty_like(features)
    tensors = features, *parameters, result
    compiled.call(name, features.dtype, tensors, sizes, torch.get_num_threads())
    return result
