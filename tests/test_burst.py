import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from restorekit.degradations import mosaic, process, sample_camera
from restorekit.engine.burst import merge_burst
from restorekit.engine.inference import Inference
from restorekit.engine.picture import RestoreOptions, restore_image
from restorekit.engine.reporter import SilentReporter
from restorekit.errors import UsageError
from restorekit.hub import LoadedModel, load_model
from restorekit.image import Image, Layout, NoiseProfile, Transfer
from restorekit.metrics import psnr
from restorekit.ops.color import linear_to_srgb
from restorekit.ops.gaussian import blurred
from restorekit.ops.warp import Motion
from tests.blend_model import BlendConfig, BlendModel, identity, loaded
from tests.burst_model import CARD, MeanConfig, MeanOfBurst, mean_of_burst
from tests.shaken import (
    GAINS,
    coloured,
    finished,
    hand_motion,
    in_memory,
    noisy,
    raw,
    sampled,
    seeded,
    seen,
    texture,
)

CPU = RestoreOptions(device="cpu", dtype="float32")
MARGIN = 24
SHIFTS = (0j, 5 - 3j, -8 + 6j, 2 + 9j, -4 - 7j, 11 + 1j, -6 + 2j, 7 - 10j, 3 + 3j, -2 - 5j, 9j, -9)


@pytest.fixture(scope="module")
def denoiser() -> LoadedModel:
    return load_model("kbnet_xs.gaussian")


def shakes(height: int, width: int, count: int) -> list[Motion]:
    """Return the motions of shaking hands, the first none, for planes of a size with margins."""
    size = height - 2 * MARGIN, width - 2 * MARGIN
    return [hand_motion(*size, shift, shift.real / 30) for shift in SHIFTS[:count]]


def clean_frames(scene: Tensor, count: int) -> list[Tensor]:
    """Return what shaking hands see of a (C, H, W) scene, the first frame still."""
    return [seen(scene, motion, MARGIN) for motion in shakes(*scene.shape[1:], count)]


def clean_mosaics(scene: Tensor, count: int) -> list[Tensor]:
    """Return the mosaics of what shaking hands see of a scene by coloured, the first still."""
    height, width = scene.shape[1] // 2, scene.shape[2] // 2
    return [sampled(scene, motion, MARGIN) for motion in shakes(height, width, count)]


def shots(frames: Sequence[Tensor], noise: NoiseProfile, **metadata: object) -> list[Image]:
    return [raw(noisy(f, noise, seed), noise, **metadata) for seed, f in enumerate(frames)]


def encoded_psnr(planes: Tensor, truth: Tensor) -> float:
    return psnr(linear_to_srgb(planes.clamp(0, 1)), linear_to_srgb(truth))


@pytest.mark.parametrize("count", [2, 3, 5, 8, 12])
def test_bursts_of_all_lengths_are_merged(count: int) -> None:
    clean = clean_mosaics(coloured(240, 280, seed=1), count)
    frames = in_memory(shots(clean, GAINS[0]), reference=0)
    model = mean_of_burst()
    merged, report = merge_burst(frames, model, identity(), CPU)
    used = min(count, 8)
    states = [frame.status for frame in report.frames]
    assert states.count("reference") == 1
    assert states[0] == "reference"
    assert states.count("merged") == used - 1
    assert states.count("unneeded") == count - used
    assert model.model.counts == {used}  # type: ignore[union-attr]
    middle = (slice(None), slice(20, -20), slice(20, -20))
    noise, left = (p[middle] - clean[0][middle] for p in (frames[0].load().pixels, merged.pixels))
    # Two frames count for half, see what becomes of a moving thing.
    assert float(left.std()) < float(noise.std()) * (0.85 if count == 2 else 1.25 / used**0.5)
    assert merged.metadata.noise is not None
    # At edges, other frames count for less.
    assert 1 <= merged.metadata.noise.shot / (GAINS[0].shot / used) < 1.35
    assert 1 <= merged.metadata.noise.read / (GAINS[0].read / used**0.5) < 1.2


