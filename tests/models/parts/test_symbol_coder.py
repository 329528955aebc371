"""The symbol coder: integers come back, take the bits that they should, and damage is no crash."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from imatlas.errors import InputError
from imatlas.models.parts.exact_exp import exp
from imatlas.models.parts.symbol_coder import SymbolDecoder, SymbolEncoder

numbers = st.tuples(
    st.integers(-(2**24), 2**24),
    st.integers(-(2**20), 2**20).map(lambda k: k / 64),
    st.integers(-400, 900).map(lambda k: k / 64),
)


@settings(deadline=None, max_examples=100)
@given(st.lists(numbers, min_size=1, max_size=30), st.lists(st.integers(-(2**25), 2**25), max_size=5), st.booleans())
def test_what_was_written_is_read(rows: list[tuple[int, float, float]], plain: list[int], flag: bool) -> None:
    q, mean, log_scale = (np.array(column) for column in zip(*rows, strict=True))
    encoder = SymbolEncoder()
    encoder.plain(np.array(plain, np.int64))
    encoder.integers(q, mean, log_scale)
    encoder.flag(flag)
    decoder = SymbolDecoder(encoder.finish())
    assert decoder.plain(len(plain)).tolist() == plain
    assert decoder.integers(mean, log_scale).tolist() == q.tolist()
    assert decoder.flag() == flag


def test_it_takes_the_bits_of_the_distribution(rng: np.random.Generator) -> None:
    n = 40_000
    log_scale, mean = np.round(rng.uniform(-4, 9, n) * 64) / 64, np.round(rng.normal(0, 30, n) * 64) / 64
    scale = np.exp2(log_scale)
    q = np.round(mean + rng.logistic(size=n) * scale).astype(np.int64)
    encoder = SymbolEncoder()
    encoder.integers(q, mean, log_scale)
    x = -np.abs(q - mean)
    ideal = -np.log2(np.maximum(expit((x + 0.5) / scale) - expit((x - 0.5) / scale), 1e-12)).sum() / 8
    assert len(encoder.finish()) == pytest.approx(ideal, rel=0.003)


def test_random_bytes_are_read_or_refused(rng: np.random.Generator) -> None:
    mean, log_scale = np.zeros(500), np.linspace(-4, 11, 500)
    for length in (0, 4, 40, 400):
        for _ in range(20):
            with contextlib.suppress(InputError):
                assert len(SymbolDecoder(rng.bytes(length)).integers(mean, log_scale)) == 500


def test_the_exponential_is_close_to_that_of_numpy() -> None:
    x = np.linspace(-700, 700, 5001)
    np.testing.assert_allclose(exp(x), np.exp(x), rtol=1e-13)
