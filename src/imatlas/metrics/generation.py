"""Metrics of generated images in a feature space: distance to real images, coverage, memorization.

All of them depend on the features and on the number of images: report both. Memory is bounded: no function holds all
pairs of images.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import linalg, stats

from imatlas.errors import InputError
from imatlas.neighbors import MEMORY, all_distances, as_tensor, k_nearest, nearest, nearest_index

COPY_QUANTILE = 0.001
"""Quantile of the held-out-to-training distances below which a generated image counts as a near copy."""

MIN_PER_CELL = 20
"""Fewest held-out and generated images of a cell in the copying test."""

CELL = 50
"""Mean number of held-out images per cell of the copying test."""


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Squared Fréchet distance of two Gaussians fitted to features (Dowson and Landau 1982; Heusel et al. 2017).

    |m_r - m_g|² + Tr(C_r + C_g - 2 (C_r C_g)^½).

    Parameters
    ----------
    real, generated : arrays (n_real, n_features), (n_generated, n_features)

    Raises
    ------
    InputError
        With fewer than two rows per feature on either side, where the covariance is mostly noise.
    """
    n_features = real.shape[1]
    n = min(len(real), len(generated))
    if n < 2 * n_features:
        raise InputError(
            f"A Fréchet distance over {n_features} features needs at least {2 * n_features} images on each side. "
            f"Got {n}; use the kernel distance instead."
        )
    offset = real.mean(0, dtype=np.float64) - generated.mean(0, dtype=np.float64)
    cov_real = np.atleast_2d(np.cov(real, rowvar=False, dtype=np.float64))
    cov_generated = np.atleast_2d(np.cov(generated, rowvar=False, dtype=np.float64))
    # Tr (C_r C_g)^½ through the symmetric C_r^½ C_g C_r^½, whose eigenvalues are real and not negative.
    values, vectors = linalg.eigh(cov_real)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(linalg.eigvalsh(root @ cov_generated @ root), 0, None)).sum()
    return float(offset @ offset + np.trace(cov_real) + np.trace(cov_generated) - 2 * cross)


def kernel_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy with the cubic kernel of Bińkowski et al. 2018 (KID), times 1,000.

    k(x, y) = (x·y / n_features + 1)³ on features that are centered and scaled to unit variance by the real set. For two
    samples of one distribution its expectation is 0 for any n, so it suits small sets; it can be slightly negative.

    Parameters
    ----------
    real, generated : arrays (n_real, n_features), (n_generated, n_features), at least 2 rows each
    """
    _check_pairs(real, generated, 2, "A kernel distance")
    return _discrepancy(*_scaled(real, generated))


def kernel_distance_spread(
    real: np.ndarray, generated: np.ndarray, *, n_subsets: int = 50, size: int = 1000, random_state: int = 0
) -> tuple[float, float]:
    """Mean and standard deviation of the kernel distance over random subsets, as in Bińkowski et al. 2018.

    Parameters
    ----------
    real, generated : arrays (n_real, n_features), (n_generated, n_features), at least 4 rows each
    n_subsets, size : int
        Number of subsets, and images in each: at most half of either side, so that subsets differ.
    random_state : int

    Returns
    -------
    mean, deviation : float
    """
    _check_pairs(real, generated, 4, "The spread of a kernel distance")
    rng = np.random.default_rng(random_state)
    x, y = _scaled(real, generated)
    values = [
        _discrepancy(*(a[rng.choice(len(a), min(size, len(a) // 2), replace=False)] for a in (x, y)))
        for _ in range(n_subsets)
    ]
    return float(np.mean(values)), float(np.std(values, ddof=1))


def precision_recall(real: np.ndarray, generated: np.ndarray, *, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eq. 1 and 2).

    Precision is the share of generated images within the distance of some real image to its k-th real neighbor.
    Recall is the same with the sides exchanged.

    Parameters
    ----------
    real, generated : arrays (n_real, n_features), (n_generated, n_features)
        Of equal length, since both numbers grow with the length of the other side.
    k : int

    Returns
    -------
    precision, recall : float

    Raises
    ------
    InputError
        With k images or fewer on either side.
    """
    _check_pairs(real, generated, k + 1, f"Precision and recall with k = {k}")
    x, y = _double(real), _double(generated)
    precision = float((_covering(y, x, _radii(x, k)) > 0).double().mean())
    recall = float((_covering(x, y, _radii(y, k)) > 0).double().mean())
    return precision, recall


