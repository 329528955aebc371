"""Files and folders: names that stay in their folder, writes that are whole or not there, deletions by list.

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
    """The one name of what is to be written: the path itself, without "..", and with the user's home for "~".

    Where `x` does not exist, nothing is found at `x/../NAME`, so that NAME seems to be free; but once `x` is made, for
    it is above the output, that is NAME itself. So each function that looks whether an output is there, or writes it,
    begins with this one. A ".." after a link leads where the system goes: up from what the link leads to.
    """
    path = Path(os.path.expanduser(path))
    if ".." not in path.parts:
        return path
    if path.name == "..":
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent)) / path.name  # what stands there may itself be a link, and is told so


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are missing.

    Raises
    ------
    ArtifactError
        If something that is no folder has one of these names.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        for path in (*reversed(folder.parents), folder):
            if os.path.lexists(path) and not path.is_dir():
                told = f"'{path}' is not a folder, so nothing can be written there; choose another name."
                raise ArtifactError(told) from None
        raise error


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
    path = folder = Path(folder)
    parts = relative(name, f"'{folder}'").parts
    for depth, part in enumerate(parts, 1):
        path = path / part
        try:
            linked = is_link(path)
        except OSError as error:  # a name that is too long, a folder that may not be read
            raise UnsafePathError(f"'{path}' cannot be looked at ({error.strerror}).") from None
        if linked and not (link and depth == len(parts)):
            raise UnsafePathError(f"'{path}' is a link; a link is not followed here, name the file itself.")
    return path


def relative(name: str, folder: str = "its folder") -> PurePath:
    """A name that stays below whatever folder it is joined to; links are not looked at, see `within`.

    Raises
    ------
    UnsafePathError
        If it is empty, absolute, or leads out of the folder.
    """
    windows = os.name == "nt"
    pure = PureWindowsPath(name) if windows else PurePosixPath(name)
    try:
        os.fsencode(name)
        named = "\0" not in name and not (windows and ":" in name)  # "a.png:b" is a second content of a.png there
    except UnicodeEncodeError:
        named = False
    if not named or not pure.parts or pure.is_absolute() or pure.drive or pure.root or ".." in pure.parts:
        raise UnsafePathError(f"The name {name!r} does not lie in {folder}; only files in that folder are used.")
    return pure


def is_link(path: Path) -> bool:
    """Whether a name is a symbolic link, or a junction of Windows, wherever it leads; False where there is nothing.

    Raises
    ------
    OSError
        Where that cannot be told.
    """
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    junction = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None)
    return stat.S_ISLNK(status.st_mode) or (junction is not None and getattr(status, "st_reparse_tag", 0) == junction)


def refuse_links(folder: str | Path, names: Iterable[str]) -> None:
    """Refuse names that something is to be written under, and that are not plain files and folders; none need exist.

    Parameters
    ----------
    folder : path
        Trusted: its own name may hold links.
    names : iterable of str
        Of files; of folders where they end in "/": these are looked through to the bottom.

    Raises
    ------
    UnsafePathError
        If one is a link, or lies behind one.
    ArtifactError
        If one is neither a file nor a folder, or the one in place of the other.
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
                raise UnsafePathError(f"'{below}' is a link; a link is not followed here, move it away.")
            if not below.is_dir():
                _refuse_no_file(below)


def _refuse_no_file(path: Path) -> None:
    """Refuse a folder, a pipe, a device, where a file is to be written; a link is not looked behind."""
    with suppress(FileNotFoundError, NotADirectoryError):
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode) and not is_link(path):
            what = "a folder" if stat.S_ISDIR(mode) else "not a file"
            raise ArtifactError(f"'{path}' is {what}, so it is not replaced; move it away or choose another name.")


def _tree(folder: Path) -> Iterator[Path]:
    """Everything below a folder, sorted within each folder; no link is entered. Raises OSError."""
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
        If anything, a broken link too, has that name.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666)

    return open(path, mode, opener=opener)


