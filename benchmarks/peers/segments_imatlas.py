"""Segmenters of imatlas; see `_segments.py`."""

from _segments import run

from imatlas.images.spec import ImageSpec
from imatlas.models.parts.hierarchy import hierarchy_of


def hierarchy(image, levels):
    tree = hierarchy_of(image, ImageSpec(*image.shape))
    return [tree.cut(level) for level in levels]


if __name__ == "__main__":
    run("imatlas", {"hierarchy": hierarchy})
