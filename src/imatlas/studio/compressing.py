"""Compressing one picture: its bytes and quality, beside those of other formats."""

# no postponed annotations: FastAPI evaluates those of the request

import functools
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from imatlas.errors import InputError
from imatlas.images.encode_small import READABLE, formats_for, small_files
from imatlas.metrics.restoration import psnr
from imatlas.models.codec import ImageCodec, step_of
from imatlas.models.lossless_codec import LosslessCodec
from imatlas.models.parts.coded_image import CodedImages
from imatlas.studio.jobs import Job
from imatlas.studio.requests import Body
from imatlas.studio.workpiece import Workpiece
from imatlas.tasks import coded_file
from imatlas.tasks.compress import ROUNDED, Codec, about_of
from imatlas.tasks.other_formats import at_least

SETTINGS = b"studio  "
"""What wrote a file, in the eight bytes that it has for that."""


class Compressing(Body):
    """Compress the picture; without loss, the quality does not count."""

    quality: Annotated[float, Field(ge=1, le=100)] = 50
    lossless: bool = False


@functools.cache
def general(lossless: bool) -> Codec:
    """The codec that has learned from photographs."""
    codec: Codec = LosslessCodec.general() if lossless else ImageCodec.general()
    return codec


def file_of(piece: Workpiece, codec: Codec, coded: CodedImages) -> bytes:
    """A file of one compressed image, with what is kept of its own file."""
    about = about_of(piece.data, piece.picture)
    head = coded_file.MAGIC + coded_file.head_record(codec.identity(), SETTINGS, lossless=codec.is_lossless)
    return head + coded_file.images_record([piece.name], [about], coded) + coded_file.end_record(1)


def compressed_piece(
    piece: Workpiece, asked: Compressing, keep: Callable[[bytes, str], str], job: Job
) -> dict[str, Any]:
    """The picture compressed and decompressed: sizes, quality, and the addresses of the file and of pictures.

    Parameters
    ----------
    piece : Workpiece
    asked : Compressing
    keep : callable
        Bytes and their media type to an address.
    job : Job

    Raises
    ------
    InputError
        If a pixel is missing, or, without loss, the values were rounded when they were read.
    """
    kind = piece.picture.mode.rpartition(" ")[2]
    if asked.lossless and kind in ROUNDED:
        raise InputError(f"The values of this picture are {kind}, which are rounded when read; compress it with loss.")
    codec, pixels = general(asked.lossless), np.ascontiguousarray(piece.pixels)
    coded, _ = codec.coded_and_decoded(pixels[None], piece.spec, step_of(asked.quality))
    content = file_of(piece, codec, coded)
    job.tell("Decompressing")
    decoded = codec.decoded(CodedImages.from_bytes(coded.to_bytes()))[0]
    rows = [_row("imatlas", len(content), pixels, decoded, coded)]
    for format in formats_for(pixels, piece.spec.has_alpha, READABLE):
        job.tell(f"Looking for the smallest {format} file that is as good")
        is_good = at_least(pixels, decoded, coded)
        for file in small_files(pixels, piece.spec.has_alpha, is_good, (format,)):
            rows.append(_row(format, len(file.content), pixels, file.pixels, coded))
    if piece.data:
        height, width = piece.full
        bits = 8 * len(piece.data) / (height * width)
        rows.append({"name": "original", "bytes": len(piece.data), "bits": bits, "full": piece.is_reduced})
    return {
        "rows": rows,
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "before": keep(piece.shown(piece.view), "image/png"),
        "after": keep(piece.shown(piece.viewed(decoded)), "image/png"),
        "file": keep(content, "application/octet-stream"),
    }


def _row(name: str, n_bytes: int, pixels: np.ndarray, decoded: np.ndarray, coded: CodedImages) -> dict[str, Any]:
    """Size and quality as one format; the PSNR is null without loss."""
    level = psnr(pixels[None], decoded[None], span=coded.spec.high - coded.spec.low)
    bits = 8 * n_bytes / (pixels.shape[0] * pixels.shape[1])
    return {"name": name, "bytes": n_bytes, "bits": bits, "psnr": level if np.isfinite(level) else None}
