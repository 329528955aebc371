"""Images at their own sizes to learn from, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from imatlas import seeding
from imatlas.errors import InputError
from imatlas.images.dataset import images_of, load_masked, with_mask
from imatlas.images.spec import ImageSpec
from imatlas.models.image_estimator import MIN_SIZE
from imatlas.training.batches import Data

MAX_FIT_IMAGES, MAX_FIT_VALUES = 400, 1e8
"""Images that are learned from, at most, if not said otherwise, and their values: of larger ones, parts are taken."""


def originals_of(
    images: Any, mask: np.ndarray | None, seed: int, who: str, n_images: int = MAX_FIT_IMAGES
) -> tuple[list[np.ndarray], ImageSpec]:
    """Images (H, W, C), at most `n_images`, drawn by the seed, and the spec of the set.

    Raises
    ------
    InputError
        If none has 8 x 8 pixels; `who` needs them.
    """
    images, mask = with_mask(images, mask)
    if mask is not None:
        pixels, spec = load_masked(images, mask)
        opened = images_of(pixels)
    else:
        opened = images_of(images)
        spec = opened.spec
    rng = seeding.rng(seed, "images")
    rows = np.sort(rng.permutation(len(opened))[:n_images])
    most = MAX_FIT_VALUES / max(1, len(rows) * spec.channels)
    parts = (_part_of(opened[row], most, rng) for row in rows.tolist())
    large = [pixels for pixels in parts if min(pixels.shape[:2]) >= MIN_SIZE]
    if not large:
        size = f"{spec.height} x {spec.width} pixels" if len(opened) else "none"
        raise InputError(f"{who} needs images of at least {MIN_SIZE} x {MIN_SIZE} pixels. Got {size} instead.")
    return large, spec


def random_crops(images: list[np.ndarray], side: int, n: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Crops (side, side, C) of images (H, W, C) at random places, of an image the likelier, the larger it is."""
    areas = np.array([pixels.shape[0] * pixels.shape[1] for pixels in images], np.float64)
    for k in np.sort(rng.choice(len(images), n, p=areas / areas.sum())):
        top, left = (rng.integers(length - side + 1) for length in images[k].shape[:2])
        yield images[k][top : top + side, left : left + side]


def split_crops(crops: np.ndarray, spec: ImageSpec, n_held_out: int, rng: np.random.Generator) -> Data:
    """Crops (N, H, W, C) to learn from, of which some, drawn at random, are held out."""
    order = rng.permutation(len(crops))
    return Data(crops, spec, crops[np.sort(order[:n_held_out])], rows=np.sort(order[n_held_out:]))


def _part_of(pixels: np.ndarray, most: float, rng: np.random.Generator) -> np.ndarray:
    """A part of an image (H, W, C), of its proportions, at a random place, that has at most some number of pixels."""
    share = (most / max(1, pixels.shape[0] * pixels.shape[1])) ** 0.5
    if share >= 1:
        return pixels
    height, width = (max(min(side, MIN_SIZE), int(share * side)) for side in pixels.shape[:2])
    top, left = rng.integers(pixels.shape[0] - height + 1), rng.integers(pixels.shape[1] - width + 1)
    return pixels[top : top + height, left : left + width].copy()
