"""TGA through Pillow, which ignores what the header says about alpha."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO

from PIL import Image, ImageOps

from imatlas.images import limits
from imatlas.images.formats.pillow import need_memory
from imatlas.images.picture import Aim, Frames, Picture, check_pixels, finished
from imatlas.images.pixels import Background


def tga_size(data: bytes) -> tuple[int, int]:
    """(height, width) of a TGA."""
    width, height = struct.unpack_from("<HH", data, 12)
    return (height, width)


def read_tga(data: bytes, format: str, frames: Frames, aim: Aim | None, background: Background) -> Iterator[Picture]:
    """Read a TGA; its alpha depends on the number of attribute bits (Truevision's specification 2.0, field 5.6).

    Without attribute bits, the fourth byte or sixteenth bit is meaningless; most programs leave it 0.
    """
    height, width = tga_size(data)
    check_pixels(width, height)
    opaque = data[17] & 15 == 0 or data[16] == 15
    deep_palette = data[1] == 1 and data[7] in (15, 16)
    if data[16] == 15:
        data = data[:16] + b"\x10" + data[17:]
    if deep_palette and data[7] == 15:
        data = data[:7] + b"\x10" + data[8:]
    image: Image.Image = Image.open(BytesIO(data), formats=(format,))
    if width * height > limits.CHEAP:
        need_memory(image, format, len(data), aim=aim is not None, copied=True)
    mode = image.mode
    if mode == "P" and image.has_transparency_data:
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        if opaque:
            image = image.convert("RGB")
        elif data[16] == 16 or deep_palette:  # Pillow reads the bit as transparency
            image.putalpha(ImageOps.invert(image.getchannel("A")))
    picture = finished(image, format, background)
    picture.mode = mode
    yield picture
