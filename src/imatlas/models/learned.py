"""What a fitted model holds, declared once: the kind, shape and range of each learned attribute.

A class names its learned attributes in `_state`; a model that is loaded is held against it before anything is computed
from it, so a saved model whose numbers contradict each other is one message and not an error from within a library::

    _state = {"codebook_": Array("float32", "rows_*cols_", "n_features_in_"), "n_seen_": Value(COUNT)}

A side of a shape is a number, a learned number or parameter of the model ("rows_", "latent_dim"), or a name made up
here ("K"), which stands for one number throughout the model; also sums and products of these, and choices
("D+1|2*D"). No side is 0.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from imatlas.images.spec import ImageSpec

LONGEST_TEXT = 10_000
"""Characters of one string."""

MOST = 2**53
"""Largest count."""

COUNT = Annotated[int, Field(ge=0, le=MOST)]
SIDE = Annotated[int, Field(ge=1, le=MOST)]
FINITE = Annotated[float, Field(allow_inf_nan=False)]
TEXT = Annotated[str, Field(max_length=LONGEST_TEXT)]
SCALAR = bool | int | float | TEXT | None
HISTORY = dict[TEXT, list[int | float | None]]
RECORDS = list[dict[TEXT, SCALAR | list[SCALAR] | tuple[SCALAR, ...]]]


class Sizes:
    """The sides of shapes of one model: what names of them stand for."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.bound: dict[str, int] = {}

    def fits(self, side: int | str, n: int) -> bool:
        """Whether `n` is that side; a name that stands for nothing yet stands for `n` from now on."""
        if isinstance(side, str) and side not in self.bound and self.known(side) is None and side.isidentifier():
            self.bound[side] = n
        return n > 0 and any(n == self._sum(choice) for choice in str(side).split("|"))

    def known(self, name: str) -> int | None:
        """What a number or a name stands for."""
        if name.isdigit():
            return int(name)
        value: Any = self.bound.get(name)
        if value is None:
            value = functools.reduce(lambda part, key: getattr(part, key, None), name.split("."), self.model)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def _sum(self, words: str) -> int | None:
        total = 0
        for term in words.split("+"):
            product = 1
            for factor in map(self.known, term.split("*")):
                if factor is None:
                    return None
                product *= factor
            total += product
        return total


class Form:
    """What one learned attribute must be."""

    optional: bool
    """Whether it may be None or missing."""

    def wrong(self, value: Any, sizes: Sizes) -> str:
        """In which way a value is not of this form; nothing where it is."""
        raise NotImplementedError


@dataclass(frozen=True)
class Value(Form):
    """What JSON holds: a number, a string, lists and mappings of such; `kind` is a type with limits for pydantic."""

    kind: Any
    optional: bool = False

    def wrong(self, value: Any, sizes: Sizes) -> str:
        """See `Form`."""
        try:
            _adapter(self.kind).validate_python(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            return f"is {_shown(first['input'])}: {first['msg'][:1].lower()}{first['msg'][1:]}"
        return ""


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind, config=ConfigDict(strict=True))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class Array(Form):
    """An array of one dtype and shape, its numbers finite and in a range.

    Parameters
    ----------
    dtype : str
        "float" is float32 or float64.
    sides : int or str
        See the top of this file.
    low, high : float
        Of its numbers; they may be equal to these.
    below : str, optional
        A side: all are less than it, so that they are indices.
    """

    def __init__(
        self,
        dtype: str,
        *sides: int | str,
        low: float = -np.inf,
        high: float = np.inf,
        below: str = "",
        optional: bool = False,
    ) -> None:
        self.dtype, self.sides, self.optional = dtype, sides, optional
        self.low, self.high, self.below = low, high, below

    def wrong(self, value: Any, sizes: Sizes) -> str:
        """See `Form`."""
        dtype = value.dtype if isinstance(value, np.ndarray) else None
        if dtype is None or not (dtype == self.dtype or (self.dtype == "float" and dtype.kind == "f")):
            return f"must be an array of {self.dtype}, and is {_shown(value) if dtype is None else dtype}"
        if reason := _misshapen(value, self.sides, sizes):
            return reason
        high = self.high
        if self.below:
            size = sizes.known(self.below)
            high = np.inf if size is None else size - 1
        if value.size and not (np.isfinite(value).all() and value.min() >= self.low and value.max() <= high):
            return f"must hold finite numbers from {self.low} to {high}"
        return ""


