"""The pictures of one page, each encoded and stored once."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from imatlas.errors import InputError
from imatlas.images.decode import read_picture
from imatlas.images.encode import encode
from imatlas.images.formats.sniff import sniff
from imatlas.result import Picture

MAX_BYTES = 10_000_000
"""Size limit of all pictures of a page, before base64. Pictures shown on a click are left out beyond it."""

TINY = 40
"""Pictures up to this width in pixels are enlarged without smoothing."""

_HEAVY, _QUALITY = 48_000, 84
_MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}


@dataclass(eq=False)
class Stored:
    """One picture of the page."""

    id: str
    mime: str
    content: bytes
    shown: int = 0
    """Number of places that show it."""
    behind: int = 0
    """Number of places that show it on a click."""

    @property
    def uri(self) -> str:
        """The picture as a `data:` URI."""
        return f"data:{self.mime};base64,{base64.b64encode(self.content).decode('ascii')}"

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as browsers show it."""
        picture = read_picture(self.content)
        return picture.width, picture.height

    @property
    def tiny(self) -> bool:
        """Whether it is enlarged without smoothing."""
        return self.size[0] <= TINY

    @property
    def shared(self) -> bool:
        """Whether it is used more than once, at least once without a click."""
        return self.shown > 0 and self.shown + self.behind > 1


class Pictures:
    """All pictures of one page by content, in order of first use."""

    def __init__(self) -> None:
        self._by_hash: dict[bytes, Stored] = {}
        self.total = 0

    def show(self, picture: Picture, size: int) -> Stored:
        """Store a picture that is shown at `size` CSS pixels."""
        stored = self._store(picture, size)
        stored.shown += 1
        return stored

    def show_later(self, pictures: list[Picture], size: int) -> list[Stored] | None:
        """Store pictures that are shown on a click; None, and nothing stored, if they exceed `MAX_BYTES`."""
        before = dict(self._by_hash), self.total
        stored = [self._store(picture, size) for picture in pictures]
        if self.total > MAX_BYTES:
            self._by_hash, self.total = before
            return None
        for one in stored:
            one.behind += 1
        return stored

    def shared(self) -> list[Stored]:
        """Pictures that are used several times: the page holds them once."""
        return [stored for stored in self._by_hash.values() if stored.shared]

    def behind(self) -> dict[str, str]:
        """Pictures that are only shown on a click: id -> `data:` URI."""
        return {stored.id: stored.uri for stored in self._by_hash.values() if not stored.shown}

    def _store(self, picture: Picture, size: int) -> Stored:
        content = (
            _slim(bytes(picture), size) if isinstance(picture, bytes | bytearray) else _encode(np.asarray(picture))
        )
        key = hashlib.sha256(content).digest()
        if key not in self._by_hash:
            self._by_hash[key] = Stored(f"pic-{len(self._by_hash)}", _mime(content), content)
            self.total += len(content)
        return self._by_hash[key]


def _mime(content: bytes) -> str:
    name = sniff(content[:64]) or "UNKNOWN"
    if name not in _MIME:
        shown = ", ".join(_MIME)
        raise InputError(f"A picture of a report must be a {shown} file; got bytes that start with {content[:8]!r}.")
    return _MIME[name]


def _slim(content: bytes, size: int) -> bytes:
    """The file itself, or a smaller one if it is heavy and much larger than shown."""
    if len(content) < _HEAVY:
        return content
    picture = read_picture(content)
    if max(picture.width, picture.height) <= 3 * size or picture.kind.dtype != "uint8":
        return content
    return encode(picture.thumbnail(2 * size), "webp", quality=_QUALITY)


def _encode(pixels: np.ndarray) -> bytes:
    if pixels.dtype != np.uint8:
        raise InputError(
            f"The pixels of a report must be uint8; got {pixels.dtype}: use imatlas.images.tensors.to_view."
        )
    if max(pixels.shape[:2]) <= TINY:  # enlarged, so lossy compression would show
        return encode(pixels, "png")
    return encode(pixels, "webp", quality=_QUALITY)
