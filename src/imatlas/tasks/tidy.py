"""A plan that says which copies may go, files moved to a trash folder by it, and all of them brought back.

Nothing is ever deleted or overwritten. The trash lies beside the folder, so that a move is one step of the file system:

    photos/                     the folder
    photos-trash/0001/undo.json what is being moved, written before the first move
                      a/b.jpg   a file that was photos/a/b.jpg

Where each file lies is all the state there is; so a run that was killed can be run again, or undone.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from imatlas.csv_files import read_csv, write_csv
from imatlas.disk import flush, write_file
from imatlas.errors import ArtifactError, InputError, SourceError
from imatlas.images.names import file_name_of, is_key, key_of
from imatlas.result import FileList, Result
from imatlas.terminal import file_word, shell

COLUMNS = ("key", "action", "group", "why", "sha256", "folder")
NEEDED = ("key", "action", "group", "sha256")
LOG = "undo.json"


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


def write_plan(rows: Sequence[PlanRow], folder: Path, path: Path) -> None:
    """Write a plan as a CSV file, to be read and edited before it is applied."""
    place = key_of(str(folder.resolve()))
    write_csv(path, COLUMNS, [(row.key, row.action, row.group, row.why, row.sha256, place) for row in rows])


def read_plan(path: str | Path, folder: str | Path | None = None) -> Plan:
    """The plan in a file, checked: each group keeps at least one of its copies.

    Parameters
    ----------
    path : path
    folder : path, optional
        Where the files are now, if the folder was moved since the plan was made.

    Raises
    ------
    SourceError, InputError
        If there is no such file, or it is no plan that could be applied.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceError(f"There is no plan '{path}'; make one with 'imatlas duplicates FOLDER -o plan.csv'.")
    rows, folders, digest = [], set(), hashlib.sha256()
    for line in read_csv(path, NEEDED, what="a plan"):
        action = line["action"].strip().lower()
        if action not in ("keep", "move"):
            raise InputError(f"The action in line {line.line} of '{path}' must be keep or move. Got {action!r}.")
        _check_key(line["key"], line.line, path)
        group, why, sha256 = (line.cells.get(name, "").strip() for name in ("group", "why", "sha256"))
        rows.append(PlanRow(line["key"], action, group, why, sha256))
        folders |= {line.cells.get("folder", "")} - {""}
        digest.update(repr((line["key"], action, group, sha256)).encode())
    if folder is None and len(folders) != 1:
        raise InputError(f"'{path}' names {len(folders)} folders; a plan is for one: make it anew.")
    plan = Plan(Path(folder or file_name_of(folders.pop())), tuple(rows), digest.hexdigest())
    _check_groups(plan, path)
    return plan


