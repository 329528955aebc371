"""Outlier detection for the rows of an embedding, trained on data that may itself contain outliers.

The outlier score is the geometric mean of three measures, each divided by its median, so that 1 is typical:

    1. The radius of the ball around the row that holds a tenth of all rows. A small cluster of outliers stays far from
       the rest, whereas its ten nearest neighbors are close.
    2. The Mahalanobis distance, with the center and covariance of the four fifths of the rows that lie nearest to that
       center, found iteratively from those with the smallest radii.
    3. How many times smaller than a tenth of all rows the row's cluster is, at least 1. Clusters are cuts of Ward's
       tree over the directions of the rows, averaged geometrically over cuts into 7 to 14 clusters; a row takes the
       value of its five nearest references.

A random half of the rows is trained on, and the scores of the other half calibrate the threshold: split conformal
prediction. Of m calibration scores, a new row from the same distribution exceeds the l-th largest with probability
l / (m + 1), whatever the distribution; conditional on the m scores, that probability is distributed as
Beta(l, m + 1 - l).

References
----------
Chazal, F., Cohen-Steiner, D. and Mérigot, Q. (2011), "Geometric inference for probability measures", Foundations of
Computational Mathematics 11: the radius is their pseudo-distance of mass m, here 0.1.
Rousseeuw, P. and Van Driessen, K. (1999), "A fast algorithm for the minimum covariance determinant estimator",
Technometrics 41, section 3: the concentration steps; covariances are shrunk as in Ledoit and Wolf (2004).
Ward, J. (1963), "Hierarchical grouping to optimize an objective function", Journal of the American Statistical
Association 58.
He, Z., Xu, X. and Deng, S. (2003), "Discovering cluster-based local outliers", Pattern Recognition Letters 24: small
clusters are outliers.
Vovk, V. (2012), "Conditional validity of inductive conformal predictors", ACML, proposition 2b.
"""

from __future__ import annotations

import math
import warnings
from copy import copy
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist
from scipy.stats import beta
from sklearn.base import OutlierMixin
from sklearn.covariance import ledoit_wolf

from imatlas.errors import InputError, Notice
from imatlas.models.base import Estimator, Seed, estimator
from imatlas.models.learned_attributes import SIDE, VECTORS, Array, State, Value
from imatlas.models.parts.rows import checked_rows
from imatlas.neighbors import ROUNDING, all_distances, as_tensor, k_nearest
from imatlas.system.threads import sharing_cores
from imatlas.system.workers import Workers, by_rows

MIN_ROWS = 4
"""Fewest rows to fit on."""

MAX_REFERENCES = 4096
"""Maximum number of rows of a half that distances are taken to, so that time stays linear."""

MAX_COVARIANCE_ROWS = 20_000
"""Maximum number of rows of a half that its covariance is estimated from."""

STEPS = 10
"""Maximum number of concentration steps."""

CUTS = (0.7, 1.4)
"""Smallest and largest number of clusters the tree is cut into, as multiples of 1 / `mass`."""

N_VOTES = 5
"""Nearest references that give a row its cluster size."""

CHUNK = 2048
"""Rows per distance matrix, which bounds memory."""

CONFIDENCE = 0.95
"""Probability with which the false positive rate stays below `false_positive_bound_`."""


