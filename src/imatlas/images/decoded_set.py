"""A set of images after decoding: its pixels, records and thumbnails, and its originals decoded again."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imatlas.errors import DecodeError
from imatlas.images import cache, decode, intake, memory_budget
from imatlas.images.encode import encode_thumbnail
from imatlas.images.formats.pillow import picture_from
from imatlas.images.formats.video import VideoReader, read_video
from imatlas.images.image_size import automatic_size, height_width
from imatlas.images.keys import video_frame
from imatlas.images.picture import Aim, Picture
from imatlas.images.pixels import RGB, Kind, converted, kind_of, own_range, rgb_view, value_range
from imatlas.images.records import Record, Records
from imatlas.images.sources.arrays import ArraySource
from imatlas.images.sources.base import Source
from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_view
from imatlas.system import processes

if TYPE_CHECKING:
    from imatlas.images.dataset import Images

_LARGE = 2**22


@dataclass
class DecodedSet:
    """A whole set after decoding."""

    source: Source
    pixels: np.ndarray
    spec: ImageSpec
    skipped: list[tuple[str, str]]
    cache: cache.Cache | None
    n_lost: int = 0

    @cached_property
    def keys(self) -> list[str]:
        return self.source.keys if self.cache is None else self.cache.records["key"].tolist()

    @cached_property
    def records(self) -> Records:
        return _array_records(self.source.keys, self.pixels, self.spec) if self.cache is None else self.cache.records

    def _picture(self, row: int, aim: Aim | None, images: Images, videos: OpenVideo) -> Picture:
        """The original of a row, decoded."""
        if self.cache is None:
            return picture_from(self.pixels[row], images.background)
        columns = self.cache.records.table
        item, key, frame = (columns.column(name)[row].as_py() for name in ("item", "key", "frame"))
        found = video_frame(key)
        if found is not None and found[0] == self.source.keys[item]:
            return videos.of(self.source, item).at(frame)
        value = self.source.read(item)
        if not isinstance(value, bytes):
            return picture_from(value, images.background)
        options: dict[str, Any] = {
            "name": key,
            "background": images.background,
            "aim": aim,
            "packed": self.source.packed(item),
        }
        if frame == 0:
            return decode.read_picture(value, **options)
        for picture in decode.read_frames(value, frames="all", **options):
            if picture.frame == frame:
                return picture
        raise DecodeError(f"has no frame {frame + 1} any more")

    def _in_kind(self, pixels: np.ndarray, picture: Picture, images: Images) -> np.ndarray:
        """Pixels (H, W, C) of one picture in the channels and dtype of the set."""
        target = kind_of(self.spec) if self.cache is None else Kind(*self.cache.about["kind_values"])
        if picture.kind == target:
            return pixels
        own = (0.0, 1.0)
        if picture.kind.dtype != target.dtype:
            own = own_range(pixels[None], picture.kind)
        rows = max(1, _LARGE // pixels[0].size)  # in bands, as conversion goes through floats
        first = converted(pixels[None, :rows], picture.kind, target, images.background, own)[0]
        if rows >= len(pixels):
            return first
        out = np.empty((*pixels.shape[:2], first.shape[2]), first.dtype)
        for i in range(0, len(pixels), rows):
            out[i : i + rows] = converted(pixels[None, i : i + rows], picture.kind, target, images.background, own)[0]
        return out

    def original(self, row: int, images: Images) -> np.ndarray:
        """The image (H, W, C) of a row at its original size, in the channels and dtype of the set."""
        with memory_budget.sharing(), OpenVideo() as videos:
            picture = self._picture(row, None, images, videos)
            return self._in_kind(picture.pixels(), picture, images)

    def refitted(self, rows: np.ndarray, size: tuple[int, int], images: Images) -> tuple[np.ndarray, int]:
        """Rows decoded at another size, and how many had to be scaled from the cache."""
        out = np.empty((len(rows), *size, self.spec.channels), self.spec.dtype)
        lost = 0
        with OpenVideo() as videos:
            for i, row in enumerate(rows.tolist()):
                try:
                    with memory_budget.sharing():
                        picture = self._picture(row, Aim(*size, images.fit), images, videos)
                        out[i] = self._in_kind(
                            picture.fitted(*size, images.fit, images.background, quick=True), picture, images
                        )
                except DecodeError:
                    out[i] = decode.resize_pixels(self.pixels[row : row + 1], *size)[0]
                    lost += 1
        return out, lost


class OpenVideo:
    """The video that was read last: its frames are near each other, and are found faster one after the other."""

    def __init__(self) -> None:
        self._item: int | None = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> OpenVideo:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def of(self, source: Source, item: int) -> VideoReader:
        """The reader of an item; raises DecodeError if it is no video any more."""
        if item != self._item:
            self._open.close()
            self._item = None
            file = intake.opened_video(source, item) or BytesIO(source.read(item))
            self._reader = self._open.enter_context(read_video(self._open.enter_context(file)))
            self._item = item
        return self._reader


class LazySet:
    """A source and, after first use, its decoded set; shared by all views."""

    def __init__(self, source: Source, folder: Path | None = None) -> None:
        self.source = source
        self._folder = folder  # of a cache built before this object was pickled
        self._decoded: DecodedSet | None = None
        self._lock = threading.RLock()

    @property
    def is_open(self) -> bool:
        return self._decoded is not None

    def decoded(self, images: Images) -> DecodedSet:
        """The decoded set; the first call decodes it with the options of the view that asks."""
        with self._lock:
            if self._decoded is not None:
                return self._decoded
            source, temporary = self.source, False
            size = images.image_size
            if isinstance(source, ArraySource) and (size is None or height_width(size) == source.array.shape[1:3]):
                self._decoded = _of_array(source)
                return self._decoded
            found = cache.open_cache(self._folder, check=False) if self._folder is not None else None
            if found is None:
                height, width = automatic_size(source) if size is None else height_width(size)
                plan = intake.Plan(
                    height, width, images.fit, images.background, images.frames, images.video, images.thumbnail_size
                )
                found, temporary = cache.open_or_build(
                    source,
                    plan,
                    images.cache_dir,
                    workers=images.workers,
                    progress=images.progress,
                    limit=images.cache_size,
                )
            if temporary:
                weakref.finalize(self, shutil.rmtree, found.folder.parent, ignore_errors=True)
            self._decoded = DecodedSet(source, found.pixels, found.spec, found.skipped, found)
            return self._decoded

    def decode_together(self, images: Images) -> None:
        """Decode in the first process of this machine; the others then open its cache."""

        def decode_here() -> str | None:
            built = self.decoded(images).cache
            return None if built is None else str(built.folder)

        folder = processes.from_first(decode_here, of_machine=True)
        if folder is not None:
            self._folder = Path(folder)
        self.decoded(images)
        processes.gathered(None)  # a temporary cache may be deleted once all have opened it

    def __getstate__(self) -> dict[str, Any]:
        built = self._decoded.cache if self._decoded is not None else None
        return {"source": self.source, "folder": built.folder if built is not None else self._folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


class SentSet(LazySet):
    """A decoded set on its way to a worker: where its originals lie, its records, and no pixels."""

    def __init__(self, source: Source, records: Records, about: dict[str, Any], spec: ImageSpec) -> None:
        super().__init__(source)
        self._parts = records, about, spec
        sent = _SentCache(records, about, spec)
        self._decoded = DecodedSet(source, sent.pixels, spec, [], sent)

    @classmethod
    def of(cls, decoded: DecodedSet) -> SentSet | None:
        """The set of these originals; None for an array, which has no others."""
        if decoded.cache is None:
            return None
        records = Records(decoded.cache.records.table.select(["item", "key", "frame"]))
        about = {"kind_values": decoded.cache.about["kind_values"]}
        return cls(decoded.source, records, about, decoded.spec)

    def __getstate__(self) -> dict[str, Any]:
        records, about, spec = self._parts
        return {"source": self.source, "records": records, "about": about, "spec": spec}


class _SentCache(cache.Cache):
    """The cache of a set on a worker: the records, and blank pixels, which no result may come from."""

    def __init__(self, records: Records, about: dict[str, Any], spec: ImageSpec) -> None:
        self.records, self.about, self.spec, self.skipped, self.n_bytes = records, about, spec, [], 0
        self.pixels = np.broadcast_to(np.zeros((), spec.dtype), (len(records), *spec.shape))


class Thumbnails(Sequence[bytes]):
    """The thumbnails of some rows as JPEG or PNG files, each read or made on access."""

    def __init__(self, decoded: DecodedSet, rows: np.ndarray, size: int | None, background: RGB) -> None:
        self._decoded, self._rows, self._size, self._background = decoded, rows, size, background

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        decoded, row = self._decoded, int(self._rows[range(len(self))[index]])
        if decoded.cache is not None and self._size:
            return decoded.cache.thumbnail(row)
        view, stack = to_view(decoded.pixels[row], decoded.spec), not kind_of(decoded.spec).is_picture
        # Four 8-bit channels of a stack are not RGBA: as an array they are resized channel by channel.
        picture = Picture(view, "array", "") if stack else picture_from(view, self._background)
        return encode_thumbnail(picture.thumbnail(self._size or 96), stack=stack)


def _of_array(source: ArraySource) -> DecodedSet:
    """An array at its own size, which needs no decoding."""
    low, high = value_range(source.array)
    height, width, channels = source.array.shape[1:]
    spec = ImageSpec(height, width, channels, source.array.dtype.name, low, high)  # type: ignore[arg-type]
    return DecodedSet(source, source.array, spec, [], None)


def _array_records(keys: list[str], pixels: np.ndarray, spec: ImageSpec) -> Records:
    """The records of an array: the same size for all, hashes of the pixels."""
    import pyarrow as pa

    from imatlas.images.hashing import perceptual_hash

    n, height, width, channels = pixels.shape
    hashes = np.empty(n, np.uint64)
    digests = []
    at_once = max(1, min(1024, 4 * _LARGE // max(1, height * width * channels)))
    for start in range(0, n, at_once):
        part = np.ascontiguousarray(pixels[start : start + at_once])
        digests += [hashlib.sha256(image.tobytes()).hexdigest() for image in part]
        view = rgb_view(part, spec) if channels in (3, 4) else part.mean(axis=3, dtype=np.float32)[..., None]
        gray = view @ np.array([0.299, 0.587, 0.114], np.float32) if view.shape[-1] == 3 else view[..., 0]
        hashes[start : start + at_once] = perceptual_hash(gray)
    same = {"format": "array", "mode": f"{channels} x {pixels.dtype}", "notes": ""}
    numbers = {"width": width, "height": height, "n_frames": 1, "frame": 0}
    columns = {name: pa.repeat(pa.scalar(value), n) for name, value in same.items()}
    columns |= {name: pa.repeat(pa.scalar(value, pa.int32()), n) for name, value in numbers.items()}
    columns |= {"key": pa.array(keys), "sha256": pa.array(digests), "phash": pa.array(hashes)}
    return Records(pa.table({name: columns[name] for name in Record._fields}))
