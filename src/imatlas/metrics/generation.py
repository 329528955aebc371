"""How near a set of made images is to a set of real ones, in the space of some features. Pure functions on arrays."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from imatlas.errors import InputError


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

    k(x, y) = (x·y / n_features + 1)³ on features that are first centred and scaled to unit variance by the real set.
    It is 0 in expectation for two draws of one distribution, whatever n, so it suits small sets; it can come out
    slightly negative.

    Parameters
    ----------
    real, made : arrays (n_real, n_features), (n_made, n_features), at least 2 rows each
    """
    if min(len(real), len(made)) < 2:
        raise InputError("A kernel distance needs at least 2 images on each side.")
    center, scale = real.mean(0), real.std() + 1e-12
    x, y = ((a - center).astype(np.float64) / scale for a in (real, made))
    n_features = x.shape[1]

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / n_features + 1.0) ** 3

    def within(a: np.ndarray) -> float:
        k = kernel(a, a)
        return float((k.sum() - np.trace(k)) / (len(a) * (len(a) - 1)))

    return 1000.0 * (within(x) + within(y) - 2.0 * float(kernel(x, y).mean()))


def near_copy_share(made_to_train: np.ndarray, held_out_to_train: np.ndarray, *, quantile: float = 0.01) -> float:
    """The share of made images that lie nearer to a training image than held-out images almost ever do.

    "Almost ever" is the given quantile of the held-out images' own distances to training, so a generator that draws
    from the same distribution scores about `quantile`, and one that copies scores near 1.

    Parameters
    ----------
    made_to_train, held_out_to_train : arrays (n_made,), (n_held_out,)
        Distance of each image to its nearest training image.
    """
    return float(np.mean(made_to_train < np.quantile(held_out_to_train, quantile)))
