"""A few labels, stretched over all rows: along the graph of neighbors, by lines between the classes, or by both.

Zhou, D. et al. (2003), "Learning with local and global consistency", NIPS: labels spread over the graph of neighbors.
With W the likeness of neighbors, D its row sums and Y (n_samples, n_classes) the labels that are known ::

    S = D^(-1/2) W D^(-1/2),    F = sum over t of alpha^t S^t Y

Zelnik-Manor, L. and Perona, P. (2004), "Self-tuning spectral clustering", NIPS: W_ij = exp(-d_ij² / (s_i s_j)), s_i the
distance of row i to its seventh neighbor, so that there is no width to choose.
Zhu, X., Ghahramani, Z. and Lafferty, J. (2003), "Semi-supervised learning using Gaussian fields and harmonic
functions", ICML, section 4: each class is scaled to the same mass, so that one amid many rows does not run over others.

The lines are those of logistic regression on the labeled rows alone. What both say together, the geometric mean of
their probabilities, gives every row a class, and these the axes that tell the classes apart (Fisher 1936). Along those
rows of one class lie nearer together, and the labels are stretched again: three times. Where there are many rows a
class, a student learns what was said of them (`models.parts.student`), labels are stretched among the rows as its
hidden layer sees them, what both say is taught to the next student, and so on.

Where cross-validation finds another way better than the usual one, that is taken; it also finds the temperature that
makes confidence match accuracy: Guo et al. (2017), "On calibration of modern neural networks", ICML, section 4.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csr_array, diags_array
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression

from imatlas import seeding
from imatlas.arguments import check_int
from imatlas.models.base import Estimator, Seed, estimator
from imatlas.models.learned import COUNT, FINITE, TEXT, VECTORS, Array, Labels, State, Value
from imatlas.models.parts.discriminant_axes import discriminant_axes
from imatlas.models.parts.labels import folds_of, many_classes, share_and_error, some_labels
from imatlas.models.parts.rows import checked_rows
from imatlas.models.parts.student import hidden, taught
from imatlas.neighbors import as_tensor, k_nearest
from imatlas.system.threads import sharing_cores

ALPHAS = (0.8, 0.9, 0.95, 0.99)
"""How far labels spread, to choose from."""

STRENGTHS = (0.1, 1.0, 10.0)
"""C of the logistic regression, to choose from."""

MOST_ROWS, MOST_TRIED = 24_576, 8192
"""Rows that labels are stretched over, with all that are labeled: in the end, and in cross-validation, which stretches
them again and again. All others take from these as new rows do."""

ROUNDS = 3
"""How often the axes are drawn anew, and the labels stretched along them."""

STUDENTS = 3
"""Students, each taught by the one before."""

ENOUGH_ROWS = 100
"""Rows a class below which a student learns its teacher's mistakes with the rest, and there is none."""

Choice = tuple[str, str, float, float]
"""By what rows are seen, method, alpha and C."""

USUAL = ("both", 0.9, 1.0)

PRIOR = 0.3
"""Standard deviation of the logarithm of the temperature, as far as is known before a label is seen."""

STEPS = 60
"""Steps along the graph: 0.99^60 = 0.55 of the farthest reach is still there, and no label travels farther here."""

NEIGHBOR_OF_WIDTH = 7
TEMPERATURES = np.geomspace(0.1, 10.0, 41)
FLOOR = 1e-6
"""Least probability of a class, so that no row is out of reach."""


