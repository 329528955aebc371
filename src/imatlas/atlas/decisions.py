"""What a person decided about the images of an atlas: labels, images to leave out, clusters named and merged,
duplicates.

    decisions.jsonl     one line of JSON per decision, in order; "undo" and "redo" are lines, too

Nothing is ever taken back by deleting: the state is what follows from all lines. A line that a killed process has
written in part is ignored, and cut off by the next decision. Decisions name images by their keys, so that they hold for
an atlas that has grown or was learned again. A cluster is known by some images of it, its anchors: a name stays with
most of them, and clusters are merged by those of each. `imatlas.atlas.decided_clusters` says which clusters these are.
`imatlas.atlas.decided_duplicates` moves the files of duplicates, and moves them back when that is undone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imatlas.arguments import counted, shown
from imatlas.errors import ArtifactError, InputError
from imatlas.system.atomic_io import append, flush, within
from imatlas.system.inventory import open_regular
from imatlas.system.locks import locked

NAME, LOCK = "decisions.jsonl", ".decisions.lock"
MOST_BYTES = 2**30
PATIENCE = 3.0
"""Seconds to wait for another process that decides."""
MOST_LETTERS = 200
"""Of a label or a name."""

Anchors = tuple[str, ...]
"""Keys of images by which a cluster is known, the most typical first."""

_Text = Annotated[str, Field(max_length=MOST_LETTERS)]


class Decision(BaseModel):
    """One line of the file.

    Labels are one for all keys (`value`), or one for each (`values`). A name is for the cluster that most of the keys
    are in; clusters are merged by a key of each, or by those keys that have the same of `values`. `keys` are no
    duplicates of `others`, or, without others, of each other. The files of `keys` were moved to the trash by the plan
    whose digest is `value`; the image that stays for each is in `others`.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["label", "leave_out", "name", "merge", "different", "best", "trash", "undo", "redo"]
    keys: list[str] = []
    others: list[str] = []
    value: _Text | bool | None = None
    values: list[_Text] = []
    time: float = 0.0

    def words(self) -> str:
        """What was decided."""
        images = counted(len(self.keys), "image")
        if self.kind == "label" and self.values:
            return f"label {images} with {counted(len(set(self.values)), 'label')}"
        if self.kind == "label":
            return f"label {images} '{self.value}'" if self.value else f"remove the label of {images}"
        if self.kind == "leave_out":
            return f"leave out {images}" if self.value else f"keep {images}"
        if self.kind == "merge":
            return (
                f"merge {counted(len(set(self.values or self.keys)), 'cluster')}"
                if self.value
                else "split a merged cluster"
            )
        if self.kind == "different":
            return (
                f"{images} marked as no {'duplicate' if len(self.keys) == 1 else 'duplicates'}"
                if self.value
                else (f"forget what was marked as no duplicate, of {images}")
            )
        if self.kind == "best":
            return "choose the image to keep of a duplicate group"
        if self.kind == "trash":
            return f"move {images} to the trash"
        return f"name a cluster '{self.value}'" if self.value else "remove the name of a cluster"


@dataclass(frozen=True)
class State:
    """What all decisions together say.

    Attributes
    ----------
    labels : dict {key: label}
    left_out : frozenset of str
        Keys.
    names : dict {anchors: name}
        Names of clusters, each by the keys of some images in it; the one given last comes last.
    merges : tuple of frozenset of anchors
        Of clusters that are one, the keys of some images in each.
    different : tuple of (frozenset of str, frozenset of str)
        Keys of images of which none in the first set is a duplicate of one in the second.
    best : tuple of str
        Keys of images to keep rather than their duplicates, the one chosen last at the end.
    undo, redo : str or None
        What would be undone or redone, in words.
    revision : int
        Number of lines.
    """

    labels: dict[str, str]
    left_out: frozenset[str]
    names: dict[Anchors, str]
    merges: tuple[frozenset[Anchors], ...]
    different: tuple[tuple[frozenset[str], frozenset[str]], ...]
    best: tuple[str, ...]
    undo: str | None
    redo: str | None
    revision: int


