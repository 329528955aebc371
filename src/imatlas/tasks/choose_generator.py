"""Choice of the generator of an atlas: the one whose new images are nearest to held-out ones and are no copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from imatlas.metrics.generation import kernel_distance
from imatlas.tasks.memorization import memorization, memorizes

MAX_COMPOSED = 5_000
"""Most training images of a set for which composing new images is considered."""

FEW_TO_TRAIN = 2_000
"""Training images below which no network is trained just to generate: it would not come near within minutes."""

MIN_COMPARED, MAX_COMPARED = 40, 200
"""New images of each generator that are compared."""

MIN_HELD_OUT = 8
"""Held-out images below which nothing can be compared."""


@dataclass(frozen=True)
class Compared:
    """What was measured of one generator."""

    model: Any
    distance: float
    copies: bool


def choose_generator(
    generators: dict[str, tuple[Any, Callable[[int], np.ndarray]]],
    known: np.ndarray,
    held_out: np.ndarray,
    embed: Callable[[np.ndarray], np.ndarray],
    *,
    n_samples: int,
    random_state: int = 0,
) -> tuple[Any, str]:
    """The generator with the smallest kernel distance to held-out images among those that do not copy, and why.

    Parameters
    ----------
    generators : dict
        Name -> (model, function of n that returns n new images).
    known, held_out : arrays (n, n_features)
        Features of training images and of held-out ones.
    embed : callable
        Images to features.
    n_samples : int
        New images of each.
    random_state : int

    Returns
    -------
    model
    why : str
        The distances, in words; empty if there was nothing to compare.
    """
    if len(generators) == 1 or len(held_out) < MIN_HELD_OUT:
        return next(iter(generators.values()))[0], ""
    n = int(np.clip(n_samples, MIN_COMPARED, MAX_COMPARED))
    found = {}
    for name, (model, sample) in generators.items():
        new = embed(sample(n))
        copies = memorizes(memorization(known, held_out, new, random_state))
        found[name] = Compared(model, kernel_distance(held_out, new), copies)
    honest = {name: one for name, one in found.items() if not one.copies} or found
    best = min(honest, key=lambda name: honest[name].distance)
    words = [f"{name} {one.distance:.0f}{' but copies' if one.copies else ''}" for name, one in found.items()]
    return found[best].model, f"kernel distance to held-out images: {', '.join(words)}"
