"""Stored tensors into networks: strict loading, and checkpoints in KBNet's published layout.

KBNet (Zhang et al., 2023); the published names are those of the authors' .pth files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from restorekit.errors import ConfigError
from restorekit.models.registry import RestorationModel, create_model

State = dict[str, Tensor]

TOP_KEYS = ("net", "model", "params")


@dataclass(frozen=True)
class Naming:
    """Say what a published network calls its parts.

    Attributes:
        architecture: our name of the network.
        stem: name of its first weight, by which it is known.
        parts: patterns of the names of blocks and single convolutions, and ours for them.
        block: names inside a block, and ours for them; those that are not here are the same.
    """

    architecture: str
    stem: str
    parts: Mapping[str, str]
    block: Mapping[str, str]

    def rename(self, name: str) -> str:
        """Return our name of a published tensor, or the same name if nothing is known of it."""
        for pattern, part in self.parts.items():
            if match := re.match(rf"{pattern}\.", name):
                inner = name[match.end() :]
                for published, ours in self.block.items():
                    if inner == published or inner.startswith(f"{published}."):
                        inner = ours + inner[len(published) :]
                        break
                return f"{match.expand(part)}.{inner}"
        return name


KBNET_S = Naming(
    architecture="kbnet_s",
    stem="intro.weight",
    parts={
        r"intro": "stem",
        r"ending": "tail",
        r"downs\.(\d+)": r"body.downs.\1",
        r"ups\.(\d+)\.0": r"body.ups.\1",
        r"(encoders|decoders)\.(\d+)\.(\d+)": r"body.\1.\2.\3",
        r"middle_blks\.(\d+)": r"body.middle.\1",
    },
    block={
        "conv11": "spatial",
        "sca.1": "attention.mix",
        "conv1": "values.0",
        "conv21": "values.1",
        "conv2.0": "coefficients.spatial",
        "conv2.2": "coefficients.mix",
        "conv211": "coefficients.point",
        "attgamma": "coefficients.scale",
        "w": "kernels.bases",
        "b": "kernels.biases",
        "ga1": "kernels.scale",
        "conv3": "project",
        "conv4": "expand",
        "conv5": "reduce",
    },
)

KBNET_L = Naming(
    architecture="kbnet_l",
    stem="patch_embed.proj.weight",
    parts={
        r"patch_embed\.proj": "stem",
        r"output": "tail",
        r"(latent|refinement)\.(\d+)": r"\1.\2",
        **{rf"encoder_level{n}\.(\d+)": rf"encoders.{n - 1}.\1" for n in (1, 2, 3)},
        **{rf"decoder_level{n}\.(\d+)": rf"decoders.{3 - n}.\1" for n in (3, 2, 1)},
        **{rf"down{n}_{n + 1}\.body\.0": f"downs.{n - 1}" for n in (1, 2, 3)},
        **{rf"up{n + 1}_{n}\.body\.0": f"ups.{3 - n}" for n in (3, 2, 1)},
        **{rf"reduce_chan_level{n}": f"reductions.{3 - n}" for n in (3, 2)},
    },
    block={
        "attn.dwconv": "fusion.spatial",
        "attn.sca.1": "fusion.attention.mix",
        "attn.conv1": "fusion.values",
        "attn.conv2.0": "fusion.coefficients.spatial",
        "attn.conv2.2": "fusion.coefficients.mix",
        "attn.conv211": "fusion.coefficients.point",
        "attn.attgamma": "fusion.coefficients.scale",
        "attn.w": "fusion.kernels.bases",
        "attn.b": "fusion.kernels.biases",
        "attn.ga1": "fusion.kernels.scale",
        "attn.project_out": "fusion.project",
        "ffn.temperature": "attention.temperature",
        "ffn.qkv": "attention.qkv.0",
        "ffn.qkv_dwconv": "attention.qkv.1",
        "ffn.project_out": "attention.project",
    },
)


def convert_kbnet(checkpoint: object) -> tuple[str, dict[str, Any], RestorationModel]:
    """Build a network from a published checkpoint; its config follows from the shapes.

    Args:
        checkpoint: what the file holds: named tensors, perhaps below a top key, and perhaps each
            with the prefix `module.`.

    Returns:
        The architecture's name, its config as JSON values, and the network in evaluation mode.

    Raises:
        ConfigError: these are not the tensors of KBNet_s or KBNet_l.
    """
    state = _published_state(checkpoint)
    naming = next((known for known in (KBNET_S, KBNET_L) if known.stem in state), None)
    if naming is None:
        raise ConfigError("these are the tensors of neither KBNet_s nor KBNet_l")
    try:
        config = _config_s(state) if naming is KBNET_S else _config_l(state)
        model = create_model(naming.architecture, config)
    except (KeyError, IndexError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise ConfigError(f"no {naming.architecture} follows from the tensors: {error}") from error
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    tensors = {}
    for published, tensor in state.items():
        name = naming.rename(published)
        bare = not name.endswith((".weight", ".bias"))  # published with axes of 1, the bases flat
        same_size = name in shapes and shapes[name].numel() == tensor.numel()
        tensors[name] = tensor.reshape(shapes[name]) if bare and same_size else tensor
    load_tensors(model, tensors)
    return naming.architecture, config, model.eval()


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load stored tensors into a network, as float32, and accept no difference in names or shapes.

    Raises:
        ConfigError: a tensor is missing, unknown or of another shape.
    """
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if wrong := sorted({name for name, _ in expected.items() ^ found.items()}):
        raise ConfigError(
            f"{len(wrong)} tensors are missing, unknown or of another shape, first {wrong[0]!r}"
        )
    model.load_state_dict(
        {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    )


def _published_state(checkpoint: object) -> State:
    if isinstance(checkpoint, dict):
        checkpoint = next((checkpoint[key] for key in TOP_KEYS if key in checkpoint), checkpoint)
    if not isinstance(checkpoint, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in checkpoint.items()
    ):
        raise ConfigError("it holds no named tensors")
    return {name.removeprefix("module."): tensor for name, tensor in checkpoint.items()}


def _config_s(state: State) -> dict[str, Any]:
    width, channels = state["intro.weight"].shape[:2]
    first = "encoders.0.0"
    return {
        "channels": channels,
        "width": width,
        "encoder_blocks": _counts(state, "encoders"),
        "middle_blocks": _count(state, "middle_blks"),
        "decoder_blocks": _counts(state, "decoders"),
        "bases": state[f"{first}.w"].shape[1],
        "lightweight": state[f"{first}.conv11.1.weight"].shape[-1] == 3,
        "ffn_scale": state[f"{first}.conv4.weight"].shape[0] / width,
    }


def _config_l(state: State) -> dict[str, Any]:
    width, channels = state["patch_embed.proj.weight"].shape[:2]
    levels = [*(f"encoder_level{n}" for n in (1, 2, 3)), "latent"]
    first = f"{levels[0]}.0"
    return {
        "channels": channels,
        "width": width,
        "blocks": [_count(state, level) for level in levels],
        "refinement_blocks": _count(state, "refinement"),
        "heads": [state[f"{level}.0.ffn.temperature"].shape[0] for level in levels],
        "bases": state[f"{first}.attn.w"].shape[1],
        "ffn_scale": state[f"{first}.attn.dwconv.0.weight"].shape[0] / width,
    }


def _counts(state: State, prefix: str) -> list[int]:
    return [_count(state, f"{prefix}.{index}") for index in range(_count(state, prefix))]


def _count(state: State, prefix: str) -> int:
    """Return how many numbered modules lie below a name."""
    start = f"{prefix}."
    return len({name[len(start) :].split(".")[0] for name in state if name.startswith(start)})
