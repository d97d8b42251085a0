"""Restore night.dng and print how far LibRaw's plain rendering and the result are from the truth.

python examples/measure_night.py
"""

from __future__ import annotations

from pathlib import Path

from restorekit import load_model, read_image, restore_image
from restorekit.io.raw import develop, plain_rendering
from restorekit.metrics import psnr

FOLDER = Path(__file__).parent


def main() -> tuple[float, float]:
    """Return the PSNR of the plain rendering and of the restored picture in dB."""
    truth = read_image(FOLDER / "night_truth.png").pixels
    plain = psnr(plain_rendering(FOLDER / "night.dng").pixels, truth)
    model = load_model("kbnet_xs.raw")
    restored, _ = restore_image(read_image(FOLDER / "night.dng"), model)
    better = psnr(develop(restored).pixels, truth)
    print(f"plain rendering {plain:.2f} dB, restored {better:.2f} dB, gain {better - plain:.2f} dB")
    return plain, better


if __name__ == "__main__":
    main()
