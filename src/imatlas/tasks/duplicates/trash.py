"""Apply a plan by moving files to a trash folder, and undo it.

Nothing is ever deleted or overwritten. The trash lies beside the folder, on the same file system, so that each move is
atomic:

    photos/                     the folder
    photos-trash/0001/undo.json the files to be moved, written before the first move
                      a/b.jpg   formerly photos/a/b.jpg

Where each file lies is all the state there is, so an interrupted run can be repeated or undone.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imatlas.arguments import counted
from imatlas.errors import ArtifactError, InputError, SourceError, UnsafePathError
from imatlas.images.keys import file_name_of, file_of, key_of
from imatlas.result import FileList, Panel, Result
from imatlas.system.atomic_io import flush, is_link, remove_listed, write_file
from imatlas.system.inventory import entry_of, read_json
from imatlas.system.terminal import file_word, shell
from imatlas.tasks.duplicates.lock import locked
from imatlas.tasks.duplicates.plans import LOG, Plan, PlanRow, check_same_folder

NUMBERED = re.compile(r"[0-9]{4,9}")
"""Names of the folders within a trash."""

MAX_LOG_BYTES = 2**28
"""Largest log that is read: about a million files."""


class _MovedFile(BaseModel):
    """A file that is moved: its key and the SHA-256 of its content."""

    model_config = ConfigDict(strict=True)
    key: Annotated[str, Field(min_length=1, max_length=2**14)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Log(BaseModel):
    """The content of `undo.json`."""

    model_config = ConfigDict(strict=True)
    format: Literal[1]
    plan: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    folder: Annotated[str, Field(max_length=2**14)]
    done: bool
    files: list[_MovedFile]


def apply_plan(plan: Plan) -> Result:
    """Move the files that a plan names to a trash folder beside the folder; continues an interrupted run of the plan.

    Raises
    ------
    ArtifactError
        Before anything is moved, if a file of the plan is missing, has changed, or cannot be moved within its file
        system.
    """
    with locked(plan.folder):
        trash, log = _trash_for(plan)
        if log is not None and log.done:
            raise ArtifactError(
                f"This plan was already applied: its files are in '{trash}'; "
                f"'{shell('imatlas', 'duplicates', file_word(plan.folder), '--undo')}' restores them."
            )
        to_move = _checked_moves(plan, trash if log is not None else None)
        if log is None:
            trash.mkdir(parents=True)
            files = [_MovedFile(key=row.key, sha256=row.sha256) for row in plan.moves]
            log = _Log(format=1, plan=plan.digest, folder=key_of(str(plan.folder.resolve())), done=False, files=files)
            _write_log(trash, log)
        for key, stamp in to_move.items():
            source = file_of(plan.folder, key)
            if _stamp(source) != stamp:
                raise ArtifactError(
                    f"'{source}' changed while files were being moved, so it stays; run the command again to continue, "
                    "or restore the moved files with --undo."
                )
            _move(source, file_of(trash, key))
        log.done = True
        _write_log(trash, log)
    return Result(
        name="duplicates-apply",
        title="Duplicates moved",
        sentences=[
            f"Moved {counted(len(plan.moves), 'file')} to '{trash}'; nothing was deleted.",
            "Check that folder, then delete it yourself.",
        ],
        metrics={"n_moved": len(plan.moves)},
        data={"trash": str(trash), "files": [row.key for row in plan.moves]},
    )


def undo(folder: str | Path, plan: str | None = None) -> Result:
    """Restore the files of a folder's newest trash; those that cannot be restored stay there and are listed.

    Parameters
    ----------
    folder : path
    plan : str, optional
        The digest of the plan whose trash is meant instead.

    Raises
    ------
    SourceError
        If the folder has no such trash.
    """
    folder = Path(folder)
    with locked(folder):
        trashes = [trash for trash in _trashes(folder) if os.path.lexists(trash / LOG)]
        if plan is not None:
            trashes = [trash for trash in trashes if _read_log(trash).plan == plan]
        if not trashes:
            raise SourceError(f"There is nothing to restore: '{_trash_of(folder)}' holds no '{LOG}'.")
        trash = trashes[-1]
        log = _read_log(trash)
        check_same_folder(file_name_of(log.folder), folder, trash / LOG)
        restored, left = [], []
        for file in log.files:
            reason = _restore(file, trash, folder)
            if reason is None:
                restored.append(file.key)
            elif reason:
                left.append((file.key, reason))
        if not any(_may_be_in(trash, file.key) for file in log.files):
            names = [file_name_of(file.key) for file in log.files]
            remove_listed(trash, [*names, LOG])
            with suppress(OSError):
                trash.parent.rmdir()
    sentences = [f"Restored {counted(len(restored), 'file')} to '{folder}'."]
    if left:
        sentences.append(f"{counted(len(left), 'file')} could not be restored, such as {left[0][0]}: {left[0][1]}.")
    panels: list[Panel] = [FileList(title="Not restored", files=left)] if left else []
    return Result(
        name="duplicates-undo",
        title="Duplicates restored",
        sentences=sentences,
        metrics={"n_restored": len(restored), "n_left": len(left)},
        panels=panels,
        data={"restored": restored, "left": [{"key": key, "why": why} for key, why in left]},
    )


def newest_plan(folder: str | Path) -> str | None:
    """The digest of the plan whose files `undo` restores.

    Raises
    ------
    ArtifactError
        If the log of the trash is damaged.
    """
    trashes = [trash for trash in _trashes(Path(folder)) if os.path.lexists(trash / LOG)]
    return _read_log(trashes[-1]).plan if trashes else None


def moved(folder: str | Path) -> list[str]:
    """The keys of the files of a folder that lie in its trash, and no longer in the folder.

    Raises
    ------
    ArtifactError
        If a log of the trash is damaged.
    """
    folder = Path(folder)
    found = set()
    for trash in _trashes(folder):
        if not os.path.lexists(trash / LOG):
            continue
        for file in _read_log(trash).files:
            with suppress(UnsafePathError):
                if os.path.lexists(file_of(trash, file.key)) and not os.path.lexists(file_of(folder, file.key)):
                    found.add(file.key)
    return sorted(found)


def _restore(file: _MovedFile, trash: Path, folder: Path) -> str | None:
    """Move one file back: None if that was done, "" if there was nothing to do, else why it stays in the trash."""
    try:
        source, target = file_of(trash, file.key), file_of(folder, file.key)
        if not os.path.lexists(source):  # never moved, or restored before
            return "" if os.path.lexists(target) else "neither in the trash nor in the folder"
        if _sha256(source) != file.sha256:
            return "it is not the file that was moved there, so it stays in the trash"
        _move(source, target)
    except FileExistsError:
        return "another file has its name now, so it stays in the trash"
    except UnsafePathError as error:
        return f"its path leads elsewhere: {error}"
    except OSError as error:
        return f"it cannot be moved ({error.strerror}), so it stays in the trash"
    return None


def _may_be_in(trash: Path, key: str) -> bool:
    """Whether a file of the log is in the trash, or may be."""
    try:
        return os.path.lexists(file_of(trash, key, link=True))
    except UnsafePathError:
        return True


def _checked_moves(plan: Plan, trash: Path | None) -> dict[str, tuple[int, int, int]]:
    """The files still to be moved, each with its stamp, after checking that no file of the plan has changed."""
    root = _trash_of(plan.folder).parent
    to_move, kept = {}, set()
    needed = {row.group for row in plan.moves}
    moving = Counter(_identity(plan.folder, row.key) for row in plan.moves)
    for row in plan.rows:
        if row.action == "keep":
            if row.group in needed and _stays(plan.folder, row, moving):
                kept.add(row.group)
            continue
        try:
            path = file_of(plan.folder, row.key)
        except UnsafePathError as error:
            raise ArtifactError(f"{error} Remove the line of '{row.key}' from the plan.") from None
        if trash is not None and os.path.lexists(file_of(trash, row.key, link=True)) and not os.path.lexists(path):
            continue  # an earlier run moved it
        stamp = _stamp(path)
        if stamp is None:
            raise ArtifactError(f"'{path}' no longer exists; make a new plan.")
        if _sha256(path) != row.sha256:
            raise ArtifactError(f"'{path}' has changed since the plan was made; make a new plan.")
        if stamp[2] != root.stat().st_dev:
            raise ArtifactError(f"'{path}' is on another disk than '{root}'; remove its line from the plan.")
        to_move[row.key] = stamp
    for row in plan.moves:
        if row.group not in kept:
            raise ArtifactError(
                f"No image that group {row.group} keeps exists unchanged, so '{row.key}' stays; make a new plan."
            )
    return to_move


def _stays(folder: Path, row: PlanRow, moving: Counter[Any]) -> bool:
    """Whether the file of a row exists, is unchanged, and will remain once those in `moving` have left the folder.

    False behind a link, which may lead to a file that is moved, and where all names of one file are moved.
    """
    identity = _identity(folder, row.key)
    if identity is None or _sha256(file_of(folder, row.key)) != row.sha256:
        return False
    return file_of(folder, row.key).lstat().st_nlink > moving[identity]


def _identity(folder: Path, key: str) -> tuple[int, int] | None:
    """Device and inode, equal for all names of one file; None where there is none, or it lies behind a link."""
    try:
        status = os.lstat(file_of(folder, key))
    except (UnsafePathError, OSError):
        return None
    return status.st_dev, status.st_ino


def _move(source: Path, target: Path) -> None:
    """Rename a file to a name that is free, and flush it to disk.

    The new name is linked before the old one is removed, so the file exists at any time. Raises FileExistsError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.samefile(source.parent, target.parent):
        raise UnsafePathError(f"'{source}' and '{target}' lie in one folder; nothing is moved.")
    if os.path.lexists(target):
        one, other = os.lstat(source), os.lstat(target)
        if not (stat.S_ISREG(one.st_mode) and os.path.samestat(one, other) and one.st_nlink > 1):
            raise FileExistsError(str(target))
        os.unlink(source)  # an earlier run was interrupted while the file had both names
        return
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # the file system has no hard links
        if os.path.lexists(target):
            raise FileExistsError(str(target)) from None
        os.rename(source, target)
    else:
        flush(target.parent)
        os.unlink(source)
    flush(target.parent)
    flush(source.parent)


