"""What models share that make images and can be told of what kind: conditions in `fit` and in `sample`."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from imatlas.arguments import shown
from imatlas.errors import InputError
from imatlas.models.base import estimator
from imatlas.models.image_estimator import ImageEstimator
from imatlas.models.learned import Array, Labels, State
from imatlas.models.onnx import N_CHECKED, random_vectors
from imatlas.nn.condition import Condition


@estimator
class Generator(ImageEstimator):
    """The base of models that `sample` new images, free or as `y` says.

    `fit(images, y)` takes a label or a vector of each image: classes, clusters, cells of a map, or places in a learned
    space. The batch then carries labels as indices into `classes_` and vectors standardized, and `_condition(width)`
    gives the module that turns them into one vector an image.

    Attributes
    ----------
    classes_ : array (n_classes,) of int64 or str, or None
        The labels that were given to `fit`, ascending.
    condition_range_ : array (2, n_features) float32, or None
        Mean and standard deviation of the vectors that were given to `fit`.
    """

    labels = "optional"

    _state: ClassVar[State] = {
        "classes_": Labels("n_classes", distinct=True, optional=True),
        "condition_range_": Array("float32", 2, "cond_dim", optional=True),
    }

    def _learn_conditions(self, y: Any, n_images: int) -> np.ndarray | None:
        """Remember what kind of conditions there are, and give those of the images as the network takes them.

        Raises
        ------
        InputError
            If `y` is neither a label nor a vector for each image.
        """
        self.classes_: np.ndarray | None = None
        self.condition_range_: np.ndarray | None = None
        if y is None:
            return None
        y = _plain(y)
        if y.ndim not in (1, 2) or len(y) != n_images:
            raise InputError(
                f"'y' must hold one label, or one vector, for each of the {n_images} images. Got shape {y.shape}."
            )
        if y.ndim == 1 and y.dtype.kind != "f":
            labels = np.unique(y)
            self.classes_ = labels.astype(str if labels.dtype.kind == "U" else np.int64)
            return self._conditions(y, n_images)
        if y.dtype.kind == "U":
            raise InputError("Vectors in 'y' must be numbers. Got text; give one label for each image.")
        y = y.reshape(n_images, -1).astype(np.float32)  # a number is a vector of one
        if not np.isfinite(y).all():
            raise InputError("Vectors in 'y' must be finite. Got NaN or infinity; leave those images out.")
        self.condition_range_ = np.stack([y.mean(0), y.std(0) + 1e-6])
        return self._conditions(y, n_images)

    def _conditions(self, y: Any, n: int) -> np.ndarray | None:
        """What the network takes for `y`: (n,) int64 or (n, n_features) float32; one label or vector serves all.

        Raises
        ------
        InputError
            If the model was fitted without conditions or with others.
        """
        if y is None:
            return None
        y = _plain(y)
        if self.classes_ is not None:
            labels = np.broadcast_to(y, (n,)) if y.ndim == 0 else y
            if (
                (self.classes_.dtype.kind in "OU") != (y.dtype.kind == "U")
                or labels.shape != (n,)
                or not np.isin(labels, self.classes_).all()
            ):
                raise InputError(
                    f"'y' must be a label, or {n} of them, out of the {len(self.classes_)} that the model was fitted "
                    f"with ({self.classes_[0]} to {self.classes_[-1]}). Got {_shortened(y)} instead."
                )
            return np.searchsorted(self.classes_.astype(labels.dtype) if y.dtype.kind == "U" else self.classes_, labels)
        if self.condition_range_ is not None:
            width = self.condition_range_.shape[1]
            if width == 1 and y.ndim < 2:  # one number serves all, or is of one image
                y = y.reshape(-1, 1) if y.size == n > 1 else y.reshape(-1)
            vectors = np.broadcast_to(y, (n, *y.shape)) if y.ndim == 1 else y
            if y.dtype.kind == "U" or vectors.shape != (n, width):
                raise InputError(f"'y' must be a vector of {width} numbers, or {n} of them. Got shape {y.shape}.")
            return ((vectors - self.condition_range_[0]) / self.condition_range_[1]).astype(np.float32)
        raise InputError(f"This {type(self).__name__} was fitted without conditions, so 'y' must be None.")

    def _contradiction(self) -> str:
        if self.classes_ is not None and self.condition_range_ is not None:
            return "'classes_' and 'condition_range_' cannot both be there"
        if self.classes_ is not None and self.classes_.dtype.kind not in "iOU":
            return "'classes_' must be whole numbers or words"
        return ""

    def _condition_mismatch(self, name: str) -> str:
        """What is wrong where an attribute with conditions is not of the kind that `classes_` and the range say."""
        told: np.ndarray | None = getattr(self, name)
        kind = "" if told is None else told.dtype.kind
        expected = "i" if self.classes_ is not None else "f" if self.condition_range_ is not None else ""
        return "" if kind == expected else f"'{name}' does not go with 'classes_' and 'condition_range_'"

    def _onnx_condition(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The input "y" of an exported network, by name, and what it is in words; nothing where it is told nothing."""
        if self.classes_ is not None:
            labels = ", ".join(map(str, self.classes_))
            words = f"int64 (N,): the place, from 0 on, of a label in the row of those that were learned: {labels}"
            return {"y": torch.arange(N_CHECKED) % len(self.classes_)}, {"input y": words}
        if self.condition_range_ is not None:
            mean, deviation = self.condition_range_
            some = torch.from_numpy(mean) + random_vectors(len(mean)) * torch.from_numpy(deviation)
            return {"y": some}, {"input y": f"float32 (N, {len(mean)}): vectors such as fit was given"}
        return {}, {}

    def _standardized(self, y: Tensor | None) -> Tensor | None:
        """What an exported network is given as the network inside takes it."""
        if y is None or self.condition_range_ is None:
            return y
        mean, deviation = map(torch.from_numpy, self.condition_range_)
        return (y - mean) / deviation

    def _condition(self, width: int) -> Condition:
        """The module from conditions to vectors of `width`."""
        n_labels = 0 if self.classes_ is None else len(self.classes_)
        n_features = 0 if self.condition_range_ is None else self.condition_range_.shape[1]
        return Condition(n_labels, n_features, width)


