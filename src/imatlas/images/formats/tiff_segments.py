"""The strips and tiles of a TIFF page, unpacked a few rows at a time and no further than the pixels need."""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any, Literal

import numpy as np
from PIL import Image

from imatlas.errors import DecodeError
from imatlas.images.formats import color
from imatlas.images.formats.row_bands import Sink
from imatlas.images.formats.tiff_colors import JPEGS, PALETTE, YCBCR

_ROWS = 2**22
_TRUNCATED = "a truncated TIFF file: it ends before the picture does"
_UNPACKERS: dict[int, Callable[[], Any]] = {
    8: zlib.decompressobj,
    32946: zlib.decompressobj,
    50013: zlib.decompressobj,
    34925: lambda: lzma.LZMADecompressor(memlimit=2**28),
}
_THROUGH_LIBTIFF = (5, 32773, 50000)
"""LZW, PackBits and Zstandard, unpacked by Pillow's libtiff."""
_TOGETHER = 512
"""Strips given to libtiff at once, as opening a file takes longer than a short strip."""
_SHARED = 4
"""All strips of a file may have this many times its size: some writers let blank tiles share their bytes."""
_NODATA = 42113
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def unpacked(data: bytes, unpacker: Any, sizes: Iterator[int]) -> Iterator[bytes]:
    """Parts of given sizes of the unpacked `data`; the last may be shorter.

    `unpacker` is a decompressor of zlib, lzma or bz2, whose output is bounded per call.
    """
    waiting = data
    for size in sizes:
        have = bytearray()
        while len(have) < size and not unpacker.eof:
            part = unpacker.decompress(waiting, size - len(have))
            waiting = getattr(unpacker, "unconsumed_tail", b"")
            have += part
            if not part and not waiting:
                break
        yield bytes(have)


def unpacks_further(unpacker: Any) -> bool:
    """Whether more output is to come."""
    tail = getattr(unpacker, "unconsumed_tail", b"")
    return not unpacker.eof and bool(unpacker.decompress(tail, 1))


def packed_bytes(offsets: Sequence[int], counts: Sequence[int], size: int, most: int = 2**62) -> int:
    """Total bytes of the strips or tiles of a page in a file of `size` bytes; at most `most` each."""
    n = min(len(offsets), len(counts))
    starts, lengths = (np.asarray(v[:n], dtype=np.float64) for v in (offsets, counts))  # may exceed int64
    return int(np.clip(np.minimum(lengths, size - starts), 0, most).sum())


def check_shared(packed: int, size: int) -> None:
    """Refuse strips or tiles with far more bytes in total than their file."""
    if packed > _SHARED * size + 2**16:
        raise DecodeError("a damaged TIFF file: its strips or tiles share their bytes, as in a decompression bomb")