def test_the_report_tells_how_each_frame_lies() -> None:
    clean = clean_mosaics(coloured(240, 280, seed=2), 4)
    _, report = merge_burst(in_memory(shots(clean, GAINS[0]), 0), mean_of_burst(), identity(), CPU)
    assert report.frames[0].shift is None
    for frame, shift in zip(report.frames[1:], SHIFTS[1:], strict=False):
        assert frame.shift == pytest.approx((2 * shift.real, 2 * shift.imag), abs=0.5)
        assert frame.rotation == pytest.approx(shift.real / 30, abs=0.1)
        assert frame.inliers is not None
        assert frame.inliers > 0.5
        assert frame.weight is not None
        assert 0.6 < frame.weight <= 1
        assert frame.stops == 0
        assert frame.noise == (GAINS[0].shot, GAINS[0].read)
        assert frame.reason is None


@pytest.mark.parametrize("noise", [GAINS[0], NoiseProfile(shot=1e-4, read=1e-3)])
@pytest.mark.parametrize("colour", [(0.0, 1.0, 0.0), (1.0, 0.5, 0.15), (0.1, 0.4, 1.0)])
def test_frames_are_merged_in_light_of_any_colour(
    colour: tuple[float, ...], noise: NoiseProfile
) -> None:
    scene = coloured(240, 280, seed=22) * torch.tensor(colour)[:, None, None]
    clean = clean_mosaics(scene, 4)
    frames = in_memory(shots(clean, noise), reference=0)
    merged, report = merge_burst(frames, mean_of_burst(), identity(), CPU)
    assert [frame.status for frame in report.frames[1:]] == ["merged"] * 3
    middle = (slice(None), slice(20, -20), slice(20, -20))
    alone, left = (p[middle] - clean[0][middle] for p in (frames[0].load().pixels, merged.pixels))
    assert (left.std((1, 2)) < 0.75 * alone.std((1, 2))).all()


def test_an_unrelated_frame_is_rejected_and_named() -> None:
    clean = clean_mosaics(coloured(240, 280, seed=3), 3)
    stranger = texture(240 - 2 * MARGIN, 280 - 2 * MARGIN, seed=4, channels=4)
    frames = in_memory(shots([*clean, stranger], GAINS[0]), reference=0)
    model = mean_of_burst()
    merged, report = merge_burst(frames, model, identity(), CPU)
    rejected = report.frames[3]
    assert (rejected.input, rejected.status) == ("3.dng", "rejected")
    assert rejected.reason is not None
    assert "fit the reference" in rejected.reason
    assert model.model.counts == {3}  # type: ignore[union-attr]
    without, _ = merge_burst(frames[:3], mean_of_burst(), identity(), CPU)
    assert torch.equal(merged.pixels, without.pixels)


def test_a_sharp_frame_that_fits_no_other_is_not_the_reference() -> None:
    clean = clean_mosaics(coloured(240, 280, seed=3), 3)
    stranger = texture(240 - 2 * MARGIN, 280 - 2 * MARGIN, seed=4, channels=4)
    frames = in_memory(shots([*clean, stranger], GAINS[0]), reference=3)
    merged, report = merge_burst(frames, mean_of_burst(), identity(), CPU)
    assert sorted(frame.status for frame in report.frames[:3]) == ["merged", "merged", "reference"]
    assert report.frames[3].status == "rejected"
    middle = (slice(None), slice(20, -20), slice(20, -20))
    first = next(i for i, frame in enumerate(report.frames) if frame.status == "reference")
    alone, left = (
        p[middle] - clean[first][middle] for p in (frames[first].load().pixels, merged.pixels)
    )
    assert (left.std((1, 2)) < 0.85 * alone.std((1, 2))).all()


def test_a_frame_alone_gives_the_single_frame_result(denoiser: LoadedModel) -> None:
    pair = [texture(96, 128, seed=seed, channels=4) for seed in (5, 6)]
    frames = in_memory(shots(pair, GAINS[2]), reference=0)
    merged, report = merge_burst(frames, mean_of_burst(), denoiser, CPU)
    assert [frame.status for frame in report.frames] == ["reference", "rejected"]
    single, _ = restore_image(frames[0].load(), denoiser, CPU)
    assert torch.equal(merged.pixels, single.pixels)


