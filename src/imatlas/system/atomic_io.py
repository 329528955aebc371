"""File operations: names confined to their folder, atomic writes, deletion by list.

Names that come from a file (a table, a plan, a manifest, an archive) are untrusted; `within` is the one function that
joins them to a folder. New files are created under random names and never through a link. Only listed files are
deleted; everything else in a folder stays.

A name that comes from a file (a table, a plan, a manifest, an archive) is a stranger's word. `within` is the one place
where such a name is joined to a folder. New files are made under random names and never through a link. What is
deleted is what a list names, file by file; whatever else lies in a folder stays, and the folder with it.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import stat
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import IO

from imatlas.errors import ArtifactError, UnsafePathError


def output_path(path: str | Path) -> Path:
    """The path of an output, without ".." and with "~" expanded.

    If `x` does not exist, `x/../NAME` seems to be free, but once `x` is created it is NAME itself. So every function
    that checks or writes an output starts with this one. A ".." after a link is resolved as the system does.
    """
    path = Path(os.path.expanduser(path))
    if ".." not in path.parts:
        return path
    if path.name == "..":
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent)) / path.name  # the name itself may be a link, which is reported


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents.

    Raises
    ------
    ArtifactError
        If one of these names is not a folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        for path in (*reversed(folder.parents), folder):
            if os.path.lexists(path) and not path.is_dir():
                message = f"'{path}' is not a folder, so nothing can be written there; choose another name."
                raise ArtifactError(message) from None
        raise error


def within(folder: str | Path, name: str, *, link: bool = False) -> Path:
    """The path of `name` below `folder`, without links on the way.

    Parameters
    ----------
    folder : path
        Trusted; its own path may contain links.
    name : str
        Untrusted, relative, with forward slashes. It need not exist.
    link : bool
        Whether the name itself may be a link (to delete or inspect it, not to open it); never a folder above it.

    Raises
    ------
    UnsafePathError
        If it is empty or absolute, leads out of the folder, or leads through or to a link.
    """
    path = folder = Path(folder)
    parts = relative(name, f"'{folder}'").parts
    for depth, part in enumerate(parts, 1):
        path = path / part
        try:
            linked = is_link(path)
        except OSError as error:  # a name that is too long, an unreadable folder
            raise UnsafePathError(f"'{path}' cannot be accessed ({error.strerror}).") from None
        if linked and not (link and depth == len(parts)):
            raise UnsafePathError(f"'{path}' is a link, which is not followed here; name the file itself.")
    return path


def relative(name: str, folder: str = "its folder") -> PurePath:
    """A name that stays below any folder it is joined to; links are not checked, see `within`.

    Raises
    ------
    UnsafePathError
        If it is empty, absolute, or leads out of the folder.
    """
    windows = os.name == "nt"
    pure = PureWindowsPath(name) if windows else PurePosixPath(name)
    try:
        os.fsencode(name)
        named = "\0" not in name and not (windows and ":" in name)  # "a.png:b" is an alternate data stream
    except UnicodeEncodeError:
        named = False
    if not named or not pure.parts or pure.is_absolute() or pure.drive or pure.root or ".." in pure.parts:
        raise UnsafePathError(f"The name {name!r} leads out of {folder}; only files in that folder are used.")
    return pure


def is_link(path: Path) -> bool:
    """Whether a path is a symbolic link or a Windows junction, whatever its target; False if there is nothing.

    Raises
    ------
    OSError
        If that cannot be determined.
    """
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    junction = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None)
    return stat.S_ISLNK(status.st_mode) or (junction is not None and getattr(status, "st_reparse_tag", 0) == junction)


def refuse_links(folder: str | Path, names: Iterable[str]) -> None:
    """Refuse output names that are not plain files and folders; none need exist.

    Parameters
    ----------
    folder : path
        Trusted; its own path may contain links.
    names : iterable of str
        Names of files; of folders, checked recursively, if they end in "/".

    Raises
    ------
    UnsafePathError
        If one is a link, or lies behind one.
    ArtifactError
        If one is neither a file nor a folder, or a folder instead of a file or the reverse.
    """
    for name in names:
        path = within(folder, name)
        if not os.path.lexists(path):
            continue
        if not name.endswith("/"):
            _refuse_no_file(path)
            continue
        if not path.is_dir():
            raise ArtifactError(f"'{path}' is not a folder, so nothing is written there; move it away.")
        for below in _tree(path):
            if is_link(below):
                raise UnsafePathError(f"'{below}' is a link, which is not followed here; move it away.")
            if not below.is_dir():
                _refuse_no_file(below)


def _refuse_no_file(path: Path) -> None:
    """Refuse a folder, a pipe or a device where a file is to be written; the target of a link is not checked."""
    with suppress(FileNotFoundError, NotADirectoryError):
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode) and not is_link(path):
            what = "a folder" if stat.S_ISDIR(mode) else "not a file"
            raise ArtifactError(f"'{path}' is {what}, so it is not replaced; move it away or choose another name.")


def _tree(folder: Path) -> Iterator[Path]:
    """Everything below a folder, sorted within each folder; links are not entered. Raises OSError."""
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            found = sorted((Path(entry.path) for entry in entries), key=lambda path: path.name)
        for path in found:
            yield path
            if not is_link(path) and stat.S_ISDIR(path.lstat().st_mode):
                waiting.append(path)


def open_new(path: Path, mode: str = "wb") -> IO[bytes]:
    """Open a file that does not exist yet; never through a link.

    Raises
    ------
    FileExistsError
        If anything has that name, including a broken link.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666)

    return open(path, mode, opener=opener)


