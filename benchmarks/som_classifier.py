"""A few labels stretched over many images, beside learning from the labeled ones alone:
`python -m benchmarks som_classifier [--seeds 3]`."""

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

NUMBERS = (10, 50, 200)
SUBSAMPLE = 5000
Fit = Callable[[np.ndarray, np.ndarray, int], Any]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks som_classifier")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    warnings.filterwarnings("ignore", message="invalid value", module="sklearn.semi_supervised")  # rows out of reach
    (train, labels), (test, truth) = fashion_mnist("train"), fashion_mnist("t10k")
    rows, tests = (x.reshape(len(x), -1) / np.float32(255) for x in (train, test))
    pca = PCA(64, random_state=0).fit(rows)
    rows, tests = pca.transform(rows).astype(np.float32), pca.transform(tests).astype(np.float32)
    table = []
    for number in NUMBERS:
        for name, fit in MODELS.items():
            found = []
            for seed in range(options.seeds):
                y = few(labels, number, seed)
                began = time.perf_counter()
                model = fit(rows, y, seed)
                seconds = time.perf_counter() - began
                right = np.mean([(model.predict(part) == t).mean() for part, t in _parts(tests, truth)])
                found.append([right, seconds, getattr(model, "accuracy_", np.nan)])
            (right, seconds, told), spread = np.mean(found, axis=0), np.std(found, axis=0)
            own = None if np.isnan(told) else f"{told:.3f} ± {spread[2]:.3f}"
            table.append([number, name, f"{right:.3f} ± {spread[0]:.3f}", own, f"{seconds:.1f}"])
    save_table(
        "som_classifier",
        "A few labels stretched over 60,000 pictures of clothes",
        ["labels", "model", "accuracy on 10,000 test images", "accuracy it tells itself", "seconds to fit"],
        table,
        [
            f"Mean ± standard deviation over {options.seeds} seeds, each with labels of its own, the same for every "
            "model: one tenth of them from each of the 10 classes of Fashion-MNIST. All see PCA-64 of the pixels, "
            "learned from the 60,000.",
            "SOMClassifier: all 60,000 rows, the time to learn the map included. With one label a class it has nothing "
            "to test itself on.",
            f"LabelSpreading, kernel 'knn': the labeled rows and {SUBSAMPLE:,} unlabeled ones (20 neighbors, alpha "
            "0.8) or all (10 neighbors, alpha 0.95), the best of a few settings on the test images: in its favor.",
            "1-NN and logistic regression (C = 0.1, the best of 0.1, 1 and 10 on the test images: in its favor): the "
            "labeled rows alone.",
            "Seconds are of single runs, other work on the machine not kept away: orders of magnitude only.",
        ],
    )


def few(labels: np.ndarray, number: int, seed: int) -> np.ndarray:
    """The labels of `number` rows, as many of each class; -1 for all others."""
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
    others = np.random.default_rng(seed).choice(np.flatnonzero(y < 0), SUBSAMPLE, replace=False)
    some = np.concatenate([np.flatnonzero(y >= 0), others])
    return LabelSpreading(kernel="knn", n_neighbors=20, alpha=0.8, max_iter=300).fit(rows[some], y[some])


def _spreading_all(rows: np.ndarray, y: np.ndarray, seed: int) -> Any:
    return LabelSpreading(kernel="knn", n_neighbors=10, alpha=0.95, max_iter=300).fit(rows, y)


def _parts(tests: np.ndarray, truth: np.ndarray, size: int = 1000) -> Any:
    """Test images in equal parts: LabelSpreading holds all distances of a call."""
    return zip(np.split(tests, len(tests) // size), np.split(truth, len(truth) // size), strict=True)


MODELS: dict[str, Fit] = {
    "SOMClassifier": _som,
    "LabelSpreading, 5,000 rows": _spreading,
    "LabelSpreading, all rows": _spreading_all,
    "logistic regression, labeled rows": _logistic,
    "1-NN, labeled rows": _one_nearest,
}
