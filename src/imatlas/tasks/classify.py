"""Stretch the labels of a few images over all images of an atlas, and over new ones."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imatlas.errors import InputError, SourceError
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
        Key -> label, of at least two kinds. A label that was given is kept.
    n_next : int
        How many images to propose for labelling.
    random_state : int
        Seed of the folds.

    Raises
    ------
    InputError
        If a key is not among `keys`, or the labels are all of one kind.
    """
    place = {key: row for row, key in enumerate(keys)}
    unknown = [key for key in labels if key not in place]
    if unknown:
        raise InputError(
            f"{len(unknown):,} of {len(labels):,} labels are for images that are not here, such as '{unknown[0]}'; the "
            f"keys are those of 'imatlas table', such as '{keys[0]}'."
        )
    if len(set(labels.values())) < 2:
        raise InputError(
            f"Labels must be of at least two kinds. Got {len(set(labels.values()))}; label some more images."
        )
    y = np.full(len(keys), None, dtype=object)
    for key, label in labels.items():
        y[place[key]] = label
    model = FewLabelsClassifier(random_state=random_state).fit(embedding, y)
    given = np.array([label is not None for label in y])
    found = np.where(given, y, model.transduction_).astype(str)
    sure = np.where(given, 1.0, model.label_distributions_.max(axis=1)).astype(np.float32)
    asked = model.next_to_label(n_next + int(given.sum()))
    asked = asked[~given[asked]][:n_next]
    return Classified(model, found, sure, asked, _told(model, keys, found, sure, given, asked))


def read_labels(path: str | Path) -> dict[str, str]:
    """The labels in a CSV file with the columns `key` and `label`; rows without a label are passed over.

    Raises
    ------
    SourceError, InputError
        If there is no such file, it has other columns, or one key has two labels.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceError(f"There is no file '{path}'; give a CSV file with the columns key and label.")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        names = [name.strip() for name in reader.fieldnames or []]
        if not {"key", "label"} <= set(names):
            raise InputError(f"'{path}' must have the columns key and label. Got {', '.join(names) or 'none'}.")
        reader.fieldnames = names
        found: dict[str, str] = {}
        for row in reader:
            key, label = (row["key"] or "").strip(), (row["label"] or "").strip()
            if not key or not label:
                continue
            if found.setdefault(key, label) != label:
                raise InputError(f"'{path}' says '{found[key]}' and '{label}' of '{key}'; keep one of them.")
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
