"""Integers that are predicted by mixed distributions: they come back, and take the bits that they should."""

from __future__ import annotations

import contextlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from imatlas.errors import InputError
from imatlas.models.parts.mixtures import windows
from imatlas.models.parts.symbol_coder import SymbolDecoder, SymbolEncoder

component = st.tuples(
    st.integers(-2047, 2047).map(lambda k: k / 64),
    st.integers(-2047, 2047).map(lambda k: k / 64),
    st.integers(-2047, 2047).map(lambda k: k / 64),
)
rows = st.tuples(st.one_of(st.integers(-300, 300), st.integers(-(2**24), 2**24)), component, component, component)


def prediction_of(parts: list[tuple[float, float, float]]) -> np.ndarray:
    return np.array(parts).T.ravel()


@settings(deadline=None, max_examples=100)
@given(st.lists(rows, min_size=1, max_size=30), st.integers(0, 2**30), st.booleans())
def test_what_was_written_is_read(
    listed: list[tuple[int, tuple[float, ...], tuple[float, ...], tuple[float, ...]]], low: int, flag: bool
) -> None:
    q = np.array([row[0] for row in listed])
    prediction = np.stack([prediction_of(list(row[1:])) for row in listed], 1)  # type: ignore[arg-type]
    encoder = SymbolEncoder()
    encoder.mixed(q, prediction)
    encoder.bits(np.array([low]), 31)
    encoder.flag(flag)
    decoder = SymbolDecoder(encoder.finish())
    assert decoder.mixed(prediction).tolist() == q.tolist()
    assert decoder.bits(1, 31).tolist() == [low]
    assert decoder.flag() == flag


def mixtures(n: int, rng: np.random.Generator) -> np.ndarray:
    parts = [rng.normal(0, 8, (3, n)), rng.uniform(-4, 5, (3, n)), rng.normal(0, 2, (3, n))]
    return np.round(np.concatenate(parts) * 64) / 64


def test_it_takes_the_bits_of_the_distribution(rng: np.random.Generator) -> None:
    n = 40_000
    prediction = mixtures(n, rng)
    means, scales, weights = prediction[:3], np.exp2(prediction[3:6]), np.exp2(prediction[6:])
    weights /= weights.sum(0)
    chosen = (rng.random(n) > np.cumsum(weights, 0)[:2]).sum(0), np.arange(n)
    q = np.round(means[chosen] + rng.logistic(size=n) * scales[chosen]).astype(np.int64)
    encoder = SymbolEncoder()
    encoder.mixed(q, prediction)
    x = -np.abs(q - means)
    p = (weights * (expit((x + 0.5) / scales) - expit((x - 0.5) / scales))).sum(0)
    ideal = -np.log2(np.maximum(p, 1e-9)).sum() / 8
    assert ideal < len(encoder.finish()) * 1.001 < ideal * 1.006


def test_probabilities_are_of_each_value_once(rng: np.random.Generator) -> None:
    prediction = mixtures(300, rng)
    found = list(windows(prediction))
    assert np.array_equal(np.sort(np.concatenate([window.rows for window in found])), np.arange(300))
    for window in found:
        assert window.probabilities.shape == (len(window.rows), 2 + window.width)
        assert (window.probabilities > 0).all()
        shares = window.probabilities / window.probabilities.sum(1, keepdims=True)
        assert shares[:, [0, -1]].max() < 0.01  # hardly anything is beyond what is listed


def test_random_bytes_are_read_or_refused(rng: np.random.Generator) -> None:
    prediction = mixtures(300, rng)
    for length in (0, 4, 40, 400):
        for _ in range(20):
            with contextlib.suppress(InputError):
                assert len(SymbolDecoder(rng.bytes(length)).mixed(prediction)) == 300
