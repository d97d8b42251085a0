"""Networks: one architecture family per file, found through the registry."""

from restorekit.models import kbnet_l as kbnet_l
from restorekit.models import kbnet_s as kbnet_s
from restorekit.models import kbnet_xs as kbnet_xs
from restorekit.models import kit as kit
from restorekit.models import kpn as kpn
from restorekit.models.registry import (
    Architecture,
    Batch,
    ModelSpec,
    NoiseInput,
    RestorationModel,
    Tiling,
    architectures,
    create_model,
    register_model,
)

__all__ = [
    "Architecture",
    "Batch",
    "ModelSpec",
    "NoiseInput",
    "RestorationModel",
    "Tiling",
    "architectures",
    "create_model",
    "register_model",
]
