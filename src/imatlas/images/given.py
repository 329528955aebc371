"""What a user gives as images, as plain lists in its own order: columns of other libraries, files that are open."""

from __future__ import annotations

from typing import Any

import numpy as np

from imatlas.errors import InputTypeError


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor; an open file can be detached, too."""
    return hasattr(value, "detach") and hasattr(value, "shape") and hasattr(value, "dtype")


def is_open_file(value: Any) -> bool:
    """Whether a value is a file that is open to read, or one in memory."""
    return callable(getattr(value, "read", None)) and callable(getattr(value, "seek", None))


def as_items(source: Any) -> Any:
    """A list, by position, of a column of pandas, Arrow or polars, of an array of paths, or of a single picture.

    Whatever else comes back as it is.

    Raises
    ------
    InputTypeError
        For a whole table, of which one column must be named, and for what images cannot be read from.
    """
    if _is_table(source):
        names = [str(name) for name in getattr(source, "column_names", None) or source.columns]
        shown = ", ".join(names[:10])
        raise InputTypeError(
            f"Images cannot be read from a {type(source).__name__}, which has the columns {shown}; give one of them, "
            f"as in table['{names[0] if names else 'image'}']."
        )
    if hasattr(source, "iloc"):  # by position, whatever the labels of its rows are
        return list(source.array)
    for method in ("to_pylist", "to_list", "tolist"):
        if _is_column(source) and hasattr(source, method):
            return getattr(source, method)()
    if isinstance(source, memoryview | bytearray):
        source = bytes(source)
    if isinstance(source, bytes) or is_open_file(source) or hasattr(source, "getbands"):
        return [source]
    if isinstance(source, dict | set | frozenset):
        raise InputTypeError(
            f"Images cannot be read from a {type(source).__name__}, which has no rows; give a list of pictures."
        )
    return source


def _is_table(source: Any) -> bool:
    two = getattr(source, "ndim", None) == 2 and hasattr(source, "columns")
    return two or (type(source).__module__.partition(".")[0] == "pyarrow" and hasattr(source, "column_names"))


def _is_column(source: Any) -> bool:
    """Whether a value is a column or index of another library, or an array of words or objects."""
    if isinstance(source, np.ndarray):
        return source.ndim == 1 and source.dtype.kind in "USO"
    return type(source).__module__.partition(".")[0] in ("pandas", "pyarrow", "polars")


def content_of(file: Any) -> Any:
    """The bytes of an open file from its start; it stays open, at the place where it was."""
    try:
        place = file.tell()
        file.seek(0)
        content = file.read()
        file.seek(place)
    except (OSError, ValueError) as error:
        raise InputTypeError(
            f"A file that was given as an image cannot be read ({error}); open it with 'rb'."
        ) from error
    return content


def looks_like_one(shape: tuple[int, ...], tensor: bool) -> str:
    """What to write for an array (a, b, c) that is one picture rather than `a` of them; "" where it is none."""
    if len(shape) != 3:
        return ""
    first, middle, last = shape
    if last <= 4 < min(first, middle):
        return f"one picture with {last} channels: give x[None] for it, or x[..., None] for {first} pictures"
    if tensor and first in (3, 4) and min(middle, last) >= 16:
        return f"one picture with {first} channels: give x.permute(1, 2, 0)[None] for it, or x[..., None] for {first}"
    return ""
