"""The interface of image sources, and limits on what they may contain."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from imatlas.errors import DecodeError, SourceError
from imatlas.images import memory_budget
from imatlas.images.sources.origin import Origin

MAX_BYTES = 2**30
"""Maximal size of a file: 1 GiB."""

MANY = 100_000
"""Number of items that a file of any size may contain; beyond it, each needs at least 16 bytes."""

MAX_RATIO = 200
"""All items of an archive may unpack to this many times its size, if that is more than the budget."""

HEAD = 256
"""Number of bytes that identify a format."""


class Source(Protocol):
    """A list of items that may be images."""

    name: str
    """The name of the source in messages."""
    root: Path | None
    """The folder or file of the source, if there is one."""
    keys: list[str]
    """One unique name per item, relative to the source."""
    skipped: list[tuple[str, str]]
    """Items that could not be listed, with the reason."""
    explicit: bool
    """Whether every item is meant to be a picture; folders and archives may contain other files."""

    @property
    def origin(self) -> Origin:
        """The place of the images, as an atlas records it."""

    def stamps(self) -> list[tuple[int, int]] | None:
        """For each item (size, time or checksum), which changes with the content; None if unavailable."""

    def head(self, index: int) -> bytes:
        """The first bytes of an item, or b"" if it is not a file."""

    def packed(self, index: int) -> int | None:
        """The bytes that an item takes on disk, compressed or sparse; None if it is not in a file."""

    def read(self, index: int) -> Any:
        """An item: the bytes of a file, an array, or a Pillow image. Raises DecodeError with the reason."""


def reason_of(error: BaseException) -> str:
    """The reason of an error in a few plain words, on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def part_of(ends: np.ndarray, index: int) -> tuple[int, int]:
    """The part that an index lies in, and its position there; `ends` are the cumulative sizes of the parts."""
    number = int(np.searchsorted(ends, index, side="right"))
    return number, index - (int(ends[number - 1]) if number else 0)


def check_size(size: int) -> None:
    """Refuse an item that is too large to be one picture."""
    if size > MAX_BYTES:
        raise DecodeError(f"{size / 2**30:.1f} GiB is more than the limit of {MAX_BYTES / 2**30:.0f} GiB for one file")


def check_unpacked(size: int, packed: int, *, part: int = 2, remedy: str = "unpack it yourself") -> None:
    """Refuse an item that unpacks to far more than its size: `packed` bytes may become 1 / `part` of the budget."""
    limit = max(memory_budget.budget() // part, memory_budget.RATIO * packed)
    if size > limit:
        raise DecodeError(
            f"unpacks from {memory_budget.amount(packed)} to {memory_budget.amount(size)}, more than the limit of "
            f"{memory_budget.amount(limit)}; {remedy}, or set {memory_budget.VARIABLE} to allow more"
        )


def check_total(size: int, packed: int, share: float = 1.0) -> None:
    """Refuse further items after `size` unpacked bytes of an archive, or of a part of it with a share of its items.

    `packed` is the size of these bytes in the archive. This bounds archives of very many small items.
    """
    limit = max(int(share * memory_budget.budget()), MAX_RATIO * packed)
    if size > limit:
        raise DecodeError(
            f"up to here the archive unpacks to {memory_budget.amount(size)} in total, more than the limit of "
            f"{memory_budget.amount(limit)}; unpack it yourself, or set {memory_budget.VARIABLE} to allow more"
        )


def check_members(n: int, size: int, name: str) -> None:
    """Refuse a file of `size` bytes that claims to contain far more items than it can."""
    if n > MANY and n > size // 16:
        raise SourceError(
            f"'{name}' claims to contain {n:,} items in {memory_budget.amount(size)}, too little for "
            "images; is the file damaged?"
        )
