"""What a user gives as an argument: counts, numbers, seeds and paths, each checked in one way and told in one way.

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
"""What scikit-learn takes as `random_state`, and NumPy's new generators."""

MOST_SEED = 2**63 - 1
"""Largest seed: what torch takes."""

SHOWN = 60
"""Letters of a value that a message shows."""


def shown(value: Any) -> str:
    """A value as a message shows it: itself where it is short, else what kind of thing it is."""
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
    """The error of an argument that is not what it must be.

    Parameters
    ----------
    name, of : str
        The argument, and what takes it.
    must : str
        What fits after "must be".
    value : object
        What was got.
    """
    return ParameterError(f"The '{name}' parameter of {of} must be {must}. Got {shown(value)} instead.")


def whole(value: Any) -> int | None:
    """The int that a value is, Python's or NumPy's; None where it is none, as 2.0, "2" and True are."""
    if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def number_of(index: Any) -> int | None:
    """The one number that an index is, as `whole` has it; None for a sequence of them, or a mask."""
    return None if getattr(index, "ndim", 0) else whole(index)


def check_int(value: Any, name: str, of: str, *, low: int | None = None, high: int | None = None) -> int:
    """An argument that counts, as an int in the range [low, high].

    Raises
    ------
    ParameterError
        Naming the argument, what it must be, and what was got.
    """
    number = whole(value)
    if number is None or (low is not None and number < low) or (high is not None and number > high):
        raise refused(name, of, f"an int{_range(low, high)}", value)
    return number


def check_number(
    value: Any, name: str, of: str, *, low: float | None = None, high: float | None = None, above: bool = False
) -> float:
    """An argument that measures, as a finite float in the range [low, high], or (low, high] with `above`.

    Raises
    ------
    ParameterError
        Naming the argument, what it must be, and what was got.
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
    """Whether a value is a random generator of NumPy, old or new."""
    return isinstance(value, np.random.RandomState | np.random.Generator)


def check_seed(value: Any, of: str, name: str = "random_state") -> int:
    """A seed: the number that was given, or one int drawn from a generator, or from the operating system for None.

    Raises
    ------
    ParameterError
        If it is none of these.
    """
    if value is None:
        return int.from_bytes(os.urandom(4), "little") >> 1
    if isinstance(value, np.random.RandomState):
        return int(value.randint(2**31 - 1))
    if isinstance(value, np.random.Generator):
        return int(value.integers(2**31 - 1))
    number = whole(value)
    if number is None or not 0 <= number <= MOST_SEED:
        raise refused(name, of, "None, an int in the range [0, 2**63 - 1], a RandomState or a Generator", value)
    return number


def check_path(value: Any, name: str, of: str) -> Path:
    """The path of a file or folder; '~' is the user's home where the text begins with it.

    Raises
    ------
    InputTypeError
        If it is no text and no path.
    InputError
        If no file can have this name.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        raise InputTypeError(f"The '{name}' parameter of {of} must be a path or a str. Got {shown(value)} instead.")
    if not text or "\0" in text:
        what = "a name with a null character" if text else "an empty text"
        raise InputError(f"The '{name}' parameter of {of} must be a path. Got {what}; '.' is the current folder.")
    return Path(os.path.expanduser(text))


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def path_of(text: str) -> Path:
    """A path of a source of images, as `check_path` has them.

    Raises
    ------
    InputError
        If it is an address on the net, too.
    """
    if _ADDRESS.match(text):
        raise InputError(f"'{text[:200]}' is an address, and images are not read from the net; download them first.")
    return check_path(text, "source", "Images")


def check_yes(value: Any, name: str, of: str) -> bool:
    """An argument that is True or False: any other would count as yes, "no" among them.

    Raises
    ------
    ParameterError
        Naming the argument, what it must be, and what was got.
    """
    if not isinstance(value, bool | np.bool_):
        raise refused(name, of, "True or False", value)
    return bool(value)


P = ParamSpec("P")
R = TypeVar("R")


def strict_yes(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose yes/no arguments, those that are declared as `bool`, take True and False and nothing else."""
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
