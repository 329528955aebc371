"""The exponential function, the same on every machine."""

from __future__ import annotations

import numpy as np

LN2 = 0.6931471805599453


def exp(x: np.ndarray) -> np.ndarray:
    """The exponential function by sums and products only, which IEEE 754 defines to the last bit, unlike
    `numpy.exp`."""
    n = np.floor(x / LN2 + 0.5)
    r = x - n * LN2
    total = np.ones_like(x)
    for k in range(16, 0, -1):
        total = 1 + total * r / k
    return np.ldexp(total, n.astype(np.int64))
