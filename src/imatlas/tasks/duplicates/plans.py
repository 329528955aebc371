"""A plan that says which copies may go, files moved to a trash folder by it, and all of them brought back.

Nothing is ever deleted or overwritten. The trash lies beside the folder, so that a move is one step of the file system:

    photos/                     the folder
    photos-trash/0001/undo.json what is being moved, written before the first move
                      a/b.jpg   a file that was photos/a/b.jpg

Where each file lies is all the state there is; so a run that was killed can be run again, or undone.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imatlas.errors import ArtifactError, InputError, SourceError, UnsafePathError
from imatlas.images.keys import file_name_of, file_of, is_key, key_of
from imatlas.result import FileList, Result
from imatlas.system.atomic_io import flush, is_link, relative, remove_listed, write_file
from imatlas.system.csv_files import read_csv, write_csv
from imatlas.system.inventory import entry_of, read_json
from imatlas.system.terminal import file_word, shell
from imatlas.tasks.duplicates.lock import held as _locked
from imatlas.tasks.duplicates.seals import is_sealed, seal

COLUMNS = ("key", "action", "group", "why", "sha256", "folder", "seal")
NEEDED = ("key", "action", "group", "sha256")
LOG = "undo.json"


TRASH = re.compile(r"[0-9]{4,9}")
"""Names of the folders within a trash."""

MOST_LOG = 2**28
"""Bytes of a log that are read at most: a million files."""


class _Moved(BaseModel):
    """A file that is moved: its key, and the hash of its content."""

    model_config = ConfigDict(strict=True)
    key: Annotated[str, Field(min_length=1, max_length=2**14)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Log(BaseModel):
    """What `undo.json` holds."""

    model_config = ConfigDict(strict=True)
    format: Literal[1]
    plan: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    folder: Annotated[str, Field(max_length=2**14)]
    done: bool
    files: list[_Moved]


@dataclass(frozen=True)
class PlanRow:
    """One file of a plan: its key in the folder, "keep" or "move", its group, why, and the hash of its content."""

    key: str
    action: str
    group: str
    why: str
    sha256: str


@dataclass(frozen=True)
class Plan:
    """What is to happen to the files of a folder, as a person may have edited it."""

    folder: Path
    rows: tuple[PlanRow, ...]
    digest: str

    @property
    def moves(self) -> list[PlanRow]:
        """The rows of the files that are to go."""
        return [row for row in self.rows if row.action == "move"]


def write_plan(rows: Sequence[PlanRow], folder: Path, path: Path, *, sealed: bool = True) -> None:
    """Write a plan as a CSV file, to be read and edited before it is applied.

    It is sealed where the user has named the folder: then he need not name it again.
    """
    place = key_of(str(folder.resolve()))
    word = seal(place) if sealed else ""
    write_csv(path, COLUMNS, [(row.key, row.action, row.group, row.why, row.sha256, place, word) for row in rows])


def read_plan(path: str | Path, folder: str | Path | None = None) -> Plan:
    """The plan in a file, checked: each group keeps at least one of its copies.

    Parameters
    ----------
    path : path
    folder : path, optional
        Where the files are now, if the folder was moved since the plan was made. It must be named, too, for a plan
        that was not made by this user on this machine, unless the folder lies where the plan does.

    Raises
    ------
    SourceError, InputError
        If there is no such file, or it is no plan that could be applied.
    ArtifactError
        If the plan is for another folder than the one named, or chooses one by itself that it may not.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceError(f"There is no plan '{path}'; make one with 'imatlas duplicates FOLDER -o plan.csv'.")
    rows, places, digest = [], set(), hashlib.sha256()
    for line in read_csv(path, NEEDED, what="a plan"):
        action = line["action"].strip().lower()
        if action not in ("keep", "move"):
            raise InputError(f"The action in line {line.line} of '{path}' must be keep or move. Got {action!r}.")
        _check_key(line["key"], line.line, path)
        group, why, sha256 = (line.cells.get(name, "").strip() for name in ("group", "why", "sha256"))
        rows.append(PlanRow(line["key"], action, group, why, sha256))
        places |= {(line.cells.get("folder", ""), line.cells.get("seal", "").strip())} - {("", "")}
        digest.update(repr((line["key"], action, group, sha256)).encode())
    plan = Plan(_folder_of(places, path, folder), tuple(rows), digest.hexdigest())
    _check_groups(plan, path)
    return plan


