"""How near a set of made images is to a set of real ones, in the space of some features, and whether it was copied.

Pure functions on arrays. Every number depends on the features and on how many images there are: quote both. Memory
besides the inputs stays bounded: no function holds all pairs of images.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import linalg, stats

from imatlas.errors import InputError
from imatlas.neighbors import MEMORY, all_distances, as_tensor, k_nearest, nearest, nearest_index

COPY_QUANTILE = 0.001
"""The quantile of held-out-to-training distances below which a made image counts as a near copy."""

FEWEST_IN_CELL = 20
"""Images of each kind below which a cell tells nothing in the copying test; the paper's number for made images."""

CELL = 50
"""Held-out images that a cell of the copying test should hold on average; 50 cells at most, as in the paper."""


def frechet_distance(real: np.ndarray, made: np.ndarray) -> float:
    """The squared Fréchet distance of two Gaussians fitted to features (Dowson and Landau 1982; Heusel et al. 2017).

    |m_r - m_g|² + Tr(C_r + C_g - 2 (C_r C_g)^½), which depends on the features and on n: quote both.

    Parameters
    ----------
    real, made : arrays (n_real, n_features), (n_made, n_features)

    Raises
    ------
    InputError
        With fewer than two rows a feature on either side, where the covariance is mostly noise.
    """
    n_features = real.shape[1]
    fewest = min(len(real), len(made))
    if fewest < 2 * n_features:
        raise InputError(
            f"A Fréchet distance over {n_features} features needs at least {2 * n_features} images on each side. "
            f"Got {fewest}; use the kernel distance instead."
        )
    offset = real.mean(0, dtype=np.float64) - made.mean(0, dtype=np.float64)
    cov_real = np.atleast_2d(np.cov(real, rowvar=False, dtype=np.float64))
    cov_made = np.atleast_2d(np.cov(made, rowvar=False, dtype=np.float64))
    # Tr (C_r C_g)^½ through the symmetric C_r^½ C_g C_r^½, whose eigenvalues are real and not negative.
    values, vectors = linalg.eigh(cov_real)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(linalg.eigvalsh(root @ cov_made @ root), 0, None)).sum()
    return float(offset @ offset + np.trace(cov_real) + np.trace(cov_made) - 2 * cross)


def kernel_distance(real: np.ndarray, made: np.ndarray) -> float:
    """The unbiased squared maximum mean discrepancy with the cubic kernel of Bińkowski et al. 2018, times 1,000.

    k(x, y) = (x·y / n_features + 1)³ on features that are first centered and scaled to unit variance by the real set.
    It is 0 in expectation for two draws of one distribution, whatever n, so it suits small sets; it can come out
    slightly negative.

    Parameters
    ----------
    real, made : arrays (n_real, n_features), (n_made, n_features), at least 2 rows each
    """
    _check_pairs(real, made, 2, "A kernel distance")
    return _discrepancy(*_scaled(real, made))