@pytest.mark.parametrize(
    ("noise", "contrast", "lost"),
    [(noise, 1.0, 0.05) for noise in GAINS] + [(GAINS[0], 0.5, 0.05), (GAINS[3], 0.5, 0.05)],
    ids=["gain1", "gain2", "gain3", "gain4", "gain1-soft", "gain4-soft"],
)
def test_what_moves_leaves_no_trail(
    noise: NoiseProfile, contrast: float, lost: float, denoiser: LoadedModel
) -> None:
    scene = coloured(240, 280, seed=7)
    thing = coloured(110, 120, seed=8) * contrast + 0.7 * (1 - contrast)
    clean, place = [], (slice(None), slice(60, 170), slice(30, 150))
    for number, motion in enumerate(SHIFTS[:8]):
        view = scene.clone()
        left = 2 * (30 + 15 * number)
        view[:, 120:340, left : left + 240] = thing[:, :, : 560 - left]
        height, width = 240 - 2 * MARGIN, 280 - 2 * MARGIN
        clean.append(sampled(view, hand_motion(height, width, motion, 0), MARGIN))
    truth = clean[0]
    moving = torch.zeros(240, 280, dtype=torch.bool)
    moving[place[1:]] = True
    moving = moving[MARGIN:-MARGIN, MARGIN:-MARGIN]
    assert float(moving.float().mean()) > 0.2
    frames = in_memory(shots(clean, noise), reference=0)
    merged, _ = merge_burst(frames, mean_of_burst(), denoiser, CPU)
    single, _ = restore_image(frames[0].load(), denoiser, CPU)
    ours, alone = (encoded_psnr(p.pixels[:, moving], truth[:, moving]) for p in (merged, single))
    assert ours >= alone - lost
    blind = torch.stack([f.load().pixels for f in frames]).mean(0)
    assert ours > encoded_psnr(blind[:, moving], truth[:, moving]) + 3
    whole, without = (encoded_psnr(p.pixels, truth) for p in (merged, frames[0].load()))
    assert whole > without + 4


def finished_shots(noise: NoiseProfile, seed: int, *, moves: bool) -> tuple[list[Image], Tensor]:
    """Return five pictures as a camera finishes them, and the first without noise."""
    generator = seeded(seed)
    camera = sample_camera((), generator)
    scene = 0.6 * coloured(240, 280, seed=seed)[:, :400, :440]
    thing, mosaics = 0.6 * coloured(110, 120, seed=seed + 1), []
    for number, (x, y) in enumerate([(0, 0), (4, -6), (-8, 2), (6, 6), (-2, -4)]):
        view = scene.clone()
        left = 60 + 30 * number
        if moves:
            view[:, 120:340, left : left + 240] = thing[:, :, : 440 - left]
        mosaics.append(mosaic(view[:, 40 + y : 360 + y, 40 + x : 400 + x]))
    images = [finished(each, noise, camera, generator) for each in mosaics]
    return images, process(mosaics[0], camera)


@pytest.mark.parametrize(
    ("gain", "seed", "moves", "gained"),
    [(1, 27, False, 1.0), (2, 27, False, 2.0), (3, 7, False, 0.4), (1, 27, True, 0.8)]
    + [(2, 27, True, 0.8)],
)
def test_finished_pictures_of_a_camera_gain_and_leave_no_trail(
    gain: int, seed: int, moves: bool, gained: float
) -> None:
    images, truth = finished_shots(GAINS[gain - 1], seed, moves=moves)
    blind, frames = load_model("kbnet_xs.photo"), in_memory(images, reference=0)
    assert all(frame.from_camera for frame in frames)
    merged, _ = merge_burst(frames, mean_of_burst(), blind, CPU)
    single, _ = restore_image(images[0], blind, CPU)
    assert psnr(merged.pixels, truth) > psnr(single.pixels, truth) + gained
    if moves:
        place = (slice(None), slice(80, 300), slice(20, 260))
        ours, alone = (psnr(p.pixels[place], truth[place]) for p in (merged, single))
        assert ours > alone


def test_mosaics_whose_noise_was_cut_off_at_black_stay_dark() -> None:
    scene = (coloured(240, 280, seed=4) - 0.2).clamp_min(0)
    clean, model, scores = clean_mosaics(scene, 6), load_model("kbnet_xs.raw"), []
    whole = shots(clean, GAINS[3])
    for images in (whole, [image.with_pixels(image.pixels.clamp_min(0)) for image in whole]):
        merged, _ = merge_burst(in_memory(images, reference=0), mean_of_burst(), model, CPU)
        scores.append(encoded_psnr(merged.pixels, clean[0]))
    assert scores[1] > scores[0] - 1.5