def _trash_of(folder: Path) -> Path:
    folder = folder.resolve()
    if not folder.name:
        raise InputError(
            f"'{folder}' is the root of a disk, so no trash folder can lie beside it; name a folder on it."
        )
    return folder.with_name(f"{folder.name}-trash")


def _trashes(folder: Path) -> list[Path]:
    """The numbered trash folders of a folder, the newest last.

    Raises
    ------
    ArtifactError
        If something other than a folder is in their place.
    """
    above = _trash_of(folder)
    if not os.path.lexists(above):
        return []
    if is_link(above) or not above.is_dir():
        raise ArtifactError(f"'{above}' is not a folder, so it cannot be used as the trash; move it away.")
    found = [path for path in above.iterdir() if NUMBERED.fullmatch(path.name) and not is_link(path) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


def _trash_for(plan: Plan) -> tuple[Path, _Log | None]:
    """The trash folder that an earlier run of this plan began, with its log; else the name of a new one."""
    trashes = _trashes(plan.folder)
    for trash in trashes:
        if os.path.lexists(trash / LOG) and (log := _read_log(trash)).plan == plan.digest:
            return trash, log
    number = max((int(trash.name) for trash in trashes), default=0) + 1
    while os.path.lexists(trash := _trash_of(plan.folder) / f"{number:04d}"):
        number += 1
    return trash, None


def _read_log(trash: Path) -> _Log:
    try:
        return _Log.model_validate(read_json(trash / LOG, most_bytes=MAX_LOG_BYTES))
    except (ArtifactError, ValidationError) as error:
        reason = (
            "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:1])
            if isinstance(error, ValidationError)
            else str(error)
        )
        raise ArtifactError(
            f"'{trash / LOG}' cannot be used ({reason}); move the files in '{trash}' by hand."
        ) from None


def _write_log(trash: Path, log: _Log) -> None:
    write_file(trash / LOG, log.model_dump_json(indent=1).encode() + b"\n")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Size, modification time and device of a file; None where there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_dev


def _sha256(path: Path) -> str | None:
    """The SHA-256 of a file's content; None where it cannot be read or is not a regular file."""
    try:
        return entry_of(path).sha256
    except (ArtifactError, OSError):
        return None
