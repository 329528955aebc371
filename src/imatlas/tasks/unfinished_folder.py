"""The folder of a run that writes files for each image and can be killed at any moment.

    OUTPUT.unfinished/       next to the output, whose name it gets when everything is done
      segments.json          the settings, under a name that says which command wrote it; at the end also the names of
                             all files
      done.jsonl             one line per finished image: its key and stamp, its files, its rows of tables
      labels/ overlays/ …    the files
      model/                 with a model that is learned from all images, that model

The same call finds the folder and continues. Images that have changed since are done anew; files that no line names,
such as those of the image at which the run was killed, are deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from imatlas.errors import ArtifactError, DecodeError
from imatlas.images.sources.base import Source
from imatlas.system.atomic_io import (
    append,
    check_free,
    flush_tree,
    is_link,
    make_folder,
    put_in_place,
    remove_listed,
    write_file,
)
from imatlas.system.inventory import open_regular, parse_json, read_json
from imatlas.system.locks import locked
from imatlas.system.terminal import json_text

DONE, LOCK = "done.jsonl", ".lock"
MODEL = ("model/weights.safetensors", "model/model.json")
FORMAT = 2


class Done(BaseModel):
    """One finished image; commands add what their tables need.

    Attributes
    ----------
    key : str
    stamp : str
        Changes with the content of the image.
    files : list of str
        Relative to the folder.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    key: str
    stamp: str
    files: list[str]


D = TypeVar("D", bound=Done)


@dataclass(frozen=True)
class Layout(Generic[D]):
    """What a command leaves in its folder.

    Attributes
    ----------
    command : str
        Its name, for messages.
    settings : str
        Name of the file of its settings.
    done : type
        Of the line of a finished image.
    folders : str
        Pattern of the names of the folders that it writes.
    files : str
        Pattern of the names of its other files.
    """

    command: str
    settings: str
    done: type[D]
    folders: str
    files: str

    @cached_property
    def own_files(self) -> re.Pattern[str]:
        """Names of the files that the command writes; no other file is ever deleted."""
        return re.compile(
            rf"{re.escape(self.settings)}|done\.jsonl|\.lock|model/(model\.json|weights\.safetensors)|{self.files}"
            rf"|(({self.folders}|model)/)?\.[^/]+\.[0-9a-f]{{16}}\.new"
        )


