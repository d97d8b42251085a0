"""The type of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from restorekit.models.registry import Batch

Degrade = Callable[..., "Batch"]
"""Makes training pairs from (B, C, H, W) clean pictures in [0, 1] and a generator.

Those that draw sigma also from that, the range of noise deviations in 0-255 units.
"""


@dataclass(frozen=True)
class Task:
    """Say what a task is, from which its command and its training are made.

    Attributes:
        name: verb on the command line.
        summary: one line for the help.
        default_model: bundled model for colour pictures.
        degradations: what makes training pairs from clean pictures, by name; the default first.
        validations: what makes validation pairs, by name; the training's own without any.
        default_gray_model: bundled model for grey pictures, or None to use the colour model.
        default_bayer_model: bundled model for mosaics, likewise.
        default_photo_model: bundled model for colour pictures whose noise a camera has smoothed,
            where the user does not state the noise, likewise.
        sigma_degradations: those that draw white noise from a range of deviations, an argument.
        burst: whether many frames give one picture.
        takes_noise_level: whether networks are told how strong the noise is; others are guarded.
        takes_mosaics: whether RAW pictures are restored before they are developed, not after.
        takes_psf: whether a blur that is known can be undone in place of the network's guess.
        transfer: encoding of what the networks see, "srgb" or "linear".
    """

    name: str
    summary: str
    default_model: str
    degradations: Mapping[str, Degrade]
    validations: Mapping[str, Degrade] = field(default_factory=dict)
    default_gray_model: str | None = None
    default_bayer_model: str | None = None
    default_photo_model: str | None = None
    sigma_degradations: tuple[str, ...] = ()
    burst: bool = False
    takes_noise_level: bool = False
    takes_mosaics: bool = False
    takes_psf: bool = False
    transfer: str = "srgb"

    def draws_sigma(self, degradation: str) -> bool:
        """Return whether a degradation, the first where empty, takes a range of deviations."""
        return (degradation or next(iter(self.degradations))) in self.sigma_degradations

    def degrade(self, degradation: str, sigma: tuple[float, float]) -> Degrade:
        """Return a degradation, the first where empty, with its range of deviations if it has one.

        Raises:
            KeyError: there is none of this name.
        """
        made = self.degradations[degradation or next(iter(self.degradations))]
        return partial(made, sigma=sigma) if self.draws_sigma(degradation) else made
