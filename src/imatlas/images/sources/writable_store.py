"""Objects that are written on a condition: that there is none yet, or that nobody has replaced it since it was read.

So of two writers one is told, and nothing is mixed. S3 has such conditions (If-None-Match, If-Match).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from imatlas.errors import InputError, SourceError
from imatlas.images.sources.addresses import protocol_of
from imatlas.images.sources.patience import has_status, meaning_of, no_access, why
from imatlas.images.sources.store import BLOCK, Store

PROTOCOLS = ("s3", "s3a")
"""Protocols whose stores have conditions of writes that are used here."""

_ATTEMPTS = 5
"""At an object that somebody else replaces all the time."""

T = TypeVar("T")


class ConflictError(Exception):
    """The object is there already, or has been replaced by somebody else."""


class GoneError(Exception):
    """There is no such object."""


class Head(NamedTuple):
    """ETag and size of an object, and the seconds since it was written, by the clock of the server."""

    etag: str
    size: int
    age: float


class WritableStore(Store):
    """A store on S3, at the address of a folder; names are relative to it.

    Parameters
    ----------
    address : str
        A checked address.

    Raises
    ------
    InputError
        If the store is not known to have conditions of writes.
    MissingExtraError
        If the package for its protocol is missing.
    """

    def __init__(self, address: str) -> None:
        protocol = protocol_of(address)
        if protocol not in PROTOCOLS:
            raise InputError(
                f"An atlas is not written to '{protocol}://', as only s3:// is known to refuse a second writer; give "
                "a folder, or an address of s3://, with -o."
            )
        super().__init__(address)

    def head(self, name: str) -> Head | None:
        """What the server tells of an object; None if there is none."""
        try:
            found = self._called("head_object", name)
        except GoneError:
            return None
        told = found["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = parsedate_to_datetime(told) if told else datetime.now(UTC)
        return Head(str(found["ETag"]), int(found["ContentLength"]), (now - found["LastModified"]).total_seconds())

    def get(self, name: str, most: int) -> tuple[bytes, str] | None:
        """The content of an object and its ETag; None if there is none.

        Raises
        ------
        SourceError
            If it has more than `most` bytes, or cannot be read.
        """
        for _ in range(_ATTEMPTS):
            before = self.head(name)
            if before is None:
                return None
            if before.size > most:
                raise SourceError(f"'{self.address}/{name}' has {before.size:,} bytes, more than any such file.")
            try:
                content = b"".join(self._parts(name, before.size))
            except GoneError:
                continue
            after = self.head(name)
            if after is not None and after.etag == before.etag:
                return content, before.etag
        raise SourceError(f"'{self.address}/{name}' changes all the time; try again later.")

    def put(self, name: str, content: bytes, etag: str) -> str:
        """Write a small object; returns its ETag.

        Parameters
        ----------
        name : str
        content : bytes
            Other than all that others write, so that it is recognized if the answer to a first attempt was lost.
        etag : str
            Of the object that is replaced; "" if there must be none.

        Raises
        ------
        ConflictError
            If somebody else has written it.
        SourceError
            If it cannot be written.
        """
        try:
            return self.put_once(name, content, etag)
        except ConflictError:
            found = self.get(name, 2**30)
            if found is not None and found[0] == content:
                return found[1]
            raise

    def put_once(self, name: str, content: bytes, etag: str) -> str:
        """As `put`, but the same content that is there already is a conflict, too."""
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        try:
            return str(self._called("put_object", name, Body=content, **condition)["ETag"])
        except GoneError:
            if etag:
                raise ConflictError(name) from None
            raise SourceError(f"There is no bucket at '{self.address}'; create it, or correct the address.") from None

    def upload(self, name: str, file: Path, *, replace: bool = False, check: Callable[[], None] = lambda: None) -> None:
        """Write an object from a file, in parts if it is large; nothing if it is there already with this content.

        Parameters
        ----------
        name : str
        file : path
        replace : bool
            Write it, whatever is there. Otherwise another content is deleted first: a run that has ended has left it.
        check : callable
            Called before anything is deleted; raises if it may not be.
        """
        mode: dict[str, Any] = {} if replace else {"mode": "create"}
        path = f"{self.path}/{name}"
        for _ in range(_ATTEMPTS):
            try:
                self._asked(lambda: self._fs.put_file(str(file), path, **mode), name)
                return
            except ConflictError:
                if self._has(name, file):
                    return
                check()
                self.remove([name])
        raise SourceError(f"'{self.address}/{name}' is written by somebody else all the time; try again later.")

    def remove(self, names: Iterable[str]) -> None:
        """Delete objects, those that are there."""
        for name in names:
            try:
                self._called("delete_object", name)
            except GoneError:
                continue

    def others(self, known: Iterable[str]) -> list[str]:
        """Names of some objects below the address other than these."""
        bucket, key, _ = self._fs.split_path(self.path)
        prefix = f"{key}/" if key else ""
        most = len(set(known)) + 2
        try:
            listed = self._asked(
                lambda: self._fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=most), ""
            )
        except GoneError:
            raise SourceError(f"There is no bucket at '{self.address}'; create it, or correct the address.") from None
        names = [str(item["Key"])[len(prefix) :] for item in listed.get("Contents", [])]
        return [name for name in names if name and name not in known]

    def check_conditions(self, name: str) -> None:
        """Refuse a server that ignores conditions of writes: it lets an object that is there be created.

        Raises
        ------
        InputError
        """
        try:
            self.put_once(name, b"{}", "")
        except ConflictError:
            return
        self.remove([name])
        raise InputError(
            f"The server of '{self.address}' ignores conditions of writes (If-None-Match), so two writers could mix "
            "their work; learn into a folder and copy it there, or use a server that honors them."
        )

    def _has(self, name: str, file: Path) -> bool:
        """Whether an object has the content of a file."""
        found = self.head(name)
        if found is None or found.size != file.stat().st_size:
            return False
        try:
            with open(file, "rb") as opened:
                return all(part == opened.read(len(part)) for part in self._parts(name, found.size))
        except GoneError:
            return False

    def _parts(self, name: str, size: int) -> Iterable[bytes]:
        """The content of an object in blocks."""
        path = f"{self.path}/{name}"
        for start in range(0, size, BLOCK):
            end = min(start + BLOCK, size)

            def block(start: int = start, end: int = end) -> bytes:
                return bytes(self._fs.cat_file(path, start=start, end=end))

            yield self._asked(block, name)

    def _called(self, method: str, name: str, **options: Any) -> dict[str, Any]:
        """The answer to one request about an object."""
        bucket, key, _ = self._fs.split_path(f"{self.path}/{name}")
        found = self._asked(lambda: self._fs.call_s3(method, Bucket=bucket, Key=key, **options), name)
        return dict(found)

    def _asked(self, work: Callable[[], T], name: str) -> T:
        """The result of `work`, with patience.

        Raises
        ------
        ConflictError
            If a condition was not met.
        GoneError
            If there is no such object.
        SourceError
            If access is refused, the server does not answer, or something else is wrong.
        """
        try:
            return self._patience.call(work)
        except SourceError:
            raise
        except Exception as error:
            if has_status(error, 412):
                raise ConflictError(name) from None
            if meaning_of(error) == "gone":
                raise GoneError(name) from None
            address = f"{self.address}/{name}".rstrip("/")
            if meaning_of(error) == "refused":
                raise SourceError(no_access(address, error)) from None
            raise SourceError(f"'{address}' cannot be read or written ({why(error)}); check the address.") from None
