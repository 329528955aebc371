"""Coded images as bytes: what a decoder must know, and the data of each group of channels.

All numbers are little-endian; a varint has seven bits in each byte, the last ones first, and the eighth if more follow
(as in protocol buffers).

    varint     number of images, which have the same size
    varint     height, width and channels
    byte       bits 0-1: 0 for uint8, 1 for uint16, 2 for float32; bit 2: the last channel is alpha; bit 3: lossless
    int8       quantization step: 2 to the power of this / 8, where the values span 255; not if lossless
    2 doubles  the values that are coded as 0 and 255; not for uint8
    for each group of channels:
        byte       bit 0: filtered after decoding; bit 1: as the mean of four mirrored views; bit 2: with weights, which
                   follow, `N_WEIGHTS` int8 for each channel (`Filtering`); if lossless, instead: number of last bits
                   that are written as they are, and 3 varints: least value (2 n, or -2 n - 1 if negative), spacing of
                   values, and how many of these are 1 (`IntegerScale`)
        uint32     CRC-32 of the coefficients, or if lossless of the planes
        varint     number of bytes that follow for this group
        bytes      output of the range coder
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, Literal, get_args

from imatlas.errors import InputError
from imatlas.images.spec import DTypeName, ImageSpec
from imatlas.models.parts.color_planes import groups_of
from imatlas.models.parts.fitted_filter import N_WEIGHTS

MOST_VALUES = 2**27
"""Values of the images that are coded together: 44 megapixels of RGB (18 GB of memory to encode, 13 to decode)."""
MOST_CHANNELS = 4096
Effort = Literal["normal", "high"]
"""How much is tried to make files with loss small."""
DTYPES = get_args(DTypeName)


@dataclass(frozen=True)
class IntegerScale:
    """Which integers stand for the values of lossless images: value = low + spacing * integer.

    Attributes
    ----------
    low, spacing : int
    ones : int
        Of float32, how many make up 1; 0 if the integers are the bits of the values, in ascending order.
    n_low_bits : int
        Last bits of integers that are written as they are.
    """

    low: int = 0
    spacing: int = 1
    ones: int = 0
    n_low_bits: int = 0

    def to_bytes(self) -> bytes:
        """See the top of this file."""
        low = 2 * self.low if self.low >= 0 else -2 * self.low - 1
        return bytes([self.n_low_bits]) + b"".join(varint(value) for value in (low, self.spacing, self.ones))

    @classmethod
    def parse(cls, reader: Reader) -> IntegerScale:
        """The inverse of `to_bytes`."""
        (n_low_bits,) = reader.unpack("<B")
        low, spacing, ones = (reader.varint() for _ in range(3))
        if n_low_bits > 32 or max(low // 2, spacing, ones) >= 2**32 or not spacing:
            raise ValueError(f"a scale of {low}, {spacing}, {ones}, {n_low_bits}")
        return cls(-(low + 1) // 2 if low % 2 else low // 2, spacing, ones, n_low_bits)


@dataclass(frozen=True)
class Filtering:
    """How decoded channels are filtered.

    Attributes
    ----------
    n_views : {0, 1, 4}
        Views of which the network's output is the mean: the image, or also its mirror images; 0: not filtered.
    weights : bytes
        For `fitted_filter.applied`; b"": what the network says.
    """

    n_views: int = 0
    weights: bytes = b""

    def to_bytes(self) -> bytes:
        """See the top of this file."""
        return bytes([(self.n_views > 0) | (self.n_views > 1) << 1 | bool(self.weights) << 2]) + self.weights

    @classmethod
    def parse(cls, reader: Reader, n_channels: int) -> Filtering:
        """The inverse of `to_bytes`."""
        (flags,) = reader.unpack("<B")
        if flags >> 3 or (flags and not flags & 1):
            raise ValueError(f"unknown filter, {flags}")
        weights = reader.take(n_channels * N_WEIGHTS) if flags & 4 else b""
        return cls((4 if flags & 2 else 1) if flags else 0, weights)


@dataclass(frozen=True)
class CodedGroup:
    """The data of a group of channels."""

    data: bytes
    checksum: int
    filtering: Filtering = Filtering()
    scale: IntegerScale = IntegerScale()


@dataclass(frozen=True)
class CodedImages:
    """Images of one size, coded together; without a quantization step, lossless."""

    n: int
    spec: ImageSpec
    step: int | None
    groups: tuple[CodedGroup, ...]

    def to_bytes(self) -> bytes:
        """See the top of this file."""
        spec = self.spec
        head = b"".join(varint(value) for value in (self.n, spec.height, spec.width, spec.channels))
        lossless = self.step is None
        head += struct.pack("<B", DTYPES.index(spec.dtype) | spec.has_alpha << 2 | lossless << 3)
        if self.step is not None:
            head += struct.pack("<b", self.step)
        if spec.dtype != "uint8":
            head += struct.pack("<dd", spec.low, spec.high)
        parts = [head]
        for group in self.groups:
            about = (group.scale if lossless else group.filtering).to_bytes()
            parts += [about, struct.pack("<I", group.checksum), varint(len(group.data)), group.data]
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
        (flags,) = reader.unpack("<B")
        lossless, step = bool(flags & 8), None
        if not lossless:
            (step,) = reader.unpack("<b")
        if flags >> 4 or flags & 3 == 3 or channels > MOST_CHANNELS:
            raise ValueError(f"unknown kind of image, {flags}")
        dtype, alpha, low, high = DTYPES[flags & 3], bool(flags & 4), 0.0, 255.0
        if dtype != "uint8":
            low, high = reader.unpack("<dd")
        if not (math.isfinite(high - low) and low < high):
            raise ValueError(f"the range {low} to {high}")
        groups = []
        for part in groups_of(channels - alpha, alpha):
            scale = IntegerScale.parse(reader) if lossless else IntegerScale()
            filtering = Filtering() if lossless else Filtering.parse(reader, part.stop - part.start)
            (checksum,) = reader.unpack("<I")
            groups.append(CodedGroup(reader.take(reader.varint()), checksum, filtering, scale))
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
