"""Propagate the labels of a few images to all images of an atlas."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.arguments import article, check_path, counted, shown
from imatlas.errors import InputError, InputTypeError, Notice
from imatlas.images.keys import keys_of
from imatlas.models.few_labels import FewLabelsClassifier
from imatlas.result import DataTable, Result
from imatlas.system.csv_files import read_csv

METHODS = {
    "propagation": "over the neighbor graph",
    "logistic": "by logistic regression",
    "both": "over the neighbor graph and by logistic regression",
}
"""`FewLabelsClassifier.method_` in words."""


@dataclass(frozen=True)
class Classified:
    """Labels of all images and their summary.

    Attributes
    ----------
    model : FewLabelsClassifier
        Its `predict_proba` classifies other rows of the same embedding.
    labels : ndarray (n_samples,) of str
    confidence : ndarray (n_samples,) float32
        Probability of the label; 1 if it was given.
    next_rows : ndarray (n_next,) int64
        The rows to label next.
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
    labels: Any,
    *,
    roots: Sequence[Path] = (),
    n_next: int = 10,
    random_state: int = 0,
) -> Classified:
    """Label all rows of an embedding from the labels of a few; see `imatlas.FewLabelsClassifier`.

    Parameters
    ----------
    embedding : ndarray (n_samples, n_features)
    keys : sequence of str
        The name of each row.
    labels
        As `labels_of` takes them, of at least two classes. Given labels are kept; those of unknown images are ignored
        with a warning.
    roots : sequence of Path
        Folders that keys may be relative to, so that images are also found by the paths of their files.
    n_next : int
        Number of images to propose for labeling.
    random_state : int
        Seed of the folds.

    Raises
    ------
    InputError
        If the labels are of fewer than two classes, or an image has two labels.
    """
    y = _targets(keys, labels_of(labels), roots)
    model = FewLabelsClassifier(random_state=random_state).fit(embedding, y)
    given = np.array([label is not None for label in y])
    found = np.where(given, y, model.transduction_).astype(str)
    confidence = np.where(given, 1.0, model.label_distributions_.max(axis=1)).astype(np.float32)
    proposed = model.next_to_label(n_next + int(given.sum()))
    proposed = proposed[~given[proposed]][:n_next]
    result = _summary(model, keys, found, confidence, given, proposed)
    return Classified(model, found, confidence, proposed, result)


def _targets(keys: Sequence[str], labels: Mapping[str, str], roots: Sequence[Path]) -> np.ndarray:
    """The label (n,) of each key, None if it has none. Warns of labels of unknown images."""
    row_of = {key: row for row, key in enumerate(keys)}
    y = np.full(len(keys), None, dtype=object)
    unknown = []
    for text, label in labels.items():
        row = next((row_of[key] for key in _spellings(text, roots) if key in row_of), None)
        if row is None:
            unknown.append(text)
        elif y[row] is not None and y[row] != label:
            raise InputError(f"'{keys[row]}' is labeled both '{y[row]}' and '{label}'; keep one of them.")
        else:
            y[row] = label
    n_classes = len({label for label in y if label is not None})
    ignored = ""
    if unknown:
        verb = "is" if len(unknown) == 1 else "are"
        ignored = (
            f"{len(unknown):,} of {counted(len(labels), 'label')} {verb} for unknown images, such as '{unknown[0]}'"
        )
    if n_classes < 2 and unknown:
        raise InputError(f"{ignored}; use the keys of 'imatlas table', such as '{keys[0]}'.")
    if n_classes < 2:
        raise InputError(f"Labels must be of at least two classes. Got {n_classes}; label more images.")
    if unknown:
        warnings.warn(f"{ignored}; the other labels are used.", Notice, stacklevel=4)
    return y


def _spellings(text: str, roots: Sequence[Path]) -> Iterator[str]:
    """The keys that a text may stand for: itself, a file name, either with spaces around or with backslashes; the path
    of a file below the first root, from the root's name on or absolute, or below another root."""
    plain = text.strip().replace("\\", "/").removeprefix("./")
    for spelling in (text, text.strip(), plain):
        yield from keys_of(spelling)
    parts = plain.split("/")
    for depth, part in enumerate(parts[:-1], start=1):
        if roots and part == roots[0].name:
            yield from keys_of("/".join(parts[depth:]))
    absolute = os.path.abspath(os.path.expanduser(plain))
    for path, links in ((absolute, False), (os.path.realpath(absolute), True)):
        for root in roots:
            folder = os.path.realpath(root) if links else os.path.abspath(root)
            if path.startswith(os.path.join(folder, "")):
                yield from keys_of(os.path.relpath(path, folder).replace(os.sep, "/"))


