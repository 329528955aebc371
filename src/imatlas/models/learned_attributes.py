"""Declarations of learned attributes: the kind, shape and range of each.

A class declares its learned attributes in `_state`. A loaded model is checked against it before anything is computed,
so that a damaged model gives one message rather than an error from within a library::

    _state = {"codebook_": Array("float32", "rows_*cols_", "n_features_in_"), "n_seen_": Value(COUNT)}

The size of an axis is a number; the name of a learned number or parameter ("rows_", "latent_dim"); or a free name
("K"), which has the same value throughout the model. Sums, products and alternatives are allowed ("D+1|2*D"). No axis
has size 0.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from imatlas.images.spec import ImageSpec

MAX_TEXT = 10_000
"""Longest string, in characters."""

MAX_COUNT = 2**53
"""Largest integer that JSON readers keep exact."""

COUNT = Annotated[int, Field(ge=0, le=MAX_COUNT)]
SIDE = Annotated[int, Field(ge=1, le=MAX_COUNT)]
FINITE = Annotated[float, Field(allow_inf_nan=False)]
TEXT = Annotated[str, Field(max_length=MAX_TEXT)]
SCALAR = bool | int | float | TEXT | None
HISTORY = dict[TEXT, list[int | float | None]]
RECORDS = list[dict[TEXT, SCALAR | list[SCALAR] | tuple[SCALAR, ...]]]


class Sizes:
    """Values of the named sizes of one model."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.bound: dict[str, int] = {}

    def fits(self, size: int | str, n: int) -> bool:
        """Whether `n` equals a size; a free name without a value gets the value `n`."""
        if isinstance(size, str) and size not in self.bound and self.known(size) is None and size.isidentifier():
            self.bound[size] = n
        return n > 0 and any(n == self._sum(choice) for choice in str(size).split("|"))

    def known(self, name: str) -> int | None:
        """The value of a number or name, or None."""
        if name.isdigit():
            return int(name)
        value: Any = self.bound.get(name)
        if value is None:
            value = functools.reduce(lambda part, key: getattr(part, key, None), name.split("."), self.model)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def _sum(self, expression: str) -> int | None:
        total = 0
        for term in expression.split("+"):
            product = 1
            for factor in map(self.known, term.split("*")):
                if factor is None:
                    return None
                product *= factor
            total += product
        return total


class Form:
    """Declaration of one learned attribute."""

    optional: bool
    """Whether the attribute may be None or missing."""

    def problem(self, value: Any, sizes: Sizes) -> str:
        """What is wrong with a value, in words; empty if it is as declared."""
        raise NotImplementedError


@dataclass(frozen=True)
class Value(Form):
    """JSON value: a number, a string, or lists and mappings of these; `kind` is a type for pydantic."""

    kind: Any
    optional: bool = False

    def problem(self, value: Any, sizes: Sizes) -> str:
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
    """Array of a dtype and shape, with finite numbers in a range.

    Parameters
    ----------
    dtype : str
        "float" is float32 or float64.
    shape : int or str
        See the top of this file.
    low, high : float
        Inclusive range of the numbers.
    below : str, optional
        A size that all numbers are below, for indices.
    """

    def __init__(
        self,
        dtype: str,
        *shape: int | str,
        low: float = -np.inf,
        high: float = np.inf,
        below: str = "",
        optional: bool = False,
    ) -> None:
        self.dtype, self.shape, self.optional = dtype, shape, optional
        self.low, self.high, self.below = low, high, below

    def problem(self, value: Any, sizes: Sizes) -> str:
        """See `Form`."""
        dtype = value.dtype if isinstance(value, np.ndarray) else None
        if dtype is None or not (dtype == self.dtype or (self.dtype == "float" and dtype.kind == "f")):
            return f"must be an array of {self.dtype}, and is {_shown(value) if dtype is None else dtype}"
        if reason := _wrong_shape(value, self.shape, sizes):
            return reason
        high = self.high
        if self.below:
            size = sizes.known(self.below)
            high = np.inf if size is None else size - 1
        if value.size and not (np.isfinite(value).all() and value.min() >= self.low and value.max() <= high):
            return f"must hold finite numbers from {self.low} to {high}"
        return ""


