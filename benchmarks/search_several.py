"""Search by several examples and counter-examples: `python -m benchmarks search_several [--seeds 3]`.

Each draw takes an image, further images of its class as examples, and as counter-examples the images of other classes
nearest to the mean of the examples. The score of a rule is the share of its ten results that are of the class. About
two minutes once the features are computed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._table import mean_std, save_table
from benchmarks._vectors import labeled_embedding
from imatlas.tasks.search import InMemory, Spread, search_like

N_DRAWS, K = 100, 10
MAX_IMAGES = 2000
"""Images per set that are searched, drawn at random."""

MEASURES = Spread(np.zeros(1), np.zeros(1))
Rule = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Rows, examples, counter-examples -> rows from best to worst, at least 10 besides the examples."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks search_several")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    rows = []
    for name, (X, y) in labeled_embedding().items():
        for n_like, n_unlike in ((3, 0), (1, 1), (2, 1), (3, 2)):
            found: dict[str, list[float]] = {rule: [] for rule in RULES}
            for seed in range(options.seeds):
                for rule, share in _scores(X, y, n_like, n_unlike, seed).items():
                    found[rule].append(share)
            cells = [mean_std(shares) for shares in found.values()]
            rows.append([name, n_like, n_unlike, *cells])
            print(rows[-1], flush=True)
    save_table(
        "search_several",
        "Search by several examples: share of the ten results of the right class",
        ["set", "examples", "counter-examples", *RULES],
        rows,
        [
            f"Mean ± standard deviation over {options.seeds} seeds of {N_DRAWS} draws each, among at most "
            f"{MAX_IMAGES:,} images per set; 256 half-whitened principal components of the pretrained encoder's "
            "features (see `_vectors.py`). Labels are used for scoring only.",
            "Rocchio: the mean of the examples, moved away from the mean of the counter-examples by half (a quarter) "
            "of their difference. Mean, nearest: the mean (minimum) distance to the examples minus a quarter of the "
            "minimum distance to the counter-examples.",
        ],
    )


def _scores(X: np.ndarray, y: np.ndarray, n_like: int, n_unlike: int, seed: int) -> dict[str, float]:
    """The mean share of the right class in the results of each rule."""
    rng = np.random.default_rng(seed)
    some = rng.permutation(len(X))[:MAX_IMAGES]
    X, y = X[some], y[some]
    shares: dict[str, list[float]] = {rule: [] for rule in RULES}
    for _ in range(N_DRAWS):
        first = rng.integers(len(X))
        same = np.flatnonzero(y == y[first])
        if len(same) < n_like + 3:
            continue
        like = np.concatenate([[first], rng.choice(same[same != first], n_like - 1, replace=False)])
        near = np.argsort(np.linalg.norm(X - X[like].mean(axis=0), axis=1))
        unlike = near[y[near] != y[first]][:n_unlike]
        own = np.concatenate([like, unlike])
        for rule, order in RULES.items():
            found = order(X, X[like], X[unlike])
            shares[rule].append(float((y[found[~np.isin(found, own)][:K]] == y[first]).mean()))
    return {rule: float(np.mean(found)) for rule, found in shares.items()}


def _ours(X: np.ndarray, like: np.ndarray, unlike: np.ndarray) -> np.ndarray:
    k = K + len(like) + len(unlike)
    return search_like(InMemory(X), like, unlike, k=k, measures=MEASURES).indices[0]


def _rocchio(moved: float) -> Rule:
    def order(X: np.ndarray, like: np.ndarray, unlike: np.ndarray) -> np.ndarray:
        center = like.mean(axis=0)
        query = center + moved * (center - unlike.mean(axis=0)) if len(unlike) else center
        return np.argsort(np.linalg.norm(X - query, axis=1))

    return order


def _combined(combine: Callable[..., Any]) -> Rule:
    def order(X: np.ndarray, like: np.ndarray, unlike: np.ndarray) -> np.ndarray:
        to = [np.stack([np.linalg.norm(X - one, axis=1) for one in some]) for some in (like, unlike) if len(some)]
        return np.argsort(combine(to[0], axis=0) - (to[1].min(axis=0) / 4 if len(unlike) else 0))

    return order


RULES: dict[str, Rule] = {
    "imatlas": _ours,
    "mean": _combined(np.mean),
    "nearest": _combined(np.min),
    "Rocchio 1/2": _rocchio(0.5),
    "Rocchio 1/4": _rocchio(0.25),
}
