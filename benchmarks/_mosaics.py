"""Images composed of known stuff: textures in Voronoi cells, and satellite tiles in a grid."""

from __future__ import annotations

import numpy as np
from PIL import Image
from skimage import data

from benchmarks._data import ROOT, eurosat

SIDE = 256
N_CELLS = 5
CROPS = {
    "wall": (1, 170, 10, 84, 740),
    "stream": (13, 360, 160, 100, 200),
    "rocks": (21, 300, 60, 130, 330),
    "waves": (9, 660, 8, 104, 496),
    "lawn": (19, 610, 150, 150, 350),
    "forest": (13, 60, 8, 130, 290),
    "clouds": (19, 8, 8, 110, 350),
}
"""Textures in photographs of the Kodak set: number, top, left, height and width."""
TILE = 64


def textures() -> dict[str, np.ndarray]:
    """Ten textures (H, W, 3) uint8: brick, grass and gravel of scikit-image, which are gray, and the crops."""
    found = {name: np.repeat(getattr(data, name)()[..., None], 3, axis=-1) for name in ("brick", "grass", "gravel")}
    for name, (number, top, left, height, width) in CROPS.items():
        with Image.open(ROOT / f"kodak/kodim{number:02d}.png") as picture:
            found[name] = np.asarray(picture.convert("RGB"))[top : top + height, left : left + width]
    return found


def texture_mosaics(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 256, 256, 3) of five Voronoi cells, each of another texture, and the texture (n, 256, 256) of a pixel.

    A cell shows a random part of its texture, which is mirrored where it is too small.
    """
    rng = np.random.default_rng(seed)
    known = []
    for texture in textures().values():
        missing = [max(0, 2 * SIDE - length) for length in texture.shape[:2]]
        known.append(np.pad(texture, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric"))
    images = np.zeros((n, SIDE, SIDE, 3), np.uint8)
    truths = np.zeros((n, SIDE, SIDE), np.int64)
    y, x = np.mgrid[:SIDE, :SIDE]
    for image, truth in zip(images, truths, strict=True):
        points = rng.uniform(0, SIDE, (N_CELLS, 2))
        cell = ((y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2).argmin(-1)
        truth[:] = rng.choice(len(known), N_CELLS, replace=False)[cell]
        for kind in np.unique(truth):
            top, left = (rng.integers(0, length - SIDE + 1) for length in known[kind].shape[:2])
            image[truth == kind] = known[kind][top : top + SIDE, left : left + SIDE][truth == kind]
    return images, truths


def satellite_mosaics(n: int, seed: int, n_tiles: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 256, 256, 3) of squares of `n_tiles` x `n_tiles` EuroSAT tiles of one of ten classes, and the classes.

    Tiles are drawn at random from the training part.
    """
    rng = np.random.default_rng(seed)
    folders = sorted(path for path in (eurosat() / "train").iterdir() if path.is_dir())
    files = [sorted(folder.iterdir()) for folder in folders]
    per_side = SIDE // TILE
    images = np.zeros((n, SIDE, SIDE, 3), np.uint8)
    truths = np.zeros((n, SIDE, SIDE), np.int64)
    for image, truth in zip(images, truths, strict=True):
        squares = rng.integers(0, len(files), (per_side // n_tiles, per_side // n_tiles))
        kinds = np.kron(squares, np.ones((n_tiles, n_tiles), np.int64))
        truth[:] = np.kron(kinds, np.ones((TILE, TILE), np.int64))
        for (row, column), kind in np.ndenumerate(kinds):
            with Image.open(files[kind][rng.integers(len(files[kind]))]) as picture:
                tile = np.asarray(picture.convert("RGB"))
            image[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = tile
    return images, truths
