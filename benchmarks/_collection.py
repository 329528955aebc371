"""Classes that are the same in all images of a set: a part of `benchmarks.segmentation`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab

from benchmarks._mosaics import SIDE, satellite_mosaics, texture_mosaics
from benchmarks._table import save_table
from imatlas.images.spec import ImageSpec
from imatlas.metrics.segmentation import mean_iou
from imatlas.models.kmeans import KMeans
from imatlas.models.parts.region_tree import RegionTree, dense_features
from imatlas.models.segmenter import Segmenter

N_FITTED, N_NEW = 30, 10
"""Mosaics that classes are learned from, and others to which they are applied."""
SEEDS = (10, 11, 12)
"""Of mosaics; the settings of the Segmenter were chosen on others."""
N_CLASSES = 10
SETS: dict[str, Callable[[int, int], tuple[np.ndarray, np.ndarray]]] = {
    "textures": texture_mosaics,
    "satellite, 128 px": lambda n, seed: satellite_mosaics(n, seed, 2),
    "satellite, 64 px": lambda n, seed: satellite_mosaics(n, seed, 1),
}


def collection(_: object, options: argparse.Namespace) -> None:
    """Mean IoU over the pixels of all fitted mosaics together, and of all new ones."""
    rows = []
    for name, mosaics in SETS.items():
        found: dict[str, list[tuple[float, ...]]] = {}
        for seed in SEEDS[: options.n]:
            images, truths = mosaics(N_FITTED + N_NEW, seed)
            for title, (labels, n_classes, seconds) in _labels(images, seed).items():
                parts = (slice(N_FITTED), slice(N_FITTED, None))
                scores = [mean_iou(labels[part].reshape(-1, SIDE), truths[part].reshape(-1, SIDE)) for part in parts]
                found.setdefault(title, []).append((*scores, n_classes, seconds))
        for title, values in found.items():
            fitted, new, n_classes, seconds = np.array(values).T
            mean = f"{fitted.mean():.3f} ({fitted.min():.3f} to {fitted.max():.3f})"
            number = " ".join(str(int(n)) for n in n_classes)
            rows.append([name, title, number, mean, round(float(new.mean()), 3), round(float(np.median(seconds)), 2)])
            print(rows[-1], flush=True)
    if options.n is None:
        save_table("segmentation_collection", TITLE, COLUMNS, rows, NOTES)


def _labels(images: np.ndarray, seed: int) -> dict[str, tuple[np.ndarray, int, float]]:
    """Classes (n, 256, 256) of each method, their number, and seconds per image."""
    spec = ImageSpec(*images.shape[1:])
    lab = np.stack([rgb2lab(image) for image in images])
    blurred = np.stack([gaussian_filter(image, (8, 8, 0)) for image in lab])
    deep = np.stack([np.moveaxis(dense_features(image / np.float32(255)), 0, -1) for image in images])
    smooth = np.stack([gaussian_filter(image, (4, 4, 0)) for image in deep])
    found = {}
    for title, maps in {
        "k-means on color": lab,
        "k-means on color, blurred by 8 px": blurred,
        "k-means on the same features": deep,
        "k-means on the same features, blurred by 16 px": smooth,
    }.items():
        began = time.perf_counter()
        rows = maps.reshape(-1, maps.shape[-1]).astype(np.float32)
        fitted = rows[: len(rows) * N_FITTED // len(images) : max(1, len(rows) // 200_000)]
        labels = KMeans(n_clusters=N_CLASSES, n_init=5, random_state=seed).fit(fitted).predict(rows)
        labels = labels.reshape(maps.shape[:3])
        scale = SIDE // labels.shape[1]
        found[title] = (labels.repeat(scale, 1).repeat(scale, 2), N_CLASSES, _per_image(began, images))
    began = time.perf_counter()
    trees = [RegionTree.of(image, spec) for image in images]
    shared = _per_image(began, images)
    for title, n_classes in {"imatlas Segmenter": N_CLASSES, "imatlas Segmenter, number proposed": None}.items():
        began = time.perf_counter()
        model = Segmenter(n_classes=n_classes, random_state=seed).fit_trees(trees[:N_FITTED], spec)
        labels = np.stack([model.label_tree(tree)[tree.hierarchy.regions] for tree in trees])
        found[title] = (labels, model.n_classes_, shared + _per_image(began, images))
    return found


def _per_image(began: float, images: np.ndarray) -> float:
    return (time.perf_counter() - began) / len(images)


TITLE = "Classes of stuff over a set of images: mosaics with known masks"
COLUMNS = ("mosaics", "method", "classes", "mIoU", "mIoU, new images", "s per image")
NOTES = [
    f"{N_FITTED} mosaics of 256 x 256 pixels that classes are learned from, {N_NEW} new ones; mean (range) of "
    f"{len(SEEDS)} seeds. mIoU: one assignment of classes to the ten kinds of stuff, by the Hungarian method, for all "
    "images together. With more classes than kinds, the rest counts as wrong.",
    "Textures: five Voronoi cells, each of another of ten textures (three of scikit-image, seven crops of Kodak "
    "photographs). Satellite: squares of 2 x 2 EuroSAT tiles of one class (128 px), or of a single tile (64 px), of "
    "ten classes, of which Highway and River are lines through other stuff.",
    "Features: EfficientNet-Lite0, trained with ImageNet's labels; k-means 'on the same features' has those of the "
    "Segmenter, at every fourth pixel. Seconds of k-means without computing features.",
]