def _check_key(key: str, number: int, path: Path) -> None:
    """Refuse a key that cannot name a file in the folder, or that is a second way to write the name of one."""
    parts = PurePosixPath(key).parts
    windows = os.name == "nt" and ("\\" in key or ":" in key)
    if not parts or PurePosixPath(key).is_absolute() or ".." in parts or windows or not is_key(key):
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
        if log is not None and log["done"]:
            raise ArtifactError(
                f"This plan was applied already: its files are in '{trash}'; "
                f"'{shell('imatlas', 'duplicates', file_word(plan.folder), '--undo')}' brings them back."
            )
        checked = _checked(plan, trash if log is not None else None)
        if log is None:
            trash.mkdir(parents=True)
            log = {
                "format": 1,
                "plan": plan.digest,
                "folder": str(plan.folder.resolve()),
                "done": False,
                "files": [{"key": row.key, "sha256": row.sha256} for row in plan.moves],
            }
            _write_log(trash, log)
        for key, stamp in checked.items():
            source = plan.folder / file_name_of(key)
            if _stamp(source) != stamp:
                raise ArtifactError(
                    f"'{source}' was changed while files were moved, and stays; the same command again checks and "
                    "continues, --undo brings back what was moved."
                )
            _move(source, trash / file_name_of(key))
        _write_log(trash, {**log, "done": True})
    n = len(plan.moves)
    return Result(
        "duplicates-apply",
        "Copies put aside",
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
        trashes = [trash for trash in _trashes(folder) if (trash / LOG).is_file()]
        if not trashes:
            raise SourceError(f"There is nothing to bring back: '{_trash_of(folder)}' holds no '{LOG}'.")
        trash = trashes[-1]
        log = _read_log(trash)
        back, left = [], []
        for file in log["files"]:
            name = file_name_of(file["key"])
            source, target = trash / name, folder / name
            if not os.path.lexists(source):
                if not os.path.lexists(target):
                    left.append((file["key"], "neither in the trash nor in the folder"))
                continue  # never moved, or back already
            try:
                _move(source, target)
                back.append(file["key"])
            except FileExistsError:
                left.append((file["key"], "another file has its name now; this one stays in the trash"))
        if not any(os.path.lexists(trash / file_name_of(file["key"])) for file in log["files"]):
            _remove_empty(trash)
    n = len(back)
    sentences = [f"{n:,} file{'s' if n != 1 else ''} came back to '{folder}'."]
    if left:
        sentences.append(f"{len(left):,} did not: {left[0][0]} ({left[0][1]}).")
    panels: list[Any] = [FileList(title="Not brought back", files=left)] if left else []
    data = {"back": back, "left": [{"key": key, "why": why} for key, why in left]}
    return Result("duplicates-undo", "Copies brought back", sentences, {"back": n, "left": len(left)}, panels, data)


def _checked(plan: Plan, trash: Path | None) -> dict[str, tuple[int, int, int]]:
    """The files that are still to be moved, each with its stamp; all of the plan was found unchanged."""
    root = _trash_of(plan.folder).parent
    moving, kept = {}, set()
    needed = {row.group for row in plan.moves}
    goes = {os.path.realpath(plan.folder / file_name_of(row.key)) for row in plan.moves}
    for row in plan.rows:
        path = plan.folder / file_name_of(row.key)
        if row.action == "keep":
            if row.group in needed and _sha256(path) == row.sha256 and os.path.realpath(path) not in goes:
                kept.add(row.group)
            continue
        if trash is not None and os.path.lexists(trash / file_name_of(row.key)) and not os.path.lexists(path):
            continue  # an earlier run moved it
        stamp = _stamp(path)
        if stamp is None:
            raise ArtifactError(f"'{path}' is not there any more; make the plan anew.")
        if path.is_symlink() or _sha256(path) != row.sha256:
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


def _move(source: Path, target: Path) -> None:
    """Give a file its new name where that is free, and put it on the disk.

    First both names are there, then one: whatever happens between, the file is. Raises FileExistsError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target) and os.path.samefile(source, target):
        os.unlink(source)  # an earlier run was cut between the two names
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
    return folder.with_name(f"{folder.name}-trash")


def _trashes(folder: Path) -> list[Path]:
    """The trash folders of a folder, the newest last."""
    return sorted(_trash_of(folder).glob("[0-9][0-9][0-9][0-9]"))


def _log_of(plan: Plan) -> tuple[Path, dict[str, Any] | None]:
    """The trash that an earlier run of this plan has begun, with its log; else a new one."""
    trashes = _trashes(plan.folder)
    for trash in trashes:
        if (trash / LOG).is_file() and (log := _read_log(trash))["plan"] == plan.digest:
            return trash, log
    number = max((int(trash.name) for trash in trashes), default=0) + 1
    return _trash_of(plan.folder) / f"{number:04d}", None


def _read_log(trash: Path) -> dict[str, Any]:
    try:
        log: dict[str, Any] = json.loads((trash / LOG).read_text(encoding="utf-8"))
        log["plan"], log["done"], [file["key"] for file in log["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"'{trash / LOG}' is damaged ({error}); move the files in '{trash}' back by hand."
        ) from error
    return log


def _write_log(trash: Path, log: dict[str, Any]) -> None:
    write_file(trash / LOG, (json.dumps(log, indent=1) + "\n").encode())


def _locked(folder: Path) -> Any:
    from filelock import FileLock, Timeout

    if not folder.is_dir():
        raise SourceError(
            f"There is no folder '{folder}'; name where it is now: imatlas duplicates FOLDER --apply PLAN."
        )
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    lock = FileLock(os.path.join(tempfile.gettempdir(), f"imatlas-{name}.lock"), timeout=0)
    try:
        return lock.acquire()
    except Timeout:
        raise ArtifactError(f"Another process is moving files of '{folder}'; wait for it to end.") from None


def _remove_empty(trash: Path) -> None:
    """Take away the log and the folders of a trash from which all files have come back; a stranger's file stays."""
    for folder, _, _ in os.walk(trash, topdown=False):
        if Path(folder) != trash:
            with suppress(OSError):
                os.rmdir(folder)
    (trash / LOG).unlink()
    for empty in (trash, trash.parent):
        with suppress(OSError):
            os.rmdir(empty)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Size, time of change and disk of a file, None where there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_dev


def _sha256(path: Path) -> str | None:
    """The hash of a file's content, None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
