"""Locks of folders and files that one process writes, moves or deletes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from imatlas.errors import AtlasBusyError


def folder_lock(folder: Path, *, shared: bool = False) -> int | None:
    """A descriptor that locks a folder itself while open; None where unsupported: on Windows, some network drives.

    A shared lock waits for one that is not shared to end.

    Raises
    ------
    BlockingIOError
        If another descriptor locks it.
    """
    try:
        import fcntl
    except ImportError:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return descriptor


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
