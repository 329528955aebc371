"""PNG by bands of rows: for files too large to decode in one piece, and for 16 bits in several channels.

Pillow decodes a PNG as a whole, and of 16-bit color keeps one half of each sample. Here the rows are inflated a few at
a time, and each band is given to Pillow's decoder as a small PNG of its own that begins with the row before it.

Pillow decodes a PNG as a whole, and of 16-bit color keeps one half of each sample. Here the rows are inflated a few at
a time, and each band is given to Pillow's decoder as a small PNG of its own that begins with the row before it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image

from imatlas.errors import DecodeError
from imatlas.images.formats.headers import PNG, Png, is_sound_chunk, png_chunks, png_header

_BAND = 2**21
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Color types of 8-bit files with the same filters, by bytes per pixel.
_DISGUISE = {1: 0, 2: 4, 3: 2, 4: 6}
_TRUNCATED = "a truncated PNG file: it ends before the picture does"


class PngBands:
    """A non-interlaced PNG, read by bands.

    Attributes
    ----------
    header : Png
    channels, dtype, alpha
        Of the resulting pixels: palettes and low depths are expanded.
    """

    def __init__(self, data: bytes, header: Png) -> None:
        self._data = data
        self.header = header
        self._kept = b"".join(chunk for kind, chunk in self._chunks() if kind in (b"PLTE", b"tRNS"))
        bits = _CHANNELS[header.color] * header.depth
        self._pixel = max(1, bits // 8)
        self._row = -(-header.width * bits // 8)
        self._direct = header.depth == 16 or (header.depth == 8 and header.color != 3 and not self._kept)
        self.dtype = np.dtype(np.uint16 if header.depth == 16 else np.uint8)
        transparent = b"tRNS" in self._kept
        self._key = self._clear_value() if header.depth == 16 and header.color in (0, 2) else None
        if self._direct:
            self.alpha = header.color in (4, 6) or self._key is not None
            self.channels = _CHANNELS[header.color] + (self._key is not None)
        else:
            colors = 1 if header.color in (0, 4) else 3
            self.alpha = transparent or header.color in (4, 6)
            self.channels = colors + self.alpha

    def _clear_value(self) -> np.ndarray | None:
        """The 16-bit value (C,) that stands for transparent, if there is one."""
        for kind, chunk in self._chunks():
            if kind == b"tRNS" and len(chunk) == 12 + 2 * _CHANNELS[self.header.color]:
                return np.frombuffer(chunk[8:-4], ">u2").astype(np.uint16)
        return None

    def about(self) -> bytes:
        """A PNG of one pixel with all metadata of this one (EXIF, XMP), wherever it stands."""
        metadata = b"".join(chunk for kind, chunk in self._chunks() if kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"))
        return _png(1, 1, 8, 0, b"\x00\x00", metadata)

    def _chunks(self) -> Iterator[tuple[bytes, bytes]]:
        """(kind, whole chunk) of everything before the end of the pixels."""
        for kind, start, end in png_chunks(self._data):
            if kind == b"IEND":
                return
            if kind == b"IDAT" and not is_sound_chunk(self._data, start, end):
                cut_off = end + 4 > len(self._data)
                raise DecodeError(_TRUNCATED if cut_off else "a damaged PNG file (broken checksum)")
            yield kind, self._data[start - 8 : end + 4]

    def _inflated(self) -> Iterator[bytes]:
        """The filtered rows in bands; refuses a file that ends too early."""
        rows = max(1, _BAND // (self._row + 1))
        left = self.header.height
        inflater = zlib.decompressobj()
        waiting = b""
        have = bytearray()
        chunks = (chunk[8:-4] for kind, chunk in self._chunks() if kind == b"IDAT")
        while left:
            wanted = min(rows, left) * (self._row + 1)
            while len(have) < wanted:
                if not waiting:
                    found = next(chunks, None)
                    if found is None:
                        raise DecodeError(_TRUNCATED)
                    waiting = found
                have += inflater.decompress(waiting, wanted - len(have))
                waiting = inflater.unconsumed_tail
                if inflater.eof and len(have) < wanted:
                    raise DecodeError(_TRUNCATED)
            yield bytes(have)
            left -= wanted // (self._row + 1)
            have.clear()

    def bands(self) -> Iterator[tuple[int, np.ndarray]]:
        """(top, rows (h, W, C)) from top to bottom."""
        before = bytes(self._row)
        top = 0
        for filtered in self._inflated():
            raw = self._unfiltered(before, filtered)
            before = raw[-1].tobytes()
            yield top, self._pixels(raw)
            top += len(raw)

    def _unfiltered(self, before: bytes, filtered: bytes) -> np.ndarray:
        """The bytes (h, row) of some rows, unfiltered by Pillow's decoder."""
        rows = len(filtered) // (self._row + 1)
        content = b"\x00" + before + filtered
        if self._pixel in _DISGUISE:
            width = self._row // self._pixel
            small = _png(width, rows + 1, 8, _DISGUISE[self._pixel], content)
            return np.asarray(Image.open(BytesIO(small), formats=("PNG",))).reshape(rows + 1, self._row)[1:]
        small = _png(self.header.width, rows + 1, 16, self.header.color, content)
        raw = np.empty((rows + 1, self.header.width, self._pixel), np.uint8)
        layout = "RGB" if self._pixel == 6 else "RGBA"
        for half, order in ((0, "B"), (1, "L")):
            image = Image.open(BytesIO(small), formats=("PNG",))
            tile = image.tile[0]
            args = (f"{layout};16{order}", *tile.args[1:]) if isinstance(tile.args, tuple) else f"{layout};16{order}"
            image.tile = [tile._replace(args=args)]
            raw[..., half::2] = np.asarray(image)
        return raw.reshape(rows + 1, self._row)[1:]

    def _pixels(self, raw: np.ndarray) -> np.ndarray:
        """Rows of bytes as pixels (h, W, C)."""
        header = self.header
        if self._direct:
            stored = np.dtype(">u2" if header.depth == 16 else "u1")
            pixels = raw.reshape(-1).view(stored).reshape(len(raw), header.width, -1)
            return pixels if self._key is None else with_transparency(pixels.astype(np.uint16), self._key)
        content = np.zeros((len(raw), self._row + 1), np.uint8)
        content[:, 1:] = raw
        small = _png(header.width, len(raw), header.depth, header.color, content.tobytes(), self._kept)
        mode = ("L", "LA", "RGB", "RGBA")[self.channels - 1]
        image = Image.open(BytesIO(small), formats=("PNG",))
        scale_transparency(image, header.depth)
        return np.asarray(image.convert(mode)).reshape(len(raw), header.width, self.channels)


