"""A lock on a folder, without a lock file that others could have put there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imatlas.errors import ArtifactError, SourceError
from imatlas.system.locks import folder_lock
from imatlas.system.user_folders import user_folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder, so that no two processes move its files at once.

    The folder itself is locked: a lock file in a shared place could be a link, or another user's.
    """
    if not folder.is_dir():
        raise SourceError(
            f"There is no folder '{folder}'; name where it is now: imatlas duplicates FOLDER --apply PLAN."
        )
    busy = ArtifactError(f"Another process is moving files of '{folder}'; wait for it to end.")
    try:
        descriptor = folder_lock(folder)
    except BlockingIOError:
        raise busy from None
    if descriptor is None:
        with _locked_by_file(folder, busy):
            yield
        return
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _locked_by_file(folder: Path, busy: ArtifactError) -> Iterator[None]:
    from filelock import FileLock, Timeout

    own = user_folder()
    if own is None:  # there is no safe place for a lock file
        yield
        return
    lock = FileLock(own / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise busy from None
    try:
        yield
    finally:
        lock.release()