def density_coverage(real: np.ndarray, generated: np.ndarray, *, k: int = 5) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020, eq. 3 and 4), which are robust to outliers.

    Density is the mean number of balls around real images, up to their k-th real neighbor, that contain a generated
    image, divided by k: about 1 for equal distributions, more if generated images concentrate where real ones do.
    Coverage is the share of these balls that contain a generated image; for two samples of one distribution and equal n
    it is 1 - (n - 1) … (n - k) / ((2n - 1) … (2n - k)), about 1 - 2⁻ᵏ.

    Parameters
    ----------
    real, generated : arrays (n_real, n_features), (n_generated, n_features)
    k : int

    Returns
    -------
    density, coverage : float

    Raises
    ------
    InputError
        With k real images or fewer, or no generated image.
    """
    if len(real) <= k or not len(generated):
        raise InputError(
            f"Density and coverage with k = {k} need at least {k + 1} real images and 1 generated image. "
            f"Got {len(real)} and {len(generated)}; give more, or a smaller k."
        )
    x, y = _double(real), _double(generated)
    radii = _radii(x, k)
    density = float(_covering(y, x, radii).sum()) / (k * len(y))
    coverage = float((nearest(x, y)[1].sqrt() <= radii).double().mean())
    return density, coverage


def copying_score(
    train: np.ndarray,
    held_out: np.ndarray,
    generated: np.ndarray,
    *,
    n_cells: int | None = None,
    random_state: int = 0,
) -> float:
    """C_T, the data-copying test (Meehan, Chaudhuri, Dasgupta 2020, section 3).

    k-means on the training images divides the space into cells. In each, the distances of generated images to the
    nearest training image of the cell are compared with those of held-out images by the z-score of the Mann-Whitney
    test; C_T is the mean of these, weighted by the share of held-out images. Below -3, generated images are closer to
    training images than held-out ones are: they are copies. Above 3 they are farther away: the generator underfits.

    Unlike in the paper, a cell counts only with `MIN_PER_CELL` images on both sides, not just generated ones, since the
    normal approximation needs both.

    Parameters
    ----------
    train, held_out, generated : arrays (n, n_features)
        Held-out images are of the distribution of `train`, and were used neither in training nor in model selection.
    n_cells : int, optional
        By default one for every 50 held-out images, at most 50.
    random_state : int
        Seed of k-means.

    Raises
    ------
    InputError
        If no cell has enough images on both sides.
    """
    from sklearn.cluster import KMeans  # takes a second to import

    if n_cells is None:
        n_cells = int(np.clip(len(held_out) // CELL, 1, 50))
    n_cells = min(n_cells, len(train))
    centers = KMeans(n_cells, n_init=1, random_state=random_state).fit(train.astype(np.float32)).cluster_centers_
    sides = [as_tensor(a) for a in (train, held_out, generated)]
    cells = [nearest_index(a, as_tensor(centers)) for a in sides]
    scores, weights = [], []
    for cell in range(n_cells):
        known, unseen, new = (a[c == cell] for a, c in zip(sides, cells, strict=True))
        if len(known) and min(len(unseen), len(new)) >= MIN_PER_CELL:
            scores.append(_mann_whitney_z(nearest(new, known)[1].numpy(), nearest(unseen, known)[1].numpy()))
            weights.append(len(unseen))
    if not scores:
        raise InputError(
            f"The copying test needs a cell with {MIN_PER_CELL} held-out and {MIN_PER_CELL} generated images. "
            f"Got {len(held_out)} and {len(generated)} in {n_cells} cells; give more images or ask for fewer cells."
        )
    return float(np.average(scores, weights=weights))


def copying_score_if_enough(
    train: np.ndarray, held_out: np.ndarray, generated: np.ndarray, *, random_state: int = 0
) -> float | None:
    """`copying_score`, in a single cell if no cell holds enough of both sides; None if there are not enough in all."""
    if min(len(held_out), len(generated)) < MIN_PER_CELL:
        return None
    try:
        return copying_score(train, held_out, generated, random_state=random_state)
    except InputError:  # new images lie where no held-out ones do
        return copying_score(train, held_out, generated, n_cells=1, random_state=random_state)


def near_copy_share(
    generated_to_train: np.ndarray, held_out_to_train: np.ndarray, *, quantile: float = COPY_QUANTILE
) -> float:
    """Share of generated images that are closer to a training image than a quantile of the held-out images.

    A generator of the same distribution scores about `near_copy_chance`, one that copies scores near 1.

    Parameters
    ----------
    generated_to_train, held_out_to_train : arrays (n_generated,), (n_held_out,)
        Distance of each image to its nearest training image.
    """
    return float(np.mean(generated_to_train < np.quantile(held_out_to_train, quantile)))


def near_copy_chance(n_held_out: int, n_generated: int, *, quantile: float = COPY_QUANTILE) -> tuple[float, float]:
    """Expected near-copy share of a perfect generator, and its standard deviation.

    The threshold is an order statistic of the held-out distances: on average a share of r / (n + 1) lies below the
    r-th smallest of n, by the beta distribution. With few held-out images that exceeds `quantile`.

    Returns
    -------
    expected, deviation : float
    """
    rank = 1 + quantile * (n_held_out - 1)
    expected = rank / (n_held_out + 1)
    of_threshold = expected * (1 - expected) / (n_held_out + 2)
    return expected, float(np.sqrt(of_threshold + expected * (1 - expected) / n_generated))


def _check_pairs(real: np.ndarray, generated: np.ndarray, n_min: int, what: str) -> None:
    if min(len(real), len(generated)) < n_min:
        raise InputError(
            f"{what} needs at least {n_min} images on each side. Got {len(real)} and {len(generated)}; give more."
        )


def _scaled(real: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sides centered and scaled to unit variance by the real one, as float64."""
    center, scale = real.mean(0), real.std() + 1e-12
    return (real - center).astype(np.float64) / scale, (generated - center).astype(np.float64) / scale


