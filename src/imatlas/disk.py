"""Files and folders that are written whole or not at all: aside, put on the disk, renamed into place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from imatlas.errors import ArtifactError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write a file under; it takes the place of `path` where the block ends well.

    Raises
    ------
    OSError
        Where it cannot be written; what stood at `path` then stays.
    """
    aside = path.with_name(f".{path.name}.new-{os.getpid()}")
    try:
        yield aside
        flush(aside)
        os.replace(aside, path)
        flush(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Replace one file by `content`."""
    with replacing(path) as aside:
        aside.write_bytes(content)


def write_folder(folder: Path, write: Callable[[Path], None], *, overwrite: bool = False) -> None:
    """Call `write(aside)` on a new folder beside `folder`, and rename it into place.

    Raises
    ------
    ArtifactError
        Where `folder` exists and `overwrite` is False.
    """
    if folder.exists() and not overwrite:
        raise ArtifactError(f"'{folder}' already exists; choose another name or pass overwrite=True (--overwrite).")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.new-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        write(aside)
        flush_tree(aside)
        old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
        if folder.exists():
            os.rename(folder, old)
        os.rename(aside, folder)
        flush(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def flush_tree(folder: Path) -> None:
    """Ask the operating system to put a folder and everything in it on the disk now."""
    for path in (*folder.rglob("*"), folder):
        flush(path)


def flush(path: Path) -> None:
    """Ask the operating system to put a file or folder on the disk now.

    Raises
    ------
    OSError
        Where a file cannot be put there, as on a full disk.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (PermissionError, IsADirectoryError):  # folders cannot be opened on Windows
        return
    try:
        os.fsync(descriptor)
    except OSError:
        if path.is_file():
            raise
        # some network file systems refuse to sync folders
    finally:
        os.close(descriptor)