class Decisions:
    """The decisions of an atlas; safe to use from several threads and processes.

    Parameters
    ----------
    folder : path
        Of the atlas.
    address : str
        Where the atlas is, if its folder is only a cache: then nothing can be decided.
    """

    def __init__(self, folder: str | Path, address: str = "") -> None:
        self.folder, self.address = Path(folder), address
        self._lock = RLock()
        self._size, self._lines = 0, 0
        self._done: list[Decision] = []
        self._undone: list[Decision] = []
        self._state: State | None = None

    @property
    def state(self) -> State:
        """What all decisions together say.

        Raises
        ------
        ArtifactError
            If the file is damaged.
        """
        with self._lock:
            self._read()
            if self._state is None:
                self._state = _state_of(self._done, self._undone, self._lines)
            return self._state

    def label(self, keys: Sequence[str], label: str | None) -> State:
        """Give images a label, or take it from them (None)."""
        return self._add(Decision(kind="label", keys=list(keys), value=(label or "").strip() or None))

    def label_each(self, labels: Mapping[str, str]) -> State:
        """Give images a label each, in one decision.

        Parameters
        ----------
        labels : mapping {key: label}

        Raises
        ------
        InputError
            If there are none, or a label is empty.
        """
        values = [label.strip() for label in labels.values()]
        if not values or not all(values):
            raise InputError(f"Give at least one image a label that is not empty. Got {shown(dict(labels))}.")
        return self._add(Decision(kind="label", keys=list(labels), values=values))

    def leave_out(self, keys: Sequence[str], value: bool = True) -> State:
        """Mark images to be left out, or not."""
        return self._add(Decision(kind="leave_out", keys=list(keys), value=value))

    def name_cluster(self, key: str | Sequence[str], name: str) -> State:
        """Name the cluster that an image, or most of some, is in; "" takes away the names given by these images."""
        return self._add(Decision(kind="name", keys=[key] if isinstance(key, str) else list(key), value=name.strip()))

    def merge_clusters(self, clusters: Sequence[str | Sequence[str]]) -> State:
        """Take clusters as one, of which each is known by the key of an image, or by those of some.

        Raises
        ------
        InputError
            If there are fewer than two.
        """
        anchors = {(one,) if isinstance(one, str) else tuple(one): None for one in clusters}
        if len(anchors) < 2:
            raise InputError("Give an image of each of at least two clusters to merge.")
        numbered = [(key, str(number)) for number, keys in enumerate(anchors) for key in keys]
        keys, values = (list(part) for part in zip(*numbered, strict=True))
        return self._add(Decision(kind="merge", keys=keys, values=values, value=True))

    def split_cluster(self, keys: Sequence[str]) -> State:
        """Take back all merges of a cluster that is known by these images.

        Raises
        ------
        InputError
            If there is no such merge.
        """
        if not any(_are_among(merge, keys) for merge in self.state.merges):
            raise InputError("This cluster is not a merged one, so it cannot be split.")
        return self._add(Decision(kind="merge", keys=list(keys), value=False))

    def not_duplicates(self, keys: Sequence[str], others: Sequence[str] = ()) -> State:
        """Take images for no duplicates of some others; without others, of each other.

        Raises
        ------
        InputError
            If there is no pair of images.
        """
        if not keys or len({*keys, *others}) < 2:
            raise InputError("Give at least two images that are no duplicates of each other.")
        return self._add(Decision(kind="different", keys=list(keys), others=list(others), value=True))

    def maybe_duplicates(self, keys: Sequence[str]) -> State:
        """Forget what `not_duplicates` said of these images.

        Raises
        ------
        InputError
            If it said nothing of them.
        """
        if not any(set(keys) & (one | other) for one, other in self.state.different):
            raise InputError("None of these images is marked as no duplicate.")
        return self._add(Decision(kind="different", keys=list(keys), value=False))

    def best_duplicate(self, key: str) -> State:
        """Keep an image rather than its duplicates."""
        return self._add(Decision(kind="best", keys=[key]))

    def moved_to_trash(self, keys: Sequence[str], others: Sequence[str], plan: str) -> State:
        """Note that files were moved by a plan (its digest), and which image stays for each."""
        return self._add(Decision(kind="trash", keys=list(keys), others=list(others), value=plan))

    @property
    def last(self) -> Decision | None:
        """The decision that `undo` takes back."""
        return self._end(self._done)

    @property
    def last_undone(self) -> Decision | None:
        """The decision that `redo` makes again."""
        return self._end(self._undone)

    def _end(self, decisions: list[Decision]) -> Decision | None:
        with self._lock:
            self._read()
            return decisions[-1] if decisions else None

    def undo(self) -> State:
        """Take the last decision back; `Atlas.undo` moves files back as well.

        Raises
        ------
        InputError
            If there is none.
        """
        return self._add(Decision(kind="undo"))

    def redo(self) -> State:
        """Decide again what was taken back last, if nothing was decided since; see `Atlas.redo`.

        Raises
        ------
        InputError
            If there is nothing.
        """
        return self._add(Decision(kind="redo"))

    def refuse_at_address(self) -> None:
        """Refuse to decide about an atlas at an address.

        Raises
        ------
        InputError
        """
        if self.address:
            raise InputError(
                f"'{self.address}' is only read, so nothing can be decided there; copy the atlas into a folder (as by: "
                f"aws s3 cp --recursive {self.address} {self.folder.name}), and open that."
            )

    def _add(self, decision: Decision) -> State:
        self.refuse_at_address()
        line = decision.model_copy(update={"time": round(time.time(), 3)})
        path = within(self.folder, NAME, link=True)
        with self._lock, locked(self.folder / LOCK, path, wait=PATIENCE):
            self._read()
            self._apply(line)  # raises where there is nothing to undo, before anything is written
            if path.exists() and path.stat().st_size > self._size:
                os.truncate(path, self._size)  # what a killed process has written in part
            content = line.model_dump_json(exclude_defaults=True).encode() + b"\n"
            append(path, content)
            flush(self.folder)
            self._size += len(content)
            self._lines += 1
            return self.state

    def _read(self) -> None:
        """Take in the lines that were added since."""
        path = within(self.folder, NAME, link=True)
        try:
            with open_regular(path) as file:
                if os.fstat(file.fileno()).st_size > MOST_BYTES:
                    raise ArtifactError(f"'{path}' is larger than any file of decisions; move it away.")
                file.seek(self._size)
                content = file.read(MOST_BYTES)
        except FileNotFoundError:
            return
        whole = content.rpartition(b"\n")[0]
        for line in whole.split(b"\n") if whole else ():
            self._lines += 1
            self._size += len(line) + 1
            try:
                self._apply(Decision.model_validate_json(line))
            except (ValidationError, InputError) as error:
                raise ArtifactError(
                    f"Line {self._lines} of '{path}' is damaged ({_first(error)}); correct it, or move the file away."
                ) from None

    def _apply(self, decision: Decision) -> None:
        self._state = None
        if decision.values and (decision.kind not in ("label", "merge") or len(decision.values) != len(decision.keys)):
            raise InputError("values are labels, one for each key")
        if decision.kind == "trash" and len(decision.others) != len(decision.keys):
            raise InputError("others are the images that stay, one for each key")
        if decision.kind == "undo":
            if not self._done:
                raise InputError("There is nothing to undo.")
            self._undone.append(self._done.pop())
        elif decision.kind == "redo":
            if not self._undone:
                raise InputError("There is nothing to redo.")
            self._done.append(self._undone.pop())
        else:
            self._done.append(decision)
            self._undone.clear()


