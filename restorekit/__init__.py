"""Restore photographs: denoise, derain, deblur and merge bursts, from the shell or from Python."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restorekit.engine.restore import restore_image as restore_image
    from restorekit.hub import load_model as load_model
    from restorekit.image import Image as Image
    from restorekit.io import read_image as read_image
    from restorekit.io import write_image as write_image
    from restorekit.models.registry import register_model as register_model

__version__ = "0.1.0"

_PUBLIC = {
    "Image": "restorekit.image",
    "load_model": "restorekit.hub",
    "read_image": "restorekit.io",
    "register_model": "restorekit.models.registry",
    "restore_image": "restorekit.engine.restore",
    "write_image": "restorekit.io",
}
__all__ = ["Image", "load_model", "read_image", "register_model", "restore_image", "write_image"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562), so that importing the package stays cheap."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
