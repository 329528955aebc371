"""Find the outliers among images at a given false positive rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imatlas.errors import InputError
from imatlas.models.outlier_detector import CONFIDENCE, MIN_ROWS, OutlierDetector
from imatlas.result import DataTable, Result

FALSE_POSITIVE_RATE = 0.01

ORDINARY = 0.2
"""p-value from which an image counts as ordinary."""

N_ORDINARY = 10
"""Ordinary images that an outlier is compared with in its heat map."""

SAMPLE = 4096
"""Images that a detector for new ones is fitted to, in two seconds."""

N_LISTED = 10
"""Images in the table if none is an outlier."""


@dataclass(frozen=True)
class Outliers:
    """Outlier scores of images and which of them are outliers.

    Attributes
    ----------
    model : OutlierDetector
        Fitted to the images of the atlas.
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


def outlier_scores(embedding: np.ndarray, *, new: np.ndarray | None = None, random_state: int = 0) -> np.ndarray:
    """Outlier score of each row of an embedding, from an `OutlierDetector`.

    Parameters
    ----------
    embedding : ndarray (n_samples, n_features)
    new : ndarray (n, n_features), optional
        Rows to score instead, by a detector that is fitted to the embedding.
    random_state : int

    Returns
    -------
    ndarray (n_samples,) or (n,) float32
        At least 0, 1 is typical; all 1 for fewer than 4 rows.
    """
    scored = embedding if new is None else new
    if len(embedding) < MIN_ROWS:
        return np.ones(len(scored), dtype=np.float32)
    model = OutlierDetector(random_state=random_state).fit(embedding)
    return model.outlier_scores_ if new is None else -model.score_samples(new).astype(np.float32)


def outliers(
    embedding: np.ndarray,
    keys: Sequence[str],
    *,
    false_positive_rate: float = FALSE_POSITIVE_RATE,
    new: np.ndarray | None = None,
    new_keys: Sequence[str] = (),
    random_state: int = 0,
) -> Outliers:
    """Find the outliers among images at a given false positive rate.

    Parameters
    ----------
    embedding : ndarray (n_samples, n_features)
        Images of the atlas; outliers may be among them.
    keys : sequence of str
        The name of each row.
    false_positive_rate : float
        Share of ordinary images that may be called outliers, in (0, 0.5].
    new : ndarray (n, n_features), optional
        Judge these images instead of those of the atlas.
    new_keys : sequence of str
        Their names.
    random_state : int

    Raises
    ------
    ParameterError, InputError
        If the rate is out of range, there are fewer than 4 images, or the numbers of features differ.
    """
    if new is not None and new.shape[1] != embedding.shape[1]:
        raise InputError(
            f"The new images have {new.shape[1]} features and the atlas has {embedding.shape[1]}; embed them with the "
            "encoder of the atlas."
        )
    model = OutlierDetector(false_positive_rate=false_positive_rate, random_state=random_state).fit(embedding)
    scores, p_values = model.outlier_scores_, model.p_values_
    if new is not None:
        scores = -model.score_samples(new)
        p_values = model.p_values_of(scores).astype(np.float32)
        keys = new_keys
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
        [_count_in_words(len(rows), len(keys), false_positive_rate), *_bound_in_words(model, new is None)],
        {
            "n_images": len(keys),
            "n_outliers": len(rows),
            "false_positive_rate": false_positive_rate,
            "false_positive_bound": model.false_positive_bound_,
        },
        [table],
        data={"outliers": [{"key": key, "outlier_score": score, "p_value": p} for key, score, p in found]},
        protocol=f"threshold calibrated on {model.n_calibration_:,} held-out images, seed {random_state}",
    )
    return Outliers(model, scores, p_values, rows, result)


def ordinary_near(
    found: Outliers, embedding: np.ndarray, position: np.ndarray, *, exclude: np.ndarray, n: int = N_ORDINARY
) -> np.ndarray:
    """The `n` ordinary images of the atlas nearest to a position (n_features,), nearest first, without `exclude`."""
    ordinary = np.setdiff1d(np.flatnonzero(found.model.p_values_ >= ORDINARY), exclude)
    squared = ((embedding[ordinary] - position) ** 2).sum(axis=1)
    return ordinary[np.argsort(squared, kind="stable")[:n]]


def _count_in_words(n_outliers: int, n: int, rate: float) -> str:
    verb = "image is an outlier" if n_outliers == 1 else "images are outliers"
    return f"{n_outliers:,} of {n:,} {verb} at a false positive rate of {_percent(rate)}."


def _bound_in_words(model: OutlierDetector, judges_atlas: bool) -> list[str]:
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
    if judges_atlas:
        sentences.append(
            "No more than the rate asked for is called outliers: ask for a higher one if you expect more of them."
        )
    return sentences


def _percent(share: float) -> str:
    """A share as a percentage with two significant digits."""
    return f"{100 * share:.2g}%"
