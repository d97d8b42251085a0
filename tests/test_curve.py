import torch

from restorekit.ops.curve import equal_parts, interpolated
from tests.shaken import seeded


def test_parts_hold_equally_many_values_from_the_lowest_on() -> None:
    values = torch.rand(1000, generator=seeded(0))
    parts = equal_parts(values, 4)
    assert [int(part.sum()) for part in parts] == [250] * 4
    for lower, higher in zip(parts, parts[1:], strict=False):
        assert float(values[lower].max()) <= float(values[higher].min())


def test_values_that_are_all_the_same_make_one_part() -> None:
    (part,) = equal_parts(torch.full((10,), 0.5), 4)
    assert part.all()


def test_a_curve_is_level_beyond_its_ends() -> None:
    at = torch.tensor([[-1.0, 0.5], [1.5, 9.0]])
    found = interpolated(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 3.0, 2.0]), at)
    assert found.tolist() == [[1.0, 2.0], [2.5, 2.0]]
