"""Probabilities of integers whose distribution is predicted as a mixture of logistic ones.

They follow from integers in a table, by sums and products of integers, so they are the same on every machine.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from imatlas.models.parts.exact_exp import LN2, exp

LEAST_LOG_SCALE, MOST_LOG_SCALE = -4.5, 6.0
AN_OCTAVE, N_FRACTIONS = 6, 8
"""Scales for each doubling, and places of a mean between two integers."""
WEIGHT_BITS, A_DOUBLING = 10, 8
"""Digits of the weights of components, and steps of their logarithm for each doubling."""
CUMULATIVE_BITS = 20
"""Digits of the tables: so many that sums of weighted ones fit in 32 bits."""
REACH = 10.0
"""Scales on each side of a mean that are listed one by one."""
WIDTHS = (8, 16, 32, 64, 128, 256, 512)
"""Numbers of integers that are listed one by one."""
AT_ONCE = 2**20
"""Probabilities that are computed together."""
LEAST_PROBABILITY = 2**17
"""The least is one part in this."""


class Window(NamedTuple):
    """Some of the integers that are to be coded, for each of which as many possible values are listed.

    Attributes
    ----------
    rows : array (n,)
        Which of the integers.
    start : array (n,)
        The first value that is listed for each.
    width : int
        Number of values that are listed.
    probabilities : array (n, 2 + width)
        Of what is smaller, of each value that is listed, and of what is larger.
    """

    rows: np.ndarray
    start: np.ndarray
    width: int
    probabilities: np.ndarray


def windows(prediction: np.ndarray) -> Iterator[Window]:
    """The probabilities of integers (n,) by predictions (3 * components, n): means, and binary logarithms of scales and
    of weights."""
    means, log_scales, log_weights = np.split(prediction, 3)
    logs = np.floor((log_weights - log_weights.max(0)) * A_DOUBLING + 0.5).astype(np.int64)
    weights = _powers()[np.maximum(logs, 1 - len(_powers()))]
    clipped = np.clip(log_scales, LEAST_LOG_SCALE, MOST_LOG_SCALE) - LEAST_LOG_SCALE
    scales = np.floor(clipped * AN_OCTAVE + 0.5).astype(np.int64)
    reach = np.where(weights > 0, REACH * _scales()[scales], 0)
    low, high = ((np.where(weights > 0, means, side * np.inf) - side * reach) for side in (1, -1))
    low, high = low.min(0), high.max(0)
    sizes = np.searchsorted(WIDTHS[:-1], high - low + 1)
    middle = np.floor((low + high) / 2 + 0.5).astype(np.int64)
    eighths = np.floor(means * N_FRACTIONS + 0.5).astype(np.int64)
    for number, width in enumerate(WIDTHS):
        found = np.flatnonzero(sizes == number)
        for first in range(0, len(found), max(1, AT_ONCE // width)):
            rows = found[first : first + max(1, AT_ONCE // width)]
            start = middle[rows] - width // 2
            shares = _shares(start, width, eighths[:, rows], scales[:, rows], weights[:, rows])
            yield Window(rows, start, width, shares)


def _shares(start: np.ndarray, width: int, eighths: np.ndarray, scales: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Relative probabilities (n, 2 + width)."""
    table, reach = _cumulative(), _cumulative().shape[1] // 2
    edges = np.arange(width + 1, dtype=np.int32) * N_FRACTIONS - N_FRACTIONS // 2
    below = np.zeros((len(start), width + 1), np.uint32)
    for mean, scale, weight in zip(eighths, scales, weights, strict=True):
        place = (start * N_FRACTIONS - mean).clip(-(2**30), 2**30).astype(np.int32)[:, None] + edges
        np.clip(place, -reach, reach, out=place)
        place += (scale * table.shape[1] + reach).astype(np.int32)[:, None]
        part = table.ravel().take(place)
        part *= weight.astype(np.uint32)[:, None]
        below += part
    total = (weights.sum(0) << CUMULATIVE_BITS).astype(np.uint32)[:, None]
    shares = np.diff(below, prepend=np.uint32(0), append=total, axis=1)
    return (shares + total // np.uint32(LEAST_PROBABILITY)).astype(np.float32)


@functools.cache
def _powers() -> np.ndarray:
    """2 to the power of 0, and of each step down, at index minus the step; in integers, the last of which is 0."""
    steps = np.arange((WEIGHT_BITS + 2) * A_DOUBLING + 1)
    whole = np.floor(exp(-steps * LN2 / A_DOUBLING) * 2**WEIGHT_BITS + 0.5).astype(np.int64)
    return np.concatenate([whole[:1], whole[:0:-1]])  # index -1 is one step down


@functools.cache
def _scales() -> np.ndarray:
    n = round((MOST_LOG_SCALE - LEAST_LOG_SCALE) * AN_OCTAVE) + 1
    return exp((np.arange(n) / AN_OCTAVE + LEAST_LOG_SCALE) * LN2)


@functools.cache
def _cumulative() -> np.ndarray:
    """Logistic distributions of all scales at multiples of 1 / `N_FRACTIONS`, 0 in the middle; as integers."""
    places = np.arange(-WIDTHS[-1] * N_FRACTIONS, WIDTHS[-1] * N_FRACTIONS + 1) / N_FRACTIONS
    x = np.clip(places / _scales()[:, None], -40, 40)
    return np.floor(2**CUMULATIVE_BITS / (1 + exp(-x)) + 0.5).astype(np.uint32)
