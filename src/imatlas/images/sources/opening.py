"""Opening a source: a folder, a pattern, files, archives, tables, an address, arrays, or a dataset object.

Every source is a list of items: a key each (relative to the source, with forward slashes), a stamp that changes when
the content does, and a way to read one. Nothing is decoded here and archives are never unpacked by their own names.
"""

from __future__ import annotations

import glob
import importlib
import os
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from imatlas.arguments import article, is_address, path_of
from imatlas.errors import DecodeError, InputError, InputTypeError, SourceError
from imatlas.images import memory_budget
from imatlas.images.formats.sniff import recognized, sniff
from imatlas.images.sources.addresses import checked_address, expanded_paths
from imatlas.images.sources.arrays import ArraySource, open_numpy
from imatlas.images.sources.arrow import ArrowColumn
from imatlas.images.sources.base import Source, reason_of
from imatlas.images.sources.datasets import DatasetSource
from imatlas.images.sources.files import FileSource
from imatlas.images.sources.keyed import KeyedSource
from imatlas.images.sources.lance_tables import LanceSource, is_lance
from imatlas.images.sources.own_output import NOT_A_SOURCE, images_inside, own_export, own_folder
from imatlas.images.sources.remote import RemoteSource, open_addresses
from imatlas.images.sources.shards import (
    DAMAGED,
    Shard,
    ShardSource,
    Shelf,
    is_container,
    is_shard_name,
    is_table,
    local_archive,
    several_shards,
    shards_of,
)
from imatlas.images.sources.stacks import with_stacks
from imatlas.images.sources.user_input import as_items, is_stream, is_tensor

_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
MODELS_NEEDED = {b"\x89IMC\r\n": "imatlas.tasks.coded_source:CodedSource"}
"""Sources that models read, and so are built upon this: the first bytes of the file, and the class."""
_ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def open_source(source: Any, field: str | int | None = None) -> Source:
    """The source for any user input; `field` names the column of a table or the field of a dataset's items.

    Raises
    ------
    SourceError
        If a path does not exist or contains no files.
    InputTypeError
        If images cannot be read from the object.
    """
    if isinstance(source, FileSource | ShardSource | KeyedSource | RemoteSource | Shard | LanceSource):
        return source
    name = None if field is None else str(field)
    memory_budget.budget()  # raises for a wrong setting before anything is read
    if isinstance(source, str) and is_address(source):
        return open_at([source], name)
    if isinstance(source, str | os.PathLike):
        opened = _open_path(os.fsdecode(source), name)
        if name is not None and not is_table(opened) and not _holds_named(opened):
            raise _no_columns(opened.name, name)
        return opened
    source = as_items(source, field)
    if isinstance(source, np.ndarray) or is_tensor(source):
        return ArraySource(source)
    if isinstance(source, Sequence) and source and all(isinstance(s, str) and is_address(s) for s in source):
        return open_at(source, name)
    if isinstance(source, Sequence) and source and all(isinstance(s, str | os.PathLike) for s in source):
        return _as_they_are(FileSource.from_list([path_of(os.fsdecode(s)) for s in source]), name)
    if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return DatasetSource(source, name)
    if is_stream(source):
        return DatasetSource(list(source), name)  # no random access, so it is held in memory
    if hasattr(source, "__iter__"):
        raise InputTypeError(
            f"Images cannot be read from {article(type(source).__name__)}, which has no length; give its items as a "
            "list: list(source)."
        )
    raise InputTypeError(
        f"Images cannot be read from {article(type(source).__name__)}; give a folder, a file, a list of files, an "
        "array or a dataset with a length."
    )


def open_at(addresses: Sequence[str], field: str | None = None) -> Source:
    """The images at addresses; those of the protocol file:// are files on this machine."""
    paths = [checked_address(address) for address in addresses]
    if any(map(is_address, paths)):
        return open_addresses(addresses, field, open_file)
    return open_source(paths[0] if len(paths) == 1 else paths, field)


def open_file(path: Path, field: str | None) -> Source:
    """A file on this machine, by its content."""
    return _open_path(str(path), field)


