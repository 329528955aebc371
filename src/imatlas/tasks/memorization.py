"""Audit of a generator for memorization: are its new images copies of training images?"""

from __future__ import annotations

import numpy as np

from imatlas.metrics.generation import copying_score_if_enough, near_copy_chance, near_copy_share
from imatlas.neighbors import as_tensor, nearest

MEMORIZED = -3.0
"""C_T below which a generator memorizes; above minus this, its images lie off the data."""

SPARE_COPIES = 0.005
"""Share of near copies that is tolerated beyond the expected one."""


def memorization(known: np.ndarray, unseen: np.ndarray, new: np.ndarray, random_state: int) -> dict[str, float]:
    """C_T where there are enough images, and the share of near copies with the share expected by chance.

    Parameters
    ----------
    known, unseen, new : ndarray (n, n_features)
        Features of training images, of held-out images and of new ones.
    random_state : int

    Returns
    -------
    dict
        `c_t` (see `imatlas.metrics.generation.copying_score`), `near_copies`, `near_copies_by_chance` and
        `near_copies_deviation`.
    """
    found: dict[str, float] = {}
    c_t = copying_score_if_enough(known, unseen, new, random_state=random_state)
    if c_t is not None:
        found["c_t"] = c_t
    to_train = [nearest(as_tensor(a), as_tensor(known))[1].numpy() for a in (new, unseen)]
    found["near_copies"] = near_copy_share(*to_train)
    found["near_copies_by_chance"], found["near_copies_deviation"] = near_copy_chance(len(unseen), len(new))
    return found


def most_copies(metrics: dict[str, float]) -> float:
    """The share of near copies up to which a generator is not said to memorize."""
    return metrics["near_copies_by_chance"] + max(SPARE_COPIES, 3 * metrics["near_copies_deviation"])


def memorizes(metrics: dict[str, float]) -> bool:
    """The verdict on the metrics of `memorization`."""
    return metrics["near_copies"] > most_copies(metrics) or metrics.get("c_t", 0.0) < MEMORIZED


def memorization_in_words(metrics: dict[str, float]) -> list[str]:
    """The verdict on the metrics of `memorization`, in sentences."""
    c_t, copies = metrics.get("c_t"), metrics["near_copies"]
    chance = metrics["near_copies_by_chance"]
    most = most_copies(metrics)
    if most >= 1:
        return ["There are too few held-out images to tell whether it memorizes."]
    memorized = metrics.get("near_copies_codes", 0.0)
    if memorized > most:
        return [
            f"Memorization: {memorized:.1%} of the new images have nearly the same code as a training image "
            f"({chance:.1%} expected by chance); they are blurred copies. More images or less training would help."
        ]
    share = f"{copies:.1%} of the new images are near copies of training images ({chance:.1%} expected by chance)"
    if memorizes(metrics):
        why = ""
        if c_t is not None and c_t < MEMORIZED:
            why = f"; new images lie nearer to training images than held-out ones do (C_T = {c_t:.1f})"
        return [f"Memorization: {share}{why}. More images or less training would help."]
    if c_t is None:
        return [f"No sign of memorization: {share}; the held-out images are too few to be sure."]
    words = [f"No sign of memorization: C_T = {c_t:.1f} (memorization: below {MEMORIZED:.0f}); {share}."]
    if c_t > -MEMORIZED:
        words.append("New images lie farther from training images than held-out ones do; more training would help.")
    return words
