"""Models by reference: a bundled name, a model folder, or a pinned Hugging Face Hub repository."""

from restorekit.hub.card import DRAWN_SCORE, ModelCard
from restorekit.hub.store import (
    LoadedModel,
    bundled_cards,
    fetch,
    find_card,
    import_checkpoint,
    load_model,
    locate,
    push_model,
    save_model,
    verify,
    weights_folder,
)

__all__ = [
    "DRAWN_SCORE",
    "LoadedModel",
    "ModelCard",
    "bundled_cards",
    "fetch",
    "find_card",
    "import_checkpoint",
    "load_model",
    "locate",
    "push_model",
    "save_model",
    "verify",
    "weights_folder",
]
