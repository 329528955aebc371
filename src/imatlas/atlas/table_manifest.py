"""The files of one version of a Lance table, read from its manifest without Lance; references elsewhere are refused.

Lance follows any path in a manifest, also base paths in other folders or object stores (`s3://`). So a manifest is
checked before Lance opens it. Allowed is only what tables of an atlas consist of: data files and indices with plain
names in their own folders, and whole fragments without deletions. The format is Protocol Buffers (`protos/table.proto`
of Lance), of which only the field numbers are needed.
"""

from __future__ import annotations

import os
import re
import struct
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imatlas.errors import ArtifactError
from imatlas.system.atomic_io import within
from imatlas.system.inventory import open_regular

MAX_MANIFEST_BYTES = 256 * 2**20
"""Largest size of a manifest."""

HINT = "_versions/latest_version_hint.json"
"""File that Lance writes beside the versions, and does not read on a local disk."""

FILES = re.compile(
    r"_versions/\d{20}\.manifest|_transactions/\d{1,20}-[0-9a-f-]{36}\.txn|data/[0-9a-f-]{32,60}\.lance"
    r"|_indices/[0-9a-f-]{36}/[a-z_]{1,40}\.idx"
)
"""Names of the files in the folder of a table."""

_DATA_FILE = re.compile(r"[0-9a-f-]{32,60}\.lance")
_TRANSACTION = re.compile(r"\d{1,20}-[0-9a-f-]{36}\.txn")
_INDEX_FILE = re.compile(r"[a-z_]{1,40}\.idx")

# Allowed field numbers of each message. Refused are among others base paths (18) and branches of a manifest, deletion
# files, row ids and overlays of a fragment, and base ids of a data file (7) and of an index (9).
_MANIFEST = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 21, 23})
_FRAGMENT = frozenset({1, 2, 4})
_FILE = frozenset({1, 2, 3, 4, 5, 6})
_INDEX = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 10})
_V2_FORMAT_FLAG = 4
"""The only allowed feature flag: storage format 2."""


@dataclass(frozen=True)
class TableVersion:
    """The files of a version of a table.

    Attributes
    ----------
    fragments : list of (n_rows, dict of str to str)
        For each fragment the number of rows, and the file of each column.
    indices : list of str
        Folders of the indices.
    transaction : str
        Name of the transaction file; "" if there is none.
    """

    fragments: list[tuple[int, dict[str, str]]]
    indices: list[str]
    transaction: str

    def whole(self, rows: np.ndarray, *, at_least: int = 1) -> np.ndarray:
        """Which fragments (n_fragments,) bool have `at_least` so many rows, all of them among `rows` (n_rows,) bool."""
        sizes = np.array([n for n, _ in self.fragments])
        return np.logical_and.reduceat(rows, np.cumsum(sizes) - sizes) & (sizes >= at_least)

    def rows_of(self, fragments: np.ndarray) -> np.ndarray:
        """Which rows (n_rows,) bool are in some fragments (n_fragments,) bool."""
        return np.repeat(fragments, [n for n, _ in self.fragments])


def version_file(version: int) -> str:
    """Name of the manifest of a version; later versions sort first."""
    return f"_versions/{2**64 - 1 - version:020d}.manifest"


def parse_manifest(content: bytes) -> TableVersion:
    """Parse a manifest.

    Raises
    ------
    ValueError
        If it is damaged, or refers to anything but plain files in its own folder.
    """
    try:
        return _parsed(content)
    except (IndexError, struct.error, UnicodeDecodeError, OverflowError) as error:
        raise ValueError("its manifest cannot be read") from error


def _parsed(content: bytes) -> TableVersion:
    if len(content) < 16 or content[-4:] != b"LANC":
        raise ValueError("its manifest is truncated")
    (start,) = struct.unpack("<Q", content[-16:-8])
    manifest = list(_fields(_block(content, start)))
    _only(manifest, _MANIFEST, "manifest")
    columns = dict(_column(_bytes(value)) for number, value in manifest if number == 1)
    indices: list[str] = []
    for number, value in manifest:
        if number == 6:
            indices = [_index(_bytes(v)) for _, v in _fields(_block(content, _int(value)))]
        if number in (9, 10) and _int(value) & ~_V2_FORMAT_FLAG:
            raise ValueError("it uses features of Lance that an atlas does not use, such as other folders")
    return TableVersion(
        [_fragment(_bytes(value), columns) for number, value in manifest if number == 2],
        indices,
        next((_plain(_bytes(value), _TRANSACTION) for number, value in manifest if number == 12), ""),
    )


def _column(field: bytes) -> tuple[int, str]:
    """Number and name of a column."""
    values = dict(_fields(field))
    return _int(values.get(3, 0)), _bytes(values.get(2, b"")).decode()