def _folder_of(places: set[tuple[str, str]], path: Path, folder: str | Path | None) -> Path:
    """The folder in which a plan may move files: the one that is named, else the one that it was made for, here."""
    told = {place for place, _ in places if place}
    if len(told) > 1 or (folder is None and not told):
        raise InputError(f"'{path}' names {len(told)} folders; a plan is for one: make it anew.")
    if folder is not None:
        for place in told:
            _check_place(file_name_of(place), Path(folder), path)
        return Path(folder)
    [place] = told
    found = Path(file_name_of(place))
    words = {word for other, word in places if other} - {""}
    here = all(is_sealed(place, word) for word in words) if words else _lies_in(found, path.parent)
    if not here:
        command = shell("imatlas", "duplicates", file_word(found), "--apply", file_word(path))
        raise ArtifactError(
            f"'{path}' was not made here for '{found}'; if files are to be moved there, say so: {command}"
        )
    return found


def _lies_in(folder: Path, other: Path) -> bool:
    """Whether a folder is another one, or lies below it."""
    real, above = Path(os.path.realpath(folder)), Path(os.path.realpath(other))
    return folder.is_absolute() and (real == above or above in real.parents)


def _check_place(told: str, folder: Path, by: Path) -> None:
    """Refuse a folder that is not the one which a plan or a log was made for, unless that one is gone: it was moved.

    Raises
    ------
    ArtifactError
    """
    if not os.path.isdir(told) or not folder.is_dir() or os.path.samefile(told, folder):
        return
    raise ArtifactError(f"'{by}' is for the folder '{told}', which is still there, and not for '{folder}'.")


def _check_key(key: str, number: int, path: Path) -> None:
    """Refuse a key that cannot name a file in the folder, or that is a second way to write the name of one."""
    try:
        clean = relative(file_name_of(key)).as_posix()
    except UnsafePathError:
        clean = ""
    if not is_key(key) or clean != file_name_of(key) or clean.casefold() == LOG:  # where the log of the trash will be
        raise InputError(f"The key in line {number} of '{path}' must name a file in the folder. Got {key!r}.")


def _check_groups(plan: Plan, path: Path) -> None:
    keys = [row.key for row in plan.rows]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"'{path}' names '{twice}' more than once; keep one of these lines.")
    kept = {row.group for row in plan.rows if row.action == "keep"}
    for row in plan.moves:
        if row.group not in kept:
            raise InputError(
                f"Every copy of group {row.group} would be moved, '{row.key}' among them; say keep in the line of one."
            )


def apply_plan(plan: Plan) -> Result:
    """Move the files that a plan says into a trash folder beside the folder; the same call continues one that was cut.

    Raises
    ------
    ArtifactError
        If a file of the plan is gone or has changed since, or cannot be moved within one file system: before anything
        is moved.
    """
    with _locked(plan.folder):
        trash, log = _log_of(plan)
        if log is not None and log.done:
            raise ArtifactError(
                f"This plan was applied already: its files are in '{trash}'; "
                f"'{shell('imatlas', 'duplicates', file_word(plan.folder), '--undo')}' brings them back."
            )
        checked = _checked(plan, trash if log is not None else None)
        if log is None:
            trash.mkdir(parents=True)
            files = [_Moved(key=row.key, sha256=row.sha256) for row in plan.moves]
            log = _Log(format=1, plan=plan.digest, folder=key_of(str(plan.folder.resolve())), done=False, files=files)
            _write_log(trash, log)
        for key, stamp in checked.items():
            source = file_of(plan.folder, key)
            if _stamp(source) != stamp:
                raise ArtifactError(
                    f"'{source}' was changed while files were moved, and stays; the same command again checks and "
                    "continues, --undo brings back what was moved."
                )
            _move(source, file_of(trash, key))
        log.done = True
        _write_log(trash, log)
    n = len(plan.moves)
    return Result(
        "duplicates-apply",
        "Duplicates moved",
        [
            f"{n:,} file{'s' if n != 1 else ''} moved to '{trash}'; nothing was deleted.",
            "Look, and delete that folder yourself once you are sure.",
        ],
        {"moved": n},
        data={"trash": str(trash), "files": [row.key for row in plan.moves]},
    )


