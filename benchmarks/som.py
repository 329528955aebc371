"""Self-organizing maps against k-means with as many centers, on held-out images: `python -m benchmarks som`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import sklearn.cluster
from sklearn.decomposition import PCA

import imatlas as ia
from benchmarks._data import fashion_mnist, grocery_photos
from benchmarks._table import save_table
from imatlas.metrics.topology import quantization_error, topographic_error

ITERATIONS = 25
Split = Callable[[int], tuple[np.ndarray, np.ndarray]]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks som")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    rows = [row for name, split, sides in _sets() for row in _compare(name, split, sides, options.seeds)]
    save_table(
        "som",
        "Self-organizing maps against k-means with as many centers, on held-out images",
        ["set", "model", "cells", "QE", "QE / k-means QE", "topographic error", "last radius", "fit s"],
        rows,
        [
            "QE: quantization error, the mean Euclidean distance to the nearest prototype. Topographic error: share of "
            "images whose two best cells are not adjacent (8 neighbors on squares, 6 on hexagons). One function "
            "measures every model.",
            f"Mean ± standard deviation over {options.seeds} seeds, which also split Grocery photos.",
            f"k-means: k-means++, one start, at most {ITERATIONS} iterations; ratios to imatlas' KMeans, by seed.",
            "Fit times of single runs on a machine with other work: orders of magnitude only.",
            "Fashion-MNIST: 60,000 training and 10,000 test images; PCA-64 fitted to the former. Grocery photos: 1,053 "
            "images, 10 % held out, unit-length features of EfficientNet-Lite0 (trained with ImageNet labels); PCA-128 "
            "fitted to the other 90 %.",
            "Sides of a map by its default rule unless given. Target: topographic error < 0.1 and ratio <= 1.10.",
        ],
    )


def _sets() -> Iterator[tuple[str, Split, int | None]]:
    train, test = (fashion_mnist(part)[0].reshape(-1, 784) / np.float32(255) for part in ("train", "t10k"))
    pca = PCA(64, random_state=0).fit(train)
    codes = tuple(np.ascontiguousarray(pca.transform(x), dtype=np.float32) for x in (train, test))
    yield "Fashion-MNIST, PCA-64", lambda seed: codes, 20
    yield "Fashion-MNIST, PCA-64", lambda seed: codes, None
    yield "Fashion-MNIST, 784 pixels", lambda seed: (train, test), 20
    images = ia.Images(grocery_photos())
    features = ia.PretrainedEncoder().fit(images).transform(images)
    yield "Grocery photos, 1280 features", lambda seed: _held_out(features, seed), None
    yield "Grocery photos, PCA-128", lambda seed: _reduced(*_held_out(features, seed)), None


def _held_out(features: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(features))
    n = len(features) // 10
    return features[order[n:]], features[order[:n]]


def _reduced(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pca = PCA(128, random_state=0).fit(train)
    return pca.transform(train).astype(np.float32), pca.transform(test).astype(np.float32)


def _compare(name: str, split: Split, side: int | None, seeds: int) -> Iterator[list[Any]]:
    """One row per model: both topologies, imatlas' k-means, scikit-learn's k-means."""
    found: dict[str, list[list[float]]] = {}
    cells: dict[str, Any] = {}
    for seed in range(seeds):
        train, test = split(seed)
        for topology in ("rectangular", "hexagonal"):
            som, seconds = _timed(ia.SOM(rows=side, cols=side, topology=topology, random_state=seed), train)
            n_cells = len(som.codebook_)
            ours, ours_seconds = _timed(ia.KMeans(n_clusters=n_cells, max_iter=ITERATIONS, random_state=seed), train)
            base = quantization_error(test, ours.cluster_centers_)
            error = quantization_error(test, som.codebook_)
            topographic = topographic_error(test, som.codebook_, som.rows_, som.cols_, topology)
            key = f"SOM, {topology}"
            cells[key] = f"{som.rows_} x {som.cols_}"
            found.setdefault(key, []).append([error, error / base, topographic, som.schedule_[-1][0], seconds])
            if topology == "rectangular":
                peer, peer_seconds = _timed(
                    sklearn.cluster.KMeans(n_cells, max_iter=ITERATIONS, random_state=seed), train
                )
                theirs = quantization_error(test, peer.cluster_centers_)
                cells["KMeans"] = cells["scikit-learn KMeans"] = n_cells
                found.setdefault("KMeans", []).append([base, 1.0, np.nan, np.nan, ours_seconds])
                found.setdefault("scikit-learn KMeans", []).append(
                    [theirs, theirs / base, np.nan, np.nan, peer_seconds]
                )
    for key, values in found.items():
        mean, spread = np.mean(values, axis=0), np.std(values, axis=0)
        yield [name, key, cells[key], *[_cell(m, s) for m, s in zip(mean, spread, strict=True)]]


def _timed(model: Any, train: np.ndarray) -> tuple[Any, float]:
    began = time.perf_counter()
    return model.fit(train), time.perf_counter() - began


def _cell(mean: float, spread: float) -> str | None:
    return None if np.isnan(mean) else f"{mean:.3g} ± {spread:.2g}" if mean >= 10 else f"{mean:.3f} ± {spread:.3f}"
