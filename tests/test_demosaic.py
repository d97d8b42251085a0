import pytest
import torch

from restorekit.ops.color import pack_bayer
from restorekit.ops.demosaic import demosaic


@pytest.mark.parametrize("cfa", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_demosaic_keeps_samples_and_is_exact_on_ramps(cfa: str) -> None:
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(20.0), indexing="ij")
    rgb = torch.stack((0.2 + 0.01 * x, 0.7 - 0.02 * y + 0.005 * x, 0.1 + 0.03 * y))
    packed = [pack_bayer(plane, cfa) for plane in rgb]
    planes = torch.stack([packed[colour][plane] for plane, colour in enumerate((0, 1, 1, 2))])
    restored = demosaic(planes.expand(2, -1, -1, -1), cfa)
    inner = restored[..., 2:-2, 2:-2]
    torch.testing.assert_close(inner, rgb[:, 2:-2, 2:-2].expand_as(inner))
    for plane, colour in enumerate((0, 1, 1, 2)):
        assert torch.equal(pack_bayer(restored[0, colour], cfa)[plane], planes[plane])
