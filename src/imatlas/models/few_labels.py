"""A few labels, stretched over all rows: along the graph of neighbours, by lines between the classes, or by both.

Zhou, D. et al. (2003), "Learning with local and global consistency", NIPS: labels spread over the graph of neighbours.
With W the likeness of neighbours, D its row sums and Y (n_samples, n_classes) the labels that are known ::

    S = D^(-1/2) W D^(-1/2),    F = sum over t of alpha^t S^t Y

Zelnik-Manor, L. and Perona, P. (2004), "Self-tuning spectral clustering", NIPS: W_ij = exp(-d_ij² / (s_i s_j)), s_i the
distance of row i to its seventh neighbour, so that there is no width to choose.
Zhu, X., Ghahramani, Z. and Lafferty, J. (2003), "Semi-supervised learning using Gaussian fields and harmonic
functions", ICML, section 4: each class is scaled to the same mass, so that one amid many rows does not run over others.

The lines are those of logistic regression on the labelled rows alone. Which of the two, or the geometric mean of their
probabilities, is decided by cross-validation, and so is the temperature that makes confidence match accuracy: Guo et
al. (2017), "On calibration of modern neural networks", ICML, section 4.2.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csr_array, diags_array
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import validate_data

from imatlas.models.base import Estimator, Seed, estimator
from imatlas.models.labels import folds_of, share_and_error, some_labels
from imatlas.nearest import as_tensor, k_nearest

ALPHAS = (0.8, 0.9, 0.95, 0.99)
"""How far labels spread, to choose from."""

STRENGTHS = (0.1, 1.0, 10.0)
"""C of the logistic regression, to choose from."""

STEPS = 60
"""Steps along the graph: 0.99^60 = 0.55 of the farthest reach is still there, and no label travels farther here."""

NEIGHBOR_OF_WIDTH = 7
TEMPERATURES = np.geomspace(0.1, 10.0, 41)
FLOOR = 1e-6
"""Least probability of a class, so that no row is out of reach."""


@estimator
class FewLabelsClassifier(ClassifierMixin, Estimator):
    """Stretch the labels of a few rows over all rows, and over new ones, with a confidence that means what it says.

    A row of `y` is unlabelled where it is -1, NaN or None. So -1 cannot be a class; the text "-1" can. Time grows with
    the square of the number of rows (the graph of neighbours), memory with the number of rows.

    Attributes
    ----------
    classes_ : ndarray (n_classes,)
    label_distributions_ : ndarray (n_samples, n_classes) float32
        Class probabilities of each row of `fit`.
    transduction_ : ndarray (n_samples,)
        The class of each row of `fit`.
    method_ : {'neighbours', 'line', 'both'}
        What cross-validation chose.
    alpha_, strength_ : float
        How far labels spread, and C of the logistic regression, as chosen; of use where `method_` takes them.
    temperature_ : float
        What the logarithms of the probabilities were divided by; 1 where there was nothing to test with.
    accuracy_ : float
        Share of labelled rows that are right while they, with the rest of their fold, count as unlabelled; the method
        is chosen for each fold by the others. NaN where no class has two labelled rows.
    accuracy_error_ : float
        Standard error of that share for so many rows.
    n_labelled_ : int

    Examples
    --------
    >>> import numpy as np
    >>> X = np.vstack([np.zeros((30, 2)), np.ones((30, 2))]) + np.random.default_rng(0).normal(scale=0.1, size=(60, 2))
    >>> y = np.full(60, -1)
    >>> y[[0, 1, 30, 31]] = 0, 0, 1, 1
    >>> FewLabelsClassifier().fit(X, y).predict([[0, 0], [1, 1]]).tolist()
    [0, 1]
    """

    n_neighbors: Annotated[int, Field(ge=1, description="neighbours that each row is linked to")] = 15
    n_folds: Annotated[int, Field(ge=2, description="folds of the cross-validation over labelled rows")] = 5
    random_state: Seed = 0

    def fit(self, X: Any, y: Any = None) -> FewLabelsClassifier:
        """Link all rows to their neighbours, and stretch the labels.

        Parameters
        ----------
        X : array-like (n_samples, n_features)
        y : array-like (n_samples,)
            The class of each row; -1, NaN or None where it is not known.

        Raises
        ------
        ParameterError, InputError, ValueError
            If a parameter is wrong, `X` is not finite, or `y` holds no label, or numbers that are no classes.
        """
        self._check_parameters()
        X = validate_data(self, X, dtype=np.float32, order="C")
        known, labels = some_labels(X, y, type(self).__name__)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        rows = np.flatnonzero(known)
        folds = folds_of(codes, self.n_folds, self._seed())
        self.n_labelled_ = len(rows)
        self.references_ = X
        fields = _fields(self._links(X), rows, codes, folds)
        tried = _tried(X[rows], rows, codes, folds, fields, len(self.classes_))
        chosen = self._choose(tried, codes, folds)
        self.method_, self.alpha_, self.strength_ = chosen
        spread = _shares(fields[self.alpha_].sum(axis=1))
        self.coef_, self.intercept_ = _line(X[rows], codes, self.strength_, len(self.classes_))
        self.spread_ = spread.astype(np.float32)
        self.label_distributions_ = self._mixed(spread, self._by_line(X)).astype(np.float32)
        self.transduction_ = self.classes_[self.label_distributions_.argmax(axis=1)]
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class for each row (n_samples, n_classes), in the order of `classes_`.

        A row that was not given to `fit` takes what labels spread to its neighbours, by how like them it is.
        """
        self._check_fitted()
        X = validate_data(self, X, dtype=np.float32, order="C", reset=False)
        near, squared = self._nearest(X, own=None)
        return self._mixed(_weighed(near, squared, self.spread_), self._by_line(X))

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of each row (n_samples,)."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def next_to_label(self, n: int = 10) -> np.ndarray:
        """The rows of `fit` whose labels would help most (n,) int64, the most unsure of each neighbourhood first.

        A row is left out while a neighbour of it was taken; the least sure are taken first.
        """
        self._check_fitted()
        sure = self.label_distributions_.max(axis=1)
        order = np.argsort(sure, kind="stable")[: 50 * n]
        near, _ = self._nearest(self.references_[order], own=order)
        taken: list[int] = []
        barred: set[int] = set()
        for row, neighbors in zip(order.tolist(), near.tolist(), strict=True):
            if len(taken) < n and row not in barred:
                taken.append(row)
                barred.update(neighbors)
        return np.array(taken, np.int64)

    def _choose(
        self, tried: dict[tuple[str, float, float], np.ndarray], codes: np.ndarray, folds: np.ndarray
    ) -> tuple[str, float, float]:
        """The candidate that is right most often; sets the temperature, and the accuracy by folds."""
        names, tested = list(tried), np.flatnonzero(folds >= 0)
        self.temperature_, self.accuracy_, self.accuracy_error_ = 1.0, math.nan, math.nan
        if not len(tested):
            return "neighbours", 0.9, 1.0
        right = np.array([tried[name][tested].argmax(axis=1) == codes[tested] for name in names])
        told = np.array([np.log(tried[name][tested, codes[tested]]).mean() for name in names])

        def best(where: np.ndarray) -> int:  # the most right; among equals the one that gives the truth more credit
            return max(range(len(names)), key=lambda i: (right[i, where].sum(), told[i]))

        n_right = sum(
            right[best(folds[tested] != fold), folds[tested] == fold].sum() for fold in range(int(folds.max()) + 1)
        )
        self.accuracy_, self.accuracy_error_ = share_and_error(n_right, len(tested))
        name = names[best(np.ones(len(tested), bool))]
        shares, own = tried[name][tested], (np.arange(len(tested)), codes[tested])
        credit = [np.log(_warmed(shares, t)[own]).mean() for t in TEMPERATURES]
        self.temperature_ = float(TEMPERATURES[int(np.argmax(credit))])
        return name

    def _mixed(self, spread: np.ndarray, line: np.ndarray) -> np.ndarray:
        """Probabilities (n, n_classes) by the method and temperature that were chosen."""
        return _warmed(_joined(self.method_, spread, line), self.temperature_)

    def _by_line(self, X: np.ndarray) -> np.ndarray:
        return _softmax(X @ self.coef_.T + self.intercept_)

    def _nearest(self, X: np.ndarray, own: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Neighbours (n, k) among the rows of `fit`, and squared distances; `own` are the rows that X is itself."""
        k = min(self.n_neighbors, len(self.references_) - (own is not None))
        exclude = None if own is None else torch.from_numpy(own)
        if k < 1:
            return np.zeros((len(X), 1), np.int64), np.zeros((len(X), 1), np.float32)
        near, squared = k_nearest(as_tensor(self.references_), as_tensor(X), k, exclude_self=exclude)
        return near.numpy(), squared.numpy()

    def _links(self, X: np.ndarray) -> csr_array:
        """The normalised links S (n_samples, n_samples) of the rows, as the top of this file defines them."""
        n = len(X)
        near, squared = self._nearest(X, own=np.arange(n))
        width = np.sqrt(squared[:, min(NEIGHBOR_OF_WIDTH, squared.shape[1]) - 1]) + 1e-12
        likeness = np.exp(-squared / (width[:, None] * width[near])).astype(np.float32)
        k = near.shape[1]
        links = csr_array((likeness.ravel(), near.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
        links = links.maximum(links.T)
        root = diags_array(1 / np.sqrt(np.maximum(links.sum(axis=1), 1e-12)).astype(np.float32))
        return (root @ links @ root).tocsr()


def _fields(links: csr_array, rows: np.ndarray, codes: np.ndarray, folds: np.ndarray) -> dict[float, np.ndarray]:
    """By alpha, what the labels of each fold lend to each row (n_samples, n_folds + 1, n_classes).

    The last are those of fold -1. The field of several folds is the sum of theirs.
    """
    n_folds, n_classes = int(folds.max()) + 1, int(codes.max()) + 1
    step = np.zeros((links.shape[0], (n_folds + 1) * n_classes), np.float32)
    step[rows, np.where(folds < 0, n_folds, folds) * n_classes + codes] = 1
    fields = {alpha: step.copy() for alpha in ALPHAS}
    for t in range(1, STEPS + 1):
        step = links @ step
        for alpha, field in fields.items():
            field += np.float32(alpha**t) * step
    return {alpha: field.reshape(len(field), n_folds + 1, n_classes) for alpha, field in fields.items()}


def _tried(
    X: np.ndarray,
    rows: np.ndarray,
    codes: np.ndarray,
    folds: np.ndarray,
    fields: dict[float, np.ndarray],
    n_classes: int,
) -> dict[tuple[str, float, float], np.ndarray]:
    """By (method, alpha, C), what each labelled row (n_labelled, n_classes) is said to be without its own fold."""
    by_line = {c: np.full((len(rows), n_classes), 1 / n_classes) for c in STRENGTHS}
    by_neighbors = {alpha: np.full((len(rows), n_classes), 1 / n_classes) for alpha in ALPHAS}
    for fold in range(int(folds.max()) + 1):
        out, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        for c in STRENGTHS:
            coef, intercept = _line(X[rest], codes[rest], c, n_classes)
            by_line[c][out] = _softmax(X[out] @ coef.T + intercept)
        for alpha, field in fields.items():
            by_neighbors[alpha][out] = _shares(field.sum(axis=1) - field[:, fold])[rows[out]]
    found = {("neighbours", alpha, 1.0): spread for alpha, spread in by_neighbors.items()}
    found |= {("line", 0.9, c): line for c, line in by_line.items()}
    found |= {("both", a, c): _joined("both", s, p) for a, s in by_neighbors.items() for c, p in by_line.items()}
    return {name: _warmed(_joined(name[0], p, p), 1.0) for name, p in found.items()}


def _line(X: np.ndarray, codes: np.ndarray, strength: float, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (n_classes, n_features) and intercepts of logistic regression; a class without a row is out of reach."""
    coef, intercept = np.zeros((n_classes, X.shape[1])), np.full(n_classes, -50.0)
    there = np.unique(codes)
    scale = max(float(X.std()), 1e-12)
    if len(there) == 1:
        intercept[there] = 0.0
        return coef, intercept
    model = LogisticRegression(C=strength, max_iter=1000).fit(X / scale, codes)
    if len(there) == 2:
        coef[there[1]], intercept[there] = model.coef_[0] / scale, [0.0, model.intercept_[0]]
    else:
        coef[there], intercept[there] = model.coef_ / scale, model.intercept_
    return coef, intercept


def _shares(field: np.ndarray) -> np.ndarray:
    """A field (n_samples, n_classes) as probabilities, classes of the same mass; all alike where no label reaches."""
    mass = field.sum(axis=0, dtype=np.float64)
    scaled = np.maximum(field / np.maximum(mass, 1e-30), 0.0)
    scaled += FLOOR * max(scaled.mean(), 1e-30)
    return scaled / scaled.sum(axis=1, keepdims=True)


def _weighed(near: np.ndarray, squared: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The shares (n_samples, n_classes) of neighbours (n, k), weighed by how near they are."""
    width = np.maximum(squared[:, [min(NEIGHBOR_OF_WIDTH, squared.shape[1]) - 1]], 1e-12)
    weight = np.exp(-squared / width)
    weight /= weight.sum(axis=1, keepdims=True)
    return np.einsum("nk,nkc->nc", weight, shares[near].astype(np.float64))


def _joined(method: str, spread: np.ndarray, line: np.ndarray) -> np.ndarray:
    """The probabilities of one method, or the geometric mean of both, each row of sum 1 and none below the floor."""
    joined = {"neighbours": spread, "line": line}.get(method)
    joined = np.sqrt(np.maximum(spread, FLOOR) * np.maximum(line, FLOOR)) if joined is None else joined
    joined = np.maximum(joined, FLOOR)
    return joined / joined.sum(axis=1, keepdims=True)


def _warmed(shares: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities whose logarithms are divided by a temperature."""
    return _softmax(np.log(np.maximum(shares, FLOOR)) / temperature)


def _softmax(scores: np.ndarray) -> np.ndarray:
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)
