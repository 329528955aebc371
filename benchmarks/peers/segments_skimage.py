"""Segmenters of scikit-image; see `_segments.py`."""

from _segments import run
from skimage.segmentation import felzenszwalb, quickshift, slic


def felzenszwalb_by_scale(image, scales):
    """The smallest segment grows with the scale, half of it in pixels."""
    return [felzenszwalb(image, scale=scale, sigma=0.8, min_size=max(20, round(scale / 2))) for scale in scales]


def felzenszwalb_by_number(image, numbers):
    """A scale that gives about the number."""
    sizes = [image.shape[0] * image.shape[1] / n for n in numbers]
    return [felzenszwalb(image, scale=size / 6, sigma=0.8, min_size=max(2, round(size / 8))) for size in sizes]


def slic_by_number(image, numbers):
    return [slic(image, n_segments=round(n), compactness=10, sigma=1, start_label=0) for n in numbers]


def quickshift_by_distance(image, distances):
    return [quickshift(image, kernel_size=3, max_dist=distance, ratio=0.5, rng=0) for distance in distances]


def quickshift_by_number(image, numbers):
    sides = [(image.shape[0] * image.shape[1] / n) ** 0.5 for n in numbers]
    return [quickshift(image, kernel_size=3, max_dist=side / 2, ratio=0.5, rng=0) for side in sides]


METHODS = {
    "felzenszwalb": felzenszwalb_by_scale,
    "felzenszwalb, number": felzenszwalb_by_number,
    "slic": slic_by_number,
    "quickshift": quickshift_by_distance,
    "quickshift, number": quickshift_by_number,
}

if __name__ == "__main__":
    run("scikit-image", METHODS)