def kernel_distance_spread(
    real: np.ndarray, made: np.ndarray, *, n_subsets: int = 50, size: int = 1000, random_state: int = 0
) -> tuple[float, float]:
    """The kernel distance over random subsets, as Bińkowski et al. 2018 report it: its mean and standard deviation.

    Parameters
    ----------
    real, made : arrays (n_real, n_features), (n_made, n_features), at least 4 rows each
    n_subsets, size : int
        How many subsets of how many images; of each side at most half of the images, so that subsets differ.
    random_state : int

    Returns
    -------
    mean, deviation : float
    """
    _check_pairs(real, made, 4, "The spread of a kernel distance")
    rng = np.random.default_rng(random_state)
    x, y = _scaled(real, made)
    values = [
        _discrepancy(*(a[rng.choice(len(a), min(size, len(a) // 2), replace=False)] for a in (x, y)))
        for _ in range(n_subsets)
    ]
    return float(np.mean(values)), float(np.std(values, ddof=1))


def precision_recall(real: np.ndarray, made: np.ndarray, *, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eq. 1 and 2).

    Precision is the share of made images that lie within the distance of some real image to its k-th real neighbor:
    how many look real. Recall is the same with the sides exchanged: how much of what is real can be made.

    Parameters
    ----------
    real, made : arrays (n_real, n_features), (n_made, n_features)
        Of equal length, since both numbers grow with that of the other side.
    k : int

    Returns
    -------
    precision, recall : float

    Raises
    ------
    InputError
        With k images or fewer on either side.
    """
    _check_pairs(real, made, k + 1, f"Precision and recall with k = {k}")
    x, y = _double(real), _double(made)
    precision = float((_covering(y, x, _radii(x, k)) > 0).double().mean())
    recall = float((_covering(x, y, _radii(y, k)) > 0).double().mean())
    return precision, recall


def density_coverage(real: np.ndarray, made: np.ndarray, *, k: int = 5) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020, eq. 3 and 4), which one odd image cannot spoil.

    Density is how many balls around real images, up to their k-th real neighbor, a made image lies in on average,
    over k: about 1 where both are of one distribution, more where made images crowd where real ones do. Coverage is the
    share of these balls with a made image inside; for two draws of one distribution and equal n it is
    1 - (n - 1) … (n - k) / ((2n - 1) … (2n - k)), nearly 1 - 2⁻ᵏ.

    Parameters
    ----------
    real, made : arrays (n_real, n_features), (n_made, n_features)
    k : int

    Returns
    -------
    density, coverage : float

    Raises
    ------
    InputError
        With k real images or fewer, or none that was made.
    """
    if len(real) <= k or not len(made):
        raise InputError(
            f"Density and coverage with k = {k} need at least {k + 1} real images and 1 that was made. "
            f"Got {len(real)} and {len(made)}; give more, or a smaller k."
        )
    x, y = _double(real), _double(made)
    radii = _radii(x, k)
    density = float(_covering(y, x, radii).sum()) / (k * len(y))
    coverage = float((nearest(x, y)[1].sqrt() <= radii).double().mean())
    return density, coverage


def copying_score(
    train: np.ndarray,
    held_out: np.ndarray,
    made: np.ndarray,
    *,
    n_cells: int | None = None,
    random_state: int = 0,
) -> float:
    """C_T, the test of data-copying (Meehan, Chaudhuri, Dasgupta 2020, section 3).

    Space is cut into cells by k-means on the training images. In each, the distances of made images to the nearest
    training image of the cell are compared with those of held-out images by the z-score of the Mann-Whitney test; C_T
    is the mean of these, weighted by the share of held-out images. Below -3, made images lie nearer to training images
    than unseen real ones do: they are copies. Above 3 they lie farther off: the generator has not learned all yet.

    Other than in the paper, a cell counts only with `FEWEST_IN_CELL` images on both sides, not of the made ones
    alone: the normal approximation needs both.

    Parameters
    ----------
    train, held_out, made : arrays (n, n_features)
        Held-out images are of the distribution of `train`, and were seen neither in learning nor in choosing.
    n_cells : int, optional
        By default one for every 50 held-out images, at most 50.
    random_state : int
        Of k-means.

    Raises
    ------
    InputError
        If no cell has enough images on both sides.
    """
    from sklearn.cluster import KMeans  # a second of import that other measures do not need

    if n_cells is None:
        n_cells = int(np.clip(len(held_out) // CELL, 1, 50))
    n_cells = min(n_cells, len(train))
    centers = KMeans(n_cells, n_init=1, random_state=random_state).fit(train.astype(np.float32)).cluster_centers_
    sides = [as_tensor(a) for a in (train, held_out, made)]
    cells = [nearest_index(a, as_tensor(centers)) for a in sides]
    scores, weights = [], []
    for cell in range(n_cells):
        known, unseen, new = (a[c == cell] for a, c in zip(sides, cells, strict=True))
        if len(known) and min(len(unseen), len(new)) >= FEWEST_IN_CELL:
            scores.append(_mann_whitney_z(nearest(new, known)[1].numpy(), nearest(unseen, known)[1].numpy()))
            weights.append(len(unseen))
    if not scores:
        raise InputError(
            f"The copying test needs a cell with {FEWEST_IN_CELL} held-out and {FEWEST_IN_CELL} made images. "
            f"Got {len(held_out)} and {len(made)} in {n_cells} cells; give more images or ask for fewer cells."
        )
    return float(np.average(scores, weights=weights))


def near_copy_share(
    made_to_train: np.ndarray, held_out_to_train: np.ndarray, *, quantile: float = COPY_QUANTILE
) -> float:
    """The share of made images that lie nearer to a training image than held-out images almost ever do.

    "Almost ever" is the given quantile of the held-out images' own distances to training, so a generator that draws
    from the same distribution scores about what `near_copy_chance` says, and one that copies scores near 1.

    Parameters
    ----------
    made_to_train, held_out_to_train : arrays (n_made,), (n_held_out,)
        Distance of each image to its nearest training image.
    """
    return float(np.mean(made_to_train < np.quantile(held_out_to_train, quantile)))


def near_copy_chance(n_held_out: int, n_made: int, *, quantile: float = COPY_QUANTILE) -> tuple[float, float]:
    """The near-copy share that a perfect generator is expected to score, and its standard deviation.

    The threshold is an order statistic of the held-out distances: of n of them, the r-th smallest has a share of
    r / (n + 1) below it on average, by the beta distribution. With few held-out images that is more than `quantile`:
    of 10, even the smallest has a share of 1/11 below it.

    Returns
    -------
    expected, deviation : float
    """
    rank = 1 + quantile * (n_held_out - 1)
    expected = rank / (n_held_out + 1)
    of_threshold = expected * (1 - expected) / (n_held_out + 2)
    return expected, float(np.sqrt(of_threshold + expected * (1 - expected) / n_made))


def _check_pairs(real: np.ndarray, made: np.ndarray, fewest: int, what: str) -> None:
    if min(len(real), len(made)) < fewest:
        raise InputError(
            f"{what} needs at least {fewest} images on each side. Got {len(real)} and {len(made)}; give more."
        )


def _scaled(real: np.ndarray, made: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sides centered and scaled to unit variance by the real one, as float64."""
    center, scale = real.mean(0), real.std() + 1e-12
    return (real - center).astype(np.float64) / scale, (made - center).astype(np.float64) / scale


def _discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    within = sum((_kernel_sum(a, a) - _kernel_diagonal(a)) / (len(a) * (len(a) - 1)) for a in (x, y))
    return 1000.0 * (within - 2.0 * _kernel_sum(x, y) / (len(x) * len(y)))


def _kernel_sum(a: np.ndarray, b: np.ndarray) -> float:
    """The sum of the cubic kernel over all pairs, some rows of `a` at a time."""
    rows = max(1, MEMORY // (8 * len(b)))
    parts = (a[start : start + rows] @ b.T / a.shape[1] + 1.0 for start in range(0, len(a), rows))
    return float(sum((part * part * part).sum() for part in parts))


def _kernel_diagonal(a: np.ndarray) -> float:
    return float((((a * a).sum(1) / a.shape[1] + 1.0) ** 3).sum())


def _double(features: np.ndarray) -> torch.Tensor:
    """Features as float64: whether a point lies in a ball is decided by distances from expanded squares."""
    return torch.from_numpy(np.ascontiguousarray(features, dtype=np.float64))


def _radii(points: torch.Tensor, k: int) -> torch.Tensor:
    """The distance (n,) of each point to its k-th nearest other one."""
    return k_nearest(points, points, k, exclude_self=torch.arange(len(points)))[1][:, -1].sqrt()


def _covering(points: torch.Tensor, centers: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
    """For each point (n,) the number of balls around `centers`, of `radii`, that it lies in."""
    rows = max(1, MEMORY // (8 * len(centers)))
    parts = [all_distances(points[at : at + rows], centers) <= radii for at in range(0, len(points), rows)]
    return torch.cat([part.sum(1) for part in parts])


def _mann_whitney_z(made: np.ndarray, real: np.ndarray) -> float:
    """The z-score of the Mann-Whitney statistic: negative where `made` (m,) tends to be smaller than `real` (n,)."""
    m, n = len(made), len(real)
    both = np.concatenate([made, real])
    ranks = stats.rankdata(both)  # equal values share their mean rank
    u = ranks[:m].sum() - m * (m + 1) / 2
    _, tied = np.unique(both, return_counts=True)
    size = m + n
    variance = m * n / 12 * (size + 1 - (tied.astype(np.float64) ** 3 - tied).sum() / (size * (size - 1)))
    return float((u - m * n / 2) / np.sqrt(variance)) if variance > 0 else 0.0
