"""The least novelty at which a generator's new images are no copies of its training images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from imatlas.metrics.generation import copying_score_if_enough, near_copy_chance, near_copy_share
from imatlas.neighbors import as_tensor, nearest

MOST_COPIES, LEAST_C_T = 1.5, -1.0
"""Near copies relative to those of a perfect generator, and C_T, that are accepted."""


def lowest_novelty(
    sample: Callable[[float], np.ndarray],
    known: np.ndarray,
    held_out: np.ndarray,
    *,
    candidates: Sequence[float],
    seconds: float | None,
    random_state: int,
) -> tuple[list[dict[str, float]], float]:
    """Measurements at the candidates tried, and the lowest accepted one; the highest if none is.

    Parameters
    ----------
    sample : callable
        A novelty to features (n, n_features) of new images.
    known, held_out : arrays (n, n_features)
        Features of training images, and of images that no new image is composed of.
    candidates : sequence of float
        Ascending; searched by bisection.
    seconds : float, optional
        No further candidate is tried after this time.
    random_state : int
    """
    began, tried = time.perf_counter(), []
    to_known = nearest(as_tensor(held_out), as_tensor(known))[1].numpy()
    low, high = 0, len(candidates) - 1
    while low < high:
        middle = (low + high) // 2
        new = sample(candidates[middle])
        chance = near_copy_chance(len(held_out), len(new))[0]
        share = near_copy_share(nearest(as_tensor(new), as_tensor(known))[1].numpy(), to_known)
        found = {"novelty": float(candidates[middle]), "near_copies": share, "near_copies_by_chance": chance}
        c_t = copying_score_if_enough(known, held_out, new, random_state=random_state)
        if c_t is not None:
            found["c_t"] = c_t
        tried.append(found)
        if share <= MOST_COPIES * chance and (c_t is None or c_t >= LEAST_C_T):
            high = middle
        else:
            low = middle + 1
        if seconds is not None and time.perf_counter() - began > seconds:
            break
    return tried, float(candidates[high])
