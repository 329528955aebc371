"""Images of a folder, compressed into one file, and back."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from imatlas.arguments import check_path, counted
from imatlas.errors import ArtifactError, DecodeError, ImatlasError, InputError
from imatlas.images.formats.metadata import Metadata, metadata_of
from imatlas.images.intake import with_progress
from imatlas.images.memory_budget import amount
from imatlas.images.picture import Picture
from imatlas.images.sources.base import Source
from imatlas.images.sources.opening import open_source
from imatlas.images.spec import ImageSpec
from imatlas.metrics.restoration import mean_squared_error, psnr
from imatlas.models.parts.coded_image import CodedImages
from imatlas.result import FileList, Result
from imatlas.system.atomic_io import append, check_free, flush, make_folder, output_path, refuse_links, write_file
from imatlas.system.locks import locked
from imatlas.tasks import coded_file
from imatlas.tasks.coded_file import About, CodedFile
from imatlas.tasks.source_pictures import read_with_data, upright
from imatlas.tasks.unfinished_folder import unfinished

SMALL = 2**12
"""Pixels of images that are coded together with others of the same kind."""
TOGETHER_PIXELS, TOGETHER = 2**18, 256
"""Pixels and images that are coded together, at most."""
FINEST, COARSEST = -24, 80
"""Numbers of the quantization steps that a target is searched among."""


class Codec(Protocol):
    """A model that compresses images of one size together."""

    def coded_and_decoded(self, pixels: np.ndarray, spec: ImageSpec, step: int) -> tuple[CodedImages, np.ndarray]:
        """Images (N, H, W, C), coded with a quantization step, and what is decoded."""
        ...

    def decoded(self, coded: CodedImages) -> np.ndarray:
        """Images (N, H, W, C)."""
        ...

    def identity(self) -> bytes:
        """What differs among models that cannot read each other's data."""
        ...

    def packed_weights(self) -> bytes:
        """The model as bytes."""
        ...


