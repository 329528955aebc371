"""The BSDS benchmark of hierarchies of segmentations (Arbelaez et al. 2011, section 3).

A hierarchy is a list of label maps of one image, one per scale; scale k means the same setting in every image (a
threshold, or the number of segments). `score_hierarchy` counts one image; `summarize` aggregates a data set:

ODS (optimal data set scale)
    One scale for the whole data set, the best one.
OIS (optimal image scale)
    The best scale of each image.
best
    For the covering: the best region of any scale for each true region.
AP (average precision)
    Area under the precision-recall curve of boundaries over scales.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from imatlas.errors import InputError
from imatlas.metrics.boundaries import TOLERANCE, boundary_map, f_measure, match_boundaries
from imatlas.metrics.segmentation import best_overlaps, contingency_table, information_of, rand_of


@dataclass(frozen=True)
class HierarchyCounts:
    """What the scores of a data set need from one image; the axis K is that of scales."""

    true_matched: np.ndarray
    """Matched boundary pixels (K,) of the human segmentations, summed over these."""
    true_total: int
    """Boundary pixels of the human segmentations."""
    found_matched: np.ndarray
    """Boundary pixels (K,) matched with at least one human segmentation."""
    found_total: np.ndarray
    """Boundary pixels (K,)."""
    covered: np.ndarray
    """Σ |G| max over S of the overlap (K,), over the regions G of all human segmentations."""
    best_covered: float
    """The same with the best region S of any scale."""
    covered_total: int
    """Σ |G|: pixels times human segmentations."""
    rand: np.ndarray
    """Probabilistic Rand index (K,)."""
    information: np.ndarray
    """Variation of information in bits (K,), mean over human segmentations."""


def score_hierarchy(
    levels: Iterable[np.ndarray], truths: Sequence[np.ndarray], *, tolerance: float = TOLERANCE
) -> HierarchyCounts:
    """Compare each level of a hierarchy with the human segmentations of an image.

    Parameters
    ----------
    levels : iterable of ndarray (H, W) of int
        Label maps, from coarse to fine or from fine to coarse. They are read once, one after the other.
    truths : sequence of ndarray (H, W) of int
        The human segmentations.
    tolerance : float
        Largest distance of matched boundary pixels, as a share of the diagonal.

    Raises
    ------
    InputError
        If there is no level or no human segmentation, or a shape differs.
    """
    if not len(truths):
        raise InputError("A score needs at least one human segmentation. Got none.")
    true_boundaries = [boundary_map(truth) for truth in truths]
    rows: list[tuple[float, ...]] = []
    best: np.ndarray | None = None
    sizes = np.empty(0)
    last: np.ndarray | None = None
    for labels in levels:
        if last is not None and np.array_equal(labels, last):
            rows.append(rows[-1])
            continue
        tables = [contingency_table(labels, truth) for truth in truths]
        pairs = [best_overlaps(table) for table in tables]
        sizes, overlaps = (np.concatenate(side) for side in zip(*pairs, strict=True))
        best = overlaps if best is None else np.maximum(best, overlaps)
        boundary = _boundary_counts(boundary_map(labels), true_boundaries, tolerance)
        information = float(np.mean([information_of(table) for table in tables]))
        rows.append((*boundary, sizes @ overlaps, float(np.mean([rand_of(table) for table in tables])), information))
        last = labels
    if best is None:
        raise InputError("A hierarchy has at least one label map. Got none.")
    found_matched, found_total, true_matched, covered, rand, information_at = np.array(rows).T
    return HierarchyCounts(
        true_matched=true_matched,
        true_total=sum(int(boundary.sum()) for boundary in true_boundaries),
        found_matched=found_matched,
        found_total=found_total,
        covered=covered,
        best_covered=float(sizes @ best),
        covered_total=int(sizes.sum()),
        rand=rand,
        information=information_at,
    )


def summarize(images: Sequence[HierarchyCounts]) -> dict[str, float]:
    """Scores of a data set.

    Returns
    -------
    dict
        `boundary_ods`, `boundary_ois`, `boundary_ap`; `covering_ods`, `covering_ois`, `covering_best`; `pri_ods`,
        `pri_ois` (probabilistic Rand index); `voi_ods`, `voi_ois` (variation of information in bits, less is better).
        As in the original code, boundaries and coverings are summed over images before the ratio is taken, so that an
        image counts by its human segmentations, and the ODS of boundaries is interpolated between scales.

    Raises
    ------
    InputError
        Without images, or if they differ in the number of scales.
    """
    if len({len(image.rand) for image in images}) != 1:
        raise InputError("Scores of a data set need images with one number of scales. Got none, or several numbers.")
    precision, recall = _precision_recall(images)
    chosen = []
    for image in images:
        scale = int(np.argmax(f_measure(*_precision_recall([image]))))
        chosen.append(
            [image.found_matched[scale], image.found_total[scale], image.true_matched[scale], image.true_total]
        )
    found, found_total, true, true_total = np.sum(chosen, axis=0)
    covered = np.array([image.covered for image in images])
    total = sum(image.covered_total for image in images)
    rand = np.array([image.rand for image in images])
    information = np.array([image.information for image in images])
    return {
        "boundary_ods": best_f_measure(precision, recall),
        "boundary_ois": float(f_measure(found / max(found_total, 1), true / max(true_total, 1))),
        "boundary_ap": average_precision(precision, recall),
        "covering_ods": float(covered.sum(axis=0).max() / total),
        "covering_ois": float(covered.max(axis=1).sum() / total),
        "covering_best": sum(image.best_covered for image in images) / total,
        "pri_ods": float(rand.mean(axis=0).max()),
        "pri_ois": float(rand.max(axis=1).mean()),
        "voi_ods": float(information.mean(axis=0).min()),
        "voi_ois": float(information.min(axis=1).mean()),
    }


def best_f_measure(precision: np.ndarray, recall: np.ndarray) -> float:
    """Largest F-measure on the curve (K,) of precision and recall, linear between consecutive scales."""
    between = np.linspace(0, 1, 100)[:, None]
    curves = [np.concatenate([c[:1], (c[:-1] * (1 - between) + c[1:] * between).ravel()]) for c in (precision, recall)]
    return float(f_measure(curves[0], curves[1]).max())


def average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """Area under the curve (K,): precision, linear between scales, summed over recalls 0, 0.01, … 1 times 0.01.

    0 outside the range of the recalls, so a curve that ends early has a low area; of scales with one recall the last
    counts. 0 for a single recall. All of this as in the original code.
    """
    last_of, first = np.unique(recall[::-1], return_index=True)
    if len(last_of) < 2:
        return 0.0
    grid = np.linspace(0, 1, 101)
    return float(np.interp(grid, last_of, precision[::-1][first], left=0, right=0).sum() * 0.01)


def cut_saliency(right: np.ndarray, down: np.ndarray, thresholds: Iterable[float]) -> list[np.ndarray]:
    """Label maps of a hierarchy that is given by its saliency, the ultrametric contour map on the edges of pixels.

    Parameters
    ----------
    right : ndarray (H, W - 1)
        Saliency of the edge of each pixel to its right neighbor.
    down : ndarray (H - 1, W)
        Saliency of the edge of each pixel to its lower neighbor.
    thresholds : iterable of float
        Two pixels are in one segment if a path of edges with at most this saliency joins them.

    Returns
    -------
    list of ndarray (H, W) int32
        One per threshold, labels from 0.
    """
    height, width = len(right), down.shape[1]
    if right.shape != (height, width - 1) or down.shape != (height - 1, width):
        raise InputError(f"Edges have shapes (H, W - 1) and (H - 1, W). Got {right.shape} and {down.shape}.")
    index = np.arange(height * width).reshape(height, width)
    start = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    end = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    saliency = np.concatenate([right.ravel(), down.ravel()])
    levels = []
    for threshold in thresholds:
        joined = saliency <= threshold
        graph = coo_array((np.ones(joined.sum(), bool), (start[joined], end[joined])), shape=(index.size, index.size))
        levels.append(connected_components(graph, directed=False)[1].reshape(height, width))
    return levels


def _boundary_counts(found: np.ndarray, truths: Sequence[np.ndarray], tolerance: float) -> tuple[int, int, int]:
    """Pixels matched with any human segmentation, all pixels, and matched pixels of the human segmentations."""
    matched_any = np.zeros(found.shape, bool)
    true_matched = 0
    for truth in truths:
        matched, true = match_boundaries(found, truth, tolerance)
        matched_any |= matched
        true_matched += int(true.sum())
    return int(matched_any.sum()), int(found.sum()), true_matched


def _precision_recall(images: Sequence[HierarchyCounts]) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall (K,) of the summed counts; 0 without boundary pixels."""
    found, found_total, true = (
        np.sum([getattr(image, name) for image in images], axis=0)
        for name in ("found_matched", "found_total", "true_matched")
    )
    return found / np.maximum(found_total, 1), true / max(sum(image.true_total for image in images), 1)
