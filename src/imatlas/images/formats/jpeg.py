"""JPEG files: at reduced scale where the picture will be small, and those of more than 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image

from imatlas.images import limits, memory_budget
from imatlas.images.formats import color
from imatlas.images.formats.headers import Jpeg, check_scans, jpeg_frame
from imatlas.images.formats.pillow import need_memory
from imatlas.images.formats.sniff import needs_extra
from imatlas.images.picture import (
    REDUCE_MARGIN,
    Aim,
    Frames,
    Picture,
    as_stored,
    check_pixels,
    exif_orientation,
    finished,
    orientation_of,
    room_for,
)
from imatlas.images.pixels import RGB


def read_jpeg(data: bytes, format: str, frames: Frames, aim: Aim | None, background: RGB) -> Iterator[Picture]:
    """A JPEG, reduced where the aim allows; further pictures inside (depth, gain maps) are left alone."""
    header = jpeg_frame(data)
    if is_deep(header):
        yield _deep_jpeg(data, header)
        return
    image = Image.open(BytesIO(data), formats=("JPEG",))
    full, mode = image.size, image.mode
    check_pixels(*full)
    scans = check_scans(data, *full)
    orientation = orientation_of(image)
    scale = 1
    if aim is not None:
        scale = _jpeg_scale(full, orientation, aim)
        if scale > 1:
            image.draft(None, (full[0] // scale, full[1] // scale))
    if full[0] * full[1] > limits.CHEAP:
        held = 2 * header.samples * full[0] * full[1] if header.buffered or scans > 1 else 0
        need_memory(image, format, len(data), aim=aim is not None, besides=int(held), full=full)
    reduced = image.size != full
    picture = finished(image, format, background)
    picture.mode, picture.orientation, picture.full = mode, orientation, full
    picture.scale = scale if reduced else 1
    yield picture


def is_deep(header: Jpeg) -> bool:
    """Whether a JPEG is of a kind that Pillow does not decode."""
    return header.bits not in (0, 8) or header.lossless


def _deep_jpeg(data: bytes, header: Jpeg) -> Picture:
    """A JPEG of more than 8 bits or without loss, through the extra: hospitals and cameras write such."""
    what = f"a {'lossless' if header.lossless else ''} JPEG of {header.bits} bits".replace("  ", " ")
    try:
        from imagecodecs import jpeg8_decode
    except ImportError:
        raise needs_extra(what, "codecs") from None
    check_pixels(header.width, header.height)
    pixels = header.width * header.height
    memory_budget.need(
        int(6 * max(3.0, header.samples) * pixels), len(data), f"a picture of {header.width} x {header.height}"
    )
    array = color.full_scale(np.atleast_3d(jpeg8_decode(data)), header.bits)
    picture = Picture(as_stored(array), "JPEG", f"{array.shape[2]} x {header.bits} bits")
    note = color.scaled_note(header.bits) or f"{header.bits}-bit"
    picture.notes += [note] if header.bits != 8 else []
    picture.orientation = exif_orientation(data)
    return picture


def _jpeg_scale(full: tuple[int, int], orientation: int, aim: Aim) -> int:
    """The largest of 8, 4, 2, 1 to divide the size by that leaves enough for the aim."""
    room = room_for(full, orientation, aim)
    return next((s for s in (8, 4, 2) if room >= s * REDUCE_MARGIN and min(full) >= 2 * s), 1)
