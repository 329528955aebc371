"""Stretch the labels of a few images over all images of an atlas, and over new ones."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imatlas.csv_files import read_csv
from imatlas.errors import InputError, Notice
from imatlas.images.names import keys_of
from imatlas.models.few_labels import FewLabelsClassifier
from imatlas.result import DataTable, Result

WORDS = {
    "neighbours": "along the graph of neighbours",
    "line": "by lines between the kinds",
    "both": "along the graph of neighbours and by lines between the kinds",
}


@dataclass(frozen=True)
class Classified:
    """Labels of all images and what is to be said about them.

    Attributes
    ----------
    model : FewLabelsClassifier
        Its `predict_proba` classifies any row of the same embedding.
    labels : ndarray (n_samples,) of str
    confidence : ndarray (n_samples,) float32
        The probability of that label; 1 where it was given.
    next_rows : ndarray (n_next,) int64
        The rows whose labels would help most.
    result : Result
    """

    model: FewLabelsClassifier
    labels: np.ndarray
    confidence: np.ndarray
    next_rows: np.ndarray
    result: Result


def classify(
    embedding: np.ndarray,
    keys: Sequence[str],
    labels: Mapping[str, str],
    *,
    n_next: int = 10,
    random_state: int = 0,
) -> Classified:
    """Label every row of an embedding from the labels of a few; see `imatlas.FewLabelsClassifier`.

    Parameters
    ----------
    embedding : ndarray (n_samples, n_features)
    keys : sequence of str
        The name of each row.
    labels : mapping
        Key -> label, of at least two kinds. A label that was given is kept; one of an image that is not here is
        passed over with a warning.
    n_next : int
        How many images to propose for labelling.
    random_state : int
        Seed of the folds.

    Raises
    ------
    InputError
        If the labels of the images that are here are not of two kinds, or one image has two labels.
    """
    y = _placed(keys, labels)
    model = FewLabelsClassifier(random_state=random_state).fit(embedding, y)
    given = np.array([label is not None for label in y])
    found = np.where(given, y, model.transduction_).astype(str)
    sure = np.where(given, 1.0, model.label_distributions_.max(axis=1)).astype(np.float32)
    asked = model.next_to_label(n_next + int(given.sum()))
    asked = asked[~given[asked]][:n_next]
    return Classified(model, found, sure, asked, _told(model, keys, found, sure, given, asked))


def _placed(keys: Sequence[str], labels: Mapping[str, str]) -> np.ndarray:
    """The label (n,) of each key, None where it has none; labels of images that are not here are told."""
    place = {key: row for row, key in enumerate(keys)}
    y = np.full(len(keys), None, dtype=object)
    unknown = []
    for text, label in labels.items():
        row = next((place[key] for key in _spellings(text) if key in place), None)
        if row is None:
            unknown.append(text)
        elif y[row] is not None and y[row] != label:
            raise InputError(f"'{keys[row]}' is labelled '{y[row]}' and '{label}'; keep one of them.")
        else:
            y[row] = label
    n_kinds = len({label for label in y if label is not None})
    lost = ""
    if unknown:
        lost = f"{len(unknown):,} of {len(labels):,} labels are for images that are not here, such as '{unknown[0]}'"
    if n_kinds < 2 and unknown:
        raise InputError(f"{lost}; the keys are those of 'imatlas table', such as '{keys[0]}'.")
    if n_kinds < 2:
        raise InputError(f"Labels must be of at least two kinds. Got {n_kinds}; label some more images.")
    if unknown:
        warnings.warn(f"{lost}; the others count.", Notice, stacklevel=4)
    return y


def _spellings(text: str) -> list[str]:
    """The keys that a text may mean: itself, a file name, either with spaces around it or written on Windows."""
    texts = [text, text.strip(), text.strip().replace("\\", "/").removeprefix("./")]
    return [key for meant in texts for key in keys_of(meant)]


def read_labels(path: str | Path) -> dict[str, str]:
    """The labels in a CSV file with the columns `key` and `label`; rows without a label are passed over.

    Raises
    ------
    SourceError, InputError
        If there is no such file, it has other columns, or one key has two labels.
    """
    found: dict[str, str] = {}
    for row in read_csv(path, ("key", "label"), what="a CSV file of labels"):
        key, label = row["key"], row["label"].strip()
        if not key.strip() or not label:
            continue
        if found.setdefault(key, label) != label:
            raise InputError(
                f"'{path}' says '{found[key]}' and '{label}' of '{key}' (line {row.line}); keep one of them."
            )
    return found


def _told(
    model: FewLabelsClassifier,
    keys: Sequence[str],
    labels: np.ndarray,
    sure: np.ndarray,
    given: np.ndarray,
    asked: np.ndarray,
) -> Result:
    """What is to be said of labels that were stretched."""
    n_given = int(given.sum())
    how = f"stretched over {len(labels):,} images {WORDS[model.method_]}"
    sentences = [f"{n_given:,} labels of {len(model.classes_)} kinds, {how}."]
    metrics: dict[str, float] = {"labelled": n_given}
    if math.isnan(model.accuracy_):
        sentences.append("No kind has two labels, so there is nothing to test with: give each kind a few.")
    else:
        metrics |= {"accuracy": model.accuracy_, "accuracy_error": model.accuracy_error_}
        sentences.append(
            f"Of the labelled images {model.accuracy_:.0%} ± {model.accuracy_error_:.0%} were right while they counted "
            "as unlabelled."
        )
    rest = ~given
    if rest.any():
        metrics["confidence"] = float(sure[rest].mean())
        sentences.append(f"The labels of the others are {metrics['confidence']:.0%} sure on average.")
    rows = []
    for kind in model.classes_:
        own = labels == kind
        rows.append((str(kind), int((given & own).sum()), int(own.sum()), _mean(sure[rest & own])))
    nexts = [(keys[i], labels[i], float(sure[i])) for i in asked.tolist()]
    return Result(
        "classify",
        "Labels for all",
        sentences,
        metrics,
        [
            DataTable(title="Kinds", columns=("label", "given", "images", "sure"), rows=rows),
            DataTable(title="Label these next", columns=("key", "guess", "sure"), rows=nexts),
        ],
        data={"kinds": [list(row) for row in rows], "next": [list(row) for row in nexts]},
        protocol=f"accuracy by cross-validation over the {n_given:,} labelled images",
    )


def _mean(values: np.ndarray) -> float | str:
    return float(values.mean()) if len(values) else ""
