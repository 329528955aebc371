"""Classification from a few labeled images per class: `python -m benchmarks few_labels [--sets eurosat] [--seeds 3]`.

FewLabelsClassifier against LabelSpreading, logistic regression and 1-NN on the same features of the pretrained encoder.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.semi_supervised import LabelSpreading

from benchmarks._data import SETS
from benchmarks._embeddings import CLASSES, embeddings, load_set
from benchmarks._table import mean_std, save_table
from imatlas.models.few_labels import FewLabelsClassifier

N_LABELED = {"fashion_mnist": 10, "eurosat": 5, "grocery_photos": 3}
"""Labeled images per class."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks few_labels")
    parser.add_argument("--sets", nargs="+", choices=list(CLASSES), default=list(CLASSES))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in options.sets:
        classify_set(name, options.seeds)


def classify_set(name: str, n_seeds: int) -> None:
    """Save the table of one set: accuracy on the unlabeled images for several draws of labels."""
    images, labels = load_set(name)
    y = np.unique(labels, return_inverse=True)[1]
    found = embeddings(name, images)
    X = found.chosen
    train = np.arange(len(y)) < (60_000 if name == "fashion_mnist" else len(y))
    rows = []
    for method, classify in CLASSIFIERS.items():
        scores = []
        for seed in range(n_seeds):
            known = _draw_labels(y, train, N_LABELED[name], seed)
            evaluated = np.flatnonzero(~train) if not train.all() else np.flatnonzero(known < 0)
            began = time.perf_counter()
            probabilities, estimate = classify(X[train], known[train], X[evaluated], seed)
            seconds = time.perf_counter() - began
            correct = probabilities.argmax(axis=1) == y[evaluated]
            error = _calibration_error(probabilities.max(axis=1), correct)
            scores.append([correct.mean(), error, estimate, seconds])
        accuracy, error, estimate, seconds = np.transpose(scores)
        own = "" if np.isnan(estimate).any() else mean_std(estimate)
        rows.append([method, mean_std(accuracy), mean_std(error), own, f"{seconds.mean():.1f}"])
        print(rows[-1], flush=True)
    where = "the 10,000 test images, which are not fitted" if name == "fashion_mnist" else "all unlabeled images"
    save_table(
        f"few_labels_{name}",
        f"Few labels: {N_LABELED[name]} images of each of the {CLASSES[name]} classes of {SETS[name]}",
        ("method", "accuracy", "calibration error", "own estimate", "seconds"),
        rows,
        [
            f"Accuracy on {where}. Mean ± standard deviation over {n_seeds} draws of labels, the same for all methods. "
            "Own estimate: the accuracy that the classifier reports, cross-validated on the labels.",
            "Calibration error: mean distance of confidence to accuracy over ten bins of confidence, weighted by size.",
            f"All methods get the same features. {found.why}",
            "scikit-learn: LabelSpreading with kernel 'knn', 15 neighbors and alpha 0.9 (for Fashion-MNIST on 5,000 "
            "unlabeled rows, drawn at random), logistic regression with C = 1, 1-NN.",
        ],
    )


def _draw_labels(y: np.ndarray, train: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Labels of `per_class` training rows of each class; -1 for all others."""
    known = np.full(len(y), -1)
    rng = np.random.default_rng(seed)
    for label in range(y.max() + 1):
        known[rng.permutation(np.flatnonzero((y == label) & train))[:per_class]] = label
    return known


def _calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    bins = np.minimum((confidence * 10).astype(int), 9)
    gaps = {i: abs(correct[bins == i].mean() - confidence[bins == i].mean()) for i in set(bins.tolist())}
    return float(sum(gap * (bins == i).mean() for i, gap in gaps.items()))


def _ours(X: np.ndarray, known: np.ndarray, new: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    model = FewLabelsClassifier(random_state=seed).fit(X, known)
    return model.predict_proba(new), model.accuracy_


def _logistic(X: np.ndarray, known: np.ndarray, new: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    rows = known >= 0
    return LogisticRegression(max_iter=1000).fit(X[rows], known[rows]).predict_proba(new), np.nan


def _nearest(X: np.ndarray, known: np.ndarray, new: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    rows = known >= 0
    return KNeighborsClassifier(1).fit(X[rows], known[rows]).predict_proba(new), np.nan


def _spreading(X: np.ndarray, known: np.ndarray, new: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    labeled = np.flatnonzero(known >= 0)
    others = np.random.default_rng(seed).permutation(np.flatnonzero(known < 0))[:5000]
    rows = np.concatenate([labeled, others])
    model = LabelSpreading(kernel="knn", n_neighbors=15, alpha=0.9, max_iter=100).fit(X[rows], known[rows])
    return np.nan_to_num(model.predict_proba(new)), np.nan


CLASSIFIERS = {
    "imatlas FewLabelsClassifier": _ours,
    "LabelSpreading": _spreading,
    "logistic regression": _logistic,
    "1-NN": _nearest,
}
