"""The inventory of a folder: the names, sizes and hashes of its files, and what is read from them only if they agree.

A checksum answers for damage (a disk, a transfer, a stray editor), not for an enemy, who can compute a new one: what
an enemy may write is bounded by schemas and limits where it is parsed. Files are hashed whole with SHA-256, before
anything parses them: 1.7 GB/s on a core with instructions for it, several files at once. A file is hashed once per
process, again only where its size or time has changed; who reads only some files checks only these.
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

MOST_JSON = 64 * 2**20
"""Bytes of JSON that are read at most."""

MOST_DEPTH = 40
"""How deep lists and mappings in JSON may lie in each other."""

_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class Entry(NamedTuple):
    """What an inventory knows of one file: its bytes and their SHA-256 as hex."""

    size: int
    sha256: str


def is_atlas(folder: str | Path) -> bool:
    """Whether a folder is an atlas, or one whose `atlas.json` is gone: not a model, nor a folder of images."""
    return os.path.lexists(Path(folder) / "atlas.json") or any(Path(folder).glob("images*.lance/_versions"))


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read, if it is one: a pipe would wait for ever, a link may lead anywhere.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ArtifactError
        If there is something else.
    """
    if is_link(path):
        raise ArtifactError(f"'{path}' is a link where a file should be.")
    try:
        descriptor = os.open(path, _FLAGS)
    except (IsADirectoryError, NotADirectoryError):
        raise ArtifactError(f"'{path}' is not a file.") from None
    except OSError as error:  # a socket, a link that came this moment
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise ArtifactError(f"'{path}' cannot be read ({error.strerror}).") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ArtifactError(f"'{path}' is not a file.")
    return open(descriptor, "rb")


def read_json(path: Path, *, most_bytes: int = MOST_JSON) -> Any:
    """The values of a JSON file, with finite numbers and bounded size and depth.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ArtifactError
        If it is no such file.
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
    """The values of JSON text, with finite numbers, bounded depth, and no key twice.

    Raises
    ------
    ValueError
        Otherwise, with the plain reason.
    """
    try:
        values = json.loads(content.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError(f"more than {MOST_DEPTH} levels deep") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    stack = [(values, 0)]
    while stack:
        value, depth = stack.pop()
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a number that is not finite")
        if isinstance(value, dict | list):
            if depth >= MOST_DEPTH:
                raise ValueError(f"more than {MOST_DEPTH} levels deep")
            stack += [(v, depth + 1) for v in (value.values() if isinstance(value, dict) else value)]
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key that comes twice")
    return values


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def seal(values: Mapping[str, Any]) -> str:
    """The hash over JSON values, whatever their order and layout: written beside them, it covers every number."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def entry_of(path: Path) -> Entry:
    """The size and hash of a file.

    Raises
    ------
    FileNotFoundError, ArtifactError
        As of `open_regular`.
    """
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256")
        return Entry(file.tell(), digest.hexdigest())


OWN_HASH = b"imatlas-sha256"
"""The name of what a file holds of itself, see `with_own_hash`."""

_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def with_own_hash(name: str, content: bytes) -> bytes:
    """A .png, .onnx or .npy file that ends in a hash of its name and of all before: so it is known again as written.

    It is for files whose names a user has not chosen, and which only then may be overwritten: what he has renamed,
    copied, retouched or put there himself has no such end. Whoever reads such a file finds a text (PNG), an entry of
    the metadata (ONNX), or passes over it (NumPy).
    """
    content = content.removesuffix(_PNG_END) if name.endswith(".png") else content
    return content + _own_end(name, hashlib.sha256(os.fsencode(name) + b"\0" + content).hexdigest())


def is_as_written(path: Path) -> bool:
    """Whether a file is one of `with_own_hash`, with the name and the content that it was written with."""
    length = len(_own_end(path.name, "0" * 64))
    try:
        with open_regular(path) as file:
            content = file.read()
    except (ArtifactError, OSError):
        return False
    return len(content) > length and with_own_hash(path.name, content[:-length]) == content


def _own_end(name: str, digest: str) -> bytes:
    """What `with_own_hash` adds, of one length for each kind of file."""
    told = digest.encode()
    if name.endswith(".png"):  # a chunk tEXt before the last one
        chunk = b"tEXt" + OWN_HASH + b"\0" + told
        return struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + _PNG_END
    if name.endswith(".onnx"):  # one more of ModelProto.metadata_props, field 14: a key, field 1, and a value, field 2
        entry = b"\x0a" + bytes([len(OWN_HASH)]) + OWN_HASH + b"\x12" + bytes([len(told)]) + told
        return b"\x72" + bytes([len(entry)]) + entry
    return OWN_HASH + b" " + told + b"\n"  # after the last number of an array nothing is read


class Old(NamedTuple):
    """A file that counted once, as it was when it counted last: what may be deleted where it still is that."""

    name: str
    size: int
    sha256: str


class Inventory:
    """The files of a folder that count.

    Parameters
    ----------
    folder : path
    files : mapping of str to Entry, optional
        Name, relative with forward slashes -> what it must be. This very mapping grows and shrinks.
    old : list of Old, optional
        Files that counted once and may still be there: what may be deleted. Grows too.
    advice : str
        What a user does about damage, to end the message with.
    """

    def __init__(
        self,
        folder: str | Path,
        files: dict[str, Entry] | None = None,
        *,
        old: list[Old] | None = None,
        advice: str = "make it anew",
    ) -> None:
        self.folder = Path(folder)
        self.files = {} if files is None else files
        self.old = [] if old is None else old
        self.advice = advice
        self._checked: dict[str, tuple[int, ...]] = {}  # name -> what the file was when its hash agreed

    def record(self, names: Iterable[str]) -> None:
        """Take files as they are now into the inventory; for who has just written them."""
        names = list(names)
        for name, entry in zip(names, _several(self._entry, names), strict=True):
            self.files[name] = entry

    def drop(self, names: Iterable[str], *, damaged: bool = False) -> None:
        """These files count no more; where `damaged`, what may be deleted is what they are now."""
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
        """The names of those of these files that are as they were when they counted."""
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
            That names the first file which is not what the inventory says, or which it does not name.
        """
        for name, reason in self.damaged(names).items():
            raise ArtifactError(f"'{self.folder / name}' is damaged ({reason}); {self.advice}.")

    def damaged(self, names: Iterable[str] | None = None) -> dict[str, str]:
        """The files, of these or of all, that are not what the inventory says -> in which way."""
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
    """`do` of each name; several at once, as hashing needs no lock of the interpreter."""
    if len(names) < 2:
        return [do(name) for name in names]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(do, names))
