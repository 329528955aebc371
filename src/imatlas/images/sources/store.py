"""Objects in a store or on a server, by fsspec: listed, read and downloaded, with patience."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, TypeVar

from imatlas.errors import DecodeError, InputError, MissingExtraError, SourceError
from imatlas.images import memory_budget
from imatlas.images.sources.addresses import is_web, protocol_of
from imatlas.images.sources.base import MAX_BYTES, reason_of
from imatlas.images.sources.patience import Patience, meaning_of, no_access, why

BLOCK = 2**24
"""Bytes of a container that are downloaded, and if necessary repeated, at once."""

_PACKAGES = {
    **dict.fromkeys(("s3", "s3a", "http", "https", "hf"), "'imatlas[remote]'"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
}
"""What to install for a protocol."""

_TAGS = (
    *("ETag", "etag", "e_tag", "generation", "md5Hash", "content_md5", "Content-MD5", "Digest", "blob_id", "xet_hash"),
    *("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "modified", "created"),
)
"""Fields of a listing that change with the content of an object, the surest first."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Object:
    """An object in a store.

    Attributes
    ----------
    path : str
        As the file system names it.
    size : int or None
        In bytes, if the store tells.
    tag : int or None
        63 bits that change with the content; None if the store tells nothing of the kind.
    tagged_by : str
        The field of the listing that the tag is made of.
    """

    path: str
    size: int | None
    tag: int | None
    tagged_by: str = ""

    @property
    def stamp(self) -> tuple[int, int] | None:
        """Size and tag, which change with the content; None if unavailable."""
        return None if self.size is None or self.tag is None else (self.size, self.tag)


def _object(info: dict[str, Any], tagged_by: str = "") -> Object:
    """The object of a listing; with a tag by the given field, or the surest one."""
    size = info.get("size")
    field = next((name for name in ([tagged_by] if tagged_by else _TAGS) if info.get(name)), "")
    value = info.get(field)
    if isinstance(value, datetime):
        value = value.timestamp()  # the same in every time zone
    digest = hashlib.sha256(str(value).encode()).digest()
    tag = int.from_bytes(digest[:8], "big") >> 1 if field else None
    return Object(str(info["name"]), size if isinstance(size, int) else None, tag, field)


