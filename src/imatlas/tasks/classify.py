"""Stretch the labels of a few images over all images of an atlas, and over new ones."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.arguments import article, check_path, shown
from imatlas.errors import InputError, InputTypeError, Notice
from imatlas.images.keys import keys_of
from imatlas.models.few_labels import FewLabelsClassifier
from imatlas.result import DataTable, Result
from imatlas.system.csv_files import read_csv

WORDS = {
    "neighbors": "along the graph of neighbors",
    "line": "by lines between the kinds",
    "both": "along the graph of neighbors and by lines between the kinds",
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
    labels: Any,
    *,
    roots: Sequence[Path] = (),
    n_next: int = 10,
    random_state: int = 0,
) -> Classified:
    """Label every row of an embedding from the labels of a few; see `imatlas.FewLabelsClassifier`.

    Parameters
    ----------
    embedding : ndarray (n_samples, n_features)
    keys : sequence of str
        The name of each row.
    labels
        As `labels_of` takes them, of at least two kinds. A label that was given is kept; one of an image that is not
        here is passed over with a warning.
    roots : sequence of Path
        Folders that the keys may be relative to: then they are also found by the paths of their files.
    n_next : int
        How many images to propose for labeling.
    random_state : int
        Seed of the folds.

    Raises
    ------
    InputError
        If the labels of the images that are here are not of two kinds, or one image has two labels.
    """
    y = _placed(keys, labels_of(labels), roots)
    model = FewLabelsClassifier(random_state=random_state).fit(embedding, y)
    given = np.array([label is not None for label in y])
    found = np.where(given, y, model.transduction_).astype(str)
    sure = np.where(given, 1.0, model.label_distributions_.max(axis=1)).astype(np.float32)
    asked = model.next_to_label(n_next + int(given.sum()))
    asked = asked[~given[asked]][:n_next]
    return Classified(model, found, sure, asked, _told(model, keys, found, sure, given, asked))


def _placed(keys: Sequence[str], labels: Mapping[str, str], roots: Sequence[Path]) -> np.ndarray:
    """The label (n,) of each key, None where it has none; labels of images that are not here are told."""
    place = {key: row for row, key in enumerate(keys)}
    y = np.full(len(keys), None, dtype=object)
    unknown = []
    for text, label in labels.items():
        row = next((place[key] for key in _spellings(text, roots) if key in place), None)
        if row is None:
            unknown.append(text)
        elif y[row] is not None and y[row] != label:
            raise InputError(f"'{keys[row]}' is labeled '{y[row]}' and '{label}'; keep one of them.")
        else:
            y[row] = label
    n_kinds = len({label for label in y if label is not None})
    lost = ""
    if unknown:
        are = "label is for an image that is" if len(labels) == 1 else "labels are for images that are"
        are = "labels is for an image that is" if len(unknown) == 1 < len(labels) else are
        lost = f"{len(unknown):,} of {len(labels):,} {are} not here, such as '{unknown[0]}'"
    if n_kinds < 2 and unknown:
        raise InputError(f"{lost}; the keys are those of 'imatlas table', such as '{keys[0]}'.")
    if n_kinds < 2:
        raise InputError(f"Labels must be of at least two kinds. Got {n_kinds}; label some more images.")
    if unknown:
        warnings.warn(f"{lost}; the others count.", Notice, stacklevel=4)
    return y


def _spellings(text: str, roots: Sequence[Path]) -> Iterator[str]:
    """The keys that a text may mean: itself, a file name, either with spaces around it or written on Windows; the path
    of a file below the first root, from the root's name on or as a whole, or below another one."""
    plain = text.strip().replace("\\", "/").removeprefix("./")
    for meant in (text, text.strip(), plain):
        yield from keys_of(meant)
    parts = plain.split("/")
    for place, part in enumerate(parts[:-1], start=1):
        if roots and part == roots[0].name:
            yield from keys_of("/".join(parts[place:]))
    whole = os.path.abspath(os.path.expanduser(plain))
    for path, links in ((whole, False), (os.path.realpath(whole), True)):
        for root in roots:
            folder = os.path.realpath(root) if links else os.path.abspath(root)
            if path.startswith(os.path.join(folder, "")):
                yield from keys_of(os.path.relpath(path, folder).replace(os.sep, "/"))


def labels_of(labels: Any) -> dict[str, str]:
    """Labels by key, as texts, from all that people keep them in.

    Parameters
    ----------
    labels : mapping, pandas Series by key, table of two columns (or with columns key and label), or path of a CSV file
        What is None, NaN or empty is no label, nor is the number -1.

    Raises
    ------
    InputTypeError
        If it is none of these, or a key or a label is no text, path or number.
    SourceError, InputError
        If a file or table cannot be used, or one key has two labels.
    """
    if isinstance(labels, str | os.PathLike):
        return read_labels(check_path(labels, "labels", "classify"))
    found: dict[str, str] = {}
    for key, value in _pairs(labels):
        label = _label(value)
        if not isinstance(key, str | os.PathLike):
            raise InputTypeError(
                f"Labels go by the keys of images, which are texts or paths. Got {shown(key)}; 'imatlas table' lists "
                "the keys."
            )
        text = os.fsdecode(key)
        if label and found.setdefault(text, label) != label:
            raise InputError(f"'{text}' is labeled '{found[text]}' and '{label}'; keep one of them.")
    return found


def _pairs(labels: Any) -> Iterable[tuple[Any, Any]]:
    """The keys and labels of what was given."""
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
    metrics: dict[str, float] = {"labeled": n_given}
    if math.isnan(model.accuracy_):
        sentences.append("No kind has two labels, so there is nothing to test with: give each kind a few.")
    else:
        metrics |= {"accuracy": model.accuracy_, "accuracy_error": model.accuracy_error_}
        sentences.append(
            f"Of the labeled images {model.accuracy_:.0%} ± {model.accuracy_error_:.0%} were right while they counted "
            "as unlabeled."
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
        protocol=f"accuracy by cross-validation over the {n_given:,} labeled images",
    )


def _mean(values: np.ndarray) -> float | str:
    return float(values.mean()) if len(values) else ""
