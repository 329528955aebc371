"""Metrics of segmentations, as label maps: against human segmentations, of superpixels, and without ground truth.

A label map is an array (H, W), or of any other shape where only regions count, of integers from 0; the numbers have no
order, and unused numbers do not count.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array, csr_array

from imatlas.errors import InputError
from imatlas.metrics.boundaries import boundary_map

SUPERPIXEL_TOLERANCE = 0.0025
"""Tolerance of boundary recall for superpixels, a share of the diagonal (Stutz et al. 2018): 1 pixel at 481 x 321."""


def contingency_table(labels: np.ndarray, truth: np.ndarray) -> csr_array:
    """Number of pixels (n_labels, n_true_labels) of each pair of labels; rows and columns of unused labels are empty.

    Raises
    ------
    InputError
        If the shapes differ or are empty, or a label is not an integer of at least 0.
    """
    labels, truth = np.asarray(labels), np.asarray(truth)
    if labels.shape != truth.shape or not labels.size:
        raise InputError(f"Label maps to compare have one shape, not empty. Got {labels.shape} and {truth.shape}.")
    for each in (labels, truth):
        if each.dtype.kind not in "iub" or each.min() < 0:
            raise InputError(f"Labels are integers from 0. Got {each.dtype} from {each.min()}; renumber them.")
    shape = int(labels.max()) + 1, int(truth.max()) + 1
    pairs = coo_array((np.ones(labels.size), (labels.ravel(), truth.ravel())), shape=shape)
    return pairs.tocsr()  # sums the pairs that occur more than once


def best_overlaps(table: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Size of each true region and its largest intersection over union with any region, both (n_true_labels,)."""
    pairs = table.tocoo()
    sizes, true_sizes = table.sum(axis=1), table.sum(axis=0)
    overlaps = pairs.data / (sizes[pairs.row] + true_sizes[pairs.col] - pairs.data)
    best = np.zeros(table.shape[1])
    np.maximum.at(best, pairs.col, overlaps)
    return true_sizes, best


def covering(labels: np.ndarray, truth: np.ndarray) -> float:
    """Covering of the true segmentation (Arbelaez et al. 2011, eq. 8): mean over its pixels of the best overlap.

    Not symmetric. In (0, 1]; 1 for the same segmentation.
    """
    sizes, best = best_overlaps(contingency_table(labels, truth))
    return float(sizes @ best / sizes.sum())


def rand_index(labels: np.ndarray, truth: np.ndarray) -> float:
    """Share of pixel pairs that both segmentations join or both separate (Rand 1971), in [0, 1].

    Its mean over human segmentations is the probabilistic Rand index (Unnikrishnan et al. 2007).
    """
    return rand_of(contingency_table(labels, truth))


def rand_of(table: csr_array) -> float:
    """Rand index from a contingency table."""
    n = table.data.sum()
    if n < 2:
        return 1.0
    apart = ((table.sum(axis=1) ** 2).sum() + (table.sum(axis=0) ** 2).sum()) / 2 - (table.data**2).sum()
    return float(1 - apart / (n * (n - 1) / 2))


def variation_of_information(labels: np.ndarray, truth: np.ndarray) -> float:
    """H(S) + H(T) - 2 I(S, T) in bits (Meilă 2007), at least 0; symmetric, and a metric."""
    return information_of(contingency_table(labels, truth))


def information_of(table: csr_array) -> float:
    """Variation of information from a contingency table, in bits."""
    n = table.data.sum()
    joint, first, second = (_entropy(part / n) for part in (table.data, table.sum(axis=1), table.sum(axis=0)))
    return max(0.0, 2 * joint - first - second)


def mean_iou(labels: np.ndarray, truth: np.ndarray) -> float:
    """Mean intersection over union of true classes, each with at most one label of its own (Hungarian algorithm).

    For a set of images with one language of labels, give them as one array. A true class without a label counts as 0.

    Parameters
    ----------
    labels, truth : ndarray of int
        Of any one shape, such as (N, H, W).
    """
    table = contingency_table(labels, truth).toarray()
    used = table.sum(axis=0) > 0
    union = table.sum(axis=1)[:, None] + table.sum(axis=0) - table
    overlaps = table / np.maximum(union, 1)
    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    return float(overlaps[rows, columns].sum() / used.sum())


def seg_measure(labels: np.ndarray, truth: np.ndarray) -> float:
    """Overlap of true objects with segments: the measure SEG of Maška et al. 2014.

    The mean over true objects of the intersection over union with the segment that covers more than half of the object,
    and 0 if none does. Segments that match no object do not count. In [0, 1].

    Parameters
    ----------
    labels, truth : ndarray (H, W) of int
        Segments and true objects from 1; 0 is the background, which matches nothing.

    Raises
    ------
    InputError
        If there is no true object, or as in `contingency_table`.
    """
    table = contingency_table(labels, truth)
    sizes, true_sizes = table.sum(axis=1), table.sum(axis=0)
    n_objects = int((true_sizes[1:] > 0).sum())
    if not n_objects:
        raise InputError("SEG is a mean over true objects. Got a true label map of background, 0, only.")
    pairs = table.tocoo()
    row, column = pairs.row, pairs.col
    matched = (row > 0) & (column > 0) & (2 * pairs.data > true_sizes[column])
    overlaps = pairs.data / (sizes[row] + true_sizes[column] - pairs.data)
    return float(overlaps[matched].sum() / n_objects)


