"""Search by several examples: `python -m benchmarks search_several [--seeds 3]`, about two minutes after the eyes.

For each of many draws: an image, some others of its class, and as counter-examples the images of another class that lie
nearest to their mean. Rules are judged by how many of the ten images they find are of the class.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._data import eurosat, fashion_mnist, grocery_photos, noto_emoji
from benchmarks._million import N_CLOTHES, parts
from benchmarks._table import save_table
from imatlas.images.sources.opening import open_source
from imatlas.tasks.search import InMemory, Spread, search_like

N_DRAWS, K = 100, 10
MOST = 2000
"""Images of a set that are searched among, drawn at random."""

MEASURES = Spread(np.zeros(1), np.zeros(1))
Rule = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Rows, examples, counter-examples -> rows from the best to the worst, at least 10 that are none of the examples."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks search_several")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    rows = []
    for name, (X, y) in labeled_features().items():
        for n_like, n_unlike in ((3, 0), (1, 1), (2, 1), (3, 2)):
            found: dict[str, list[float]] = {rule: [] for rule in RULES}
            for seed in range(options.seeds):
                for rule, share in _judged(X, y, n_like, n_unlike, seed).items():
                    found[rule].append(share)
            cells = [f"{np.mean(shares):.3f} ± {np.std(shares):.3f}" for shares in found.values()]
            rows.append([name, n_like, n_unlike, *cells])
            print(rows[-1], flush=True)
    save_table(
        "search_several",
        "Search by several examples: share of the ten images found that are of the class meant",
        ["set", "examples", "counter-examples", *RULES],
        rows,
        [
            f"Mean ± standard deviation over {options.seeds} seeds of {N_DRAWS} draws each, from at most {MOST:,} "
            "images a set; the eyes' 256 half-whitened principal components (see `_million.py`). Labels judge only.",
            "Rocchio: the mean of the examples, moved by half (a quarter) of the way from the mean of the "
            "counter-examples. Mean, nearest: the mean (least) distance to the examples less a quarter of the least to "
            "the counter-examples.",
        ],
    )


def labeled_features() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What the eyes see in each set (n, 256), and the class of each image."""
    seen = parts()
    folders = {"eurosat": eurosat(), "noto_emoji": noto_emoji(), "grocery_photos": grocery_photos()}
    kinds = {"fashion_mnist": fashion_mnist("t10k")[1][:N_CLOTHES]}
    for name, folder in folders.items():
        pictures = [k for k in open_source(str(folder)).keys if k.lower().endswith((".jpg", ".jpeg", ".png"))]
        kinds[name] = np.array([Path(key).parts[-2] for key in pictures])
    return {name: (seen[name], kinds[name]) for name in kinds}


def _judged(X: np.ndarray, y: np.ndarray, n_like: int, n_unlike: int, seed: int) -> dict[str, float]:
    """The mean share of the right class in what each rule finds."""
    rng = np.random.default_rng(seed)
    some = rng.permutation(len(X))[:MOST]
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
