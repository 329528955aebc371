"""Segments of microscopy and satellite images with known masks: a part of `benchmarks.segmentation`.

Images and masks come with two packages of PyPI, whose wheels are read as archives and not installed (pip < 24.1, as
newer versions refuse the metadata of solaris):

    pip download --no-deps -r benchmarks/peers/segments_domain.txt -d benchmarks/.data/domain

- stardist 0.9.2 (BSD 3-Clause): one fluorescence image of nuclei of the 2018 Data Science Bowl (Caicedo et al. 2019).
  Its volume of nuclei is synthetic and not used.
- solaris 0.4.0 (Apache 2.0): a Landsat 5 band of Nebraska with the outlines of nine irrigated fields, of which a crop
  that has no missing pixels shows six. Its image of buildings is not used: the outlines are shifted and incomplete.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.draw import polygon
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label
from skimage.segmentation import felzenszwalb, watershed
from tifffile import TiffFile

from benchmarks._table import save_table
from imatlas.images.dataset import images_of
from imatlas.images.spec import ImageSpec
from imatlas.metrics.segmentation import seg_measure
from imatlas.models.parts.hierarchy import Hierarchy, hierarchy_of
from imatlas.models.parts.region_tree import RegionTree
from imatlas.models.segmenter import Segmenter

FIELDS = slice(934, 1184), slice(1763, 1985)
"""The largest part around fields without missing pixels, by eye; its middle row is between fields."""
LEVELS = tuple(np.linspace(0, 0.5, 51).round(2).tolist())
SCALES = tuple(np.geomspace(1, 1000, 31).round(1).tolist())
"""Of felzenszwalb."""
SIGMA = 0.8
"""Of the blur before Otsu's threshold and felzenszwalb."""
MIN_DISTANCE = 7
"""Pixels between the markers of the watershed, as in scikit-image's example of human cells."""


@dataclass(frozen=True)
class Half:
    """One half of an image, a picture of its own."""

    pixels: np.ndarray
    """(H, W, 1) uint16."""
    spec: ImageSpec
    """Depth and value range of both halves."""
    truth: np.ndarray
    """Objects (H, W) from 1; 0 is background."""

    @property
    def gray(self) -> np.ndarray:
        """(H, W) in [0, 1], by the value range."""
        low, high = self.spec.low, self.spec.high
        return np.clip((self.pixels[..., 0].astype(np.float64) - low) / (high - low), 0, 1)


Found = tuple[np.ndarray, bool]
"""Segments (H, W) from 0, and whether 0 is background: else all of them count as objects, and none as background."""


def domain(_: Any, options: argparse.Namespace) -> None:
    """IoU of the foreground and SEG of the objects."""
    try:
        images = {"nuclei": nuclei(options.wheels), "irrigated fields": fields(options.wheels)}
    except FileNotFoundError as missing:
        print(f"domain: {missing}, skipped; the head of benchmarks/_domain.py says how to get it")
        return
    rows = []
    for name, halves in images.items():
        n_objects = sum(len(np.unique(half.truth)) - 1 for half in halves)
        for title, method in METHODS.items():
            if options.methods and title not in options.methods.split(";"):
                continue
            _hierarchy.cache_clear()
            began = time.perf_counter()
            found, setting = method(halves)
            seconds = (time.perf_counter() - began) / len(halves)
            rows.append([name, title, setting, n_objects, *_scores(found, halves), round(seconds, 2)])
            print(rows[-1], flush=True)
    if not options.methods:
        save_table("segmentation_domain", "Segments of microscopy and satellite images", COLUMNS, rows, NOTES)


def nuclei(folder: Path) -> list[Half]:
    """Left and right half, 512 x 256."""
    with _wheel(folder, "stardist-0.9.2") as wheel:
        image, mask = (_tiff(wheel, f"stardist/data/images/{name}.tif").asarray() for name in ("img2d", "mask2d"))
    return _halves(image, mask, axis=1)


