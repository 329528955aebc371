"""Members of ZIP (and .npz) files, unpacked no further than requested, with any compression method.

Python's zipfile unpacks bzip2 and LZMA without a bound: a kilobyte becomes gigabytes in one call.

The zipfile of Python unpacks bzip2 and LZMA without any bound: a kilobyte becomes gigabytes in one call.
"""

from __future__ import annotations

import bz2
import lzma
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

from imatlas.errors import DecodeError

_CHUNK = 2**16


class Member:
    """The content of one member, read from its beginning; use it as a context manager.

    Parameters
    ----------
    path : Path
        The ZIP file.
    about : zipfile.ZipInfo
        The member.

    Raises
    ------
    DecodeError
        If it is encrypted, or compressed by an unsupported method.
    zipfile.BadZipFile
        If the archive is damaged at this member.
    """

    def __init__(self, path: Path, about: zipfile.ZipInfo) -> None:
        if about.flag_bits & 1:
            raise DecodeError("encrypted; unpack the archive with its password first")
        if about.compress_type not in _UNPACKERS:
            raise DecodeError(f"compressed by ZIP method {about.compress_type}, which is not supported; use Deflate")
        self._file = open(path, "rb")  # noqa: SIM115 - closed on exit
        try:
            self._file.seek(about.header_offset)
            header = self._file.read(30)
            if len(header) < 30 or header[:4] != b"PK\x03\x04":
                raise zipfile.BadZipFile("there is no member at the offset in its directory")
            self._file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), 1)
            self._left = about.compress_size
            self._unpacker = _UNPACKERS[about.compress_type](self._packed)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Member:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def _packed(self, size: int) -> bytes:
        """The next packed bytes."""
        part = self._file.read(min(size, self._left))
        self._left -= len(part)
        return part

    def read(self, size: int) -> bytes:
        """The next `size` unpacked bytes, fewer at the end."""
        if self._unpacker is None:
            return self._packed(size)
        out = BytesIO()  # getvalue() does not copy
        while (wanted := size - out.tell()) > 0 and not self._unpacker.eof:
            packed = getattr(self._unpacker, "unconsumed_tail", b"")
            if not packed and getattr(self._unpacker, "needs_input", True):
                packed = self._packed(_CHUNK)
            part = self._unpacker.decompress(packed, wanted)
            if not part and not packed:
                break
            out.write(part)
        return out.getvalue()


def packed_size(about: zipfile.ZipInfo, archive_size: int) -> int:
    """The packed bytes of a member in an archive of a given size, whatever it declares."""
    return max(0, min(about.compress_size, archive_size - about.header_offset))


def _lzma(packed: Callable[[int], bytes]) -> lzma.LZMADecompressor:
    """The decompressor of an LZMA member, whose properties precede its data."""
    head = packed(4)
    size = int.from_bytes(head[2:4], "little")
    properties = packed(size)
    if size != 5 or len(properties) < size or properties[0] >= 9 * 5 * 5:
        raise zipfile.BadZipFile("its LZMA properties are damaged")
    code = properties[0]
    options = {
        "id": lzma.FILTER_LZMA1,
        "lc": code % 9,
        "lp": code // 9 % 5,
        "pb": code // 45,
        "dict_size": min(int.from_bytes(properties[1:5], "little"), 2**26),
    }
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[options])


_UNPACKERS: dict[int, Callable[[Callable[[int], bytes]], Any]] = {
    zipfile.ZIP_STORED: lambda packed: None,
    zipfile.ZIP_DEFLATED: lambda packed: zlib.decompressobj(-zlib.MAX_WBITS),
    zipfile.ZIP_BZIP2: lambda packed: bz2.BZ2Decompressor(),
    zipfile.ZIP_LZMA: _lzma,
}
