"""Dataset objects as a source: anything with a length and integer indexing."""

from __future__ import annotations

import numbers
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.arguments import article, path_of
from imatlas.errors import DecodeError, SourceError
from imatlas.images.formats.sniff import has_image_name
from imatlas.images.keys import row_keys
from imatlas.images.sources.arrays import as_pixels, is_wide, narrowest, without_masked
from imatlas.images.sources.base import reason_of
from imatlas.images.sources.files import FileSource
from imatlas.images.sources.origin import Origin, in_memory, located
from imatlas.images.sources.user_input import (
    IMAGE_COLUMNS,
    channels_last,
    content_of,
    is_open_file,
    is_tensor,
    numpy_of,
)


class DatasetSource:
    """A Hugging Face or torch dataset, or any sequence of pictures: anything with a length and integer indexing.

    An item is a picture, or a dict or tuple that contains one: a Pillow image, an array (H, W[, C]), a tensor (C, H, W)
    or (H, W[, C]), the bytes of an image file, a path, or {"bytes", "path"}. `field` names the field of a dict.
    """

    explicit = True

    def __init__(self, items: Any, field: str | None = None) -> None:
        self._field = field
        self.root: Path | None = None
        self.name = f"a {type(items).__name__} of {len(items)} items"
        self.skipped: list[tuple[str, str]] = []
        self._items = items
        n = len(items)
        if n == 0:
            raise SourceError(f"The {type(items).__name__} is empty; give one with images.")
        self.keys = row_keys(n)
        self._lock = threading.RLock()
        self._whole: type | None = None
        self.has_gaps = False
        if isinstance(items, list | tuple):
            self.has_gaps = any(np.ma.is_masked(item) for item in items if isinstance(item, np.ma.MaskedArray))
            if any(is_wide(np.dtype(item.dtype)) for item in items if isinstance(item, np.ndarray)):
                self._whole = self._type_of_whole()

    def __getstate__(self) -> dict[str, Any]:
        return {"items": self._items, "field": self._field}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def origin(self) -> Origin:
        """The file; or the type of the object."""
        return Origin(in_memory(type(self._items).__name__) if self.root is None else located(self.root))

    def stamps(self) -> list[tuple[int, int]] | None:
        """None: changes of an object cannot be detected cheaply."""
        return None

    def head(self, index: int) -> bytes:
        """Empty: an item is not a file."""
        return b""

    def packed(self, index: int) -> None:
        """None: an item is not a file."""

    def read(self, index: int) -> Any:
        """The picture of an item: bytes, an array (H, W, C), or a Pillow image."""
        try:
            with self._lock:  # few datasets are thread-safe
                value = self._value(index)
                if isinstance(value, np.ndarray) and self._whole is None and is_wide(value.dtype):
                    self._whole = self._type_of_whole()
            if not isinstance(value, np.ndarray):
                return value
            return as_pixels(without_masked(value)[None], self._whole)[0]
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(f"the dataset raised an error ({type(error).__name__}: {reason_of(error)})") from None

    def _value(self, index: int) -> Any:
        """The picture of an item as `_picture_in` finds it."""
        value = self._items[index]
        if self._field is not None and isinstance(value, dict):
            if self._field not in value:
                raise DecodeError(f"no field '{self._field}' among {', '.join(map(str, value))}")
            value = value[self._field]
        return _picture_in(value)

    def _type_of_whole(self) -> type:
        """One dtype for the integers of all items, if some are of a wide dtype."""
        low, high = 0, 0
        for index in range(len(self.keys)):
            try:
                value = self._value(index)
            except Exception:  # reported when it is read
                continue
            if isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.integer) and value.size:
                low, high = min(low, int(value.min())), max(high, int(value.max()))
        return narrowest(low, high)


def _picture_in(value: Any) -> Any:
    """The picture that an item is or contains: bytes, a Pillow image, or an array (H, W[, C]) of any dtype."""
    if isinstance(value, dict):
        if isinstance(value.get("bytes"), bytes | bytearray | memoryview):
            return bytes(value["bytes"])
        for name in IMAGE_COLUMNS:
            if value.get(name) is not None:
                return _picture_in(value[name])
        raise DecodeError(f"no image among the fields {', '.join(map(str, value))}; name the field by 'field'")
    if isinstance(value, list) and _holds_numbers(value):
        value = np.asarray(value)
    if isinstance(value, tuple | list) and value and not isinstance(value[0], numbers.Number):
        if isinstance(value, list) and sum(map(_may_be_picture, value)) > 1:
            raise DecodeError(
                f"a list of {len(value)} images instead of one; give one list of all, or of tuples (image, label)"
            )
        return _picture_in(value[0])
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if is_open_file(value) and not hasattr(value, "getbands"):
        return content_of(value)
    if isinstance(value, str | os.PathLike):
        return FileSource.from_list([path_of(os.fsdecode(value))]).read(0)
    if hasattr(value, "getbands"):
        return value
    if is_tensor(value):
        value = numpy_of(value)
    if isinstance(value, np.ndarray) and value.ndim in (2, 3):
        return channels_last(value)
    shape = f" of shape {value.shape}" if isinstance(value, np.ndarray) else ""
    raise DecodeError(f"{article(type(value).__name__)}{shape} is not an image")


def _holds_numbers(value: Any) -> bool:
    """Whether a list is an array (H, W[, C]) of numbers, as Hugging Face's Array3D."""
    depth = 0
    while isinstance(value, list) and value:
        value, depth = value[0], depth + 1
    return depth in (2, 3) and isinstance(value, numbers.Number)


def _may_be_picture(value: Any) -> bool:
    """Whether a value next to a picture is another picture rather than a label."""
    if isinstance(value, str):
        return has_image_name(value)
    shaped = isinstance(value, np.ndarray) or is_tensor(value)
    picture = isinstance(value, bytes | os.PathLike) or is_open_file(value) or hasattr(value, "getbands")
    return value.ndim > 1 if shaped else picture
