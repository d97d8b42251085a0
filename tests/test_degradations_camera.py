import numpy as np
import pytest
import torch

from restorekit.degradations import (
    CameraParameters,
    mosaic,
    process,
    sample_camera,
    unprocess,
)
from restorekit.ops.color import unpack_bayer


def neutral_camera() -> CameraParameters:
    one = torch.tensor(1.0)
    return CameraParameters(rgb_to_camera=torch.eye(3), gain=one, red_gain=one, blue_gain=one)


def muted(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Return greys of every brightness below the highlights, tinted a little."""
    gray = 0.03 + 0.8 * torch.rand(*shape[:-3], 1, *shape[-2:], generator=generator)
    return gray * (1 + 0.15 * (torch.rand(shape, generator=generator) - 0.5))


def test_cameras_stay_in_their_ranges_and_differ(generator: torch.Generator) -> None:
    camera = sample_camera((500,), generator)
    assert camera.rgb_to_camera.shape == (500, 3, 3)
    torch.testing.assert_close(camera.rgb_to_camera.sum(-1), torch.ones(500, 3))
    assert ((camera.red_gain >= 1.9) & (camera.red_gain <= 2.4)).all()
    assert ((camera.blue_gain >= 1.5) & (camera.blue_gain <= 1.9)).all()
    assert abs(float((1 / camera.gain).mean()) - 0.8) < 0.02
    assert abs(float((1 / camera.gain).std()) - 0.1) < 0.02
    assert (camera.rgb_to_camera.std(0) > 0.005).any()


def test_a_camera_depends_on_the_seed_alone() -> None:
    first, again, other = (
        sample_camera((), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first.rgb_to_camera, again.rgb_to_camera)
    assert not torch.equal(first.rgb_to_camera, other.rgb_to_camera)
    assert first.gain.shape == ()


@pytest.mark.parametrize("shape", [(3, 24, 32), (4, 3, 24, 32)])
def test_process_undoes_unprocess(shape: tuple[int, ...], generator: torch.Generator) -> None:
    clean = muted(generator, *shape)
    camera = sample_camera(shape[:-3], generator)
    raw = unprocess(clean, camera)
    assert raw.shape == clean.shape
    assert float((process(raw, camera) - clean).abs().max()) < 2e-5


def test_unprocess_equals_the_steps_written_out(generator: torch.Generator) -> None:
    clean = muted(generator, 3, 5, 7)
    camera = sample_camera((), generator)
    raw = unprocess(clean, camera).double().numpy()
    matrix = camera.rgb_to_camera.double().numpy()
    gains = np.array([camera.red_gain, 1, camera.blue_gain]) * float(camera.gain)
    for row in range(5):
        for column in range(7):
            balanced = raw[:, row, column] * gains
            linear = np.linalg.solve(matrix, balanced)
            coded = np.where(
                linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
            )
            toned = 3 * coded**2 - 2 * coded**3
            np.testing.assert_allclose(toned, clean[:, row, column].numpy(), atol=2e-5)


def test_white_stays_saturated_and_dark_does_not(generator: torch.Generator) -> None:
    camera = sample_camera((), generator)
    assert float(unprocess(torch.ones(3, 2, 2), camera).min()) > 1 - 1e-5
    dark = unprocess(torch.full((3, 2, 2), 0.3), camera)
    assert float(dark.max()) < 0.2
    ramp = unprocess(torch.linspace(0, 1, 256).expand(3, 1, 256), camera)
    assert (ramp.diff(dim=-1) >= -1e-6).all()


def test_mosaic_takes_the_samples_of_an_rggb_sensor() -> None:
    rgb = torch.arange(3 * 4 * 6, dtype=torch.float32).view(3, 4, 6)
    cells = unpack_bayer(mosaic(rgb), "RGGB")
    for row in range(4):
        for column in range(6):
            color = (("R", "G"), ("G", "B"))[row % 2][column % 2]
            assert cells[row, column] == rgb["RGB".index(color), row, column]


def test_process_develops_planes_of_a_smooth_picture(generator: torch.Generator) -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    waves = torch.stack([0.5 + 0.1 * torch.sin(x / a) * torch.cos(y / 9) for a in (7, 8, 9)])
    camera = sample_camera((), generator)
    developed = process(mosaic(unprocess(waves, camera)), camera)
    assert developed.shape == waves.shape
    inner = (developed - waves)[:, 4:-4, 4:-4].abs()
    assert float(inner.max()) < 4e-3


def test_a_neutral_camera_is_the_tone_curve_alone() -> None:
    toned = process(torch.tensor([0.0, 0.5, 1.0]).expand(3, 1, 3), neutral_camera())
    coded = 1.055 * 0.5 ** (1 / 2.4) - 0.055
    expected = torch.tensor([0, coded**2 * (3 - 2 * coded), 1])
    torch.testing.assert_close(toned[0, 0], expected)