class Store:
    """The file system that an address belongs to.

    Parameters
    ----------
    address : str
        A checked address.

    Raises
    ------
    MissingExtraError
        If the package for its protocol is missing.
    InputError
        If the protocol is unknown.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._patience = Patience(address)
        self._shared: Any = None
        self.path: str
        found, self.path = self._connected()
        self._shared = found if found.async_impl else None

    def __getstate__(self) -> dict[str, Any]:
        return {"address": self.address}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _connected(self) -> tuple[Any, str]:
        import fsspec

        protocol = protocol_of(self.address)
        if protocol not in fsspec.available_protocols():
            raise InputError(f"'{protocol}://' is not a protocol that can be read; known are s3, gs, az, https and hf.")
        try:
            fs, path = fsspec.url_to_fs(self.address)
        except ImportError as error:
            package = _PACKAGES.get(protocol)
            advice = f"pip install {package}" if package else reason_of(error)
            raise MissingExtraError(f"Reading '{protocol}://' needs a package that is missing: {advice}") from error
        except Exception as error:
            raise SourceError(f"'{self.address}' cannot be opened ({reason_of(error)}); check the address.") from error
        return fs, str(path)

    @property
    def _fs(self) -> Any:
        """The file system; one that is not asynchronous is made for each thread, as fsspec caches it."""
        return self._shared or self._connected()[0]

    def path_of(self, address: str) -> str:
        """The path of another address in the same store."""
        return str(self._fs._strip_protocol(address))

    def _listed(self, work: Callable[[], T], name: str) -> T:
        """The result of `work`, with errors that concern all of the address."""
        try:
            return self._patience.call(work)
        except SourceError:
            raise
        except Exception as error:
            meaning = meaning_of(error)
            if meaning == "gone":
                raise SourceError(f"There is nothing at '{name}'; check the address.") from error
            if meaning == "refused":
                raise SourceError(no_access(name, error)) from error
            raise SourceError(f"'{name}' cannot be opened ({why(error)}); check the address.") from error

    def info(self, path: str | None = None) -> Object | None:
        """The object of a path; None if the path is a folder or a prefix.

        Raises
        ------
        SourceError
            If there is none, or it may not be read.
        """
        self._fs.invalidate_cache()
        place = self.path if path is None else path
        name = self.address if path is None else place
        info = self._listed(lambda: self._fs.info(place), name)
        return _object(info) if info.get("type") == "file" else None

    def find(self) -> list[Object]:
        """All objects below the address, sorted."""
        return self._objects(lambda: self._fs.find(self.path, detail=True))

    def glob(self) -> list[Object]:
        """The objects that match the pattern in the address, sorted."""
        return self._objects(lambda: self._fs.glob(self.path, detail=True))

    def _objects(self, work: Callable[[], dict[str, Any]]) -> list[Object]:
        self._fs.invalidate_cache()
        try:
            found = self._listed(work, self.address)
            return [_object(found[path]) for path in sorted(found) if found[path].get("type") == "file"]
        finally:
            self._fs.invalidate_cache()  # a listing of a million objects takes a gigabyte

    def read(self, item: Object, most: int | None = None) -> bytes:
        """The bytes of an object, or its first ones.

        Raises
        ------
        DecodeError
            If it is gone, refused or has changed.
        SourceError
            If the server does not answer.
        """
        if is_web(self.address):
            limit = MAX_BYTES + 1 if most is None else most
            content = self._patience.read(lambda: self._streamed(item.path, limit))
        elif item.size == 0:
            return b""
        elif most is None:
            content = self._patience.read(lambda: self._fs.cat_file(item.path))
        else:
            end = most if item.size is None else min(most, item.size)
            content = self._patience.read(lambda: self._fs.cat_file(item.path, start=0, end=end))
        if most is None and item.size is not None and len(content) != item.size:
            raise DecodeError(f"has changed since the set was listed: {len(content):,} bytes instead of {item.size:,}")
        return bytes(content)

    def _streamed(self, path: str, limit: int) -> bytes:
        """At most `limit` bytes; a server may send more than it declares."""
        parts: list[bytes] = []
        left = limit
        with self._fs.open(path, "rb", block_size=0) as file:
            while left > 0 and (part := file.read(min(left, 2**20))):
                parts.append(part)
                left -= len(part)
        return b"".join(parts)

    def download(self, item: Object, target: Path) -> None:
        """Write an object to a new file, block by block, each repeated if necessary.

        Raises
        ------
        DecodeError
            If it is gone, refused or has changed.
        SourceError
            If the server does not answer, or the object does not fit on the disk.
        """
        changed = DecodeError("has changed since the set was listed")
        self._fs.invalidate_cache()
        now = _object(self._patience.read(lambda: self._fs.info(item.path)), item.tagged_by)
        if now.size != item.size or now.tag not in (item.tag, None):
            raise changed
        try:
            if item.size is not None and shutil.disk_usage(target.parent).free < item.size:
                raise OSError(f"{memory_budget.amount(item.size)} are needed")
            with open(target, "xb") as out:
                if is_web(self.address):
                    self._patience.read(lambda: self._stream_into(out, item))
                else:
                    self._copy_into(out, item)
                written = out.tell()
        except OSError as error:
            if isinstance(error, SourceError):
                raise
            raise SourceError(
                f"'{item.path}' cannot be downloaded to '{target.parent}' ({reason_of(error)}); free some space there, "
                "or set TMPDIR to another folder."
            ) from error
        if item.size is not None and written != item.size:
            raise changed

    def _copy_into(self, out: IO[bytes], item: Object) -> None:
        """Write an object block by block, so that a failure repeats only one."""
        size = item.size or 0
        for start in range(0, size, BLOCK):
            end = min(start + BLOCK, size)

            def block(start: int = start, end: int = end) -> bytes:
                content: bytes = self._fs.cat_file(item.path, start=start, end=end)
                return content

            out.write(self._patience.read(block))

    def _stream_into(self, out: IO[bytes], item: Object) -> None:
        """Write an object of a web server as one stream, from its start: not all servers continue at a place."""
        out.seek(0)
        out.truncate()
        left = MAX_BYTES + 1 if item.size is None else item.size + 1
        with self._fs.open(item.path, "rb", block_size=0) as file:
            while left > 0 and (part := file.read(min(left, 2**20))):
                out.write(part)
                left -= len(part)


class Scratch:
    """A temporary folder for downloaded containers, deleted with the object."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._n = 0

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    def new_file(self, ending: str) -> Path:
        """The path of a new file."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="imatlas-scratch-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._n += 1
        return self._folder / f"{self._n:06d}-{os.urandom(4).hex()}{ending}"
