"""Several containers as one source: tables ("train-00000-of-00002.parquet") and archives ("shard-000000.tar")."""

from __future__ import annotations

import itertools
import lzma
import os
import tarfile
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.errors import DecodeError, SourceError
from imatlas.images.formats.sniff import has_image_name
from imatlas.images.keys import key_of
from imatlas.images.sources.base import Source, part_of, reason_of
from imatlas.images.sources.files import FileSource
from imatlas.images.sources.origin import Origin, located

TABLES = (".parquet", ".pq", ".arrow", ".ipc", ".feather")
"""Suffixes of files that may be tables of images."""

SHARDS = (".tar", ".tar.gz", ".tgz")
"""Suffixes of archives that form one set, as those of WebDataset."""

Opener = Callable[[Path], Source]

Opened = tuple[Source, Path | None]
"""An open container, and the scratch file that is deleted when it is closed."""


class Shelf:
    """The open containers of a set: two, and more only while they are small together."""

    MOST = 64
    SMALL = 2**30

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: OrderedDict[int, tuple[Source, Path | None, int]] = OrderedDict()
        self._numbers = itertools.count()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    def __del__(self) -> None:
        while self._open:
            self._close_one()

    def new_number(self) -> int:
        """A number for a container that is put on this shelf."""
        return next(self._numbers)

    @contextmanager
    def lent(self, shard: Shard) -> Iterator[Source]:
        """A container for the time of one reading; one at a time is opened or read."""
        with self._lock:
            if shard.number not in self._open:
                while len(self._open) >= 2 and (
                    len(self._open) >= self.MOST
                    or sum(size for *_, size in self._open.values()) + shard.size > self.SMALL
                ):
                    self._close_one()
                self._open[shard.number] = (*shard.open(), shard.size)
            self._open.move_to_end(shard.number)
            yield self._open[shard.number][0]

    def _close_one(self) -> None:
        """Close the container that was not used for longest."""
        _, (source, scratch, _) = self._open.popitem(last=False)
        del source  # its file is closed with it
        if scratch is not None:
            with suppress(OSError):
                scratch.unlink()


class Shard:
    """One container of a set, which is listed at once and then open only while it is on the shelf.

    Parameters
    ----------
    name : str
        Its name in messages.
    open_ : callable
        Opens it, each time with the same content.
    shelf : Shelf
    size : int
        Of its file in bytes.
    stamp : (int, int), optional
        Of the file, for containers whose items have no lasting stamps of their own.
    """

    def __init__(
        self, name: str, open_: Callable[[], Opened], shelf: Shelf, size: int, stamp: tuple[int, int] | None = None
    ) -> None:
        from imatlas.images.sources.archives import TarSource, ZipSource

        self.name, self.open, self.size, self._shelf = name, open_, size, shelf
        self.root: Path | None = None
        self._place, self.number = name, shelf.new_number()
        with shelf.lent(self) as source:
            self.keys = source.keys
            self.explicit = source.explicit
            self.skipped = list(source.skipped)
            self.is_table = not isinstance(source, TarSource | ZipSource)
            self._stamps = None if self.is_table else source.stamps()
            undated = isinstance(source, TarSource) and not source.dated
        if (self.is_table or undated) and stamp is not None:
            self._stamps = [stamp] * len(self.keys)

    @property
    def origin(self) -> Origin:
        """The container."""
        return Origin(self._place)

    def stamps(self) -> list[tuple[int, int]] | None:
        """Those of its items, or that of the file for each."""
        return self._stamps

    def head(self, index: int) -> bytes:
        """The first bytes of an item."""
        with self._shelf.lent(self) as source:
            return source.head(index)

    def packed(self, index: int) -> int | None:
        """The bytes that an item takes in the container."""
        with self._shelf.lent(self) as source:
            return source.packed(index)

    def read(self, index: int) -> Any:
        """An item."""
        with self._shelf.lent(self) as source:
            return source.read(index)


class ShardSource:
    """The items of several containers, one after the other; the keys are "file name/row" or "file name/member".

    Parameters
    ----------
    place : str
        The folder that the file names are relative to.
    parts : list of (str, Source)
        The names and at least one container.
    name : str
        Their name in messages.
    """

    root: Path | None = None  # the keys are not files of a folder

    def __init__(self, place: str, parts: Sequence[tuple[str, Source]], name: str) -> None:
        self.name, self._place = name, place
        self.skipped = [line for _, part in parts for line in part.skipped]
        self.explicit = all(part.explicit for _, part in parts)
        self.holds_tables = all(is_table(part) for _, part in parts)
        self._parts = [part for _, part in parts]
        kind = "table" if self.holds_tables else "archive"
        self._files = f"{len(parts)} {kind}{'s' if len(parts) > 1 else ''}"
        self._ends = np.cumsum([len(part.keys) for part in self._parts])
        stems = [stem_of(name) for name, _ in parts]
        chosen = [s if stems.count(s) == 1 else name for s, (name, _) in zip(stems, parts, strict=True)]
        self.keys = [f"{key_of(n)}/{key}" for n, part in zip(chosen, self._parts, strict=True) for key in part.keys]

    @property
    def origin(self) -> Origin:
        """The folder of the containers."""
        return Origin(self._place, self._files)

    @property
    def sample(self) -> list[int]:
        """Items that show what the set is like: those of the first and the last container that is not always open."""
        if len(self._parts) < 3 or not any(isinstance(part, Shard) for part in self._parts):
            return list(range(len(self.keys)))
        return [*range(int(self._ends[0])), *range(int(self._ends[-2]), int(self._ends[-1]))]

    def _at(self, index: int) -> tuple[Source, int]:
        number, place = part_of(self._ends, index)
        return self._parts[number], place

    def stamps(self) -> list[tuple[int, int]] | None:
        """Those of the containers; None if one of them has none."""
        found: list[tuple[int, int]] = []
        for part in self._parts:
            stamps = part.stamps()
            if stamps is None:
                return None
            found += stamps
        return found

    def head(self, index: int) -> bytes:
        """The first bytes of an item."""
        part, row = self._at(index)
        return part.head(row)

    def packed(self, index: int) -> int | None:
        """The bytes that an item takes in its file."""
        part, row = self._at(index)
        return part.packed(row)

    def read(self, index: int) -> Any:
        """The picture of an item."""
        part, row = self._at(index)
        return part.read(row)


