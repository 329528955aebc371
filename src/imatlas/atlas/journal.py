"""The journal of a writer: what is being written into an atlas, named on the disk before it is made.

    .writing.jsonl        one line of JSON for each name, gone when the run has ended
    .writing-3f2a…/       a folder of this run's own, in which files and models are written before they are moved to
                          their names

A run that is killed leaves the journal behind, so that the next writer knows what to delete: what a line names, if
runs write files of such names. A name that only looks like one of ours is a user's, and stays.
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
from imatlas.system.atomic_io import flush, flush_tree, is_link, open_append, remove_listed, within
from imatlas.system.inventory import MAX_JSON, Inventory, Old, open_regular, parse_json

NAME = ".writing.jsonl"

OWN_FOLDER = re.compile(r"\.writing-[0-9a-f]{16}")
MODEL = re.compile(r"(?:encoder|autoencoder|map|clusters|layout|generator)-\d{4}")
MODEL_FILE = re.compile(r"model\.json|weights\.safetensors")
TABLE = re.compile(r"images(-\d{4})?\.lance")


class Journal:
    """What one run writes into an atlas.

    Parameters
    ----------
    folder : path
        Of the atlas, whose lock is held.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._own: Path | None = None
        self._tables: set[str] = set()

    def note(self, **entry: Any) -> None:
        """Put one line on the disk."""
        with open_append(self.folder / NAME) as file:
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        flush(self.folder)

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """A file to write to; it takes the place of the file `name` where the block ends well."""
        aside = self._own_folder() / name
        yield aside
        flush(aside)
        os.replace(aside, self.folder / name)
        flush(self.folder)

    def save_model(self, name: str, save: Callable[[Path], Any]) -> list[str]:
        """Call `save(folder)` and move the folder to `name`; the names of the files that it wrote."""
        aside = self._own_folder() / name
        save(aside)
        files = sorted(path.name for path in aside.iterdir())
        flush_tree(aside)
        self.note(model=name, files=files)
        if os.path.lexists(self.folder / name):
            raise ArtifactError(f"'{self.folder / name}' has come into being meanwhile; run the same command again.")
        os.rename(aside, self.folder / name)
        flush(self.folder)
        return [f"{name}/{file}" for file in files]

    def writing_table(self, name: str) -> None:
        """Note that Lance will write into a table, under names of its own: what is there before is not its."""
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
        """Delete what the journal and the list `old` name and nothing in `counts` does; then the journal itself.

        Parameters
        ----------
        counts : collection of str
            Names of files that stay.
        old : collection of Old
            Files that counted once; one that has changed since is not ours any more, and stays.
        """
        names = set(Inventory(self.folder).unchanged(file for file in old if file.name not in counts))
        for entry in self._entries():
            own, model, table = (str(entry.get(kind, "")) for kind in ("own", "model", "table"))
            if OWN_FOLDER.fullmatch(own) and not is_link(self.folder / own):
                shutil.rmtree(self.folder / own, ignore_errors=True)  # made by a run of ours, under a random name
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
        """The lines that were written whole."""
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
