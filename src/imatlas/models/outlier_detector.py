"""Which rows of an embedding are odd, learned from a set that holds odd ones itself, at a given rate of false alarms.

Oddness is the geometric mean of three numbers, each over its median, so that 1 is ordinary:

    1. The radius within which a tenth of all rows lies. A group of odd rows that is smaller than that cannot vouch for
       itself, as it does among ten neighbors.
    2. Mahalanobis' distance, with the center and covariance of the four fifths of the rows nearest to that center,
       found step by step from those with the smallest radii.
    3. How many times smaller than a tenth of all rows the group is that the row falls in, 1 for larger ones. Odd rows
       amid ordinary ones are near, but a group by themselves. Groups are those of Ward's tree over the directions of
       the rows, the geometric mean over cuts into 7 to 14 of them; the five nearest rows say what a row falls in.

Chazal, F., Cohen-Steiner, D. and Mérigot, Q. (2011), "Geometric inference for probability measures", Foundations of
Computational Mathematics 11: the radius is their pseudo-distance of mass m, here 0.1; its mean over smaller masses, the
distance to a measure, told odd images apart no better, and tight groups of them worse. Rousseeuw, P. and
Van Driessen, K. (1999), "A fast algorithm for the minimum covariance determinant estimator", Technometrics 41, section
3: the steps that concentrate the rows; covariances are shrunken as Ledoit and Wolf (2004) do. Ward, J. (1963),
"Hierarchical grouping to optimize an objective function", Journal of the American Statistical Association 58. That
small groups are odd: He, Z., Xu, X. and Deng, S. (2003), "Discovering cluster-based local outliers", Pattern
Recognition Letters 24.

The rows are divided at random. One half is learned from, and the oddness of the other half says how odd ordinary rows
are: split conformal prediction. Of m such rows, a new one drawn as they were is odder than the l-th oddest with
probability l / (m + 1), whatever the distribution; given these m, that share is a draw from Beta(l, m + 1 - l). Vovk
(2012), "Conditional validity of inductive conformal predictors", ACML, proposition 2b.
"""

from __future__ import annotations

import math
import warnings
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
from imatlas.models.learned import SIDE, VECTORS, Array, State, Value
from imatlas.models.parts.rows import checked_rows
from imatlas.neighbors import ROUNDING, all_distances, as_tensor, k_nearest
from imatlas.system.threads import sharing_cores

FEWEST = 4
"""Rows below which nothing can be told odd."""

MOST_REFERENCES = 4096
"""Rows of a half that distances are taken to, drawn at random where there are more, so that time stays linear."""

MOST_LEARNED = 20_000
"""Rows of a half that its covariance is learned from."""

STEPS = 10
"""Most steps that concentrate the rows; on a thousand photographs they rest after 5 to 8."""

CUTS = (0.7, 1.4)
"""Groups that the tree is cut into, from and to, as multiples of the number of groups that would hold `mass` each."""

N_VOTES = 5
"""Nearest rows that say how small the group is that a row falls in."""

CHUNK = 2048
"""Rows that are looked at together: bounds the memory for their neighbors."""

SURE = 0.95
"""How sure `false_alarm_bound_` is."""