@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("sigma", [10, 40])
def test_white_noise_that_was_clipped_does_not_brighten_a_burst(sigma: int, moves: bool) -> None:
    scene = (1.4 * linear_to_srgb(coloured(240, 280, seed=17)) - 0.4).clamp(0, 1)
    thing = scene.flip(1)[:, :220, :240]
    views, images = [], []
    for number, (x, y) in enumerate([(0, 0), (4, -6), (-8, 2), (6, 6), (-2, -4)]):
        view = scene.clone()
        if moves:
            view[:, 120:340, 60 + 30 * number : 300 + 30 * number] = thing
        views.append(view[:, 40 + y : 360 + y, 40 + x : 440 + x])
        noise = sigma / 255 * torch.randn(views[-1].shape, generator=seeded(number))
        pixels = ((views[-1] + noise).clamp(0, 1) * 255).round() / 255
        images.append(Image(pixels, Transfer.SRGB, Layout.RGB))
    assert (views[0] == 0).float().mean() > 0.02
    told, frames = load_model("kbnet_xs.gaussian"), in_memory(images, reference=0)
    assert not any(frame.from_camera for frame in frames)
    merged, _ = merge_burst(frames, mean_of_burst(), told, CPU)
    single, _ = restore_image(images[0], told, CPU)
    gained = 0.2 if moves else 1.0
    assert psnr(merged.pixels, views[0]) > psnr(single.pixels, views[0]) + gained


def test_frames_of_a_bracket_are_brought_to_one_exposure() -> None:
    clean = clean_mosaics(coloured(240, 280, seed=9), 3)
    images = shots(clean, GAINS[0], iso=100.0, exposure_time=0.01)
    brighter = noisy((2 * clean[1]).clamp(max=1), GAINS[0], 1).clamp(max=1)
    longer = raw(brighter, GAINS[0], iso=100.0, exposure_time=0.02)
    clipped = 2 * clean[1] >= 1
    assert 0.02 < float(clipped.float().mean()) < 0.5
    frames = in_memory([images[0], longer, images[2]], reference=0)
    merged, report = merge_burst(frames, mean_of_burst(), identity(), CPU)
    assert [frame.stops for frame in report.frames] == [None, pytest.approx(1), 0]
    assert report.frames[1].status == "merged"
    middle = (slice(None), slice(20, -20), slice(20, -20))
    assert float((merged.pixels - clean[0])[middle].mean().abs()) < 2e-3


@pytest.mark.parametrize("noise", GAINS[:3], ids=["gain1", "gain2", "gain3"])
def test_frames_of_drifting_light_are_brought_to_that_of_the_reference(noise: NoiseProfile) -> None:
    clean = clean_mosaics(coloured(240, 280, seed=17) * 0.7, 6)
    lights = [1 + 0.05 * number for number in range(6)]
    drifting = [light * frame for light, frame in zip(lights, clean, strict=True)]
    merged, report = merge_burst(
        in_memory(shots(drifting, noise), 0), mean_of_burst(), identity(), CPU
    )
    steady, before = merge_burst(
        in_memory(shots(clean, noise), 0), mean_of_burst(), identity(), CPU
    )
    for found, usual, light in zip(report.frames[1:], before.frames[1:], lights[1:], strict=True):
        assert found.status == "merged"
        assert found.stops == pytest.approx(math.log2(light), abs=0.02)
        assert found.weight == pytest.approx(usual.weight, abs=0.03)
        assert usual.stops == 0
    middle = (slice(None), slice(20, -20), slice(20, -20))
    left, least = ((p.pixels - clean[0])[middle].square().mean() for p in (merged, steady))
    assert float(left) < 1.1 * float(least)


def test_a_frame_of_quite_another_light_is_rejected_for_it() -> None:
    clean = clean_mosaics(coloured(240, 280, seed=18), 3)
    frames = in_memory(shots([*clean[:2], 0.6 * clean[2]], GAINS[0]), reference=0)
    _, report = merge_burst(frames, mean_of_burst(), identity(), CPU)
    assert [frame.status for frame in report.frames] == ["reference", "merged", "rejected"]
    assert report.frames[2].reason is not None
    assert "0.7 stops darker than the reference" in report.frames[2].reason
    assert report.frames[2].stops == pytest.approx(math.log2(0.6), abs=0.02)


