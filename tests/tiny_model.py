"""Fresh weights of the smallest network of an architecture, saved as a model."""

from dataclasses import asdict
from pathlib import Path

import torch

from restorekit.hub import ModelCard, save_model
from restorekit.models import architectures, create_model


def save_tiny(folder: Path, architecture: str) -> Path:
    torch.manual_seed(0)
    config = asdict(architectures()[architecture].tiny)
    card = ModelCard(
        name=f"{architecture}.test",
        architecture=architecture,
        config=config,
        task="denoise",
        transfer="srgb",
        layout="rgb",
    )
    save_model(create_model(architecture, config), card, folder)
    return folder
