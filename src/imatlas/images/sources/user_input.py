"""User input as plain lists in its own order: columns of other libraries, open files, single images."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from imatlas.arguments import article
from imatlas.errors import InputError, InputTypeError
from imatlas.images.sources.base import part_of


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor."""
    return hasattr(value, "detach") and hasattr(value, "shape") and hasattr(value, "dtype")


def is_open_file(value: Any) -> bool:
    """Whether a value is a file that is open for reading, or one in memory."""
    return callable(getattr(value, "read", None)) and callable(getattr(value, "seek", None))


def numpy_of(tensor: Any) -> np.ndarray:
    """The values of a tensor; sparse ones with their zeros, and dtypes that NumPy lacks as float32."""
    tensor = tensor.detach().cpu()
    if "strided" not in str(tensor.layout):
        tensor = tensor.to_dense()
    try:
        return tensor.numpy()
    except TypeError:  # bfloat16 and shorter
        return tensor.float().numpy()


IMAGE_COLUMNS = (
    *("image", "img", "pixel_values", "png", "jpg", "jpeg", "webp"),
    *("path", "file", "filename", "file_name", "filepath", "file_path", "image_path", "thumbnail"),
)
"""Names of columns and fields that hold images or their paths, the likeliest first."""

IMAGE_ARRAYS = ("images", "image", "x", "X", "x_train", "train_images", "data", "arr_0")
"""Names of the arrays of a .npz file that hold images, the likeliest first."""


def as_items(source: Any, field: str | int | None = None) -> Any:
    """A list, by position, of a column of pandas, Arrow or polars, of an array of paths, or of a single picture.

    Anything else is returned unchanged. `field` is the column of a table.

    Raises
    ------
    InputTypeError
        For a table whose image column is not clear, and for objects that images cannot be read from.
    """
    if _is_table(source):
        return as_items(_column_of(source, field))
    if hasattr(source, "iloc"):  # by position, whatever the index
        return list(source.array)
    if isinstance(source, np.ndarray) and source.dtype.kind in "USO" and source.ndim > 1 == source[0].size:
        source = source.reshape(-1)  # one column of a table, as an array
    if isinstance(source, np.ndarray) and source.dtype.kind == "S" and source.ndim == 1:
        return [os.fsdecode(path) for path in source.tolist()]
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
    if isinstance(source, type):
        raise InputTypeError(f"Images cannot be read from the class {source.__name__}; give one of its objects.")
    return source


def _column_of(table: Any, field: str | int | None) -> Any:
    """The column of a table that holds images: the one that is named, has a usual name, or is the only one."""
    names = _names_of(table)
    kind = article("table" if isinstance(table, dict) else type(table).__name__)
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    wanted = None if field is None else str(field)
    if wanted is None:
        wanted = next((name for name in IMAGE_COLUMNS if name in names), names[0] if len(names) == 1 else None)
    if wanted is None:
        first = table.columns[0] if hasattr(table, "iloc") and names else (names or ["image"])[0]
        raise InputTypeError(
            f"Images cannot be read from {kind}, which has the columns {shown}; give one of them, as in "
            f"table[{first!r}], or its name as 'field'."
        )
    if names.count(wanted) != 1:
        how = f"{names.count(wanted) or 'no'} column{'s' if names.count(wanted) else ''} '{wanted}'"
        raise InputTypeError(
            f"Images cannot be read from {kind} with {how}, which 'field' names; its columns are {shown}."
            if field is not None
            else f"Images cannot be read from {kind} with {how}; rename all but one of them."
        )
    place = names.index(wanted)
    if isinstance(table, dict):
        return list(table.values())[place]
    for by_place in ("to_series", "column"):  # polars, Arrow
        if hasattr(table, by_place):
            return getattr(table, by_place)(place)
    return table.iloc[:, place]


def _names_of(table: Any) -> list[str]:
    names = table if isinstance(table, dict) else getattr(table, "column_names", None) or table.columns
    return [str(name) for name in names]


def _is_dataset(part: Any) -> bool:
    """Whether a value is a dataset, or a list of its items, rather than a column of a table."""
    if is_stream(part):
        return True
    if _is_array(part) or _is_column(part) or isinstance(part, str | bytes | dict):
        return False
    return hasattr(part, "__len__") and hasattr(part, "__getitem__")


def is_stream(source: Any) -> bool:
    """Whether a value is an iterable dataset of torch or Hugging Face, without random access."""
    return any(base.__name__ == "IterableDataset" for base in type(source).__mro__)


