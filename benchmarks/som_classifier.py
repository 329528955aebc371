"""SOMClassifier with few labels against the usual baselines: `python -m benchmarks som_classifier [--seeds 3]`."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.semi_supervised import LabelSpreading

import imatlas as ia
from benchmarks._data import fashion_mnist
from benchmarks._table import save_table

N_LABELS = (10, 50, 200)
N_UNLABELED = 5000
"""Unlabeled rows that LabelSpreading gets if not all."""

Fit = Callable[[np.ndarray, np.ndarray, int], Any]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks som_classifier")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    warnings.filterwarnings(
        "ignore", message="invalid value", module="sklearn.semi_supervised"
    )  # rows without labeled neighbors
    (train, labels), (test, truth) = fashion_mnist("train"), fashion_mnist("t10k")
    rows, tests = (x.reshape(len(x), -1) / np.float32(255) for x in (train, test))
    pca = PCA(64, random_state=0).fit(rows)
    rows, tests = pca.transform(rows).astype(np.float32), pca.transform(tests).astype(np.float32)
    table = []
    for number in N_LABELS:
        for name, fit in MODELS.items():
            found = []
            for seed in range(options.seeds):
                y = draw_labels(labels, number, seed)
                began = time.perf_counter()
                model = fit(rows, y, seed)
                seconds = time.perf_counter() - began
                accuracy = np.mean([(model.predict(part) == t).mean() for part, t in _batches(tests, truth)])
                found.append([accuracy, seconds, getattr(model, "accuracy_", np.nan)])
            (accuracy, seconds, estimate), spread = np.mean(found, axis=0), np.std(found, axis=0)
            own = None if np.isnan(estimate) else f"{estimate:.3f} ± {spread[2]:.3f}"
            table.append([number, name, f"{accuracy:.3f} ± {spread[0]:.3f}", own, f"{seconds:.1f}"])
    save_table(
        "som_classifier",
        "Few labels and 60,000 unlabeled images of Fashion-MNIST",
        ["labels", "model", "test accuracy", "own estimate", "fit s"],
        table,
        [
            f"Accuracy on the 10,000 test images, mean ± standard deviation over {options.seeds} draws of labels, the "
            "same for every model, equally many from each of the 10 classes. All models get PCA-64 of the pixels, "
            "fitted to the 60,000 training images. Own estimate: cross-validated on the labels.",
            "SOMClassifier: all 60,000 rows; the time includes the map. With one label per class there is nothing to "
            "cross-validate.",
            f"LabelSpreading, kernel 'knn': the labeled rows and {N_UNLABELED:,} unlabeled rows (20 neighbors, alpha "
            "0.8) or all (10 neighbors, alpha 0.95); settings chosen on the test images, in its favor.",
            "1-NN and logistic regression (C = 0.1, the best of 0.1, 1 and 10 on the test images, in its favor): the "
            "labeled rows only.",
            "Fit times of single runs on a machine with other work: orders of magnitude only.",
        ],
    )


def draw_labels(labels: np.ndarray, number: int, seed: int) -> np.ndarray:
    """The labels of `number` rows, equally many per class; -1 for all others."""
    rng = np.random.default_rng(seed)
    y = np.full(len(labels), -1)
    for label in np.unique(labels):
        chosen = rng.choice(np.flatnonzero(labels == label), number // len(np.unique(labels)), replace=False)
        y[chosen] = label
    return y


def _som(rows: np.ndarray, y: np.ndarray, seed: int) -> Any:
    return ia.SOMClassifier(random_state=seed).fit(rows, y)


def _one_nearest(rows: np.ndarray, y: np.ndarray, seed: int) -> Any:
    return KNeighborsClassifier(1).fit(rows[y >= 0], y[y >= 0])


def _logistic(rows: np.ndarray, y: np.ndarray, seed: int) -> Any:
    return LogisticRegression(C=0.1, max_iter=1000).fit(rows[y >= 0], y[y >= 0])


def _spreading(rows: np.ndarray, y: np.ndarray, seed: int) -> Any:
    others = np.random.default_rng(seed).choice(np.flatnonzero(y < 0), N_UNLABELED, replace=False)
    some = np.concatenate([np.flatnonzero(y >= 0), others])
    return LabelSpreading(kernel="knn", n_neighbors=20, alpha=0.8, max_iter=300).fit(rows[some], y[some])


def _spreading_all(rows: np.ndarray, y: np.ndarray, seed: int) -> Any:
    return LabelSpreading(kernel="knn", n_neighbors=10, alpha=0.95, max_iter=300).fit(rows, y)


def _batches(tests: np.ndarray, truth: np.ndarray, size: int = 1000) -> Any:
    """Test images in equal batches: LabelSpreading holds all distances of a call."""
    return zip(np.split(tests, len(tests) // size), np.split(truth, len(truth) // size), strict=True)


MODELS: dict[str, Fit] = {
    "SOMClassifier": _som,
    "LabelSpreading, 5,000 rows": _spreading,
    "LabelSpreading, all rows": _spreading_all,
    "logistic regression, labeled rows": _logistic,
    "1-NN, labeled rows": _one_nearest,
}
