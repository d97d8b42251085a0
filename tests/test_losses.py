import pytest
import torch

from restorekit.errors import ConfigError
from restorekit.losses import (
    LOSSES,
    charbonnier,
    charbonnier_edge,
    criterion_by_name,
    laplacian,
    psnr_loss,
)


def test_charbonnier_by_hand() -> None:
    loss = charbonnier(torch.tensor([0.0, 0.3]), torch.tensor([0.0, 0.7]), epsilon=0.3)
    assert float(loss) == pytest.approx((0.3 + 0.5) / 2)


def test_the_laplacian_is_the_second_difference(generator: torch.Generator) -> None:
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij")
    parabola = (3 * x.square() + 2 * y.square() + x * y).expand(1, 2, 6, 7)
    torch.testing.assert_close(laplacian(parabola)[..., 1:-1, 1:-1], torch.full((1, 2, 4, 5), 10.0))
    assert laplacian(torch.full((1, 1, 1, 1), 0.3)).abs().max() < 1e-6


def test_the_edge_loss_adds_the_laplacians(generator: torch.Generator) -> None:
    restored, clean = torch.rand(2, 1, 3, 8, 8, generator=generator).unbind()
    edges = (laplacian(restored - clean).square() + 1e-6).sqrt().mean()
    expected = charbonnier(restored, clean) + 0.2 * edges
    torch.testing.assert_close(charbonnier_edge(restored, clean, weight=0.2), expected)
    shifted = charbonnier_edge(clean + 0.1, clean) - charbonnier(clean + 0.1, clean)
    assert float(shifted) == pytest.approx(0.05e-3, rel=1e-2)


def test_psnr_loss_is_minus_a_tenth_of_psnr() -> None:
    restored, clean = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.1)
    assert float(psnr_loss(restored, clean)) == pytest.approx(-2, abs=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_least_at_the_truth(name: str, generator: torch.Generator) -> None:
    clean = torch.rand(2, 3, 8, 8, generator=generator)
    criterion = criterion_by_name(name)
    assert criterion(clean, clean) < criterion(clean + 0.1, clean)
    assert criterion(clean + 0.1, clean) < criterion(clean + 0.2, clean)


def test_unknown_losses_are_refused() -> None:
    with pytest.raises(ConfigError, match="known: charbonnier, charbonnier\\+edge, l1, l2"):
        criterion_by_name("l3")
