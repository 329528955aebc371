"""The lock of whoever writes a folder or file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from imatlas.errors import AtlasBusyError


@contextmanager
def locked(lock_file: Path, written: Path | str, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of what is written; wait so many seconds for it.

    Raises
    ------
    AtlasBusyError
        If another process holds it.
    """
    lock = FileLock(str(lock_file))
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise AtlasBusyError(
            f"Another process is writing '{written}'; wait for it to end, or choose another name with -o."
        ) from None
    try:
        yield
    finally:
        lock.release()
