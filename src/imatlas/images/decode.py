"""One picture from the bytes of any file: format detected by content, bounded, upright, in its own dtype.

Sizes are checked before anything is decoded. Every failure is a `DecodeError` with a plain reason; no other exception
leaves `read_frames`.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from imatlas.errors import DecodeError
from imatlas.images import limits, memory_budget
from imatlas.images.formats.bmp import bmp_size, read_bmp
from imatlas.images.formats.headers import jpeg_frame
from imatlas.images.formats.jpeg import is_deep, read_jpeg, with_height
from imatlas.images.formats.jpeg2000 import read_jpeg2000
from imatlas.images.formats.pillow import picture_from, read_plain
from imatlas.images.formats.readers import (
    heif_size,
    is_plain_png,
    netpbm_size,
    read_heif,
    read_netpbm,
    read_npy,
    read_png,
    read_tiff,
)
from imatlas.images.formats.sgi_psd import psd_size, read_psd, read_sgi, sgi_size
from imatlas.images.formats.sniff import format_of, plainly_branded
from imatlas.images.formats.tga import read_tga, tga_size
from imatlas.images.formats.warnings import quiet, silence_libtiff
from imatlas.images.picture import (
    Aim,
    Fit,
    Frames,
    Picture,
    check_pixels,
    exif_orientation,
    explained,
    orientation_of,
)
from imatlas.images.pixels import Background, conformed, value_range
from imatlas.images.spec import ImageSpec


def read_frames(
    data: bytes,
    *,
    name: str = "",
    frames: Frames = "first",
    aim: Aim | None = None,
    background: Background = (255, 255, 255),
    packed: int | None = None,
    own_colors: bool = False,
) -> Iterator[Picture]:
    """Yield the first picture in a file, or all of its frames in order.

    Parameters
    ----------
    data : bytes
        The whole file.
    name : str
        Its name, used only for formats without a signature and for error messages.
    frames : {'first', 'all'}
        What to take from animations and stacks.
    aim : Aim, optional
        The target size; lets large pictures be decoded at reduced scale.
    background : (int, int, int), optional
        What 16-bit pictures with opacity are composited on; None: they keep their alpha. 8-bit ones always keep it.
    packed : int, optional
        The size of the file on disk, if it was unpacked from an archive: `Source.packed`.
    own_colors : bool
        Leave gray and RGB in the colors of the file, and their ICC profile in `Picture.profile`, instead of converting
        them to sRGB.

    Raises
    ------
    DecodeError
        With the reason, for anything that cannot be read.
    """
    format = "image"
    share = memory_budget.current()
    own = memory_budget.Share() if share is None else None
    if packed is not None:
        (own or share).packed, (own or share).unpacked = packed, len(data)  # type: ignore[union-attr]
    try:
        format = format_of(data, name)
        data = _plain(data, format)
        with quiet():
            plain = format not in _READERS or (format == "PNG" and is_plain_png(data, frames))
            read = read_plain if plain else _READERS[format]
            pictures = read(data, format, frames, aim, background)
            n_read = 0
            while True:
                # Not around the yield: between two pictures this thread may do other work.
                with memory_budget.using(own or share), np.errstate(all="ignore"):  # type: ignore[arg-type]
                    picture = next(pictures, None)
                    if picture is not None and not own_colors:
                        picture = picture.to_srgb()
                if picture is None and not n_read:  # as in a damaged container
                    raise DecodeError(f"a damaged {format} file: there is no picture in it")
                if picture is None:
                    return
                n_read += 1
                yield picture
    except DecodeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DecodeError(f"has more pixels than the limit of {limits.MAX_PIXELS / 1e6:.0f} million") from None
    except MemoryError:
        raise DecodeError("needs more memory than there is") from None
    except Exception as error:
        raise DecodeError(explained(error, format)) from None
    finally:
        if own is not None:
            own.close()


def read_picture(data: bytes, **options: Any) -> Picture:
    """The first picture in a file; the options and errors of `read_frames`."""
    for picture in read_frames(data, **options):
        return picture
    raise DecodeError("contains no picture")


def check_thumbnail(data: bytes) -> bytes:
    """The data, if it is a small JPEG or PNG as `encode_thumbnail` writes it.

    Raises
    ------
    DecodeError
        If it has another format or is large: a downloaded atlas must not cost more than its thumbnails should.
    """
    if len(data) > limits.SMALL_BYTES:
        raise DecodeError(
            f"a thumbnail of {memory_budget.amount(len(data))}, more than {memory_budget.amount(limits.SMALL_BYTES)}"
        )
    if format_of(data, "") not in ("JPEG", "PNG", "WEBP"):
        raise DecodeError(f"a thumbnail that is a {format_of(data, '')} file, not JPEG or PNG")
    height, width = size_of(data)
    if max(height, width) > limits.SMALL_SIDE:
        raise DecodeError(f"a thumbnail of {width} x {height} pixels, more than {limits.SMALL_SIDE}")
    return data


def check_stack(data: bytes) -> bytes:
    """The data, if it is the small TIFF that a thumbnail of a multi-channel image contains.

    Raises
    ------
    DecodeError
        If it is another file, or a large one.
    """
    from imatlas.images.formats.tiff import Stack

    def check(width: int, height: int, samples: int = 1) -> None:
        if max(width, height) > limits.SMALL_SIDE or width * height * samples > limits.LARGE:
            raise DecodeError(f"a thumbnail of {width} x {height} pixels in {samples} channels, too large for one")

    if len(data) > limits.SMALL_BYTES * 64 or format_of(data, "") != "TIFF":
        raise DecodeError("a thumbnail whose channels are no small TIFF")
    stack = Stack(data, check)
    if not stack.is_plain(0) and len(stack) != 1:
        raise DecodeError(f"a thumbnail of {len(stack)} frames")
    return data


def resize_pixels(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels (N, H, W, C) stretched to (N, height, width, C), with the filters of `Picture.fitted`."""
    if pixels.shape[1:3] == (height, width):
        return pixels
    out = np.empty((len(pixels), height, width, pixels.shape[3]), pixels.dtype)
    for i, image in enumerate(pixels):
        out[i] = picture_from(image).fitted(height, width, "stretch", (255, 255, 255))
    return out


