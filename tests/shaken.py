"""Scenes, and what shaking hands see of them."""

import cmath
import math
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from restorekit.degradations import CameraParameters, mosaic, process, shot_read_noise
from restorekit.engine.frames import Frame, inspect_frame
from restorekit.image import Image, Layout, Metadata, NoiseProfile, Transfer
from restorekit.ops.warp import Motion

GAINS = (
    NoiseProfile(read=5e-3, shot=1e-3),
    NoiseProfile(read=2e-2, shot=4.3e-3),
    NoiseProfile(read=5e-2, shot=1e-2),
    NoiseProfile(read=8e-2, shot=2.3e-2),
)


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def texture(height: int, width: int, seed: int, channels: int = 1) -> Tensor:
    """Return (channels, height, width) linear light of blotches of all sizes and of boxes."""
    generator = seeded(seed)
    light = torch.zeros(channels, height, width)
    for cells in (3, 6, 12, 25, 50, 100, 200):
        noise = torch.rand(1, channels, cells, cells, generator=generator)
        light += F.interpolate(noise, (height, width), mode="bicubic")[0] / cells**0.5
    light = (light - light.mean()) / light.std() * 0.13 + 0.3
    for _ in range(30):
        y, x, tall, wide = torch.rand(4, generator=generator).tolist()
        rows = slice(int(y * height), int((y + 0.05 + 0.1 * tall) * height))
        columns = slice(int(x * width), int((x + 0.05 + 0.1 * wide) * width))
        light[:, rows, columns] += 0.3 * torch.rand(channels, 1, 1, generator=generator) - 0.1
    return light.clamp(0.01, 0.9)


def coloured(height: int, width: int, seed: int) -> Tensor:
    """Return (3, 2 * height, 2 * width) linear light that a sensor samples in planes of a size.

    Colours share the fine detail, as those of things do.
    """
    colours = torch.rand(1, 3, 5, 5, generator=seeded(seed))
    colours = F.interpolate(colours, (2 * height, 2 * width), mode="bicubic")[0]
    return texture(2 * height, 2 * width, seed) * (0.7 + 0.3 * colours)


def hand_motion(height: int, width: int, shift: complex, degrees: float) -> Motion:
    """Return the motion that turns a picture around its centre and shifts it."""
    center = complex(width - 1, height - 1) / 2
    turn = cmath.rect(1, math.radians(degrees))
    return Motion(turn, center - turn * center + shift)


def seen(scene: Tensor, motion: Motion, margin: int = 0) -> Tensor:
    """Return the frame that a motion gives of a (C, H, W) scene, less a margin on each side."""
    height, width = (side - 2 * margin for side in scene.shape[1:])
    y = torch.arange(height, dtype=torch.float64)[:, None]
    x = torch.arange(width, dtype=torch.float64)
    places = (torch.complex(x.expand(height, -1), y.expand(-1, width)) - motion.shift) / motion.turn
    across = 2 * (places.real + margin + 0.5) / scene.shape[2] - 1
    down = 2 * (places.imag + margin + 0.5) / scene.shape[1] - 1
    grid = torch.stack((across, down), -1)[None].float()
    frame = F.grid_sample(scene[None], grid, "bicubic", "reflection", align_corners=False)
    return frame[0].clamp(0, 1)


def sampled(scene: Tensor, motion: Motion, margin: int = 0) -> Tensor:
    """Return the planes of a mosaic that a motion of them gives of a scene by coloured."""
    return mosaic(seen(scene, motion.enlarged(2), 2 * margin))


def noisy(clean: Tensor, noise: NoiseProfile, seed: int) -> Tensor:
    deviation = (noise.shot * clean + noise.read**2).sqrt()
    return clean + deviation * torch.randn(clean.shape, generator=seeded(seed))


def raw(planes: Tensor, noise: NoiseProfile | None, **metadata: object) -> Image:
    """Return (4, H, W) planes as the mosaic of a camera that states its noise."""
    stated = replace(Metadata(cfa="RGGB", noise=noise), **metadata)
    return Image(planes, Transfer.LINEAR, Layout.BAYER, stated)


def finished(
    planes: Tensor, noise: NoiseProfile, camera: CameraParameters, generator: Generator
) -> Image:
    """Return the picture that a camera makes of a noisy mosaic."""
    exposed = shot_read_noise(planes, noise.shot, noise.read, generator)
    return Image(process(exposed, camera), Transfer.SRGB, Layout.RGB)


def in_memory(images: list[Image], reference: int | None = None) -> list[Frame]:
    """Return frames named by their numbers; the reference is the sharpest."""
    frames: list[Frame] = []
    for number, image in enumerate(images):
        like = frames[0] if frames else None
        frames.append(inspect_frame(f"{number}.dng", partial(lambda i: i, image), like=like))
    if reference is not None:
        frames[reference] = replace(frames[reference], sharpness=1e9)
    return frames
