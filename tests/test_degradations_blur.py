import math

import pytest
import torch
import torch.nn.functional as F

from restorekit.degradations import (
    convolve,
    defocus_blur,
    depth_blur,
    disk_psf,
    line_psf,
    motion_blur,
    polygon_psf,
    shake_psf,
)

BLURS = {"motion": motion_blur, "defocus": defocus_blur, "depth": depth_blur}
PIXEL_VARIANCE = 1 / 12


def moments(psf: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return centroid (*batch, 2) and variances (*batch, 2) along rows and columns."""
    axis = torch.arange(psf.shape[-1], dtype=torch.float64) - psf.shape[-1] // 2
    sums = (psf.double().sum(-1), psf.double().sum(-2))
    centroid = torch.stack([(s * axis).sum(-1) for s in sums], -1)
    return centroid, torch.stack([(s * axis**2).sum(-1) for s in sums], -1) - centroid**2


@pytest.mark.parametrize("name", ["shake", "line", "disk", "polygon"])
def test_every_psf_has_sum_one_and_rests_in_the_middle(
    name: str, generator: torch.Generator
) -> None:
    size = torch.linspace(0, 11, 12).view(3, 4)
    psf = {
        "shake": lambda: shake_psf(size, generator),
        "line": lambda: line_psf(size, torch.arange(12.0).view(3, 4)),
        "disk": lambda: disk_psf(size),
        "polygon": lambda: polygon_psf(size, torch.tensor(5), size),
    }[name]()
    assert psf.shape[:2] == (3, 4)
    assert psf.shape[-1] % 2 == 1
    assert (psf >= 0).all()
    torch.testing.assert_close(psf.sum((-2, -1)), torch.ones(3, 4))
    centroid, _ = moments(psf)
    assert float(centroid.abs().max()) < (1e-4 if name != "polygon" else 4e-2)
    middle = psf.shape[-1] // 2
    assert abs(float(psf[0, 0, middle, middle]) - 1) < 1e-5


def test_a_disk_has_the_moment_and_width_of_a_disk() -> None:
    for radius in (1.3, 2.0, 5.5, 12.0):
        psf = disk_psf(torch.tensor(radius))
        _, variance = moments(psf)
        expected = torch.full((2,), radius**2 / 4 + PIXEL_VARIANCE, dtype=torch.float64)
        torch.testing.assert_close(variance, expected, rtol=0.002, atol=0.05)
        assert abs(float(psf.max()) * math.pi * radius**2 - 1) < 0.025


@pytest.mark.parametrize("blades", [5, 6, 7, 8, 9])
def test_a_polygon_has_its_moment_area_and_symmetry(blades: int) -> None:
    radius = 14.0
    psf = polygon_psf(torch.tensor(radius), torch.tensor(blades), torch.tensor(0.4))
    _, variance = moments(psf)
    side = 2 * radius * math.sin(math.pi / blades)
    moment = (6 * radius**2 - side**2) / 24 + PIXEL_VARIANCE
    expected = torch.full((2,), moment, dtype=torch.float64)
    torch.testing.assert_close(variance, expected, rtol=0.01, atol=0)
    area = blades / 2 * radius**2 * math.sin(2 * math.pi / blades)
    assert abs(float(psf.max()) * area - 1) < 0.01
    turned = torch.tensor(0.4 + 2 * math.pi / blades)
    again = polygon_psf(torch.tensor(radius), torch.tensor(blades), turned)
    torch.testing.assert_close(psf, again, atol=2e-5, rtol=0)


def test_a_line_has_the_moment_of_a_line() -> None:
    length, splat_variance = 15.0, 1 / 6
    for angle in (0.0, math.pi / 2, 0.7):
        psf = line_psf(torch.tensor(length), torch.tensor(angle))
        _, variance = moments(psf)
        direction = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        expected = length**2 / 12 * direction**2
        assert ((variance - expected).abs() <= splat_variance + 0.01).all()


def test_shake_spans_what_it_is_told_and_varies(generator: torch.Generator) -> None:
    psf = shake_psf(torch.full((200,), 20.0), generator)
    rows, columns = (psf > 1e-6).any(-1).sum(-1), (psf > 1e-6).any(-2).sum(-1)
    span = torch.maximum(rows, columns)
    assert int(span.max()) <= 23
    assert int(span.max()) >= 20
    assert float((span >= 8).float().mean()) > 0.7
    assert float(span.float().std()) > 2
    vertical = moments(psf)[1]
    share = vertical[:, 0] / vertical.sum(-1)
    assert abs(float(share.mean()) - 0.5) < 0.06


def test_shake_is_finite_for_a_single_camera(generator: torch.Generator) -> None:
    psf = shake_psf(torch.tensor(9.0), generator)
    assert psf.dim() == 2
    assert psf.isfinite().all()


@pytest.mark.parametrize("border", ["reflect", "replicate", "circular"])
def test_convolve_equals_the_sum_written_out(border: str, generator: torch.Generator) -> None:
    linear = torch.rand(2, 3, 19, 23, generator=generator)
    psf = torch.rand(2, 7, 5, generator=generator)
    blurred = convolve(linear, psf, border)
    padded = F.pad(linear, (2, 2, 3, 3), mode=border).double()
    expected = torch.zeros(2, 3, 19, 23, dtype=torch.float64)
    for row in range(7):
        for column in range(5):
            shifted = padded[..., 6 - row : 25 - row, 4 - column : 27 - column]
            expected += psf[:, row, column, None, None, None] * shifted
    torch.testing.assert_close(blurred.double(), expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(convolve(linear[0], psf[0], border), blurred[0])


def test_convolve_moves_a_point_to_the_psf() -> None:
    point = torch.zeros(1, 21, 21)
    point[0, 10, 10] = 1
    psf = torch.rand(5, 5, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(convolve(point, psf)[0, 8:13, 8:13], psf)


def test_convolve_keeps_the_light_of_a_periodic_picture(generator: torch.Generator) -> None:
    linear = torch.rand(3, 40, 40, generator=generator)
    blurred = convolve(linear, shake_psf(torch.tensor(9.0), generator), "circular")
    torch.testing.assert_close(blurred.mean((1, 2)), linear.mean((1, 2)))
    assert float(blurred.std()) < float(linear.std())


def test_convolve_refuses_what_it_cannot_centre_or_fit() -> None:
    with pytest.raises(ValueError, match="odd"):
        convolve(torch.zeros(3, 9, 9), torch.ones(4, 3))
    with pytest.raises(ValueError, match="does not fit"):
        convolve(torch.zeros(3, 9, 9), torch.ones(19, 19))


@pytest.mark.parametrize("blur", BLURS.values(), ids=BLURS)
def test_blur_keeps_constants_and_depends_on_the_seed(blur) -> None:  # type: ignore[no-untyped-def]
    flat = torch.full((2, 3, 48, 56), 0.3)
    blurred = blur(flat, 9.0, torch.Generator().manual_seed(5))
    assert float((blurred - flat).abs().max()) < 1e-6
    linear = torch.rand(2, 3, 48, 56, generator=torch.Generator().manual_seed(1))
    first, again, other = (blur(linear, 9.0, torch.Generator().manual_seed(s)) for s in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)
    assert first.shape == linear.shape
    single = blur(linear[0], 9.0, torch.Generator().manual_seed(5))
    assert single.shape == linear[0].shape
    assert float((single - linear[0]).abs().max()) > 0.01


@pytest.mark.parametrize("blur", BLURS.values(), ids=BLURS)
def test_no_blur_returns_the_picture(blur, generator: torch.Generator) -> None:  # type: ignore[no-untyped-def]
    linear = torch.rand(3, 32, 32, generator=generator)
    assert float((blur(linear, 0.0, generator) - linear).abs().max()) < 1e-5


def test_depth_blur_varies_over_the_picture(generator: torch.Generator) -> None:
    linear = (torch.rand(16, 1, 96, 96, generator=generator) > 0.5).float()
    blurred = depth_blur(linear, 6.0, generator)
    local = F.avg_pool2d((blurred - 0.5) ** 2, 16).flatten(1)
    spread = local.amax(1) / local.amin(1)
    assert float(spread.median()) > 2
