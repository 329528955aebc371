"""Entropy coding of integers whose mean and scale are predicted, by a range coder (`constriction`).

An integer is coded with one of a few hundred tables of a rounded logistic distribution: by its scale, in sixths of
an octave, and by the place of its mean between two integers, in eighths. Where the scale is large, the last bits are
nearly uniform and written as they are. What is far from the mean is written in Elias's gamma code. Tables are computed
by sums, products and quotients only, which IEEE 754 defines to the last bit, so they are the same on every machine.
`imatlas.models.parts.mixtures` has those of mixed distributions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import constriction
import numpy as np

from imatlas.errors import InputError
from imatlas.models.parts.exact_exp import LN2, exp
from imatlas.models.parts.mixtures import windows

LEAST_LOG_SCALE, MOST_LOG_SCALE = -4.5, 12.0
AN_OCTAVE, N_FRACTIONS = 6, 8
"""Tables for each doubling of the scale, and for means between two integers."""
LARGEST = 45
"""The table, among those of increasing scale, from which on last bits are written as they are: scale 8."""
REACH = 12.0
"""Integers of a table on each side of the mean, in scales."""
LEAST_PROBABILITY = 2.0**-18
MOST_BITS = 30
"""Of an integer beyond a table."""
AT_ONCE = 16
"""Bits that are written together as they are."""

_model = constriction.stream.model
_queue = constriction.stream.queue


class SymbolEncoder:
    """Writes integers; `finish` gives the bytes."""

    def __init__(self) -> None:
        self._coder = _queue.RangeEncoder()

    def flag(self, value: bool) -> None:
        """Write one bit."""
        self._coder.encode(np.array([value], np.int32), _uniform(1))

    def plain(self, values: np.ndarray) -> None:
        """Write integers (n,) of any size, small ones in few bits."""
        self._gamma(np.where(values < 0, -2 * values - 1, 2 * values))

    def integers(self, q: np.ndarray, mean: np.ndarray, log_scale: np.ndarray) -> None:
        """Write integers (n,) with predicted means and binary logarithms of scales."""
        table, shift, center = _tables_for(mean, log_scale)
        high = (q >> shift) - center
        most = _reaches()[table] + 1
        order = np.argsort(table, kind="stable")
        shown = (high.clip(-most, most) + most).astype(np.int32)[order]
        for number, start, end in _runs(table[order]):
            self._coder.encode(shown[start:end], _table(number))
        beyond = np.abs(high) - most
        self._gamma(beyond[beyond >= 0])
        for bits in range(1, int(shift.max(initial=0)) + 1):
            self.bits(q[shift == bits] & ((1 << bits) - 1), bits)

    def mixed(self, q: np.ndarray, prediction: np.ndarray) -> None:
        """Write integers (n,) that are predicted by mixed distributions (3 * components, n)."""
        for window in windows(prediction):
            values = q[window.rows] - window.start
            shown = values.clip(-1, window.width) + 1
            self._coder.encode(shown.astype(np.int32), _model.Categorical(perfect=False), window.probabilities)
            beyond = np.maximum(-1 - values, values - window.width)
            self._gamma(beyond[beyond >= 0])

    def bits(self, values: np.ndarray, n: int) -> None:
        """Write integers of n bits as they are."""
        for low in range(0, n, AT_ONCE):
            width = min(AT_ONCE, n - low)
            self._coder.encode((values >> low & ((1 << width) - 1)).astype(np.int32), _uniform(width))

    def _gamma(self, values: np.ndarray) -> None:
        for value in (values + 1).tolist():
            n = value.bit_length() - 1
            self._coder.encode(np.array([n], np.int32), _lengths())
            self.bits(np.array([value - (1 << n)]), n)

    def finish(self) -> bytes:
        """All that was written."""
        return np.asarray(self._coder.get_compressed()).astype("<u4").tobytes()


class SymbolDecoder:
    """Reads what a `SymbolEncoder` wrote; of other bytes, it reads any integers."""

    def __init__(self, data: bytes) -> None:
        self._coder = _queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))

    def flag(self) -> bool:
        """Read one bit."""
        return bool(self._read(_uniform(1), 1)[0])

    def plain(self, n: int) -> np.ndarray:
        """Read integers (n,) of any size."""
        values = self._gamma(n)
        return np.where(values & 1, -(values + 1) // 2, values // 2)

    def integers(self, mean: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        """Read integers (n,) with the predictions that they were written with."""
        table, shift, center = _tables_for(mean, log_scale)
        most = _reaches()[table] + 1
        order = np.argsort(table, kind="stable")
        shown = [self._read(_table(number), end - start) for number, start, end in _runs(table[order])]
        high = np.empty(len(mean), np.int64)
        high[order] = np.concatenate(shown) if shown else 0
        high -= most
        beyond = np.flatnonzero(np.abs(high) == most)
        high[beyond] += np.sign(high[beyond]) * self._gamma(len(beyond))
        q = (high + center) << shift
        for bits in range(1, int(shift.max(initial=0)) + 1):
            q[shift == bits] |= self.bits(int((shift == bits).sum()), bits)
        return q

    def mixed(self, prediction: np.ndarray) -> np.ndarray:
        """Read integers (n,) that are predicted by mixed distributions (3 * components, n)."""
        q = np.empty(prediction.shape[1], np.int64)
        for window in windows(prediction):
            values = self._read(_model.Categorical(perfect=False), window.probabilities) - 1
            beyond = np.flatnonzero((values < 0) | (values == window.width))
            values[beyond] += np.where(values[beyond] < 0, -1, 1) * self._gamma(len(beyond))
            q[window.rows] = values + window.start
        return q

    def bits(self, count: int, n: int) -> np.ndarray:
        """Read integers of n bits."""
        values = np.zeros(count, np.int64)
        for low in range(0, n, AT_ONCE):
            values |= self._read(_uniform(min(AT_ONCE, n - low)), count) << low
        return values

    def _gamma(self, n: int) -> np.ndarray:
        values = np.empty(n, np.int64)
        for i in range(n):
            bits = int(self._read(_lengths(), 1)[0])
            values[i] = (1 << bits) + int(self.bits(1, bits)[0]) - 1
        return values

    def _read(self, model: Any, n: int | np.ndarray) -> np.ndarray:
        """A number of integers, or one for each row of probabilities."""
        try:
            return np.asarray(self._coder.decode(model, n)).astype(np.int64)
        except (AssertionError, ValueError, OverflowError) as error:  # what constriction raises of impossible data
            raise InputError("The compressed data is damaged: it holds what no encoder writes.") from error


def _runs(numbers: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Each number of a sorted array, and where it begins and ends."""
    edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    for start, end in pairwise(edges):
        if end > start:
            yield int(numbers[start]), start, end


