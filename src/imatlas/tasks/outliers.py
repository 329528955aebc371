"""How odd each image is, which are odd at a given rate of false alarms, and how to say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imatlas.errors import InputError
from imatlas.models.outlier_detector import FEWEST, SURE, OutlierDetector
from imatlas.result import DataTable, Result

FALSE_ALARMS = 0.01

ORDINARY = 0.2
"""Images with at least so large a p-value are shown as what is ordinary."""

N_ORDINARY = 10
"""Ordinary images that an odd one is compared with, place by place."""


@dataclass(frozen=True)
class Outliers:
    """Which images are odd.

    Attributes
    ----------
    model : OutlierDetector
        Fitted to the images of the atlas.
    oddness : ndarray (n,) float32
        1 is ordinary.
    p_values : ndarray (n,) float32
        How likely an ordinary image is to be at least as odd.
    rows : ndarray (n_odd,) int64
        The images that are odd at the rate asked for, the oddest first.
    result : Result
    """

    model: OutlierDetector
    oddness: np.ndarray
    p_values: np.ndarray
    rows: np.ndarray
    result: Result


def outlier_scores(embedding: np.ndarray, *, random_state: int = 0) -> np.ndarray:
    """How odd each row of an embedding is: the `oddness_` of an `OutlierDetector`.

    Parameters
    ----------
    embedding : ndarray (n_samples, n_features)
    random_state : int

    Returns
    -------
    ndarray (n_samples,) float32
        At least 0, 1 is ordinary; all 1 for fewer than 4 rows.
    """
    if len(embedding) < FEWEST:
        return np.ones(len(embedding), dtype=np.float32)
    return OutlierDetector(random_state=random_state).fit(embedding).oddness_


def outliers(
    embedding: np.ndarray,
    keys: Sequence[str],
    *,
    false_alarms: float = FALSE_ALARMS,
    new: np.ndarray | None = None,
    new_keys: Sequence[str] = (),
    random_state: int = 0,
) -> Outliers:
    """Which images are odd, at a given rate of false alarms.

    Parameters
    ----------
    embedding : ndarray (n_samples, n_features)
        What the atlas holds; odd images may be among them.
    keys : sequence of str
        The name of each row.
    false_alarms : float
        The share of ordinary images that may be called odd, in (0, 0.5].
    new : ndarray (n, n_features), optional
        Judge these images in place of those of the atlas.
    new_keys : sequence of str
        Their names.
    random_state : int

    Raises
    ------
    ParameterError, InputError
        If the rate is out of its range, or there are fewer than 4 images, or the features differ in number.
    """
    if new is not None and new.shape[1] != embedding.shape[1]:
        raise InputError(
            f"The new images have {new.shape[1]} features and the atlas {embedding.shape[1]}; embed both alike."
        )
    model = OutlierDetector(false_alarms=false_alarms, random_state=random_state).fit(embedding)
    oddness, p_values = model.oddness_, model.p_values_
    if new is not None:
        oddness = -model.score_samples(new)
        p_values = model.p_values_of(oddness).astype(np.float32)
        keys = new_keys
    order = np.argsort(-oddness, kind="stable")
    rows = order[p_values[order] <= false_alarms]
    table = DataTable(
        title="The odd ones" if len(rows) else "The oddest",
        columns=("image", "oddness", "p-value"),
        rows=[(keys[i], float(oddness[i]), float(p_values[i])) for i in (rows if len(rows) else order[:10]).tolist()],
    )
    result = Result(
        "outliers",
        "The odd ones",
        [_found(len(rows), len(keys), false_alarms), *_promise(model, new is None)],
        {"n_images": len(keys), "n_odd": len(rows), "false_alarms": false_alarms, "bound": model.false_alarm_bound_},
        [table],
        data={"odd": [{"key": key, "oddness": odd, "p_value": p} for key, odd, p in (table.rows if len(rows) else [])]},
        protocol=f"threshold from {model.n_calibration_:,} images that were not learned from, seed {random_state}",
    )
    return Outliers(model, oddness, p_values, rows, result)


def ordinary_near(
    found: Outliers, embedding: np.ndarray, place: np.ndarray, *, but: np.ndarray, n: int = N_ORDINARY
) -> np.ndarray:
    """The `n` ordinary images of the atlas nearest to a place (n_features,), nearest first, without the rows `but`."""
    ordinary = np.setdiff1d(np.flatnonzero(found.model.p_values_ >= ORDINARY), but)
    apart = ((embedding[ordinary] - place) ** 2).sum(axis=1)
    return ordinary[np.argsort(apart, kind="stable")[:n]]


def _found(n_odd: int, n: int, rate: float) -> str:
    verb = "image is" if n_odd == 1 else "images are"
    return f"{n_odd:,} of {n:,} {verb} odd, where {_percent(rate)} of ordinary ones may be called so by mistake."


def _promise(model: OutlierDetector, own: bool) -> list[str]:
    """What a threshold says about false alarms, as sentences."""
    if not np.isfinite(model.threshold_):
        least = 1 / (model.n_calibration_ + 1)
        return [
            f"So low a rate cannot be kept with {model.n_calibration_:,} images to compare with: ask for at least "
            f"{_percent(least)}, or learn from more."
        ]
    told = [
        f"Of ordinary images like these at most {_percent(model.false_alarm_bound_)} are called odd, with {SURE:.0%} "
        "certainty; odd ones among the images that it learned from make that fewer."
    ]
    if own:
        told.append("Not more than the share asked for is called odd: if more of the atlas is, ask for a higher one.")
    return told


def _percent(share: float) -> str:
    """A share as a percentage of two digits."""
    return f"{100 * share:.2g}%"
