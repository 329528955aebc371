"""What every source of images is, and how large what lies in one may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from imatlas.errors import DecodeError, SourceError
from imatlas.images import memory_budget
from imatlas.images.sources.origin import Origin

MAX_BYTES = 2**30
"""The largest single file that is read: 1 GiB."""

MANY = 100_000
"""Items that a file may hold whatever its size; beyond, each must have 16 bytes at least."""

MAX_RATIO = 200
"""All items of an archive may unpack to this many times its bytes, where that is more than the budget."""

HEAD = 64
"""How many bytes tell what a file is."""


class Source(Protocol):
    """A list of items that may be images."""

    name: str
    """What to call the source in messages."""
    root: Path | None
    """The folder or file it lives in, where there is one."""
    keys: list[str]
    """One name an item, unique, relative to the source."""
    skipped: list[tuple[str, str]]
    """What could not even be listed, with the reason."""
    explicit: bool
    """Whether every item is meant to be a picture; in a folder or archive other files may lie beside them."""

    @property
    def origin(self) -> Origin:
        """What an atlas remembers of where the images came from."""

    def stamps(self) -> list[tuple[int, int]] | None:
        """For each item a pair (size, time or checksum) that changes with the content; None where there is none."""

    def head(self, index: int) -> bytes:
        """The first bytes of an item, or b"" where an item is no file."""

    def packed(self, index: int) -> int | None:
        """The bytes that an item takes on the disk, packed or with holes; None where it is of no file."""

    def read(self, index: int) -> Any:
        """An item: the bytes of a file, an array, or a Pillow image. Raises DecodeError with the reason."""


def reason_of(error: BaseException) -> str:
    """An error as a few plain words, on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def part_of(ends: np.ndarray, index: int) -> tuple[int, int]:
    """Which of several parts, the numbers after the last of each ascending, an index lies in, and its place there."""
    number = int(np.searchsorted(ends, index, side="right"))
    return number, index - (int(ends[number - 1]) if number else 0)


def check_size(size: int) -> None:
    """Refuse an item that is too large to be one picture."""
    if size > MAX_BYTES:
        raise DecodeError(f"{size / 2**30:.1f} GiB is more than the limit of {MAX_BYTES / 2**30:.0f} GiB for one file")


def check_unpacked(size: int, packed: int, *, part: int = 2, remedy: str = "unpack it yourself") -> None:
    """Refuse what unpacks to far more than its file has: `packed` bytes may become a `part` of the budget."""
    limit = max(memory_budget.budget() // part, memory_budget.RATIO * packed)
    if size > limit:
        raise DecodeError(
            f"unpacks from {memory_budget.amount(packed)} to {memory_budget.amount(size)}, more than the limit of "
            f"{memory_budget.amount(limit)}; {remedy}, or set {memory_budget.VARIABLE} to allow more"
        )


def check_total(size: int, packed: int, share: float = 1.0) -> None:
    """Refuse what comes after `size` bytes of an archive, or of a part of it that has a share of its items.

    `packed` is what these bytes have in the archive. Each item by itself may be small: of many there is no end.
    """
    limit = max(int(share * memory_budget.budget()), MAX_RATIO * packed)
    if size > limit:
        raise DecodeError(
            f"up to here the archive unpacks to {memory_budget.amount(size)} in sum, more than the limit of "
            f"{memory_budget.amount(limit)}; unpack it yourself, or set {memory_budget.VARIABLE} to allow more"
        )


def check_members(n: int, size: int, name: str) -> None:
    """Refuse a file of `size` bytes that claims to hold far more items than it can."""
    if n > MANY and n > size // 16:
        raise SourceError(
            f"'{name}' says that {memory_budget.amount(size)} hold {n:,} items; it is not read, as no image is that "
            "small."
        )
