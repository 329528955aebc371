"""Netpbm: text files (P1 to P3), which Pillow reads number by number, unusual maxima, PAM (P7) and PFM."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from imatlas.errors import DecodeError

_BLANK = b" \t\n\r\x0b\x0c"
_CHUNK = 2**20
_DIGITS = 9
_LONGEST_WORD = 64
_LONGEST_HEADER = 2**20
# Both take linear time: neither can begin where the other does, and no repetition is nested.
_BLANKS = re.compile(rb"\s+")
_COMMENT = re.compile(rb"#[^\n\r]*")
_NO_HEADER = "a damaged PPM file: its header cannot be read"


def after_blanks(data: bytes, place: int) -> int:
    """The start of the next word of a header, after blanks and comments.

    Raises
    ------
    DecodeError
        If there is none within a megabyte, which would take Python minutes to skip.
    """
    last = min(len(data), _LONGEST_HEADER)
    while place < last:
        found = _BLANKS.match(data, place, last) or _COMMENT.match(data, place, last)
        if found is None:
            return place
        place = found.end()
    raise DecodeError(_NO_HEADER)


def check_header(data: bytes) -> None:
    """Refuse a file whose three words (size and scale; size alone for kind 4) do not follow soon."""
    place = 2
    for _ in range(2 if data[1:2] in b"14" else 3):
        place = after_blanks(data, place)
        found = re.compile(rb"[^\s#]{1,64}").match(data, place)
        place = found.end() if found else len(data)


class Netpbm:
    """The header of a Netpbm file.

    Attributes
    ----------
    kind : bytes
        b"1" to b"7", b"F" and b"f" (PFM of colors and gray).
    width, height, top : int
        Size and maximal value.
    start : int
        Offset of the samples.
    """

    def __init__(self, data: bytes) -> None:
        self.kind = data[1:2]
        if self.kind == b"7":
            self._read_pam(data)
        else:
            self._read_header(data)
        if not 0 < self.top < 65536:
            raise DecodeError(f"a damaged PPM file: its maximal value is {self.top}")

    def _read_header(self, data: bytes) -> None:
        numbers = []
        place = 2
        for _ in range(2 if self.kind in b"14Ff" else 3):
            digits = re.compile(rb"\d{1,10}").match(data, after_blanks(data, place))
            if digits is None:
                raise DecodeError(_NO_HEADER)
            numbers.append(int(digits[0]))
            place = digits.end()
        self.width, self.height = numbers[:2]
        self.top = numbers[2] if len(numbers) > 2 else 1
        self.start = place + (1 if self.kind in b"456" else 0)
        self.channels = 3 if self.kind in b"36F" else 1
        self.alpha, self.little = False, False
        if self.kind in b"Ff":
            scale = re.compile(rb"\s+([-+]?[\d.eE+-]{1,40})\s").match(data, place)
            if scale is None:
                raise DecodeError(_NO_HEADER)
            self.little, self.start = scale[1].startswith(b"-"), scale.end()

    def _read_pam(self, data: bytes) -> None:
        """Read the lines of a PAM: a name and a value each (netpbm's manual, "pam")."""
        end = data.find(b"ENDHDR", 0, _LONGEST_HEADER)
        self.start = data.find(b"\n", end) + 1
        fields = dict(re.findall(rb"^[ \t]*([A-Z]+)[ \t]+(\S+)", data[3 : max(3, end)], re.MULTILINE))
        try:
            self.width, self.height, self.channels, self.top = (
                int(fields[name]) for name in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL")
            )
        except (KeyError, ValueError):
            raise DecodeError(_NO_HEADER) from None
        kind = fields.get(b"TUPLTYPE", b"")
        self.alpha = kind.endswith(b"_ALPHA") and self.channels in (2, 4)

    @property
    def is_slow(self) -> bool:
        """Whether it is read here rather than by Pillow."""
        return self.kind in b"1237Ff" or (self.kind in b"56" and self.top != 255)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the resulting pixels."""
        if self.kind in b"Ff":
            return np.dtype(np.float32)
        return np.dtype(np.uint8 if self.top <= 255 else np.uint16)

    @property
    def mode(self) -> str:
        """Pillow's name of the mode."""
        if self.kind in b"7Ff":
            return f"{self.channels} x {self.dtype}"
        return "1" if self.kind in b"14" else "RGB" if self.channels == 3 else "L" if self.top <= 255 else "I"

    def pixels(self, data: bytes) -> np.ndarray:
        """The picture (H, W, C), its maximal value scaled to the full depth."""
        shape = (self.height, self.width, self.channels)
        n = self.width * self.height * self.channels
        if self.kind in b"567Ff":
            stored: np.dtype = np.dtype("u1" if self.top <= 255 else ">u2")
            if self.kind in b"Ff":
                stored = np.dtype("<f4" if self.little else ">f4")
            if len(data) - self.start < n * stored.itemsize:
                raise DecodeError("a truncated PPM file: it ends before the picture does")
            if self.kind in b"Ff":  # bottom row first
                return np.frombuffer(data, stored, n, self.start).reshape(shape)[::-1].astype(np.float32)
            return self._scaled(np.frombuffer(data, stored, n, self.start)).reshape(shape)
        out = np.empty(n, self.dtype)
        filled = 0
        for text in _pieces(data, self.start):
            values = _bits(text) if self.kind == b"1" else _numbers(text)
            values = values[: n - filled]
            out[filled : filled + len(values)] = self._scaled(values)
            filled += len(values)
            if filled == n:
                return out.reshape(shape)
        raise DecodeError("a truncated PPM file: it ends before the picture does")

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        if self.kind == b"1":
            return np.where(values == 0, 255, 0).astype(np.uint8)
        if values.size and values.max() > self.top:
            raise DecodeError(f"a damaged PPM file: a value above its maximum, {self.top}")
        full = 255 if self.top <= 255 else 65535
        return np.rint(values * (full / self.top)).astype(self.dtype)


def _pieces(data: bytes, start: int) -> Iterator[bytes]:
    """The samples of a text file, without comments, in pieces that end between two numbers."""
    while start < len(data):
        stop = min(len(data), start + _CHUNK)
        if stop < len(data):
            match = re.compile(rb"[\s#]").search(data, stop, stop + _LONGEST_WORD)
            stop = match.start() if match else stop + _LONGEST_WORD
        text = data[start:stop]
        if b"#" in text:
            last = text.rfind(b"#")
            if not re.search(rb"[\n\r]", text[last:]):  # a comment that goes on in the next piece
                end = re.compile(rb"[\n\r]").search(data, stop)
                stop = end.end() if end else len(data)
                text = data[start:stop]
            text = re.sub(rb"#[^\n\r]*", b"", text)
        yield text
        start = stop


def _symbols(text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of a text, and which of them are digits; anything but digits and blanks is damage."""
    symbols = np.frombuffer(text, np.uint8)
    digits = (symbols >= 48) & (symbols <= 57)
    if not np.isin(symbols[~digits], np.frombuffer(_BLANK, np.uint8)).all():
        raise DecodeError("a damaged PPM file: it contains something other than numbers")
    return symbols, digits


def _bits(text: bytes) -> np.ndarray:
    symbols, digits = _symbols(text)
    bits = symbols[digits] - 48
    if bits.size and bits.max() > 1:
        raise DecodeError("a damaged PPM file: a bit that is neither 0 nor 1")
    return bits


def _numbers(text: bytes) -> np.ndarray:
    symbols, digits = _symbols(text)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], digits.view(np.int8), [0]])))
    starts, ends = edges[::2], edges[1::2]
    lengths = ends - starts
    if lengths.size and lengths.max() > _DIGITS:
        raise DecodeError("a damaged PPM file: a number with too many digits")
    values = np.zeros(len(starts), np.int64)
    for k in range(int(lengths.max(initial=0))):
        has = lengths > k
        values[has] += (symbols[ends[has] - 1 - k].astype(np.int64) - 48) * 10**k
    return values
