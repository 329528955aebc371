"""Reading through Pillow, with the memory it needs requested first, and the low bits that it drops restored."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image, ImageFile

from imatlas.errors import DecodeError
from imatlas.images import limits, memory_budget
from imatlas.images.formats.headers import inner_sizes
from imatlas.images.formats.png import scale_transparency, with_transparency
from imatlas.images.formats.sniff import bits_of
from imatlas.images.formats.stated_color import state_profile, stated_profile
from imatlas.images.formats.tiff_segments import check_shared, packed_bytes
from imatlas.images.formats.warnings import quiet
from imatlas.images.picture import (
    Aim,
    Frames,
    Picture,
    check_pixels,
    explained,
    finished,
    from_samples,
    note_frames,
    orientation_of,
)
from imatlas.images.pixels import Background

# Pillow keeps only the upper byte of 16-bit samples in several channels: the layouts that give the lower byte instead.
_LOWER_HALF = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "RGB;16L": "RGB;16B", "RGBA;16L": "RGBA;16B"}

_PROFILE = 34675  # the tag of a TIFF


def picture_from(value: np.ndarray | Image.Image, background: Background = (255, 255, 255)) -> Picture:
    """A picture from pixels in memory: an array (H, W, C) of uint8, uint16 or float32, or a Pillow image."""
    try:
        if isinstance(value, np.ndarray):
            mode = f"{value.shape[2]} x {value.dtype}"
            if value.dtype != np.uint8 or value.shape[2] not in (1, 3, 4):
                return Picture(value, "array", mode)
            flat = value[..., 0] if value.shape[2] == 1 else value
            return Picture(Image.fromarray(np.ascontiguousarray(flat)), "array", mode)
        check_pixels(*value.size)
        need_memory(value, "image", 0, aim=False)
        with quiet():
            picture = finished(value, value.format or "image", background)
            if not picture.profile and value.mode != "CMYK":
                picture.profile, _ = stated_profile(value, b"", value.format or "image")
            picture.orientation = orientation_of(value)
            return picture.to_srgb()
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(explained(error, "image")) from None


def read_plain(
    data: bytes, format: str, frames: Frames, aim: Aim | None, background: Background, pages: list[int] | None = None
) -> Iterator[Picture]:
    """Read any format through Pillow; `pages` are the numbers of the pages that count as frames."""
    image = Image.open(BytesIO(data), formats=(format,))
    if pages and pages[0]:
        image.seek(pages[0])
    check_pixels(*image.size)
    _check_inside(data, format)
    n_frames = len(pages) if pages else int(getattr(image, "n_frames", 1))
    if format in ("ICO", "ICNS", "PSD"):  # sizes, layers
        n_frames = 1
    wanted = min(n_frames, limits.MAX_FRAMES) if frames == "all" else 1
    bits = bits_of(data, format)
    work = Work(wanted, data)
    work.expect(wanted, *image.size)
    for frame in range(wanted):
        if n_frames > 1:
            image.seek(pages[frame] if pages else frame)
            if format == "TIFF" and _PROFILE not in image.tag_v2:  # type: ignore[attr-defined]
                image.info.pop("icc_profile", None)  # Pillow keeps the profile of another page
            check_pixels(*image.size)
        work.frame(image)
        # Frames of an animation are drawn over each other in 8 bits.
        deep = n_frames == 1 and bits > 8 and _raw_layout(image) in (*_LOWER_HALF, "LA;16B")
        notes = state_profile(image, data, format)
        if image.size[0] * image.size[1] > limits.CHEAP:
            besides = 40 * image.size[0] * image.size[1] if deep else None
            need_memory(image, format, len(data), aim=aim is not None, copied=wanted > 1, besides=besides)
        mode = image.mode
        if format == "PNG":
            scale_transparency(image, bits)
        if deep:
            wide = _sixteen_bit(data, format, image.size, _raw_layout(image))
            if "transparency" in image.info and wide.shape[2] == 3:
                wide = with_transparency(wide, np.array(image.info["transparency"], np.uint16))
            mode = f"{('', 'L', 'LA', 'RGB', 'RGBA')[wide.shape[2]]};16"
            picture = from_samples(wide, format, mode, image.info["icc_profile"], background)
            image.load()  # chunks after the pixels may contain the orientation
        else:
            picture = finished(image.copy() if wanted > 1 else image, format, background)
            picture.mode = mode
            if picture.kind.dtype == "uint8" and bits > 8:
                picture.notes.append(f"{bits}-bit, read as 8-bit")
        picture.notes += notes
        picture.orientation = orientation_of(image)
        note_frames(picture, n_frames, frame, wanted)
        yield picture


class Work:
    """Bounds the pixels of all frames of a file, and for a TIFF the bytes of all its strips."""

    def __init__(self, wanted: int, data: bytes) -> None:
        self._wanted = wanted
        self._n_bytes = len(data)
        self._pixels = 0
        self._packed = 0

    def expect(self, n_frames: int, width: int, height: int, samples: int = 1) -> None:
        """Refuse this many more frames if they are too many."""
        work = self._pixels + width * height * n_frames * max(1, samples // 4)
        if self._wanted > 1 and work > limits.MAX_PIXELS + 200 * self._n_bytes:
            raise DecodeError(
                f"{self._wanted} frames of up to {width} x {height} pixels are too much work for a file of "
                f"{memory_budget.amount(self._n_bytes)}; take the first frame, or fewer"
            )

    def add(self, width: int, height: int, samples: int = 1) -> None:
        """Count one frame."""
        self.expect(1, width, height, samples)
        self._pixels += width * height * max(1, samples // 4)

    def frame(self, image: Image.Image) -> None:
        """Count a frame that Pillow has opened."""
        self.add(*image.size)
        tags = getattr(image, "tag_v2", None)
        if tags is None:
            return
        offsets, counts = (tags.get(273), tags.get(279)) if 273 in tags else (tags.get(324), tags.get(325))
        if isinstance(offsets, tuple) and isinstance(counts, tuple) and tags.get(259, 1) != 1:
            self._packed += packed_bytes(offsets, counts, self._n_bytes)
            check_shared(self._packed, self._n_bytes)


# Bytes per pixel that a decoder holds in addition to the picture: canvases, planes, copies.
BESIDES = {"WEBP": 17, "AVIF": 16, "HEIF": 20, "GIF": 2, "QOI": 8, "BMP": 6, "DDS": 6, "PSD": 4, "ICO": 8, "ICNS": 8}


def need_memory(
    image: Image.Image,
    format: str,
    packed: int,
    *,
    aim: bool,
    copied: bool = False,
    besides: int | None = None,
    full: tuple[int, int] | None = None,
) -> None:
    """Wait for the peak memory of decoding an opened image."""
    one = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}.get(image.mode, 4)
    pixels = image.size[0] * image.size[1]
    each = one * (2 if copied else 1)
    if image.mode not in ("L", "LA", "RGB", "RGBA") or "transparency" in image.info:
        each += {"1": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}.get(image.mode, 4)
    if getattr(image, "n_frames", 1) > 1 and format in ("GIF", "PNG"):
        each += 8
    if besides is None:
        each += BESIDES.get(format, 0)
    if not aim:
        each += len(image.getbands())
    width, height = full or image.size
    what = f"a picture of {width} x {height} pixels"
    memory_budget.need(each * pixels + (besides or 0) + _strip_bytes(image), packed, what)


def _strip_bytes(image: Image.Image) -> int:
    """What libtiff holds of a TIFF in addition to the picture: one strip or tile."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return 0
    try:
        if 322 in tags and 323 in tags:
            pixels = int(tags[322]) * int(tags[323])
        else:
            pixels = image.size[0] * min(image.size[1], int(tags.get(278, image.size[1])))
        return pixels * int(tags.get(277, 1)) * -(-max(tags.get(258, (1,))) // 8)
    except Exception:
        return 0


def _check_inside(data: bytes, format: str) -> None:
    """Refuse an icon whose pictures are larger than its directory says."""
    if format in ("ICO", "ICNS"):
        for width, height in inner_sizes(data):
            if width * height > 4096 * 4096:
                raise DecodeError(f"contains a picture of {width} x {height} pixels, too large for an icon")


def _raw_layout(image: ImageFile.ImageFile) -> str:
    """Pillow's name of the sample layout in the file ("RGB;16B"), or "" if there is none."""
    if len(image.tile) != 1:
        return ""
    args = image.tile[0].args
    args = args[0] if isinstance(args, tuple) and args else args
    return args if isinstance(args, str) else ""


def _sixteen_bit(data: bytes, format: str, size: tuple[int, int], layout: str) -> np.ndarray:
    """All 16 bits (H, W, C) of a file that Pillow reads as 8-bit, from two passes: upper bytes and lower bytes."""

    def reading(raw: str) -> np.ndarray:
        image = Image.open(BytesIO(data), formats=(format,))
        tile = image.tile[0]
        args = (raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw
        image.tile = [tile._replace(args=args)]
        return np.asarray(image)

    check_pixels(*size, samples=8)
    if layout == "LA;16B":  # its four bytes per pixel unchanged
        four = reading("RGBA").astype(np.uint16)
        return four[..., 0::2] << 8 | four[..., 1::2]
    return reading(layout).astype(np.uint16) << 8 | reading(_LOWER_HALF[layout])
