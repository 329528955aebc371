"""Coded images as bytes: what a decoder must know, and the data of each group of channels.

All numbers are little-endian; a varint has seven bits in each byte, the last ones first, and the eighth if more follow
(as in protocol buffers).

    varint     number of images, which have the same size
    varint     height, width and channels
    byte       bits 0-1: 0 for uint8, 1 for uint16, 2 for float32; bit 2: the last channel is alpha
    int8       quantization step: 2 to the power of this / 8, where the values span 255
    2 doubles  the values that are coded as 0 and 255; not for uint8
    for each group of channels:
        byte       bit 0: filtered after decoding
        uint32     CRC-32 of the coefficients
        varint     number of bytes that follow for this group
        bytes      output of the range coder
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, get_args

from imatlas.errors import InputError
from imatlas.images.spec import DTypeName, ImageSpec
from imatlas.models.parts.color_planes import groups_of

MOST_VALUES = 2**27
"""Values of the images that are coded together: 44 megapixels of RGB (18 GB of memory to encode, 13 to decode)."""
MOST_CHANNELS = 4096
DTYPES = get_args(DTypeName)


@dataclass(frozen=True)
class CodedGroup:
    """The data of a group of channels."""

    data: bytes
    checksum: int
    filtered: bool


@dataclass(frozen=True)
class CodedImages:
    """Images of one size, coded together."""

    n: int
    spec: ImageSpec
    step: int
    groups: tuple[CodedGroup, ...]

    def to_bytes(self) -> bytes:
        """See the top of this file."""
        spec = self.spec
        head = b"".join(varint(value) for value in (self.n, spec.height, spec.width, spec.channels))
        head += struct.pack("<Bb", DTYPES.index(spec.dtype) | spec.has_alpha << 2, self.step)
        if spec.dtype != "uint8":
            head += struct.pack("<dd", spec.low, spec.high)
        parts = [head]
        for group in self.groups:
            parts += [struct.pack("<BI", group.filtered, group.checksum), varint(len(group.data)), group.data]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> CodedImages:
        """The inverse of `to_bytes`.

        Raises
        ------
        InputError
            If the data is damaged.
        """
        try:
            return cls._parse(Reader(data))
        except (struct.error, ValueError, IndexError) as error:
            raise InputError(f"The compressed data is damaged ({error}).") from None

    @classmethod
    def _parse(cls, reader: Reader) -> CodedImages:
        n, height, width, channels = (reader.varint() for _ in range(4))
        if not (n and height and width and channels) or n * height * width * channels > MOST_VALUES:
            raise ValueError(f"{n} images of {height} x {width} pixels, {channels} channels")
        flags, step = reader.unpack("<Bb")
        if flags >> 3 or flags & 3 == 3 or channels > MOST_CHANNELS:
            raise ValueError(f"unknown kind of image, {flags}")
        dtype, alpha, low, high = DTYPES[flags & 3], bool(flags & 4), 0.0, 255.0
        if dtype != "uint8":
            low, high = reader.unpack("<dd")
        if not (math.isfinite(high - low) and low < high):
            raise ValueError(f"the range {low} to {high}")
        groups = []
        for _ in groups_of(channels - alpha, alpha):
            filtered, checksum = reader.unpack("<BI")
            groups.append(CodedGroup(reader.take(reader.varint()), checksum, bool(filtered)))
        if reader.rest():
            raise ValueError(f"{reader.rest()} bytes too many")
        return cls(n, ImageSpec(height, width, channels, dtype, low, high, alpha), step, tuple(groups))


def varint(value: int) -> bytes:
    """A number in seven bits a byte."""
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)


class Reader:
    """Reads numbers and bytes one after the other; ValueError or struct.error if there are too few."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def rest(self) -> int:
        """Bytes that are left."""
        return len(self.data) - self.place

    def take(self, n: int) -> bytes:
        """The next n bytes."""
        if n > self.rest():
            raise ValueError(f"{self.rest()} bytes instead of {n}")
        self.place += n
        return self.data[self.place - n : self.place]

    def unpack(self, form: str) -> tuple[Any, ...]:
        """The next numbers, in a form of `struct`."""
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def varint(self) -> int:
        """The next number."""
        value = 0
        for shift in range(0, 63, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number of more than 63 bits")
