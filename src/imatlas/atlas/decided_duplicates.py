"""The duplicates of an atlas as a person reviewed them: what is none, what is kept, and whose files are in the trash.

A plan that moved files is a decision as any other: undone, its files come back from the trash; redone, they go there
again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from imatlas.arguments import counted
from imatlas.atlas.decisions import Decision, Decisions, State
from imatlas.atlas.store import Store
from imatlas.errors import InputError, SourceError, UnsafePathError
from imatlas.images.keys import file_of
from imatlas.result import Result
from imatlas.tasks.duplicates import trash
from imatlas.tasks.duplicates.plans import PlanRow, read_plan, write_plan
from imatlas.tasks.duplicates.reviewed import Reviewed


def reviewed(state: State, keys: Sequence[str]) -> Reviewed:
    """What was decided about the duplicates among images, by their rows."""
    named = {key for pair in state.different for part in pair for key in part}.union(state.best)
    row_of = {key: row for row, key in enumerate(keys) if key in named} if named else {}
    different: dict[int, list[frozenset[int]]] = {}
    for one, other in state.different:
        parts = [frozenset(row_of[key] for key in part if key in row_of) for part in (one, other)]
        for rows, others in (parts, parts[::-1]) if one != other else (parts,):
            for row in rows:
                different.setdefault(row, []).append(others)
    chosen = {row_of[key]: number for number, key in enumerate(state.best, start=1) if key in row_of}
    return Reviewed(different, chosen)


def move_duplicates(store: Store, decisions: Decisions, kept: Mapping[str, str]) -> Result:
    """Move files to the trash folder beside those of the atlas, as a decision that can be undone.

    Parameters
    ----------
    store : Store
    decisions : Decisions
    kept : mapping {key: key}
        For each image to move, its duplicate that stays.

    Raises
    ------
    InputError
        If there is none, one that stays is moved as well, or the images are no files.
    ArtifactError
        If a file is gone or has changed; then nothing is moved.
    """
    result, digest = _apply(store, kept)
    decisions.moved_to_trash(list(kept), list(kept.values()), digest)
    return result


def bring_back(store: Store, decisions: Decisions) -> list[str]:
    """Bring the files back that were moved to the trash last, by whatever plan; returns what was done in sentences.

    Raises
    ------
    InputError, SourceError
        If nothing was moved.
    """
    folder, last = _folder(store), decisions.last
    if last is not None and last.kind == "trash" and last.value == trash.newest_plan(folder):
        return undo(store, decisions)
    return trash.undo(folder).sentences


def undo(store: Store, decisions: Decisions) -> list[str]:
    """Take the last decision back; returns what became of files in sentences.

    Raises
    ------
    InputError
        If there is none, or files are to be brought back to a folder that is gone.
    """
    last = decisions.last
    sentences = _restored(store, last) if last is not None and last.kind == "trash" else []
    decisions.undo()  # after the files: if this process ends between, they are found in their place
    return sentences


def redo(store: Store, decisions: Decisions) -> list[str]:
    """Decide again what was taken back last; returns what became of files in sentences.

    Raises
    ------
    InputError
        If there is nothing.
    ArtifactError
        If files are to be moved again that are gone or have changed.
    """
    last = decisions.last_undone
    sentences: list[str] = []
    if last is not None and last.kind == "trash":
        sentences = _apply(store, dict(zip(last.keys, last.others, strict=True)))[0].sentences
    decisions.redo()
    return sentences


def _apply(store: Store, kept: Mapping[str, str]) -> tuple[Result, str]:
    """Apply the plan that keeps some images and moves others; and its digest, which is that of these images."""
    folder = _folder(store)
    if not kept:
        raise InputError("Choose at least one duplicate to move.")
    rows_of: dict[str, list[str]] = {}
    for key, stays in kept.items():
        rows_of.setdefault(stays, []).append(key)
    wanted = {*kept, *rows_of}
    found = [(row, key) for row, key in enumerate(store.keys.to_pylist()) if key in wanted]
    hashes = store.table.take([row for row, _ in found], ["sha256"])["sha256"].to_pylist()
    sha256 = {key: value for (_, key), value in zip(found, hashes, strict=True)}
    for key in sorted(wanted - sha256.keys()):
        raise InputError(f"'{key}' is not in the atlas any more, so nothing is moved.")
    plan = []
    for number, (stays, moved) in enumerate(rows_of.items(), start=1):
        rows = [(stays, "keep"), *((key, "move") for key in moved)]
        plan += [PlanRow(key, action, str(number), "studio", sha256[key]) for key, action in rows]
    with tempfile.TemporaryDirectory(prefix="imatlas-") as aside:
        path = Path(aside, "plan.csv")
        write_plan(plan, folder, path, signed=False)
        read = read_plan(path, folder)
        return trash.apply_plan(read), read.digest


def _restored(store: Store, decision: Decision) -> list[str]:
    """Restore the files of a plan, and say what could not be."""
    folder = _folder(store)
    with suppress(SourceError):
        return trash.undo(folder, str(decision.value)).sentences
    gone = [key for key in decision.keys if not _is_there(folder, key)]
    if not gone:
        return ["The files are back in their places already."]
    are = "is" if len(gone) == 1 else "are"
    return [f"{counted(len(gone), 'file')} {are} neither in the trash nor in '{folder}', such as {gone[0]}."]


def _is_there(folder: Path, key: str) -> bool:
    with suppress(UnsafePathError):
        return os.path.lexists(file_of(folder, key))
    return False


def _folder(store: Store) -> Path:
    Decisions(store.folder, store.address).refuse_at_address()
    folder = store.originals.folder
    if folder is None:
        raise InputError(
            "The images of this atlas are not files of a folder that is here, so none can be moved; "
            "if they lie elsewhere now, learn again with --moved-from."
        )
    return folder
