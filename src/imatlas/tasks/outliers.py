"""Find the outliers among images at a given false positive rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imatlas.models.outlier_detector import CONFIDENCE, OutlierDetector
from imatlas.neighbors import squared_to
from imatlas.result import DataTable, Result

FALSE_POSITIVE_RATE = 0.01

ORDINARY = 0.2
"""p-value from which an image counts as ordinary."""

N_ORDINARY = 10
"""Ordinary images that an outlier is compared with in its heat map."""

N_LISTED = 10
"""Images in the table if none is an outlier."""


@dataclass(frozen=True)
class Outliers:
    """Outlier scores of images and which of them are outliers.

    Attributes
    ----------
    model : OutlierDetector
        Fitted to the images of the atlas, at the rate asked for.
    outlier_scores : ndarray (n,) float32
        1 is typical.
    p_values : ndarray (n,) float32
        Probability that an ordinary image scores at least as high.
    rows : ndarray (n_outliers,) int64
        The outliers, the highest score first.
    result : Result
    """

    model: OutlierDetector
    outlier_scores: np.ndarray
    p_values: np.ndarray
    rows: np.ndarray
    result: Result


def outliers(
    model: OutlierDetector,
    keys: Sequence[str],
    scores: np.ndarray,
    p_values: np.ndarray,
    *,
    false_positive_rate: float = FALSE_POSITIVE_RATE,
    new: bool = False,
) -> Outliers:
    """Find the outliers among images whose scores are known, at a given false positive rate.

    Parameters
    ----------
    model : OutlierDetector
        Fitted to the images of an atlas, at any rate; outliers may have been among them.
    keys : sequence of str
        The name of each image.
    scores, p_values : ndarray (n,)
        What it says of each image.
    false_positive_rate : float
        Share of ordinary images that may be called outliers, in (0, 0.5].
    new : bool
        Whether these are other images than those of the atlas.

    Raises
    ------
    ParameterError
        If the rate is out of range.
    """
    model = model.at_rate(false_positive_rate)
    order = np.argsort(-scores, kind="stable")
    rows = order[p_values[order] <= false_positive_rate]
    listed = rows if len(rows) else order[:N_LISTED]
    table = DataTable(
        title="Outliers" if len(rows) else "Highest outlier scores",
        columns=("image", "outlier score", "p-value"),
        rows=[(keys[i], float(scores[i]), float(p_values[i])) for i in listed.tolist()],
    )
    found = table.rows if len(rows) else []
    result = Result(
        "outliers",
        "Outliers",
        [
            count_in_words(len(rows), len(keys), false_positive_rate),
            *_bound_in_words(model, not new and len(keys) == len(model.outlier_scores_)),
        ],
        {
            "n_images": len(keys),
            "n_outliers": len(rows),
            "false_positive_rate": false_positive_rate,
            "false_positive_bound": model.false_positive_bound_,
        },
        [table],
        data={"outliers": [{"key": key, "outlier_score": score, "p_value": p} for key, score, p in found]},
        protocol=f"threshold calibrated on {model.n_calibration_:,} held-out images, seed {model.random_state}",
    )
    return Outliers(model, scores, p_values, rows, result)


def ordinary_near(
    p_values: np.ndarray, embedding: np.ndarray, position: np.ndarray, *, exclude: np.ndarray, n: int = N_ORDINARY
) -> np.ndarray:
    """The `n` ordinary images of the atlas, by their p-values, nearest to a position (n_features,), nearest first,
    without `exclude`."""
    ordinary = np.setdiff1d(np.flatnonzero(p_values >= ORDINARY), exclude)
    return ordinary[np.argsort(squared_to(position, embedding, ordinary), kind="stable")[:n]]


def count_in_words(n_outliers: int, n: int, rate: float = FALSE_POSITIVE_RATE) -> str:
    """How many of `n` images are outliers, as a sentence."""
    verb = "image is an outlier" if n_outliers == 1 else "images are outliers"
    return f"{n_outliers:,} of {n:,} {verb} at a false positive rate of {_percent(rate)}."


def _bound_in_words(model: OutlierDetector, fitted_to_these: bool) -> list[str]:
    """What the threshold guarantees, as sentences."""
    if not np.isfinite(model.threshold_):
        lowest = 1 / (model.n_calibration_ + 1)
        return [
            f"{model.n_calibration_:,} images are too few to calibrate so low a rate: ask for at least "
            f"{_percent(lowest)}, or learn from more images."
        ]
    sentences = [
        f"At most {_percent(model.false_positive_bound_)} of ordinary images like these are called outliers, with "
        f"{CONFIDENCE:.0%} confidence; outliers among the training images lower that share."
    ]
    if fitted_to_these:
        sentences.append(
            "No more than the rate asked for is called outliers: ask for a higher one if you expect more of them."
        )
    return sentences


def _percent(share: float) -> str:
    """A share as a percentage with two significant digits."""
    return f"{100 * share:.2g}%"
