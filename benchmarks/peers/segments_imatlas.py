"""Segmenters of imatlas; see `_segments.py`."""

from _segments import run

from imatlas.images.spec import ImageSpec
from imatlas.models.parts.hierarchy import hierarchy_of
from imatlas.models.parts.superpixels import superpixels_of


def hierarchy(image, levels):
    tree = hierarchy_of(image, ImageSpec(*image.shape))
    return [tree.cut(level) for level in levels]


def hierarchy_by_number(image, numbers):
    tree = hierarchy_of(image, ImageSpec(*image.shape))
    return [tree.segments(round(n)) for n in numbers]


def superpixels(image, numbers):
    return [superpixels_of(image, ImageSpec(*image.shape), round(n)) for n in numbers]


if __name__ == "__main__":
    run("imatlas", {"hierarchy": hierarchy, "hierarchy, number": hierarchy_by_number, "superpixels": superpixels})
