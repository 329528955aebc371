"""Checks of user arguments: counts, numbers, seeds and paths, with uniform error messages.

Types are strict, as for the parameters of models: an int is Python's or NumPy's, not 2.0, "2" or True.

Types are taken strictly, as the parameters of models are: an int is Python's or NumPy's, not 2.0, "2" or True.
"""

from __future__ import annotations

import functools
import inspect
import operator
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

from imatlas.errors import InputError, InputTypeError, ParameterError

RandomState = int | np.random.RandomState | np.random.Generator | None
"""scikit-learn's types of `random_state`, and NumPy's Generator."""

MAX_SEED = 2**63 - 1
"""Maximal seed, the limit of torch."""

SHOWN = 60
"""Maximal length of a value in a message."""


def shown(value: Any) -> str:
    """A value for a message: its repr if short, else its type."""
    if isinstance(value, bytes | bytearray | memoryview):
        return "1 byte" if len(value) == 1 else f"{len(value):,} bytes"
    shape = getattr(value, "shape", None)
    if isinstance(shape, Sequence) and len(shape):
        return f"{article(type(value).__name__)} of shape {tuple(shape)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN else article(type(value).__name__)


def counted(number: int, noun: str) -> str:
    """A number with a noun: "1 image", "1,200 images".

    Examples
    --------
    >>> counted(1, "image"), counted(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def article(name: str) -> str:
    """A name with its article: "an ndarray"."""
    return f"{'an' if name[:1].lower() in 'aeiou' or name == 'ndarray' else 'a'} {name}"


def refused(name: str, of: str, must: str, value: Any) -> ParameterError:
    """The error for an invalid argument.

    Parameters
    ----------
    name, of : str
        The argument and its function or class.
    must : str
        The text after "must be".
    value : object
        The value that was given.
    """
    return ParameterError(f"The '{name}' parameter of {of} must be {must}. Got {shown(value)} instead.")


def whole(value: Any) -> int | None:
    """The value as an int if it is Python's or NumPy's; else None, as for 2.0, "2" and True."""
    if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def number_of(index: Any) -> int | None:
    """A single index as an int, by the rule of `whole`; None for a sequence or a mask."""
    return None if getattr(index, "ndim", 0) else whole(index)


def check_int(value: Any, name: str, of: str, *, low: int | None = None, high: int | None = None) -> int:
    """An argument as an int in the range [low, high].

    Raises
    ------
    ParameterError
        If it is anything else.
    """
    number = whole(value)
    if number is None or (low is not None and number < low) or (high is not None and number > high):
        raise refused(name, of, f"an int{_range(low, high)}", value)
    return number


def check_number(
    value: Any, name: str, of: str, *, low: float | None = None, high: float | None = None, above: bool = False
) -> float:
    """An argument as a finite float in the range [low, high], or (low, high] with `above`.

    Raises
    ------
    ParameterError
        If it is anything else.
    """
    plain = value.item() if isinstance(value, np.generic) else value
    good = isinstance(plain, int | float) and not isinstance(plain, bool) and abs(plain) <= sys.float_info.max
    if good and low is not None:
        good = plain > low if above else plain >= low
    if not good or (high is not None and plain > high):
        raise refused(name, of, f"a number{_range(low, high, above)}", value)
    return float(plain)


def _range(low: float | None, high: float | None, above: bool = False) -> str:
    if low is None and high is None:
        return ""
    first = "(-inf" if low is None else f"{'(' if above else '['}{low}"
    return f" in the range {first}, {'inf)' if high is None else f'{high}]'}"


def is_generator(value: Any) -> bool:
    """Whether a value is a NumPy RandomState or Generator."""
    return isinstance(value, np.random.RandomState | np.random.Generator)


def check_seed(value: Any, of: str, name: str = "random_state") -> int:
    """A seed: the given int, or one drawn from a generator, or from the operating system for None.

    Raises
    ------
    ParameterError
        If it is anything else.
    """
    if value is None:
        return int.from_bytes(os.urandom(4), "little") >> 1
    if isinstance(value, np.random.RandomState):
        return int(value.randint(2**31 - 1))
    if isinstance(value, np.random.Generator):
        return int(value.integers(2**31 - 1))
    number = whole(value)
    if number is None or not 0 <= number <= MAX_SEED:
        raise refused(name, of, "None, an int in the range [0, 2**63 - 1], a RandomState or a Generator", value)
    return number


def check_path(value: Any, name: str, of: str) -> Path:
    """A path with "~" expanded.

    Raises
    ------
    InputTypeError
        If it is neither a str nor a path.
    InputError
        If it is empty or contains a null character.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        raise InputTypeError(f"The '{name}' parameter of {of} must be a path or a str. Got {shown(value)} instead.")
    if not text or "\0" in text:
        what = "a name with a null character" if text else "an empty text"
        raise InputError(f"The '{name}' parameter of {of} must be a path. Got {what}; '.' is the current folder.")
    return Path(os.path.expanduser(text))


_ADDRESS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]+::)*[A-Za-z][A-Za-z0-9+.-]+://")


def is_address(text: str) -> bool:
    """Whether a text is an address such as "s3://bucket/photos" rather than a path."""
    return _ADDRESS.match(text) is not None


def path_of(text: str) -> Path:
    """The path of images on this machine; as `check_path`, but addresses are refused too.

    Raises
    ------
    InputError
        If it is an address, or not a path.
    """
    if is_address(text):
        raise InputError(
            f"An address ({text.partition(':')[0]}:) is given where only files on this machine are read; give "
            "addresses alone, or as a list of nothing else."
        )
    return check_path(text, "source", "Images")


def check_yes(value: Any, name: str, of: str) -> bool:
    """An argument as a bool; other types are refused, as any string would count as True.

    Raises
    ------
    ParameterError
        If it is anything else.
    """
    if not isinstance(value, bool | np.bool_):
        raise refused(name, of, "True or False", value)
    return bool(value)


P = ParamSpec("P")
R = TypeVar("R")


def strict_yes(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: arguments annotated as `bool` accept only True and False."""
    parameters = inspect.signature(function).parameters
    places = {name: i for i, (name, of) in enumerate(parameters.items()) if of.annotation in (bool, "bool")}
    own, _, of = function.__qualname__.rpartition(".")
    of = own if of == "__init__" else of

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, place in places.items():
            if name in kwargs:
                check_yes(kwargs[name], name, of)
            elif place < len(args):
                check_yes(args[place], name, of)
        return function(*args, **kwargs)

    return checked