def _shortened(y: np.ndarray) -> str:
    if y.size <= 8:
        return f"{y!r}"
    return f"an array of shape {y.shape}, from {np.unique(y)[0]} to {np.unique(y)[-1]}"


def _plain(y: Any) -> np.ndarray:
    """Labels or vectors as an array of numbers or of text.

    Raises
    ------
    InputError
        If it holds anything else, such as labels of which some are missing.
    """
    y = np.asarray(y)
    if y.dtype.kind == "O":
        values = y.ravel().tolist()
        if values and all(isinstance(value, str) for value in values):
            return y.astype(str)
        if not all(isinstance(value, int | float | np.number) for value in values):
            raise InputError(
                "Labels in 'y' must be all text or all numbers, one of each image. Got others among them, such as "
                f"{shown(_other(values))}; leave those images out."
            )
        return np.array(y.tolist())
    if y.dtype.kind not in "iubfU":
        raise InputError(f"Labels in 'y' must be whole numbers or text, and vectors numbers. Got {y.dtype} instead.")
    return y


def along(keys: np.ndarray, n_frames: int, *, on_sphere: bool = False) -> np.ndarray:
    """Points (n_frames, n_features) on the way through `keys` (n_keys, n_features), each leg in equal time.

    Legs start and end slowly, so that the key images are seen for a while. With `on_sphere` the way keeps the length
    that noise has (Shoemake 1985, "Animating rotation with quaternion curves": slerp); the mean of two draws of noise
    would be shorter than any draw, and a flow makes a blur of it.
    """
    places = np.linspace(0, len(keys) - 1, n_frames)
    leg = np.minimum(places.astype(int), len(keys) - 2) if len(keys) > 1 else np.zeros(n_frames, int)
    share = places - leg
    share = (share * share * (3 - 2 * share))[:, None]
    first, second = keys[leg], keys[np.minimum(leg + 1, len(keys) - 1)]
    if not on_sphere:
        return ((1 - share) * first + share * second).astype(np.float32)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    angle = np.arccos(np.clip((first * second).sum(1) / np.maximum(lengths, 1e-12), -1, 1))[:, None]
    flat = angle < 1e-3
    sine = np.where(flat, 1.0, np.sin(angle))
    left = np.where(flat, 1 - share, np.sin((1 - share) * angle) / sine)
    right = np.where(flat, share, np.sin(share * angle) / sine)
    return (left * first + right * second).astype(np.float32)


def _other(values: list[Any]) -> Any:
    """The first value that is neither text nor a number; of both kinds, the first text."""
    odd = [value for value in values if not isinstance(value, int | float | np.number | str)]
    return (odd or [value for value in values if isinstance(value, str)])[0]