def open_append(path: Path) -> IO[bytes]:
    """Open a file for appending, created if missing; never through a link, and without changing its other hard links.

    Raises
    ------
    UnsafePathError, ArtifactError
        If it is a link, or not a file.
    """
    refuse_links(path.parent, [path.name])
    if path.exists() and path.lstat().st_nlink > 1:  # other hard links keep their content
        write_file(path, path.read_bytes())

    def opener(name: str, flags: int) -> int:
        special = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        return os.open(name, flags | special, 0o666)

    return open(path, "ab", opener=opener)


def append(path: Path, content: bytes) -> None:
    """Append to a file, as `open_append` opens it, and flush it to disk."""
    with open_append(path) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def aside_of(path: Path) -> Path:
    """A random hidden name next to `path`."""
    return path.with_name(f".{_start_of(path.name)}.{secrets.token_hex(8)}.new")


def _start_of(name: str) -> str:
    """The start of a name, to derive others from it: file systems allow 255 bytes."""
    return name.encode("utf-8", "ignore")[:100].decode("utf-8", "ignore")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new empty file next to `path` to write to; it replaces `path` when the block succeeds.

    A link at `path` is itself replaced, not its target. Missing parents are created.

    Raises
    ------
    ArtifactError
        If `path` is a folder, a pipe or a device.
    OSError
        If it cannot be written; `path` is then unchanged.
    """
    path = output_path(path)
    _refuse_no_file(path)
    make_folder(path.parent)
    aside = aside_of(path)
    open_new(aside).close()
    try:
        yield aside
        _refuse_no_file(path)
        _keep_mode(path, aside)
        flush(aside)
        os.replace(aside, path)
        flush(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def _keep_mode(path: Path, aside: Path) -> None:
    """Give a replacement the permissions of the file or folder it replaces."""
    with suppress(OSError):
        if not is_link(path):
            aside.chmod(path.lstat().st_mode & 0o777)


def write_file(path: Path, content: bytes) -> None:
    """Replace one file by `content`."""
    with replacing(path) as aside:
        aside.write_bytes(content)


def write_folder(folder: Path, write: Callable[[Path], None], *, replaces: Collection[str] | None = None) -> None:
    """Call `write(aside)` on a new folder next to `folder`, and rename it into place.

    Parameters
    ----------
    folder : path
    write : callable
        Fills the given folder.
    replaces : collection of str, optional
        Overwrite: the files in `folder` that may be deleted, relative with forward slashes. None: `folder` must not
        exist.

    Raises
    ------
    ArtifactError
        If `folder` exists and must not be overwritten, or contains anything that `replaces` does not name.
    """
    folder = Path(os.path.abspath(output_path(folder)))  # "." has no name
    check_free(folder, replaces)
    make_folder(folder.parent)
    aside = aside_of(folder)
    aside.mkdir()
    created = aside.lstat()
    try:
        write(aside)
        flush_tree(aside)
        put_in_place(aside, folder, replaces=replaces)
    except BaseException:
        with suppress(OSError):
            if os.path.samestat(created, aside.lstat()):  # else it is the old folder, after the exchange
                shutil.rmtree(aside, ignore_errors=True)
        raise


def put_in_place(aside: Path, folder: Path, *, replaces: Collection[str] | None = None) -> None:
    """Rename a folder, flushed to disk, to another name beside it; the rest is as in `write_folder`.

    Raises
    ------
    ArtifactError
        As `write_folder`; `aside` then stays.
    """
    check_free(folder, replaces)  # again, as writing may take an hour
    if not os.path.lexists(folder):
        os.rename(aside, folder)
        flush(folder.parent)
        return
    _keep_mode(folder, aside)
    old = _change_places(aside, folder)
    flush(folder.parent)
    remove_listed(old, replaces or ())
    if os.path.lexists(old):  # files that others created meanwhile
        kept = _before(folder)
        os.rename(old, kept)
        warnings.warn(f"Files that others wrote to '{folder}' while it was replaced are in '{kept}' now.", stacklevel=3)


def check_free(folder: Path, replaces: Collection[str] | None) -> None:
    """Refuse a folder that `write_folder` would refuse; for checking before long work.

    Raises
    ------
    ArtifactError
    """
    folder = output_path(folder)
    if not os.path.lexists(folder):
        return
    if replaces is None:
        raise ArtifactError(f"'{folder}' already exists; choose another name or pass overwrite=True (--overwrite).")
    refuse_others(folder, replaces)
    with suppress(FileNotFoundError):  # the current folder may have been deleted
        if folder.samefile(os.curdir):
            raise ArtifactError(
                f"'{folder}' is the current folder, so it is not replaced; run the command from its parent."
            )


def _change_places(aside: Path, folder: Path) -> Path:
    """Put a new folder in the place of an old one; returns the present path of the old one.

    Atomically if the file system can. Else the old one is first moved to a recognizable name, for recovery if the
    program is killed in between.
    """
    if _exchange(aside, folder):
        return aside
    old = _before(folder)
    try:
        os.rename(folder, old)
        os.rename(aside, folder)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(folder):
            os.rename(old, folder)
        raise
    return old


def _before(folder: Path) -> Path:
    return folder.with_name(f"{_start_of(folder.name)}.before-{secrets.token_hex(4)}")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names atomically; False if the system or the file system cannot."""
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "linux":
        call, arguments = "renameat2", (-100, names[0], -100, names[1], 2)  # AT_FDCWD, RENAME_EXCHANGE
    elif sys.platform == "darwin":
        call, arguments = "renamex_np", (*names, 2)  # RENAME_SWAP
    else:
        return False
    try:
        return getattr(ctypes.CDLL(None), call)(*arguments) == 0
    except (AttributeError, OSError):
        return False


