"""What was made of an atlas, by recipe, so that any of it can be made again.

    creations.jsonl     one line of JSON per creation, and per image of one that was kept, or no longer is

Images are not stored, only small pictures of them. A line that is damaged, or was written in part, is passed over. When
the file has grown to `MOST_BYTES`, it is written anew without the oldest half; kept creations stay.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from imatlas.atlas.recipes import Recipe
from imatlas.errors import ArtifactError, ImatlasError
from imatlas.system.atomic_io import append, flush, within, write_file
from imatlas.system.inventory import open_regular
from imatlas.system.locks import locked

NAME, LOCK = "creations.jsonl", ".creations.lock"
MOST_BYTES = 2**23
PATIENCE = 3.0
"""Seconds to wait for another process that writes."""

_Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
_Picture = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$", max_length=2**16)]
"""A small WebP in base 64."""


class Creation(BaseModel):
    """A line of the file: images that were made.

    Attributes
    ----------
    id : str
    recipe : Recipe
    generator : str
        As `imatlas.atlas.recipes.generator_of`.
    pictures : list of str
        Some of the images in small, as WebP in base 64.
    time : float
        Seconds since 1970.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    id: _Id
    recipe: Recipe
    generator: Annotated[str, Field(max_length=64)]
    pictures: Annotated[list[_Picture], Field(max_length=8)] = []
    time: float = 0.0


class Keeping(BaseModel):
    """A line of the file: an image of a creation is kept, or no longer."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    id: _Id
    image: Annotated[int, Field(ge=0, lt=2**16)]
    kept: bool
    picture: _Picture = ""


_LINE: TypeAdapter[Creation | Keeping] = TypeAdapter(Creation | Keeping)


@dataclass
class Remembered:
    """A creation, and those of its images that are kept: number and small picture."""

    creation: Creation
    kept: dict[int, str] = field(default_factory=dict)


class Creations:
    """The creations of an atlas; safe to use from several threads and processes.

    Parameters
    ----------
    folder : path
        Of the atlas.
    read_only : bool
        Write nothing: what is added is known to this object only.
    """

    def __init__(self, folder: str | Path, *, read_only: bool = False) -> None:
        self.folder, self.read_only = Path(folder), read_only
        self._lock = RLock()
        self._unwritten: list[Creation | Keeping] = []

    @property
    def path(self) -> Path:
        """The file."""
        return within(self.folder, NAME, link=True)

    def all(self) -> dict[str, Remembered]:
        """All creations by their id, oldest first.

        Raises
        ------
        ArtifactError
            If the file is none, such as a link.
        """
        with self._lock:
            return _remembered([*self._written(), *self._unwritten])

    def add(self, line: Creation | Keeping) -> str:
        """Add a creation, or whether an image of one is kept.

        Returns
        -------
        str
            "", or why it could not be written; it is then known until this process ends.
        """
        if isinstance(line, Creation) and not line.time:
            line = line.model_copy(update={"time": round(time.time(), 3)})
        with self._lock:
            try:
                if self.read_only:
                    raise ArtifactError("The atlas is opened for reading only.")
                self._write(line)
            except (ImatlasError, OSError) as error:
                self._unwritten.append(line)
                return str(error)
            return ""

    def _write(self, line: Creation | Keeping) -> None:
        path, content = self.path, line.model_dump_json().encode() + b"\n"
        with locked(self.folder / LOCK, path, wait=PATIENCE):
            try:
                with open_regular(path) as file:
                    size = os.fstat(file.fileno()).st_size
                    file.seek(max(0, size - 1))
                    whole = file.read(1) in (b"", b"\n")
            except FileNotFoundError:
                size, whole = 0, True
            if size + len(content) > MOST_BYTES:
                write_file(path, self._shortened(line))
            else:
                append(path, content if whole else b"\n" + content)  # part of a line, by a killed process, ends there
            flush(self.folder)

    def _shortened(self, line: Creation | Keeping) -> bytes:
        """The content that a file that has become too large goes on with.

        Raises
        ------
        ArtifactError
            If what is kept alone is too large.
        """
        found = _remembered([*self._written(), line])
        sizes = [len(one.creation.model_dump_json()) for one in found.values()]
        lines: list[Creation | Keeping] = []
        for i, (id, one) in enumerate(found.items()):
            if one.kept or sum(sizes[i:]) < MOST_BYTES // 2:
                lines.append(one.creation)
                lines += [Keeping(id=id, image=n, kept=True, picture=picture) for n, picture in one.kept.items()]
        content = b"".join(one.model_dump_json().encode() + b"\n" for one in lines)
        if len(content) > MOST_BYTES:
            raise ArtifactError(f"'{self.path}' is full of images that are kept; keep some no longer.")
        return content

    def _written(self) -> list[Creation | Keeping]:
        """The lines of the file that can be read."""
        try:
            with open_regular(self.path) as file:
                content = file.read(2 * MOST_BYTES)
        except FileNotFoundError:
            return []
        lines = []
        for line in content.split(b"\n"):
            try:
                lines.append(_LINE.validate_json(line))
            except ValidationError:
                continue
        return lines


def _remembered(lines: list[Creation | Keeping]) -> dict[str, Remembered]:
    found: dict[str, Remembered] = {}
    for line in lines:
        if isinstance(line, Creation):
            found[line.id] = Remembered(line)
        elif line.id in found and line.kept:
            found[line.id].kept[line.image] = line.picture
        elif line.id in found:
            found[line.id].kept.pop(line.image, None)
    return found
