"""Training pictures: decoded once, and pairs cut from them."""

from restorekit.datasets.cache import PictureCache, find_pictures, pictures_below
from restorekit.datasets.layouts import KNOWN_PAIRS, Pair, find_pairs
from restorekit.datasets.paired import PairedFolder, cache_pairs, find_training_pairs
from restorekit.datasets.sampling import TrainingPairs
from restorekit.datasets.synthetic import SyntheticPairs

__all__ = [
    "KNOWN_PAIRS",
    "Pair",
    "PairedFolder",
    "PictureCache",
    "SyntheticPairs",
    "TrainingPairs",
    "cache_pairs",
    "find_pairs",
    "find_pictures",
    "find_training_pairs",
    "pictures_below",
]
