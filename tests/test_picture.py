from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch
from torch import Tensor

from restorekit.engine.picture import RestoreOptions, restore_image
from restorekit.engine.reporter import SilentReporter
from restorekit.errors import MemoryExhaustedError, RestorekitError, UsageError
from restorekit.hub import LoadedModel, load_model
from restorekit.image import Image, Layout, Metadata, NoiseProfile, Transfer
from restorekit.models import create_model
from restorekit.models.registry import Tiling
from tests.blend_model import BlendConfig, BlendModel, identity, loaded, picture


class PoolingModel(BlendModel):
    """Add the pooled mean of the picture, frozen or of what it sees."""

    frozen: Tensor | None = None
    frozen_on: tuple[int, ...] = ()

    def __init__(self) -> None:
        super().__init__(BlendConfig())
        self.spec = replace(self.spec, tiling=Tiling.APPROXIMATE, tolerance=0.01)

    def forward(self, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        pooled = degraded.mean((2, 3), keepdim=True) if self.frozen is None else self.frozen
        return degraded + pooled

    def freeze_pooling(self, windows: Tensor, noise_std: Tensor | None = None) -> None:
        self.frozen_on = tuple(windows.shape)
        self.frozen = windows.mean((0, 2, 3), keepdim=True)

    def release_pooling(self) -> None:
        self.frozen = None


class HungryModel(BlendModel):
    """Run out of memory above a number of pixels."""

    def __init__(self, limit: int, error: Exception) -> None:
        super().__init__(BlendConfig())
        self.limit, self.error = limit, error

    def forward(self, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        if degraded.shape[-1] * degraded.shape[-2] > self.limit:
            raise self.error
        return super().forward(degraded, noise_std)


class OverflowingModel(BlendModel):
    """Overflow wherever a tile is bright, unless it computes in float32."""

    def __init__(self, recovers: bool) -> None:
        super().__init__(BlendConfig())
        self.recovers = recovers

    def forward(self, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
        fast = torch.is_autocast_enabled(degraded.device.type)
        if degraded.amax() > 0.9 and (fast or not self.recovers):
            return degraded / 0
        return super().forward(degraded, noise_std)


class RecordingReporter(SilentReporter):
    def __init__(self) -> None:
        self.totals: list[int] = []
        self.steps = 0
        self.notes: list[str] = []
        self.open = 0

    def start(self, total: int, description: str) -> None:
        self.totals.append(total)
        self.open += 1

    def advance(self, amount: int = 1) -> None:
        self.steps += amount

    def note(self, message: str) -> None:
        self.notes.append(message)

    def finish(self) -> None:
        self.open -= 1


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize(
    ("height", "width", "tile"), [(1, 1, 64), (1, 130, 64), (97, 61, 40), (130, 131, 64)]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_identity_gives_the_picture_back_bit_for_bit(
    layout: Layout, height: int, width: int, tile: int, dtype: str
) -> None:
    image = picture(height, width, layout)
    noise = NoiseProfile(1e-3, 1e-3) if layout is Layout.BAYER else 10.0
    options = RestoreOptions(device="cpu", dtype=dtype, tile=tile, noise=noise)
    restored, report = restore_image(image, identity(), options)
    assert torch.equal(restored.pixels, image.pixels)
    assert (report.device, report.dtype, report.tile) == ("cpu", dtype, tile)
    assert report.fallbacks == ()


@pytest.mark.parametrize("tile", [32, 60, 100])
def test_tiled_equals_whole_for_a_network_without_pooling(tile: int) -> None:
    image = picture(96, 136)
    model = loaded(BlendModel(BlendConfig(gain=0.5)))
    options = RestoreOptions(device="cpu", dtype="float32", noise=1)
    whole, _ = restore_image(image, model, replace(options, tile=512))
    tiled, _ = restore_image(image, model, replace(options, tile=tile))
    torch.testing.assert_close(tiled.pixels, whole.pixels, rtol=0, atol=1e-6)
    direct = model.model(image.pixels[None], torch.full((1, 1, 96, 136), 1 / 255))[0]
    torch.testing.assert_close(whole.pixels, direct, rtol=0, atol=1e-6)


def test_tiles_have_one_shape_on_the_grid_of_the_network() -> None:
    model = loaded(BlendModel(BlendConfig()))
    restore_image(picture(201, 333), model, RestoreOptions(device="cpu", tile=100, noise=1))
    assert isinstance(model.model, BlendModel)
    shapes = set(model.model.shapes)
    assert len(shapes) == 1
    _, _, height, width = shapes.pop()
    assert height % 4 == width % 4 == 0
    assert max(height, width) <= 100


def test_bfloat16_stays_inside_the_network() -> None:
    model = loaded(BlendModel(BlendConfig(gain=0.01)))
    image = picture(40, 40)
    fast, _ = restore_image(image, model, RestoreOptions(device="cpu", dtype="bfloat16", noise=1))
    exact, _ = restore_image(image, model, RestoreOptions(device="cpu", dtype="float32", noise=1))
    assert isinstance(model.model, BlendModel)
    assert model.model.dtypes == {torch.bfloat16, torch.float32}
    assert not torch.equal(fast.pixels, exact.pixels)
    torch.testing.assert_close(fast.pixels, exact.pixels, rtol=0, atol=1e-4)


def test_pooling_is_frozen_for_all_tiles_and_released() -> None:
    torch.manual_seed(0)
    image = picture(520, 530)
    model = PoolingModel()
    options = RestoreOptions(device="cpu", dtype="float32", noise=1)
    results = [
        restore_image(image, loaded(model), replace(options, tile=tile))[0].pixels
        for tile in (96, 200, 1000)
    ]
    assert model.frozen is None
    assert model.frozen_on == (16, 3, 96, 96)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_tiles_of_a_pooling_network_agree_with_the_whole() -> None:
    torch.manual_seed(0)
    network = create_model("kbnet_xs", {"width": 16, "bases": [0, 4, 4, 4]})
    image = picture(256, 400)
    options = RestoreOptions(device="cpu", dtype="float32", noise=20.0)
    model = loaded(network)
    whole, _ = restore_image(image, model, replace(options, tile=512))
    tiled, _ = restore_image(image, model, replace(options, tile=160))
    effect = (whole.pixels - image.pixels).abs().mean()
    difference = (tiled.pixels - whole.pixels).abs()
    assert difference.max() <= network.spec.tolerance
    assert difference.mean() < effect / 20


def test_pooling_is_released_after_an_error() -> None:
    class FailingModel(PoolingModel):
        def forward(self, degraded: Tensor, noise_std: Tensor | None = None) -> Tensor:
            raise ValueError("broken")

    model = FailingModel()
    reporter = RecordingReporter()
    with pytest.raises(ValueError, match="broken"):
        restore_image(
            picture(60, 60), loaded(model), RestoreOptions(device="cpu", tile=40, noise=1), reporter
        )
    assert model.frozen_on == (1, 3, 60, 60)
    assert model.frozen is None
    assert reporter.open == 0


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_tiles_halve_when_memory_runs_out(error: Exception) -> None:
    image = picture(150, 150)
    reporter = RecordingReporter()
    options = RestoreOptions(device="cpu", tile=400, noise=1)
    restored, report = restore_image(image, loaded(HungryModel(80 * 80, error)), options, reporter)
    assert torch.equal(restored.pixels, image.pixels)
    assert report.tile == 76
    assert report.fallbacks == ("tile 76 after memory ran out",)
    assert reporter.notes == ["falling back to tile 76 after memory ran out"]
    assert reporter.open == 0
    assert reporter.steps == reporter.totals[-1]


def test_the_sample_for_pooling_shrinks_too_when_memory_runs_out() -> None:
    class HungryPooling(HungryModel):
        def freeze_pooling(self, windows: Tensor, noise_std: Tensor | None = None) -> None:
            self(windows, noise_std)

    model = loaded(HungryPooling(96 * 96, torch.OutOfMemoryError("out of memory")))
    image = picture(300, 300)
    restored, report = restore_image(image, model, RestoreOptions(device="cpu", tile=90, noise=1))
    assert torch.equal(restored.pixels, image.pixels)
    assert report.fallbacks == ("tile 44 after memory ran out", "tile 32 after memory ran out")


def test_memory_that_never_suffices_is_an_error() -> None:
    model = loaded(HungryModel(0, torch.OutOfMemoryError("out of memory")))
    with pytest.raises(MemoryExhaustedError, match="tiles of 32 pixels"):
        restore_image(picture(90, 90), model, RestoreOptions(device="cpu", noise=1))


def test_shrinking_ends_when_the_overlap_does_not_fit_the_grid() -> None:
    network = HungryModel(0, torch.OutOfMemoryError("out of memory"))
    network.spec = replace(network.spec, overlap=17, multiple_of=16)
    with pytest.raises(MemoryExhaustedError, match="tiles of 64 pixels"):
        restore_image(picture(90, 90), loaded(network), RestoreOptions(device="cpu", noise=1))


def test_the_report_names_a_tile_that_had_to_grow() -> None:
    options = RestoreOptions(device="cpu", tile=16, noise=1)
    _, report = restore_image(picture(90, 90), identity(), options)
    assert report.tile == 32


def test_other_errors_of_a_network_are_not_taken_for_want_of_memory() -> None:
    model = loaded(HungryModel(0, RuntimeError("shapes do not fit")))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        restore_image(picture(9, 9), model, RestoreOptions(device="cpu", noise=1))


def test_tiles_that_overflow_are_redone_in_float32() -> None:
    image = picture(64, 256)
    image.pixels[:, :, 250:] = 1
    options = RestoreOptions(device="cpu", dtype="bfloat16", tile=64, noise=1)
    restored, report = restore_image(image, loaded(OverflowingModel(recovers=True)), options)
    assert torch.equal(restored.pixels, image.pixels)
    assert report.fallbacks == ("tiles redone in float32: 1",)
    assert report.dtype == "bfloat16"


def test_a_network_with_pooling_frozen_in_half_precision_is_redone_in_float32() -> None:
    torch.manual_seed(0)
    network = create_model("kbnet_xs", {"width": 16, "bases": [0, 4, 4, 4]})
    assert isinstance(network.tail, torch.nn.Conv2d)
    with torch.no_grad():
        network.tail.weight[0, 0, 0, 0] = 1e6
    image = picture(200, 300)
    options = RestoreOptions(device="cpu", dtype="float16", tile=160, noise=20.0)
    restored, report = restore_image(image, loaded(network), options)
    assert report.fallbacks == ("tiles redone in float32: 6",)
    exact, _ = restore_image(image, loaded(network), replace(options, dtype="float32"))
    assert (restored.pixels - exact.pixels).norm() < 0.01 * exact.pixels.norm()


def test_a_network_that_is_never_finite_is_an_error() -> None:
    image = picture(64, 64).with_pixels(torch.ones(3, 64, 64))
    options = RestoreOptions(device="cpu", dtype="bfloat16", noise=1)
    with pytest.raises(RestorekitError, match="not finite, even in float32"):
        restore_image(image, loaded(OverflowingModel(recovers=False)), options)


def test_without_noise_the_picture_stays() -> None:
    image = picture(40, 50)
    restored, report = restore_image(
        image, loaded(BlendModel(BlendConfig())), RestoreOptions(device="cpu", noise=0)
    )
    assert torch.equal(restored.pixels, image.pixels)
    assert report.noise == 0


def test_grey_stored_as_rgb_stays_grey() -> None:
    model = loaded(BlendModel(BlendConfig()))
    options = RestoreOptions(device="cpu", noise=5)
    grey = replace(picture(40, 50), pixels=picture(40, 50).pixels[:1], layout=Layout.GRAY)
    image = replace(grey, pixels=grey.pixels.expand(3, -1, -1), layout=Layout.RGB)
    restored, _ = restore_image(image, model, options)
    alone, _ = restore_image(grey, model, options)
    assert restored.layout is Layout.RGB
    assert torch.equal(restored.pixels, alone.pixels.expand(3, -1, -1))


@pytest.mark.parametrize(("scale", "offset"), [(255.0, 0.0), (8.0, -4.0)])
def test_values_beyond_black_and_white_are_scaled(scale: float, offset: float) -> None:
    model = loaded(BlendModel(BlendConfig()))
    options = RestoreOptions(device="cpu", dtype="float32", noise=5)
    image = picture(40, 50)
    image.pixels[:, 0, 0], image.pixels[:, 0, 1] = 0, 1
    plain, _ = restore_image(image, model, options)
    far = image.with_pixels(image.pixels * scale + offset)
    restored, report = restore_image(far, model, options)
    expected = plain.pixels * scale + offset
    torch.testing.assert_close(restored.pixels, expected, rtol=0, atol=1e-5 * scale)
    assert report.warnings == (
        f"its values reach from {offset:g} to {offset + scale:g}, which were taken for 0 and 1",
    )


def test_the_identity_keeps_values_of_any_scale_bit_for_bit() -> None:
    image = picture(40, 50)
    image = image.with_pixels(image.pixels * 65535.7 - 1000.3)
    restored, report = restore_image(image, identity(), RestoreOptions(device="cpu", noise=5))
    assert len(report.warnings) == 1
    assert torch.equal(restored.pixels, image.pixels)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("layout", [Layout.GRAY, Layout.RGB])
@pytest.mark.parametrize("transfer", list(Transfer))
def test_pixels_of_another_precision_are_restored_as_float32(
    dtype: torch.dtype, layout: Layout, transfer: Transfer
) -> None:
    image = replace(picture(40, 50, layout), transfer=transfer)
    model = loaded(BlendModel(BlendConfig(gain=0.3)))
    options = RestoreOptions(device="cpu", dtype="float32", noise=20)
    other = image.with_pixels(image.pixels.to(dtype))
    restored, _ = restore_image(other, model, options)
    expected, _ = restore_image(other.with_pixels(other.pixels.float()), model, options)
    assert torch.equal(restored.pixels, expected.pixels)


@pytest.mark.parametrize("peak", [10.0, 500.0, -500.0])
@pytest.mark.parametrize("crop", [None, (70, 40, 50, 40)])
def test_a_small_highlight_changes_nothing_around_it(
    peak: float, crop: tuple[int, int, int, int] | None
) -> None:
    noise = torch.randn(3, 120, 160, generator=torch.Generator().manual_seed(0))
    image = picture(120, 160).with_pixels(0.5 + 15 / 255 * noise)
    bright = image.with_pixels(image.pixels.clone())
    bright.pixels[:, 50:57, 80:87] = peak
    options = RestoreOptions(device="cpu", dtype="float32", crop=crop)
    model = loaded(BlendModel(BlendConfig(gain=0.1)))
    plain, expected = restore_image(image, model, options)
    restored, report = restore_image(bright, model, options)
    changed = (restored.pixels - plain.pixels).abs().amax(0) > 1e-5
    assert changed.count_nonzero() == 9 * 9
    assert report.noise == pytest.approx(expected.noise, rel=0.05)
    assert report.warnings == ()
    kept, _ = restore_image(bright, identity(), options)
    x, y, width, height = crop or (0, 0, 160, 120)
    torch.testing.assert_close(kept.pixels, bright.pixels[:, y : y + height, x : x + width])


def test_a_large_bright_area_is_the_scale_of_the_picture() -> None:
    image = picture(40, 50)
    image.pixels[:, :5] = 50
    _, report = restore_image(image, identity(), RestoreOptions(device="cpu", noise=5))
    assert report.warnings == ("its values reach from 0 to 50, which were taken for 0 and 1",)


def test_noise_beyond_black_and_white_is_not_scaled() -> None:
    image = picture(40, 50)
    noise = torch.randn(image.pixels.shape, generator=torch.Generator().manual_seed(0))
    noisy = image.with_pixels(image.pixels + 50 / 255 * noise)
    _, report = restore_image(
        noisy, loaded(BlendModel(BlendConfig())), RestoreOptions(device="cpu", noise=50)
    )
    assert report.warnings == ()


def test_strength_mixes_the_picture_with_the_restored_one() -> None:
    model = loaded(BlendModel(BlendConfig(gain=0.3)))
    image = picture(33, 41)
    options = RestoreOptions(device="cpu", noise=1)
    full, _ = restore_image(image, model, options)
    half, _ = restore_image(image, model, replace(options, strength=0.5))
    none, _ = restore_image(image, model, replace(options, strength=0))
    torch.testing.assert_close(half.pixels, (image.pixels + full.pixels) / 2)
    assert torch.equal(none.pixels, image.pixels)
    assert not torch.equal(full.pixels, image.pixels)


def test_alpha_and_metadata_are_untouched() -> None:
    alpha = torch.rand(1, 20, 30)
    image = picture(20, 30, alpha=alpha, metadata=Metadata(bit_depth=16, iso=800))
    model = loaded(BlendModel(BlendConfig(gain=0.3)))
    restored, _ = restore_image(image, model, RestoreOptions(device="cpu", noise=1))
    assert restored.alpha is not None
    assert torch.equal(restored.alpha, alpha)
    assert restored.metadata == image.metadata


def upright(image: Image) -> Tensor:
    """Return the pixels as a viewer shows them, by Pillow's reading of the orientation."""
    pil = PIL.Image.fromarray(image.pixels[0].numpy())
    pil.getexif()[0x0112] = image.metadata.orientation
    return torch.from_numpy(np.array(PIL.ImageOps.exif_transpose(pil)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_crop_is_named_in_the_upright_picture(orientation: int) -> None:
    image = picture(20, 30, metadata=Metadata(orientation=orientation))
    options = RestoreOptions(device="cpu", noise=1, crop=(3, 5, 9, 7))
    restored, _ = restore_image(image, identity(), options)
    assert torch.equal(upright(restored), upright(image)[5:12, 3:12])


def test_a_crop_of_a_mosaic_restores_what_demosaicing_sees_and_leaves_the_rest() -> None:
    image = picture(20, 30, Layout.BAYER)
    options = RestoreOptions(device="cpu", noise=NoiseProfile(1e-3, 1e-3), crop=(23, 21, 9, 7))
    restored, _ = restore_image(image, loaded(BlendModel(BlendConfig(gain=0.1))), options)
    changed = (restored.pixels != image.pixels).all(0).nonzero()
    assert changed.min(0).values.tolist() == [(21 - 8) // 2, (23 - 8) // 2]
    assert changed.max(0).values.tolist() == [(28 + 8) // 2 - 1, (32 + 8) // 2 - 1]


@pytest.mark.parametrize("crop", [None, (10, 5, 41, 30)])
def test_colours_under_transparency_stay_and_show_nowhere(
    crop: tuple[int, int, int, int] | None,
) -> None:
    alpha = torch.ones(1, 60, 90)
    alpha[:, 20:37, 30:] = 0
    results = []
    for hidden in 0.0, 1.0:
        image = picture(60, 90, alpha=alpha)
        image = image.with_pixels(torch.where(alpha > 0, image.pixels, hidden))
        options = RestoreOptions(device="cpu", noise=1, crop=crop)
        restored, _ = restore_image(image, loaded(BlendModel(BlendConfig(gain=0.1))), options)
        x, y, width, height = crop or (0, 0, 90, 60)
        part = image.crop(x, y, width, height)
        assert restored.alpha is not None
        assert part.alpha is not None
        assert torch.equal(restored.alpha, part.alpha)
        below = (part.alpha == 0).expand_as(part.pixels)
        assert torch.equal(restored.pixels[below], part.pixels[below])
        results.append(restored.pixels[~below])
    assert torch.equal(*results)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_noise_is_measured_where_a_picture_shows(share: float) -> None:
    noise = torch.randn(3, 200, 300, generator=torch.Generator().manual_seed(0)) * 15 / 255
    scene = torch.linspace(0.2, 0.8, 300).expand(3, 200, -1)
    alpha = torch.ones(1, 200, 300)
    alpha[:, : int(200 * share)] = 0
    image = Image(scene + noise, Transfer.SRGB, Layout.RGB, alpha=alpha)
    _, report = restore_image(
        image, loaded(BlendModel(BlendConfig(gain=0.1))), RestoreOptions(device="cpu")
    )
    assert report.noise == pytest.approx(15, rel=0.1)
    assert report.warnings == ()


def test_a_crop_is_restored_with_its_surroundings() -> None:
    whole, cut = (
        restore_image(
            picture(60, 90),
            loaded(BlendModel(BlendConfig(gain=0.1))),
            RestoreOptions(device="cpu", noise=1, crop=crop),
        )[0].pixels
        for crop in (None, (30, 20, 40, 25))
    )
    torch.testing.assert_close(cut, whole[:, 20:45, 30:70])


@pytest.mark.parametrize(
    ("name", "most", "mean"),
    [("kbnet_xs.gaussian", 0.5, 0.06), ("kbnet_xs.photo", 0.5, 0.06), ("kit_xs.gaussian", 4, 0.6)],
)
def test_a_crop_is_what_the_whole_picture_becomes_there(
    name: str, most: float, mean: float
) -> None:
    noise = torch.randn(3, 500, 560, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(0.1, 0.9, 560).expand(3, 500, -1)
    image = Image((ramp + 0.1 * noise).clamp(0, 1), Transfer.SRGB, Layout.RGB)
    model = load_model(name)
    told = None if name == "kbnet_xs.photo" else 25
    options = RestoreOptions(device="cpu", dtype="float32", tile=256, noise=told)
    whole, _ = restore_image(image, model, options)
    cut, _ = restore_image(image, model, replace(options, crop=(301, 203, 130, 97)))
    difference = 255 * (cut.pixels - whole.pixels[:, 203:300, 301:431]).abs()
    assert difference.max() < most
    assert difference.mean() < mean


def test_whether_noise_is_cut_off_at_black_does_not_depend_on_the_crop() -> None:
    noise = NoiseProfile(1e-3, 3e-2)
    scene = torch.linspace(0, 1, 80).expand(4, 60, -1)
    dark = noise.read * torch.randn(4, 60, 80, generator=torch.Generator().manual_seed(0))
    image = Image((scene + dark).clamp_min(0), Transfer.LINEAR, Layout.BAYER)
    whole, cut = (
        restore_image(
            image,
            loaded(BlendModel(BlendConfig(gain=0.1))),
            RestoreOptions(device="cpu", dtype="float32", noise=noise, crop=crop),
        )[0].pixels[:, 30:40, :10]
        for crop in (None, (0, 60, 20, 20))
    )
    torch.testing.assert_close(cut, whole)


def test_a_crop_outside_is_refused() -> None:
    options = RestoreOptions(device="cpu", noise=1, crop=(20, 0, 11, 5))
    with pytest.raises(UsageError, match="30 x 20"):
        restore_image(picture(20, 30), identity(), options)


@pytest.mark.parametrize(
    "options", [{"strength": 1.1}, {"tile": 0}, {"noise": -1.0}, {"crop": (0, 0, 5, 0)}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        RestoreOptions(**options)


def test_a_restored_mosaic_states_the_noise_that_is_left() -> None:
    stated = NoiseProfile(4e-3, 1e-2)
    image = picture(40, 40, Layout.BAYER)
    image = replace(image, metadata=replace(image.metadata, noise=stated))
    for strength, expected in ((1, None), (0.5, NoiseProfile(1e-3, 5e-3)), (0, stated)):
        options = RestoreOptions(device="cpu", noise=stated, strength=strength)
        restored, _ = restore_image(image, identity(), options)
        assert restored.metadata.noise == expected


def hot_mosaic(count: int) -> tuple[Image, Image]:
    """Return a noisy mosaic of 120 000 samples, and the same with hot pixels in plane R."""
    noise = torch.randn(4, 150, 200, generator=torch.Generator().manual_seed(0))
    sound = picture(150, 200, Layout.BAYER).with_pixels(0.05 + 0.005 * noise)
    hot = sound.with_pixels(sound.pixels.clone())
    places = torch.cartesian_prod(torch.arange(1, 150, 6), torch.arange(1, 200, 6))[:count]
    hot.pixels[0, places[:, 0], places[:, 1]] = 0.8
    return sound, hot


def slight() -> LoadedModel:
    """Return a network that changes every value a little."""
    return loaded(BlendModel(BlendConfig(1e-3)))


def test_hot_pixels_are_repaired_before_the_noise_is_measured() -> None:
    sound, hot = hot_mosaic(200)
    options = RestoreOptions(device="cpu", dtype="float32")
    _, expected = restore_image(sound, slight(), options)
    restored, report = restore_image(hot, slight(), options)
    assert isinstance(report.noise, NoiseProfile)
    assert isinstance(expected.noise, NoiseProfile)
    assert report.noise.read == pytest.approx(expected.noise.read, rel=0.05)
    assert restored.pixels.max() < 0.1
    assert ((restored.pixels - hot.pixels).abs() > 0.1).count_nonzero() == 200
    assert report.warnings == ("hot or dead pixels repaired: 200",)
    assert expected.warnings == ()


def test_a_few_hot_pixels_are_repaired_without_a_word() -> None:
    _, hot = hot_mosaic(5)
    restored, report = restore_image(hot, slight(), RestoreOptions(device="cpu"))
    assert restored.pixels.max() < 0.1
    assert report.warnings == ()


def test_strength_mixes_hot_pixels_too() -> None:
    _, hot = hot_mosaic(200)
    options = RestoreOptions(device="cpu", dtype="float32")
    full, _ = restore_image(hot, slight(), options)
    half, _ = restore_image(hot, slight(), replace(options, strength=0.5))
    none, _ = restore_image(hot, slight(), replace(options, strength=0))
    torch.testing.assert_close(half.pixels, (hot.pixels + full.pixels) / 2)
    assert torch.equal(none.pixels, hot.pixels)


def test_hot_pixels_outside_of_a_crop_stay() -> None:
    _, hot = hot_mosaic(200)
    options = RestoreOptions(device="cpu", crop=(0, 0, 100, 60))
    restored, report = restore_image(hot, slight(), options)
    part = slice(0, (60 + 8) // 2), slice(0, (100 + 8) // 2)
    assert restored.pixels[0][part].max() < 0.1
    repaired = ((restored.pixels - hot.pixels).abs() > 0.1)[0]
    assert repaired.count_nonzero() == repaired[part].count_nonzero() == 6 * 9
    assert report.warnings == ("hot or dead pixels repaired: 54",)


def test_hot_pixels_stay_where_the_network_changes_nothing() -> None:
    _, hot = hot_mosaic(5)
    restored, _ = restore_image(hot, identity(), RestoreOptions(device="cpu", dtype="float32"))
    assert torch.equal(restored.pixels, hot.pixels)


def test_noise_clipped_at_black_is_not_taken_for_hot_pixels() -> None:
    noise = torch.randn(4, 200, 200, generator=torch.Generator().manual_seed(0))
    light = torch.linspace(-0.2, 0.3, 200).clamp_min(0) - 0.005
    image = picture(200, 200, Layout.BAYER).with_pixels((light + 0.005 * noise).clamp_min(0))
    restored, _ = restore_image(image, identity(), RestoreOptions(device="cpu", dtype="float32"))
    assert torch.equal(restored.pixels, image.pixels)


def test_a_picture_without_noise_says_why_it_stays() -> None:
    flat = picture(64, 64).with_pixels(torch.full((3, 64, 64), 0.5))
    options = RestoreOptions(device="cpu")
    restored, report = restore_image(flat, identity(), options)
    assert torch.equal(restored.pixels, flat.pixels)
    (warning,) = report.warnings
    assert "shows no noise" in warning
    assert restore_image(flat, identity(), replace(options, noise=0))[1].warnings == ()
