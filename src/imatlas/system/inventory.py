"""The inventory of a folder: names, sizes and hashes of its files, which are read only if they agree.

A checksum detects damage (by a disk, a transfer, an editor), not an attacker, who can compute a new one; attacks are
bounded by schemas and limits where files are parsed. Files are hashed whole with SHA-256 before they are parsed, in
threads, and once per process unless their size or time changes. Reading some files checks only these.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

from imatlas.errors import ArtifactError, UnsafePathError
from imatlas.system.atomic_io import is_link, within

MAX_JSON = 64 * 2**20
"""Maximal size of a JSON file in bytes."""

MAX_DEPTH = 40
"""Maximal nesting depth of JSON."""

_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class Entry(NamedTuple):
    """Size and SHA-256 (hex) of a file."""

    size: int
    sha256: str


def is_atlas(folder: str | Path) -> bool:
    """Whether a folder is an atlas, possibly without its `atlas.json`; not a model, nor a folder of images."""
    return os.path.lexists(Path(folder) / "atlas.json") or any(Path(folder).glob("images*.lance/_versions"))


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; never a pipe, which would block, nor a link.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ArtifactError
        If it is something else.
    """
    if is_link(path):
        raise ArtifactError(f"'{path}' is a link where a file should be.")
    try:
        descriptor = os.open(path, _FLAGS)
    except (IsADirectoryError, NotADirectoryError):
        raise ArtifactError(f"'{path}' is not a file.") from None
    except OSError as error:  # a socket, or a link created meanwhile
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise ArtifactError(f"'{path}' cannot be read ({error.strerror}).") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ArtifactError(f"'{path}' is not a file.")
    return open(descriptor, "rb")


def read_json(path: Path, *, most_bytes: int = MAX_JSON) -> Any:
    """The values of a JSON file, with finite numbers and bounded size and depth.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ArtifactError
        If it is not such a file.
    """
    with open_regular(path) as file:
        content = file.read(min(most_bytes, os.fstat(file.fileno()).st_size) + 1)
    if len(content) > most_bytes:
        raise ArtifactError(f"'{path}' is damaged (over {most_bytes:,} bytes of JSON).")
    try:
        return parse_json(content)
    except ValueError as error:
        raise ArtifactError(f"'{path}' is damaged ({error}).") from None


