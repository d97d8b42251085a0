"""What a network sees in a picture: the patches that KiT matches, the kernels that KBNet mixes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from PIL import Image as PillowImage
from PIL import ImageDraw
from torch import Tensor, nn

from restorekit.engine.device import choose_device
from restorekit.engine.domain import enter, measure_noise
from restorekit.engine.methods import LARGEST_WHOLE
from restorekit.engine.picture import check_finite
from restorekit.errors import UsageError
from restorekit.hub import LoadedModel
from restorekit.image import Image, Layout
from restorekit.io import raw
from restorekit.models.blocks import Coefficients, pad_mirrored
from restorekit.models.kit import KNNAttention
from restorekit.models.registry import NoiseInput
from restorekit.ops import orientation

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#42d4f4")
_SHOWN_SHARE = 0.98
"""Share of the coefficients that lie within the range of a colour."""


def upright(image: Image, crop: tuple[int, int, int, int] | None = None) -> Image:
    """Return a picture developed, sRGB-encoded and turned as it is looked at, or a part of it.

    Args:
        image: any picture.
        crop: x, y, width and height of the part.

    Raises:
        UsageError: the part does not lie inside.
    """
    image = raw.develop(image) if image.layout is Layout.BAYER else image.to_srgb()
    pixels = orientation.upright(image.pixels, image.metadata.orientation)
    metadata = replace(image.metadata, orientation=1)
    image = replace(image, pixels=pixels.contiguous(), metadata=metadata, alpha=None)
    x, y, width, height = crop or (0, 0, image.width, image.height)
    if x + width > image.width or y + height > image.height:
        raise UsageError(
            f"{image.metadata.path}: the crop {x},{y},{width},{height} does not lie inside its "
            f"{image.width} x {image.height} pixels"
        )
    return image.crop(x, y, width, height)


def inspect(
    image: Image,
    model: LoadedModel,
    *,
    block: int | None = None,
    at: Sequence[tuple[int, int]] = (),
    device: str = "auto",
) -> PillowImage.Image:
    """Draw what a block of a network makes of a picture.

    Of KiT, the patches that chosen patches attend to are framed in the picture: a thick frame is a
    chosen patch, thin ones of its colour are its matches in all rounds (Figure 7 of the paper). Of
    KBNet, the coefficients of the kernel bases at every pixel are projected to their three
    principal components, which become red, green and blue (Figure 10).

    Args:
        image: an upright RGB or grey picture.
        model: network and card; the network moves to the device.
        block: number of the block from 1 on, in the order of the network; None for the last.
        at: x and y of pixels in the chosen patches; the middle of the picture without any.
        device: auto, cpu, cuda, cuda:N or mps.

    Returns:
        A picture of the same size.

    Raises:
        DecodeError: the picture holds infinite values or no numbers.
        UsageError: the network has nothing to show or no such block, the picture is too large or
            does not fit the network, or a pixel lies outside.
    """
    check_finite(image)
    name = image.metadata.path or "the picture"
    if model.card.layout == Layout.BAYER.value:
        raise UsageError(
            f"inspect looks at developed pictures, but {model.card.name} takes the mosaics of RAW "
            "files; choose another model"
        )
    if image.height * image.width > LARGEST_WHOLE:
        raise UsageError(
            f"{name}: too large to inspect as a whole, {image.width} x {image.height}; choose a "
            "part by --crop"
        )
    chosen = _chosen_block(model, block)
    for x, y in at:
        if not (0 <= x < image.width and 0 <= y < image.height):
            raise UsageError(
                f"{name}: the pixel {x},{y} lies outside its {image.width} x {image.height} pixels"
            )
    if isinstance(chosen, Coefficients):
        if at:
            raise UsageError(f"{model.card.name} matches no patches; leave out --at")
        seen = _run(image, model, chosen, lambda _, output: output, device)
        return _painted(seen, image)
    seen = _run(image, model, chosen, lambda entered, _: chosen.matches(entered), device)
    return _framed(seen, chosen.patch, image, at or [(image.width // 2, image.height // 2)])


def _chosen_block(model: LoadedModel, number: int | None) -> KNNAttention | Coefficients:
    blocks = [m for m in model.model.modules() if isinstance(m, KNNAttention | Coefficients)]
    if not blocks:
        raise UsageError(
            f"{model.card.name} matches no patches and mixes no kernels; inspect shows KiT and "
            "KBNet"
        )
    if number is not None and not 1 <= number <= len(blocks):
        raise UsageError(f"{model.card.name} has the blocks 1 to {len(blocks)}, not {number}")
    return blocks[-1 if number is None else number - 1]


class _Seen(NamedTuple):
    """Hold what was seen in a block, pixels that a feature is wide, and features of a row."""

    values: Tensor
    scale: int
    columns: int


def _run(
    image: Image,
    model: LoadedModel,
    block: nn.Module,
    look: Callable[[Tensor, Tensor], Tensor],
    device: str,
) -> _Seen:
    """Run the network and keep look(input, output) of a block."""
    network, place = model.model, choose_device(device)
    domain = enter(image, model.card, measure_noise(image, network.spec, None))
    degraded = domain.values[list(domain.passes[0])][None].to(place)
    padded = pad_mirrored(degraded, network.spec.multiple_of)
    noise_std = None
    if network.spec.noise_input is NoiseInput.STD_MAP:
        assert domain.noise_std is not None
        told = torch.zeros_like(domain.values[None, :1]) + domain.noise_std
        noise_std = pad_mirrored(told.to(place), network.spec.multiple_of)
    found: list[_Seen] = []

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        columns = inputs[0].shape[-1]
        values = look(inputs[0], output)[0].cpu()
        found.append(_Seen(values, padded.shape[-1] // columns, columns))

    handle = block.register_forward_hook(hook)
    try:
        with torch.inference_mode():
            network.to(place)(padded, noise_std)
    finally:
        handle.remove()
    return found[0]


def _framed(
    seen: _Seen, patch: int, image: Image, at: Sequence[tuple[int, int]]
) -> PillowImage.Image:
    """Frame the patches at some pixels and their (h, N, 2k) matches."""
    picture = _picture(image.pixels)
    draw = ImageDraw.Draw(picture)
    side, columns = seen.scale * patch, seen.columns // patch
    thin = max(1, side // 8)

    def frame(number: int, colour: str, width: int) -> None:
        left, top = side * (number % columns), side * (number // columns)
        right, bottom = min(left + side, image.width), min(top + side, image.height)
        if left < right and top < bottom:
            draw.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=width)

    for index, (x, y) in enumerate(at):
        colour = COLOURS[index % len(COLOURS)]
        query = y // side * columns + x // side
        for number in set(seen.values[:, query].flatten().tolist()):
            if number >= 0:
                frame(number, colour, thin)
        frame(query, colour, 2 * thin)
    return picture


def _painted(seen: _Seen, image: Image) -> PillowImage.Image:
    """Paint every pixel in the colour of its coefficients."""
    colours = principal_colours(seen.values)
    grown = colours.repeat_interleave(seen.scale, 1).repeat_interleave(seen.scale, 2)
    return _picture(grown[:, : image.height, : image.width])


def principal_colours(coefficients: Tensor) -> Tensor:
    """Project (N, H, W) coefficients to their three principal components, as (3, H, W) in [0, 1].

    The component that varies most is red. Where there are fewer than three, the last ones are 0.5.
    """
    count, height, width = coefficients.shape
    centred = coefficients.flatten(1).double()
    centred = centred - centred.mean(1, keepdim=True)
    vectors = torch.linalg.eigh(centred @ centred.T).eigenvectors.flip(1)[:, :3].T
    vectors = vectors * vectors.sum(1, keepdim=True).sign()
    components = vectors @ centred
    reach = components.abs().quantile(_SHOWN_SHARE, dim=1, keepdim=True).clamp_min(1e-12)
    colours = torch.full((3, height * width), 0.5)
    colours[: min(count, 3)] = (0.5 + 0.5 * components / reach).clamp(0, 1).float()
    return colours.view(3, height, width)


def _picture(pixels: Tensor) -> PillowImage.Image:
    values = (pixels.expand(3, -1, -1).clamp(0, 1) * 255).round().byte()
    return PillowImage.fromarray(values.permute(1, 2, 0).contiguous().numpy())
