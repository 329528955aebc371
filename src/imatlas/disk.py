"""Files and folders: names that stay in their folder, writes that are whole or not there, deletions by list.

A name that comes from a file (a table, a plan, a manifest, an archive) is a stranger's word. `within` is the one place
where such a name is joined to a folder. New files are made under random names and never through a link. What is
deleted is what a list names, file by file; whatever else lies in a folder stays, and the folder with it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from imatlas.errors import ArtifactError, UnsafePathError


def within(folder: str | Path, name: str, *, link: bool = False) -> Path:
    """The path of `name` below `folder`, where no link is on the way.

    Parameters
    ----------
    folder : path
        Trusted: its own name may hold links.
    name : str
        Untrusted, relative, with forward slashes. It need not exist.
    link : bool
        Whether the name itself may be a link (to be deleted or told apart, not to be opened); never a folder above it.

    Raises
    ------
    UnsafePathError
        If it is empty, absolute, leads out of the folder, or leads through or to a link.
    """
    folder = Path(folder)
    pure = PureWindowsPath(name) if os.name == "nt" else PurePosixPath(name)
    if not pure.parts or pure.is_absolute() or pure.drive or ".." in pure.parts or "\0" in name:
        raise UnsafePathError(f"The name {name!r} does not lie in '{folder}'; only files in that folder are used.")
    path = folder
    for depth, part in enumerate(pure.parts, 1):
        path = path / part
        if is_link(path) and not (link and depth == len(pure.parts)):
            raise UnsafePathError(f"'{path}' is a link; a link is not followed here, name the file itself.")
    return path


def is_link(path: Path) -> bool:
    """Whether a name is a symbolic link, or a junction of Windows, wherever it leads."""
    return path.is_symlink() or (hasattr(path, "is_junction") and path.is_junction())


def open_new(path: Path, mode: str = "wb") -> IO[bytes]:
    """Open a file that does not exist yet; never through a link.

    Raises
    ------
    FileExistsError
        If anything, a broken link too, has that name.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666)

    return open(path, mode, opener=opener)


def aside_of(path: Path) -> Path:
    """A random hidden name beside `path`, which nobody can have guessed."""
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.new")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new empty file beside `path` to write to; it takes the place of `path` where the block ends well.

    A link at `path` is itself replaced; what it points to stays as it is.

    Raises
    ------
    OSError
        Where it cannot be written; what stood at `path` then stays.
    """
    aside = aside_of(path)
    open_new(aside).close()
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


def write_folder(folder: Path, write: Callable[[Path], None], *, replaces: Collection[str] | None = None) -> None:
    """Call `write(aside)` on a new folder beside `folder`, and rename it into place.

    Parameters
    ----------
    folder : path
    write : callable
        Fills the folder that it is given.
    replaces : collection of str, optional
        Overwrite: the names of the files, relative with forward slashes, that may stand in `folder` and go. Where None,
        nothing may stand there.

    Raises
    ------
    ArtifactError
        Where `folder` exists and may not be overwritten, or holds anything that `replaces` does not name.
    """
    if os.path.lexists(folder):
        if replaces is None:
            raise ArtifactError(f"'{folder}' already exists; choose another name or pass overwrite=True (--overwrite).")
        refuse_others(folder, replaces)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = aside_of(folder)
    aside.mkdir()
    try:
        write(aside)
        flush_tree(aside)
        old = aside_of(folder)
        if folder.exists():
            os.rename(folder, old)
        os.rename(aside, folder)
        flush(folder.parent)
        remove_listed(old, replaces or ())
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # made above under a random name: ours


def refuse_others(folder: Path, names: Collection[str]) -> None:
    """Refuse a folder that is a link or no folder, or that holds anything besides these files.

    Raises
    ------
    ArtifactError
        That names the first such thing. Nothing was changed.
    """
    if is_link(folder) or not folder.is_dir():
        raise ArtifactError(f"'{folder}' is not a folder that imatlas wrote; choose another name.")
    named = {PurePosixPath(name) for name in names}
    parents = {parent for name in named for parent in name.parents}
    for path in sorted(folder.rglob("*")):
        name = PurePosixPath(path.relative_to(folder).as_posix())
        if name not in (parents if path.is_dir() and not is_link(path) else named):
            raise ArtifactError(
                f"'{folder}' holds '{name}', which imatlas did not write there, so it is not overwritten; move that "
                "away or choose another name."
            )


def remove_listed(folder: Path, names: Iterable[str]) -> None:
    """Delete these files of a folder, and the folders that become empty by it, the folder itself among them.

    A link that is named goes itself, never what it leads to. What is reached through a link, or is neither a file nor a
    link, stays; nothing else in the folder is touched.
    """
    folders = {folder}
    for name in names:
        with suppress(UnsafePathError, OSError):
            path = within(folder, name, link=True)
            folders.update(folder / above for above in PurePosixPath(name).parents)
            if stat.S_ISREG(path.lstat().st_mode) or is_link(path):
                path.unlink()
    for empty in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        with suppress(OSError):
            if not is_link(empty):
                empty.rmdir()


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
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
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