def open_several(sources: Sequence[str], field: str | None = None) -> Source:
    """The files of several folders, patterns and files, in this order; output folders of imatlas are skipped.

    Raises
    ------
    SourceError
        If one of them does not exist or contains no files, or all are output folders of imatlas.
    InputError
        If an archive, a table or an array is among other sources, or a table is repeated.
    """
    if all(map(is_address, sources)):
        return open_at(sources, field)
    shelf = Shelf()
    found: list[FileSource] = []
    tables: list[tuple[Path, Source]] = []
    skipped: list[tuple[str, str]] = []
    paths = [path_of(text) for text in sources]
    beside = Counter(path.parent for path in paths)
    known: set[str] = set()
    for place, (text, path) in enumerate(zip(sources, paths, strict=True)):
        what = ""
        if os.path.isdir(path):  # a shell's pattern also matches folders next to the images
            what = own_folder(path) or (own_export(path) if beside[path.parent] > 1 else "")
        if what:
            skipped.append((f"{text.rstrip(os.sep)}/", NOT_A_SOURCE.format(what)))
            continue
        is_shard = path.is_file() and is_shard_name(text)
        try:
            source: Source = local_archive(path, shelf) if is_shard else _open_path(text, field)
        except DecodeError as error:
            raise SourceError(f"{error}") from error
        if is_container(source) and len(tables) + len(skipped) == place:
            real = os.path.realpath(path)
            if real in known:
                raise InputError(f"The container '{text}' is given more than once; give each one once.")
            known.add(real)
            tables.append((path, source))
            continue
        if tables or not isinstance(source, FileSource):
            container = tables[0][0] if tables and isinstance(source, FileSource) else text
            raise InputError(
                f"'{container}' is an archive, a table or an array of images, which cannot be combined with other "
                "sources; give it alone, or unpack it."
            )
        found.append(source)
    if tables:
        return several_shards(tables)
    if field is not None:
        raise _no_columns(f"{len(sources)} sources", field)
    if not found:
        raise SourceError(f"'{sources[0]}' and all others are {what}; give folders that hold images.")
    return with_stacks(FileSource.from_several(found, skipped))


def _as_they_are(found: FileSource, field: str | None) -> Source:
    """The files, or the rows of those that are tables or stacks of images."""
    source = shards_of(found, lambda path: _open_path(str(path), field))
    return with_stacks(found) if source is found else source


def _holds_named(source: Source) -> bool:
    """Whether a source is a file of named arrays."""
    return isinstance(source, ArraySource) and source.name.lower().endswith(".npz")


def _no_columns(name: str, field: str) -> InputError:
    return InputError(f"'{name}' has no columns, so 'field' cannot be '{field}'; omit 'field' (--field).")


def _open_path(text: str, field: str | None = None) -> Source:
    path = path_of(text)
    try:
        is_folder = path.is_dir()
        exists = is_folder or path.exists()
    except OSError as error:
        raise SourceError(f"'{text}' cannot be accessed ({reason_of(error)}); check its permissions.") from error
    if is_folder and is_lance(path):
        return LanceSource(str(path), field)
    if is_folder:
        what = own_folder(str(path))
        if what:
            raise SourceError(f"'{text}' is {what}, not a folder of images; give the folder that contains the images.")
        return _as_they_are(FileSource.from_folder(images_inside(path)), field)
    if not exists:
        if (paths := expanded_paths(text)) is not None:
            return _as_they_are(FileSource.from_list(paths), field)
        if glob.has_magic(text):
            return _as_they_are(FileSource.from_pattern(os.path.expanduser(text)), field)
        raise SourceError(f"There is no file or folder '{text}'; give a path that exists.")
    with _opened(path) as file:
        head = file.read(512)
    try:
        return _open_file(path, head, field)
    except DAMAGED as error:
        if isinstance(error, SourceError | InputError):
            raise
        raise SourceError(f"'{text}' cannot be opened ({reason_of(error)}); is the file complete?") from error


def _open_file(path: Path, head: bytes, field: str | None) -> Source:
    """A file by its first bytes; by its name only if these are inconclusive."""
    from imatlas.images.sources.archives import TarSource, ZipSource
    from imatlas.images.sources.parquet import ParquetSource

    name = path.name.lower()
    if head.startswith(b"\x93NUMPY"):
        return open_numpy(path)
    if head.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        return open_numpy(path, field) if names and all(n.endswith(".npy") for n in names) else ZipSource(path)
    if head.startswith(b"PAR1"):
        return ParquetSource(path, field)
    if head[257:262] == b"ustar" or head.startswith(_PACKED):
        return TarSource(path)
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")) or name.endswith(".arrow"):
        column = DatasetSource(ArrowColumn(path, field))
        column.name, column.root = str(path), path
        return column
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        raise SourceError(f"'{path}' is compressed with Zstandard, which is not supported; unpack it first (zstd -d).")
    for magic, reader in MODELS_NEEDED.items():
        if head.startswith(magic):
            module, _, name = reader.partition(":")
            opened: Source = getattr(importlib.import_module(module), name)(path)
            return opened
    what = recognized(head)
    if sniff(head) is not None or (what and what.startswith("a pointer")):
        return FileSource.from_list([path])
    if name.endswith((".npy", ".npz")):
        return open_numpy(path)
    if name.endswith((".parquet", ".pq")):
        return ParquetSource(path, field)
    if name.endswith(".zip"):
        return ZipSource(path)
    if name.endswith(_ARCHIVE_SUFFIXES):
        return TarSource(path)
    return FileSource.from_list([path])


def _opened(path: Path) -> IO[bytes]:
    if not path.is_file():
        raise SourceError(f"'{path}' is neither a file nor a folder; give a path to images.")
    try:
        return open(path, "rb")
    except OSError as error:
        raise SourceError(f"'{path}' cannot be opened ({reason_of(error)}); check its permissions.") from error
