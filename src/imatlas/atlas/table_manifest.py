"""What one version of a Lance table names, read from its manifest without Lance, and refused where it leads elsewhere.

Lance follows what a manifest says: base paths in other folders or in object stores (`s3://`), files by any path. So a
manifest is looked through before Lance opens it. Only what a table of ours is made of is let pass: data files and
indices by plain names in their own folders, whole fragments without deletions. The format is Protocol Buffers
(`protos/table.proto` of Lance); only its field numbers are needed here.
"""

from __future__ import annotations

import os
import re
import struct
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from imatlas.errors import ArtifactError
from imatlas.system.atomic_io import within
from imatlas.system.inventory import open_regular

MOST_BYTES = 256 * 2**20
"""Of a manifest."""

HINT = "_versions/latest_version_hint.json"
"""What Lance leaves beside its versions, and on a disk never reads."""

FILES = re.compile(
    r"_versions/\d{20}\.manifest|_transactions/\d{1,20}-[0-9a-f-]{36}\.txn|data/[0-9a-f-]{32,60}\.lance"
    r"|_indices/[0-9a-f-]{36}/[a-z_]{1,40}\.idx"
)
"""The names of files in the folder of a table."""

_DATA_FILE = re.compile(r"[0-9a-f-]{32,60}\.lance")
_TRANSACTION = re.compile(r"\d{1,20}-[0-9a-f-]{36}\.txn")
_INDEX_FILE = re.compile(r"[a-z_]{1,40}\.idx")

# Numbers of the fields that may stand in each message. What is not among them is refused: base paths (18) and branches
# of a manifest, deletion files, row ids and overlays of a fragment, base ids of a data file (7) and of an index (9).
_MANIFEST = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 21, 23})
_FRAGMENT = frozenset({1, 2, 4})
_FILE = frozenset({1, 2, 3, 4, 5, 6})
_INDEX = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 10})
_OLD_FLAG = 4
"""The one feature flag that a plain table may carry: storage format 2, from when that was new."""


@dataclass(frozen=True)
class TableVersion:
    """What a version of a table consists of.

    Attributes
    ----------
    fragments : list of (n_rows, dict of str to str)
        For each run of rows their number, and for each column the file that holds it.
    indices : list of str
        The folders of the indices.
    transaction : str
        The file that tells how the version came about; "" where there is none.
    """

    fragments: list[tuple[int, dict[str, str]]]
    indices: list[str]
    transaction: str


def version_file(version: int) -> str:
    """The name of the manifest of a version: later ones sort first."""
    return f"_versions/{2**64 - 1 - version:020d}.manifest"


def parse_manifest(content: bytes) -> TableVersion:
    """What a manifest names.

    Raises
    ------
    ValueError
        If it is damaged, or names anything besides plain files of its own folder.
    """
    try:
        return _parsed(content)
    except (IndexError, struct.error, UnicodeDecodeError, OverflowError) as error:
        raise ValueError("its manifest cannot be read") from error


def _parsed(content: bytes) -> TableVersion:
    if len(content) < 16 or content[-4:] != b"LANC":
        raise ValueError("its manifest is cut off")
    (start,) = struct.unpack("<Q", content[-16:-8])
    manifest = list(_fields(_block(content, start)))
    _only(manifest, _MANIFEST, "manifest")
    columns = dict(_column(_bytes(value)) for number, value in manifest if number == 1)
    indices: list[str] = []
    for number, value in manifest:
        if number == 6:
            indices = [_index(_bytes(v)) for _, v in _fields(_block(content, _int(value)))]
        if number in (9, 10) and _int(value) & ~_OLD_FLAG:
            raise ValueError("it asks for features of Lance that an atlas does not use, such as other folders")
    return TableVersion(
        [_fragment(_bytes(value), columns) for number, value in manifest if number == 2],
        indices,
        next((_plain(_bytes(value), _TRANSACTION) for number, value in manifest if number == 12), ""),
    )


def _column(field: bytes) -> tuple[int, str]:
    """The number and name of a column."""
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
            found = dict(file)
            name = _plain(_bytes(found.get(1, b"")), _DATA_FILE)
            numbers = list(_packed(_bytes(found.get(2, b""))))
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
        raise ValueError("an index of it has no name")
    return f"_indices/{uuid.UUID(bytes=raw)}"


def _only(values: list[tuple[int, int | bytes]], allowed: frozenset[int], what: str) -> None:
    for number, _ in values:
        if number not in allowed:
            raise ValueError(f"its {what} names what an atlas does not use, such as other folders (field {number})")


def _plain(name: bytes, pattern: re.Pattern[str]) -> str:
    text = name.decode()
    if not pattern.fullmatch(text):
        raise ValueError(f"it names the file {text[:80]!r}, which is not one of its own")
    return text


def _block(content: bytes, start: int) -> bytes:
    """A message with its length before it."""
    (length,) = struct.unpack("<I", content[start : start + 4])
    if start + 4 + length > len(content):
        raise ValueError("its manifest is cut off")
    return content[start + 4 : start + 4 + length]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message of Protocol Buffers: their numbers and values."""
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
                raise ValueError("its manifest is cut off")
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


def only_files(folder: Path) -> None:
    """Refuse pipes, links and folders among what Lance may open without being asked."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_file(follow_symlinks=False):
                raise ArtifactError(f"'{entry.path}' is not a file; move it out of the atlas.")


def strangers(path: Path, versions: Collection[int]) -> list[str]:
    """The names of what lies among the versions of a table besides these versions."""
    if not (path / "_versions").is_dir():
        return []
    known = {HINT, *(version_file(version) for version in versions)}
    return sorted(name for entry in os.scandir(path / "_versions") if (name := f"_versions/{entry.name}") not in known)


def refuse_strangers(path: Path) -> None:
    """Refuse a folder with versions that lead elsewhere or cannot be read: whoever writes into it, Lance reads them.

    Raises
    ------
    ArtifactError
        That names the first.
    """
    for name in strangers(path, ()):
        try:
            if not FILES.fullmatch(name):
                raise ValueError("it has no name of ours")
            with open_regular(within(path, name)) as file:
                parse_manifest(file.read(MOST_BYTES))
        except ValueError as error:  # ArtifactError among them
            raise ArtifactError(
                f"'{path / name}' is no version that imatlas wrote ({str(error).rstrip('.')}), so nothing is written "
                "beside it; the same 'imatlas learn' command again makes the table anew in another place."
            ) from None


def newest_version(path: Path) -> int:
    """The number of the newest version of a table.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    names = sorted(name for name in files_on_disk(path) if name.startswith("_versions/"))
    if not names:
        raise FileNotFoundError(f"no version of a table in '{path}'")
    return 2**64 - 1 - int(Path(names[0]).stem)


def files_on_disk(path: Path) -> list[str]:
    """The names of the files below the folder of a table that have such names as Lance gives."""
    names = [file.relative_to(path).as_posix() for file in path.glob("_indices/*/*")]
    names += [
        file.relative_to(path).as_posix()
        for part in ("_versions", "_transactions", "data")
        for file in path.glob(f"{part}/*")
    ]
    return sorted(name for name in names if FILES.fullmatch(name))