def _misshapen(value: np.ndarray, sides: tuple[int | str, ...], sizes: Sizes) -> str:
    if value.ndim != len(sides) or not all(map(sizes.fits, sides, value.shape)):
        return f"must have the shape ({', '.join(map(str, sides))}), and has {value.shape}"
    return ""


@dataclass(frozen=True)
class OneOf(Form):
    """An array that is of one of several forms."""

    forms: tuple[Form, ...]
    optional: bool = False

    def wrong(self, value: Any, sizes: Sizes) -> str:
        """See `Form`."""
        reasons = [form.wrong(value, sizes) for form in self.forms]
        return reasons[0] if all(reasons) else ""


@dataclass(frozen=True)
class Labels(Form):
    """Classes as people name them: whole numbers, numbers, True and False, or words (n,)."""

    side: str
    distinct: bool = False
    optional: bool = False

    def wrong(self, value: Any, sizes: Sizes) -> str:
        """See `Form`."""
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iubfOU":
            return "must be an array of labels"
        if reason := _misshapen(value, (self.side,), sizes):
            return reason
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            return "must hold finite numbers"
        if value.dtype.kind == "O" and not all(isinstance(word, str) for word in value):
            return "must hold words"
        if self.distinct and (not len(value) or not (value[:-1] < value[1:]).all()):
            return "must name each class once, in order"
        return ""


@dataclass(frozen=True)
class Spec(Form):
    """The kind of images that were learned from, of at most so many pixels."""

    most_pixels: int = 2**40
    optional: bool = False

    def wrong(self, value: Any, sizes: Sizes) -> str:
        """See `Form`."""
        if not isinstance(value, ImageSpec):
            return "must say what kind of images was learned from"
        if value.height * value.width > self.most_pixels:
            return f"says {value.height:,} x {value.width:,} pixels; there are at most {self.most_pixels:,}"
        return ""


@dataclass(frozen=True)
class Fitted(Form):
    """A fitted model of one of these classes, by name, or of one that is built on it."""

    classes: tuple[str, ...]
    optional: bool = False

    def wrong(self, value: Any, sizes: Sizes) -> str:
        """See `Form`."""
        names = {base.__name__ for base in type(value).__mro__}
        if not names.intersection(self.classes) or not value.__sklearn_is_fitted__():
            return f"must be a fitted {' or '.join(self.classes)}, and is a {type(value).__name__}"
        return ""


@dataclass(frozen=True)
class Module(Form):
    """A torch module, seen as its weights by name: what it is built to is compared with these where it is loaded."""

    optional: bool = False

    def wrong(self, value: Any, sizes: Sizes) -> str:
        """See `Form`."""
        if not isinstance(value, Weights):
            return "must be a network"
        odd = next((k for k, v in value.items() if v.dtype.kind == "f" and not np.isfinite(v).all()), None)
        return "" if odd is None else f"has weights '{odd}' that are not finite"


class Weights(dict[str, np.ndarray]):
    """The arrays of a torch module by name."""


State = Mapping[str, Form]
"""Learned attributes by name."""

VECTORS: State = {
    "n_features_in_": Value(SIDE),
    "feature_names_in_": Labels("n_features_in_", optional=True),
}
"""What scikit-learn itself puts into a model of vectors."""


def state_of(cls: type) -> State:
    """The learned attributes that a class and those it is built on declare."""
    found: dict[str, Form] = {}
    for base in reversed(cls.__mro__):
        found |= vars(base).get("_state", {})
    return found


def contradiction(model: Any, held: Mapping[str, Any], *, every: bool) -> str:
    """The first thing that is wrong with the learned attributes `held` of a model; nothing where all is right.

    With `every`, also an attribute that the class does not declare.
    """
    declared, sizes = state_of(type(model)), Sizes(model)
    if every and (others := sorted(set(held) - set(declared))):
        return f"'{others[0]}' is nothing that a {type(model).__name__} learns"
    for name, form in declared.items():
        value = held.get(name)
        if value is None and not form.optional:
            return f"'{name}' is missing"
        if value is not None and (reason := form.wrong(value, sizes)):
            return f"'{name}' {reason}"
    return ""
