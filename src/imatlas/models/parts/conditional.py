"""Base class of image generators with conditions: labels or vectors in `fit` and `sample`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from imatlas.arguments import shown
from imatlas.errors import InputError
from imatlas.models.base import estimator
from imatlas.models.image_estimator import ImageEstimator
from imatlas.models.learned_attributes import Array, Labels, State
from imatlas.models.onnx import N_CHECKED, random_vectors
from imatlas.nn.condition import Condition


@estimator
class Generator(ImageEstimator):
    """Base class of models that `sample` new images, optionally conditioned on `y`.

    `fit(images, y)` takes a label or vector per image: classes, clusters, cells of a map, or embeddings. Batches hold
    labels as indices into `classes_`, and vectors standardized; `_condition(width)` is the module that embeds them.

    Attributes
    ----------
    classes_ : array (n_classes,) of int64 or str, or None
        Labels given to `fit`, ascending.
    condition_range_ : array (2, n_features) float32, or None
        Mean and standard deviation of the vectors given to `fit`.
    """

    labels = "optional"

    _state: ClassVar[State] = {
        "classes_": Labels("n_classes", distinct=True, optional=True),
        "condition_range_": Array("float32", 2, "cond_dim", optional=True),
    }

    def _learn_conditions(self, y: Any, n_images: int) -> np.ndarray | None:
        """Learn the kind of conditions, and return them as the network takes them.

        Raises
        ------
        InputError
            If `y` is neither a label nor a vector per image.
        """
        self.classes_: np.ndarray | None = None
        self.condition_range_: np.ndarray | None = None
        if y is None:
            return None
        given = checked_conditions(y, n_images)
        self.classes_ = given.classes
        if given.vectors is not None:
            self.condition_range_ = np.stack([given.vectors.mean(0), given.vectors.std(0) + 1e-6])
            return self._conditions(given.vectors, n_images)
        return given.indices

    def _conditions(self, y: Any, n: int) -> np.ndarray | None:
        """`y` as the network takes it: (n,) int64 or (n, n_features) float32; one label or vector applies to all.

        Raises
        ------
        InputError
            If the model was fitted without conditions, or with other ones.
        """
        if y is None:
            return None
        if self.classes_ is not None:
            return labels_as_fitted(y, self.classes_, n)
        if self.condition_range_ is not None:
            vectors = vectors_as_fitted(y, self.condition_range_.shape[1], n)
            scaled = vectors - self.condition_range_[0]
            scaled /= self.condition_range_[1]  # in place: of many images they are large
            return scaled.astype(np.float32, copy=False)
        raise InputError(f"This {type(self).__name__} was fitted without conditions, so 'y' must be None.")

    def _contradiction(self) -> str:
        if self.classes_ is not None and self.condition_range_ is not None:
            return "'classes_' and 'condition_range_' exclude each other"
        if self.classes_ is not None and self.classes_.dtype.kind not in "iOU":
            return "'classes_' must be integers or strings"
        return ""

    def _condition_mismatch(self, name: str) -> str:
        """The message about an attribute of conditions that does not match `classes_` and `condition_range_`, or ""."""
        cond: np.ndarray | None = getattr(self, name)
        kind = "" if cond is None else cond.dtype.kind
        expected = "i" if self.classes_ is not None else "f" if self.condition_range_ is not None else ""
        return "" if kind == expected else f"'{name}' does not match 'classes_' and 'condition_range_'"

    def _onnx_condition(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The input "y" of an exported network and its description, each by name; empty without conditions."""
        if self.classes_ is not None:
            labels = ", ".join(map(str, self.classes_))
            contract = f"int64 (N,): index of a label in the list {labels}"
            return {"y": torch.arange(N_CHECKED) % len(self.classes_)}, {"input y": contract}
        if self.condition_range_ is not None:
            mean, deviation = self.condition_range_
            y = torch.from_numpy(mean) + random_vectors(len(mean)) * torch.from_numpy(deviation)
            return {"y": y}, {"input y": f"float32 (N, {len(mean)}): vectors like those given to fit"}
        return {}, {}

    def _standardized(self, y: Tensor | None) -> Tensor | None:
        """The input "y" of an exported network, with vectors standardized."""
        if y is None or self.condition_range_ is None:
            return y
        mean, deviation = map(torch.from_numpy, self.condition_range_)
        return (y - mean) / deviation

    def _condition(self, width: int) -> Condition:
        """The module that embeds conditions in vectors of length `width`."""
        n_labels = 0 if self.classes_ is None else len(self.classes_)
        n_features = 0 if self.condition_range_ is None else self.condition_range_.shape[1]
        return Condition(n_labels, n_features, width)

    @property
    def takes_vectors(self) -> bool:
        """Whether `y` of `sample` may be vectors, because `fit` was given some."""
        return self.condition_range_ is not None

    @property
    def reconstructor(self) -> Any:
        """The fitted model whose `transform` and `inverse_transform` encode and reconstruct images, or None."""
        return None


@dataclass(frozen=True)
class Conditions:
    """What `fit` was given as `y`: labels, as their ascending classes and the index of each; or vectors."""

    classes: np.ndarray | None = None
    indices: np.ndarray | None = None
    vectors: np.ndarray | None = None


