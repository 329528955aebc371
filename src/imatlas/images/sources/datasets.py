"""Dataset objects as a source: whatever has a length and gives items by number."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.errors import DecodeError, SourceError
from imatlas.images.sources.arrays import as_pixels, without_masked
from imatlas.images.sources.base import reason_of
from imatlas.images.sources.files import FileSource
from imatlas.images.sources.given import content_of, is_open_file, is_tensor
from imatlas.images.sources.origin import Origin, in_memory, located


class DatasetSource:
    """A Hugging Face or torch dataset, or any sequence of pictures: whatever has a length and gives items by number.

    An item is a picture, or a dict or tuple that holds one: a Pillow image, an array (H, W[, C]), a tensor (C, H, W) or
    (H, W[, C]), the bytes of an image file, a path, or {"bytes", "path"}. `field` names where a dict has it.
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
            raise SourceError(f"The {type(items).__name__} holds no items; give one with images.")
        self.keys = [f"{i:0{max(6, len(str(n)))}d}" for i in range(n)]
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"items": self._items, "field": self._field}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def origin(self) -> Origin:
        """The file; or the kind of the object."""
        return Origin(in_memory(type(self._items).__name__) if self.root is None else located(self.root))

    def stamps(self) -> list[tuple[int, int]] | None:
        """None: the content of an object has no cheap sign."""
        return None

    def head(self, index: int) -> bytes:
        """Nothing: an item is no file."""
        return b""

    def packed(self, index: int) -> None:
        """None: an item is no file."""

    def read(self, index: int) -> Any:
        """The picture of an item: bytes, an array (H, W, C), or a Pillow image."""
        try:
            with self._lock:  # few datasets promise to be safe among threads
                value = self._items[index]
            if self._field is not None and isinstance(value, dict):
                if self._field not in value:
                    raise DecodeError(f"no field '{self._field}' among {', '.join(map(str, value))}")
                value = value[self._field]
            return _picture_in(value)
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(f"the dataset failed to give it ({type(error).__name__}: {reason_of(error)})") from None


def _picture_in(value: Any) -> Any:
    """The picture that an item of a dataset is or holds."""
    if isinstance(value, dict):
        if isinstance(value.get("bytes"), bytes):
            return value["bytes"]
        for name in ("image", "img", "pixel_values", "png", "jpg", "jpeg", "webp", "path", "file"):
            if value.get(name) is not None:
                return _picture_in(value[name])
        raise DecodeError(f"no image among the fields {', '.join(map(str, value))}; say which one it is in by 'field'")
    if isinstance(value, tuple | list) and value and not np.isscalar(value[0]):
        return _picture_in(value[0])
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if is_open_file(value) and not hasattr(value, "getbands"):
        return content_of(value)
    if isinstance(value, str | os.PathLike):
        return FileSource.from_list([Path(value).expanduser()]).read(0)
    if hasattr(value, "getbands"):
        return value
    if is_tensor(value):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.ndim in (2, 3):
        channels_first = value.ndim == 3 and value.shape[0] in (1, 3, 4) and value.shape[2] > 4
        value = without_masked(value.transpose(1, 2, 0) if channels_first else value)
        return as_pixels(value[None])[0]
    raise DecodeError(f"a {type(value).__name__} is no picture")
