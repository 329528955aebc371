"""Large images in overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def in_tiles(
    run: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, tile: int, margin: int, step: int, scale: int = 1
) -> np.ndarray:
    """`run` on tiles of an image (H, W, C), and its results (sH, sW, C), larger by `scale`, put together.

    Each tile sees `margin` pixels around it, cut at the borders of the image. Tiles begin at multiples of `step`, so
    that grids of a network fall on the same pixels in all of them, and no seam is left if nothing beyond the margin
    matters.
    """
    height, width = pixels.shape[:2]
    if height <= tile + 2 * margin and width <= tile + 2 * margin:
        return run(pixels)
    assert tile % step == 0, "tiles must begin at multiples of the step"
    assert margin % step == 0, "margins must be multiples of the step"
    out: np.ndarray | None = None
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            above, before = max(0, top - margin), max(0, left - margin)
            done = run(pixels[above : top + tile + margin, before : left + tile + margin])
            if out is None:
                out = np.empty((height * scale, width * scale, done.shape[2]), done.dtype)
            y, x = (top - above) * scale, (left - before) * scale
            own = done[y : y + tile * scale, x : x + tile * scale]
            out[top * scale : (top + tile) * scale, left * scale : (left + tile) * scale] = own
    assert out is not None
    return out