def checked_conditions(y: Any, n_images: int) -> Conditions:
    """A label or a vector for each image.

    Raises
    ------
    InputError
        If `y` is neither.
    """
    if y is None:
        return Conditions()
    y = _plain(y)
    if y.ndim not in (1, 2) or len(y) != n_images:
        raise InputError(
            f"'y' must hold one label or one vector for each of the {n_images} images. Got shape {y.shape}."
        )
    if y.ndim == 1 and y.dtype.kind != "f":
        labels = np.unique(y)
        classes = labels.astype(str if labels.dtype.kind == "U" else np.int64)
        return Conditions(classes, labels_as_fitted(y, classes, n_images))
    if y.dtype.kind == "U":
        raise InputError("Vectors in 'y' must be numbers. Got text; give one label per image.")
    y = y.reshape(n_images, -1).astype(np.float32, copy=False)  # floats are vectors of length 1
    if not np.isfinite(y).all():
        raise InputError("Vectors in 'y' must be finite. Got NaN or infinity; remove those images.")
    return Conditions(vectors=y)


def labels_as_fitted(y: Any, classes: np.ndarray, n: int) -> np.ndarray:
    """The index (n,) int64 of the class of each label; one label applies to all.

    Raises
    ------
    InputError
        If a label is not one of `classes`.
    """
    y = _plain(y)
    labels = np.broadcast_to(y, (n,)) if y.ndim == 0 else y
    if (
        (classes.dtype.kind in "OU") != (y.dtype.kind == "U")
        or labels.shape != (n,)
        or not np.isin(labels, classes).all()
    ):
        raise InputError(
            f"'y' must be one label, or {n}, of the {len(classes)} that the model was fitted with "
            f"({classes[0]} to {classes[-1]}). Got {_shortened(y)} instead."
        )
    return np.searchsorted(classes.astype(labels.dtype) if y.dtype.kind == "U" else classes, labels)


def vectors_as_fitted(y: Any, width: int, n: int) -> np.ndarray:
    """Vectors (n, width); one vector applies to all.

    Raises
    ------
    InputError
        If the shape differs.
    """
    y = _plain(y)
    if width == 1 and y.ndim < 2:  # one number applies to all images
        y = y.reshape(-1, 1) if y.size == n > 1 else y.reshape(-1)
    vectors = np.broadcast_to(y, (n, *y.shape)) if y.ndim == 1 else y
    if y.dtype.kind == "U" or vectors.shape != (n, width):
        raise InputError(f"'y' must be one vector of length {width}, or {n} of them. Got shape {y.shape}.")
    return vectors


def _shortened(y: np.ndarray) -> str:
    if y.size <= 8:
        return f"{y!r}"
    return f"an array of shape {y.shape}, from {np.unique(y)[0]} to {np.unique(y)[-1]}"


def _plain(y: Any) -> np.ndarray:
    """Labels or vectors as an array of numbers or text.

    Raises
    ------
    InputError
        If it holds anything else, such as missing labels.
    """
    y = np.asarray(y)
    if y.dtype.kind == "O":
        values = y.ravel().tolist()
        if values and all(isinstance(value, str) for value in values):
            return y.astype(str)
        if not all(isinstance(value, int | float | np.number) for value in values):
            raise InputError(
                "Labels in 'y' must be all text or all numbers, one per image. Got others among them, such as "
                f"{shown(_other(values))}; remove those images."
            )
        return np.array(y.tolist())
    if y.dtype.kind not in "iubfU":
        raise InputError(f"Labels in 'y' must be integers or text, and vectors numbers. Got {y.dtype} instead.")
    return y


def interpolate(keys: np.ndarray, n_frames: int, *, spherical: bool = False) -> np.ndarray:
    """Points (n_frames, n_features) on a path through `keys` (n_keys, n_features), with smoothstep easing.

    `spherical` keeps the norm of noise (slerp: Shoemake 1985, "Animating rotation with quaternion curves"): the mean of
    two noise vectors is shorter than either, and would be generated as a blurred image.
    """
    position = np.linspace(0, len(keys) - 1, n_frames)
    leg = np.minimum(position.astype(int), len(keys) - 2) if len(keys) > 1 else np.zeros(n_frames, int)
    t = position - leg
    t = (t * t * (3 - 2 * t))[:, None]
    first, second = keys[leg], keys[np.minimum(leg + 1, len(keys) - 1)]
    if not spherical:
        return ((1 - t) * first + t * second).astype(np.float32)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    angle = np.arccos(np.clip((first * second).sum(1) / np.maximum(lengths, 1e-12), -1, 1))[:, None]
    flat = angle < 1e-3
    sine = np.where(flat, 1.0, np.sin(angle))
    left = np.where(flat, 1 - t, np.sin((1 - t) * angle) / sine)
    right = np.where(flat, t, np.sin(t * angle) / sine)
    return (left * first + right * second).astype(np.float32)


def _other(values: list[Any]) -> Any:
    """The first value that is neither text nor a number; if there is none, the first text."""
    others = [value for value in values if not isinstance(value, int | float | np.number | str)]
    return (others or [value for value in values if isinstance(value, str)])[0]