def _through_libtiff(strips: list[bytes], row: int, rows: int, height: int, compression: int) -> bytes:
    """Unpack strips of `height` rows by Pillow, presented as a picture of bytes."""
    samples = 4 if row % 4 == 0 else 1  # CMYK rather than gray: fewer pixels, which Pillow limits
    starts = np.cumsum([8, *map(len, strips)])
    body = b"".join(strips) + b"\0" * (int(starts[-1]) % 2)
    values = {256: [row // samples], 257: [rows], 258: [8] * samples, 259: [compression]}
    values |= {262: [5 if samples == 4 else 1], 273: starts[:-1].tolist(), 277: [samples], 278: [height]}
    values |= {279: list(map(len, strips))}
    entries = b""
    for name, numbers in values.items():
        kind, code = (3, "H") if name == 258 else (4, "I")
        content = struct.pack(f"<{len(numbers)}{code}", *numbers)
        if len(content) > 4:  # stored after the data
            place = struct.pack("<I", 8 + len(body))
            body += content + b"\0" * (len(content) % 2)
        else:
            place = content.ljust(4, b"\0")
        entries += struct.pack("<HHI", name, kind, len(numbers)) + place
    file = b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(values)) + entries + bytes(4)
    return Image.open(BytesIO(file), formats=("TIFF",)).tobytes()


class Segments:
    """The layout of the pixels of one page in its file.

    Attributes
    ----------
    is_simple : bool
        Whether they are read here by rows; others are decoded by tifffile as a whole.
    is_subsampled : bool
        Whether chroma is subsampled, outside JPEG.
    n_bytes : int
        Memory for reading, in addition to the resulting pixels.
    n_stored : int
        Number of bytes of a strip or tile that are read: those of its pixels if it is not compressed, or all.
    """

    def __init__(self, page: Any) -> None:
        self._page = page
        self.planes = page.samplesperpixel if page.planarconfig == 2 else 1
        self.samples = page.samplesperpixel // self.planes
        tiled = page.is_tiled
        self.width = page.tilewidth if tiled else page.imagewidth
        self.height = page.tilelength if tiled else max(1, min(page.rowsperstrip, page.imagelength))
        self.across = -(-page.imagewidth // self.width) if self.width else 0
        self.down = -(-page.imagelength // self.height) if self.height else 0
        dtype = page.dtype
        whole = self.width * self.height * self.samples * (dtype.itemsize if dtype is not None else 1)
        bits = page.bitspersample if isinstance(page.bitspersample, int) else 0
        self._bits = bits if dtype is not None and bits != 8 * dtype.itemsize else 0
        self._unit = _unit_of(page)
        self._nodata = _nodata_of(page)
        self.is_simple = (
            dtype is not None
            and dtype.kind in "uifb"
            and (not self._bits or (dtype.kind in "uib" and bits <= 32 and page.predictor == 1))
            and (page.compression == 1 or page.compression in _UNPACKERS or page.compression in _THROUGH_LIBTIFF)
            and (page.predictor in (1, 2) or (page.predictor == 3 and dtype.kind == "f"))
            and max(1, page.imagedepth) == 1
            and (self._unit == (1, 1) or (bits == 8 and page.planarconfig == 1 and page.predictor == 1))
            and self.across > 0
        )
        # Bytes of one row of a segment, or of a block row of subsampled chroma.
        across, down = self._unit
        self._row = -(-self.width * self.samples * bits // 8)
        if self._unit != (1, 1):
            self._row = -(-self.width // across) * (across * down + 2)
        size = page.imagewidth * page.imagelength * page.samplesperpixel * (dtype.itemsize if dtype is not None else 1)
        self.n_bytes = (4 + 16 * bool(self._bits)) * _ROWS + 4 * self._row if self.is_simple else 2 * whole + 2 * size
        self.is_subsampled = self._unit != (1, 1)
        self.n_stored = (
            self._row * self._packed_rows(self.height) if self.is_simple and page.compression == 1 else 2**62
        )
        if self.is_simple and page.compression in _THROUGH_LIBTIFF:
            self.n_bytes += 3 * max(_ROWS, self._row * self.height)

    def read(self, data: bytes, sink: Sink, channel: int = 0) -> None:
        """Write the pixels of the page to a sink, as channels from `channel` on."""
        page = self._page
        if not self.is_simple:
            self.check_unpacked(data, page)
            array = page.asarray(maxworkers=1)
            if page.axes not in ("YX", "YXS", "SYX"):
                raise DecodeError(f"the axes {page.axes} of its pixels are not supported")
            array = array[..., None] if page.axes == "YX" else np.moveaxis(array, page.axes.index("S"), 2)
            sink.put(0, 0, self._at_full_scale(array))
            return
        order: Literal["<", ">"] = "<" if page.parent.byteorder == "<" else ">"
        for plane, top, left, rows, strips in self._strips(data):
            for start, raw in self._by_rows(strips, rows):
                part = self._samples_of(raw, order)
                part = self._at_full_scale(part)
                sink.put(top + start * self._unit[1], left, part, channel + plane * self.samples)

    def _at_full_scale(self, part: np.ndarray) -> np.ndarray:
        """Samples in their own dtype, white at its maximum; values marked as missing become NaN."""
        part = own_depth(part)
        if part.dtype == np.float32 and self._nodata is not None:
            part = np.where(part == self._nodata, np.float32(np.nan), part)
        return part if self._page.photometric == PALETTE else color.full_scale(part, self._page.bitspersample)

    def _packed_rows(self, rows: int) -> int:
        """The number of stored rows of this many pixel rows."""
        return -(-rows // self._unit[1])

    def _strips(self, data: bytes) -> Iterator[tuple[int, int, int, int, list[bytes]]]:
        """(plane, top, left, rows, packed bytes) of each strip or tile; of several strips if libtiff unpacks them.

        Missing ones are left as zeros.
        """
        page = self._page
        together = 1
        if page.compression in _THROUGH_LIBTIFF and not page.is_tiled:
            together = max(1, min(_TOGETHER, _ROWS // max(1, self._row * self._packed_rows(self.height))))
        waiting: list[bytes] = []
        first = (0, 0, 0)
        height = 0
        for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=False)):
            plane, place = divmod(index, self.across * self.down)
            if plane >= self.planes:
                break
            top, left = place // self.across * self.height, place % self.across * self.width
            count = count or self._missing_count(data, offset, min(self.height, page.imagelength - top))
            hole = offset == 0 or count == 0
            if waiting and (hole or len(waiting) == together or place == 0):
                yield *first, height, waiting
                waiting = []
            if hole:
                continue
            if not waiting:
                first, height = (plane, top, left), 0
            height += self.height if page.is_tiled else min(self.height, page.imagelength - top)
            packed = data[offset : offset + count]
            waiting.append(packed.translate(_REVERSED) if page.fillorder == 2 else packed)
        if waiting:
            yield *first, height, waiting

    def _missing_count(self, data: bytes, offset: int, rows: int) -> int:
        """The bytes of a strip or tile with an offset and a byte count of 0."""
        if self._page.compression == 1:
            return self._row * self._packed_rows(self.height if self._page.is_tiled else rows)
        return len(data) - offset if self.across * self.down * self.planes == 1 else 0

    def _samples_of(self, raw: bytes, order: Literal["<", ">"]) -> np.ndarray:
        """The samples (rows, width, samples) in the bytes of whole rows."""
        page = self._page
        shape = (-1, self.width, self.samples)
        if self._bits:
            return self._bits_of(raw).astype(page.dtype).reshape(shape)
        if self._unit != (1, 1):
            return self._spread(np.frombuffer(raw, np.uint8))
        if page.predictor == 3:  # byte differences, high bytes of a row first (Adobe TIFF Technical Note 3)
            size = page.dtype.itemsize
            differences = np.frombuffer(raw, np.uint8).reshape(-1, self.width * size, self.samples)
            planes = np.cumsum(differences, axis=1, dtype=np.uint8).reshape(len(differences), size, -1)
            return np.ascontiguousarray(planes.transpose(0, 2, 1)).view(f">f{size}").astype(page.dtype).reshape(shape)
        stored = page.dtype if page.predictor == 1 or page.dtype.kind != "f" else np.dtype(f"u{page.dtype.itemsize}")
        part = np.frombuffer(raw, stored.newbyteorder(order)).reshape(shape)
        part = part.astype(stored.newbyteorder("="), copy=False)
        if page.predictor == 2:
            part = np.cumsum(part, axis=1, dtype=part.dtype)
        return part.view(page.dtype)

    def _bits_of(self, raw: bytes) -> np.ndarray:
        """Bit-packed integers, each row starting at a whole byte."""
        ones = np.unpackbits(np.frombuffer(raw, np.uint8).reshape(-1, self._row), axis=1)
        ones = ones[:, : self.width * self.samples * self._bits].reshape(-1, self._bits)
        if self._bits > 16:
            padded = np.zeros((len(ones), 32), np.uint8)
            padded[:, 32 - self._bits :] = ones
            values = np.packbits(padded, axis=1).view(">u4")[:, 0]
        else:
            values = ones @ (1 << np.arange(self._bits - 1, -1, -1, dtype=np.uint16))
        if self._page.dtype.kind == "i":
            return values.astype(np.int64) - (ones[:, 0].astype(np.int64) << self._bits)
        return np.asarray(values)

    def _spread(self, raw: np.ndarray) -> np.ndarray:
        """Luma and chroma (rows, width, 3) of subsampled blocks (TIFF 6.0, section 21)."""
        across, down = self._unit
        blocks = raw.reshape(-1, self._row // (across * down + 2), across * down + 2)
        squares = blocks[..., :-2].reshape(*blocks.shape[:2], down, across)
        light = squares.swapaxes(1, 2).reshape(len(blocks) * down, -1, 1)
        colors = blocks[..., -2:].repeat(down, axis=0).repeat(across, axis=1)
        return np.concatenate([light, colors], axis=2)[:, : self.width]

    def _by_rows(self, strips: list[bytes], rows: int) -> Iterator[tuple[int, bytes]]:
        """(first row, bytes of whole rows) of one segment, or of several that lie below each other."""
        rows, height = self._packed_rows(rows), self._packed_rows(self.height)
        most = max(1, _ROWS // max(1, self._row))
        starts = range(0, rows, most)
        packed = strips[0]
        if self._page.compression == 1:
            for start in starts:
                stop = min(rows, start + most)
                raw = packed[start * self._row : stop * self._row]
                if len(raw) < (stop - start) * self._row:
                    raise DecodeError(_TRUNCATED)
                yield start, raw
            return
        if self._page.compression in _THROUGH_LIBTIFF:
            whole = _through_libtiff(strips, self._row, rows, min(height, rows), self._page.compression)
            for start in starts:
                yield start, whole[start * self._row : min(rows, start + most) * self._row]
            return
        unpacker = _UNPACKERS[self._page.compression]()
        sizes = (min(most, rows - start) * self._row for start in starts)
        for start, raw in zip(starts, unpacked(packed, unpacker, sizes), strict=True):
            if len(raw) < min(most, rows - start) * self._row:
                raise DecodeError(_TRUNCATED)
            yield start, raw
        slack = (height - rows) * self._row  # the last strip may be padded
        if slack:
            next(unpacked(b"", unpacker, iter([slack])))
        if unpacks_further(unpacker):
            raise DecodeError("a strip or tile that unpacks to more than its pixels")

    def check_unpacked(self, data: bytes, frame: Any) -> None:
        """Refuse a segment that would unpack to far more than its pixels, before tifffile unpacks it as a whole.

        `frame` is the page whose segments are checked: this one, or another of the same layout.
        """
        page = self._page
        if page.compression not in _UNPACKERS:
            return
        bits = page.bitspersample if isinstance(page.bitspersample, int) else 64
        expected = self.height * (self.width * self.samples * max(1, page.imagedepth) * bits // 8 + 16)
        sizes = [2**20] * (2 * expected // 2**20) + [2 * expected % 2**20]
        n = self.across * self.down * self.planes
        for offset, count in zip(frame.dataoffsets[:n], frame.databytecounts[:n], strict=False):
            if count * 1032 <= 2 * expected and page.compression != 34925:  # the maximal ratio of Deflate
                continue
            packed = data[offset : offset + count]
            if page.fillorder == 2:
                packed = packed.translate(_REVERSED)
            unpacker = _UNPACKERS[page.compression]()
            for _ in unpacked(packed, unpacker, iter(sizes)):
                if unpacker.eof:
                    break
            if unpacks_further(unpacker):
                raise DecodeError("a strip or tile that unpacks to more than its pixels")


def _unit_of(page: Any) -> tuple[int, int]:
    """Pixels across and down that share chroma in the bytes of a page, outside JPEG."""
    if page.photometric != YCBCR or page.compression in JPEGS or page.samplesperpixel != 3:
        return (1, 1)
    across, down = page.subsampling or ((2, 2) if page.planarconfig == 1 else (1, 1))
    return (max(1, int(across)), max(1, int(down)))


def _nodata_of(page: Any) -> np.float32 | None:
    """The value for missing pixels in GDAL's tag."""
    text = page.tags.valueof(_NODATA)
    try:
        with np.errstate(all="ignore"):
            return np.float32(text.strip("\0 ")) if isinstance(text, str) else None
    except ValueError:
        return None


def own_depth(array: np.ndarray) -> np.ndarray:
    """Samples of any numeric dtype as uint8, uint16 or float32."""
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        return array.astype(f"u{array.dtype.itemsize}", copy=False)
    return array.astype(np.float32)
