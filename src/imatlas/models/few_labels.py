"""Label propagation from few labels: over the neighbor graph, by logistic regression, or by both.

Zhou, D. et al. (2003), "Learning with local and global consistency", NIPS: labels spread over the neighbor graph. With
the affinity W of neighbors, its row sums D and the one-hot labels Y (n_samples, n_classes), 0 where unknown ::

    S = D^(-1/2) W D^(-1/2),    F = sum over t of alpha^t S^t Y

Zelnik-Manor, L. and Perona, P. (2004), "Self-tuning spectral clustering", NIPS: W_ij = exp(-d_ij² / (s_i s_j)), s_i the
distance of row i to its seventh neighbor, so that there is no kernel width to choose.
Zhu, X., Ghahramani, Z. and Lafferty, J. (2003), "Semi-supervised learning using Gaussian fields and harmonic
functions", ICML, section 4: class mass normalization, so that large classes do not absorb small ones.

Logistic regression is fitted to the labeled rows only. The geometric mean of both probabilities labels every row;
Fisher's discriminant axes of these labels (Fisher 1936) bring rows of one class closer together, and labels are
propagated again along them: three times. With many rows per class, self-training follows: a student network learns the
probabilities (`models.parts.student`), labels are propagated in the space of its hidden layer, both together teach the
next student, and so on.

Cross-validation replaces the default method where another is clearly better, and sets the temperature that calibrates
the probabilities: Guo et al. (2017), "On calibration of modern neural networks", ICML, section 4.2.
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
from imatlas.models.learned_attributes import COUNT, FINITE, TEXT, VECTORS, Array, Labels, State, Value
from imatlas.models.parts.discriminant_axes import discriminant_axes
from imatlas.models.parts.labels import accuracy_and_error, folds_of, many_classes, some_labels
from imatlas.models.parts.rows import checked_rows
from imatlas.models.parts.student import hidden, train_student
from imatlas.neighbors import as_tensor, k_nearest
from imatlas.system.threads import sharing_cores

ALPHAS = (0.8, 0.9, 0.95, 0.99)
"""Candidates for alpha: how far labels spread."""

STRENGTHS = (0.1, 1.0, 10.0)
"""Candidates for C of the logistic regression."""

MAX_ROWS, MAX_VALIDATION_ROWS = 24_576, 8192
"""Maximum number of rows in the graph, labeled ones included: of the final model, and in cross-validation. All other
rows are classified as new ones are."""

ROUNDS = 3
"""Rounds of discriminant axes and label propagation along them."""

STUDENTS = 3
"""Number of students, each trained on the labels of the previous one."""

MIN_ROWS_PER_CLASS = 100
"""Rows per class below which there is no self-training: a student would learn its teacher's mistakes."""

Choice = tuple[str, str, float, float]
"""Feature space, method, alpha and C."""

DEFAULT = ("both", 0.9, 1.0)
"""Method, alpha and C that are used unless others are clearly better."""

PRIOR = 0.3
"""Prior standard deviation of the logarithm of the temperature."""

STEPS = 60
"""Terms of the series; no label travels farther over the graph."""

WIDTH_NEIGHBOR = 7
"""Neighbor whose distance is the kernel width."""

TEMPERATURES = np.geomspace(0.1, 10.0, 41)
FLOOR = 1e-6
"""Smallest probability of a class."""


