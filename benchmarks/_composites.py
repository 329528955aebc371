"""Pictures with a known object: emoji, and human segments of photographs, pasted on other pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import label

Sample = tuple[np.ndarray, np.ndarray]
"""Picture (H, W, 3) uint8 and the alpha (H, W) in [0, 1] of its object."""

SIDES = (0.25, 0.6)
"""Longer side of a pasted object, as a share of the shorter side of the picture."""
TEXTURE_SIDE = 256
LARGE = 0.03
"""Share of the image from which a segment counts as an object."""


def emoji_on(backgrounds: Sequence[np.ndarray], emoji: Sequence[Path], rng: np.random.Generator) -> Iterator[Sample]:
    """One emoji, drawn at random, at a random place and scale on each picture (H, W, 3) uint8."""
    for picture in backgrounds:
        with Image.open(emoji[rng.integers(len(emoji))]) as image:
            yield _pasted(picture, np.asarray(image.convert("RGBA")), rng)


def segments_on(
    backgrounds: Sequence[np.ndarray], photographs: Sequence[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator
) -> Iterator[Sample]:
    """The largest inner human segment of a photograph, at a random place and scale on each other picture.

    photographs: pixels (H, W, 3) uint8 and human segmentations (n, H, W); taken in turn.
    """
    objects = []
    for pixels, truths in photographs:
        mask = largest_inner(truths[0])
        if mask is not None:
            y, x = (slice(side.min(), side.max() + 1) for side in np.nonzero(mask))
            objects.append(np.concatenate([pixels, 255 * mask[..., None].astype(np.uint8)], axis=2)[y, x])
    for i, picture in enumerate(backgrounds):
        yield _pasted(picture, objects[i % len(objects)], rng)


def largest_inner(truth: np.ndarray) -> np.ndarray | None:
    """Mask (H, W) of the largest connected part of a segmentation off the border; None if it is small."""
    best, size = None, LARGE * truth.size
    for number in np.unique(truth):
        parts, n = label(truth == number)
        border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
        sizes = np.bincount(parts.ravel(), minlength=n + 1)
        sizes[np.append(border, 0)] = 0
        if sizes.max() > size:
            best, size = parts == sizes.argmax(), sizes.max()
    return best


def _pasted(picture: np.ndarray, rgba: np.ndarray, rng: np.random.Generator) -> Sample:
    height, width = picture.shape[:2]
    scale = rng.uniform(*SIDES) * min(height, width) / max(rgba.shape[:2])
    size = [max(8, round(side * scale)) for side in rgba.shape[:2]]
    premultiplied = np.concatenate([rgba[..., :3] * (rgba[..., 3:] / 255.0), rgba[..., 3:]], axis=2) / 255
    channels = [
        np.asarray(Image.fromarray(c.astype(np.float32)).resize(size[::-1], Image.Resampling.BICUBIC))
        for c in np.moveaxis(premultiplied, 2, 0)
    ]
    top, left = (rng.integers(side - part + 1) for side, part in zip((height, width), size, strict=True))
    place = slice(top, top + size[0]), slice(left, left + size[1])
    alpha, out = np.zeros((height, width), np.float32), picture / 255.0
    alpha[place] = np.clip(channels[3], 0, 1)
    out[place] = np.stack(channels[:3], axis=2) + out[place] * (1 - alpha[place][..., None])
    return np.rint(255 * np.clip(out, 0, 1)).astype(np.uint8), alpha


def textures(folder: Path, n: int) -> list[np.ndarray]:
    """Every so many of the satellite images of a folder, resized."""
    files = sorted(folder.rglob("*.jpg")) or sorted(folder.rglob("*.png"))
    found = []
    for file in files[:: max(1, len(files) // n)][:n]:
        with Image.open(file) as image:
            found.append(
                np.asarray(image.convert("RGB").resize((TEXTURE_SIDE, TEXTURE_SIDE), Image.Resampling.BICUBIC))
            )
    return found
