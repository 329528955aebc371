"""Errors of restored or reconstructed images.

All take images (N, H, W, C) of any dtype and the `span` of their values, such as 255 for 8-bit images: a distance of
`span` counts as 1. NaN and infinity in the target are missing pixels, which are ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from imatlas.errors import InputError

if TYPE_CHECKING:
    from imatlas.nn.backbones import EfficientNetLite0

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
"""Width and standard deviation in pixels of the Gaussian window of `ssim`."""

PERCEPTUAL_BLOCKS = (0, 2, 4, 7, 10)
"""Blocks of EfficientNet-Lite0 whose features `perceptual_distance` compares, at strides 2, 4, 8, 16 and 16."""

MIN_PERCEPTUAL = 16
"""Smallest height and width of images for `perceptual_distance`: one place of the last block."""


def mean_squared_error(target: np.ndarray, image: np.ndarray, *, span: float) -> float:
    """Mean squared error over all observed pixels, with pixel values divided by `span` (255 for 8-bit images).

    Parameters
    ----------
    target, image : arrays (N, H, W, C)
        NaN and infinity in `target` are missing pixels, which are ignored.
    """
    known = np.where(np.isfinite(target), target, np.nan) if target.dtype.kind == "f" else target
    difference = (known.astype(np.float64) - image.astype(np.float64)) / span
    return float(np.nanmean(difference**2))


def psnr(target: np.ndarray, image: np.ndarray, *, span: float) -> float:
    """Peak signal-to-noise ratio in decibels: -10 log10 of the squared error at unit span; inf for equal images."""
    error = mean_squared_error(target, image, span=span)
    return float("inf") if error == 0 else float(-10 * np.log10(error))


def ssim(target: np.ndarray, image: np.ndarray, *, span: float) -> float:
    """Structural similarity, at most 1, which equal images reach; mean over images, channels and windows.

    Settings of Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity": a Gaussian
    window of 11 x 11 pixels and standard deviation 1.5, population variances, K1 = 0.01 and K2 = 0.03. Each channel is
    compared on its own. Windows count that are all inside the image, and hold no missing pixel.

    Parameters
    ----------
    target, image : arrays (N, H, W, C)
        Of at least 11 x 11 pixels.

    Raises
    ------
    InputError
        If the images are too small or of different shapes, or no window is without missing pixels.
    """
    from scipy.ndimage import maximum_filter
    from skimage.metrics import structural_similarity

    _check(target, image, SSIM_WINDOW)
    margin = SSIM_WINDOW // 2
    total, n_windows = 0.0, 0
    for one, other in zip(target, image, strict=True):
        known = np.isfinite(one)
        a, b = (np.where(known, values, 0).astype(np.float64) for values in (one, other))
        similarity = structural_similarity(
            a, b, data_range=span, channel_axis=-1, full=True, gaussian_weights=True, sigma=SSIM_SIGMA,
            use_sample_covariance=False,
        )[1]  # fmt: skip
        holes = maximum_filter(~known, (SSIM_WINDOW, SSIM_WINDOW, 1))
        inside = slice(margin, -margin), slice(margin, -margin)
        similarity = similarity[inside][~holes[inside]]
        total, n_windows = total + float(similarity.sum()), n_windows + similarity.size
    if not n_windows:
        raise InputError("SSIM needs a window of 11 x 11 pixels without missing ones. Got none; compare by 'psnr'.")
    return total / n_windows


def perceptual_distance(
    target: np.ndarray, image: np.ndarray, *, span: float, network: EfficientNetLite0, low: float = 0.0
) -> float:
    """Distance between features of images, from 0 for equal images to 4 in theory; 0.27 for halved and enlarged photos.

    As LPIPS (Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric"), without its
    learned weights: at each place of `PERCEPTUAL_BLOCKS` the squared distance of the feature vectors, scaled to unit
    length; mean over places, then over blocks and images. Unlike squared errors it is small for a texture that is not
    the same but alike, and large for blur. The network was trained with ImageNet's labels, and other networks give
    other values, so only values of this one can be compared.

    Parameters
    ----------
    target, image : arrays (N, H, W, C)
        Of at least 16 x 16 pixels. RGB for 3 channels; otherwise each channel is compared as a gray image. Missing
        pixels get the values of the target's mean in both.
    span : float
        Span of the values: `low` is black, and `low + span` white.
    network : EfficientNetLite0
        The built-in one is `imatlas.models.parts.boundary_cues.texture_network()`.
    low : float

    Raises
    ------
    InputError
        If the images are too small, or of different shapes.
    """
    import torch

    _check(target, image, MIN_PERCEPTUAL)
    total = 0.0
    for one, other in zip(target, image, strict=True):
        known = np.isfinite(one)
        fill = one[known].mean(dtype=np.float64) if known.any() else low
        pair = np.stack([np.where(known, values, fill) for values in (one, other)]).astype(np.float32)
        x = torch.from_numpy((pair - np.float32(low)) * np.float32(2 / span) - 1).permute(0, 3, 1, 2)
        if x.shape[1] != 3:  # (2, C, H, W) -> (2 C, 3, H, W)
            x = x.reshape(-1, 1, *x.shape[2:]).expand(-1, 3, -1, -1)
        with torch.no_grad():
            for features in network.maps(x.contiguous(), PERCEPTUAL_BLOCKS):
                unit = features / features.norm(dim=1, keepdim=True).clamp(min=1e-6)
                a, b = unit.chunk(2)
                total += float((a - b).square().sum(1).mean()) / len(PERCEPTUAL_BLOCKS)
    return total / len(target)


def _check(target: np.ndarray, image: np.ndarray, least: int) -> None:
    """Raises InputError unless both are (N, H, W, C) of one shape, with at least one image and `least` pixels."""
    if target.ndim != 4 or target.shape != image.shape or not len(target):
        raise InputError(
            f"Images to compare must be arrays (N, H, W, C) of one shape. Got {target.shape} and {image.shape} instead."
        )
    if min(target.shape[1:3]) < least:
        raise InputError(
            f"Images to compare must have at least {least} x {least} pixels. "
            f"Got {target.shape[1]} x {target.shape[2]}; compare by 'psnr'."
        )
