"""Salient objects against known ones: a part of `benchmarks.segmentation`."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import numpy as np
from skimage.filters import threshold_otsu

from benchmarks._composites import Sample, emoji_on, largest_inner, segments_on, textures
from benchmarks._data import eurosat, noto_emoji
from benchmarks._peers import python_of
from benchmarks._table import save_table

Photograph = tuple[str, np.ndarray, np.ndarray]
"""Key, pixels (H, W, 3) uint8 and human segmentations (n, H, W)."""

N = 25
"""Pictures of each set."""
SCRIPTS = {
    "imatlas": ("imatlas", "saliency_imatlas.py", "imatlas"),
    "OpenCV GrabCut, center box": ("opencv", "saliency_opencv.py", "grab cut"),
    "OpenCV spectral residual": ("opencv", "saliency_opencv.py", "spectral residual"),
    "OpenCV fine grained": ("opencv", "saliency_opencv.py", "fine grained"),
    "distance from the border's mean color": ("imatlas", "saliency_imatlas.py", "border color"),
    "center": ("imatlas", "saliency_imatlas.py", "center"),
}
THRESHOLDS = np.arange(1, 25) / 25


def compare(
    photographs: list[Photograph],
    options: argparse.Namespace,
    run: Callable[[tuple[str, str, str], list[Photograph]], tuple[dict[str, np.ndarray], dict[str, Any]]],
) -> None:
    """Overlap of masks and error of saliency maps on four kinds of pictures.

    run: (environment, script, method) and images to the maps of each image by key, and facts.
    """
    rows = []
    for kind, samples in sets(photographs, options.part).items():
        samples = list(islice(samples, options.n))
        images = [(f"{i:03d}", pixels, np.zeros(0)) for i, (pixels, _) in enumerate(samples)]
        for title, script in SCRIPTS.items():
            if (options.methods and title not in options.methods.split(";")) or not python_of(script[0]).exists():
                continue
            maps, facts = run(script, images)
            scores = [_scores(maps[key] / 255, alpha) for (key, *_), (_, alpha) in zip(images, samples, strict=True)]
            seconds = statistics.median(facts["seconds"])
            rows.append([kind, title, len(samples), *np.mean(scores, axis=0).round(4).tolist(), seconds])
            print(rows[-1], flush=True)
    if options.part == "val" and options.n is None and not options.methods:
        save_table("segmentation_objects", "Salient objects", COLUMNS, rows, NOTES)


def sets(photographs: list[Photograph], part: str) -> dict[str, Iterable[Sample]]:
    """Pictures and the alpha of their objects; other emoji and seeds for training."""
    rng = np.random.default_rng(0 if part == "val" else 1)
    emoji = sorted(noto_emoji().rglob("*.png"))[part == "val" :: 2]
    grounds = textures(eurosat(), N)
    inner = [(pixels, largest_inner(truths[0])) for _, pixels, truths in photographs]
    return {
        "emoji on photographs": emoji_on([pixels for _, pixels, _ in photographs[:N]], emoji, rng),
        "emoji on textures": emoji_on(grounds, emoji, rng),
        "segments on textures": segments_on(grounds, [(pixels, truths) for _, pixels, truths in photographs], rng),
        "inner segments of photographs": [(p, mask.astype(np.float32)) for p, mask in inner if mask is not None][:N],
    }


def _scores(maps: np.ndarray, alpha: np.ndarray) -> tuple[float, float, float]:
    """IoU of the mask and at the best threshold, and mean absolute error of the saliency."""
    saliency, true = maps[0], alpha > 0.5
    if len(maps) > 1:
        mask = maps[1] > 0.5
    else:
        mask = saliency > (threshold_otsu(saliency) if np.ptp(saliency) > 0 else 0.5)
    best = max(_iou(saliency > threshold, true) for threshold in THRESHOLDS)
    return _iou(mask, true), best, float(np.abs(saliency - alpha).mean())


def _iou(mask: np.ndarray, true: np.ndarray) -> float:
    return float((mask & true).sum() / max((mask | true).sum(), 1))


COLUMNS = ("pictures", "method", "images", "IoU of the mask", "IoU, best threshold", "MAE", "s per image")
NOTES = [
    "Noto Emoji, and the largest inner segment (at least 3 %, off the border) of the first annotator of BSDS500 val, "
    "pasted at random places with a longer side of 0.25 to 0.6 of the shorter side of the picture: on photographs of "
    "BSDS500 val, which have objects of their own, and on EuroSAT at 256 px. Last: this segment in its own photograph, "
    "as the nearest thing to a salient object that is at hand.",
    "IoU, mean over images: of the mask (Otsu's threshold where a method gives a saliency only), and at the best of 24 "
    "thresholds of each image. MAE: of the saliency against the alpha; for GrabCut, of its mask.",
    "Settings of imatlas were chosen on training images of BSDS500 and other emoji, but on the same textures; those of "
    "peers were fixed beforehand.",
    "Seconds: medians, 1 thread, on a shared machine: rough.",
]