def sound_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG embedded in another file, checked because its decoder prints errors to the terminal.

    Raises
    ------
    DecodeError
        If a checksum is wrong, or the pixel data have another length.
    """
    header = png_header(data)
    if header is None or header.color not in _CHANNELS:
        raise DecodeError("an embedded PNG without a valid header")
    inflater, n_bytes = zlib.decompressobj(), 0
    most = 2 * (header.height + 8) * (header.width * _CHANNELS[header.color] * header.depth // 8 + 2)  # interlaced, too
    kind = b""
    for kind, start, end in png_chunks(data):
        if end + 4 > len(data):
            break
        if not is_sound_chunk(data, start, end):
            raise DecodeError("a damaged embedded PNG (wrong checksum)")
        waiting = data[start:end] if kind == b"IDAT" else b""
        while waiting and n_bytes <= most:
            n_bytes += len(inflater.decompress(waiting, 2**16))
            waiting = inflater.unconsumed_tail
    if kind != b"IEND":
        raise DecodeError("a truncated embedded PNG")
    if not inflater.eof or inflater.unused_data or n_bytes > most:
        raise DecodeError("a damaged embedded PNG (its pixel data have the wrong length)")
    return header.width, header.height


def with_transparency(pixels: np.ndarray, value: np.ndarray) -> np.ndarray:
    """16-bit pixels (h, W, C) with an alpha channel: 0 for pixels of the given value (C,)."""
    opacity = np.where((pixels == value).all(axis=-1, keepdims=True), np.uint16(0), np.uint16(65535))
    return np.concatenate([pixels, opacity], axis=-1)


def scale_transparency(image: Image.Image, depth: int) -> None:
    """Scale the transparent gray value to 8 bits, as Pillow scales the pixels of 2 and 4 bits, but not this value."""
    value = image.info.get("transparency")
    if depth in (2, 4) and image.mode == "L" and isinstance(value, int):
        image.info["transparency"] = min(255, value * (255 // (2**depth - 1)))


def _png(width: int, height: int, depth: int, color: int, rows: bytes, chunks: bytes = b"") -> bytes:
    """A PNG of filtered rows, stored without compression."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return b"".join(
            (struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"".join((PNG, header, chunks, chunk(b"IDAT", zlib.compress(rows, 0)), chunk(b"IEND", b"")))
