"""Tiny stand-ins for datasets of pairs, with the folders and names that they are published with."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray

PAIRS = 4

_SIDD_SCENES = [
    ("0001_001_S6_00100_00060_3200_L", "0001", ("010", "011")),
    ("0002_001_S6_00100_00020_3200_N", "0002", ("010", "011")),
]
_GOPRO_SCENES = ("GOPR0372_07_00", "GOPR0374_11_00")
_HIDE_NAMES = {
    "test-close-ups": ("22fromGOPR0950.png", "31fromGOPR1096.png"),
    "test-long-shot": ("4fromGOPR1030.png", "98fromGOPR0977.png"),
}
_DPDD_NAMES = {"0832": "0831", "0839": "0840", "0852": "0851", "0861": "0860"}


def _folders(degraded: str, clean: str, suffix: str = "png") -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"{degraded}/{number}.{suffix}", f"{clean}/{number}.{suffix}") for number in range(1, 5)
    )


def _rain(degraded: str, clean: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"{degraded}rain-00{number}.png", f"{clean}norain-00{number}.png")
        for number in range(1, 5)
    )


LAYOUTS: dict[str, tuple[tuple[str, str], ...]] = {
    "SIDD": tuple(
        (f"{folder}/{scene}_NOISY_SRGB_{shot}.PNG", f"{folder}/{scene}_GT_SRGB_{shot}.PNG")
        for name, scene, shots in _SIDD_SCENES
        for shot in shots
        for folder in [f"SIDD_Medium_Srgb/Data/{name}"]
    ),
    "SIDD crops": _folders("val/input_crops", "val/gt_crops"),
    "noisy and clean": _folders("noisy", "clean"),
    "input and groundtruth": _folders("input", "groundtruth"),
    "GoPro": tuple(
        (f"train/{scene}/blur/{frame}.png", f"train/{scene}/sharp/{frame}.png")
        for scene in _GOPRO_SCENES
        for frame in ("000047", "000048")
    ),
    "GoPro, gamma": tuple(
        (f"{scene}/blur_gamma/{frame}.png", f"{scene}/sharp/{frame}.png")
        for scene in _GOPRO_SCENES
        for frame in ("000047", "000048")
    ),
    "HIDE": tuple(
        (f"test/{part}/{name}", f"GT/{name}")
        for part, names in _HIDE_NAMES.items()
        for name in names
    ),
    "Rain13K": _folders("input", "target", "jpg"),
    "Test1200": _folders("Test1200/input", "Test1200/target"),
    "Rain100L": _rain("input/", "target/"),
    "Rain100H": _rain("Rain100H/rainy/", "Rain100H/"),
    "DPDD crops": _folders("DPDD/inputC_crops", "DPDD/target_crops"),
    "DPDD": tuple(
        (f"train_c/source/1P0A{degraded}.png", f"train_c/target/1P0A{clean}.png")
        for degraded, clean in _DPDD_NAMES.items()
    ),
}


def noisy_pair(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a degraded and a clean picture of 32 x 24 pixels."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(60, 190, 32)[None, :, None] + random.uniform(-20, 20, 3)
    clean = np.broadcast_to(ramp, (24, 32, 3))
    noisy = clean + random.normal(0, 15, clean.shape)
    return noisy.clip(0, 255).astype(np.uint8), clean.astype(np.uint8)


def lay_out(folder: Path, layout: str) -> None:
    """Write the pairs of a layout below a folder."""
    for number, names in enumerate(LAYOUTS[layout]):
        for name, pixels in zip(names, noisy_pair(number), strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            iio.imwrite(folder / name, pixels)
