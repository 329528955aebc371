"""Images of a folder, compressed into one file, and back."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from imatlas.arguments import check_path, counted
from imatlas.errors import ArtifactError, DecodeError, ImatlasError, InputError
from imatlas.images.encode_small import SmallFile, smallest_file
from imatlas.images.formats.metadata import Metadata, metadata_of
from imatlas.images.intake import with_networks, with_progress
from imatlas.images.memory_budget import Pool, amount, machine_memory
from imatlas.images.picture import Picture
from imatlas.images.sources.base import Source
from imatlas.images.sources.opening import open_source
from imatlas.images.spec import ImageSpec
from imatlas.metrics.restoration import mean_squared_error, psnr
from imatlas.models.parts.coded_image import CodedImages, Effort
from imatlas.result import FileList, Result
from imatlas.system.atomic_io import (
    append as append_to,
)
from imatlas.system.atomic_io import (
    check_free,
    flush,
    make_folder,
    output_path,
    refuse_links,
    replacing,
    write_file,
)
from imatlas.system.locks import locked
from imatlas.tasks import coded_file
from imatlas.tasks.coded_file import About, CodedFile, OtherFile
from imatlas.tasks.other_formats import N_COMPARED, SIDE, Comparison, at_least
from imatlas.tasks.source_pictures import read_with_data, upright
from imatlas.tasks.unfinished_folder import unfinished

SMALL = 2**12
"""Pixels of images that are coded together with others of the same kind."""
TOGETHER_PIXELS, TOGETHER = 2**18, 256
"""Pixels and images that are coded together, at most."""
MANY, MANY_EXACT = 2000, 200
"""Images for which a model is learned that takes more bytes: with and without loss."""
N_TRIED = 16
"""Images that tell whether a model is worth its bytes."""
ROUNDED = ("float64", "complex64", "int32", "uint32", "int64", "uint64", "CMYK", "LAB", "YCCK")
"""Types and colors of files whose values are rounded when they are read."""
BYTES_PER_PIXEL = 410
"""Memory that coding takes."""
FINEST, COARSEST = -24, 80
"""Numbers of the quantization steps that a target is searched among."""


Batch = tuple[list[str], list[About], np.ndarray, ImageSpec]
"""Images (N, H, W, C) of one size, with their keys and metadata."""


class Codec(Protocol):
    """A model that compresses images of one size together."""

    is_lossless: bool

    def coded_and_decoded(
        self, pixels: np.ndarray, spec: ImageSpec, step: int, effort: Effort = "normal"
    ) -> tuple[CodedImages, np.ndarray]:
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
    """What compressed images should be like: one of the first four is given; of a lossless codec, none.

    Attributes
    ----------
    step : int
        Number of the quantization step.
    psnr : float
        Least peak signal-to-noise ratio of each image, in dB.
    bits_per_pixel, max_bytes : float, int
        Largest size of the data of each image.
    effort : {"normal", "high"}
        Of an `ImageCodec`: how much is tried.
    """

    step: int | None = None
    psnr: float | None = None
    bits_per_pixel: float | None = None
    max_bytes: int | None = None
    effort: Effort = "normal"

    def describe(self) -> dict[str, Any]:
        """As settings that are written to the file."""
        return {name: value for name, value in vars(self).items() if value not in (None, "normal")}

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
    best: bool = False,
    append: bool = False,
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
    best : bool
        Keep an image as WebP or AVIF where that is smaller at the same quality.
        If not, some images are compared, and the result tells what was found.
    append : bool
        Add images to the output of an earlier call, with its model; those whose keys it has are left out.
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
    _check_output(output, overwrite or append)
    settings = json.dumps([opened.origin.place, target.describe(), learned, *(["best"] if best else [])], default=str)
    skipped = list(opened.skipped)
    totals = {"pixels": 0, "file bytes": 0, "squared error": 0.0, "in other formats": 0}
    with _Unfinished.opened(output, _hash(settings), overwrite, append) as file:
        codec = file.begin(codec, learned is not None)
        n_before = len(file.keys)
        coder = _Coder(codec, target, best)
        comparison, n_compared = Comparison(coder.code), 0
        batches = _batches(opened, file.keys, skipped, totals, progress, codec.is_lossless)
        for made in with_networks(coder, batches, len(opened.keys)):
            if made.error:
                skipped += [(key, made.error) for key in made.keys]
                continue
            file.add(made)
            if not best and len(file.keys) - n_before >= n_compared * len(opened.keys) / N_COMPARED:
                n_compared += 1
                comparison.add(made.pixels, made.spec)
            n_pixels = made.pixels.shape[0] * made.pixels.shape[1] * made.pixels.shape[2]
            totals["pixels"] += n_pixels
            totals["in other formats"] += len(made.others)
            if not codec.is_lossless:
                totals["squared error"] += n_pixels * made.squared_error
        if not file.keys:
            file.discard()
            why = f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
            raise InputError(f"No image of {opened.name} can be compressed{why}; nothing was written.")
        size = file.finish()
        n_images = len(file.keys)
    told = comparison.sentence(codec.is_lossless)
    result = _result(output, n_images, n_before, size, totals, skipped)
    return dataclasses.replace(result, sentences=[*result.sentences, *([told] if told else [])])


def coded_to(codec: Codec, pixels: np.ndarray, spec: ImageSpec, target: Target) -> tuple[CodedImages, np.ndarray]:
    """Images (N, H, W, C) as small as a target allows, or as good; and what is decoded of them."""

    def code(step: int) -> tuple[CodedImages, np.ndarray]:
        return codec.coded_and_decoded(pixels, spec, step, target.effort)

    if codec.is_lossless or target.step is not None:
        return code(target.step or 0)

    def is_good(step: int) -> bool:
        coded, decoded = code(step)
        if target.psnr is not None:
            return psnr(pixels, decoded, span=_span(coded)) >= target.psnr
        return len(coded.to_bytes()) > target.most_bytes(pixels)

    # the largest step that is still good enough, or still too many bytes
    low, high = FINEST, COARSEST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_good(middle) else (low, middle)
    return code(low if target.psnr is not None else high)


@dataclass(frozen=True)
class _Made:
    """Images (N, H, W, C) of one size that were coded, or why they could not be."""

    keys: list[str]
    about: list[About]
    pixels: np.ndarray
    spec: ImageSpec
    coded: CodedImages | None = None
    others: tuple[SmallFile, ...] = ()
    squared_error: float = 0.0
    error: str = ""


class _Coder:
    """Codes images, decodes them again, and compares; in several threads at once, as far as memory allows."""

    def __init__(self, codec: Codec, target: Target, best: bool) -> None:
        self.codec, self.best = codec, best
        self.code = functools.partial(coded_to, codec, target=target)
        self._memory = Pool()

    def __call__(self, batch: Batch) -> _Made:
        """Code images.

        Raises
        ------
        InputError
            If they are not decoded to what they should be.
        """
        n_bytes = BYTES_PER_PIXEL * batch[2].shape[0] * batch[2].shape[1] * batch[2].shape[2]
        self._memory.take(n_bytes, machine_memory() // 2, wait=True, patience=None)
        try:
            return self._coded(*batch)
        except InputError as error:
            return _Made(*batch, error=str(error))
        finally:
            self._memory.give(n_bytes)

    def _coded(self, keys: list[str], about: list[About], pixels: np.ndarray, spec: ImageSpec) -> _Made:
        coded, decoded = self.code(pixels, spec)
        if not _is_same(self.codec.decoded(CodedImages.from_bytes(coded.to_bytes())), decoded, coded):
            raise ImatlasError(
                f"What was written of '{keys[0]}' is not decoded to what it should be; please report this."
            )
        others = _others(pixels, decoded, coded) if self.best else ()
        if others:
            decoded = np.stack([other.pixels for other in others])
        error = 0.0 if self.codec.is_lossless else mean_squared_error(pixels, decoded, span=_span(coded))
        return _Made(keys, about, pixels, spec, coded, others, error)


def _span(coded: CodedImages) -> float:
    """What PSNR is relative to: 255, or the range of the images themselves if they have more bits."""
    return coded.spec.high - coded.spec.low


def _others(pixels: np.ndarray, decoded: np.ndarray, coded: CodedImages) -> tuple[SmallFile, ...]:
    """Images (N, H, W, C) as files of other formats, if these are smaller together and as good."""
    files = []
    for image, made in zip(pixels, decoded, strict=True):
        file = smallest_file(image, coded.spec.has_alpha, at_least(image, made, coded))
        if file is None:
            return ()
        files.append(file)
    size = sum(len(OtherFile(pixels.shape[3], file.content).to_bytes()) for file in files)
    return tuple(files) if size < len(coded.to_bytes()) else ()


def made_codec(codec: Codec | Callable[[bytes], Codec], weights: bytes | None) -> Codec:
    """A codec that was given, or what makes it of the weights in a file, if there are any."""
    return codec if hasattr(codec, "decoded") else codec(weights or b"")  # type: ignore


def learning_for(source: Any, lossless: bool) -> dict[str, Any]:
    """Parameters of a codec that learns from images, by their number: a large model pays for many, most of all without
    loss."""
    if len(open_source(source).keys) < (MANY_EXACT if lossless else MANY):
        return {}
    return {"adapts": "much", "batch_size": 64, "learning_rate": 2e-3}


def is_worth_its_bytes(learned: Codec, general: Codec, source: Any, target: Target) -> bool:
    """Whether a model that was learned from images saves more than it takes: estimated from a few of them."""
    opened = open_source(source)
    n_images = len(opened.keys)
    rows = range(0, n_images, -(-n_images // N_TRIED))
    saved = 0.0
    for i in rows:
        try:
            pixels, spec = upright(read_with_data(opened, i, own_colors=True)[1])
            top, left = (max(0, (side - SIDE) // 2) for side in pixels.shape[:2])
            part = np.ascontiguousarray(pixels[None, top : top + SIDE, left : left + SIDE])
            sizes = [len(coded_to(codec, part, spec, target)[0].to_bytes()) for codec in (general, learned)]
        except (DecodeError, InputError):
            continue
        saved += (sizes[0] - sizes[1]) * pixels.size / part.size
    return saved * n_images / len(rows) > len(learned.packed_weights())


class _Unfinished:
    """The file that is being written: `OUTPUT.unfinished`."""

    def __init__(self, output: Path, settings: bytes, overwrite: bool, append: bool) -> None:
        self.output, self.path = output, unfinished(output)
        self.settings, self.overwrite, self.append = settings, overwrite, append
        self.keys: set[str] = set()

    @classmethod
    @contextmanager
    def opened(cls, output: Path, settings: bytes, overwrite: bool, append: bool) -> Iterator[_Unfinished]:
        """That of a killed run with the same settings, or a new one; locked."""
        file = cls(output, settings, overwrite, append)
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
        if self.append:
            codec = self._copy_output(codec)
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
        start = coded_file.MAGIC + coded_file.head_record(identity, self.settings, lossless=model.is_lossless)
        write_file(self.path, start + (coded_file.record(b"M", model.packed_weights()) if has_model else b""))
        return model

    def _copy_output(self, codec: Codec | Callable[[bytes], Codec]) -> Codec:
        """Begin with what is in the output, unless a killed run did; and its model."""
        done = CodedFile.open(self.output)
        model = made_codec(codec, done.weights)
        if model.identity() != done.model:
            raise InputError(
                f"'{self.output}' was written with another model; give it with --model, or write a new file."
            )
        self.settings = done.settings
        begun = CodedFile.open(self.path) if self.path.exists() else None
        if not begun or begun.settings != done.settings or begun.entries[: len(done.entries)] != done.entries:
            if begun and not self.overwrite:
                raise ArtifactError(f"'{self.path}' is another unfinished run; finish it, or pass --overwrite.")
            with replacing(self.path) as copy:
                shutil.copyfile(self.output, copy)
                os.truncate(copy, done.size)
        return model

    def add(self, made: _Made) -> None:
        """Write images, flushed to disk."""
        for key, about, other in zip(made.keys, made.about, made.others, strict=False):
            file = OtherFile(made.pixels.shape[3], other.content)
            append_to(self.path, coded_file.images_record([key], [about], file))
        if not made.others:
            assert made.coded is not None
            append_to(self.path, coded_file.images_record(made.keys, made.about, made.coded))
        self.keys.update(made.keys)

    def finish(self) -> int:
        """Write the end, give the file the name of the output, and return its size."""
        append_to(self.path, coded_file.end_record(len(self.keys)))
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


def _batches(
    source: Source,
    done: set[str],
    skipped: list[tuple[str, str]],
    totals: dict[str, Any],
    progress: bool,
    lossless: bool,
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
            if lossless:
                _check_exact(picture)
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


def _check_exact(picture: Picture) -> None:
    """Raise DecodeError for a picture whose values were changed when it was read."""
    kind = picture.mode.rpartition(" ")[2]
    if kind in ROUNDED:
        raise DecodeError(f"its values are {kind}, which are rounded when read, so it can only be compressed with loss")


def about_of(data: bytes, picture: Picture) -> About:
    """What is kept of the file of an image."""
    found = metadata_of(data, picture.format, (picture.width, picture.height)) if data else Metadata()
    return About(found.exif, found.xmp, picture.profile)


def _is_same(again: np.ndarray, decoded: np.ndarray, coded: CodedImages) -> bool:
    """Whether images were decoded as they should be: with loss, up to what filters may round differently."""
    if coded.step is None:
        return again.tobytes() == np.ascontiguousarray(decoded).tobytes()
    spec = coded.spec
    tolerance = 1.0 if spec.dtype != "float32" else (spec.high - spec.low) / 255
    return bool(np.allclose(again, decoded, rtol=0, atol=tolerance))


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _result(
    output: Path, n_images: int, n_before: int, size: int, totals: dict[str, Any], skipped: list[tuple[str, str]]
) -> Result:
    sentences = [f"{counted(n_images, 'image')} in {amount(size)}."]
    metrics: dict[str, Any] = {"n_images": n_images, "bytes": size}
    if n_before:
        sentences.append(f"{n_before:,} of these came from a run before.")
    elif totals["pixels"]:
        bits, error = 8 * size / totals["pixels"], totals["squared error"] / totals["pixels"]
        metrics |= {"bits_per_pixel": bits, "psnr": float(-10 * np.log10(error)) if error else None}
        told = f"{bits:.2f} bits per pixel" + (f", {metrics['psnr']:.1f} dB" if error else ", without loss")
        if totals["file bytes"]:
            metrics["file_bytes"] = totals["file bytes"]
            told += f"; {size / totals['file bytes']:.0%} of their files ({amount(totals['file bytes'])})"
        sentences.append(told + ".")
    if totals["in other formats"]:
        sentences.append(f"{counted(totals['in other formats'], 'image')} kept in other formats, which are smaller.")
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
