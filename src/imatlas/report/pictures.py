"""The pictures of one page: each is encoded once, stored once, and knows how often it is shown."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imatlas.errors import InputError
from imatlas.result import Picture

if TYPE_CHECKING:
    from PIL import Image

MAX_BYTES = 10_000_000
"""All pictures of a page together, before base64 adds a third. Pictures behind a click are left out beyond it."""

_HEAVY = 48_000
_MAGIC = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


@dataclass(eq=False)
class Stored:
    """One picture of the page."""

    id: str
    mime: str
    content: bytes
    width: int
    height: int
    shown: int = 0
    """How many places of the page show it at once."""
    behind: int = 0
    """How many places show it after a click."""

    @property
    def uri(self) -> str:
        """The picture as a `data:` address."""
        return f"data:{self.mime};base64,{base64.b64encode(self.content).decode('ascii')}"

    @property
    def shared(self) -> bool:
        """Whether more than one place needs it, at least one of them without a click."""
        return self.shown > 0 and self.shown + self.behind > 1


class Pictures:
    """All pictures of one page by content, in the order they came."""

    def __init__(self) -> None:
        self._by_hash: dict[bytes, Stored] = {}
        self.total = 0

    def show(self, picture: Picture, size: int) -> Stored:
        """Store a picture that the page shows at `size` CSS pixels."""
        stored = self._store(picture, size)
        stored.shown += 1
        return stored

    def show_later(self, pictures: list[Picture], size: int) -> list[Stored] | None:
        """Store pictures that a click brings up; None, and nothing stored, where they do not fit in `MAX_BYTES`."""
        before = dict(self._by_hash), self.total
        stored = [self._store(picture, size) for picture in pictures]
        if self.total > MAX_BYTES:
            self._by_hash, self.total = before
            return None
        for one in stored:
            one.behind += 1
        return stored

    def shared(self) -> list[Stored]:
        """Pictures that several places show: the page holds them once and refers to them."""
        return [stored for stored in self._by_hash.values() if stored.shared]

    def behind(self) -> dict[str, str]:
        """Pictures that only a click shows: id -> `data:` address."""
        return {stored.id: stored.uri for stored in self._by_hash.values() if not stored.shown}

    def _store(self, picture: Picture, size: int) -> Stored:
        content = _slim(bytes(picture), size) if isinstance(picture, bytes | bytearray) else _encode(picture)
        key = hashlib.sha256(content).digest()
        if key not in self._by_hash:
            width, height = _size(content)
            name = f"pic-{len(self._by_hash)}"
            self._by_hash[key] = Stored(name, _mime(content), content, width, height)
            self.total += len(content)
        return self._by_hash[key]


def _mime(content: bytes) -> str:
    for magic, mime in _MAGIC.items():
        if content.startswith(magic):
            return mime
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    raise InputError(
        f"A picture of a report must be a PNG, JPEG, WebP or GIF file; got bytes that start with {content[:8]!r}."
    )


def _size(content: bytes) -> tuple[int, int]:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return image.size


def _slim(content: bytes, size: int) -> bytes:
    """The file as it is, unless it is heavy and far larger than it is shown."""
    from PIL import Image

    _mime(content)
    if len(content) < _HEAVY:
        return content
    with Image.open(io.BytesIO(content)) as image:
        if max(image.size) <= 3 * size:
            return content
        small = image.convert("RGBA" if "A" in image.getbands() or image.mode == "P" else "RGB")
    small.thumbnail((2 * size, 2 * size))
    return _webp(small)


def _encode(pixels: np.ndarray) -> bytes:
    from PIL import Image

    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise InputError(
            "A picture of a report must be an array (H, W, C) of uint8 with 1, 3 or 4 channels; "
            f"got {pixels.shape} of {pixels.dtype}."
        )
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
    if max(image.size) > 40:
        return _webp(image)
    buffer = io.BytesIO()  # tiny pictures are shown enlarged, where lossy coding would be seen
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=84, method=4)
    return buffer.getvalue()
