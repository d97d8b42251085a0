import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from restorekit.tiling import (
    Blend,
    Box,
    TilePlan,
    cut,
    plan_tiles,
    sample_boxes,
    smallest_tile,
)

plans = st.builds(
    plan_tiles,
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    tile=st.integers(1, 80),
    overlap=st.integers(0, 24),
    multiple_of=st.sampled_from([1, 2, 8, 16]),
)


def assemble(plan: TilePlan, tiles: list[torch.Tensor]) -> torch.Tensor:
    blend = Blend(plan, len(tiles[0]))
    for index, tile in enumerate(tiles):
        blend.add(index, tile)
    return blend.picture()


@given(plan=plans)
@settings(max_examples=150, deadline=None)
def test_cut_and_blend_give_the_picture_back_bit_for_bit(plan: TilePlan) -> None:
    picture = torch.randn(2, plan.rows.size, plan.columns.size)
    tiles = [cut(picture, box) for box in plan.boxes]
    assert {tuple(tile.shape) for tile in tiles} == {(2, plan.rows.length, plan.columns.length)}
    assert torch.equal(assemble(plan, tiles), picture)


@given(plan=plans.filter(lambda plan: len(plan.boxes) <= 60))
@settings(max_examples=25, deadline=None)
def test_weights_of_all_tiles_sum_to_one(plan: TilePlan) -> None:
    shape = (1, plan.rows.length, plan.columns.length)
    total = torch.zeros(1, plan.rows.size, plan.columns.size)
    for index in range(len(plan.boxes)):
        tiles = [torch.full(shape, float(index == other)) for other in range(len(plan.boxes))]
        weight = assemble(plan, tiles)
        assert weight.min() >= 0
        total += weight
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-5)


@given(
    size=st.integers(1, 6000),
    tile=st.integers(1, 700),
    overlap=st.integers(0, 64),
    multiple_of=st.sampled_from([1, 4, 8, 16]),
)
@settings(max_examples=300, deadline=None)
def test_pieces_lie_on_the_grid_and_share_the_overlap(
    size: int, tile: int, overlap: int, multiple_of: int
) -> None:
    axis = plan_tiles(size, 1, tile, overlap, multiple_of).rows
    assert axis.starts[0] == 0
    assert size <= axis.starts[-1] + axis.length < size + multiple_of
    assert all(number % multiple_of == 0 for number in (axis.length, *axis.starts))
    assert axis.length <= max(tile, smallest_tile(overlap, multiple_of))
    for index in range(1, len(axis.starts)):
        shared = axis.starts[index - 1] + axis.length - axis.starts[index]
        assert overlap <= shared < axis.length
        begin, end = axis.seam(index)
        assert axis.starts[index] + shared // 4 <= begin <= end
        assert end <= axis.starts[index] + shared - shared // 4
        assert axis.seam(index - 1)[1] <= begin


def test_seams_ramp_from_one_tile_to_the_next() -> None:
    plan = plan_tiles(1, 56, 40, 24, 1)
    weight = assemble(plan, [torch.zeros(1, 1, 40), torch.ones(1, 1, 40)])[0, 0]
    begin, end = plan.columns.seam(1)
    assert (begin, end) == (25, 31)
    expected = torch.cat([torch.zeros(25), (torch.arange(6) + 0.5) / 6, torch.ones(25)])
    torch.testing.assert_close(weight, expected)


def test_a_picture_smaller_than_a_tile_is_one_tile_on_the_grid() -> None:
    plan = plan_tiles(30, 17, 256, 32, 16)
    assert plan.boxes == (Box(0, 0, 32, 32),)


def test_cut_mirrors_without_repeating_the_edge() -> None:
    picture = torch.arange(6.0).view(1, 2, 3)
    tile = cut(picture, Box(0, 0, 4, 6))
    assert tile[0, 0].tolist() == [0, 1, 2, 1, 0, 1]
    assert tile[0, :, 0].tolist() == [0, 3, 0, 3]


def test_cut_inside_copies_nothing() -> None:
    picture = torch.zeros(3, 20, 20)
    cut(picture, Box(4, 5, 6, 7)).fill_(1)
    assert picture.sum() == 3 * 6 * 7


@pytest.mark.parametrize(("height", "width"), [(4000, 3000), (2000, 1500), (120, 100_000)])
def test_sample_windows_are_a_small_and_even_share_of_a_large_picture(
    height: int, width: int
) -> None:
    boxes = sample_boxes(height, width, 16)
    assert 12 <= len(boxes) <= 64
    assert sum(box.height * box.width for box in boxes) < 0.06 * height * width
    assert all(0 <= box.y <= height - 96 and 0 <= box.x <= width - 96 for box in boxes)
    middle_x = sum(box.x + box.width / 2 for box in boxes) / len(boxes)
    middle_y = sum(box.y + box.height / 2 for box in boxes) / len(boxes)
    assert middle_x == pytest.approx(width / 2, rel=0.02)
    assert middle_y == pytest.approx(height / 2, rel=0.02)


def test_the_sample_of_a_small_picture_is_the_picture() -> None:
    assert sample_boxes(300, 401, 16) == (Box(0, 0, 304, 416),)
    assert sample_boxes(300, 401, 16) == plan_tiles(300, 401, 512, 32, 16).boxes