def _fragment(fragment: bytes, columns: dict[int, str]) -> tuple[int, dict[str, str]]:
    values = list(_fields(fragment))
    _only(values, _FRAGMENT, "fragment")
    files: dict[str, str] = {}
    for number, value in values:
        if number == 2:
            file = list(_fields(_bytes(value)))
            _only(file, _FILE, "data file")
            by_number = dict(file)
            name = _plain(_bytes(by_number.get(1, b"")), _DATA_FILE)
            numbers = list(_packed(_bytes(by_number.get(2, b""))))
            files.update({columns[n]: f"data/{name}" for n in numbers if n in columns})
    return _int(dict(values).get(4, 0)), files


def _index(index: bytes) -> str:
    values = list(_fields(index))
    _only(values, _INDEX, "index")
    for number, value in values:
        if number == 10:
            _plain(_bytes(dict(_fields(_bytes(value))).get(1, b"")), _INDEX_FILE)
    identity = dict(_fields(_bytes(dict(values)[1]))) if 1 in dict(values) else {}
    raw = _bytes(identity.get(1, b""))
    if len(raw) != 16:
        raise ValueError("one of its indices has no name")
    return f"_indices/{uuid.UUID(bytes=raw)}"


def _only(values: list[tuple[int, int | bytes]], allowed: frozenset[int], what: str) -> None:
    for number, _ in values:
        if number not in allowed:
            raise ValueError(
                f"its {what} uses features that an atlas does not use, such as other folders (field {number})"
            )


def _plain(name: bytes, pattern: re.Pattern[str]) -> str:
    text = name.decode()
    if not pattern.fullmatch(text):
        raise ValueError(f"it refers to the file {text[:80]!r}, which is not its own")
    return text


def _block(content: bytes, start: int) -> bytes:
    """A length-prefixed message."""
    (length,) = struct.unpack("<I", content[start : start + 4])
    if start + 4 + length > len(content):
        raise ValueError("its manifest is truncated")
    return content[start + 4 : start + 4 + length]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a Protocol Buffers message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
        elif kind in (1, 2, 5):
            length, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            if at + length > len(message):
                raise ValueError("its manifest is truncated")
            yield number, message[at : at + length]
            at += length
        else:
            raise ValueError("its manifest cannot be read")


def _packed(values: bytes) -> Iterator[int]:
    at = 0
    while at < len(values):
        value, at = _varint(values, at)
        yield value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("its manifest cannot be read")


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("its manifest cannot be read")
    return value


def _int(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("its manifest cannot be read")
    return value


def refuse_special_files(folder: Path) -> None:
    """Refuse pipes, links and folders in a folder whose entries Lance may open by itself."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_file(follow_symlinks=False):
                raise ArtifactError(f"'{entry.path}' is not a regular file; move it out of the atlas.")


def unknown_versions(path: Path, versions: Collection[int]) -> list[str]:
    """Names of entries in the versions folder of a table other than these versions."""
    if not (path / "_versions").is_dir():
        return []
    known = {HINT, *(version_file(version) for version in versions)}
    return sorted(name for entry in os.scandir(path / "_versions") if (name := f"_versions/{entry.name}") not in known)


def refuse_unknown_versions(path: Path) -> None:
    """Refuse to write into a folder with unreadable or unsafe versions, because Lance reads them when it writes.

    Raises
    ------
    ArtifactError
        If there is one; names the first.
    """
    for name in unknown_versions(path, ()):
        try:
            if not FILES.fullmatch(name):
                raise ValueError("its name is not that of a version")
            with open_regular(within(path, name)) as file:
                parse_manifest(file.read(MAX_MANIFEST_BYTES))
        except ValueError as error:  # includes ArtifactError
            raise ArtifactError(
                f"'{path / name}' is not a version that imatlas wrote ({str(error).rstrip('.')}), so nothing is "
                "written beside it; run the same 'imatlas learn' command again to rebuild the table elsewhere."
            ) from None


def newest_version(path: Path) -> int:
    """Number of the newest version of a table.

    Raises
    ------
    FileNotFoundError
        If there is no version.
    """
    names = sorted(name for name in files_on_disk(path) if name.startswith("_versions/"))
    if not names:
        raise FileNotFoundError(f"no version of a table in '{path}'")
    return 2**64 - 1 - int(Path(names[0]).stem)


def files_on_disk(path: Path) -> list[str]:
    """Names of the files in the folder of a table that match `FILES`, sorted."""
    names = [file.relative_to(path).as_posix() for file in path.glob("_indices/*/*")]
    names += [
        file.relative_to(path).as_posix()
        for part in ("_versions", "_transactions", "data")
        for file in path.glob(f"{part}/*")
    ]
    return sorted(name for name in names if FILES.fullmatch(name))