@estimator
class FewLabelsClassifier(ClassifierMixin, Estimator):
    """Semi-supervised classifier with calibrated probabilities that needs a few labels.

    A row of `y` is unlabeled where it is -1, NaN or None. So -1 cannot be a class; the text "-1" can. Labels are
    propagated over at most 24,576 rows: the labeled ones and a random sample of the others. Time grows linearly beyond.

    Attributes
    ----------
    classes_ : ndarray (n_classes,)
    label_distributions_ : ndarray (n_samples, n_classes) float32
        Class probabilities of each row of `fit`.
    transduction_ : ndarray (n_samples,)
        The class of each row of `fit`.
    feature_space_ : {'student', 'axes', 'features'}
        Where labels are propagated: a student's hidden layer, discriminant axes, or the features themselves.
    method_ : {'propagation', 'logistic', 'both'}
        What the probabilities come from.
    alpha_, strength_ : float
        Chosen alpha and C of the logistic regression; each has an effect only if `method_` uses it.
    temperature_ : float
        Divides the logarithms of the probabilities; 1 if there was nothing to validate on.
    accuracy_ : float
        Cross-validated accuracy on the labeled rows, the method being chosen on the other folds. NaN if no class has
        two labeled rows.
    accuracy_error_ : float
        Standard error of `accuracy_`.
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

    n_neighbors: Annotated[int, Field(ge=1, description="neighbors of each row in the graph")] = 15
    n_folds: Annotated[int, Field(ge=2, description="folds of the cross-validation on the labeled rows")] = 5
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
        "propagated_": Array("float32", "n_references", "n_classes", low=0, high=1.001),
        "coef_": Array("float", "n_classes", "n_axes"),
        "intercept_": Array("float", "n_classes"),
        "feature_space_": Value(TEXT),
        "method_": Value(Literal["both", "propagation", "logistic"]),
        "alpha_": Value(FINITE),
        "strength_": Value(FINITE),
        "temperature_": Value(Annotated[float, Field(gt=0, allow_inf_nan=False)]),
        "accuracy_": Value(float),
        "accuracy_error_": Value(float),
    }

    @sharing_cores()
    def fit(self, X: Any, y: Any = None) -> FewLabelsClassifier:
        """Build the neighbor graph and propagate the labels.

        Parameters
        ----------
        X : array-like (n_samples, n_features)
        y : array-like (n_samples,)
            The class of each row; -1, NaN or None if unknown.

        Raises
        ------
        ParameterError, InputError, ValueError
            If a parameter is invalid, `X` is not finite, or `y` holds no label, or numbers that are not classes.
        """
        self._check_parameters()
        X = checked_rows(self, X)
        known, labels = some_labels(X, y, type(self).__name__)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self.n_labeled_ = len(codes)
        seed, k = self._seed(), len(self.classes_)
        others = np.random.default_rng(seed).permutation(np.flatnonzero(~known))[: max(0, MAX_ROWS - len(codes))]
        self.reference_rows_ = np.sort(np.concatenate([np.flatnonzero(known), others]))
        graph_rows, labeled = X[self.reference_rows_], np.flatnonzero(known[self.reference_rows_])
        graph = _graph(graph_rows, self.n_neighbors)
        folds = folds_of(codes, self.n_folds, seed)
        stages = partial(_stages, k=k, n_neighbors=self.n_neighbors, seed=seed)
        fitted = stages(graph_rows, graph, labeled, codes)
        default: Choice = (list(fitted)[-1], *DEFAULT)
        if len(graph_rows) > MAX_VALIDATION_ROWS:
            n_others = MAX_VALIDATION_ROWS - len(labeled)
            kept = np.sort(np.concatenate([labeled, np.searchsorted(self.reference_rows_, others[:n_others])]))
            graph_rows, labeled = graph_rows[kept], np.searchsorted(kept, labeled)
            graph = _graph(graph_rows, self.n_neighbors)
        validated = _cross_validated(partial(stages, graph_rows, graph), labeled, codes, folds, k)
        chosen = self._choose(validated, default, codes, folds)
        self.feature_space_, self.method_, self.alpha_, self.strength_ = chosen
        stage = fitted[self.feature_space_]
        self.axes_, self.offset_, self.references_ = stage.axes, stage.offset, stage.rows
        self.coef_, self.intercept_ = stage.linear[self.strength_]
        self.propagated_ = stage.propagated[self.alpha_].astype(np.float32)
        self.label_distributions_ = self._training_probabilities(X)
        self.transduction_ = self.classes_[self.label_distributions_.argmax(axis=1)]
        return self

    def _training_probabilities(self, X: np.ndarray) -> np.ndarray:
        """Class probabilities of each row of `fit` (n_samples, n_classes) float32."""
        proba = np.empty((len(X), len(self.classes_)), np.float32)
        proba[self.reference_rows_] = self._combined(self.propagated_, self._logistic(self.references_))
        rest = np.setdiff1d(np.arange(len(X)), self.reference_rows_)
        if len(rest):
            proba[rest] = self.predict_proba(X[rest])
        return proba

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class for each row (n_samples, n_classes), in the order of `classes_`.

        Label propagation gives a new row the mean of its neighbors, weighted by affinity.
        """
        self._check_fitted()
        X = checked_rows(self, X, reset=False)
        Z = _projected(X, self.axes_, self.offset_)
        near, squared = _nearest(self.references_, Z, self.n_neighbors, own=None)
        return self._combined(_neighbor_mean(near, squared, self.propagated_), self._logistic(Z))

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of each row (n_samples,)."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def next_to_label(self, n: int = 10) -> np.ndarray:
        """The rows of `fit` whose labels would help most (n,) int64: the least certain ones that are not neighbors."""
        self._check_fitted()
        n = check_int(n, "n", type(self).__name__, low=0)
        confidence = self.label_distributions_[self.reference_rows_].max(axis=1)
        order = np.argsort(confidence, kind="stable")[: 50 * n]
        near, _ = _nearest(self.references_, self.references_[order], self.n_neighbors, own=order)
        chosen: list[int] = []
        excluded: set[int] = set()
        for row, neighbors in zip(order.tolist(), near.tolist(), strict=True):
            if len(chosen) < n and row not in excluded:
                chosen.append(row)
                excluded.update(neighbors)
        return self.reference_rows_[np.array(chosen, np.int64)]

    def _choose(
        self, validated: dict[Choice, np.ndarray], default: Choice, codes: np.ndarray, folds: np.ndarray
    ) -> Choice:
        """The best candidate; also sets the temperature and the cross-validated accuracy.

        The default is replaced only if another is better by more than three standard errors of the difference.
        """
        candidates, tested = list(validated), np.flatnonzero(folds >= 0)
        self.temperature_, self.accuracy_, self.accuracy_error_ = 1.0, math.nan, math.nan
        if not len(tested):
            return default
        correct = np.array([validated[name][tested].argmax(axis=1) == codes[tested] for name in candidates])
        log_likelihood = np.array([np.log(validated[name][tested, codes[tested]]).mean() for name in candidates])
        fallback = candidates.index(default)

        def best(where: np.ndarray) -> int:  # highest accuracy, then likelihood
            first = max(range(len(candidates)), key=lambda i: (correct[i, where].sum(), log_likelihood[i]))
            gain = correct[first, where].astype(int) - correct[fallback, where]
            return first if gain.sum() > 3 * math.sqrt(np.abs(gain).sum()) else fallback

        n_correct = sum(
            correct[best(folds[tested] != fold), folds[tested] == fold].sum() for fold in range(int(folds.max()) + 1)
        )
        self.accuracy_, self.accuracy_error_ = accuracy_and_error(n_correct, len(tested))
        name = candidates[best(np.ones(len(tested), bool))]
        proba, own = validated[name][tested], (np.arange(len(tested)), codes[tested])
        likelihoods = [np.log(_tempered(proba, t)[own]).sum() for t in TEMPERATURES]
        log_prior = -((np.log(TEMPERATURES) / PRIOR) ** 2) / 2
        self.temperature_ = float(TEMPERATURES[int(np.argmax(likelihoods + log_prior))])
        return name

    def _combined(self, propagated: np.ndarray, logistic: np.ndarray) -> np.ndarray:
        """Probabilities (n, n_classes) by the chosen method and temperature."""
        return _tempered(_combined(self.method_, propagated, logistic), self.temperature_)

    def _logistic(self, X: np.ndarray) -> np.ndarray:
        return _softmax(_logits(X, (self.coef_, self.intercept_)))