def fitted_to(picture: Picture, spec: ImageSpec, fit: Fit = "crop", *, quick: bool = False) -> np.ndarray:
    """A picture as pixels (H, W, C) of `spec`, on white.

    Raises
    ------
    InputError
        If `spec` has channels that the picture lacks.
    """
    pixels = picture.fitted(spec.height, spec.width, fit, (255, 255, 255), quick=quick)[None]
    own = ImageSpec(spec.height, spec.width, pixels.shape[3], picture.kind.dtype, *value_range(pixels))
    return conformed(pixels, own, spec, kind=picture.kind)[0]


_READERS: dict[str, Any] = {
    "NPY": read_npy,
    "JPEG": read_jpeg,
    "PNG": read_png,
    "PPM": read_netpbm,
    "TIFF": read_tiff,
    "HEIF": read_heif,
    "JPEG2000": read_jpeg2000,
    "BMP": read_bmp,
    "TGA": read_tga,
    "SGI": read_sgi,
    "PSD": read_psd,
}
_SIZES: dict[str, Any] = {
    "HEIF": heif_size,
    "PPM": netpbm_size,
    "BMP": bmp_size,
    "TGA": tga_size,
    "SGI": sgi_size,
    "PSD": psd_size,
}


def _plain(data: bytes, format: str) -> bytes:
    """A file with the same pixels and a header that decoders understand."""
    if format == "PPM" and data[2:3] == b"#":
        return data[:2] + b"\n" + data[2:]
    return with_height(data) if format == "JPEG" else plainly_branded(data, format)


def size_of(data: bytes, name: str = "") -> tuple[int, int]:
    """(height, width) of the upright picture in a file, from its header alone where the format allows.

    Raises
    ------
    DecodeError
        If it cannot be read.
    """
    try:
        format = format_of(data, name)
        data = _plain(data, format)
        with quiet():
            if format in _SIZES:
                return _SIZES[format](data)
            if format == "NPY":
                picture = read_picture(data)
                return (picture.height, picture.width)
            if format == "JPEG" and is_deep(header := jpeg_frame(data)):
                turned = exif_orientation(data) >= 5
                return (header.width, header.height) if turned else (header.height, header.width)
            if format == "TIFF":
                from imatlas.images.formats.tiff import Stack

                silence_libtiff()
                stack = Stack(data, check_pixels)
                if not stack.is_plain(0):
                    turned = stack.orientation >= 5
                    return (stack.size[not turned], stack.size[turned])
                image = Image.open(BytesIO(stack.data), formats=(format,))
                image.seek(stack.pages[0])  # Pillow turns it itself
                return (image.size[1], image.size[0])
            image = Image.open(BytesIO(data), formats=(format,))
            turned = orientation_of(image) >= 5
            return (image.size[not turned], image.size[turned])
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(explained(error, "image")) from None