class UnfinishedFolder(Generic[D]):
    """The folder in which a run writes; see the module. Use `opened`.

    Attributes
    ----------
    folder : Path
    taken_files, taken_folders : set of str
        Names of the files of finished images and of the folders around them; see `folded`.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any], layout: Layout[D]) -> None:
        self.output = output
        self.folder = unfinished(output)
        self.settings = dict(settings)
        self.layout = layout
        self.taken_files: set[str] = set()
        self.taken_folders: set[str] = set()
        self._done: dict[str, int] = {}  # key -> number of its line
        self._n_lines = 0

    @classmethod
    @contextmanager
    def opened(
        cls, output: Path, settings: Mapping[str, Any], source: Source, layout: Layout[D], *, overwrite: bool
    ) -> Iterator[UnfinishedFolder[D]]:
        """The unfinished folder of an output, locked: that of a killed run with the same settings, or a new one.

        Raises
        ------
        ArtifactError
            If it was begun with other settings and not `overwrite`, naming the differences, or holds files of others.
        AtlasBusyError
            If another process is writing it.
        """
        run = cls(output, settings, layout)
        make_folder(run.folder)
        if is_link(run.folder):
            raise ArtifactError(f"'{run.folder}' is a link, which is not followed here; move it away.")
        with locked(run.folder / LOCK, run.folder):
            try:
                run._begin(source, overwrite)
                yield run
            finally:
                if not (run.folder / layout.settings).exists():  # nothing of it is left
                    remove_listed(run.folder, [LOCK])

    def __contains__(self, key: str) -> bool:
        return key in self._done

    def __len__(self) -> int:
        return len(self._done)

    def new_name(self, title: str) -> str:
        """The start of the file names of the next image, which no other has."""
        return f"{self._n_lines + 1:05d}-{title}"

    def write(self, name: str, content: bytes) -> str:
        """Write a file atomically, and return its name."""
        write_file(self.folder / name, content)
        return name

    @property
    def model(self) -> Path | None:
        """The folder of the saved model, once there is one."""
        return self.folder / "model" if all((self.folder / name).is_file() for name in MODEL) else None

    def save_model(self, model: Any) -> None:
        """Save a fitted model."""
        with TemporaryDirectory() as aside:
            saved = model.save(Path(aside) / "model").parent
            for name in MODEL:
                self.write(name, (saved / name).read_bytes())

    def add(self, done: D) -> None:
        """Record a finished image, flushed to disk; its files are."""
        append(self.folder / DONE, done.model_dump_json().encode() + b"\n")
        self._count(done)

    def lines(self) -> Iterator[D]:
        """The finished images, one after the other, in the order in which they were finished."""
        if not (self.folder / DONE).exists():
            return
        current = set(self._done.values())
        with open_regular(self.folder / DONE) as file:
            for number, line in enumerate(file):
                if number in current:
                    yield self._parsed(line)

    def finish(self, overwrite: bool) -> None:
        """Give the folder the name of the output, with the list of its files."""
        remove_listed(self.folder, [DONE])
        files = sorted(set(_files_of(self.folder)) - {LOCK})
        self._write_settings(files=files)
        flush_tree(self.folder)
        put_in_place(self.folder, self.output, replaces=written_before(self.output, overwrite, self.layout))
        remove_listed(self.output, [LOCK])

    def discard(self) -> None:
        """Delete everything."""
        remove_listed(self.folder, [name for name in _files_of(self.folder) if name != LOCK])

    def _begin(self, source: Source, overwrite: bool) -> None:
        others = [name for name in _files_of(self.folder) if not self.layout.own_files.fullmatch(name)]
        if others:
            message = f"'{self.folder}' contains '{others[0]}', which imatlas did not write; move it away."
            raise ArtifactError(message)
        if (self.folder / self.layout.settings).exists():
            differences = _differences(read_json(self.folder / self.layout.settings), self.settings)
            if differences and not overwrite:
                raise ArtifactError(
                    f"'{self.folder}' is an unfinished run with other settings ({'; '.join(differences)}); repeat that "
                    "call to continue it, choose another name with -o, or pass --overwrite to begin anew."
                )
            if differences:
                self.discard()
        self._write_settings()
        self._resume(source)

    def _write_settings(self, **more: Any) -> None:
        values = {"format": FORMAT, "settings": self.settings, **more}
        write_file(self.folder / self.layout.settings, json_text(values).encode())

    def _resume(self, source: Source) -> None:
        """Read what is done; delete what is not."""
        items = {key: i for i, key in enumerate(source.keys)}
        stamps = stamps_of(source)
        kept, length = {self.layout.settings, LOCK, DONE}, 0
        if self.model:
            kept.update(MODEL)
        if (self.folder / DONE).exists():
            with open_regular(self.folder / DONE) as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # the run was killed while it wrote this line
                    length += len(line)
                    done = self._parsed(line)
                    i = items.get(done.key, -1)
                    if i >= 0 and done.stamp == stamp_of(stamps[i], source, i):
                        self._count(done)
                        kept.update(done.files)
                    else:
                        self._n_lines += 1
            os.truncate(self.folder / DONE, length)
        remove_listed(self.folder, [name for name in _files_of(self.folder) if name not in kept])

    def _count(self, done: D) -> None:
        self._done[done.key] = self._n_lines
        self._n_lines += 1
        for name in done.files:
            path = PurePosixPath(folded(name))
            self.taken_files.add(str(path))
            self.taken_folders.update(map(str, path.parents))

    def _parsed(self, line: bytes) -> D:
        try:
            done = self.layout.done.model_validate(parse_json(line))
            if not all(map(self.layout.own_files.fullmatch, done.files)):
                raise ValueError("a name that no run writes")
        except (ValidationError, ValueError) as error:
            message = (
                f"'{self.folder / DONE}' is damaged ({str(error).splitlines()[0]}); pass --overwrite or delete it."
            )
            raise ArtifactError(message) from None
        return done


def folded(name: str) -> str:
    """A file name as file systems compare it that know no case and one form of each character."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def unfinished(output: Path) -> Path:
    """The folder of a run whose output is not finished."""
    return output.with_name(f"{output.name}.unfinished")


def stamps_of(source: Source) -> list[str | None]:
    """What changes with the content of each item; None where only reading it would tell."""
    stamps = source.stamps()
    return [None] * len(source.keys) if stamps is None else [f"{size} {time}" for size, time in stamps]


def stamp_of(stamp: str | None, source: Source, item: int) -> str:
    """What changes with the content of an item, read if need be."""
    if stamp is not None:
        return stamp
    try:
        value = source.read(item)
    except DecodeError:
        return ""
    return hashlib.sha256(value if isinstance(value, bytes) else np.ascontiguousarray(value).tobytes()).hexdigest()


def written_before(output: Path, overwrite: bool, layout: Layout[Any]) -> list[str] | None:
    """The files of an earlier output, which may be replaced: with `overwrite`, or if there are none; else None.

    Raises
    ------
    ArtifactError
        If there is something else in its place.
    """
    if not os.path.lexists(output):
        return None
    if output.is_dir() and not is_link(output) and not any(output.iterdir()):
        return []
    if not overwrite:
        return None
    try:
        values = read_json(output / layout.settings)
    except (OSError, ArtifactError):
        values = None
    files = values.get("files") if isinstance(values, dict) else None
    own = layout.own_files
    if not isinstance(files, list) or not all(isinstance(name, str) and own.fullmatch(name) for name in files):
        raise ArtifactError(f"'{output}' is not a folder that 'imatlas {layout.command}' wrote; choose another name.")
    check_free(output, files)
    return files


def _files_of(folder: Path) -> list[str]:
    """The names of all files in a folder, and in its folders."""
    return [Path(root, name).relative_to(folder).as_posix() for root, _, names in os.walk(folder) for name in names]


def _differences(written: Any, settings: Mapping[str, Any]) -> list[str]:
    """The settings that differ, as 'level: 0.4, now 0.5'."""
    before = written.get("settings") if isinstance(written, dict) and written.get("format") == FORMAT else None
    if not isinstance(before, dict):
        return ["an unknown format"]
    now = json.loads(json_text(dict(settings)))
    names = dict.fromkeys([*before, *now])
    return [f"{name}: {before.get(name)}, now {now.get(name)}" for name in names if before.get(name) != now.get(name)]