class Parts:
    """The items of several datasets, one after the other, as in a DatasetDict."""

    def __init__(self, parts: dict[Any, Any]) -> None:
        self._parts = [list(part) if is_stream(part) else part for part in parts.values()]
        self._ends = np.cumsum([len(part) for part in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Any:
        number, place = part_of(self._ends, index)
        return self._parts[number][place]


def as_one(image: Any, name: str = "image") -> Any:
    """One image as a source of one for `Images`.

    Parameters
    ----------
    image : path, bytes of a file, open file, Pillow image, or array or tensor (H, W[, C])
    name : str
        Its name in messages.

    Raises
    ------
    InputTypeError
        For any other kind of object, including a list of images.
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
            f"The '{name}' must be one image: a key of the atlas, a path, the bytes of a file, an open file, a "
            f"Pillow image, or an array (H, W[, C]). Got {article(type(image).__name__)} instead."
        )
    array = image if is_tensor(image) else np.asanyarray(image)  # keeps a mask
    if array.ndim not in (2, 3):
        shape = tuple(array.shape)
        raise InputError(f"The '{name}' must be one image, an array (H, W) or (H, W, C). Got the shape {shape}.")
    if isinstance(array, np.ma.MaskedArray) and array.size and np.ma.getmaskarray(array).all():
        raise InputError(f"The mask of the '{name}' hides all of its pixels; give one that leaves some visible.")
    return array[None]


def as_several(images: Any, name: str = "images") -> list[Any]:
    """Several images as a list of inputs of `as_one`; a single one is a list of one.

    Parameters
    ----------
    images : sequence, column or array (N, H, W, C) of images, or one image, which an array (H, W[, C]) is
    name : str
        Its name in messages.

    Raises
    ------
    InputTypeError
        If it contains no images.
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
    """Whether a value is a numeric array, of NumPy or convertible to it, and not a column or list."""
    if isinstance(value, np.generic | list | tuple) or hasattr(value, "iloc") or _is_table(value) or _is_column(value):
        return False
    if is_tensor(value):
        return True
    shaped = hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "ndim")
    return shaped and hasattr(value, "__array__") and getattr(value.dtype, "kind", "V") in "biuf"


def _is_table(source: Any) -> bool:
    """Whether a value has columns: of pandas, Arrow or polars, or a dict of columns of equal length."""
    if isinstance(source, dict):
        columns = list(source.values())
        if any(isinstance(column, str | bytes | dict) or not hasattr(column, "__len__") for column in columns):
            return False
        alike = len({len(column) for column in columns}) == 1 and len(columns[0]) > 0
        plain = (list, tuple, np.ndarray)
        shaped = [isinstance(column, plain) or is_tensor(column) or _is_column(column) for column in columns]
        return alike and all(shaped) and not all(_holds_dicts(column) for column in columns)
    package = type(source).__module__.partition(".")[0]
    two = getattr(source, "ndim", None) == 2 and hasattr(source, "columns")
    by_name = {"pyarrow": "column_names", "polars": "get_columns"}.get(package)
    return two or (by_name is not None and hasattr(source, by_name))


def _holds_dicts(column: Any) -> bool:
    """Whether a list holds dicts, the items of a dataset."""
    return isinstance(column, list | tuple) and all(isinstance(item, dict) for item in column)


def _is_column(source: Any) -> bool:
    """Whether a value is a column or index of another library, or an array of strings or objects."""
    if isinstance(source, np.ndarray):
        return source.ndim == 1 and source.dtype.kind in "USO"
    return type(source).__module__.partition(".")[0] in ("pandas", "pyarrow", "polars")


def content_of(file: Any) -> Any:
    """The bytes of an open file from its start; its position is restored."""
    try:
        place = file.tell()
        file.seek(0)
        content = file.read()
        file.seek(place)
    except (OSError, ValueError) as error:
        raise InputTypeError(f"An open file given as an image cannot be read ({error}); open it with 'rb'.") from error
    return content


MAX_BANDS = 16
"""Number of channels from which an array (a, b, c) is not a picture (H, W, C) but `a` pictures, unless it is square."""


MIN_SIDE = 8
"""Side from which an array (a, a, c) may be a square picture."""


def looks_like_one(shape: tuple[int, ...], channels_first: bool) -> str:
    """What to write for an array (a, b, c) that may be one picture or `a` pictures; "" if it is clear.

    Channels may come first in tensors, and in files that were saved from tensors.
    """
    if len(shape) != 3:
        return ""
    first, middle, last = shape
    few = last <= 4 < min(first, middle)
    bands = 4 < last < MAX_BANDS and 2 * last <= min(first, middle)
    if few or bands or (first == middle != last and first >= MIN_SIDE):
        return f"one picture with {last} channels: give x[None] for it, or x[..., None] for {first} pictures"
    if channels_first and first in (3, 4) and min(middle, last) >= MAX_BANDS:
        return (
            f"one picture with {first} channels: give np.moveaxis(x, 0, -1)[None] for it (of a tensor "
            f"x.permute(1, 2, 0)[None]), or x[..., None] for {first}"
        )
    return ""


def is_one(shape: tuple[int, ...]) -> bool:
    """Whether an array in a file of its own is one picture, (H, W), (H, W, C) or (C, H, W), rather than a stack."""
    return len(shape) == 2 or (len(shape) == 3 and (shape[0] == 1 or bool(looks_like_one(shape, True))))


def channels_last(array: np.ndarray) -> np.ndarray:
    """One picture with its channels last, if it is clearly (C, H, W)."""
    first = array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] > 4
    return array.transpose(1, 2, 0) if first else array