def test_copies_of_frames_are_left_out_and_named() -> None:
    clean = clean_mosaics(coloured(240, 280, seed=19), 3)
    images = shots(clean, GAINS[1])
    again = [*images, images[1], images[0], images[2]]
    merged, report = merge_burst(in_memory(again, 0), mean_of_burst(), identity(), CPU)
    assert [frame.status for frame in report.frames[:3]] == ["reference", "merged", "merged"]
    assert [(frame.status, frame.reason) for frame in report.frames[3:]] == [
        ("rejected", f"a copy of {name}") for name in ("1.dng", "0.dng", "2.dng")
    ]
    without, _ = merge_burst(in_memory(images, 0), mean_of_burst(), identity(), CPU)
    assert torch.equal(merged.pixels, without.pixels)


def test_copies_alone_give_the_single_frame_result(denoiser: LoadedModel) -> None:
    clean = linear_to_srgb(texture(96, 128, seed=20, channels=3))
    generator = torch.Generator().manual_seed(20)
    noise = 0.1 * torch.randn(clean.shape, generator=generator)
    image = Image((clean + noise).clamp(0, 1), Transfer.SRGB, Layout.RGB)
    merged, report = merge_burst(in_memory([image] * 4, 0), mean_of_burst(), denoiser, CPU)
    assert [frame.reason for frame in report.frames[1:]] == ["a copy of 0.dng"] * 3
    single, _ = restore_image(image, denoiser, CPU)
    torch.testing.assert_close(merged.pixels, single.pixels, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("layout", "depth"), [(Layout.RGB, 8), (Layout.GRAY, 32)])
def test_rgb_and_grey_frames_stay_what_they_are(
    layout: Layout, depth: int, denoiser: LoadedModel
) -> None:
    channels = 3 if layout is Layout.RGB else 1
    clean = clean_frames(texture(300, 340, seed=10, channels=channels), 4)
    images = [
        Image(noisy(frame, GAINS[1], seed), Transfer.LINEAR, layout).to_srgb()
        for seed, frame in enumerate(clean)
    ]
    metadata = replace(images[0].metadata, icc_profile=b"profile", orientation=6, bit_depth=depth)
    images[0] = replace(images[0], metadata=metadata, alpha=torch.rand(1, *clean[0].shape[1:]))
    merged, report = merge_burst(in_memory(images, 0), mean_of_burst(), denoiser, CPU)
    assert (merged.layout, merged.transfer) == (layout, Transfer.SRGB)
    assert merged.metadata.icc_profile == b"profile"
    assert merged.metadata.orientation == 6
    assert merged.metadata.bit_depth == max(16, depth)
    assert merged.alpha is images[0].alpha
    assert [frame.status for frame in report.frames].count("merged") == 3
    truth = linear_to_srgb(clean[0])
    assert psnr(merged.pixels, truth) > psnr(images[0].pixels, truth) + 4


def test_grey_frames_that_a_camera_smoothed_agree() -> None:
    clean = linear_to_srgb(texture(240, 280, seed=24))
    images = []
    for seed in range(4):
        noise = blurred(torch.randn(clean.shape, generator=seeded(seed)), 0.8)
        noise *= 0.03 / noise.std()
        images.append(Image(clean + noise, Transfer.SRGB, Layout.GRAY))
    frames = in_memory(images, 0)
    assert all(frame.from_camera for frame in frames)
    _, report = merge_burst(frames, mean_of_burst(), identity(), CPU)
    for frame in report.frames[1:]:
        assert frame.weight is not None
        assert frame.weight > 0.65


def test_a_colour_network_sees_the_planes_of_each_frame_together() -> None:
    model = LoadedModel(MeanOfBurst(MeanConfig(channels=3)).eval(), replace(CARD, layout="rgb"))
    clean = clean_mosaics(coloured(200, 240, seed=11), 3)
    frames = in_memory(shots(clean, GAINS[0]), reference=0)
    colour, _ = merge_burst(frames, model, identity(), CPU)
    grey, _ = merge_burst(frames, mean_of_burst(), identity(), CPU)
    torch.testing.assert_close(colour.pixels, grey.pixels)


def test_the_network_is_told_the_noise_of_the_reference() -> None:
    model = mean_of_burst()
    clean = clean_mosaics(coloured(160, 160, seed=12), 2)
    frames = in_memory(shots(clean, GAINS[0]), reference=0)
    merge_burst(frames, model, identity(), CPU)
    reference = frames[0].load().pixels
    expected = (GAINS[0].shot * reference.clamp_min(0) + GAINS[0].read ** 2).sqrt()
    for plane, told in zip(expected, model.model.noise[-4:], strict=True):  # type: ignore[union-attr, arg-type]
        torch.testing.assert_close(told[0, 0], plane)


