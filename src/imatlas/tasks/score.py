"""How good a generator is, measured on images that it never learnt from, beside the simple alternative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from imatlas.images.spec import ImageSpec
from imatlas.metrics.generation import kernel_distance, near_copy_share
from imatlas.metrics.restoration import mean_squared_error
from imatlas.nearest import as_tensor, k_nearest
from imatlas.result import Result

MOST_TRAIN = 20_000
"""Training images that PCA and the copy audit look at: bounds time and memory."""

N_MADE = 500
"""New images that are judged."""

NEAR, FAR = 50.0, 1000.0
"""Kernel distances, beyond that of real images, below and above which words are used."""


def score(
    generator: Any,
    train: np.ndarray,
    held_out: np.ndarray,
    *,
    spec: ImageSpec,
    embed: Callable[[np.ndarray], np.ndarray],
    eyes: str,
    random_state: int = 0,
) -> Result:
    """Measure reconstruction and new images against images held out from learning.

    Parameters
    ----------
    generator : model with `transform`, `inverse_transform` and `sample`
    train, held_out : arrays (n, H, W, C)
        Pixels in the depth of `spec`. Of `train`, at most 20,000 rows drawn by the seed are used.
    spec : ImageSpec
    embed : callable
        Pixels (n, H, W, C) to features (n, n_features): the space in which new images are compared with real ones.
    eyes : str
        What `embed` is, for the protocol.
    random_state : int

    Returns
    -------
    Result
        `heldout_mse` and `pca_mse` (as many dimensions) over pixels from 0 to 1 and their ratio; `kernel_distance` of
        new images to held-out ones, and `kernel_floor`, the same for real training images; `near_copies`, the share
        of new images nearer to a training image than 99 % of held-out images are.
    """
    rng = np.random.default_rng(random_state)
    if len(train) > MOST_TRAIN:
        train = train[np.sort(rng.choice(len(train), MOST_TRAIN, replace=False))]
    rebuilt = generator.inverse_transform(generator.transform(held_out))
    span = spec.high - spec.low
    error = mean_squared_error(held_out, rebuilt, span=span)
    n_dims = int(generator.latent_dim)
    baseline = _pca_error(train, held_out, n_dims, span, random_state)
    made = generator.sample(min(N_MADE, max(len(held_out), 50)), random_state=random_state)

    features = {"held": embed(held_out), "made": embed(made)}
    real = train[np.sort(rng.choice(len(train), min(len(train), len(made)), replace=False))]
    distance = kernel_distance(features["held"], features["made"])
    floor = kernel_distance(features["held"], embed(real))
    copies = near_copy_share(_to_nearest(made, train), _to_nearest(held_out, train))

    metrics = {
        "heldout_mse": error,
        "pca_mse": baseline,
        "mse_ratio_to_pca": error / baseline if baseline else float("nan"),
        "kernel_distance": distance,
        "kernel_floor": floor,
        "near_copies": copies,
    }
    return Result(
        name="quality",
        title="How good it is",
        sentences=_in_words(metrics, n_dims),
        metrics=metrics,
        protocol=(
            f"{len(held_out):,} held-out images against {len(train):,} training images at "
            f"{spec.width} x {spec.height}; {len(made)} new images; PCA with {n_dims} dimensions fitted to the same "
            f"training images; kernel distance x 1,000 on features of {eyes}; near copies by pixel distance, "
            f"1 % expected by chance; seed {random_state}"
        ),
    )


def _pca_error(train: np.ndarray, held_out: np.ndarray, n_dims: int, span: float, random_state: int) -> float:
    """Mean squared error of the held-out images through a PCA of as many dimensions, at unit span."""
    rows = np.nan_to_num(train.reshape(len(train), -1).astype(np.float32))
    n_dims = min(n_dims, *rows.shape)
    pca = PCA(n_dims, svd_solver="randomized", random_state=random_state).fit(rows)
    flat = np.nan_to_num(held_out.reshape(len(held_out), -1).astype(np.float32))
    rebuilt = pca.inverse_transform(pca.transform(flat)).reshape(held_out.shape)
    return mean_squared_error(held_out, rebuilt, span=span)


def _to_nearest(images: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Distance of each image to its nearest training image, over pixels reduced to at most 16 x 16."""
    few, many = (small_pixels(a) for a in (images, train))
    return k_nearest(as_tensor(many), as_tensor(few), 1)[1].numpy()[:, 0]


def small_pixels(images: np.ndarray) -> np.ndarray:
    """Pixels averaged over blocks to at most 16 x 16, one row an image: what the eye would call the same picture."""
    tensor = torch.from_numpy(np.nan_to_num(images.astype(np.float32))).permute(0, 3, 1, 2)
    size = (min(16, tensor.shape[2]), min(16, tensor.shape[3]))
    return torch.nn.functional.adaptive_avg_pool2d(tensor, size).flatten(1).numpy()


def _in_words(metrics: dict[str, float], n_dims: int) -> list[str]:
    ratio, copies = metrics["mse_ratio_to_pca"], metrics["near_copies"]
    words = []
    if ratio < 0.95:
        words.append(f"Rebuilding unseen images, it makes {1 - ratio:.0%} less error than PCA with {n_dims} numbers.")
    else:
        words.append(
            f"Rebuilding unseen images, it makes {ratio:.2f} times the error of PCA with {n_dims} numbers: "
            "the simple baseline is as good, and more time to learn (--budget) or more images would help."
        )
    gap = metrics["kernel_distance"] - max(metrics["kernel_floor"], 0.0)
    words.append(
        f"New images lie at kernel distance {metrics['kernel_distance']:.3g} from unseen real ones; "
        f"real training images lie at {metrics['kernel_floor']:.3g}"
        + (": near." if gap < NEAR else ": told apart at a glance, blurred or too much alike." if gap > FAR else ".")
    )
    if copies > 0.05:
        words.append(f"{copies:.0%} of the new images are suspiciously near to a training image: it copies.")
    else:
        words.append(f"{copies:.1%} of the new images are near copies of training images (1 % would be chance).")
    return words