def fields(folder: Path) -> list[Half]:
    """Upper and lower half, 125 x 222 pixels of about 30 m."""
    with _wheel(folder, "solaris-0.4.0") as wheel, _tiff(wheel, f"{NEBRASKA}landsat5_with_nodata_wgs84.tif") as file:
        band, tags = file.asarray(), file.pages.first.tags
        step_x, step_y, _ = tags["ModelPixelScaleTag"].value
        _, _, _, left, top, _ = tags["ModelTiepointTag"].value
        outlines = json.loads(wheel.read(f"{NEBRASKA}wgs84_with_nodata_labels.geojson"))["features"]
    mask = np.zeros(band.shape, np.uint16)
    for number, outline in enumerate(outlines, 1):
        x, y = np.array(outline["geometry"]["coordinates"][0][0]).T[:2]
        # The file gives positions of the centers of pixels.
        mask[polygon((top - y) / step_y, (x - left) / step_x, band.shape)] = number
    image = band[FIELDS]
    assert image.min() > 0
    return _halves(image.astype(np.uint16), mask[FIELDS], axis=0)


NEBRASKA = "solaris/data/nebraska_"


def _wheel(folder: Path, name: str) -> ZipFile:
    paths = sorted(folder.glob(f"{name}-*.whl"))
    if not paths:
        raise FileNotFoundError(f"no wheel of {name} in {folder}")
    return ZipFile(paths[0])


def _tiff(wheel: ZipFile, name: str) -> TiffFile:
    return TiffFile(io.BytesIO(wheel.read(name)))


def _halves(image: np.ndarray, mask: np.ndarray, axis: int) -> list[Half]:
    parts = zip(np.split(image, 2, axis), np.split(mask, 2, axis), strict=True)
    spec = images_of(np.stack(np.split(image, 2, axis))[..., None]).spec
    return [Half(pixels[..., None], spec, label(truth, background=0, connectivity=2)) for pixels, truth in parts]


def _scores(found: list[Found], halves: list[Half]) -> list[float | None]:
    """IoU of the foreground, SEG over the objects of both halves, and number of segments in both."""
    objects = [len(np.unique(half.truth)) - 1 for half in halves]
    seg = np.average([_seg(*each, half) for each, half in zip(found, halves, strict=True)], weights=objects)
    n_segments = sum(
        len(np.unique(labels[labels > 0] if has_background else labels)) for labels, has_background in found
    )
    if not all(has_background for _, has_background in found):
        return [None, round(float(seg), 4), n_segments]
    inside = np.concatenate([labels.ravel() > 0 for labels, _ in found])
    true = np.concatenate([half.truth.ravel() > 0 for half in halves])
    return [round(float((inside & true).sum() / (inside | true).sum()), 4), round(float(seg), 4), n_segments]


def _seg(labels: np.ndarray, has_background: bool, half: Half) -> float:
    return seg_measure(labels if has_background else labels + 1, half.truth)


Method = Callable[[list[Half]], tuple[list[Found], str]]
"""Segments of both halves, and the setting."""


def _otsu(halves: list[Half]) -> tuple[list[Found], str]:
    return [(label(_bright(half)), True) for half in halves], ""


def _watershed(halves: list[Half]) -> tuple[list[Found], str]:
    found = []
    for half in halves:
        bright = _bright(half)
        depth = distance_transform_edt(bright)
        peaks = peak_local_max(depth, min_distance=MIN_DISTANCE, exclude_border=False, labels=label(bright))
        markers = np.zeros(bright.shape, np.int32)
        markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        found.append((watershed(-depth, markers, mask=bright), True))
    return found, f"markers {MIN_DISTANCE} apart"


def _bright(half: Half) -> np.ndarray:
    smooth = gaussian(half.gray, SIGMA)
    return smooth > threshold_otsu(smooth)


