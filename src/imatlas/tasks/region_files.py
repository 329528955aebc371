"""Regions of label maps: measurements, outlines, pictures, and files for other programs.

A label map (H, W) of integers has the region of each pixel, from 0; -1 is no region. Files have labels from 1, and 0 is
no region.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import find_objects
from skimage.color import hsv2rgb
from skimage.measure import regionprops_table
from skimage.segmentation import find_boundaries

from imatlas.arguments import check_number
from imatlas.errors import InputError
from imatlas.images.encode import encode

SHAPE_PROPERTIES = {
    "area": "area",
    "centroid-0": "row",
    "centroid-1": "column",
    "bbox-0": "top",
    "bbox-1": "left",
    "bbox-2": "bottom",
    "bbox-3": "right",
    "perimeter": "perimeter",
    "equivalent_diameter_area": "diameter",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
    "orientation": "orientation",
}
"""Measurements of scikit-image, and their names in the table."""

MAX_LABEL = 65_535

GOLDEN_ANGLE = 0.381966
"""Share of a turn between the hues of two classes, so that any number of them differ."""

BAND = 1 << 20
"""Pixels whose colors are measured together."""


def measure_regions(labels: np.ndarray, pixels: np.ndarray, *, pixel_size: float = 1.0) -> dict[str, np.ndarray]:
    """One row per region, as columns.

    Parameters
    ----------
    labels : array (H, W) of int
    pixels : array (H, W, C)
        The image.
    pixel_size : float
        Side of a pixel in the unit of the table: areas are in its square, positions and lengths in it.

    Returns
    -------
    dict of arrays (n_regions,)
        `label`; `area`; `row`, `column` of the centroid; `top`, `left`, `bottom`, `right` in pixels, the last two
        exclusive; `perimeter`; `diameter` of the circle of this area; `eccentricity` of the ellipse with the same
        second moments in [0, 1); `solidity`, the share of the convex hull in (0, 1]; `orientation` of the long axis in
        radians from the vertical; `mean_0` ..., `std_0` ... of each channel, in the values of the image.

    Raises
    ------
    InputError
        If the label map does not have the size of the image.
    ParameterError
        If the pixel size is not positive.
    """
    labels, pixels = _checked(labels, pixels)
    size = check_number(pixel_size, "pixel_size", "measure_regions", low=0, above=True)
    properties = sorted({name.split("-")[0] for name in SHAPE_PROPERTIES} - {"solidity"})
    shifted = labels + 1
    found = regionprops_table(
        shifted, properties=("label", *properties, "area_convex"), spacing=(size, size) if size != 1 else None
    )
    columns = {"label": found["label"].astype(np.int64) - 1}
    found["solidity"] = found["area"] / np.maximum(found["area_convex"], found["area"])
    for name, title in SHAPE_PROPERTIES.items():
        columns[title] = np.asarray(found[name])
    means, deviations = _color_statistics(shifted, pixels)
    for channel in range(pixels.shape[2]):
        columns[f"mean_{channel}"] = means[found["label"], channel]
        columns[f"std_{channel}"] = deviations[found["label"], channel]
    return columns


def _color_statistics(labels: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (n_labels, C) of the pixels (H, W, C) of each label; 0 without pixels.

    Computed in bands of rows, since float64 takes eight times the memory of an 8-bit image.
    """
    n, channels = int(labels.max(initial=0)) + 1, pixels.shape[2]
    counts = np.maximum(np.bincount(labels.ravel(), minlength=n), 1)[:, None]
    step = max(1, BAND // max(1, labels.shape[1]))
    bands = [slice(top, top + step) for top in range(0, len(labels), step)]
    sums, squares = np.zeros((n, channels)), np.zeros((n, channels))
    for rows in bands:
        for channel in range(channels):
            sums[:, channel] += np.bincount(labels[rows].ravel(), pixels[rows, :, channel].ravel(), n)
    means = sums / counts
    for rows in bands:
        of = labels[rows].ravel()
        for channel in range(channels):
            deviations = pixels[rows, :, channel].ravel() - means[of, channel]
            squares[:, channel] += np.bincount(of, np.square(deviations), n)
    return means, np.sqrt(squares / counts)


def outlines(labels: np.ndarray) -> dict[int, list[np.ndarray]]:
    """The outlines of each region along the edges of its pixels.

    Returns
    -------
    dict of int to list of arrays (n_corners, 2)
        Corners as (x, y), where pixel (row, column) covers x from column to column + 1 and y from row to row + 1. Outer
        outlines run clockwise as seen on a screen, outlines of holes the other way; parts that touch at a corner only
        are separate.
    """
    shifted = np.asarray(labels) + 1
    found = {}
    for label, place in enumerate(find_objects(shifted)):
        if place is not None:
            offset = np.array([place[1].start, place[0].start])
            found[label] = [ring + offset for ring in _rings(shifted[place] == label + 1)]
    return found


def _rings(mask: np.ndarray) -> list[np.ndarray]:
    """The closed outlines of a mask, with corners only."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    follows: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Each edge between the mask and the rest, directed so that the mask is on its right.
    for outside, start, end in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    ):
        rows, columns = np.nonzero(inside & ~outside)
        for x, y in zip(columns.tolist(), rows.tolist(), strict=True):
            follows.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    rings = []
    while follows:
        start = min(follows)
        ring, at, heading = [], start, (0, 0)
        while at in follows:
            choices = follows[at]
            right = (at[0] - heading[1], at[1] + heading[0])
            after = choices.pop(choices.index(right) if right in choices else 0)
            if not choices:
                del follows[at]
            turned = (after[0] - at[0], after[1] - at[1])
            if turned != heading:
                ring.append(at)
            at, heading = after, turned
        if heading == (ring[1][0] - ring[0][0], ring[1][1] - ring[0][1]):
            ring = ring[1:]
        rings.append(np.array(ring))
    return rings


def overlay(pixels: np.ndarray, labels: np.ndarray, *, color: Sequence[int] = (255, 220, 0)) -> np.ndarray:
    """A picture (H, W, 3) uint8 with the borders of regions drawn in a color, of a picture (H, W, 3) uint8."""
    labels, pixels = _checked(labels, pixels)
    picture = pixels.copy()
    picture[find_boundaries(labels, mode="inner", background=-1)] = color
    return picture


def class_overlay(pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 half in the color of the class of each pixel, with the borders of classes in white.

    A class has the same color in all pictures.
    """
    classes, pixels = _checked(classes, pixels)
    angles = np.arange(int(classes.max(initial=0)) + 1) * GOLDEN_ANGLE
    colors = 255 * hsv2rgb(np.stack([angles % 1, *np.broadcast_arrays(0.75, 0.5 + 0.5 * (angles * 3.3 % 1))], axis=-1))
    tinted = np.rint(0.5 * pixels + 0.5 * colors[classes]).astype(np.uint8)
    return overlay(tinted, classes, color=(255, 255, 255))


def mean_colors(pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A picture (H, W, C) uint8 in which each region has its mean color; pixels without a region stay."""
    labels, pixels = _checked(labels, pixels)
    shifted = labels.ravel() + 1
    counts = np.maximum(np.bincount(shifted), 1)
    flat = pixels.reshape(-1, pixels.shape[2])
    means = np.stack([np.bincount(shifted, channel)[shifted] / counts[shifted] for channel in flat.T], 1)
    return np.where(shifted[:, None] > 0, np.rint(means), flat).astype(pixels.dtype).reshape(pixels.shape)


def cut_out(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The part of a picture (H, W, 3) uint8 within the bounding box of a mask (H, W), with alpha: (h, w, 4) uint8.

    Instead of a mask, alpha in [0, 1] (H, W) may be given.

    Raises
    ------
    InputError
        If the mask is empty or of another size.
    """
    mask, pixels = _checked(mask, pixels)
    if not mask.any():
        raise InputError("A cut-out needs at least one pixel. Got an empty mask.")
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    place = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    alpha = np.rint(255 * mask[place]).astype(np.uint8)[..., None]
    return np.concatenate([np.where(alpha > 0, pixels[place], 0).astype(np.uint8), alpha], 2)


def label_file(labels: np.ndarray) -> tuple[str, bytes]:
    """A label map (H, W) as a file with labels from 1, and its suffix: 16-bit PNG, or 32-bit TIFF if they need it."""
    if np.max(labels, initial=-1) < MAX_LABEL:
        return ".png", label_png(labels)
    return ".tif", encode((np.asarray(labels) + 1).astype(np.uint32), "tiff")


def label_png(labels: np.ndarray) -> bytes:
    """A label map (H, W) as the bytes of a 16-bit PNG with labels from 1.

    Raises
    ------
    InputError
        If there are more than 65,535 regions.
    """
    shifted = np.asarray(labels) + 1
    if shifted.max(initial=0) > MAX_LABEL:
        raise InputError(f"A 16-bit PNG holds {MAX_LABEL:,} regions. Got {int(shifted.max()):,}; use label_file.")
    stream = BytesIO()
    Image.fromarray(shifted.astype(np.uint16)).save(stream, "PNG")
    return stream.getvalue()


def coco_text(label_maps: Iterable[tuple[str, np.ndarray]], categories: Sequence[str] | None = None) -> Iterator[str]:
    """Parts of the text of a COCO JSON file of any number of label maps, which are read one by one.

    A region without holes is a list of polygons; one with holes a run-length encoding, which COCO marks as crowd.
    Beside what COCO knows, each annotation has the `label` of its region, from 1 as in the label maps.

    Parameters
    ----------
    label_maps : iterable of (str, ndarray (H, W) of int)
        File name and label map, from 0, of each image.
    categories : sequence of str, optional
        Names of the labels, where a label means the same in all images. None: all regions are of one category.
    """
    images = []
    yield '{"annotations": ['
    n = 0
    for i, (name, labels) in enumerate(label_maps, 1):
        images.append(_coco_image(i, name, labels))
        for region in _coco_regions(i, labels, n + 1, by_label=categories is not None):
            yield (", " if n else "") + json.dumps(region)
            n += 1
    yield f'], "images": {json.dumps(images)}, "categories": {json.dumps(_coco_categories(categories))}}}'


def _coco_image(i: int, name: str, labels: np.ndarray) -> dict[str, Any]:
    return {"id": i, "file_name": name, "height": labels.shape[0], "width": labels.shape[1]}


def _coco_categories(categories: Sequence[str] | None) -> list[dict[str, Any]]:
    titles = ["region"] if categories is None else categories
    return [{"id": i, "name": title, "supercategory": ""} for i, title in enumerate(titles, 1)]


def _coco_regions(image: int, labels: np.ndarray, first: int, *, by_label: bool) -> Iterator[dict[str, Any]]:
    """The annotations of one image, numbered from `first`; the category is the label or always 1."""
    for i, (label, rings) in enumerate(outlines(labels).items()):
        category = label + 1 if by_label else 1
        region: dict[str, Any] = {"id": first + i, "image_id": image, "category_id": category, "label": label + 1}
        corners = np.concatenate(rings)
        (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
        holes = any(_signed_area(ring) < 0 for ring in rings)
        inside = labels[top:bottom, left:right] == label
        region["segmentation"] = (
            {"size": list(labels.shape), "counts": _runs(labels == label)}
            if holes
            else [ring.ravel().tolist() for ring in rings]
        )
        box = [left, top, right - left, bottom - top]
        yield region | {"area": int(inside.sum()), "bbox": box, "iscrowd": int(holes)}


def _signed_area(ring: np.ndarray) -> float:
    """The area within an outline; negative for holes."""
    x, y = ring.T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def _runs(mask: np.ndarray) -> list[int]:
    """Lengths of runs along columns, alternately outside and inside, beginning outside."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(np.diff(flat))
    return np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()


def _checked(labels: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, pixels = np.asarray(labels), np.asarray(pixels)
    if labels.ndim != 2 or pixels.ndim != 3 or labels.shape != pixels.shape[:2]:
        raise InputError(
            f"A label map (H, W) and an image (H, W, C) of one size are needed. Got {labels.shape} and {pixels.shape}."
        )
    return labels, pixels
