import pytest
import torch
from torch import Tensor

from restorekit.degradations import mosaic
from restorekit.ops.color import bayer_offsets
from restorekit.ops.warp import Motion, warp_lanczos, warp_mosaic, warp_nearest
from tests.shaken import hand_motion, seeded


def test_motions_are_inverted_and_enlarged() -> None:
    motion = hand_motion(100, 80, 3 - 2j, 1.5)
    assert motion.degrees == pytest.approx(1.5)
    assert motion.inverse.place(motion.place(7 + 9j)) == pytest.approx(7 + 9j)
    # The middle of the first pixel is at 0.5 times the size, less half a pixel.
    assert motion.enlarged(4).place(4 * (7 + 9j) + 1.5 + 1.5j) == pytest.approx(
        4 * motion.place(7 + 9j) + 1.5 + 1.5j
    )


def test_a_warp_moves_pixels_and_changes_none() -> None:
    planes = torch.rand(4, 300, 40, generator=seeded(7))
    warped, inside = warp_nearest(planes, Motion(shift=3.2 - 2.4j))
    assert torch.equal(warped[:, 2:, :-3], planes[:, :-2, 3:])
    assert torch.equal(warped[:, :2, :-3], planes[:, :1, 3:].expand(-1, 2, -1))
    assert torch.equal(inside[2:, :-3], torch.ones(298, 37, dtype=torch.bool))
    assert not inside[:2].any()
    assert not inside[:, -3:].any()


def test_a_warp_keeps_the_noise_white_and_as_strong() -> None:
    noise = torch.randn(1, 300, 300, generator=seeded(8))
    warped, inside = warp_nearest(noise, hand_motion(300, 300, 5.5 + 0.3j, 0.4))
    kept = warped[0][inside]
    assert float(kept.std()) == pytest.approx(1, abs=0.01)
    middle = warped[0, 20:-20, 20:-20]
    correlation = float((middle[:, 1:] * middle[:, :-1]).mean())
    assert abs(correlation) < 0.02


def test_a_smooth_warp_shows_what_lies_between_pixels() -> None:
    rows, columns = torch.meshgrid(torch.arange(80.0), torch.arange(90.0), indexing="ij")

    def wave(motion: Motion) -> torch.Tensor:
        places = torch.complex(columns.double(), rows.double()) * motion.turn + motion.shift
        return (0.9 * places.real + 0.5 * places.imag).sin().float()[None]

    motion = hand_motion(80, 90, 2.25 - 1.5j, 0.3)
    warped = warp_lanczos(wave(Motion()), motion)[:, 8:-8, 8:-8]
    assert float((warped - wave(motion)[:, 8:-8, 8:-8]).abs().max()) < 0.03
    nearest = warp_nearest(wave(Motion()), motion)[0][:, 8:-8, 8:-8]
    assert float((nearest - wave(motion)[:, 8:-8, 8:-8]).abs().max()) > 0.3


def test_a_smooth_warp_by_whole_pixels_changes_none() -> None:
    planes = torch.rand(3, 40, 50, generator=seeded(9))
    warped = warp_lanczos(planes, Motion(shift=3 - 2j))
    assert torch.equal(warped[:, 6:-6, 6:-6], torch.roll(planes, (2, -3), (1, 2))[:, 6:-6, 6:-6])
    noise = torch.randn(1, 300, 300, generator=seeded(9))
    kept = warp_lanczos(noise, Motion(shift=0.5 + 0.5j))[0, 10:-10, 10:-10]
    assert 0.8 < float(kept.std()) < 1


def grating(motion: Motion, cfa: str, balance: Tensor) -> Tensor:
    """Return packed planes of a grey grating that is too fine for one colour alone."""
    whole = motion.enlarged(2)
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(48.0), indexing="ij")
    planes = []
    for row, column in bayer_offsets(cfa):
        places = whole.turn * torch.complex(2 * columns + column, 2 * rows + row) + whole.shift
        planes.append(0.5 + 0.3 * (1.4 * places.real + 0.9 * places.imag).sin())
    return torch.stack(planes) * balance[:, None, None]


@pytest.mark.parametrize("cfa", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_colours_tell_each_other_what_lies_between(cfa: str) -> None:
    balance = torch.tensor([0.5, 1, 1, 0.7])
    motion = hand_motion(40, 48, 2.25 - 1.6j, 0.3)
    planes, truth = (grating(each, cfa, balance) for each in (Motion(), motion))
    alone, together = (
        float((warped - truth)[:, 8:-8, 8:-8].square().mean())
        for warped in (warp_lanczos(planes, motion), warp_mosaic(planes, motion, cfa))
    )
    assert together < 0.3 * alone


def test_a_mosaic_warped_by_nothing_stays() -> None:
    planes = torch.rand(4, 30, 20, generator=seeded(3))
    torch.testing.assert_close(warp_mosaic(planes, Motion(), "GBRG"), planes)


def test_black_mosaics_and_such_of_one_colour_are_warped() -> None:
    red = mosaic(
        torch.rand(3, 60, 60, generator=seeded(4)) * torch.tensor([1, 0, 0])[:, None, None]
    )
    warped = warp_mosaic(red, Motion(shift=0.5), "RGGB")
    alone = warp_lanczos(red, Motion(shift=0.5))
    torch.testing.assert_close(warped[0, :, 6:-6], alone[0, :, 6:-6], atol=0.5, rtol=0)
    black = torch.zeros(4, 30, 30)
    assert torch.equal(warp_mosaic(black, Motion(shift=0.5), "RGGB"), black)
    noise = 0.01 * torch.randn(4, 100, 100, generator=seeded(5))
    assert warp_mosaic(noise - noise.mean(), Motion(shift=0.5), "RGGB").std() < 0.02
