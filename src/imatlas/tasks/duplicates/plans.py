"""Plans: CSV files that say which image of each duplicate group stays and which are moved; edited before use."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imatlas.errors import ArtifactError, InputError, SourceError, UnsafePathError
from imatlas.images.keys import file_name_of, is_key, key_of
from imatlas.system.atomic_io import relative
from imatlas.system.csv_files import read_csv, write_csv
from imatlas.system.terminal import file_word, shell
from imatlas.tasks.duplicates.signature import is_signed, sign

COLUMNS = ("key", "action", "group", "why", "sha256", "folder", "signature")
REQUIRED = ("key", "action", "group", "sha256")

LOG = "undo.json"
"""The log in a trash folder, beside the files that were moved."""


@dataclass(frozen=True)
class PlanRow:
    """One file of a plan: its key in the folder, "keep" or "move", its group, why, and the SHA-256 of its content."""

    key: str
    action: str
    group: str
    why: str
    sha256: str


@dataclass(frozen=True)
class Plan:
    """What to do with the files of a folder."""

    folder: Path
    rows: tuple[PlanRow, ...]
    digest: str

    @property
    def moves(self) -> list[PlanRow]:
        """The rows of the files to move."""
        return [row for row in self.rows if row.action == "move"]


def write_plan(rows: Sequence[PlanRow], folder: Path, path: Path, *, signed: bool = True) -> None:
    """Write a plan as a CSV file, to be read and edited before it is applied.

    A plan is signed where the user named the folder; it can then be applied without naming it again.
    """
    place = key_of(str(folder.resolve()))
    signature = sign(place) if signed else ""
    write_csv(path, COLUMNS, [(row.key, row.action, row.group, row.why, row.sha256, place, signature) for row in rows])


def read_plan(path: str | Path, folder: str | Path | None = None) -> Plan:
    """Read a plan and check it: each group keeps at least one image.

    Parameters
    ----------
    path : path
    folder : path, optional
        Where the files are now, if the folder was moved since the plan was made. Required for a plan that was not made
        by this user on this machine, unless the plan lies in the folder or above it.

    Raises
    ------
    SourceError, InputError
        If there is no such file, or it is not a valid plan.
    ArtifactError
        If the plan is for another folder than the one named, or none is named and it must be.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceError(f"There is no plan '{path}'; make one with 'imatlas duplicates FOLDER -o plan.csv'.")
    rows, places, digest = [], set(), hashlib.sha256()
    for line in read_csv(path, REQUIRED, what="a plan"):
        action = line["action"].strip().lower()
        if action not in ("keep", "move"):
            raise InputError(f"The action in line {line.line} of '{path}' must be keep or move. Got {action!r}.")
        _check_key(line["key"], line.line, path)
        group, why, sha256 = (line.cells.get(name, "").strip() for name in ("group", "why", "sha256"))
        rows.append(PlanRow(line["key"], action, group, why, sha256))
        places |= {(line.cells.get("folder", ""), line.cells.get("signature", "").strip())} - {("", "")}
        digest.update(repr((line["key"], action, group, sha256)).encode())
    plan = Plan(_folder_of(places, path, folder), tuple(rows), digest.hexdigest())
    _check_groups(plan, path)
    return plan


def _folder_of(places: set[tuple[str, str]], path: Path, folder: str | Path | None) -> Path:
    """The folder in which a plan may move files: the one that the user named, else a trusted one of the plan."""
    recorded = {place for place, _ in places if place}
    if len(recorded) > 1 or (folder is None and not recorded):
        raise InputError(f"'{path}' names {len(recorded)} folders, but a plan is for one; make a new plan.")
    if folder is not None:
        for place in recorded:
            check_same_folder(file_name_of(place), Path(folder), path)
        return Path(folder)
    [place] = recorded
    found = Path(file_name_of(place))
    signatures = {signature for other, signature in places if other} - {""}
    trusted = all(is_signed(place, word) for word in signatures) if signatures else _is_within(found, path.parent)
    if not trusted:
        command = shell("imatlas", "duplicates", file_word(found), "--apply", file_word(path))
        raise ArtifactError(
            f"'{path}' was not made here for '{found}'; to move files there, name the folder: {command}"
        )
    return found


def _is_within(folder: Path, other: Path) -> bool:
    """Whether a folder is another one, or lies below it."""
    real, above = Path(os.path.realpath(folder)), Path(os.path.realpath(other))
    return folder.is_absolute() and (real == above or above in real.parents)


def check_same_folder(recorded: str, folder: Path, by: Path) -> None:
    """Refuse a folder other than the one recorded in a plan or a log, unless that one is gone: it was moved.

    Raises
    ------
    ArtifactError
    """
    if not os.path.isdir(recorded) or not folder.is_dir() or os.path.samefile(recorded, folder):
        return
    raise ArtifactError(f"'{by}' is for the folder '{recorded}', which still exists, not for '{folder}'.")


def _check_key(key: str, number: int, path: Path) -> None:
    """Refuse a key that is not the name of a file in the folder, in its one normal spelling."""
    try:
        clean = relative(file_name_of(key)).as_posix()
    except UnsafePathError:
        clean = ""
    if not is_key(key) or clean != file_name_of(key) or clean.casefold() == LOG:  # the trash keeps its log there
        raise InputError(f"The key in line {number} of '{path}' must name a file in the folder. Got {key!r}.")


def _check_groups(plan: Plan, path: Path) -> None:
    keys = [row.key for row in plan.rows]
    if len(set(keys)) < len(keys):
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"'{path}' names '{repeated}' more than once; keep one of these lines.")
    kept = {row.group for row in plan.rows if row.action == "keep"}
    for row in plan.moves:
        if row.group not in kept:
            raise InputError(
                f"Every image of group {row.group} would be moved, among them '{row.key}'; change one line to keep."
            )