def undo(folder: str | Path) -> Result:
    """Bring back the files of the newest trash of a folder; what cannot come back stays there and is told.

    Raises
    ------
    SourceError
        If the folder has no trash.
    """
    folder = Path(folder)
    with _locked(folder):
        trashes = [trash for trash in _trashes(folder) if os.path.lexists(trash / LOG)]
        if not trashes:
            raise SourceError(f"There is nothing to bring back: '{_trash_of(folder)}' holds no '{LOG}'.")
        trash = trashes[-1]
        log = _read_log(trash)
        _check_place(file_name_of(log.folder), folder, trash / LOG)
        back, left = [], []
        for file in log.files:
            reason = _brought_back(file, trash, folder)
            if reason is None:
                back.append(file.key)
            elif reason:
                left.append((file.key, reason))
        if not any(_may_be_there(trash, file.key) for file in log.files):
            names = [file_name_of(file.key) for file in log.files]
            remove_listed(trash, [*names, LOG])
            with suppress(OSError):
                trash.parent.rmdir()
    n = len(back)
    sentences = [f"{n:,} file{'s' if n != 1 else ''} came back to '{folder}'."]
    if left:
        sentences.append(f"{len(left):,} did not: {left[0][0]} ({left[0][1]}).")
    panels: list[Any] = [FileList(title="Not brought back", files=left)] if left else []
    data = {"back": back, "left": [{"key": key, "why": why} for key, why in left]}
    return Result("duplicates-undo", "Duplicates restored", sentences, {"back": n, "left": len(left)}, panels, data)


def _brought_back(file: _Moved, trash: Path, folder: Path) -> str | None:
    """Move one file back; why it stays in the trash, "" where nothing is to be done, None where it came back."""
    try:
        source, target = file_of(trash, file.key), file_of(folder, file.key)
        if not os.path.lexists(source):  # never moved, or back already
            return "" if os.path.lexists(target) else "neither in the trash nor in the folder"
        if _sha256(source) != file.sha256:
            return "it is not the file that was put there; it stays in the trash"
        _move(source, target)
    except FileExistsError:
        return "another file has its name now; this one stays in the trash"
    except UnsafePathError as error:
        return f"its name leads elsewhere: {error}"
    except OSError as error:
        return f"it cannot be moved ({error.strerror}); it stays in the trash"
    return None


def _may_be_there(trash: Path, key: str) -> bool:
    """Whether a file of the log is in the trash, or that cannot be told."""
    try:
        return os.path.lexists(file_of(trash, key, link=True))
    except UnsafePathError:
        return True


