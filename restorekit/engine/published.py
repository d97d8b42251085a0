"""The numbers that papers publish, as printed there: KBNet, Tables 1 and 2; AME-KPN, Table 1."""

from __future__ import annotations

from dataclasses import dataclass

SIGMAS = (15.0, 25.0, 50.0)

_GMACS = {"DnCNN": 37.0, "DRUNet": 144.0, "Restormer": 141.0, "KBNet_s": 69.0}
_PSNR: dict[tuple[str, str], dict[str, tuple[float, float, float]]] = {
    ("gaussian-colour", "cbsd68"): {
        "DnCNN": (33.90, 31.24, 27.95),
        "FFDNet": (33.87, 31.21, 27.96),
        "DRUNet": (34.30, 31.69, 28.51),
        "Restormer": (34.40, 31.79, 28.60),
        "KBNet_s": (34.41, 31.80, 28.62),
    },
    ("gaussian-colour", "kodak24"): {
        "DnCNN": (34.60, 32.14, 28.95),
        "FFDNet": (34.63, 32.13, 28.98),
        "DRUNet": (35.31, 32.89, 29.86),
        "Restormer": (35.47, 33.04, 30.01),
        "KBNet_s": (35.46, 33.05, 30.04),
    },
    ("gaussian-colour", "mcmaster"): {
        "DnCNN": (33.45, 31.52, 28.62),
        "FFDNet": (34.66, 32.35, 29.18),
        "DRUNet": (35.40, 33.14, 30.08),
        "Restormer": (35.61, 33.34, 30.30),
        "KBNet_s": (35.56, 33.31, 30.27),
    },
    ("gaussian-colour", "urban100"): {
        "DnCNN": (32.98, 30.81, 27.59),
        "FFDNet": (33.83, 31.40, 28.05),
        "DRUNet": (34.81, 32.60, 29.61),
        "Restormer": (35.13, 32.96, 30.02),
        "KBNet_s": (35.15, 32.96, 30.04),
    },
    ("gaussian-grey", "set12"): {
        "DnCNN": (32.67, 30.35, 27.18),
        "KBNet_s": (33.40, 31.08, 28.04),
    },
    ("gaussian-grey", "bsd68"): {
        "DnCNN": (31.62, 29.16, 26.23),
        "KBNet_s": (31.98, 29.54, 26.65),
    },
    ("gaussian-grey", "urban100"): {
        "DnCNN": (32.28, 29.80, 26.35),
        "KBNet_s": (33.77, 31.45, 28.33),
    },
}
_BURSTS = {
    "reference frame": ((33.98, 0.8625), (26.94, 0.6286), (21.50, 0.3980), (16.44, 0.2027)),
    "KPN 5x5": ((37.94, 0.9767), (35.75, 0.9524), (33.70, 0.9223), (30.99, 0.8603)),
    "MKPN": ((38.29, 0.9719), (35.82, 0.9489), (35.43, 0.9122), (30.66, 0.8586)),
    "AME-KPN 5x5": ((39.92, 0.9776), (37.02, 0.9561), (35.46, 0.9295), (32.29, 0.8663)),
}


@dataclass(frozen=True)
class Published:
    """State one number of a paper's table.

    Attributes:
        model: name in the paper.
        sigma: deviation of the added noise in steps of 0..255, or None.
        psnr: in dB.
        gmacs: billions of multiply-accumulates of 256 x 256 pixels in layers, or None.
        gain: noise level of bursts, or None.
        ssim: structural similarity, or None.
    """

    model: str
    sigma: float | None
    psnr: float
    gmacs: float | None
    gain: int | None = None
    ssim: float | None = None


def published(
    protocol: str, data: str, sigma: float | None, gain: int | None = None
) -> list[Published]:
    """Return what is published for a data set, known by the name of its folder in any case.

    MACs stand in the colour table alone. Of bursts it is the paper's own set, whatever the folder;
    its frames are not aligned.
    """
    if gain is not None:
        return [
            Published(name, None, psnr, None, gain, ssim)
            for name, columns in _BURSTS.items()
            for psnr, ssim in columns[gain - 1 : gain]
        ]
    if sigma not in SIGMAS:
        return []
    models = _PSNR.get((protocol, data.lower()), {})
    gmacs = _GMACS if protocol == "gaussian-colour" else {}
    column = SIGMAS.index(sigma)
    return [Published(name, sigma, psnr[column], gmacs.get(name)) for name, psnr in models.items()]
