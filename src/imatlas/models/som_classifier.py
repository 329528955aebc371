"""Classifier on a self-organizing map: a few labels are propagated over the cells.

Zhou, D. et al. (2003), "Learning with local and global consistency", NIPS: label propagation over a graph.
Liu, W., He, J. and Chang, S.-F. (2010), "Large graph construction for scalable semi-supervised learning", ICML: the
nodes of the graph are a few anchors, and rows take the labels of the anchors around them. Here the anchors are the
cells of a self-organizing map. With memberships Z (n_samples, n_cells) of the rows in their nearest cells and the
one-hot labels Y (n_samples, n_classes), 0 where unknown ::

    W = ZᵀZ + 0.01 A,    S = D^(-1/2) W D^(-1/2),    F = (I - alpha S)^(-1) ZᵀY

so that two cells are linked by the rows between them; A, the adjacency of cells on the lattice, links those without
rows between them. A row's class probabilities are Z times the rows of F, scaled to sum 1.
"""

from __future__ import annotations

import math
import warnings
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy.linalg import solve
from scipy.sparse import csr_array
from sklearn.base import ClassifierMixin, clone

from imatlas import models
from imatlas.errors import ParameterError
from imatlas.lattice.geometry import neighbor_table
from imatlas.models.base import Estimator, Seed, estimator
from imatlas.models.learned_attributes import COUNT, FINITE, VECTORS, Array, Fitted, Labels, State, Value
from imatlas.models.parts.labels import accuracy_and_error, folds_of, some_labels, split_labels
from imatlas.models.parts.rows import checked_rows
from imatlas.system.threads import sharing_cores

ALPHAS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Candidates for alpha."""

DEFAULT_ALPHA = 0.95
"""Alpha without cross-validation; the candidate nearest to it wins a tie."""

N_CELLS = 5
"""Nearest cells that a row is a member of."""

ADJACENCY = 0.01
"""Affinity of adjacent cells, which links cells without rows between them."""

CHUNK = 4096
"""Rows per distance matrix."""


@estimator
class SOMClassifier(ClassifierMixin, Estimator):
    """Semi-supervised classifier that propagates a few labels over the cells of a self-organizing map.

    The map is learned from all rows, without labels. A row of `y` is unlabeled where it is -1, NaN or None. So
    -1 cannot be a class; the text "-1" can.

    Attributes
    ----------
    som_ : SOM
        The map: `som` itself if it is fitted, else a fitted copy.
    classes_ : ndarray (n_classes,)
    cell_probabilities_ : ndarray (n_cells, n_classes) float64
        Class probabilities of each cell.
    alpha_ : float
        How far labels spread, as given or chosen.
    accuracy_ : float
        Cross-validated accuracy on the labeled rows, alpha being chosen on the other folds. NaN if no class has two
        labeled rows. The only row of a class stays in training and is not counted.
    accuracy_error_ : float
        Standard error of `accuracy_`: sqrt(p (1 - p) / n), p = (n_correct + 1) / (n + 2).
    n_folds_ : int
        Folds behind `accuracy_`; 0 without cross-validation.
    n_labeled_ : int

    Notes
    -----
    Where `alpha` is None it is the one of `ALPHAS` with the highest cross-validated accuracy; 0.95 if no class has two
    labeled rows. Time and memory besides the map's grow with n_samples and with n_cells².

    `sklearn.base.clone`, as in cross-validation, drops the fit of the map, which is then fitted again.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.vstack([np.zeros((30, 2)), np.ones((30, 2))]) + np.random.default_rng(0).normal(scale=0.1, size=(60, 2))
    >>> y = np.full(60, -1)
    >>> y[[0, 30]] = 0, 1
    >>> SOMClassifier().fit(X, y).predict([[0, 0], [1, 1]]).tolist()
    [0, 1]
    """

    som: Annotated[Estimator | None, Field(description="the map: a fitted one is used as it is; None: SOM()")] = None
    alpha: Annotated[
        float | None, Field(ge=0, lt=1, description="how far labels spread, 0 to 1; None: cross-validated")
    ] = None
    n_folds: Annotated[int, Field(ge=2, description="folds of the cross-validation on the labeled rows")] = 5
    random_state: Seed = 0
    labels = "required"

    _state: ClassVar[State] = {
        **VECTORS,
        "som_": Fitted(("SOM",)),
        "classes_": Labels("n_classes", distinct=True),
        "cell_probabilities_": Array("float64", "som_.rows_*som_.cols_", "n_classes", low=0, high=1),
        "n_labeled_": Value(COUNT),
        "n_folds_": Value(COUNT),
        "alpha_": Value(FINITE),
        "accuracy_": Value(float),
        "accuracy_error_": Value(float),
    }

    @sharing_cores()
    def fit(self, X: Any, y: Any = None) -> SOMClassifier:
        """Learn the map from all rows and propagate the labels over it.

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
        self.som_ = self._fitted_map(X)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        memberships = _memberships(self.som_, X)
        graph = _graph(memberships, self.som_)
        labeled = memberships[np.flatnonzero(known)]
        folds = folds_of(codes, self.n_folds, self._seed())
        self.n_labeled_, self.n_folds_ = len(codes), int(folds.max()) + 1
        alphas = ALPHAS if self.alpha is None else (float(self.alpha),)
        fields = [_fields(graph, alpha, labeled, codes, folds) for alpha in alphas]
        n_correct = np.array([_n_correct(labeled, codes, folds, field) for field in fields])
        chosen = _best(alphas, np.einsum("aff->a", n_correct))
        self.alpha_ = alphas[chosen]
        self.cell_probabilities_ = _normalized(fields[chosen].sum(axis=1))
        self.accuracy_, self.accuracy_error_ = _accuracy(alphas, n_correct, int((folds >= 0).sum()))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class for each row (n_samples, n_classes), in the order of `classes_`."""
        self._check_fitted()
        X = checked_rows(self, X, reset=False)
        return _memberships(self.som_, X) @ self.cell_probabilities_

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of each row (n_samples,)."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on the labeled rows; NaN if there are none."""
        known, labels = split_labels(y, type(self).__name__)
        correct = self.predict(X)[known] == labels
        weights = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(np.average(correct, weights=weights)) if len(correct) else math.nan

    def _contradiction(self) -> str:
        n_features = self.som_.n_features_in_
        return "" if n_features == self.n_features_in_ else f"'som_' was fitted to {n_features} features"

    def _fitted_map(self, X: np.ndarray) -> Any:
        """The given map if it is fitted; else a copy of it, or a new one, fitted to `X`."""
        som = models.model_class("som")(random_state=self._seed()) if self.som is None else self.som
        if not hasattr(som, "topology"):
            raise ParameterError(
                f"The 'som' parameter of {type(self).__name__} must be a SOM or None. Got {self.som!r} instead."
            )
        return som if hasattr(som, "codebook_") else clone(som).fit(X)