def labels_of(labels: Any) -> dict[str, str]:
    """Labels by key, as text.

    Parameters
    ----------
    labels : mapping, pandas Series by key, table of two columns (or with columns key and label), or path of a CSV file
        None, NaN, an empty text and the number -1 are no labels.

    Raises
    ------
    InputTypeError
        If it is none of these, or a key or label has another type than text, path or number.
    SourceError, InputError
        If a file or table cannot be used, or a key has two labels.
    """
    if isinstance(labels, str | os.PathLike):
        return read_labels(check_path(labels, "labels", "classify"))
    found: dict[str, str] = {}
    for key, value in _pairs(labels):
        label = _label(value)
        if not isinstance(key, str | os.PathLike):
            raise InputTypeError(
                f"Labels are given by the keys of images, texts or paths. Got {shown(key)}; 'imatlas table' lists the "
                "keys."
            )
        text = os.fsdecode(key)
        if label and found.setdefault(text, label) != label:
            raise InputError(f"'{text}' is labeled both '{found[text]}' and '{label}'; keep one of them.")
    return found


def _pairs(labels: Any) -> Iterable[tuple[Any, Any]]:
    """(key, label) pairs."""
    if isinstance(labels, Mapping):
        return labels.items()
    if hasattr(labels, "iloc") and getattr(labels, "ndim", 0) == 1:  # pandas
        return zip(labels.index, labels.array, strict=True)
    names = getattr(labels, "column_names", None)  # Arrow
    if names is None and hasattr(labels, "columns"):  # pandas, polars
        names = list(labels.columns)
    if names is None:
        raise InputTypeError(
            "Labels must be a dict by key, a pandas Series by key, a table with the columns key and label, or the path "
            f"of such a CSV file. Got {article(type(labels).__name__)}."
        )
    by_name = {str(name).strip().lower(): name for name in names}
    chosen = [by_name[name] for name in ("key", "label")] if {"key", "label"} <= set(by_name) else list(names)
    if len(chosen) != 2:
        listed = ", ".join(map(str, names))
        raise InputError(f"A table of labels must have the columns key and label. Got {listed}; rename them.")
    columns = [labels[name] for name in chosen]
    lists = [column.to_pylist() if hasattr(column, "to_pylist") else list(column) for column in columns]
    return zip(*lists, strict=True)


def _label(value: Any) -> str:
    """A label as text; "" for none."""
    plain = value.item() if isinstance(value, np.generic) else value
    if plain is None or type(plain).__name__ in ("NAType", "NaTType"):
        return ""
    if isinstance(plain, str):
        return plain.strip()
    if isinstance(plain, bool):
        return str(plain)
    if isinstance(plain, int | float):
        if plain != plain or plain == -1:
            return ""
        return str(int(plain)) if math.isfinite(plain) and plain == int(plain) else str(plain)  # 1.0 beside a NaN
    raise InputTypeError(f"A label must be a text or a number. Got {shown(value)}.")


def read_labels(path: str | Path) -> dict[str, str]:
    """The labels in a CSV file with the columns `key` and `label`; rows without a label are ignored.

    Raises
    ------
    SourceError, InputError
        If there is no such file, it has other columns, or a key has two labels.
    """
    found: dict[str, str] = {}
    for row in read_csv(path, ("key", "label"), what="a CSV file of labels"):
        key, label = row["key"], row["label"].strip()
        if not key.strip() or not label:
            continue
        if found.setdefault(key, label) != label:
            raise InputError(
                f"'{path}' labels '{key}' both '{found[key]}' and '{label}' (line {row.line}); keep one of them."
            )
    return found


def _summary(
    model: FewLabelsClassifier,
    keys: Sequence[str],
    labels: np.ndarray,
    confidence: np.ndarray,
    given: np.ndarray,
    proposed: np.ndarray,
) -> Result:
    """The labels in numbers and words."""
    n_given = int(given.sum())
    how = f"propagated to {len(labels):,} images {METHODS[model.method_]}"
    sentences = [f"{n_given:,} labels of {len(model.classes_)} classes, {how}."]
    metrics: dict[str, float] = {"labeled": n_given}
    if math.isnan(model.accuracy_):
        sentences.append(
            "No class has two labels, so the accuracy cannot be estimated: label a few images of each class."
        )
    else:
        metrics |= {"accuracy": model.accuracy_, "accuracy_error": model.accuracy_error_}
        sentences.append(
            f"Cross-validated accuracy on the labeled images: {model.accuracy_:.0%} ± {model.accuracy_error_:.0%}."
        )
    rest = ~given
    if rest.any():
        metrics["confidence"] = float(confidence[rest].mean())
        sentences.append(f"Mean confidence of the other labels: {metrics['confidence']:.0%}.")
    rows = []
    for label in model.classes_:
        own = labels == label
        rows.append((str(label), int((given & own).sum()), int(own.sum()), _mean(confidence[rest & own])))
    nexts = [(keys[i], labels[i], float(confidence[i])) for i in proposed.tolist()]
    return Result(
        "classify",
        "Labels of all images",
        sentences,
        metrics,
        [
            DataTable(title="Classes", columns=("label", "given", "images", "confidence"), rows=rows),
            DataTable(title="Label these next", columns=("key", "predicted", "confidence"), rows=nexts),
        ],
        data={"classes": [list(row) for row in rows], "next": [list(row) for row in nexts]},
        protocol=f"accuracy: cross-validation on the {n_given:,} labeled images",
    )


def _mean(values: np.ndarray) -> float | str:
    return float(values.mean()) if len(values) else ""
