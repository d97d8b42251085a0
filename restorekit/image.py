"""Pictures with their meaning: transfer curve, channel layout, noise and metadata."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import torch

from restorekit.errors import UsageError
from restorekit.ops.color import linear_to_srgb, srgb_to_linear


class Transfer(Enum):
    """How pixel values relate to light."""

    LINEAR = "linear"
    SRGB = "srgb"


class Layout(Enum):
    """What the channels of a picture are."""

    RGB = "rgb"
    GRAY = "gray"
    BAYER = "bayer"

    @property
    def planes(self) -> int:
        """Return the number of planes."""
        return {Layout.RGB: 3, Layout.GRAY: 1, Layout.BAYER: 4}[self]


@dataclass(frozen=True)
class NoiseProfile:
    """Say how strong the noise of a linear picture is: variance = shot * signal + read**2.

    The signal is linear with black 0 and white 1. A DNG NoiseProfile pair (S, O) is
    shot = S, read = sqrt(O) (DNG 1.4, tag 51041).
    """

    shot: float
    read: float


@dataclass(frozen=True)
class Metadata:
    """Carry what a file says beside its pixels.

    Attributes:
        path: file that the picture came from.
        black_level: sensor black of R, G1, G2, B in file units (RAW only).
        white_level: saturation in file units (RAW only).
        cfa: phase of the Bayer pattern, such as "RGGB", read row by row (RAW only).
        white_balance: multipliers of R, G, B as shot, green 1 (RAW only).
        color_matrix: XYZ to camera, nine numbers row by row (RAW only).
        iso: sensitivity setting.
        exposure_time: seconds.
        f_number: of the aperture.
        taken: when, in seconds by the clock of the camera.
        orientation: EXIF orientation 1..8 that the stored pixels still need.
        icc_profile: embedded ICC profile.
        exif: EXIF block as in TIFF, without the JPEG marker header.
        xmp: XMP packet.
        iptc: IPTC-IIM records, such as captions and keywords.
        resolution: dots per inch across and down, stated outside of the EXIF block.
        png_chunks: type and body of the chunks of colour, density and text of a PNG file.
        make: camera maker.
        model: camera model.
        bit_depth: bits a sample in the file; 32 means floating point.
        noise: noise profile that the file states.
        warnings: what the reader left out or changed, a line each.
    """

    path: Path | None = None
    black_level: tuple[float, ...] = ()
    white_level: float | None = None
    cfa: str | None = None
    white_balance: tuple[float, float, float] | None = None
    color_matrix: tuple[float, ...] | None = None
    iso: float | None = None
    exposure_time: float | None = None
    f_number: float | None = None
    taken: float | None = None
    orientation: int = 1
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    resolution: tuple[float, float] | None = None
    png_chunks: tuple[tuple[bytes, bytes], ...] = ()
    make: str | None = None
    model: str | None = None
    bit_depth: int = 8
    noise: NoiseProfile | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Image:
    """Hold one picture in host memory.

    Attributes:
        pixels: (C, H, W) float32 on the CPU, black 0, white 1; RAW values may lie outside.
        transfer: LINEAR light or SRGB encoded.
        layout: RGB (3 planes), GRAY (1 plane) or BAYER (R, G1, G2, B planes at half size, G1 in
            the rows of R, whatever the phase of the sensor).
        metadata: what the file says beside its pixels.
        alpha: (1, H, W) float32 in [0, 1], or None.
    """

    pixels: torch.Tensor
    transfer: Transfer
    layout: Layout
    metadata: Metadata = field(default_factory=Metadata)
    alpha: torch.Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be a picture, without a look at the values.

        Raises:
            UsageError: pixels or alpha are no floating-point tensor of the planes of the layout.
        """
        _check_planes(f"{self.layout.value} pixels", self.pixels, self.layout.planes)
        if self.alpha is not None:
            _check_planes("alpha", self.alpha, 1)

    @property
    def height(self) -> int:
        """Return the rows of one plane."""
        return int(self.pixels.shape[-2])

    @property
    def width(self) -> int:
        """Return the columns of one plane."""
        return int(self.pixels.shape[-1])

    @property
    def cfa(self) -> str:
        """Return the phase of the Bayer pattern, RGGB where it is not stated."""
        return self.metadata.cfa or "RGGB"

    def with_pixels(self, pixels: torch.Tensor) -> Image:
        """Return this picture with other pixels of the same meaning, (C, H, W) float32."""
        return replace(self, pixels=pixels)

    def to_linear(self) -> Image:
        """Return the picture in linear light."""
        if self.transfer is Transfer.LINEAR:
            return self
        return replace(self, pixels=srgb_to_linear(self.pixels), transfer=Transfer.LINEAR)

    def to_srgb(self) -> Image:
        """Return the picture encoded by the sRGB transfer curve."""
        if self.transfer is Transfer.SRGB:
            return self
        return replace(self, pixels=linear_to_srgb(self.pixels), transfer=Transfer.SRGB)

    def visible(self) -> Image:
        """Return the picture, black where it is wholly transparent."""
        return self if self.alpha is None else self.with_pixels(self.pixels * (self.alpha > 0))

    def crop(self, x: int, y: int, width: int, height: int) -> Image:
        """Return the rectangle at column x, row y of the planes; it must lie inside."""
        rows, columns = slice(y, y + height), slice(x, x + width)
        alpha = None if self.alpha is None else self.alpha[:, rows, columns]
        return replace(self, pixels=self.pixels[:, rows, columns], alpha=alpha)


def _check_planes(name: str, planes: torch.Tensor, count: int) -> None:
    if not isinstance(planes, torch.Tensor):
        given = type(planes).__name__
        raise UsageError(f"{name} must be a tensor of PyTorch, not {given}; see torch.from_numpy")
    shape = tuple(planes.shape)
    if len(shape) != 3 or shape[0] != count or 0 in shape:
        raise UsageError(
            f"{name} must have the shape ({count}, height, width), not {shape}; "
            "see torch.Tensor.permute"
        )
    if not planes.is_floating_point():
        raise UsageError(
            f"{name} must be floating point, black 0 and white 1, not {planes.dtype}; "
            "convert and divide by white"
        )
    if planes.requires_grad:
        raise UsageError(f"{name} must carry no gradients; call detach() first")
