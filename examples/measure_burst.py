"""Merge the example burst and print how far it, and its best single frame, are from the truth.

python examples/measure_burst.py [--model MODEL]
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from restorekit import load_model, read_image, restore_image
from restorekit.engine.burst import merge_burst
from restorekit.engine.frames import check_frames, inspect_frame
from restorekit.io.raw import develop, plain_rendering
from restorekit.metrics import psnr

FOLDER = Path(__file__).parent


def main(model: str = "ame_kpn.burst8") -> tuple[float, float, float]:
    """Return the PSNR of the reference frame, plain and denoised, and of the burst in dB."""
    truth = read_image(FOLDER / "burst_truth.png").pixels
    files = sorted((FOLDER / "burst").glob("shot_?.dng"))
    frames = [inspect_frame(str(files[0]), partial(read_image, files[0]))]
    for file in files[1:]:
        frames.append(inspect_frame(str(file), partial(read_image, file), like=frames[0]))
    check_frames(frames)
    denoiser = load_model("kbnet_xs.raw")
    merged, report = merge_burst(frames, load_model(model), denoiser)
    reference = files[[frame.status for frame in report.frames].index("reference")]
    plain = psnr(plain_rendering(reference).pixels, truth)
    single = psnr(develop(restore_image(read_image(reference), denoiser)[0]).pixels, truth)
    burst = psnr(develop(merged).pixels, truth)
    print(
        f"{reference.name}: plain rendering {plain:.2f} dB, denoised {single:.2f} dB, "
        f"burst {burst:.2f} dB"
    )
    return plain, single, burst


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ame_kpn.burst8")
    main(parser.parse_args().model)