@dataclass(frozen=True)
class Target:
    """What compressed images should be like: one of these is given.

    Attributes
    ----------
    step : int
        Number of the quantization step.
    psnr : float
        Least peak signal-to-noise ratio of each image, in dB.
    bits_per_pixel, max_bytes : float, int
        Largest size of the data of each image.
    """

    step: int | None = None
    psnr: float | None = None
    bits_per_pixel: float | None = None
    max_bytes: int | None = None

    def describe(self) -> dict[str, Any]:
        """As settings that are written to the file."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def most_bytes(self, pixels: np.ndarray) -> float:
        """Largest size of images (N, H, W, C) together, without the heads of records."""
        n, height, width, _ = pixels.shape
        if self.max_bytes is not None:
            return n * self.max_bytes
        return n * height * width * (self.bits_per_pixel or 0) / 8


def compress_images(
    source: Any,
    output: str | Path,
    codec: Codec | Callable[[bytes], Codec],
    target: Target,
    *,
    learned: dict[str, Any] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Result:
    """Compress every image into one file.

    Until everything is done, the file is `OUTPUT.unfinished`; a run that was killed is continued by the same call. What
    was written of each image is decoded again, and compared.

    Parameters
    ----------
    source : folder, pattern, archive, array or list, as `Images` takes them
    output : path
        A file, which usually ends in ".imc".
    codec : ImageCodec, or callable
        Fitted; or, with `learned`, what makes it of the weights that a killed run has written, or learns it if there
        are none (b"").
    target : Target
    learned : dict, optional
        How the model was made, if it is not the general one: then it is written to the file, too.
    overwrite : bool
        Replace the output of an earlier call, and begin a killed one anew if its settings differ.
    progress : bool

    Returns
    -------
    Result
        With sizes, and the images that were skipped, and why.

    Raises
    ------
    InputError
        If no image can be read.
    ArtifactError
        If `output` already exists and is not to be replaced, or a killed run had other settings.
    AtlasBusyError
        If another process writes the same output.
    """
    opened = open_source(source)
    output = output_path(check_path(output, "output", "compress_images"))
    _check_output(output, overwrite)
    settings = json.dumps([opened.origin.place, target.describe(), learned], default=str)
    skipped = list(opened.skipped)
    totals = {"pixels": 0, "file bytes": 0, "squared error": 0.0}
    with _Unfinished.opened(output, _hash(settings), overwrite) as file:
        codec = file.begin(codec, learned is not None)
        n_before = len(file.keys)
        for keys, about, pixels, spec in _batches(opened, file.keys, skipped, totals, progress):
            try:
                coded, decoded = coded_to(codec, pixels, spec, target)
            except InputError as error:
                skipped += [(key, str(error)) for key in keys]
                continue
            again = codec.decoded(CodedImages.from_bytes(coded.to_bytes()))
            if not np.allclose(again, decoded, rtol=0, atol=_tolerance(coded.spec)):
                raise InputError(
                    f"What was written of '{keys[0]}' is not decoded to what it should be; please report this."
                )
            file.add(keys, about, coded)
            n_pixels = pixels.shape[0] * pixels.shape[1] * pixels.shape[2]
            totals["pixels"] += n_pixels
            totals["squared error"] += n_pixels * mean_squared_error(pixels, decoded, span=_span(coded))
        if not file.keys:
            file.discard()
            why = f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
            raise InputError(f"No image of {opened.name} can be compressed{why}; nothing was written.")
        size = file.finish()
        n_images = len(file.keys)
    return _result(output, n_images, n_before, size, totals, skipped)


def coded_to(codec: Codec, pixels: np.ndarray, spec: ImageSpec, target: Target) -> tuple[CodedImages, np.ndarray]:
    """Images (N, H, W, C) as small as a target allows, or as good; and what is decoded of them."""
    if target.step is not None:
        return codec.coded_and_decoded(pixels, spec, target.step)

    def is_good(step: int) -> bool:
        coded, decoded = codec.coded_and_decoded(pixels, spec, step)
        if target.psnr is not None:
            return psnr(pixels, decoded, span=_span(coded)) >= target.psnr
        return len(coded.to_bytes()) > target.most_bytes(pixels)

    # the largest step that is still good enough, or still too many bytes
    low, high = FINEST, COARSEST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_good(middle) else (low, middle)
    return codec.coded_and_decoded(pixels, spec, low if target.psnr is not None else high)


def _span(coded: CodedImages) -> float:
    """What PSNR is relative to: 255, or the range of the images themselves if they have more bits."""
    return coded.spec.high - coded.spec.low


def made_codec(codec: Codec | Callable[[bytes], Codec], weights: bytes | None) -> Codec:
    """A codec that was given, or what makes it of the weights in a file, if there are any."""
    return codec if hasattr(codec, "decoded") else codec(weights or b"")  # type: ignore


class _Unfinished:
    """The file that is being written: `OUTPUT.unfinished`."""

    def __init__(self, output: Path, settings: bytes, overwrite: bool) -> None:
        self.output, self.path = output, unfinished(output)
        self.settings, self.overwrite = settings, overwrite
        self.keys: set[str] = set()

    @classmethod
    @contextmanager
    def opened(cls, output: Path, settings: bytes, overwrite: bool) -> Iterator[_Unfinished]:
        """That of a killed run with the same settings, or a new one; locked."""
        file = cls(output, settings, overwrite)
        make_folder(output.parent)
        lock = output.with_name(f".{file.path.name}.lock")
        with locked(lock, file.path):
            try:
                yield file
            finally:
                lock.unlink(missing_ok=True)

    def begin(self, codec: Codec | Callable[[bytes], Codec], has_model: bool) -> Codec:
        """Write the start of the file, or read what a killed run has written; and the model."""
        refuse_links(self.path.parent, [self.path.name])
        found = CodedFile.open(self.path) if self.path.exists() else None
        if found and found.settings != self.settings and not self.overwrite:
            raise ArtifactError(
                f"'{self.path}' is an unfinished run with other settings; repeat that call to continue it, choose "
                "another name with -o, or pass --overwrite to begin anew."
            )
        found = found if found and found.settings == self.settings else None
        model = made_codec(codec, found.weights if found else None)
        identity = model.identity()
        if found and found.model == identity:
            self.keys = {entry.key for entry in found.entries}
            os.truncate(self.path, found.size)
            return model
        start = coded_file.MAGIC + coded_file.head_record(identity, self.settings)
        write_file(self.path, start + (coded_file.record(b"M", model.packed_weights()) if has_model else b""))
        return model

    def add(self, keys: list[str], about: list[About], coded: CodedImages) -> None:
        """Write images, flushed to disk."""
        append(self.path, coded_file.images_record(keys, about, coded))
        self.keys.update(keys)

    def finish(self) -> int:
        """Write the end, give the file the name of the output, and return its size."""
        append(self.path, coded_file.end_record(len(self.keys)))
        size = self.path.stat().st_size
        os.replace(self.path, self.output)
        flush(self.output.parent)
        return size

    def discard(self) -> None:
        """Delete the file."""
        self.path.unlink()


def _check_output(output: Path, overwrite: bool) -> None:
    if not overwrite:
        check_free(output, None)
    if not os.path.lexists(output):
        return
    try:
        CodedFile.open(output)
    except ImatlasError as error:
        raise ArtifactError(
            f"'{output}' is not replaced, as it is not a file that 'imatlas compress' wrote ({error})"
        ) from None


Batch = tuple[list[str], list[About], np.ndarray, ImageSpec]


def _batches(
    source: Source, done: set[str], skipped: list[tuple[str, str]], totals: dict[str, Any], progress: bool
) -> Iterator[Batch]:
    """The images that are not done: small ones of the same kind together, with their keys and metadata."""
    waiting: list[tuple[str, About, np.ndarray, ImageSpec]] = []

    def together() -> Batch:
        keys, about, pixels, specs = zip(*waiting, strict=True)
        waiting.clear()
        return list(keys), list(about), np.stack(pixels), specs[0]

    for i in with_progress(range(len(source.keys)), "Compressing", progress):
        key = source.keys[i]
        if key in done:
            continue
        try:
            data, picture = read_with_data(source, i, own_colors=True)
            pixels, spec = upright(picture)
        except DecodeError as error:
            skipped.append((key, str(error)))
            continue
        totals["file bytes"] += len(data)
        size = pixels.shape[0] * pixels.shape[1]
        is_small = size <= SMALL and pixels.dtype == np.uint8
        fits = waiting and waiting[0][2].shape == pixels.shape and waiting[0][3] == spec
        if waiting and not (is_small and fits and len(waiting) < min(TOGETHER, TOGETHER_PIXELS // size)):
            yield together()
        waiting.append((key, about_of(data, picture), pixels, spec))
        if not is_small:
            yield together()
    if waiting:
        yield together()


def about_of(data: bytes, picture: Picture) -> About:
    """What is kept of the file of an image."""
    found = metadata_of(data, picture.format, (picture.width, picture.height)) if data else Metadata()
    return About(found.exif, found.xmp, picture.profile)


def _tolerance(spec: ImageSpec) -> float:
    """How far apart two results of the same data may be: filters may round differently."""
    return 1.0 if spec.dtype != "float32" else (spec.high - spec.low) / 255


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _result(
    output: Path, n_images: int, n_before: int, size: int, totals: dict[str, Any], skipped: list[tuple[str, str]]
) -> Result:
    sentences = [f"{counted(n_images, 'image')} in {amount(size)}."]
    metrics: dict[str, Any] = {"n_images": n_images, "bytes": size}
    if n_before:
        sentences.append(f"{counted(n_before, 'image')} of these were there from a run before.")
    elif totals["pixels"]:
        bits, error = 8 * size / totals["pixels"], totals["squared error"] / totals["pixels"]
        metrics |= {"bits_per_pixel": bits, "psnr": float(-10 * np.log10(error)) if error else None}
        told = f"{bits:.2f} bits per pixel" + (f", {metrics['psnr']:.1f} dB" if error else ", without loss")
        if totals["file bytes"]:
            metrics["file_bytes"] = totals["file bytes"]
            told += f"; {size / totals['file bytes']:.0%} of their files ({amount(totals['file bytes'])})"
        sentences.append(told + ".")
    if skipped:
        sentences.append(f"{counted(len(skipped), 'file')} skipped, such as {skipped[0][0]}: {skipped[0][1]}.")
    return Result(
        name="compress",
        title="Compressing",
        sentences=sentences,
        metrics=metrics,
        panels=[FileList(files=[(str(output), "the compressed images")])],
        data={"files": [str(output)], "skipped": [list(pair) for pair in skipped]},
    )