def _wrong_shape(value: np.ndarray, shape: tuple[int | str, ...], sizes: Sizes) -> str:
    if value.ndim != len(shape) or not all(map(sizes.fits, shape, value.shape)):
        return f"must have the shape ({', '.join(map(str, shape))}), and has {value.shape}"
    return ""


@dataclass(frozen=True)
class OneOf(Form):
    """An attribute of one of several forms."""

    forms: tuple[Form, ...]
    optional: bool = False

    def problem(self, value: Any, sizes: Sizes) -> str:
        """See `Form`."""
        reasons = [form.problem(value, sizes) for form in self.forms]
        return reasons[0] if all(reasons) else ""


@dataclass(frozen=True)
class Labels(Form):
    """Class labels (n,): integers, floats, booleans or strings."""

    size: str
    distinct: bool = False
    optional: bool = False

    def problem(self, value: Any, sizes: Sizes) -> str:
        """See `Form`."""
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iubfOU":
            return "must be an array of labels"
        if reason := _wrong_shape(value, (self.size,), sizes):
            return reason
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            return "must hold finite numbers"
        if value.dtype.kind == "O" and not all(isinstance(word, str) for word in value):
            return "must hold strings"
        if self.distinct and (not len(value) or not (value[:-1] < value[1:]).all()):
            return "must hold each class once, in order"
        return ""


@dataclass(frozen=True)
class Spec(Form):
    """`ImageSpec` of the training images, with a largest number of pixels."""

    max_pixels: int = 2**40
    optional: bool = False

    def problem(self, value: Any, sizes: Sizes) -> str:
        """See `Form`."""
        if not isinstance(value, ImageSpec):
            return "must be the shape, depth and range of the training images"
        if value.height * value.width > self.max_pixels:
            return f"has {value.height:,} x {value.width:,} pixels, more than {self.max_pixels:,}"
        return ""


@dataclass(frozen=True)
class Fitted(Form):
    """Fitted model of one of these classes, by name, or a subclass."""

    classes: tuple[str, ...]
    optional: bool = False

    def problem(self, value: Any, sizes: Sizes) -> str:
        """See `Form`."""
        names = {base.__name__ for base in type(value).__mro__}
        if not names.intersection(self.classes) or not value.__sklearn_is_fitted__():
            return f"must be a fitted {' or '.join(self.classes)}, and is a {type(value).__name__}"
        return ""


@dataclass(frozen=True)
class Module(Form):
    """Torch module, checked by its `Weights`; when loaded they are compared with those of the module built."""

    optional: bool = False

    def problem(self, value: Any, sizes: Sizes) -> str:
        """See `Form`."""
        if not isinstance(value, Weights):
            return "must be a network"
        names = (k for k, v in value.items() if v.dtype.kind == "f" and not np.isfinite(v).all())
        name = next(names, None)
        return "" if name is None else f"has weights '{name}' that are not finite"


class Weights(dict[str, np.ndarray]):
    """Arrays of a torch module by name."""


State = Mapping[str, Form]
"""Learned attributes by name."""

VECTORS: State = {
    "n_features_in_": Value(SIDE),
    "feature_names_in_": Labels("n_features_in_", optional=True),
}
"""Attributes that scikit-learn itself sets in a vector model."""


def state_of(cls: type) -> State:
    """Learned attributes declared by a class and its bases."""
    found: dict[str, Form] = {}
    for base in reversed(cls.__mro__):
        found |= vars(base).get("_state", {})
    return found


def contradiction(model: Any, held: Mapping[str, Any], *, every: bool) -> str:
    """The first problem with the learned attributes `held` of a model, in words; empty if there is none.

    With `every`, undeclared attributes are a problem, too.
    """
    declared, sizes = state_of(type(model)), Sizes(model)
    if every and (others := sorted(set(held) - set(declared))):
        return f"'{others[0]}' is not a learned attribute of {type(model).__name__}"
    for name, form in declared.items():
        value = held.get(name)
        if value is None and not form.optional:
            return f"'{name}' is missing"
        if value is not None and (reason := form.problem(value, sizes)):
            return f"'{name}' {reason}"
    return ""