def open_append(path: Path) -> IO[bytes]:
    """Open a file to write at its end, made where it is missing; never through a link, and only a file of one name.

    Raises
    ------
    UnsafePathError, ArtifactError
        If it is a link, or no file.
    """
    refuse_links(path.parent, [path.name])
    if path.exists() and path.lstat().st_nlink > 1:  # what other names hold, in a copy or a backup, stays as it is
        write_file(path, path.read_bytes())

    def opener(name: str, flags: int) -> int:
        special = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        return os.open(name, flags | special, 0o666)

    return open(path, "ab", opener=opener)


def aside_of(path: Path) -> Path:
    """A random hidden name beside `path`, which nobody can have guessed."""
    return path.with_name(f".{_start_of(path.name)}.{secrets.token_hex(8)}.new")


def _start_of(name: str) -> str:
    """So much of a name that others can be made from it: file systems allow 255 bytes."""
    return name.encode("utf-8", "ignore")[:100].decode("utf-8", "ignore")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new empty file beside `path` to write to; it takes the place of `path` where the block ends well.

    A link at `path` is itself replaced; what it points to stays as it is. Folders above it are made.

    Raises
    ------
    ArtifactError
        If `path` is a folder, a pipe or a device.
    OSError
        Where it cannot be written; what stood at `path` then stays.
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
    """Give what takes the place of a file or folder its permissions: who hid a page wants the next one hidden."""
    with suppress(OSError):
        if not is_link(path):
            aside.chmod(path.lstat().st_mode & 0o777)


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
    folder = Path(os.path.abspath(output_path(folder)))  # "." has no name
    check_free(folder, replaces)
    make_folder(folder.parent)
    aside = aside_of(folder)
    aside.mkdir()
    try:
        write(aside)
        flush_tree(aside)
        check_free(folder, replaces)  # that can be an hour later
        if not os.path.lexists(folder):
            os.rename(aside, folder)
            flush(folder.parent)
            return
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)  # made above under a random name: ours
        raise
    _keep_mode(folder, aside)
    old = _change_places(aside, folder)
    flush(folder.parent)
    remove_listed(old, replaces or ())
    if os.path.lexists(old):  # someone put a file there in this very moment
        kept = _before(folder)
        os.rename(old, kept)
        warnings.warn(f"What others put into '{folder}' while it was replaced is in '{kept}' now.", stacklevel=2)


def check_free(folder: Path, replaces: Collection[str] | None) -> None:
    """Refuse a folder that `write_folder` would not write, for who has long work to do before.

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
    with suppress(FileNotFoundError):  # the folder that one is in may have been deleted
        if folder.samefile(os.curdir):
            raise ArtifactError(f"'{folder}' is the folder that you are in, so it is not replaced; run it from above.")


def _change_places(aside: Path, folder: Path) -> Path:
    """Put a new folder in the place of an old one; the name of the old one now.

    In one step where the file system can: then there is no moment without a folder. Else the old one is moved first,
    to a name that a person finds if the program is killed between.
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
        shutil.rmtree(aside, ignore_errors=True)  # the new one, which has not moved
        raise
    return old


def _before(folder: Path) -> Path:
    return folder.with_name(f"{_start_of(folder.name)}.before-{secrets.token_hex(4)}")


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; False where the system or the file system knows no such step."""
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
    for path in _tree(folder):
        name = PurePosixPath(path.relative_to(folder).as_posix())
        inner = stat.S_ISDIR(path.lstat().st_mode) and not is_link(path)
        special = not inner and not is_link(path) and not stat.S_ISREG(path.lstat().st_mode)
        if special or name not in (parents if inner else named):
            raise ArtifactError(
                f"'{folder}' holds '{name}', which imatlas did not write there, so it is not overwritten; move that "
                "away or choose another name."
            )


def remove_listed(folder: Path, names: Iterable[str]) -> None:
    """Delete these files of a folder, and the folders that become empty by it, the folder itself among them.

    A link that is named goes itself, never what it leads to. What is reached through a link, or is neither a file nor a
    link, stays; nothing else in the folder is touched, and nothing at all where the folder itself is a link.
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
    """Ask the operating system to put a folder and everything in it on the disk now; what links lead to is left out."""
    for path in (*_tree(folder), folder):
        if not is_link(path):
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