def _tables_for(mean: np.ndarray, log_scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The table (n,) of each integer, how many of its last bits are written as they are, and the integer, without
    those, that is in the middle of the table."""
    clipped = np.clip(log_scale, LEAST_LOG_SCALE, MOST_LOG_SCALE) - LEAST_LOG_SCALE
    size = np.floor(clipped * AN_OCTAVE + 0.5).astype(np.int64)
    shift = np.maximum(0, -((LARGEST - size) // AN_OCTAVE))
    unit = np.ldexp(1.0, shift)
    place = (mean - (unit - 1) / 2) / unit
    center = np.floor(place + 0.5)
    fraction = np.floor((place - center + 0.5) * N_FRACTIONS).astype(np.int64)
    return (size - AN_OCTAVE * shift) * N_FRACTIONS + fraction, shift, center.astype(np.int64)


@functools.cache
def _scale(number: int) -> float:
    """The scale of a table: a power of two times one of the six values of an octave."""
    octave, part = divmod(number // N_FRACTIONS + int(LEAST_LOG_SCALE * AN_OCTAVE), AN_OCTAVE)
    return math.ldexp(float(exp(np.array([part * LN2 / AN_OCTAVE]))[0]), octave)


@functools.cache
def _reaches() -> np.ndarray:
    """How many integers each table has on each side."""
    return np.array([math.ceil(REACH * _scale(number)) + 1 for number in range((LARGEST + 1) * N_FRACTIONS)])


@functools.cache
def _table(number: int) -> Any:
    """The model of a table: integers from -reach - 1 to reach + 1, of which the outermost stand for all beyond."""
    scale, reach = _scale(number), int(_reaches()[number])
    mean = (number % N_FRACTIONS + 0.5) / N_FRACTIONS - 0.5
    edges = (np.arange(-reach, reach + 2) - 0.5 - mean) / scale
    below = 1 / (1 + exp(np.clip(-edges, -700, 700)))
    above = 1 / (1 + exp(np.clip(edges, -700, 700)))
    inner = np.where(edges[:-1] > 0, above[:-1] - above[1:], below[1:] - below[:-1])
    p = np.concatenate([below[:1], inner, above[-1:]]) + LEAST_PROBABILITY
    return _model.Categorical(p / math.fsum(p.tolist()), perfect=False)


@functools.cache
def _uniform(bits: int) -> Any:
    return _model.Uniform(1 << bits)


@functools.cache
def _lengths() -> Any:
    """Model of the number of bits of an integer beyond a table."""
    p = 0.5 ** np.arange(1, MOST_BITS + 1)
    return _model.Categorical((p + 2.0**-20) / (p + 2.0**-20).sum(), perfect=False)
