"""The images of a compressed file, as files that any program opens."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.arguments import check_path, counted
from imatlas.errors import InputError
from imatlas.images.encode_like import SUFFIXES, Encoded, encode_lossless
from imatlas.images.formats.metadata import Metadata
from imatlas.images.intake import with_networks, with_progress
from imatlas.images.memory_budget import Pool, amount, machine_memory
from imatlas.models.codec import ImageCodec
from imatlas.models.lossless_codec import LosslessCodec
from imatlas.models.parts.codec_base import CodecBase
from imatlas.result import FileList, Result
from imatlas.system.atomic_io import check_free, output_path, write_file
from imatlas.tasks.coded_file import About, CodedFile, Entry, OtherFile
from imatlas.tasks.compress import Codec
from imatlas.tasks.restored_names import PART, name_like
from imatlas.tasks.unfinished_folder import Done, Layout, UnfinishedFolder, folded, written_before

DECOMPRESSED = Layout(
    command="decompress",
    settings="decompressed.json",
    done=Done,
    folders=r"images(/[^/]+)*",
    files=rf"images(/{PART})+",
)


def decompress_images(
    path: str | Path,
    output: str | Path,
    codec: Codec | None = None,
    *,
    keys: list[str] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Result:
    """Write the images of a compressed file as PNG, or TIFF where a PNG cannot hold them.

    Parameters
    ----------
    path : path
        Of the file.
    output : path
        A new folder; or of one image a file that ends in ".png" or ".tif".
    codec : ImageCodec or LosslessCodec, optional
        The model; if not given, that in the file, or the general one.
    keys : list of str, optional
        Only these images.
    overwrite, progress : bool

    Raises
    ------
    InputError
        If the file is damaged or cut off, or was written with another model, or has no image of a key.
    ArtifactError, AtlasBusyError
        As `compress_images`.
    """
    file = CodedFile.open(Path(check_path(path, "path", "decompress_images")))
    model = codec_of(file, codec)
    output = output_path(check_path(output, "output", "decompress_images"))
    entries = [entry for entry in file.entries if keys is None or entry.key in keys]
    if keys is not None and (unknown := sorted(set(keys) - {entry.key for entry in entries})):
        raise InputError(f"'{file.path.name}' has no image '{unknown[0]}'; its first is '{file.entries[0].key}'.")
    cut = (
        ""
        if file.is_complete
        else f"'{file.path.name}' is cut off: what follows its {counted(len(file.entries), 'image')} is lost."
    )
    if not entries:
        raise InputError(cut or f"'{file.path.name}' has no images.")
    if output.suffix.lower() in (*SUFFIXES["PNG"], *SUFFIXES["TIFF"]):
        if len(entries) != 1:
            raise InputError(
                f"'{file.path.name}' has {len(entries)} images, so the output is a folder; omit the suffix."
            )
        (made,) = Decoded(file, model).encoded(entries)
        if output.suffix.lower() not in SUFFIXES[made.format]:
            raise InputError(
                f"This image is written as {made.format}; end '{output.name}' in {SUFFIXES[made.format][0]}."
            )
        if not overwrite:
            check_free(output, None)
        write_file(output, made.content)
        files = [(str(output), "the image")]
    else:
        _write_folder(file, model, entries, output, overwrite, progress)
        files = [(str(output / "images"), "the images")]
    sentences = [f"{counted(len(entries), 'image')} decompressed.", *([cut] if cut else [])]
    return Result("decompress", "Decompressing", sentences, {"n_images": len(entries)}, [FileList(files=files)])


def describe_compressed(path: str | Path) -> Result:
    """What is in a file of compressed images.

    Raises
    ------
    InputError
        If it is none, or damaged.
    """
    file = CodedFile.open(Path(check_path(path, "path", "describe_compressed")))
    size = file.path.stat().st_size
    n_pixels, n_other = 0, 0
    for place in dict.fromkeys(entry.place for entry in file.entries):
        coded = file.images(place)[2]
        if isinstance(coded, OtherFile):
            n_other += 1
        else:
            n_pixels += coded.n * coded.spec.height * coded.spec.width
    model = (
        f"its own model ({amount(len(file.weights))})" if file.weights else "the general model, or one that you have"
    )
    kind = "without loss" if file.is_lossless else "with loss"
    sentences = [f"{counted(len(file.entries), 'image')} in {amount(size)}, compressed {kind} by {model}."]
    if n_other:
        sentences.append(f"{counted(n_other, 'image')} of these are in other formats, which were smaller.")
    if not file.is_complete:
        sentences.append("The file is cut off: images after these are lost.")
    metrics: dict[str, Any] = {"n_images": len(file.entries), "bytes": size}
    if n_pixels and not n_other:
        metrics["bits_per_pixel"] = 8 * size / n_pixels
    return Result(
        "describe_compressed", "Compressed images", sentences, metrics, data={"keys": [e.key for e in file.entries]}
    )


def codec_of(file: CodedFile, codec: Codec | None = None) -> Codec:
    """The model that decodes a file: that which is given, or that in the file, or the general one.

    Raises
    ------
    InputError
        If it is another one.
    """
    kind: type[CodecBase] = LosslessCodec if file.is_lossless else ImageCodec
    model: Codec = codec or kind.from_weights(file.weights or b"")
    if model.identity() != file.model:
        if file.weights and codec is None:
            raise InputError(f"'{file.path.name}' is damaged: it holds another model than that it was written with.")
        raise InputError(f"'{file.path.name}' was written with another model; give it with --model.")
    return model


BYTES_PER_PIXEL = 290
"""Memory that decoding takes."""


class Decoded:
    """The images of a file; those that were coded together are decoded once."""

    def __init__(self, file: CodedFile, model: Codec) -> None:
        memory = Pool()

        @functools.lru_cache(1)
        def at(place: int) -> tuple[list[About], bool, np.ndarray]:
            _, about, coded = file.images(place)
            if isinstance(coded, OtherFile):
                return about, coded.channels in (2, 4), coded.pixels()
            n_bytes = BYTES_PER_PIXEL * coded.n * coded.spec.height * coded.spec.width
            if n_bytes > machine_memory():
                raise InputError(f"Decoding would take {amount(n_bytes)} of memory, which this machine does not have.")
            memory.take(n_bytes, machine_memory() // 2, wait=True, patience=None)
            try:
                return about, coded.spec.has_alpha, model.decoded(coded)
            finally:
                memory.give(n_bytes)

        self._at = at

    def encoded(self, entries: Sequence[Entry]) -> list[Encoded]:
        """Images of one record as PNG or TIFF."""
        about, alpha, pixels = self._at(entries[0].place)
        made = []
        for entry in entries:
            kept = about[entry.number]
            metadata = Metadata(exif=kept.exif, xmp=kept.xmp)
            made.append(encode_lossless(pixels[entry.number], alpha=alpha, profile=kept.profile, about=metadata))
        return made


@dataclass
class _Entries:
    """The images of a file, as an unfinished folder asks for them."""

    keys: list[str]
    places: list[tuple[int, int]]

    def stamps(self) -> list[tuple[int, int]]:
        return self.places


def _write_folder(
    file: CodedFile, model: Codec, entries: Sequence[Entry], output: Path, overwrite: bool, progress: bool
) -> None:
    check_free(output, written_before(output, overwrite, DECOMPRESSED))
    settings = {"file": file.path.name, "bytes": file.size, "model": file.model.hex(), "checksum": file.checksum}
    listed: Any = _Entries([e.key for e in entries], [(e.place, e.number) for e in entries])
    names = {folded(entry.key) for entry in entries}
    decoded = Decoded(file, model)
    with UnfinishedFolder.opened(output, settings, listed, DECOMPRESSED, overwrite=overwrite) as run:
        waiting = [entry for entry in entries if entry.key not in run]
        records = [list(group) for _, group in itertools.groupby(waiting, key=lambda entry: entry.place)]
        with contextlib.closing(with_networks(decoded.encoded, records, len(records))) as results:
            images = itertools.chain.from_iterable(results)
            for entry, made in zip(with_progress(waiting, "Decompressing", progress), images, strict=False):
                name = name_like(entry.key, made.format, names, run.taken_files, run.taken_folders)
                stamp = f"{entry.place} {entry.number}"
                run.add(Done(key=entry.key, stamp=stamp, files=[run.write(name, made.content)]))
        run.finish(overwrite)
