"""The journal of a writer: the name of everything that is about to be written into an atlas.

    .writing.jsonl        one line of JSON per name; deleted when the run ends
    .writing-3f2a…/       a folder of this run, where files and models are written before they are renamed into place

A killed run leaves its journal, so the next writer knows what to delete: what a line names, if it is a name that runs
write. Files that only resemble ours belong to the user and stay.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from imatlas.atlas.table_manifest import files_on_disk
from imatlas.errors import ArtifactError
from imatlas.system.atomic_io import append, flush, flush_tree, is_link, remove_listed, within
from imatlas.system.inventory import MAX_JSON, Inventory, Old, open_regular, parse_json

NAME = ".writing.jsonl"

OWN_FOLDER = re.compile(r"\.writing-[0-9a-f]{16}")
MODEL = re.compile(r"(?:encoder|autoencoder|map|clusters|outliers|layout|generator)-\d{4}")
MODEL_FILE = re.compile(r"model\.json|weights\.safetensors")
TABLE = re.compile(r"images(-\d{4})?\.lance")


class Journal:
    """Records what one run writes into an atlas.

    Parameters
    ----------
    folder : path
        The atlas; its write lock is held.
    committed : callable, optional
        Called after each commit, to publish it.
    """

    def __init__(self, folder: Path, committed: Callable[[], None] | None = None) -> None:
        self.folder, self._committed = folder, committed
        self._own: Path | None = None
        self._tables: set[str] = set()

    def note(self, **entry: Any) -> None:
        """Write one line, flushed to disk."""
        append(self.folder / NAME, json.dumps(entry).encode() + b"\n")
        flush(self.folder)

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """A temporary file that replaces the file `name` if the block ends without an exception."""
        aside = self._own_folder() / name
        yield aside
        flush(aside)
        os.replace(aside, self.folder / name)
        flush(self.folder)
        if name == "atlas.json" and self._committed is not None:
            self._committed()

    def save_model(self, name: str, save: Callable[[Path], Any]) -> list[str]:
        """Call `save(folder)`, rename the folder to `name`, and return the names of its files."""
        aside = self._own_folder() / name
        save(aside)
        files = sorted(path.name for path in aside.iterdir())
        flush_tree(aside)
        self.note(model=name, files=files)
        if os.path.lexists(self.folder / name):
            raise ArtifactError(f"'{self.folder / name}' appeared meanwhile; run the same command again.")
        os.rename(aside, self.folder / name)
        flush(self.folder)
        return [f"{name}/{file}" for file in files]

    def writing_table(self, name: str) -> None:
        """Record that Lance is about to write into a table, and which files were there before."""
        if name not in self._tables:
            self._tables.add(name)
            self.note(table=name, before=files_on_disk(self.folder / name))

    def _own_folder(self) -> Path:
        if self._own is None:
            name = f".writing-{secrets.token_hex(8)}"
            self.note(own=name)
            self._own = self.folder / name
            self._own.mkdir()
        return self._own

    def sweep(self, counts: Collection[str], old: Collection[Old] = ()) -> None:
        """Delete what the journal and the list `old` name, unless `counts` does; then the journal itself.

        Parameters
        ----------
        counts : collection of str
            Names of files that stay.
        old : collection of Old
            Files that counted once; those that have changed since stay.
        """
        names = set(Inventory(self.folder).unchanged(file for file in old if file.name not in counts))
        for entry in self._entries():
            own, model, table = (str(entry.get(kind, "")) for kind in ("own", "model", "table"))
            if OWN_FOLDER.fullmatch(own) and not is_link(self.folder / own):
                shutil.rmtree(self.folder / own, ignore_errors=True)  # created by a run under a random name
            if MODEL.fullmatch(model):
                names |= {f"{model}/{file}" for file in _strings(entry, "files") if MODEL_FILE.fullmatch(file)}
            if TABLE.fullmatch(table) and not is_link(self.folder / table):
                there = set(files_on_disk(self.folder / table)) - set(_strings(entry, "before"))
                names |= {f"{table}/{name}" for name in there}
        remove_listed(self.folder, sorted(names - set(counts)))
        with suppress(OSError):
            within(self.folder, NAME, link=True).unlink()
        self._own = None
        self._tables = set()

    def _entries(self) -> Iterator[dict[str, Any]]:
        """The complete lines."""
        try:
            with open_regular(self.folder / NAME) as file:
                lines = file.read(MAX_JSON).split(b"\n")
        except FileNotFoundError:
            return
        for line in lines:
            with suppress(ValueError):
                entry = parse_json(line)
                if isinstance(entry, dict):
                    yield entry


def _strings(entry: dict[str, Any], name: str) -> list[str]:
    values = entry.get(name)
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []
