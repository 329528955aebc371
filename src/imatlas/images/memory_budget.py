"""The memory that decoding may take: one budget of bytes, shared by all threads of the process.

A decoder first requests its peak memory (`need`) and waits until that much is free. A request beyond the whole budget
is refused before anything is allocated.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from imatlas.arguments import refused, whole
from imatlas.errors import DecodeError, ParameterError

VARIABLE = "IMATLAS_DECODE_MEMORY"
"""The environment variable that sets the budget ("2G")."""

DEFAULT = 2**29
"""The default budget: 512 MiB, or a quarter of the machine's memory if that is less."""

RATIO = 32
"""A picture or an unpacked file may take this many times the size of its file, if that is more than the budget."""

PATIENCE = 120.0
"""Maximal wait in seconds: memory held by an abandoned generator must not block a run."""

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?\s*", re.IGNORECASE)


def machine_memory() -> int:
    """The memory of this machine in bytes; 8 GiB if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**33


def budget() -> int:
    """The bytes that all decoding threads of the process may take together.

    Raises
    ------
    ParameterError
        If the environment variable is not a size.
    """
    return _parsed(os.environ.get(VARIABLE, ""))


def size_in(text: str) -> int | None:
    """The bytes that a text such as "800M" or "2G" names (powers of 1024); None if it is no size."""
    match = _SIZE.fullmatch(text)
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " ")) if match else None


def checked_bytes(size: Any, name: str, owner: str) -> int | None:
    """A limit in bytes: a positive number, a text such as "20G", or None.

    Raises
    ------
    ParameterError
        If it is none of these.
    """
    n_bytes = size_in(size) if isinstance(size, str) else whole(size)
    if size is not None and (n_bytes is None or n_bytes < 1):
        raise refused(name, owner, "None, or a size such as '20G'", size)
    return n_bytes


@functools.lru_cache(maxsize=8)
def _parsed(text: str) -> int:
    if not text:
        return min(DEFAULT, max(2**26, machine_memory() // 4))
    size = size_in(text)
    if size is None or size < 2**24:
        raise ParameterError(
            f"The environment variable {VARIABLE} must be a size of at least 16M, such as 800M or 2G. Got {text!r}."
        )
    return size


def allowance(packed: int) -> int:
    """The bytes that a file of `packed` bytes may be decoded to: the budget, or more for a large file."""
    return max(budget(), min(RATIO * packed, machine_memory() // 4))


def check(n_bytes: int, packed: int, what: str) -> None:
    """Refuse a request for more memory than a file of `packed` bytes may take.

    Raises
    ------
    DecodeError
        With the request, the limit and how to raise it.
    """
    limit = allowance(packed)
    if n_bytes > limit:
        raise DecodeError(
            f"{what} would take {amount(n_bytes)} of memory, more than the limit of {amount(limit)}; set {VARIABLE} "
            "to allow more"
        )


def amount(n_bytes: float) -> str:
    """A number of bytes in words."""
    for unit in ("bytes", "KB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:,.1f} GB"


class Pool:
    """A semaphore of bytes."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._used = 0

    def take(self, n_bytes: int, size: int, wait: bool, patience: float | None = PATIENCE) -> None:
        """Take bytes of a pool of `size`; a larger request is granted while the pool is unused. After `patience`
        seconds it is granted all the same (None: never)."""
        with self._condition:
            if wait:
                self._condition.wait_for(lambda: self._used == 0 or self._used + n_bytes <= size, patience)
            self._used += n_bytes

    def give(self, n_bytes: int) -> None:
        """Return bytes."""
        with self._condition:
            self._used -= n_bytes
            self._condition.notify_all()

    @property
    def used(self) -> int:
        """The bytes taken."""
        return self._used


POOL = Pool()
"""The memory of all pictures being decoded."""

_here = threading.local()


class Share:
    """The part of the budget that one piece of work holds; it belongs to the thread that created it.

    Attributes
    ----------
    held : int
    packed, unpacked : int or None
        Size of the file on disk and in memory, if known. The allowance depends on the former only, so that trailing
        zeros in a compressed file do not raise it.
    """

    def __init__(self) -> None:
        self.held = 0
        self.packed: int | None = None
        self.unpacked = 0
        self._thread = threading.get_ident()

    def need(self, n_bytes: int) -> None:
        """Hold at least this many bytes.

        Held bytes are returned before waiting for more, so that two threads never wait for each other; a thread that
        holds another share does not wait at all.
        """
        if n_bytes <= self.held:
            return
        if self.held:
            self.close()
        alone = getattr(_here, "held", 0) == 0
        POOL.take(n_bytes, budget(), alone)
        self.held = n_bytes
        _here.held = getattr(_here, "held", 0) + n_bytes

    def close(self) -> None:
        """Return everything."""
        if self.held:
            POOL.give(self.held)
            if self._thread == threading.get_ident():
                _here.held = getattr(_here, "held", 0) - self.held
            self.held = 0


CONTENTS = Pool()
"""The bytes of large files held while they are decoded."""


@contextmanager
def reading() -> Iterator[None]:
    """Let `content` count what is read inside the block; only for a thread that holds no other memory yet."""
    _here.contents = 0
    try:
        yield
    finally:
        taken, _here.contents = _here.contents, None
        if taken:
            CONTENTS.give(taken)


def content(n_bytes: int) -> None:
    """Wait until a file of this size may be read in addition to those that other threads hold.

    Files are requested before the memory of pictures, which rules out deadlocks.
    """
    taken = getattr(_here, "contents", None)
    if taken is None or n_bytes < SMALL_FILE:
        return
    CONTENTS.take(n_bytes, budget() // 2, wait=taken == 0)
    _here.contents = taken + n_bytes


SMALL_FILE = 2**22


def current() -> Share | None:
    """The share of this thread's current work."""
    return getattr(_here, "share", None)


@contextmanager
def using(share: Share) -> Iterator[Share]:
    """Let `need` fill this share inside the block; it is not closed."""
    outer = current()
    _here.share = share
    try:
        yield share
    finally:
        _here.share = outer


@contextmanager
def sharing() -> Iterator[Share]:
    """A share for one piece of work, such as reading a picture and everything made of it."""
    share = Share()
    try:
        with using(share):
            yield share
    finally:
        share.close()


def need(n_bytes: int, packed: int, what: str) -> None:
    """Wait until this work may take `n_bytes` at its peak; refuse impossible requests, as `check` does.

    If the share belongs to a packed file, its packed size sets the limit, and its unpacked size is added.
    """
    share = current()
    if share is not None and share.packed is not None:
        n_bytes += max(0, share.unpacked - share.packed)
        packed = min(packed, share.packed)
    check(n_bytes, packed, what)
    if share is not None:
        share.need(n_bytes)
