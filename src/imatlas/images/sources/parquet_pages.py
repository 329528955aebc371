"""The pages of a Parquet column, from their own headers, as the sizes in the footer may be wrong.

A page header is a struct of Thrift's compact protocol (Apache Parquet format, `PageHeader`): the reader allocates what
the page's own header says, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_I32, _BINARY, _LIST, _SET, _MAP, _STRUCT = 5, 8, 9, 10, 11, 12
_WORDS = (3, 4, 5, 6)  # numbers of any width; a byte is one too, but takes one byte always
_DEEPEST = 8
_MAX_HEADER = 2**20


class Page(NamedTuple):
    """Unpacked and packed bytes of one page, and the size of its header."""

    unpacked: int
    packed: int
    header: int


class _Cursor:
    """A position in data of Thrift's compact protocol."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.place = 0

    def byte(self) -> int:
        self.place += 1
        return self._data[self.place - 1]

    def word(self) -> int:
        """Read an unsigned varint."""
        value = shift = 0
        while shift < 70:
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ValueError("a number without an end")

    def number(self) -> int:
        """Read a signed varint (zigzag)."""
        value = self.word()
        return value >> 1 ^ -(value & 1)

    def fields(self) -> Iterator[tuple[int, int]]:
        """(number, type) of each field of a struct; the caller reads the value before the next one."""
        name = 0
        while head := self.byte():
            name = name + (head >> 4) if head >> 4 else self.number()
            yield name, head & 15

    def skip(self, kind: int, depth: int = 0) -> None:
        """Skip a value."""
        if depth > _DEEPEST:
            raise ValueError("structs that are nested too deeply")
        if self.place > len(self._data):
            raise IndexError
        if kind in (1, 2):  # booleans are encoded in the type
            return
        if kind == 3:
            self.place += 1
        elif kind in _WORDS:
            self.word()
        elif kind == 7:
            self.place += 8
        elif kind == _BINARY:
            length = self.word()
            self.place += length
        elif kind in (_LIST, _SET):
            head = self.byte()
            for _ in range(self.word() if head >> 4 == 15 else head >> 4):
                self.skip(3 if head & 15 in (1, 2) else head & 15, depth + 1)
        elif kind == _MAP:
            if n := self.word():
                kinds = self.byte()
                for _ in range(n):
                    self.skip(3 if kinds >> 4 in (1, 2) else kinds >> 4, depth + 1)
                    self.skip(3 if kinds & 15 in (1, 2) else kinds & 15, depth + 1)
        elif kind == _STRUCT:
            for _, inner in self.fields():
                self.skip(inner, depth + 1)
        else:
            raise ValueError(f"a value of type {kind}")


def page(data: bytes) -> Page:
    """The page whose header begins `data`.

    Raises
    ------
    ValueError
        If it is not a page; IndexError if the data end within its header.
    """
    cursor = _Cursor(data)
    sizes = {}
    for name, kind in cursor.fields():
        if name in (2, 3) and kind == _I32:
            sizes[name] = cursor.number()
        else:
            cursor.skip(kind)
    if min(sizes.get(2, -1), sizes.get(3, -1)) < 0:
        raise ValueError("a page without a size")
    return Page(sizes[2], sizes[3], cursor.place)


def pages(data: np.ndarray, start: int, size: int) -> Iterator[Page]:
    """The pages in `size` bytes of a file (memory-mapped bytes) from `start` on, in the order of a reader.

    Raises
    ------
    ValueError
        If there is anything else among them.
    """
    end = min(start + size, len(data))
    if not 0 <= start <= end:
        raise ValueError("a column outside of the file")
    while start < end:
        for most in (2**8, _MAX_HEADER):  # statistics in a header are rarely long
            try:
                found = page(data[start : min(end, start + most)].tobytes())
                break
            except IndexError:
                continue
        else:
            raise ValueError("a page whose header has no end")
        yield found
        start += found.header + found.packed
