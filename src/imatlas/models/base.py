"""Base class of all models: parameters declared once, checked at `fit`, stored as given, saved without pickle.

A model is a dataclass whose fields are its hyperparameters::

    @estimator
    class SOM(Estimator):
        rows: Annotated[int, Field(ge=1, description="rows of the lattice")] = 10

`get_params`, the check and its message, the command line option, the saved JSON and the docs derive from this line.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, dataclass_transform, get_args, get_origin

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from imatlas.arguments import MAX_SEED, check_seed, is_generator, shown, strict_yes
from imatlas.errors import ParameterError
from imatlas.models import artifact
from imatlas.models.learned_attributes import State

T = TypeVar("T")

Seed = Annotated[int | None, Field(ge=0, le=MAX_SEED, description="seed of all random numbers; None draws one")]
"""Type of `random_state` in files and on the command line; in Python it may also be a NumPy generator."""


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(dataclasses.field,))
def estimator(cls: type[T]) -> type[T]:
    """Class decorator: a keyword-only dataclass that keeps scikit-learn's `repr` and compares by identity."""
    return dataclass(kw_only=True, eq=False, repr=False)(cls)


@dataclass(frozen=True)
class Parameter:
    """Declaration of one hyperparameter.

    `type` is the plain type (`int`, `float | None`, `Literal[...]`), `annotation` the same with its constraints.
    """

    name: str
    type: Any
    annotation: Any
    default: Any
    description: str
    limits: tuple[Any, ...]

    @property
    def choices(self) -> tuple[Any, ...]:
        """The allowed values of a `Literal`; empty for other types."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    def expected(self) -> str:
        """The allowed values in words, as in scikit-learn: "an int in the range [1, inf)"."""
        return _expected(self.type, self.limits)


def parameters(cls: type) -> dict[str, Parameter]:
    """Hyperparameters of an estimator class by name, inherited ones last."""
    return _parameters(cls)


@functools.cache
def _parameters(cls: type) -> dict[str, Parameter]:
    hints = typing.get_type_hints(cls, include_extras=True)
    declared: dict[str, Parameter] = {}
    own = set(vars(cls).get("__annotations__", ()))
    fields = [f for f in dataclasses.fields(cls) if f.init]
    for field in sorted(fields, key=lambda f: f.name not in own):
        annotation = hints[field.name]
        kind, extras = annotation, []
        if get_origin(annotation) is Annotated:
            kind, *extras = get_args(annotation)
        limits: list[Any] = []
        description = ""
        for extra in extras:
            if isinstance(extra, FieldInfo):
                limits += extra.metadata
                description = extra.description or description
        declared[field.name] = Parameter(field.name, kind, annotation, field.default, description, tuple(limits))
    return declared


def _expected(kind: Any, limits: tuple[Any, ...]) -> str:
    """A type with its limits, as a phrase after "must be"."""
    options = [kind] if get_origin(kind) is Literal else list(get_args(kind)) or [kind]
    low, high = "(-inf", "inf)"
    for limit in limits:
        if isinstance(limit, Ge):
            low = f"[{limit.ge}"
        elif isinstance(limit, Gt):
            low = f"({limit.gt}"
        elif isinstance(limit, Le):
            high = f"{limit.le}]"
        elif isinstance(limit, Lt):
            high = f"{limit.lt})"
    bounded = (low, high) != ("(-inf", "inf)")
    words = []
    for option in options:
        if get_origin(option) is Literal:
            words.append("one of " + ", ".join(repr(choice) for choice in get_args(option)))
        elif option is type(None):
            words.append("None")
        elif option in (int, float):
            name = "an int" if option is int else "a float"
            words.append(f"{name} in the range {low}, {high}" if bounded else name)
        elif option is bool:
            words.append("True or False")
        elif option is str:
            words.append("a str")
        else:
            words.append(f"an instance of {getattr(option, '__name__', str(option))}")
    return " or ".join(words)


@functools.cache
def _checkers(cls: type) -> dict[str, TypeAdapter[Any]]:
    config = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)
    return {name: TypeAdapter(p.annotation, config=config) for name, p in _parameters(cls).items()}


@estimator
class Estimator(BaseEstimator):
    """Base class of all models: scikit-learn's contract, parameters as fields, `save` and `load` without pickle.

    The constructor only stores. `fit` calls `_check_parameters` first, never changes a parameter, and stores learned
    attributes under names that end in `_`.
    """

    random_state: Seed = 0

    input: ClassVar[Literal["images", "vectors"]] = "vectors"
    """What `fit` takes: images, or vectors (n_samples, n_features)."""

    labels: ClassVar[Literal["none", "optional", "required"]] = "none"
    """Whether `fit` takes labels as `y`."""

    pretrained: ClassVar[bool] = False
    """Whether its network comes with trained weights, and so takes images of any size, depth and number of channels."""

    resumable: ClassVar[bool] = False
    """Whether `fit` takes a `checkpoint`, from which an interrupted run resumes."""

    _state: ClassVar[State] = {}  # learned attributes: see `imatlas.models.learned_attributes`

    def _contradiction(self) -> str:
        """A contradiction between learned attributes that are each as declared, in words; empty if there is none."""
        return ""

    def _check_parameters(self) -> None:
        """Check every parameter at the beginning of a fit, which draws its own seed.

        Raises
        ------
        ParameterError
            Naming the parameter, what it must be, and its value.
        """
        self._check_declared()
        self.__dict__.pop("_drawn", None)

    def _check_declared(self) -> None:
        """Check every parameter against its declaration.

        Raises
        ------
        ParameterError
            Naming the parameter, what it must be, and its value.
        """
        cls: type = type(self)
        for name, checker in _checkers(cls).items():
            value = getattr(self, name)
            if name == "random_state" and is_generator(value):
                continue
            plain = value.item() if isinstance(value, np.generic) else value
            try:
                checker.validate_python(plain)
            except ValidationError:
                expected = parameters(cls)[name].expected()
                expected += ", or a RandomState or Generator of NumPy" if name == "random_state" else ""
                raise ParameterError(
                    f"The '{name}' parameter of {cls.__name__} must be {expected}. Got {shown(value)} instead."
                ) from None

    def _check_fitted(self) -> None:
        """Raise scikit-learn's `NotFittedError` before `fit` was called."""
        if not self.__sklearn_is_fitted__():
            name = type(self).__name__
            raise NotFittedError(f"This {name} instance is not fitted yet; call 'fit' before using this method.")

    def __sklearn_is_fitted__(self) -> bool:
        return any(name.endswith("_") and not name.startswith("_") for name in vars(self))

    def _seed(self) -> int:
        """The seed as a number: `random_state`, or one draw per fit if it is a generator or None."""
        if self.random_state is not None and not is_generator(self.random_state):
            return int(self.random_state)
        if "_drawn" not in vars(self):
            self._drawn = check_seed(self.random_state, type(self).__name__)
        return self._drawn

    def _seed_of(self, random_state: Any) -> int:
        """The seed of samples of a fitted model: `random_state`, or `seed_`, that of the fit, where it is None."""
        fitted: Any = self
        return int(fitted.seed_) if random_state is None else check_seed(random_state, type(self).__name__)

    @strict_yes
    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the fitted model to a folder, atomically: `model.json` and `weights.safetensors`.

        Parameters
        ----------
        folder : path
            The folder to create.
        overwrite : bool
            Replace an existing model.

        Raises
        ------
        ArtifactError
            If the folder exists and `overwrite` is False.
        """
        self._check_fitted()
        return artifact.save(self, folder, overwrite=overwrite)
