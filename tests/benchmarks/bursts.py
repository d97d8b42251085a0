"""Compare what bursts are merged to with their reference, denoised by itself.

python tests/benchmarks/bursts.py PHOTOGRAPHS [--rgb] [--moving] [--count 8]

Bursts of eight frames, shifted by up to four pixels, are made of photographs at the noise of the
AME-KPN paper's gains: mosaics, or RGB pictures developed from them with --rgb. With --moving, a
mirrored part of the photograph moves over a quarter of the frame, and that quarter alone counts.
"""

from __future__ import annotations

import argparse
from functools import cache, partial
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from mosaics import middle
from torch import Generator, Tensor

from restorekit import Image, load_model, read_image, restore_image
from restorekit.datasets import find_pictures
from restorekit.degradations import (
    CameraParameters,
    mosaic,
    process,
    sample_camera,
    shot_read_noise,
    unprocess,
)
from restorekit.degradations.burst import GAINS
from restorekit.engine.burst import merge_burst
from restorekit.engine.domain import default_model
from restorekit.engine.frames import Frame, inspect_frame
from restorekit.engine.restore import RestoreOptions
from restorekit.image import Layout, NoiseProfile, Transfer
from restorekit.metrics import psnr
from restorekit.tasks import TASKS

FRAMES, MARGIN = 8, 12
STEP = 1 / 24
"""Part of the width by which a thing moves from frame to frame."""


def shifted(linear: Tensor, generator: Generator) -> Tensor:
    """Return (3, H, W) without its margin, moved by up to four pixels."""
    down, across = ((torch.rand(2, generator=generator) - 0.5) * 8).tolist()
    rows, columns = (
        (torch.arange(size) + shift + 0.5) * 2 / size - 1
        for size, shift in zip(linear.shape[1:], (down, across), strict=True)
    )
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)[None]
    moved = F.grid_sample(linear[None], grid, "bicubic", "reflection", align_corners=False)[0]
    return inner(moved.clamp_min(0))


def inner(linear: Tensor) -> Tensor:
    """Return (3, H, W) without its margin."""
    return linear[:, MARGIN:-MARGIN, MARGIN:-MARGIN]


def place(height: int, width: int, frame: int) -> tuple[slice, slice]:
    """Return the rows and columns of the moving quarter of a frame."""
    left = round(width * (1 / 12 + STEP * frame))
    return slice(height // 4, height * 3 // 4), slice(left, left + width // 2)


def with_thing(linear: Tensor, frame: int) -> Tensor:
    """Return a (3, H, W) scene in which a mirrored part of it moves."""
    rows, columns = place(*linear.shape[1:], frame)
    _, source = place(*linear.shape[1:], 0)
    moved = linear.clone()
    moved[:, rows, columns] = linear.flip((1, 2))[:, rows, source]
    return moved


def draw_burst(
    pixels: Tensor,
    camera: CameraParameters,
    noise: NoiseProfile,
    words: argparse.Namespace,
    generator: Generator,
) -> tuple[list[Image], list[Tensor]]:
    """Return noisy frames of an sRGB picture, the first unmoved, and the mosaics without noise."""
    linear = unprocess(pixels, camera)
    views = [with_thing(linear, n) if words.moving else linear for n in range(FRAMES)]
    scenes = [inner(views[0])] + [shifted(view, generator) for view in views[1:]]
    mosaics = [mosaic(scene) for scene in scenes]
    frames = []
    for clean in mosaics:
        noisy = shot_read_noise(clean, noise.shot, noise.read, generator)
        if words.rgb:
            frames.append(Image(process(noisy, camera), Transfer.SRGB, Layout.RGB))
        else:
            frames.append(Image(noisy, Transfer.LINEAR, Layout.BAYER))
    return frames, mosaics


def same(image: Image) -> Image:
    """Return a frame that is read already."""
    return image


def main() -> None:
    """Print a table of mean PSNR in dB."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--rgb", action="store_true", help="developed frames in place of mosaics")
    parser.add_argument("--moving", action="store_true", help="what moves, and that alone")
    parser.add_argument("--count", type=int, help="photographs; all without it")
    words = parser.parse_args()
    network = load_model("ame_kpn.burst8")
    denoisers = cache(load_model)
    columns = ("nothing", "one frame", "burst")
    print(f"| gain | {' | '.join(columns)} |")
    print("|--:|" + "--:|" * len(columns))
    for gain, (read, shot) in enumerate(GAINS, 1):
        noise = NoiseProfile(shot, read)
        scores: dict[str, list[float]] = {name: [] for name in columns}
        for number, path in enumerate(find_pictures([words.photographs])[: words.count]):
            generator = Generator().manual_seed(number)
            camera = sample_camera((), generator)
            pixels = middle(read_image(path).to_srgb().pixels)
            images, mosaics = draw_burst(pixels, camera, noise, words, generator)
            options = RestoreOptions(noise=None if words.rgb else noise)
            frames: list[Frame] = []
            for name, image in enumerate(images):
                like = frames[0] if frames else None
                frames.append(inspect_frame(str(name), partial(same, image), options.noise, like))
            from_camera = all(frame.from_camera for frame in frames)
            own = default_model(TASKS["denoise"], images[0].layout, from_camera=from_camera)
            denoiser = denoisers(own)
            merged, report = merge_burst(frames, network, denoiser, options)
            [reference] = [n for n, f in enumerate(report.frames) if f.status == "reference"]
            single = restore_image(images[reference], denoiser, options)[0]
            results = zip(columns, (images[reference], single, merged), strict=True)
            truth = process(mosaics[reference], camera)
            part: tuple[slice, slice] = (slice(None), slice(None))
            if words.moving:
                part = place(*truth.shape[1:], reference)
            for name, result in results:
                shown = result.pixels if words.rgb else process(result.pixels, camera)
                scores[name].append(psnr(shown.clamp(0, 1)[:, *part], truth[:, *part]))
        cells = " | ".join(f"{mean(found):.2f}" for found in scores.values())
        print(f"| {gain} | {cells} |", flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