def test_a_noise_map_is_cut_as_the_picture_is() -> None:
    class NoiseAsPicture(BlendModel):
        def forward(self, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
            assert noise_std is not None
            smooth = F.avg_pool2d(noise_std, 3, 1, 1)
            return degraded + smooth

    values, noise = torch.rand(3, 70, 90), torch.rand(1, 70, 90)
    results = []
    for tile in (128, 48):
        network = NoiseAsPicture(BlendConfig())
        inference = Inference(network, "cpu", "float32", tile, SilentReporter())
        results.append(inference.run(values, (0, 1, 2), noise))
    middle = F.avg_pool2d(noise, 3, 1, 1)[0, 1:-1, 1:-1]
    torch.testing.assert_close(results[0][:, 1:-1, 1:-1], (values[:, 1:-1, 1:-1] + middle))
    torch.testing.assert_close(results[1][:, 1:-1, 1:-1], results[0][:, 1:-1, 1:-1])


@pytest.mark.parametrize("noise", GAINS[:3], ids=["gain1", "gain2", "gain3"])
def test_fine_texture_is_not_blurred_by_what_frames_lie_off(noise: NoiseProfile) -> None:
    denoiser = load_model("kbnet_xs.raw")
    scene = torch.rand(4, 240, 280, generator=torch.Generator().manual_seed(15)) * 0.5
    scene[:, :, :140] = scene[:, :, :140].mean((1, 2), keepdim=True)
    clean = [
        seen(scene, hand_motion(192, 232, complex(n % 3, n // 3) / 2 - 0.5, 0), MARGIN)
        for n in range(6)
    ]
    frames = in_memory(shots(clean, noise), reference=0)
    merged, _ = merge_burst(frames, load_model("ame_kpn.burst8"), denoiser, CPU)
    single, _ = restore_image(frames[0].load(), denoiser, CPU)
    fine, flat = (
        (slice(None), slice(8, -8), slice(130, -8)),
        (slice(None), slice(8, -8), slice(8, 100)),
    )
    for part, gained in (fine, -0.1), (flat, 1.0):
        ours, alone = (psnr(p.pixels[part], clean[0][part]) for p in (merged, single))
        assert ours > alone + gained


def test_encoded_noise_is_averaged_as_it_is_encoded(denoiser: LoadedModel) -> None:
    clean = linear_to_srgb(texture(160, 160, seed=16, channels=3) * 0.3 + 0.2)
    generator = torch.Generator().manual_seed(16)
    images = [
        Image(
            clean + 0.15 * torch.randn(clean.shape, generator=generator), Transfer.SRGB, Layout.RGB
        )
        for _ in range(8)
    ]
    merged, _ = merge_burst(in_memory(images, 0), mean_of_burst(), denoiser, CPU)
    assert float((merged.pixels - clean).mean().abs()) < 4e-3


def test_black_frames_without_noise_stay_black() -> None:
    frames = in_memory(shots([torch.zeros(4, 64, 64)] * 2, NoiseProfile(1e-6, 0.0)), reference=0)
    merged, _ = merge_burst(frames, load_model("ame_kpn.burst8"), identity(), CPU)
    assert float(merged.pixels.abs().max()) < 1e-3


def test_frames_without_noise_are_copies() -> None:
    planes = texture(64, 64, seed=21, channels=4)
    frames = in_memory(shots([planes] * 2, NoiseProfile(1e-12, 0.0)), reference=0)
    _, report = merge_burst(frames, mean_of_burst(), identity(), CPU)
    assert report.frames[1].reason == "a copy of 0.dng"


def test_tiles_do_not_show() -> None:
    clean = clean_mosaics(coloured(240, 280, seed=13), 3)
    frames = in_memory(shots(clean, GAINS[1]), reference=0)
    whole, _ = merge_burst(frames, mean_of_burst(), identity(), CPU)
    tiled, report = merge_burst(frames, mean_of_burst(), identity(), replace(CPU, tile=64))
    assert report.tile == 64
    torch.testing.assert_close(tiled.pixels, whole.pixels)


def test_a_model_for_single_pictures_is_refused() -> None:
    frames = in_memory(shots([texture(64, 64, seed=14, channels=4)] * 2, GAINS[0]))
    with pytest.raises(UsageError, match="single pictures"):
        merge_burst(frames, loaded(BlendModel(BlendConfig())), identity(), CPU)