Linear = tuple[np.ndarray, np.ndarray]
"""Weights (n_classes, n_axes) and intercepts (n_classes,)."""


@dataclass(frozen=True)
class _Stage:
    """Labels propagated in one feature space (see `_projected`).

    `propagated` maps alpha to probabilities (n_samples, n_classes), `linear` C to a linear classifier.
    """

    axes: np.ndarray
    offset: np.ndarray | None
    rows: np.ndarray
    propagated: dict[float, np.ndarray]
    linear: dict[float, Linear]

    @property
    def proba(self) -> np.ndarray:
        """Probabilities (n_samples, n_classes) by the default method."""
        _, alpha, strength = DEFAULT
        return _combined("both", self.propagated[alpha], _softmax(_logits(self.rows, self.linear[strength])))


def _projected(X: np.ndarray, axes: np.ndarray, offset: np.ndarray | None) -> np.ndarray:
    """Rows (n, n_features) along axes (n_features, n_axes), or with an offset in a student's hidden layer."""
    return X @ axes if offset is None else hidden(X, axes, offset)


def _stages(
    X: np.ndarray, graph: csr_array, labeled: np.ndarray, codes: np.ndarray, *, k: int, n_neighbors: int, seed: int
) -> dict[str, _Stage]:
    """The labels `codes` of the rows `labeled`, propagated over X in each feature space."""

    def propagated(graph: csr_array) -> dict[float, np.ndarray]:
        return {alpha: _normalized(field) for alpha, field in _fields(graph, labeled, codes, k).items()}

    def stage_along(axes: np.ndarray, rows: np.ndarray, graph: csr_array) -> _Stage:
        linear = {strength: _linear_fit(rows[labeled], codes, strength, k) for strength in STRENGTHS}
        return _Stage(axes, None, rows, propagated(graph), linear)

    plain = stage = stage_along(np.eye(X.shape[1], dtype=np.float32), X, graph)
    for _ in range(ROUNDS if k > 1 else 0):
        labels = stage.proba.argmax(axis=1)
        labels[labeled] = codes
        axes = discriminant_axes(X, labels, k)
        if axes is None:
            break
        rows = X @ axes
        stage = stage_along(axes, rows, _graph(rows, n_neighbors))
    stages = {"features": plain, "axes": stage}
    if 1 < k <= len(X) // MIN_ROWS_PER_CLASS:
        for number in range(STUDENTS):
            proba = stage.proba
            proba = proba / proba.mean(axis=0)  # equal class masses, as in `_normalized`
            proba /= proba.sum(axis=1, keepdims=True)
            proba[labeled] = np.eye(k)[codes]
            student = train_student(X, proba, labeled, seeding.seed_of(seed, "student", number))
            rows = hidden(X, student.axes, student.offset)
            linear = dict.fromkeys(STRENGTHS, (student.coef, student.intercept))
            stage = _Stage(student.axes, student.offset, rows, propagated(_graph(rows, n_neighbors)), linear)
        stages["student"] = stage
    return stages