def is_table(source: Source) -> bool:
    """Whether a source is one or several tables."""
    from imatlas.images.sources.datasets import DatasetSource
    from imatlas.images.sources.lance_tables import LanceSource
    from imatlas.images.sources.parquet import ParquetSource

    if isinstance(source, ShardSource):
        return source.holds_tables
    if isinstance(source, Shard):
        return source.is_table
    return isinstance(source, ParquetSource | LanceSource) or (
        isinstance(source, DatasetSource) and source.root is not None
    )


def is_container(source: Source) -> bool:
    """Whether a source is one that can be a part of a `ShardSource`."""
    return isinstance(source, Shard | ShardSource) or is_table(source) or is_shard_name(source.name)


def is_shard_name(name: str) -> bool:
    """Whether a file has the suffix of an archive that may be a shard, and is not hidden."""
    return name.lower().endswith(SHARDS) and not os.path.basename(name).startswith(".")


def is_table_name(name: str) -> bool:
    """Whether a file has the suffix of a table, and is not a cache file of `datasets`."""
    base = os.path.basename(name)
    return base.lower().endswith(TABLES) and not base.startswith((".", "cache-"))


def stem_of(name: str) -> str:
    """The name of a container without its suffix."""
    ending = next((ending for ending in SHARDS if name.lower().endswith(ending)), "")
    return name[: -len(ending)] if ending else os.path.splitext(name)[0]


DAMAGED = (OSError, EOFError, ValueError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError)
"""Errors of a container that is damaged or cannot be read; they include `SourceError`."""


def _open_archive(path: Path) -> Opened:
    from imatlas.images.sources.archives import TarSource

    try:
        return TarSource(path), None
    except SourceError as error:
        raise DecodeError(str(error).rstrip(".")) from error
    except DAMAGED as error:
        raise DecodeError(f"'{path}' cannot be opened ({reason_of(error)}); is the file complete?") from error


def local_archive(path: Path, shelf: Shelf) -> Shard:
    """A TAR on this machine as one of many, which are not all kept open; raises DecodeError if it is damaged."""
    return Shard(str(path), partial(_open_archive, path), shelf, os.path.getsize(path))


def shards_of(found: FileSource, open_table: Opener) -> Source:
    """The files; or, if there are tables or TARs and no pictures among them, these as one source.

    Raises
    ------
    SourceError
        If there are only such containers and none of them contains images, with the reason for the first.
    """
    if any(has_image_name(key) for key in found.keys):
        return found
    named = [(found.path(i), key) for i, key in enumerate(found.keys) if is_table_name(key) or is_shard_name(key)]
    parts: list[tuple[str, Source]] = []
    first: SourceError | None = None
    shelf = Shelf()
    for path, key in named:
        try:
            part = local_archive(path, shelf) if is_shard_name(key) else open_table(path)
        except (SourceError, DecodeError) as error:
            first = first or SourceError(str(error))
            found.skipped.append((key, str(error).rstrip(".?")))
            continue
        if is_container(part):
            parts.append((os.path.relpath(path, found.root), part))
    if not parts:
        if first is not None and len(named) == len(found.keys):
            raise first
        return found
    source = ShardSource(located(found.root or ""), parts, found.name)
    source.skipped += found.skipped
    return source


def several_shards(parts: Sequence[tuple[Path, Source]]) -> ShardSource:
    """Containers given one by one, in this order."""
    root = os.path.commonpath([os.path.dirname(located(path)) for path, _ in parts])
    named = [(os.path.relpath(located(path), root), part) for path, part in parts]
    what = "tables" if all(is_table(part) for _, part in parts) else "archives"
    return ShardSource(root, named, f"{len(parts)} {what} in '{root}'")


def container_names(key: str) -> Iterator[tuple[str, str]]:
    """The names that the container of a key of a `ShardSource` may have, each with the key in it."""
    parts = key.split("/")
    for n in range(1, len(parts)):
        for ending in ("", *TABLES, *SHARDS):
            yield "/".join(parts[:n]) + ending, "/".join(parts[n:])