def _segmenter(halves: list[Half]) -> tuple[list[Found], str]:
    trees = [RegionTree.of(half.pixels, half.spec) for half in halves]
    model = Segmenter(n_classes=2).fit_trees(trees, halves[0].spec)
    classes = [model.label_tree(tree)[tree.hierarchy.regions] for tree in trees]
    gray, both = np.concatenate([half.gray.ravel() for half in halves]), np.concatenate([c.ravel() for c in classes])
    brighter = int(np.argmax([gray[both == each].mean() for each in range(model.n_classes_)]))
    return [(label(each == brighter), True) for each in classes], "2 classes"


def _fixed(cut: Callable[[Half, float], np.ndarray], value: float) -> Method:
    return lambda halves: ([(cut(half, value), False) for half in halves], f"{value:g}")


def _chosen(cut: Callable[[Half, float], np.ndarray], values: tuple[float, ...]) -> Method:
    """Each half with the value that has the best SEG on the other half."""

    def method(halves: list[Half]) -> tuple[list[Found], str]:
        best = [_best(cut, values, half) for half in halves[::-1]]
        cuts: list[Found] = [(cut(half, value), False) for half, value in zip(halves, best, strict=True)]
        return cuts, " and ".join(f"{value:g}" for value in best)

    return method


def _best(cut: Callable[[Half, float], np.ndarray], values: tuple[float, ...], half: Half) -> float:
    return max(values, key=lambda value: _seg(cut(half, value), False, half))


def _felzenszwalb(half: Half, scale: float) -> np.ndarray:
    return felzenszwalb(half.gray, scale=scale, sigma=SIGMA, min_size=20)


def _cut(half: Half, level: float) -> np.ndarray:
    return _hierarchy(half.pixels.tobytes(), half.pixels.shape, half.spec).cut(level)


@lru_cache(maxsize=2)
def _hierarchy(pixels: bytes, shape: tuple[int, ...], spec: ImageSpec) -> Hierarchy:
    return hierarchy_of(np.frombuffer(pixels, np.uint16).reshape(shape), spec)


SKIMAGE = f"scikit-image {version('scikit-image')}"
METHODS: dict[str, Method] = {
    f"{SKIMAGE} Otsu, components": _otsu,
    f"{SKIMAGE} Otsu, watershed": _watershed,
    f"{SKIMAGE} felzenszwalb": _fixed(_felzenszwalb, 100),
    f"{SKIMAGE} felzenszwalb, chosen scale": _chosen(_felzenszwalb, SCALES),
    "imatlas hierarchy": _fixed(_cut, 0.5),
    "imatlas hierarchy, chosen level": _chosen(_cut, LEVELS),
    "imatlas Segmenter, components": _segmenter,
}

COLUMNS = ("image", "method", "setting", "objects", "IoU of the foreground", "SEG", "segments", "s per half")
NOTES = [
    "One image each, cut into halves that are segmented on their own; an object that this cuts counts as two. Nuclei: "
    "a fluorescence image of the 2018 Data Science Bowl, 512 x 512 pixels, from stardist 0.9.2. Irrigated fields: 250 "
    "x 222 pixels of a Landsat 5 band, from solaris 0.4.0. Two images, one of six objects: small differences mean "
    "nothing.",
    "SEG (Maska et al. 2014): mean over true objects of the IoU with the segment that covers more than half of it, 0 "
    "if none does; segments without an object are not punished. IoU of the foreground: over the pixels of both halves; "
    "hierarchies and felzenszwalb have no foreground.",
    "Nothing is learned from these masks. Foreground: above Otsu's threshold, or the class of the higher mean "
    "intensity of a Segmenter that was fitted to both halves; objects are its connected components. Chosen: the level "
    f"(of {len(LEVELS)}, 0 to 0.5) or scale (of {len(SCALES)}, 1 to 1000) of the best SEG on the other half, by its "
    f"masks. Blur before Otsu and felzenszwalb: sigma {SIGMA}; smallest segment of felzenszwalb: 20 pixels. Otsu's was "
    "added after a first run, as it helps there: the SEG of the watershed of nuclei was 0.57 without.",
    "Seconds: per half, 1 thread, on a shared machine: rough; of chosen settings, all that were tried.",
]
