"""Partially labeled targets: which rows have a label, and folds of those for cross-validation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_consistent_length, column_or_1d

from imatlas.errors import InputError


@contextmanager
def many_classes() -> Iterator[None]:
    """Silence scikit-learn's warning of nearly as many classes as labels, which is normal with few labels."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of unique classes", category=UserWarning)
        yield


def some_labels(X: Any, y: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """`split_labels` for the rows of X, at least one of which must have a label."""
    known, labels = split_labels(y, name)
    check_consistent_length(X, known)
    if not len(labels):
        raise InputError("No row has a label: all of 'y' is -1, NaN or None. Label some rows of each class.")
    return known, labels


def accuracy_and_error(n_correct: float, n_tested: int) -> tuple[float, float]:
    """Accuracy and its standard error, which is above 0 even if all are correct."""
    smoothed = (n_correct + 1) / (n_tested + 2)
    return float(n_correct / n_tested), math.sqrt(smoothed * (1 - smoothed) / n_tested)


def split_labels(y: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Which rows have a label (n_samples,) bool, and those labels in the narrowest dtype that holds them."""
    if y is None:
        raise InputError(
            f"{name} requires y to be passed, but the target y is None: give each row its class, or -1 if unknown."
        )
    y = column_or_1d(y, dtype=None if hasattr(y, "dtype") else _dtype_of(y), warn=True)
    if y.dtype.kind == "f":
        assert_all_finite(y, allow_nan=True, input_name="y")
    if y.dtype.kind == "O":
        known = np.array([not (value is None or value != value or _is_minus_one(value)) for value in y], dtype=bool)
    elif y.dtype.kind in "US":
        known = np.ones(len(y), dtype=bool)
    else:
        known = (y == y) & (y != -1)
    labels = y[known]
    if y.dtype.kind == "O":
        if len({isinstance(value, str) for value in labels}) > 1:
            raise InputError("The labels in 'y' must be all text or all numbers. Got both; turn one into the other.")
        labels = np.array(labels.tolist())
    if len(labels):
        with many_classes():
            check_classification_targets(labels)
    return known, labels


def _dtype_of(y: Any) -> type | None:
    """`object` for a sequence of mixed types, in which NumPy would turn numbers and None into text; else None."""
    types = {type(value) for value in y} if hasattr(y, "__iter__") else set()
    return object if len(types) > 1 and (str in types or type(None) in types) else None


def _is_minus_one(value: Any) -> bool:
    return not isinstance(value, str | bytes) and value == -1


def folds_of(codes: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """The stratified fold of each labeled row (n_labeled,); -1 for the only row of a class."""
    folds = np.full(len(codes), -1)
    counts = np.bincount(codes)
    tested = np.flatnonzero(counts[codes] > 1)
    if len(tested):
        splitter = StratifiedKFold(min(n_folds, int(counts.max())), shuffle=True, random_state=seed)
        with warnings.catch_warnings():  # classes with fewer rows than folds are absent from some
            warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
            for fold, (_, rows) in enumerate(splitter.split(tested, codes[tested])):
                folds[tested[rows]] = fold
    return folds
