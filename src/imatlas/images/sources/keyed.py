"""Images that are read by their keys, such as the originals of an atlas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from imatlas.images.sources.base import HEAD
from imatlas.images.sources.origin import Origin


class KeyedSource:
    """Some images of a place, each with a known hash.

    Parameters
    ----------
    place : str
        Where they lie, as an atlas records it.
    keys, hashes : sequence of str
        SHA-256 in hexadecimal digits; an image with another hash must be refused by `read`.
    read : callable
        Key and hash to the bytes of a file, or pixels; raises DecodeError.
    """

    def __init__(self, place: str, keys: Sequence[str], hashes: Sequence[str], read: Callable[[str, str], Any]) -> None:
        self.name = place
        self.root: Path | None = None
        self.keys = list(keys)
        self.skipped: list[tuple[str, str]] = []
        self.explicit = True
        self._hashes, self._read = list(hashes), read

    @property
    def origin(self) -> Origin:
        """The place."""
        return Origin(self.name)

    def stamps(self) -> list[tuple[int, int]] | None:
        """Half of the hash of each image, in two numbers that fit into 64 bits."""
        return [(int(text[:15], 16), int(text[15:30], 16)) for text in self._hashes]

    def head(self, index: int) -> bytes:
        """The first bytes of an image, or b"" if it is not a file."""
        content = self.read(index)
        return content[:HEAD] if isinstance(content, bytes) else b""

    def packed(self, index: int) -> int | None:
        """The bytes of an image on disk; None if it is not in a file."""
        content = self.read(index)
        return len(content) if isinstance(content, bytes) else None

    def read(self, index: int) -> Any:
        """An image as it is stored."""
        return self._read(self.keys[index], self._hashes[index])
