"""What a user gives as images, as plain lists in its own order: columns of other libraries, files that are open."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from imatlas.arguments import article
from imatlas.errors import InputError, InputTypeError


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor; an open file can be detached, too."""
    return hasattr(value, "detach") and hasattr(value, "shape") and hasattr(value, "dtype")


def is_open_file(value: Any) -> bool:
    """Whether a value is a file that is open to read, or one in memory."""
    return callable(getattr(value, "read", None)) and callable(getattr(value, "seek", None))


def as_items(source: Any, field: str | None = None) -> Any:
    """A list, by position, of a column of pandas, Arrow or polars, of an array of paths, or of a single picture.

    Whatever else comes back as it is. `field` is the column of a table.

    Raises
    ------
    InputTypeError
        For a whole table, of which one column must be named, and for what images cannot be read from.
    """
    if _is_table(source):
        names = [str(name) for name in getattr(source, "column_names", None) or source.columns]
        field = field or next((name for name in ("image", "img", "path", "file") if name in names), None)
        if field in names:
            return as_items(source[field])
        shown = ", ".join(names[:10])
        raise InputTypeError(
            f"Images cannot be read from a {type(source).__name__}, which has the columns {shown}; give one of them, "
            f"as in table['{names[0] if names else 'image'}'], or its name as 'field'."
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
    if isinstance(source, dict) and source and all(_is_dataset(part) for part in source.values()):
        return Parts(source)
    if isinstance(source, dict | set | frozenset):
        raise InputTypeError(
            f"Images cannot be read from a {type(source).__name__}, which has no rows; give a list of pictures."
        )
    return source


def _is_dataset(part: Any) -> bool:
    return hasattr(part, "__len__") and hasattr(part, "__getitem__") and not isinstance(part, str | bytes | dict)


class Parts:
    """The items of several datasets, one after the other, as a DatasetDict has them."""

    def __init__(self, parts: dict[Any, Any]) -> None:
        self._parts = list(parts.values())
        self._ends = np.cumsum([len(part) for part in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Any:
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[number][index - (int(self._ends[number - 1]) if number else 0)]


def as_one(image: Any, name: str = "image") -> Any:
    """One image as a set of one that `Images` takes.

    Parameters
    ----------
    image : path, bytes of a file, file that is open, Pillow image, or array or tensor (H, W[, C])
    name : str
        What to call it in messages.

    Raises
    ------
    InputTypeError
        For every other kind of thing, a list of images among them.
    InputError
        For an array of another shape.
    """
    if isinstance(image, str | os.PathLike):
        return [image]
    if isinstance(image, memoryview | bytearray):
        image = bytes(image)
    if isinstance(image, bytes) or is_open_file(image) or hasattr(image, "getbands"):
        return [image]
    if not _is_array(image):
        raise InputTypeError(
            f"The '{name}' must be one image: a key of the atlas, a path, the bytes of a file, a file that is open, a "
            f"Pillow image, or an array (H, W[, C]). Got {article(type(image).__name__)} instead."
        )
    array = image if is_tensor(image) else np.asarray(image)
    if array.ndim not in (2, 3):
        shape = tuple(array.shape)
        raise InputError(f"The '{name}' must be one image, an array (H, W) or (H, W, C). Got the shape {shape}.")
    return array[None]


def as_several(images: Any, name: str = "images") -> list[Any]:
    """Several images as a list of what `as_one` takes; one that stands alone is a list of one.

    Parameters
    ----------
    images : sequence, column or array (N, H, W, C) of images, or one image, which an array (H, W[, C]) is
    name : str
        What to call it in messages.

    Raises
    ------
    InputTypeError
        If it holds no images.
    """
    if isinstance(images, str | os.PathLike):
        return [images]
    if _is_array(images):
        return list(images) if images.ndim == 4 else [images]
    items = as_items(images)
    if not hasattr(items, "__len__") or not hasattr(items, "__getitem__"):
        as_one(items, name)  # says what it must be
    return [items[i] for i in range(len(items))]


def _is_array(value: Any) -> bool:
    """Whether a value is an array of numbers, of NumPy or what can be made one, and no column or list."""
    if isinstance(value, np.generic | list | tuple) or hasattr(value, "iloc") or _is_table(value) or _is_column(value):
        return False
    if is_tensor(value):
        return True
    shaped = hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "ndim")
    return shaped and hasattr(value, "__array__") and getattr(value.dtype, "kind", "V") in "biuf"


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
