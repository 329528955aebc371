"""A map as a classifier: a few labels, stretched over all rows along the paths that the unlabeled rows show.

Zhou, D. et al. (2003), "Learning with local and global consistency", NIPS: labels spread over a graph.
Liu, W., He, J. and Chang, S.-F. (2010), "Large graph construction for scalable semi-supervised learning", ICML: the
graph joins few anchors instead of all rows, and rows share the labels of the anchors around them. Here the anchors are
the cells of a self-organizing map. With Z (n_samples, n_cells) how much each row belongs to the cells nearest to it and
Y (n_samples, n_classes) the labels that are known ::

    W = ZᵀZ + 0.01 A,    S = D^(-1/2) W D^(-1/2),    F = (I - alpha S)^(-1) ZᵀY

so that two cells are joined by as many rows as lie between them; A, the cells that touch on the lattice, joins those
between which no row lies. A row's class probabilities are Z times the rows of F, each of sum 1. With 200 labels of
Fashion-MNIST's 60,000 rows this was right for 0.73 of the test rows at the best alpha and for 0.72 at the one that it
chose itself; a Gaussian in place of F for 0.69 at its best radius on the distance of cells on the lattice, and for 0.71
on that of their prototypes.
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
from imatlas.models.learned import COUNT, FINITE, VECTORS, Array, Fitted, Labels, State, Value
from imatlas.models.parts.labels import folds_of, share_and_error, some_labels, split_labels
from imatlas.models.parts.rows import checked_rows
from imatlas.system.threads import sharing_cores

ALPHAS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
"""What alpha is chosen from."""

USUAL = 0.95
"""Alpha where there are too few labels to choose by, and what breaks ties."""

NEAREST = 5
"""Cells that a row belongs to. 3 to 8 gave the same accuracy to 0.01."""

TOUCH = 0.01
"""Rows that the border of two cells counts for: it joins cells between which no row lies, and changes little else."""

CHUNK = 4096
"""Rows whose distances to all cells are held at a time."""


@estimator
class SOMClassifier(ClassifierMixin, Estimator):
    """Stretch the labels of a few rows over all rows by a self-organizing map.

    The map is learned from all rows and never sees a label. A row of `y` is unlabeled where it is -1, NaN or None. So
    -1 cannot be a class; the text "-1" can.

    Attributes
    ----------
    som_ : SOM
        The map: `som` itself where that is fitted, else a copy of it that `fit` fitted.
    classes_ : ndarray (n_classes,)
    cell_probabilities_ : ndarray (n_cells, n_classes) float64
        Class probabilities of each cell, to paint the map with.
    alpha_ : float
        How far labels were spread, as given or chosen.
    accuracy_ : float
        Share of labeled rows that are right while they, with the rest of their fold, count as unlabeled. Alpha is
        chosen anew for each fold, without its labels. NaN where no class has two labeled rows. Rows that are the only
        ones of their class stay in training and are not counted.
    accuracy_error_ : float
        Standard error of that share for so many rows: sqrt(p (1 - p) / n), p = (right + 1) / (n + 2). Over 25 draws of
        20 to 100 labels of clothes, `accuracy_` missed the truth by 1.0 to 1.3 such errors (root mean square).
    n_folds_ : int
        Folds behind `accuracy_`; 0 where there are none.
    n_labeled_ : int

    Notes
    -----
    Where `alpha` is None it is the one of `ALPHAS` that is right for most labeled rows in cross-validation; 0.95 where
    no class has two of them. Time and memory besides the map's grow with n_samples and with n_cells².

    A copy that `sklearn.base.clone` makes, as in cross-validation, forgets that its map was fitted and fits it again.

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
    n_folds: Annotated[int, Field(ge=2, description="folds of the cross-validation over labeled rows")] = 5
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
        """Learn the map of all rows, and stretch the labels over it.

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
        self.som_ = self._fitted_map(X)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        member = _memberships(self.som_, X)
        links = _links(member, self.som_)
        labeled = member[np.flatnonzero(known)]
        folds = folds_of(codes, self.n_folds, self._seed())
        self.n_labeled_, self.n_folds_ = len(codes), int(folds.max()) + 1
        alphas = ALPHAS if self.alpha is None else (float(self.alpha),)
        fields = [_spread(links, alpha, labeled, codes, folds) for alpha in alphas]
        right = np.array([_right(labeled, codes, folds, field) for field in fields])
        chosen = _best(alphas, np.einsum("aff->a", right))
        self.alpha_ = alphas[chosen]
        self.cell_probabilities_ = _shares(fields[chosen].sum(axis=1))
        self.accuracy_, self.accuracy_error_ = _accuracy(alphas, right, int((folds >= 0).sum()))
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
        """Return the share of rows that are right; rows without a label do not count, and NaN where all are such."""
        known, labels = split_labels(y, type(self).__name__)
        right = self.predict(X)[known] == labels
        weights = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(np.average(right, weights=weights)) if len(right) else math.nan

    def _contradiction(self) -> str:
        n_features = self.som_.n_features_in_
        return "" if n_features == self.n_features_in_ else f"'som_' is of vectors of {n_features} numbers"

    def _fitted_map(self, X: np.ndarray) -> Any:
        """The map that was given where it is fitted; else a copy of it, or a new one, that is fitted to `X`."""
        som = models.model_class("som")(random_state=self._seed()) if self.som is None else self.som
        if not hasattr(som, "topology"):
            raise ParameterError(
                f"The 'som' parameter of {type(self).__name__} must be a SOM or None. Got {self.som!r} instead."
            )
        return som if hasattr(som, "codebook_") else clone(som).fit(X)


def _memberships(som: Any, X: np.ndarray) -> csr_array:
    """How much each row belongs to the cells nearest to it (n_samples, n_cells), each row of sum 1.

    A cell's share falls with how much farther than the best cell it is: exp(-2 gap / mean gap of the others), gaps of
    squared distances. This is the weight by which `SOM.project` places a row, and has no scale to be chosen.
    """
    n_cells = len(som.codebook_)
    k = min(NEAREST, n_cells)
    shares, cells = np.ones((len(X), k)), np.zeros((len(X), k), dtype=np.int64)
    for start in range(0, len(X), CHUNK):
        with warnings.catch_warnings():  # the map may know the names of the columns, which were checked by now
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


def _links(member: csr_array, som: Any) -> np.ndarray:
    """The normalized links S (n_cells, n_cells) of the cells, as the top of this file defines them."""
    links = (member.T @ member).toarray()
    table = neighbor_table(som.rows_, som.cols_, som.topology, getattr(som, "toroidal", False))
    cell, slot = np.nonzero(table >= 0)
    links[cell, table[cell, slot]] += TOUCH
    root = np.sqrt(np.maximum(links.sum(axis=1), 1e-30))
    return links / root[:, None] / root


def _spread(links: np.ndarray, alpha: float, labeled: csr_array, codes: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """What the labels of each fold lend to each cell (n_cells, n_folds + 1, n_classes); the last are those of fold -1.

    The field of several folds is the sum of theirs, so leaving folds out costs nothing more.
    """
    n_folds, n_classes = int(folds.max()) + 1, int(codes.max()) + 1
    column = np.where(folds < 0, n_folds, folds) * n_classes + codes
    hot = csr_array(
        (np.ones(len(codes)), (np.arange(len(codes)), column)), shape=(len(codes), (n_folds + 1) * n_classes)
    )
    sources = (labeled.T @ hot).toarray()
    field = solve(np.eye(len(links)) - alpha * links, sources, assume_a="pos") if alpha else sources
    return field.reshape(len(links), n_folds + 1, n_classes)


def _shares(field: np.ndarray) -> np.ndarray:
    """A field (n_cells, n_classes) as probabilities; all alike for a cell that no label reaches."""
    field = np.maximum(field, 0) + (1e-12 * field.max() or 1.0)
    return field / field.sum(axis=1, keepdims=True)


def _right(labeled: csr_array, codes: np.ndarray, folds: np.ndarray, field: np.ndarray) -> np.ndarray:
    """How many rows of fold g are right where the labels of folds f and g are not known (n_folds, n_folds)."""
    n_folds = field.shape[1] - 1
    total = field.sum(axis=1)
    right = np.zeros((n_folds, n_folds))
    for g in range(n_folds):
        rows = np.flatnonzero(folds == g)
        mine = labeled[rows]
        for f in range(n_folds):
            left = total - field[:, g] - (field[:, f] if f != g else 0)
            right[f, g] = ((mine @ _shares(left)).argmax(axis=1) == codes[rows]).sum()
    return right


def _best(alphas: tuple[float, ...], right: np.ndarray) -> int:
    """The place of the alpha with most rows right; the one nearest to the usual one among equals."""
    return min(range(len(alphas)), key=lambda i: (-right[i], abs(alphas[i] - USUAL)))


def _accuracy(alphas: tuple[float, ...], right: np.ndarray, n_tested: int) -> tuple[float, float]:
    """Share of right rows, alpha chosen for each fold without it, and its standard error; NaN where none was tested."""
    if not n_tested:
        return math.nan, math.nan
    n_right = 0.0
    for f in range(right.shape[1]):
        others = right[:, f].sum(axis=1) - right[:, f, f]
        n_right += right[_best(alphas, others), f, f]
    return share_and_error(n_right, n_tested)