def refuse_others(folder: Path, names: Collection[str]) -> None:
    """Refuse a folder that is a link or not a folder, or that contains anything except these files.

    Raises
    ------
    ArtifactError
        Naming the first such file. Nothing is changed.
    """
    if is_link(folder) or not folder.is_dir():
        raise ArtifactError(f"'{folder}' is not a folder that imatlas wrote; choose another name.")
    named = {PurePosixPath(name) for name in names}
    parents = {parent for name in named for parent in name.parents}
    for path in _tree(folder):
        name = PurePosixPath(path.relative_to(folder).as_posix())
        inner = stat.S_ISDIR(path.lstat().st_mode) and not is_link(path)
        special = not inner and not is_link(path) and not stat.S_ISREG(path.lstat().st_mode)
        if special or name not in (parents if inner else named):
            raise ArtifactError(
                f"'{folder}' contains '{name}', which imatlas did not write, so it is not overwritten; move that file "
                "away or choose another name."
            )


def remove_listed(folder: Path, names: Iterable[str]) -> None:
    """Delete these files of a folder, and the folders that become empty by it, including the folder itself.

    A listed link is deleted itself, never its target. Names behind a link, or of anything but a file or link, are
    ignored; so is the whole call if the folder itself is a link.
    """
    if is_link(folder):
        return
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
    """Flush a folder and everything in it to disk, except the targets of links."""
    for path in (*_tree(folder), folder):
        if not is_link(path):
            flush(path)


def flush(path: Path) -> None:
    """Flush a file or folder to disk.

    Raises
    ------
    OSError
        If a file cannot be written, as on a full disk.
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
        # some network file systems cannot sync folders
    finally:
        os.close(descriptor)
