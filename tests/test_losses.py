import pytest
import torch

from restorekit.errors import ConfigError
from restorekit.losses import LOSSES, charbonnier, criterion_by_name, psnr_loss


def test_charbonnier_by_hand() -> None:
    loss = charbonnier(torch.tensor([0.0, 0.3]), torch.tensor([0.0, 0.7]), epsilon=0.3)
    assert float(loss) == pytest.approx((0.3 + 0.5) / 2)


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
    with pytest.raises(ConfigError, match="known: charbonnier, l1, l2, psnr"):
        criterion_by_name("l3")