def _discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    within = sum((_kernel_sum(a, a) - _kernel_diagonal(a)) / (len(a) * (len(a) - 1)) for a in (x, y))
    return 1000.0 * (within - 2.0 * _kernel_sum(x, y) / (len(x) * len(y)))


def _kernel_sum(a: np.ndarray, b: np.ndarray) -> float:
    """Sum of the cubic kernel over all pairs, in chunks of rows of `a`."""
    rows = max(1, MEMORY // (8 * len(b)))
    parts = (a[start : start + rows] @ b.T / a.shape[1] + 1.0 for start in range(0, len(a), rows))
    return float(sum((part * part * part).sum() for part in parts))


def _kernel_diagonal(a: np.ndarray) -> float:
    return float((((a * a).sum(1) / a.shape[1] + 1.0) ** 3).sum())


def _double(features: np.ndarray) -> torch.Tensor:
    """Features as float64, since distances from expanded squares decide whether a point lies in a ball."""
    return torch.from_numpy(np.ascontiguousarray(features, dtype=np.float64))


def _radii(points: torch.Tensor, k: int) -> torch.Tensor:
    """Distance (n,) of each point to its k-th nearest neighbor."""
    return k_nearest(points, points, k, exclude_self=torch.arange(len(points)))[1][:, -1].sqrt()


def _covering(points: torch.Tensor, centers: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
    """Number of balls around `centers` with `radii` that contain each point: (n,)."""
    rows = max(1, MEMORY // (8 * len(centers)))
    parts = [all_distances(points[at : at + rows], centers) <= radii for at in range(0, len(points), rows)]
    return torch.cat([part.sum(1) for part in parts])


def _mann_whitney_z(generated: np.ndarray, real: np.ndarray) -> float:
    """z-score of the Mann-Whitney statistic: negative if `generated` (m,) tends to be smaller than `real` (n,)."""
    m, n = len(generated), len(real)
    both = np.concatenate([generated, real])
    ranks = stats.rankdata(both)  # ties share their mean rank
    u = ranks[:m].sum() - m * (m + 1) / 2
    _, tied = np.unique(both, return_counts=True)
    size = m + n
    variance = m * n / 12 * (size + 1 - (tied.astype(np.float64) ** 3 - tied).sum() / (size * (size - 1)))
    return float((u - m * n / 2) / np.sqrt(variance)) if variance > 0 else 0.0