def boundary_recall(labels: np.ndarray, truth: np.ndarray, tolerance: float = SUPERPIXEL_TOLERANCE) -> float:
    """Share of true boundary pixels with a boundary pixel of `labels` nearby (Stutz et al. 2018, eq. 2).

    Nearby: in the square of 2 r + 1 pixels around it, r being `tolerance` times the diagonal, rounded. Many pixels may
    share one. Boundaries of both sides as in `boundary_map`, not thinned. In [0, 1]; 1 without a true boundary.
    """
    true = boundary_map(truth, thinned=False)
    radius = round(tolerance * float(np.hypot(*true.shape)))
    found = binary_dilation(boundary_map(labels, thinned=False), np.ones((2 * radius + 1, 2 * radius + 1)))
    return float((found & true).sum() / true.sum()) if true.any() else 1.0


def undersegmentation_error(labels: np.ndarray, truth: np.ndarray) -> float:
    """Σ over true regions G and segments S that meet of min(|S ∩ G|, |S outside G|) / N, at least 0.

    The definition of Neubert and Protzel 2012, which Stutz et al. 2018 (eq. 4) use too.
    """
    pairs = contingency_table(labels, truth).tocoo()
    sizes = np.bincount(pairs.row, weights=pairs.data)
    return float(np.minimum(pairs.data, sizes[pairs.row] - pairs.data).sum() / pairs.data.sum())


def achievable_accuracy(labels: np.ndarray, truth: np.ndarray) -> float:
    """Share of pixels right if each segment gets its most frequent true label (Liu et al. 2011), in (0, 1]."""
    table = contingency_table(labels, truth)
    return float(table.max(axis=1).sum() / table.data.sum())


def compactness(labels: np.ndarray) -> float:
    """Mean over pixels of the isoperimetric quotient 4π area / perimeter² of their segment (Schick et al. 2012).

    The perimeter is estimated by the Cauchy-Crofton formula from the segment's ends along rows, columns and diagonals
    (the image border counts), so that it depends little on the direction: the quotient is about 1 for a disc and 0.87
    for a square. Quotients are at most 1.
    """
    labels = np.unique(np.asarray(labels), return_inverse=True)[1].reshape(np.shape(labels))
    areas = np.bincount(labels.ravel()).astype(np.float64)
    padded = np.pad(labels, 1, constant_values=len(areas))
    ends = np.zeros(len(areas) + 1)
    center = padded[1:-1, 1:-1]
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        spacing = 1 / np.hypot(dy, dx)
        for sign in (1, -1):
            other = np.roll(padded, (sign * dy, sign * dx), (0, 1))[1:-1, 1:-1]
            ends[: len(areas)] += spacing * np.bincount(center[center != other], minlength=len(areas))
    perimeters = np.pi / 8 * ends[:-1]
    quotients = np.minimum(1, 4 * np.pi * areas / perimeters**2)
    return float(areas @ quotients / areas.sum())


def region_contrast(features: np.ndarray, labels: np.ndarray) -> float:
    """Contrast across boundaries against the variation within regions, without ground truth.

    across / (across + within): `across` is the root mean square, over pairs of adjacent pixels with different labels,
    of the distance of the means of their regions; `within` that of the distance of pixels to the mean of their region.
    It depends on the number of regions: compare segmentations that have about as many.

    Parameters
    ----------
    features : ndarray (H, W, C)
        Color or other features.
    labels : ndarray (H, W) of int

    Returns
    -------
    float
        In [0, 1]; 1 for constant regions that differ, 0 for one region or regions of equal mean.
    """
    labels = np.unique(np.asarray(labels), return_inverse=True)[1].reshape(np.shape(labels))
    if labels.shape != features.shape[:2]:
        raise InputError(f"Every pixel needs one label. Got {features.shape[:2]} pixels and {labels.shape} labels.")
    flat = features.reshape(labels.size, -1).astype(np.float64)
    membership = csr_array((np.ones(labels.size), (labels.ravel(), np.arange(labels.size))))
    means = (membership @ flat) / membership.sum(axis=1)[:, None]
    within = float(((flat - means[labels.ravel()]) ** 2).sum(axis=1).mean())
    left = np.concatenate([labels[:, :-1].ravel(), labels[:-1].ravel()])
    right = np.concatenate([labels[:, 1:].ravel(), labels[1:].ravel()])
    differ = left != right
    if not differ.any():
        return 0.0
    across = float(((means[left[differ]] - means[right[differ]]) ** 2).sum(axis=1).mean())
    return float(np.sqrt(across) / (np.sqrt(across) + np.sqrt(within))) if across else 0.0


def stability(labels: np.ndarray, other: np.ndarray) -> float:
    """Agreement of the segmentations of an image and of a slightly changed copy of it, without ground truth.

    The mean of the covering of each by the other, in (0, 1]; symmetric. Undo any change of geometry first. It is 1 for
    a method that always returns one region: read it with `region_contrast`.
    """
    table = contingency_table(labels, other)
    sides = (best_overlaps(table), best_overlaps(table.T.tocsr()))
    return float(np.mean([sizes @ best / sizes.sum() for sizes, best in sides]))


def _entropy(shares: np.ndarray) -> float:
    """Entropy in bits."""
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())
