"""Salient objects of imatlas, and simple baselines, as maps from 0 to 255; see `_segments.py`.

The first map is the saliency, the second the mask of the object.
"""

import numpy as np
from _segments import run
from skimage.color import rgb2lab

from imatlas.images.spec import ImageSpec
from imatlas.models.parts.region_graph import region_graph
from imatlas.models.parts.salient_object import salient_object


def imatlas(image, _):
    found = salient_object(region_graph(image, ImageSpec(*image.shape)))
    return [255 * found.saliency, 255 * found.mask]


def border_color(image, _):
    """Distance in Lab from the mean color of the border."""
    lab = rgb2lab(image)
    border = np.concatenate([lab[0], lab[-1], lab[:, 0], lab[:, -1]]).mean(axis=0)
    distance = np.linalg.norm(lab - border, axis=2)
    return [255 * distance / max(distance.max(), 1e-9)]


def center(image, _):
    """A Gaussian in the center, a third of the size wide."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    return [255 * np.exp(-(((y - height / 2) / (height / 3)) ** 2 + ((x - width / 2) / (width / 3)) ** 2))]


if __name__ == "__main__":
    run("imatlas", {"imatlas": imatlas, "border color": border_color, "center": center})
