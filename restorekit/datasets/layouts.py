"""Which files belong together: the folders and names of published datasets of pairs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from restorekit.datasets.cache import pictures_below
from restorekit.errors import ConfigError


@dataclass(frozen=True)
class Pair:
    """Name the two files of a pair."""

    degraded: Path
    clean: Path


@dataclass(frozen=True)
class PairRule:
    """Say how the path of a degraded picture differs from that of its clean one.

    Attributes:
        degraded: expression that is found in the paths of degraded pictures, below the data folder.
        clean: the same for clean ones; without it, and without suffix, both paths are equal.
        by_order: names differ, and the n-th degraded file of a folder belongs to the n-th clean.
        spare_clean: whether clean pictures of other parts of the dataset lie in the same folder.
    """

    degraded: str
    clean: str
    by_order: bool = False
    spare_clean: bool = False


PAIR_RULES = {
    "SIDD Medium": PairRule(r"_NOISY_SRGB(?=_)", r"_GT_SRGB(?=_)"),
    "Rain100": PairRule(r"(^|/)((input|rainy)/)?rain-(?=\d)", r"(^|/)(target/)?norain-(?=\d)"),
    "GoPro": PairRule(r"(^|/)blur/", r"(^|/)sharp/"),
    "GoPro, gamma": PairRule(r"(^|/)blur_gamma/", r"(^|/)sharp/"),
    "DPDD": PairRule(r"(^|_c/)source/", r"(^|_c/)target/", by_order=True),
    "HIDE": PairRule(r"^test/(test-close-ups|test-long-shot)/", r"^GT/", spare_clean=True),
    "folders": PairRule(
        r"(^|/)(inputC?|noisy)(_crops)?/(rainy-)?",
        r"(^|/)(target|groundtruth|gt|clean)(_crops)?/",
    ),
}
KNOWN_PAIRS = "input and target, or noisy and clean, or those of its dataset"


def find_pairs(folder: Path) -> list[Pair]:
    """Return the pairs below a folder by the first rule that it follows, sorted by path.

    Pictures that are neither half of a pair by this rule are left out.

    Returns:
        No pairs where the folder follows no rule.

    Raises:
        ConfigError: a file has no partner, or two files claim the same place in a pair.
    """
    pictures = pictures_below(folder)
    for rule in PAIR_RULES.values():
        degraded = _halves(folder, pictures, rule.degraded, rule.by_order)
        clean = _halves(folder, pictures, rule.clean, rule.by_order)
        if degraded and clean:
            _check_partners(degraded, clean, "clean")
            if not rule.spare_clean:
                _check_partners(clean, degraded, "degraded")
            return [Pair(path, clean[key]) for key, path in degraded.items()]
    return []


def _halves(
    folder: Path, pictures: Sequence[Path], expression: str, by_order: bool
) -> dict[str, Path]:
    """Return the pictures of one kind by what they share with their partners."""
    found: dict[str, Path] = {}
    seen: Counter[str] = Counter()
    for path in pictures:
        name = path.relative_to(folder).with_suffix("").as_posix()
        key, matches = re.subn(expression, "/", name, count=1)
        if not matches:
            continue
        if by_order:
            parent = key.rpartition("/")[0]
            key = f"{parent}/{seen[parent]}"
            seen[parent] += 1
        if key in found:
            raise ConfigError(f"{path} and {found[key]} have the same place in a pair; keep one")
        found[key] = path
    return found


def _check_partners(halves: dict[str, Path], others: dict[str, Path], kind: str) -> None:
    for key, path in halves.items():
        if key not in others:
            more = len(halves.keys() - others.keys()) - 1
            also = f", nor have {more} more" if more else ""
            raise ConfigError(f"{path} has no {kind} partner{also}")