@estimator
class FewLabelsClassifier(ClassifierMixin, Estimator):
    """Stretch the labels of a few rows over all rows, and over new ones, with a confidence that means what it says.

    A row of `y` is unlabeled where it is -1, NaN or None. So -1 cannot be a class; the text "-1" can. Labels are
    stretched over the labeled rows and others, 24,576 in all, drawn at random; time grows linearly beyond.

    Attributes
    ----------
    classes_ : ndarray (n_classes,)
    label_distributions_ : ndarray (n_samples, n_classes) float32
        Class probabilities of each row of `fit`.
    transduction_ : ndarray (n_samples,)
        The class of each row of `fit`.
    feature_space_ : {'student', 'axes', 'features'}
        Rows are seen by a student's hidden layer, along the axes that tell the classes apart, or as they were.
    method_ : {'neighbors', 'line', 'both'}
        What speaks for a class.
    alpha_, strength_ : float
        How far labels spread, and C of the logistic regression, as chosen; of use where `method_` takes them.
    temperature_ : float
        What the logarithms of the probabilities were divided by; 1 where there was nothing to test with.
    accuracy_ : float
        Share of labeled rows that are right while they, with the rest of their fold, count as unlabeled; the method
        is chosen for each fold by the others. NaN where no class has two labeled rows.
    accuracy_error_ : float
        Standard error of that share for so many rows.
    n_labeled_ : int

    Examples
    --------
    >>> import numpy as np
    >>> X = np.vstack([np.zeros((30, 2)), np.ones((30, 2))]) + np.random.default_rng(0).normal(scale=0.1, size=(60, 2))
    >>> y = np.full(60, -1)
    >>> y[[0, 1, 30, 31]] = 0, 0, 1, 1
    >>> FewLabelsClassifier().fit(X, y).predict([[0, 0], [1, 1]]).tolist()
    [0, 1]
    """

    n_neighbors: Annotated[int, Field(ge=1, description="neighbors that each row is linked to")] = 15
    n_folds: Annotated[int, Field(ge=2, description="folds of the cross-validation over labeled rows")] = 5
    random_state: Seed = 0
    labels = "required"

    _state: ClassVar[State] = {
        **VECTORS,
        "classes_": Labels("n_classes", distinct=True),
        "label_distributions_": Array("float32", "n_samples", "n_classes", low=0, high=1.001),
        "transduction_": Labels("n_samples"),
        "n_labeled_": Value(COUNT),
        "reference_rows_": Array("int64", "n_references", low=0, below="n_samples"),
        "axes_": Array("float", "n_features_in_", "n_axes"),
        "offset_": Array("float", "n_axes", optional=True),
        "references_": Array("float32", "n_references", "n_axes"),
        "spread_": Array("float32", "n_references", "n_classes", low=0, high=1.001),
        "coef_": Array("float", "n_classes", "n_axes"),
        "intercept_": Array("float", "n_classes"),
        "feature_space_": Value(TEXT),
        "method_": Value(Literal["both", "neighbors", "line"]),
        "alpha_": Value(FINITE),
        "strength_": Value(FINITE),
        "temperature_": Value(Annotated[float, Field(gt=0, allow_inf_nan=False)]),
        "accuracy_": Value(float),
        "accuracy_error_": Value(float),
    }

    @sharing_cores()
    def fit(self, X: Any, y: Any = None) -> FewLabelsClassifier:
        """Link the rows to their neighbors, and stretch the labels.

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
        X = checked_rows(self, X)
        known, labels = some_labels(X, y, type(self).__name__)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self.n_labeled_ = len(codes)
        seed, k = self._seed(), len(self.classes_)
        others = np.random.default_rng(seed).permutation(np.flatnonzero(~known))[: max(0, MOST_ROWS - len(codes))]
        self.reference_rows_ = np.sort(np.concatenate([np.flatnonzero(known), others]))
        few, rows = X[self.reference_rows_], np.flatnonzero(known[self.reference_rows_])
        links = _links(few, self.n_neighbors)
        folds = folds_of(codes, self.n_folds, seed)
        stages = partial(_stages, k=k, n_neighbors=self.n_neighbors, seed=seed)
        found = stages(few, links, rows, codes)
        usual: Choice = (list(found)[-1], *USUAL)
        if len(few) > MOST_TRIED:
            kept = np.sort(
                np.concatenate([rows, np.searchsorted(self.reference_rows_, others[: MOST_TRIED - len(rows)])])
            )
            few, rows = few[kept], np.searchsorted(kept, rows)
            links = _links(few, self.n_neighbors)
        tried = _tried(partial(stages, few, links), rows, codes, folds, k)
        self.feature_space_, self.method_, self.alpha_, self.strength_ = self._choose(tried, usual, codes, folds)
        last = found[self.feature_space_]
        self.axes_, self.offset_, self.references_ = last.axes, last.offset, last.rows
        self.coef_, self.intercept_ = last.lines[self.strength_]
        self.spread_ = last.spreads[self.alpha_].astype(np.float32)
        self.label_distributions_ = self._all_shares(X)
        self.transduction_ = self.classes_[self.label_distributions_.argmax(axis=1)]
        return self

    def _all_shares(self, X: np.ndarray) -> np.ndarray:
        """Class probabilities of each row of `fit` (n_samples, n_classes) float32."""
        shares = np.empty((len(X), len(self.classes_)), np.float32)
        shares[self.reference_rows_] = self._mixed(self.spread_, self._by_line(self.references_))
        rest = np.setdiff1d(np.arange(len(X)), self.reference_rows_)
        if len(rest):
            shares[rest] = self.predict_proba(X[rest])
        return shares

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class for each row (n_samples, n_classes), in the order of `classes_`.

        A row that was not given to `fit` takes what labels spread to its neighbors, by how like them it is.
        """
        self._check_fitted()
        X = checked_rows(self, X, reset=False)
        Z = _thrown(X, self.axes_, self.offset_)
        near, squared = _nearest(self.references_, Z, self.n_neighbors, own=None)
        return self._mixed(_weighed(near, squared, self.spread_), self._by_line(Z))

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of each row (n_samples,)."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def next_to_label(self, n: int = 10) -> np.ndarray:
        """The rows of `fit` whose labels would help most (n,) int64, the most unsure of each neighborhood first.

        A row is left out while a neighbor of it was taken; the least sure are taken first.
        """
        self._check_fitted()
        n = check_int(n, "n", type(self).__name__, low=0)
        sure = self.label_distributions_[self.reference_rows_].max(axis=1)
        order = np.argsort(sure, kind="stable")[: 50 * n]
        near, _ = _nearest(self.references_, self.references_[order], self.n_neighbors, own=order)
        taken: list[int] = []
        barred: set[int] = set()
        for row, neighbors in zip(order.tolist(), near.tolist(), strict=True):
            if len(taken) < n and row not in barred:
                taken.append(row)
                barred.update(neighbors)
        return self.reference_rows_[np.array(taken, np.int64)]

    def _choose(
        self, tried: dict[Choice, np.ndarray], usual_one: Choice, codes: np.ndarray, folds: np.ndarray
    ) -> Choice:
        """The best candidate; sets the temperature, and the accuracy by folds.

        That is the usual one, unless another is right more often by more than three standard errors of the difference:
        with a few labels the best of many is mostly the luckiest.
        """
        names, tested = list(tried), np.flatnonzero(folds >= 0)
        self.temperature_, self.accuracy_, self.accuracy_error_ = 1.0, math.nan, math.nan
        if not len(tested):
            return usual_one
        right = np.array([tried[name][tested].argmax(axis=1) == codes[tested] for name in names])
        usual = names.index(usual_one)
        told = np.array([np.log(tried[name][tested, codes[tested]]).mean() for name in names])

        def best(where: np.ndarray) -> int:  # the most right; among equals the one that gives the truth more credit
            first = max(range(len(names)), key=lambda i: (right[i, where].sum(), told[i]))
            gain = right[first, where].astype(int) - right[usual, where]
            return first if gain.sum() > 3 * math.sqrt(np.abs(gain).sum()) else usual

        n_right = sum(
            right[best(folds[tested] != fold), folds[tested] == fold].sum() for fold in range(int(folds.max()) + 1)
        )
        self.accuracy_, self.accuracy_error_ = share_and_error(n_right, len(tested))
        name = names[best(np.ones(len(tested), bool))]
        shares, own = tried[name][tested], (np.arange(len(tested)), codes[tested])
        credit = [np.log(_warmed(shares, t)[own]).sum() for t in TEMPERATURES]
        self.temperature_ = float(TEMPERATURES[int(np.argmax(credit - (np.log(TEMPERATURES) / PRIOR) ** 2 / 2))])
        return name

    def _mixed(self, spread: np.ndarray, line: np.ndarray) -> np.ndarray:
        """Probabilities (n, n_classes) by the method and temperature that were chosen."""
        return _warmed(_joined(self.method_, spread, line), self.temperature_)

    def _by_line(self, X: np.ndarray) -> np.ndarray:
        return _softmax(_scores(X, (self.coef_, self.intercept_)))