@estimator
class OutlierDetector(OutlierMixin, Estimator):
    """Tell odd rows from ordinary ones, where the rows that it learns from may be odd too.

    A new row is odd (-1) with at most the probability `false_alarms` if it was drawn as the rows of `fit` were. Where
    some of those are odd themselves, the threshold only rises, and false alarms become fewer: the oddest l rows of the
    calibrating half are then odd ones, not ordinary ones. So no more than about the share `false_alarms` of a set like
    that of `fit` is called odd, however much of it is; ask for more where more is.

    Time grows linearly with the number of rows.

    Attributes
    ----------
    oddness_ : ndarray (n_samples,) float32
        Of each row of `fit`, by the half that it is not in; 1 is ordinary.
    p_values_ : ndarray (n_samples,) float32
        The share of the rows in its own half that are at least as odd, itself included.
    threshold_ : float
        Rows of greater oddness are odd. Infinite where the calibrating rows are too few for the rate asked for.
    offset_ : float
        The same for `score_samples`: `decision_function` is 0 there.
    n_calibration_ : int
        Rows that the threshold was taken from.
    false_alarm_bound_ : float
        The rate of false alarms that is not exceeded with a probability of 95 %, over draws of the calibrating rows.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(400, 5))
    >>> OutlierDetector().fit(X).predict([[0, 0, 0, 0, 0], [9, 9, 9, 9, 9]]).tolist()
    [1, -1]
    """

    false_alarms: Annotated[
        float, Field(gt=0, le=0.5, description="share of ordinary rows that may be called odd, 0.01 for 1 %")
    ] = 0.01
    mass: Annotated[float, Field(gt=0, le=0.5, description="share of the rows that no group of odd ones reaches")] = 0.1
    trim: Annotated[
        float, Field(ge=0, lt=0.5, description="share of the rows that the covariance is not learned from")
    ] = 0.2
    random_state: Seed = 0
    _state: ClassVar[State] = {
        **VECTORS,
        "oddness_": Array("float32", "n_samples", low=0),
        "p_values_": Array("float32", "n_samples", low=0, high=1),
        "references_": Array("float32", "n_references", "n_features_in_"),
        "smallness_": Array("float64", "n_references", low=0.5),
        "center_": Array("float64", "n_features_in_"),
        "precision_": Array("float64", "n_features_in_", "n_features_in_"),
        "usual_": Array("float64", 3, low=0),
        "n_calibration_": Value(SIDE),
        "calibration_": Array("float32", "n_calibration_", low=0),
        "threshold_": Value(float),
        "offset_": Value(float),
        "false_alarm_bound_": Value(Annotated[float, Field(ge=0, le=1)]),
    }

    @sharing_cores()
    def fit(self, X: Any, y: Any = None) -> OutlierDetector:
        """Learn what is ordinary, and where odd begins.

        Parameters
        ----------
        X : array-like (n_samples, n_features)
            An embedding in which near means alike.
        y : ignored

        Raises
        ------
        ParameterError, InputError, ValueError
            If a parameter is wrong, there are fewer than 4 rows, or values that are not finite.
        """
        self._check_parameters()
        X = checked_rows(self, X)
        if len(X) < FEWEST:
            raise InputError(f"To tell odd rows there must be at least {FEWEST}. Got n_samples={len(X)}; add more.")
        rng = np.random.default_rng(self._seed())
        order = rng.permutation(len(X))
        self.oddness_ = np.empty(len(X), np.float32)
        self.p_values_ = np.empty(len(X), np.float32)
        learned, held = order[: len(X) // 2], order[len(X) // 2 :]
        for own, others in ((held, learned), (learned, held)):  # the half that is kept comes last
            self._learn(X[own], X[others], rng)
            odd = self._oddness(X[others])
            self.oddness_[others] = odd
            self.p_values_[others] = _share_as_odd(odd, odd) * (1 + 1 / len(odd)) - 1 / len(odd)
        return self._calibrate(self.oddness_[held])

    def score_samples(self, X: Any) -> np.ndarray:
        """Return minus the oddness of each row (n_samples,): -1 is ordinary, lower is odder."""
        self._check_fitted()
        X = checked_rows(self, X, reset=False)
        return -self._oddness(X).astype(np.float64)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return `score_samples` less the threshold (n_samples,): below 0 is odd.

        Where the threshold is infinite nothing is, and it is 1 / oddness, so that rows keep their order.
        """
        scores = self.score_samples(X)
        return scores - self.offset_ if np.isfinite(self.threshold_) else 1 / np.maximum(-scores, 1e-12)

    def predict(self, X: Any) -> np.ndarray:
        """Return -1 for each odd row and 1 for each ordinary one (n_samples,).

        Warns where the rows of `fit` were too few for any row to be odd.
        """
        self._check_fitted()
        if not np.isfinite(self.threshold_):
            most, needed = 1 / (self.n_calibration_ + 1), 2 * math.ceil(1 / self.false_alarms)
            warnings.warn(
                f"No row can be told odd at false_alarms={self.false_alarms:g} from {self.n_calibration_} calibrating "
                f"rows; fit on {needed:,} rows or more, ask for false_alarms={math.ceil(1000 * most) / 1000:g} or "
                "more, or take the order from score_samples.",
                Notice,
                stacklevel=2,
            )
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: Any) -> np.ndarray:
        """Return how likely an ordinary row is to be at least as odd as each row (n_samples,), in (0, 1].

        For rows drawn as those of `fit` were, it is at most p with a probability of at most p.
        """
        return self.p_values_of(-self.score_samples(X))

    def p_values_of(self, oddness: np.ndarray) -> np.ndarray:
        """Return the same for rows whose oddness (n_samples,) is known."""
        self._check_fitted()
        return _share_as_odd(oddness, self.calibration_)

    def _learn(self, X: np.ndarray, calibrating: np.ndarray, rng: np.random.Generator) -> None:
        """Learn the three measures from rows (n, n_features), and the medians of these from others."""
        self.references_ = _some(X, MOST_REFERENCES, rng)
        self.smallness_ = _smallness(_directions(self.references_), self.mass)
        learned = _some(X, MOST_LEARNED, rng)
        self.center_, self.precision_ = _concentrated(learned, 1 - self.trim, self._radii(learned))
        measures = self._measures(_some(calibrating, MOST_REFERENCES, rng))
        self.usual_ = np.array([_usual(one) for one in measures])

    def _measures(self, X: np.ndarray) -> np.ndarray:
        """The radius, Mahalanobis' distance and the smallness of the group of rows (n, n_features): (3, n)."""
        return np.stack([self._radii(X), np.sqrt(_mahalanobis(X, self.center_, self.precision_)), self._smallnesses(X)])

    def _radii(self, X: np.ndarray) -> np.ndarray:
        """How far it is from rows (n, n_features) to the last of the nearest tenth of the references: (n,)."""
        k = max(1, round(self.mass * len(self.references_)))
        references, out = as_tensor(self.references_), np.empty(len(X))
        for start in range(0, len(X), CHUNK):
            apart = all_distances(as_tensor(X[start : start + CHUNK]), references)
            out[start : start + CHUNK] = apart.kthvalue(k, dim=1).values.numpy()
        return out

    def _oddness(self, X: np.ndarray) -> np.ndarray:
        """How odd rows (n, n_features) are: (n,) float32, 1 is ordinary."""
        # Rows that are equal but for rounding are as ordinary as each other, also where all that was learned from are.
        rounding = ROUNDING * max(float(np.abs(self.references_).max()), 1e-12) * np.sqrt(X.shape[1])
        measures, usual = np.maximum(self._measures(X), rounding), np.maximum(self.usual_[:, None], rounding)
        return np.cbrt((measures / usual).prod(axis=0)).astype(np.float32)

    def _smallnesses(self, X: np.ndarray) -> np.ndarray:
        """How many times smaller than `mass` the groups are that rows (n, n_features) fall in: (n,), at least 1."""
        near = k_nearest(_directions(self.references_), _directions(X), min(N_VOTES, len(self.references_)))[0]
        return np.exp(np.log(self.smallness_)[near.numpy()].mean(axis=1))

    def _calibrate(self, odd: np.ndarray) -> OutlierDetector:
        """Take the threshold from the oddness of rows that were not learned from (m,)."""
        m = len(odd)
        n_odder = int(self.false_alarms * (m + 1) * (1 + 1e-9))
        self.calibration_, self.n_calibration_ = np.sort(odd), m
        self.threshold_ = float(self.calibration_[m - n_odder]) if n_odder else np.inf
        self.offset_ = -self.threshold_
        self.false_alarm_bound_ = float(beta.ppf(SURE, n_odder, m + 1 - n_odder)) if n_odder else 0.0
        return self


def _concentrated(X: np.ndarray, share: float, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Center (n_features,) and precision (n_features, n_features) of the given share of the rows, those nearest to it.

    The first are those of the smallest radii (n,): a group that bends the covariance of all rows could hide in it. Each
    step learns both from the rows that were nearest by the last ones, until these stay the same.
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
    """Squared distances (n,) of rows to a center, at least 0."""
    off = X - center
    return np.maximum(np.einsum("ij,ij->i", off @ precision, off), 0.0)


def _directions(X: np.ndarray) -> torch.Tensor:
    """Rows (n, n_features) brought to length 1, where they have any."""
    return torch.nn.functional.normalize(as_tensor(X))


def _smallness(directions: torch.Tensor, mass: float) -> np.ndarray:
    """How many times smaller than the share `mass` the group of each row is (n,): at least 1, the mean over cuts."""
    n = len(directions)
    tree = linkage(pdist(directions.double().numpy()), "ward")  # rows that look like distances would be warned of
    cuts = range(max(2, round(CUTS[0] / mass)), round(CUTS[1] / mass) + 1)
    total = np.zeros(n)
    for n_groups in cuts:
        group = fcluster(tree, n_groups, "maxclust")
        total += np.log(np.maximum(1.0, mass * n / np.bincount(group)[group]))
    return np.exp(total / max(1, len(cuts)))


def _usual(distances: np.ndarray) -> float:
    """The median; where it is 0, most rows are doubles, and the mean stands in for it; 0 where all are."""
    return float(np.median(distances)) or float(distances.mean())


def _some(X: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """All rows, or so many drawn at random."""
    return X if len(X) <= most else X[np.sort(rng.choice(len(X), most, replace=False))]


def _share_as_odd(odd: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The share (n,) of some rows and one more, the row itself, that are at least as odd as each."""
    less = np.searchsorted(np.sort(others), odd, side="left")
    return (1 + len(others) - less) / (1 + len(others))