def _state_of(done: list[Decision], undone: list[Decision], revision: int) -> State:
    labels: dict[str, str] = {}
    left_out: set[str] = set()
    names: dict[Anchors, str] = {}
    merges: list[frozenset[Anchors]] = []
    different: list[tuple[frozenset[str], frozenset[str]]] = []
    best: dict[str, None] = {}
    for decision in done:
        if decision.kind == "leave_out":
            (left_out.update if decision.value else left_out.difference_update)(decision.keys)
            continue
        if decision.kind == "merge":
            merges = _merged(merges, decision)
            continue
        if decision.kind == "name":
            anchors = tuple(decision.keys)
            names.pop(anchors, None)
            if decision.value:
                names[anchors] = str(decision.value)
            else:
                names = {known: name for known, name in names.items() if not _are_among([known], anchors)}
            continue
        if decision.kind == "different":
            keys = frozenset(decision.keys)
            if decision.value:
                different.append((keys, frozenset(decision.others) or keys))
            else:
                left = [(one - keys, other - keys) for one, other in different]
                different = [pair for pair in left if all(pair)]
            continue
        if decision.kind in ("best", "trash"):
            for key in decision.keys if decision.kind == "best" else ():
                best.pop(key, None)
                best[key] = None
            continue
        values: Sequence[str | bool | None] = decision.values or [decision.value] * len(decision.keys)
        for key, value in zip(decision.keys, values, strict=True):
            labels.pop(key, None)
            if value:
                labels[key] = str(value)
    last, next_ = (part[-1].words() if part else None for part in (done, undone))
    return State(
        labels, frozenset(left_out), names, tuple(merges), tuple(different), tuple(best), last, next_, revision
    )


def _merged(merges: list[frozenset[Anchors]], decision: Decision) -> list[frozenset[Anchors]]:
    """The merges after a decision to merge clusters, or to split one."""
    if not decision.value:
        return [merge for merge in merges if not _are_among(merge, decision.keys)]
    anchors: dict[str, list[str]] = {}
    for key, value in zip(decision.keys, decision.values or decision.keys, strict=True):
        anchors.setdefault(value, []).append(key)
    new = frozenset(tuple(keys) for keys in anchors.values())
    joined = new.union(*(merge for merge in merges if merge & new))
    return [merge for merge in merges if not merge & new] + [joined]


def _are_among(merge: Iterable[Anchors], keys: Iterable[str]) -> bool:
    """Whether all anchors of a cluster are among some keys."""
    known = set(keys)
    return any(known.issuperset(anchors) for anchors in merge)


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors(include_url=False, include_input=False)[0]["msg"])
    return str(error)