@dataclass(frozen=True)
class _Stage:
    """Labels stretched among rows that are seen in one way (see `_thrown`), and by alpha or C what they say."""

    axes: np.ndarray
    offset: np.ndarray | None
    rows: np.ndarray
    spreads: dict[float, np.ndarray]
    lines: dict[float, tuple[np.ndarray, np.ndarray]]

    @property
    def usual(self) -> np.ndarray:
        """What the usual choice says of each row (n_samples, n_classes)."""
        _, alpha, strength = USUAL
        return _joined("both", self.spreads[alpha], _softmax(_scores(self.rows, self.lines[strength])))


def _thrown(X: np.ndarray, axes: np.ndarray, offset: np.ndarray | None) -> np.ndarray:
    """Rows (n, n_features) along axes (n_features, n_axes); with an offset, what a hidden layer makes of them."""
    return X @ axes if offset is None else hidden(X, axes, offset)


def _stages(
    X: np.ndarray, links: csr_array, rows: np.ndarray, codes: np.ndarray, *, k: int, n_neighbors: int, seed: int
) -> dict[str, _Stage]:
    """Labels `codes` of `rows` stretched over X by its features, by axes, and by students where rows are many."""

    def stretched(links: csr_array) -> dict[float, np.ndarray]:
        return {alpha: _shares(field) for alpha, field in _fields(links, rows, codes, k).items()}

    def along(axes: np.ndarray, thrown: np.ndarray, links: csr_array) -> _Stage:
        lines = {strength: _line(thrown[rows], codes, strength, k) for strength in STRENGTHS}
        return _Stage(axes, None, thrown, stretched(links), lines)

    plain = last = along(np.eye(X.shape[1], dtype=np.float32), X, links)
    for _ in range(ROUNDS if k > 1 else 0):
        labels = last.usual.argmax(axis=1)
        labels[rows] = codes
        axes = discriminant_axes(X, labels, k)
        if axes is None:
            break
        thrown = X @ axes
        last = along(axes, thrown, _links(thrown, n_neighbors))
    stages = {"features": plain, "axes": last}
    if 1 < k <= len(X) // ENOUGH_ROWS:
        for number in range(STUDENTS):
            shares = last.usual
            shares = shares / shares.mean(axis=0)  # each class as many rows, as in `_shares`
            shares /= shares.sum(axis=1, keepdims=True)
            shares[rows] = np.eye(k)[codes]
            student = taught(X, shares, rows, seeding.seed_of(seed, "student", number))
            thrown = hidden(X, student.axes, student.offset)
            lines = dict.fromkeys(STRENGTHS, (student.coef, student.intercept))
            last = _Stage(student.axes, student.offset, thrown, stretched(_links(thrown, n_neighbors)), lines)
        stages["student"] = last
    return stages