def parse_json(content: bytes) -> Any:
    """The values of JSON text, with finite numbers, bounded depth, and unique keys.

    Raises
    ------
    ValueError
        Otherwise, with the reason.
    """
    try:
        values = json.loads(content.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError(f"more than {MAX_DEPTH} levels deep") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    stack = [(values, 0)]
    while stack:
        value, depth = stack.pop()
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a number that is not finite")
        if isinstance(value, dict | list):
            if depth >= MAX_DEPTH:
                raise ValueError(f"more than {MAX_DEPTH} levels deep")
            stack += [(v, depth + 1) for v in (value.values() if isinstance(value, dict) else value)]
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a repeated key")
    return values


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def seal(values: Mapping[str, Any]) -> str:
    """A hash of JSON values, independent of their order and layout, stored with them."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def entry_of(path: Path) -> Entry:
    """The size and hash of a file.

    Raises
    ------
    FileNotFoundError, ArtifactError
        As in `open_regular`.
    """
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256")
        return Entry(file.tell(), digest.hexdigest())


OWN_HASH = b"imatlas-sha256"
"""The key of the hash that a file contains of itself; see `with_own_hash`."""

_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def with_own_hash(name: str, content: bytes) -> bytes:
    """A .png, .onnx or .npy file that ends in a hash of its name and content, so that changes can be detected.

    For files under generated names, which may be overwritten only if unchanged: files that a user has renamed, copied
    or edited do not match. Readers find a text chunk (PNG), a metadata entry (ONNX), or ignore it (NumPy).
    """
    content = content.removesuffix(_PNG_END) if name.endswith(".png") else content
    return content + _own_end(name, hashlib.sha256(os.fsencode(name) + b"\0" + content).hexdigest())


def is_as_written(path: Path) -> bool:
    """Whether a file of `with_own_hash` has the name and content that it was written with."""
    length = len(_own_end(path.name, "0" * 64))
    try:
        with open_regular(path) as file:
            content = file.read()
    except (ArtifactError, OSError):
        return False
    return len(content) > length and with_own_hash(path.name, content[:-length]) == content


def _own_end(name: str, digest: str) -> bytes:
    """What `with_own_hash` appends, of fixed length for each format."""
    text = digest.encode()
    if name.endswith(".png"):  # a chunk tEXt before the last one
        chunk = b"tEXt" + OWN_HASH + b"\0" + text
        return struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + _PNG_END
    if name.endswith(".onnx"):  # an entry of ModelProto.metadata_props, field 14: key, field 1, and value, field 2
        entry = b"\x0a" + bytes([len(OWN_HASH)]) + OWN_HASH + b"\x12" + bytes([len(text)]) + text
        return b"\x72" + bytes([len(entry)]) + entry
    return OWN_HASH + b" " + text + b"\n"  # data after the array are ignored


class Old(NamedTuple):
    """A file that was in the inventory, as it was last recorded; it may be deleted if it is unchanged."""

    name: str
    size: int
    sha256: str


class Inventory:
    """The recorded files of a folder.

    Parameters
    ----------
    folder : path
    files : mapping of str to Entry, optional
        Name, relative with forward slashes -> expected size and hash. Modified in place.
    old : list of Old, optional
        Former files that may still exist and may be deleted. Modified in place.
    advice : str
        What to do about damage, for error messages.
    """

    def __init__(
        self,
        folder: str | Path,
        files: dict[str, Entry] | None = None,
        *,
        old: list[Old] | None = None,
        advice: str = "create it again",
    ) -> None:
        self.folder = Path(folder)
        self.files = {} if files is None else files
        self.old = [] if old is None else old
        self.advice = advice
        self._checked: dict[str, tuple[int, ...]] = {}  # name -> stamp of the file when its hash agreed

    def record(self, names: Iterable[str]) -> None:
        """Record files as they are now, after writing them."""
        names = list(names)
        for name, entry in zip(names, _several(self._entry, names), strict=True):
            self.files[name] = entry

    def drop(self, names: Iterable[str], *, damaged: bool = False) -> None:
        """Remove files from the record; if `damaged`, their present content may be deleted later."""
        for name in names:
            entry = self.files.pop(name, None)
            if entry is None:
                continue
            if damaged:
                with suppress(ArtifactError, UnsafePathError, OSError):
                    entry = entry_of(within(self.folder, name))
            if Old(name, *entry) not in self.old:
                self.old.append(Old(name, *entry))

    def unchanged(self, old: Iterable[Old]) -> list[str]:
        """The names of those former files that are unchanged."""
        once = Inventory(self.folder)
        found = []
        for name, size, sha256 in old:
            once.files[name] = Entry(size, sha256)
            if not once.damaged([name]):
                found.append(name)
        return found

    def below(self, folder: str) -> list[str]:
        """The names of the files in one folder."""
        return [name for name in self.files if name.startswith(f"{folder}/")]

    def check(self, names: Iterable[str]) -> None:
        """Refuse damaged files.

        Raises
        ------
        ArtifactError
            Naming the first file that differs from the inventory or is not in it.
        """
        for name, reason in self.damaged(names).items():
            raise ArtifactError(f"'{self.folder / name}' is damaged ({reason}); {self.advice}.")

    def damaged(self, names: Iterable[str] | None = None) -> dict[str, str]:
        """The files, of these or of all, that differ from the inventory -> the reason."""
        names = list(self.files if names is None else names)
        reasons = zip(names, _several(self._reason, names), strict=True)
        return {name: reason for name, reason in reasons if reason}

    def _entry(self, name: str) -> Entry:
        entry = entry_of(within(self.folder, name))
        self._checked[name] = _stamp(self.folder / name)
        return entry

    def _reason(self, name: str) -> str:
        if name not in self.files:
            return "it is not in the list of files"
        try:
            path = within(self.folder, name)
            stamp = _stamp(path)
            if self._checked.get(name) == stamp:
                return ""
            if stamp[0] != self.files[name].size and path.is_file():
                return f"{stamp[0]:,} bytes instead of {self.files[name].size:,}"
            if entry_of(path) != self.files[name]:
                return "its checksum differs"
        except (FileNotFoundError, NotADirectoryError):
            return "it is gone"
        except UnsafePathError:
            return "its name leads elsewhere, or through a link"
        except ArtifactError:
            return "it is not a file"
        except OSError as error:
            return f"it cannot be read: {error.strerror or error}"
        self._checked[name] = stamp
        return ""


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file is written, without reading it."""
    found = os.stat(path, follow_symlinks=False)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev


def _several(do: Any, names: list[str]) -> list[Any]:
    """`do` of each name; in threads, as hashing releases the interpreter's lock."""
    if len(names) < 2:
        return [do(name) for name in names]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(do, names))