def _cross_validated(
    stages: Callable[[np.ndarray, np.ndarray], dict[str, _Stage]],
    labeled: np.ndarray,
    codes: np.ndarray,
    folds: np.ndarray,
    k: int,
) -> dict[Choice, np.ndarray]:
    """For each candidate the probabilities (n_labeled, n_classes) of each labeled row without its own fold."""
    validated: dict[Choice, np.ndarray] = {}
    for fold in range(int(folds.max()) + 1):
        test, train = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        for space, stage in stages(labeled[train], codes[train]).items():
            propagated = {alpha: proba[labeled[test]] for alpha, proba in stage.propagated.items()}
            logistic = {c: _softmax(_logits(stage.rows[labeled[test]], fit)) for c, fit in stage.linear.items()}
            found = {("propagation", alpha, 1.0): proba for alpha, proba in propagated.items()}
            found |= {("logistic", 0.9, c): proba for c, proba in logistic.items()}
            found |= {
                ("both", alpha, c): _combined("both", first, second)
                for alpha, first in propagated.items()
                for c, second in logistic.items()
            }
            for name, proba in found.items():
                every = validated.setdefault((space, *name), np.full((len(labeled), k), 1 / k))
                every[test] = _tempered(proba, 1.0)
    return validated


def _nearest(
    references: np.ndarray, X: np.ndarray, n_neighbors: int, own: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Neighbors (n, k) of X among references, and squared distances; `own` is the index of each row among them."""
    k = min(n_neighbors, len(references) - (own is not None))
    exclude = None if own is None else torch.from_numpy(own)
    if k < 1:
        return np.zeros((len(X), 1), np.int64), np.zeros((len(X), 1), np.float32)
    near, squared = k_nearest(as_tensor(references), as_tensor(X), k, exclude_self=exclude)
    return near.numpy(), squared.numpy()


def _graph(X: np.ndarray, n_neighbors: int) -> csr_array:
    """The normalized affinity S (n_samples, n_samples) of the equation at the top."""
    n = len(X)
    near, squared = _nearest(X, X, n_neighbors, own=np.arange(n))
    width = np.sqrt(squared[:, min(WIDTH_NEIGHBOR, squared.shape[1]) - 1]) + 1e-12
    affinity = np.exp(-squared / (width[:, None] * width[near])).astype(np.float32)
    k = near.shape[1]
    graph = csr_array((affinity.ravel(), near.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    graph = graph.maximum(graph.T)
    root = diags_array(1 / np.sqrt(np.maximum(graph.sum(axis=1), 1e-12)).astype(np.float32))
    return (root @ graph @ root).tocsr()


def _fields(graph: csr_array, labeled: np.ndarray, codes: np.ndarray, n_classes: int) -> dict[float, np.ndarray]:
    """For each alpha the field F (n_samples, n_classes) of the equation at the top."""
    step = np.zeros((graph.shape[0], n_classes), np.float32)
    step[labeled, codes] = 1
    fields = {alpha: step.copy() for alpha in ALPHAS}
    for t in range(1, STEPS + 1):
        step = graph @ step
        for alpha, field in fields.items():
            field += np.float32(alpha**t) * step
    return fields


def _linear_fit(X: np.ndarray, codes: np.ndarray, strength: float, n_classes: int) -> Linear:
    """Logistic regression; classes without a row get a very low intercept."""
    coef, intercept = np.zeros((n_classes, X.shape[1])), np.full(n_classes, -50.0)
    present = np.unique(codes)
    scale = max(float(X.std()), 1e-12)
    if len(present) == 1:
        intercept[present] = 0.0
        return coef, intercept
    with many_classes():
        model = LogisticRegression(C=strength, max_iter=1000).fit(X / scale, codes)
    if len(present) == 2:
        coef[present[1]], intercept[present] = model.coef_[0] / scale, [0.0, model.intercept_[0]]
    else:
        coef[present], intercept[present] = model.coef_ / scale, model.intercept_
    return coef, intercept


def _logits(X: np.ndarray, linear: Linear) -> np.ndarray:
    return X @ linear[0].T + linear[1]


def _normalized(field: np.ndarray) -> np.ndarray:
    """A field (n_samples, n_classes) as probabilities with equal class masses; uniform where no label reaches."""
    mass = field.sum(axis=0, dtype=np.float64)
    scaled = np.maximum(field / np.maximum(mass, 1e-30), 0.0)
    scaled += FLOOR * max(scaled.mean(), 1e-30)
    return scaled / scaled.sum(axis=1, keepdims=True)


def _neighbor_mean(near: np.ndarray, squared: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Mean probabilities (n_samples, n_classes) of neighbors (n, k), weighted by affinity."""
    width = np.maximum(squared[:, [min(WIDTH_NEIGHBOR, squared.shape[1]) - 1]], 1e-12)
    weight = np.exp(-squared / width)
    weight /= weight.sum(axis=1, keepdims=True)
    return np.einsum("nk,nkc->nc", weight, proba[near].astype(np.float64))


def _combined(method: str, propagated: np.ndarray, logistic: np.ndarray) -> np.ndarray:
    """The probabilities of one method, or the normalized geometric mean of both, at least `FLOOR`."""
    proba = {"propagation": propagated, "logistic": logistic}.get(method)
    proba = np.sqrt(np.maximum(propagated, FLOOR) * np.maximum(logistic, FLOOR)) if proba is None else proba
    proba = np.maximum(proba, FLOOR)
    return proba / proba.sum(axis=1, keepdims=True)


def _tempered(proba: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities whose logarithms are divided by a temperature."""
    return _softmax(np.log(np.maximum(proba, FLOOR)) / temperature)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)