def _memberships(som: Any, X: np.ndarray) -> csr_array:
    """Memberships of each row in its nearest cells (n_samples, n_cells), each row of sum 1.

    The weight of a cell is exp(-2 gap / mean gap), the gap being the difference of its squared distance from that of
    the best matching unit, as in `SOM.project`.
    """
    n_cells = len(som.codebook_)
    k = min(N_CELLS, n_cells)
    shares, cells = np.ones((len(X), k)), np.zeros((len(X), k), dtype=np.int64)
    for start in range(0, len(X), CHUNK):
        with warnings.catch_warnings():  # the map may have feature names, which were checked before
            warnings.filterwarnings("ignore", message="X does not have valid feature names", category=UserWarning)
            distances = torch.from_numpy(som.transform(X[start : start + CHUNK]))
        found = torch.topk(distances, k, dim=1, largest=False)
        gaps = found.values.double().square_()
        gaps -= gaps[:, :1].clone()
        scale = gaps[:, 1:].mean(dim=1, keepdim=True).clamp_(min=1e-30) if k > 1 else 1.0
        weights = torch.exp(-2 * gaps / scale)
        stop = start + len(weights)
        shares[start:stop] = (weights / weights.sum(dim=1, keepdim=True)).numpy()
        cells[start:stop] = found.indices.numpy()
    return csr_array((shares.ravel(), cells.ravel(), np.arange(0, cells.size + 1, k)), shape=(len(X), n_cells))


def _graph(memberships: csr_array, som: Any) -> np.ndarray:
    """The normalized affinity S (n_cells, n_cells) of the equation at the top."""
    affinity = (memberships.T @ memberships).toarray()
    table = neighbor_table(som.rows_, som.cols_, som.topology, som.toroidal)
    cell, slot = np.nonzero(table >= 0)
    affinity[cell, table[cell, slot]] += ADJACENCY
    root = np.sqrt(np.maximum(affinity.sum(axis=1), 1e-30))
    return affinity / root[:, None] / root


def _fields(graph: np.ndarray, alpha: float, labeled: csr_array, codes: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """The field F (n_cells, n_folds + 1, n_classes) of the labels of each fold; the last one is that of fold -1.

    Fields add up, so leaving folds out needs no new solution.
    """
    n_folds, n_classes = int(folds.max()) + 1, int(codes.max()) + 1
    column = np.where(folds < 0, n_folds, folds) * n_classes + codes
    one_hot = csr_array(
        (np.ones(len(codes)), (np.arange(len(codes)), column)), shape=(len(codes), (n_folds + 1) * n_classes)
    )
    sources = (labeled.T @ one_hot).toarray()
    field = solve(np.eye(len(graph)) - alpha * graph, sources, assume_a="pos") if alpha else sources
    return field.reshape(len(graph), n_folds + 1, n_classes)


def _normalized(field: np.ndarray) -> np.ndarray:
    """A field (n_cells, n_classes) as probabilities; uniform for a cell that no label reaches."""
    field = np.maximum(field, 0) + (1e-12 * field.max() or 1.0)
    return field / field.sum(axis=1, keepdims=True)


def _n_correct(labeled: csr_array, codes: np.ndarray, folds: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Number of correct rows of fold g without the labels of folds f and g: (n_folds, n_folds), indexed [f, g]."""
    n_folds = field.shape[1] - 1
    total = field.sum(axis=1)
    n_correct = np.zeros((n_folds, n_folds))
    for g in range(n_folds):
        rows = np.flatnonzero(folds == g)
        held_out = labeled[rows]
        for f in range(n_folds):
            others = total - field[:, g] - (field[:, f] if f != g else 0)
            n_correct[f, g] = ((held_out @ _normalized(others)).argmax(axis=1) == codes[rows]).sum()
    return n_correct


def _best(alphas: tuple[float, ...], n_correct: np.ndarray) -> int:
    """The index of the alpha with the most correct rows; of equals, the one nearest to the default."""
    return min(range(len(alphas)), key=lambda i: (-n_correct[i], abs(alphas[i] - DEFAULT_ALPHA)))


def _accuracy(alphas: tuple[float, ...], n_correct: np.ndarray, n_tested: int) -> tuple[float, float]:
    """Accuracy, alpha being chosen on the other folds, and its standard error; NaN if no row was tested."""
    if not n_tested:
        return math.nan, math.nan
    total = 0.0
    for f in range(n_correct.shape[1]):
        others = n_correct[:, f].sum(axis=1) - n_correct[:, f, f]
        total += n_correct[_best(alphas, others), f, f]
    return accuracy_and_error(total, n_tested)