@estimator
class OutlierDetector(OutlierMixin, Estimator):
    """Detector of outliers with a controlled false positive rate; the training rows may contain outliers.

    A new row from the distribution of the training rows is called an outlier (-1) with a probability of at most about
    `false_positive_rate`. Outliers among the training rows raise the threshold: the false positive rate falls, and at
    most about a share of `false_positive_rate` of such a set is called outliers. Raise the rate to find more.

    Time grows linearly with the number of rows.

    Attributes
    ----------
    outlier_scores_ : ndarray (n_samples,) float32
        Score of each training row from the half that it is not in; 1 is typical, higher is more unusual.
    p_values_ : ndarray (n_samples,) float32
        Share of the rows of its own half with at least the score of each row, itself included.
    threshold_ : float
        Score above which a row is an outlier; infinite if there are too few calibration rows for the rate.
    offset_ : float
        The threshold in terms of `score_samples`, where `decision_function` is 0.
    n_calibration_ : int
        Number of rows that the threshold is calibrated on.
    false_positive_bound_ : float
        Upper bound on the false positive rate that holds with probability 0.95 over draws of the calibration rows.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(400, 5))
    >>> OutlierDetector().fit(X).predict([[0, 0, 0, 0, 0], [9, 9, 9, 9, 9]]).tolist()
    [1, -1]
    """

    false_positive_rate: Annotated[
        float, Field(gt=0, le=0.5, description="share of ordinary rows that may be called outliers, 0.01 for 1 %")
    ] = 0.01
    mass: Annotated[
        float, Field(gt=0, le=0.5, description="share of the rows that exceeds the size of any cluster of outliers")
    ] = 0.1
    trim: Annotated[
        float, Field(ge=0, lt=0.5, description="share of the rows that the covariance estimate leaves out")
    ] = 0.2
    random_state: Seed = 0
    _state: ClassVar[State] = {
        **VECTORS,
        "outlier_scores_": Array("float32", "n_samples", low=0),
        "p_values_": Array("float32", "n_samples", low=0, high=1),
        "references_": Array("float32", "n_references", "n_features_in_"),
        "smallness_": Array("float64", "n_references", low=0.5),
        "center_": Array("float64", "n_features_in_"),
        "precision_": Array("float64", "n_features_in_", "n_features_in_"),
        "medians_": Array("float64", 3, low=0),
        "n_calibration_": Value(SIDE),
        "calibration_": Array("float32", "n_calibration_", low=0),
        "threshold_": Value(float),
        "offset_": Value(float),
        "false_positive_bound_": Value(Annotated[float, Field(ge=0, le=1)]),
    }

    @sharing_cores()
    def fit(self, X: Any, y: Any = None, *, workers: Workers | None = None) -> OutlierDetector:
        """Fit the measures and calibrate the threshold.

        Parameters
        ----------
        X : array-like (n_samples, n_features)
            An embedding in which similar items lie close together.
        y : ignored
        workers : imatlas.system.workers.Workers, optional
            They score the rows, in parts.

        Raises
        ------
        ParameterError, InputError, ValueError
            If a parameter is invalid, there are fewer than 4 rows, or values are not finite.
        """
        self._check_parameters()
        X = checked_rows(self, X)
        if len(X) < MIN_ROWS:
            raise InputError(f"OutlierDetector needs at least {MIN_ROWS} rows. Got n_samples={len(X)}; add more.")
        rng = np.random.default_rng(self._seed())
        order = rng.permutation(len(X))
        self.outlier_scores_ = np.empty(len(X), np.float32)
        self.p_values_ = np.empty(len(X), np.float32)
        train, calibration = order[: len(X) // 2], order[len(X) // 2 :]
        for own, others in ((calibration, train), (train, calibration)):  # the half that is kept comes last
            self._learn(X[own], X[others], rng)
            scores = np.concatenate(by_rows(self._outlier_scores, X[others], workers))
            self.outlier_scores_[others] = scores
            self.p_values_[others] = _p_values(scores, scores) * (1 + 1 / len(scores)) - 1 / len(scores)
        return self._calibrate(self.outlier_scores_[calibration])

    def score_samples(self, X: Any) -> np.ndarray:
        """Return minus the outlier score of each row (n_samples,): -1 is typical, lower is more unusual."""
        self._check_fitted()
        X = checked_rows(self, X, reset=False)
        return -self._outlier_scores(X).astype(np.float64)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return `score_samples` minus the threshold (n_samples,): below 0 is an outlier.

        With an infinite threshold it is 1 / outlier score, which keeps the order of the rows.
        """
        scores = self.score_samples(X)
        return scores - self.offset_ if np.isfinite(self.threshold_) else 1 / np.maximum(-scores, 1e-12)

    def predict(self, X: Any) -> np.ndarray:
        """Return -1 for outliers and 1 for ordinary rows (n_samples,).

        Warns if there were too few training rows for any row to be called an outlier.
        """
        self._check_fitted()
        if not np.isfinite(self.threshold_):
            lowest, needed = 1 / (self.n_calibration_ + 1), 2 * math.ceil(1 / self.false_positive_rate)
            warnings.warn(
                f"No row can be called an outlier at false_positive_rate={self.false_positive_rate:g} with "
                f"{self.n_calibration_} calibration rows; fit on at least {needed:,} rows, set false_positive_rate to "
                f"at least {math.ceil(1000 * lowest) / 1000:g}, or rank rows by score_samples.",
                Notice,
                stacklevel=2,
            )
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: Any) -> np.ndarray:
        """Return the probability that an ordinary row scores at least as high as each row (n_samples,), in (0, 1].

        For rows from the distribution of the training rows, P(p-value <= p) <= p.
        """
        return self.p_values_of(-self.score_samples(X))

    def p_values_of(self, scores: np.ndarray) -> np.ndarray:
        """Return `p_values` of rows whose outlier scores (n_samples,) are known."""
        self._check_fitted()
        return _p_values(scores, self.calibration_)

    def at_rate(self, false_positive_rate: float) -> OutlierDetector:
        """Return this fitted detector with another false positive rate: only the threshold is set anew.

        Raises
        ------
        ParameterError, NotFittedError
            If the rate is out of range, or this one is not fitted.
        """
        self._check_fitted()
        other = copy(self).set_params(false_positive_rate=false_positive_rate)
        other._check_parameters()
        return other._calibrate(self.calibration_)

    def _learn(self, X: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> None:
        """Fit the three measures to rows (n, n_features), and their medians to rows of the other half."""
        self.references_ = _sample(X, MAX_REFERENCES, rng)
        self.smallness_ = _cluster_smallness(_directions(self.references_), self.mass)
        rows = _sample(X, MAX_COVARIANCE_ROWS, rng)
        self.center_, self.precision_ = _concentrated(rows, 1 - self.trim, self._radii(rows))
        measures = self._measures(_sample(others, MAX_REFERENCES, rng))
        self.medians_ = np.array([_median(measure) for measure in measures])

    def _measures(self, X: np.ndarray) -> np.ndarray:
        """Radius, Mahalanobis distance and smallness of the cluster of rows (n, n_features): (3, n)."""
        return np.stack([self._radii(X), np.sqrt(_mahalanobis(X, self.center_, self.precision_)), self._smallness(X)])

    def _radii(self, X: np.ndarray) -> np.ndarray:
        """Radius (n,) of the ball around each row (n, n_features) that holds a share `mass` of the references."""
        k = max(1, round(self.mass * len(self.references_)))
        references, out = as_tensor(self.references_), np.empty(len(X))
        for start in range(0, len(X), CHUNK):
            distances = all_distances(as_tensor(X[start : start + CHUNK]), references)
            out[start : start + CHUNK] = distances.kthvalue(k, dim=1).values.numpy()
        return out

    def _outlier_scores(self, X: np.ndarray) -> np.ndarray:
        """Outlier scores (n,) float32 of rows (n, n_features); 1 is typical."""
        # The floor makes rows that are equal up to rounding score alike, even if all training rows are.
        floor = ROUNDING * max(float(np.abs(self.references_).max()), 1e-12) * np.sqrt(X.shape[1])
        measures, medians = np.maximum(self._measures(X), floor), np.maximum(self.medians_[:, None], floor)
        return np.cbrt((measures / medians).prod(axis=0)).astype(np.float32)

    def _smallness(self, X: np.ndarray) -> np.ndarray:
        """How many times smaller than `mass` the cluster of each row (n, n_features) is: (n,), at least 1."""
        near = k_nearest(_directions(self.references_), _directions(X), min(N_VOTES, len(self.references_)))[0]
        return np.exp(np.log(self.smallness_)[near.numpy()].mean(axis=1))

    def _calibrate(self, scores: np.ndarray) -> OutlierDetector:
        """Set the threshold from the scores (m,) of the calibration rows."""
        m = len(scores)
        n_above = int(self.false_positive_rate * (m + 1) * (1 + 1e-9))
        self.calibration_, self.n_calibration_ = np.sort(scores), m
        self.threshold_ = float(self.calibration_[m - n_above]) if n_above else np.inf
        self.offset_ = -self.threshold_
        self.false_positive_bound_ = float(beta.ppf(CONFIDENCE, n_above, m + 1 - n_above)) if n_above else 0.0
        return self


def _concentrated(X: np.ndarray, share: float, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Center (n_features,) and precision (n_features, n_features) of the given share of the rows nearest to the center.

    Starts from the rows with the smallest radii (n,), since a cluster of outliers can mask itself by distorting the
    covariance of all rows. Each step re-estimates both from the nearest rows, until these stay the same.
    """
    rows = X.astype(np.float64)
    n = max(2, round(share * len(rows)))
    kept = np.sort(np.argsort(radii, kind="stable")[:n])
    for _ in range(STEPS):
        center = rows[kept].mean(axis=0)
        covariance = ledoit_wolf(rows[kept] - center, assume_centered=True)[0]
        level = np.trace(covariance) / len(covariance)
        precision = np.linalg.inv(covariance + (1e-6 * level or 1.0) * np.eye(len(covariance)))
        nearest = np.sort(np.argsort(_mahalanobis(rows, center, precision), kind="stable")[:n])
        if np.array_equal(nearest, kept):
            break
        kept = nearest
    return center, precision


def _mahalanobis(X: np.ndarray, center: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distances (n,) of rows to a center."""
    centered = X - center
    return np.maximum(np.einsum("ij,ij->i", centered @ precision, centered), 0.0)


def _directions(X: np.ndarray) -> torch.Tensor:
    """Rows (n, n_features) scaled to length 1; zero rows stay zero."""
    return torch.nn.functional.normalize(as_tensor(X))


def _cluster_smallness(directions: torch.Tensor, mass: float) -> np.ndarray:
    """How many times smaller than the share `mass` the cluster of each row is (n,), at least 1; averaged over cuts."""
    n = len(directions)
    tree = linkage(pdist(directions.double().numpy()), "ward")  # rows that resemble a distance matrix raise a warning
    cuts = range(max(2, round(CUTS[0] / mass)), round(CUTS[1] / mass) + 1)
    total = np.zeros(n)
    for n_clusters in cuts:
        cluster = fcluster(tree, n_clusters, "maxclust")
        total += np.log(np.maximum(1.0, mass * n / np.bincount(cluster)[cluster]))
    return np.exp(total / max(1, len(cuts)))


def _median(measure: np.ndarray) -> float:
    """Median; if it is 0, since most rows are duplicates, the mean."""
    return float(np.median(measure)) or float(measure.mean())


def _sample(X: np.ndarray, n_max: int, rng: np.random.Generator) -> np.ndarray:
    """All rows, or a random sample of `n_max` of them in their order."""
    return X if len(X) <= n_max else X[np.sort(rng.choice(len(X), n_max, replace=False))]


def _p_values(scores: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """Conformal p-values (n,): share of the calibration scores and the score itself that are at least as high."""
    n_lower = np.searchsorted(np.sort(calibration), scores, side="left")
    return (1 + len(calibration) - n_lower) / (1 + len(calibration))
