"""Superpixels of OpenCV contrib and a segmentation by its mean shift; see `_segments.py`."""

import os

import cv2
import numpy as np
from _segments import run
from scipy.ndimage import sum_labels
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

cv2.setNumThreads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def _blurred_lab(image):
    """As the documentation of the superpixels advises."""
    return cv2.cvtColor(cv2.GaussianBlur(image, (3, 3), 0), cv2.COLOR_RGB2LAB)


def _slic(algorithm):
    def segment(image, numbers):
        lab, maps = _blurred_lab(image), []
        for n in numbers:
            side = max(2, round((image.shape[0] * image.shape[1] / n) ** 0.5))
            pixels = cv2.ximgproc.createSuperpixelSLIC(lab, algorithm, side, 10.0)
            pixels.iterate(10)
            pixels.enforceLabelConnectivity(25)
            maps.append(pixels.getLabels())
        return maps

    return segment


def lsc(image, numbers):
    lab, maps = _blurred_lab(image), []
    for n in numbers:
        side = max(2, round((image.shape[0] * image.shape[1] / n) ** 0.5))
        pixels = cv2.ximgproc.createSuperpixelLSC(lab, side, 0.075)
        pixels.iterate(10)
        pixels.enforceLabelConnectivity(25)
        maps.append(pixels.getLabels())
    return maps


def seeds(image, numbers):
    lab, maps = cv2.cvtColor(image, cv2.COLOR_RGB2LAB), []
    for n in numbers:
        pixels = cv2.ximgproc.createSuperpixelSEEDS(image.shape[1], image.shape[0], 3, round(n), 3, 2, 5, False)
        pixels.iterate(lab, 10)
        maps.append(pixels.getLabels())
    return maps


def mean_shift(image, radii):
    """Mean shift filter in Lab with a spatial radius of 8; equal neighbors joined, segments under 100 pixels merged.

    Neighbors are equal if the filtered colors differ by less than half the color radius.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    return [_merged(cv2.pyrMeanShiftFiltering(lab, 8, radius, None, 0).astype(np.float32), radius) for radius in radii]


def _merged(color, radius):
    shape = color.shape[:2]
    index = np.arange(shape[0] * shape[1]).reshape(shape)
    start = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    end = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    flat = color.reshape(-1, 3)
    near = np.linalg.norm(flat[start] - flat[end], axis=1) < radius / 2
    labels = _components(index.size, start[near], end[near])
    while True:
        sizes = np.bincount(labels)
        small = sizes < 100
        if not small.any():
            return labels.reshape(shape)
        means = np.stack([sum_labels(flat[:, c], labels, np.arange(len(sizes))) / sizes for c in range(3)], axis=1)
        a, b = labels[start], labels[end]
        a, b = np.concatenate([a, b]), np.concatenate([b, a])
        kept = (a != b) & small[a]
        a, b = a[kept], b[kept]
        order = np.lexsort((np.linalg.norm(means[a] - means[b], axis=1), a))
        first = order[np.concatenate([[True], np.diff(a[order]) > 0])]
        labels = _components(len(sizes), a[first], b[first])[labels]


def _components(n, start, end):
    return connected_components(coo_array((np.ones(len(start), bool), (start, end)), shape=(n, n)), directed=False)[1]


METHODS = {
    "slic": _slic(cv2.ximgproc.SLIC),
    "slico": _slic(cv2.ximgproc.SLICO),
    "lsc": lsc,
    "seeds": seeds,
    "mean shift": mean_shift,
}

if __name__ == "__main__":
    run("opencv-contrib-python-headless", METHODS)
