"""How pictures get worse: noise, cameras, blur, rain and compression.

A function takes (C, H, W) or a batch (B, C, H, W) on the CPU and returns new pixels of the same
shape; what is drawn comes from its generator alone. Where a function asks for a batch shape, it is
`clean.shape[:-3]`: (B,), or () for one picture.
"""

from restorekit.degradations.blur import convolve, defocus_blur, depth_blur, motion_blur
from restorekit.degradations.camera import (
    CameraParameters,
    mosaic,
    process,
    sample_camera,
    unprocess,
)
from restorekit.degradations.compression import jpeg, random_jpeg
from restorekit.degradations.noise import (
    gaussian_noise,
    sample_noise_levels,
    sample_sensor_noise_levels,
    shot_read_noise,
)
from restorekit.degradations.photographs import (
    as_file,
    defocused,
    grainy,
    mostly,
    photographed,
    rainy,
    shaken,
)
from restorekit.degradations.psf import disk_psf, line_psf, polygon_psf, shake_psf
from restorekit.degradations.rain import (
    RainParameters,
    added_streaks,
    rain_streaks,
    sample_rain,
)

__all__ = [
    "CameraParameters",
    "RainParameters",
    "added_streaks",
    "as_file",
    "convolve",
    "defocus_blur",
    "defocused",
    "depth_blur",
    "disk_psf",
    "gaussian_noise",
    "grainy",
    "jpeg",
    "line_psf",
    "mosaic",
    "mostly",
    "motion_blur",
    "polygon_psf",
    "photographed",
    "process",
    "rain_streaks",
    "rainy",
    "random_jpeg",
    "sample_camera",
    "sample_noise_levels",
    "sample_rain",
    "sample_sensor_noise_levels",
    "shake_psf",
    "shaken",
    "shot_read_noise",
    "unprocess",
]
