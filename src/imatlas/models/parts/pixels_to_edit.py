"""Images given to a model for an edit: in the shape and depth of its own, with their missing pixels apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from imatlas.errors import InputError
from imatlas.images.dataset import load_pixels, with_mask
from imatlas.images.spec import ImageSpec


def complete_pixels(images: Any, spec: ImageSpec) -> np.ndarray:
    """Pixels (N, H, W, C) of images without missing pixels.

    Raises
    ------
    InputError
        If pixels are missing, or as `pixels_to_edit`.
    """
    pixels, missing = pixels_to_edit(images, None, spec)
    if missing is not None:
        raise InputError("Images to change must be complete. Got missing pixels; fill them in with `inpaint`.")
    return pixels


def pixels_to_edit(images: Any, mask: np.ndarray | None, spec: ImageSpec) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels (N, H, W, C) in the shape and depth of `spec`, complete, and which are missing, (N, H, W) of uint8.

    Parameters
    ----------
    images : Images, array (N, H, W[, C]) or any source that `Images` takes
    mask : array (N, H, W) or (H, W) of bool, or None
        True where a pixel is missing.
    spec : ImageSpec

    Raises
    ------
    InputError
        If an array has another shape, or the images cannot be converted.
    """
    images, mask = with_mask(images, mask)
    if isinstance(images, np.ndarray):
        wanted = spec.shape if images.ndim == 4 else spec.shape[:2]
        if images.shape[1:] != wanted:
            raise InputError(
                f"Images must be an array (n, {', '.join(map(str, wanted))}), like those of fit. "
                f"Got shape {images.shape} instead."
            )
    pixels = load_pixels(images, spec=spec)[0]
    if mask is not None:
        if np.ndim(mask) == 2:
            mask = np.broadcast_to(mask, (len(pixels), *np.shape(mask)))
        pixels = load_pixels(pixels, mask=mask)[0]
    return without_missing(pixels, spec)


def without_missing(pixels: np.ndarray, spec: ImageSpec) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels of the dtype of `spec` with the middle value where any channel is missing, and where that is, or None."""
    missing = ~np.isfinite(pixels).all(-1) if pixels.dtype.kind == "f" else np.zeros((), bool)
    if missing.any():
        pixels = np.where(missing[..., None], np.float32((spec.low + spec.high) / 2), pixels)
    if pixels.dtype != spec.dtype:
        pixels = np.rint(pixels).astype(spec.dtype)
    return pixels, missing.astype(np.uint8) if missing.any() else None
