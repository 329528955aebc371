"""Segments from simulated strokes: a part of `benchmarks.segmentation`."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.color import rgb2lab
from skimage.filters import sobel
from skimage.segmentation import random_walker, watershed

from benchmarks._strokes import KINDS, simulated
from benchmarks._table import save_table, saved_table
from imatlas.images.spec import ImageSpec
from imatlas.models.parts.region_graph import RegionGraph, region_graph
from imatlas.models.parts.scribbles import segment_by_strokes

Image = tuple[str, np.ndarray, np.ndarray]
"""Key, pixels and human segmentations."""

BLUR, BETA = 3.0, 8000.0
"""Of watershed and random walker; the best on training images."""
SEED = 0


def scribbles(images: list[Image], options: argparse.Namespace) -> None:
    """Mean IoU of the segments of one annotator per image, from one stroke or point in each."""
    cases = [(key, pixels, truths[i % len(truths)].astype(np.int32)) for i, (key, pixels, truths) in enumerate(images)]
    rows = []
    for title, (prepare, answer) in METHODS.items():
        if options.methods and title not in options.methods.split(";"):
            continue
        found: dict[str, list[float]] = {kind: [] for kind in KINDS}
        seconds: list[list[float]] = [[], []]
        for i, (_, pixels, truth) in enumerate(cases):
            began = time.perf_counter()
            state = prepare(pixels)
            seconds[0].append(time.perf_counter() - began)
            for kind in KINDS:
                strokes = simulated(truth, kind, np.random.default_rng([SEED, i]))
                began = time.perf_counter()
                labels = answer(state, strokes)
                seconds[1].append(time.perf_counter() - began)
                found[kind].append(drawn_iou(labels, truth, strokes))
        means = [round(float(np.mean(found[kind])), 4) for kind in KINDS]
        rows.append([title, len(cases), *means, *(round(float(np.median(s)), 4) for s in seconds)])
        print(rows[-1], flush=True)
        if options.part == "val" and options.n is None:  # rows of methods that were not run are kept
            run = {row[0] for row in rows}
            kept = [row for row in saved_table(NAME, TITLE)["rows"] if row[0] not in run]
            save_table(NAME, TITLE, COLUMNS, kept + rows, NOTES)


def drawn_iou(labels: np.ndarray, truth: np.ndarray, strokes: np.ndarray) -> float:
    """Mean IoU (intersection over union) of the segments with a stroke, over their pixels."""
    drawn = np.unique(strokes[strokes > 0])
    counted = np.isin(truth + 1, drawn)
    overlaps = []
    for label in drawn:
        found, true = (labels == label) & counted, truth + 1 == label
        overlaps.append((found & true).sum() / (found | true).sum())
    return float(np.mean(overlaps))


def _nearest(_: np.ndarray, strokes: np.ndarray) -> np.ndarray:
    index = distance_transform_edt(strokes == 0, return_distances=False, return_indices=True)
    return strokes[tuple(index)]


def _gradient(pixels: np.ndarray) -> np.ndarray:
    lab = gaussian_filter(rgb2lab(pixels), (BLUR, BLUR, 0))
    return np.sqrt(sum(sobel(lab[..., channel]) ** 2 for channel in range(3)))


def _random_walk(pixels: np.ndarray, strokes: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a faster solver that is not installed
        numbers, consecutive = np.unique(strokes, return_inverse=True)  # it renumbers labels
        found = random_walker(rgb2lab(pixels) / 100, consecutive, beta=BETA, mode="bf", channel_axis=-1)
        return numbers[found]


def _graph(pixels: np.ndarray) -> RegionGraph:
    return region_graph(pixels, ImageSpec(*pixels.shape))


METHODS: dict[str, tuple[Callable[[np.ndarray], Any], Callable[[Any, np.ndarray], np.ndarray]]] = {
    "imatlas": (_graph, lambda graph, strokes: segment_by_strokes(graph, strokes).labels),
    "watershed of imatlas's boundary probability": (
        lambda pixels: gaussian_filter(_graph(pixels).probability, 1),
        watershed,
    ),
    f"scikit-image {version('scikit-image')} random_walker": (lambda pixels: pixels, _random_walk),
    f"scikit-image {version('scikit-image')} watershed of the color gradient": (_gradient, watershed),
    "nearest stroke": (lambda pixels: pixels, _nearest),
}
"""What is done once for an image, and then for its strokes."""

NAME = "segmentation_scribbles"
TITLE = "Segments from strokes: BSDS500, val"
COLUMNS = ("method", "images", *(f"mean IoU, {kind}" for kind in KINDS), "s per image", "s per answer")
NOTES = [
    "One annotator per image (number i mod n of image i). In each connected segment of at least 1 % of the image one "
    "stroke (3 pixels wide, up to 40 long, along the middle) or one point at a random place near its medial axis; "
    "seed 0. Mean over images of the mean IoU of these segments, over their pixels.",
    "Chosen on 60 training images: steepness and weight of appearance of imatlas, blur of the gradient "
    f"({BLUR:g} of 0.5 to 3). random_walker: Lab / 100, direct solver, beta {BETA:g} (of 130 to 60,000, RGB and Lab; "
    "the best on 10 training images). The weights of imatlas's hierarchy were fitted to training images.",
    "Seconds: medians, 1 thread, on a shared machine: rough. An answer has all labels of an image at once.",
]
