"""Suppression of decoder warnings; what matters is in a picture's notes or skip reason."""

from __future__ import annotations

import ctypes
import functools
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DECODERS = r"(PIL|tifffile|pillow_heif|imatlas\.images)\b"
_lock = threading.Lock()
_inside = 0
_entry: tuple | None = None
_here = threading.local()


def _not_while_decoding(record: logging.LogRecord) -> bool:
    return not getattr(_here, "depth", 0)


for _name in ("tifffile", "PIL.TiffImagePlugin"):
    logging.getLogger(_name).addFilter(_not_while_decoding)


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore the warnings of Pillow and tifffile inside the block.

    `warnings.catch_warnings` is not thread-safe, so one filter is shared: the first block to open installs it, and the
    last to close removes it.
    """
    global _inside, _entry
    _here.depth = getattr(_here, "depth", 0) + 1
    with _lock:
        _inside += 1
        # Checked each time: code that catches warnings elsewhere may have replaced the list.
        if _entry is None or _entry not in warnings.filters:
            warnings.filterwarnings("ignore", module=_DECODERS)
            _entry = warnings.filters[0]
    try:
        yield
    finally:
        _here.depth -= 1
        with _lock:
            _inside -= 1
            if _inside == 0:
                if _entry in warnings.filters:
                    warnings.filters.remove(_entry)  # type: ignore[attr-defined]
                _entry = None


@functools.cache
def silence_libtiff() -> None:
    """Keep the libtiff in Pillow's wheels from writing to the terminal; other builds cannot be reached."""
    import PIL

    package = Path(PIL.__file__).parent
    for path in [*package.parent.glob("pillow.libs/libtiff*"), *package.glob(".dylibs/libtiff*")]:
        try:
            library = ctypes.CDLL(str(path))
            library.TIFFSetErrorHandler(None)
            library.TIFFSetWarningHandler(None)
        except (OSError, AttributeError):
            continue