def _checked(plan: Plan, trash: Path | None) -> dict[str, tuple[int, int, int]]:
    """The files that are still to be moved, each with its stamp; all of the plan was found unchanged."""
    root = _trash_of(plan.folder).parent
    moving, kept = {}, set()
    needed = {row.group for row in plan.moves}
    goes = Counter(_identity(plan.folder, row.key) for row in plan.moves)
    for row in plan.rows:
        if row.action == "keep":
            if row.group in needed and _stays(plan.folder, row, goes):
                kept.add(row.group)
            continue
        try:
            path = file_of(plan.folder, row.key)
        except UnsafePathError as error:
            raise ArtifactError(f"{error} Take the line of '{row.key}' out of the plan.") from None
        if trash is not None and os.path.lexists(file_of(trash, row.key, link=True)) and not os.path.lexists(path):
            continue  # an earlier run moved it
        stamp = _stamp(path)
        if stamp is None:
            raise ArtifactError(f"'{path}' is not there any more; make the plan anew.")
        if _sha256(path) != row.sha256:
            raise ArtifactError(f"'{path}' has changed since the plan was made; make the plan anew.")
        if stamp[2] != root.stat().st_dev:
            raise ArtifactError(f"'{path}' is on another disk than '{root}'; take its line out of the plan.")
        moving[row.key] = stamp
    for row in plan.moves:
        if row.group not in kept:
            raise ArtifactError(
                f"No copy that group {row.group} keeps is there unchanged, so '{row.key}' stays; make the plan anew."
            )
    return moving


def _stays(folder: Path, row: PlanRow, goes: Counter[Any]) -> bool:
    """Whether the file of a row is there, unchanged, and still will be when those in `goes` have left the folder.

    Not so behind a link, which may lead to one that goes; nor where the file system has one file under both names.
    """
    identity = _identity(folder, row.key)
    if identity is None or _sha256(file_of(folder, row.key)) != row.sha256:
        return False
    return file_of(folder, row.key).lstat().st_nlink > goes[identity]


def _identity(folder: Path, key: str) -> tuple[int, int] | None:
    """What one file has in common under all of its names; None where there is none, or it lies behind a link."""
    try:
        status = os.lstat(file_of(folder, key))
    except (UnsafePathError, OSError):
        return None
    return status.st_dev, status.st_ino


def _move(source: Path, target: Path) -> None:
    """Give a file its new name where that is free, and put it on the disk.

    First both names are there, then one: whatever happens between, the file is. Raises FileExistsError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.samefile(source.parent, target.parent):
        raise UnsafePathError(f"'{source}' and '{target}' lie in one folder; nothing is moved.")
    if os.path.lexists(target):
        one, other = os.lstat(source), os.lstat(target)
        if not (stat.S_ISREG(one.st_mode) and os.path.samestat(one, other) and one.st_nlink > 1):
            raise FileExistsError(str(target))
        os.unlink(source)  # an earlier run was cut between the two names, which are two names of one file
        return
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without second names
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
        raise InputError(f"'{folder}' is a whole disk, and no trash folder can lie beside it; name a folder on it.")
    return folder.with_name(f"{folder.name}-trash")


def _trashes(folder: Path) -> list[Path]:
    """The trash folders of a folder, the newest last.

    Raises
    ------
    ArtifactError
        If where they should be there is a link, or no folder.
    """
    above = _trash_of(folder)
    if not os.path.lexists(above):
        return []
    if is_link(above) or not above.is_dir():
        raise ArtifactError(f"'{above}' is not a folder, so no trash is made or looked for there; move it away.")
    found = [path for path in above.iterdir() if TRASH.fullmatch(path.name) and not is_link(path) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


def _log_of(plan: Plan) -> tuple[Path, _Log | None]:
    """The trash that an earlier run of this plan has begun, with its log; else a new one."""
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
        return _Log.model_validate(read_json(trash / LOG, most_bytes=MOST_LOG))
    except (ArtifactError, ValidationError) as error:
        reason = (
            "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:1])
            if isinstance(error, ValidationError)
            else str(error)
        )
        raise ArtifactError(
            f"'{trash / LOG}' cannot be used ({reason}); move the files in '{trash}' back by hand."
        ) from None


def _write_log(trash: Path, log: _Log) -> None:
    write_file(trash / LOG, log.model_dump_json(indent=1).encode() + b"\n")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Size, time of change and disk of a file, None where there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_dev


def _sha256(path: Path) -> str | None:
    """The hash of a file's content, None where it cannot be read or is no plain file."""
    try:
        return entry_of(path).sha256
    except (ArtifactError, OSError):
        return None
