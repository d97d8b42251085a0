"""Raw data made from finished photographs, and the camera pipeline that develops it again.

The steps are those of Brooks et al., "Unprocessing Images for Learned Raw Denoising" (CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from restorekit.ops.color import linear_to_srgb, pack_bayer, srgb_to_linear
from restorekit.ops.demosaic import demosaic

CFA = "RGGB"
HIGHLIGHTS = 0.9
SRGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
# XYZ to camera under D65, times 10000: ColorMatrix2 of the DNG files that Adobe's converter writes.
COLOR_MATRICES = {
    "Canon EOS 5D Mark III": (6722, -635, -963, -4287, 12460, 2028, -908, 2162, 5668),
    "Canon EOS 6D": (7034, -804, -1014, -4420, 12564, 2058, -851, 1994, 5758),
    "Fujifilm X-T1": (8458, -2451, -855, -4597, 12447, 2407, -1475, 2482, 6526),
    "Nikon D3": (8139, -2171, -663, -8747, 16541, 2295, -1925, 2008, 8093),
    "Nikon D5200": (8322, -3112, -1047, -6367, 14342, 2179, -988, 1638, 6394),
    "Olympus E-P5": (8380, -2630, -639, -2887, 10725, 2496, -627, 1427, 5438),
    "Panasonic DMC-GH4": (7122, -2108, -512, -3155, 11201, 2231, -541, 1423, 5045),
    "Sony ILCE-7": (5271, -712, -347, -6153, 13653, 2763, -1601, 2366, 7242),
}


@dataclass(frozen=True)
class CameraParameters:
    """Hold what a camera does between its sensor and its picture.

    Attributes:
        rgb_to_camera: (*batch, 3, 3), linear sRGB to white-balanced camera RGB, rows of sum 1.
        gain: (*batch,) brightening of all channels.
        red_gain: (*batch,) white balance of red, green 1.
        blue_gain: (*batch,) white balance of blue, green 1.
    """

    rgb_to_camera: Tensor
    gain: Tensor
    red_gain: Tensor
    blue_gain: Tensor

    @property
    def gains(self) -> Tensor:
        """Return the factors (*batch, 3, 1, 1) that brighten and balance camera R, G, B."""
        balance = torch.stack((self.red_gain, torch.ones_like(self.gain), self.blue_gain), -1)
        return (balance * self.gain[..., None])[..., None, None]


def sample_camera(batch: Sequence[int], generator: Generator) -> CameraParameters:
    """Draw cameras: a mixture of real colour matrices, and white balance and gains of daylight.

    The mixtures are uniform over all convex ones. The gain is 1 / normal(0.8, 0.1), that of red
    uniform in [1.9, 2.4], that of blue in [1.5, 1.9].

    Args:
        batch: (B,), or () for one picture.
        generator: source of the draws.
    """
    matrices = torch.tensor(list(COLOR_MATRICES.values())).view(-1, 3, 3) / 10000
    shares = -torch.rand(*batch, len(matrices), generator=generator).clamp_min(1e-12).log()
    shares = shares / shares.sum(-1, keepdim=True)
    xyz_to_camera = torch.einsum("...n,nij->...ij", shares, matrices)
    rgb_to_camera = xyz_to_camera @ torch.tensor(SRGB_TO_XYZ)
    gain = 1 / (0.8 + 0.1 * torch.randn(tuple(batch), generator=generator)).clamp(0.4, 1.2)
    red, blue = torch.rand(2, *batch, generator=generator)
    return CameraParameters(
        rgb_to_camera=rgb_to_camera / rgb_to_camera.sum(-1, keepdim=True),
        gain=gain,
        red_gain=1.9 + 0.5 * red,
        blue_gain=1.5 + 0.4 * blue,
    )


def unprocess(encoded: Tensor, camera: CameraParameters) -> Tensor:
    """Turn a photograph into what the camera's sensor saw, without noise.

    Bright greys keep their brightness, as they do on a saturated sensor, instead of being darkened
    by the inverse of the gains; all else is undone exactly by process.

    Args:
        encoded: (*batch, 3, H, W) sRGB-encoded, in [0, 1].
        camera: parameters of the same batch.

    Returns:
        (*batch, 3, H, W) linear camera RGB in [0, 1], before white balance; see mosaic.
    """
    untoned = 0.5 - torch.sin(torch.asin(1 - 2 * encoded.clamp(0, 1)) / 3)
    balanced = _recolor(srgb_to_linear(untoned.clamp_min(0)), camera.rgb_to_camera)
    gray = balanced.mean(-3, keepdim=True)
    saturation = ((gray - HIGHLIGHTS).clamp_min(0) / (1 - HIGHLIGHTS)) ** 2
    inverse = 1 / camera.gains
    inverse = torch.maximum(inverse, inverse + saturation * (1 - inverse))
    return (balanced * inverse).clamp(0, 1)


def process(raw: Tensor, camera: CameraParameters) -> Tensor:
    """Develop raw data: balance, demosaic, correct the colours, encode and apply the tone curve.

    Args:
        raw: linear, (*batch, 3, H, W) camera RGB or (*batch, 4, H, W) planes as mosaic gives them.
        camera: parameters of the same batch.

    Returns:
        (*batch, 3, H, W), or (*batch, 3, 2H, 2W) from planes: sRGB-encoded, in [0, 1].
    """
    gains = camera.gains
    if raw.shape[-3] == 4:
        gains = gains[..., [0, 1, 1, 2], :, :]
    balanced = (raw * gains).clamp(0, 1)
    if raw.shape[-3] == 4:
        balanced = demosaic(balanced, CFA)
    linear = _recolor(balanced, torch.linalg.inv(camera.rgb_to_camera)).clamp(0, 1)
    untoned = linear_to_srgb(linear)
    return untoned**2 * (3 - 2 * untoned)


def mosaic(rgb: Tensor) -> Tensor:
    """Sample camera RGB (..., 3, 2H, 2W) as a Bayer sensor: (..., 4, H, W) planes R, G1, G2, B."""
    red, green, blue = (pack_bayer(plane, CFA) for plane in rgb.unbind(-3))
    planes = (red[..., 0, :, :], green[..., 1, :, :], green[..., 2, :, :], blue[..., 3, :, :])
    return torch.stack(planes, -3)


def _recolor(rgb: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("...ij,...jhw->...ihw", matrix, rgb)