def _tried(
    stages: Callable[[np.ndarray, np.ndarray], dict[str, _Stage]],
    rows: np.ndarray,
    codes: np.ndarray,
    folds: np.ndarray,
    k: int,
) -> dict[Choice, np.ndarray]:
    """By candidate, what each labeled row (n_labeled, n_classes) is said to be without its own fold."""
    tried: dict[Choice, np.ndarray] = {}
    for fold in range(int(folds.max()) + 1):
        out, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        for seen_by, stage in stages(rows[rest], codes[rest]).items():
            spreads = {alpha: spread[rows[out]] for alpha, spread in stage.spreads.items()}
            lines = {c: _softmax(_scores(stage.rows[rows[out]], line)) for c, line in stage.lines.items()}
            found = {("neighbors", alpha, 1.0): spread for alpha, spread in spreads.items()}
            found |= {("line", 0.9, c): line for c, line in lines.items()}
            found |= {("both", a, c): _joined("both", s, p) for a, s in spreads.items() for c, p in lines.items()}
            for name, shares in found.items():
                every = tried.setdefault((seen_by, *name), np.full((len(rows), k), 1 / k))
                every[out] = _warmed(shares, 1.0)
    return tried


def _nearest(
    references: np.ndarray, X: np.ndarray, n_neighbors: int, own: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Neighbors (n, k) of X among references, and squared distances; `own` are the references that X is itself."""
    k = min(n_neighbors, len(references) - (own is not None))
    exclude = None if own is None else torch.from_numpy(own)
    if k < 1:
        return np.zeros((len(X), 1), np.int64), np.zeros((len(X), 1), np.float32)
    near, squared = k_nearest(as_tensor(references), as_tensor(X), k, exclude_self=exclude)
    return near.numpy(), squared.numpy()


def _links(X: np.ndarray, n_neighbors: int) -> csr_array:
    """The normalized links S (n_samples, n_samples) of rows, as the top of this file defines them."""
    n = len(X)
    near, squared = _nearest(X, X, n_neighbors, own=np.arange(n))
    width = np.sqrt(squared[:, min(NEIGHBOR_OF_WIDTH, squared.shape[1]) - 1]) + 1e-12
    likeness = np.exp(-squared / (width[:, None] * width[near])).astype(np.float32)
    k = near.shape[1]
    links = csr_array((likeness.ravel(), near.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    links = links.maximum(links.T)
    root = diags_array(1 / np.sqrt(np.maximum(links.sum(axis=1), 1e-12)).astype(np.float32))
    return (root @ links @ root).tocsr()


def _fields(links: csr_array, rows: np.ndarray, codes: np.ndarray, n_classes: int) -> dict[float, np.ndarray]:
    """By alpha, what labels lend to each row (n_samples, n_classes): F as the top of this file defines it."""
    step = np.zeros((links.shape[0], n_classes), np.float32)
    step[rows, codes] = 1
    fields = {alpha: step.copy() for alpha in ALPHAS}
    for t in range(1, STEPS + 1):
        step = links @ step
        for alpha, field in fields.items():
            field += np.float32(alpha**t) * step
    return fields


def _line(X: np.ndarray, codes: np.ndarray, strength: float, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (n_classes, n_features) and intercepts of logistic regression; a class without a row is out of reach."""
    coef, intercept = np.zeros((n_classes, X.shape[1])), np.full(n_classes, -50.0)
    there = np.unique(codes)
    scale = max(float(X.std()), 1e-12)
    if len(there) == 1:
        intercept[there] = 0.0
        return coef, intercept
    with many_classes():
        model = LogisticRegression(C=strength, max_iter=1000).fit(X / scale, codes)
    if len(there) == 2:
        coef[there[1]], intercept[there] = model.coef_[0] / scale, [0.0, model.intercept_[0]]
    else:
        coef[there], intercept[there] = model.coef_ / scale, model.intercept_
    return coef, intercept


def _scores(X: np.ndarray, line: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """What lines say of rows, (n_samples, n_classes), before it is brought to probabilities."""
    return X @ line[0].T + line[1]


def _shares(field: np.ndarray) -> np.ndarray:
    """A field (n_samples, n_classes) as probabilities, classes of the same mass; all alike where no label reaches."""
    mass = field.sum(axis=0, dtype=np.float64)
    scaled = np.maximum(field / np.maximum(mass, 1e-30), 0.0)
    scaled += FLOOR * max(scaled.mean(), 1e-30)
    return scaled / scaled.sum(axis=1, keepdims=True)


def _weighed(near: np.ndarray, squared: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The shares (n_samples, n_classes) of neighbors (n, k), weighed by how near they are."""
    width = np.maximum(squared[:, [min(NEIGHBOR_OF_WIDTH, squared.shape[1]) - 1]], 1e-12)
    weight = np.exp(-squared / width)
    weight /= weight.sum(axis=1, keepdims=True)
    return np.einsum("nk,nkc->nc", weight, shares[near].astype(np.float64))


def _joined(method: str, spread: np.ndarray, line: np.ndarray) -> np.ndarray:
    """The probabilities of one method, or the geometric mean of both, each row of sum 1 and none below the floor."""
    joined = {"neighbors": spread, "line": line}.get(method)
    joined = np.sqrt(np.maximum(spread, FLOOR) * np.maximum(line, FLOOR)) if joined is None else joined
    joined = np.maximum(joined, FLOOR)
    return joined / joined.sum(axis=1, keepdims=True)


def _warmed(shares: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities whose logarithms are divided by a temperature."""
    return _softmax(np.log(np.maximum(shares, FLOOR)) / temperature)


def _softmax(scores: np.ndarray) -> np.ndarray:
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)
