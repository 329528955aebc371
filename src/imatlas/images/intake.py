"""From a source to the rows of a cache: read, hash, decode and fit, by threads, in order, in bounded memory."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO, FileIO
from typing import IO, Any, NamedTuple

import numpy as np

from imatlas.arguments import counted
from imatlas.errors import DecodeError, SourceError
from imatlas.images import decode, hashing, memory_budget
from imatlas.images.cuts import CUTS, sampler_of
from imatlas.images.encode import encode_thumbnail
from imatlas.images.formats.pillow import picture_from
from imatlas.images.formats.sniff import has_image_name, has_video_name, sniff, sniff_video, suffix_of
from imatlas.images.formats.video import read_video
from imatlas.images.formats.warnings import quiet
from imatlas.images.keys import video_frame_key
from imatlas.images.picture import Aim, Fit, Frames, Picture
from imatlas.images.pixels import RGB, Kind, without_infinity
from imatlas.images.sources.base import HEAD, Source
from imatlas.images.sources.files import FileSource
from imatlas.images.sources.shards import TABLES
from imatlas.system.terminal import console, say, visible
from imatlas.system.threads import threads_of_workers, usable_cores
from imatlas.system.workers import Workers

CHUNK = 16
"""Images per task of a thread."""


@dataclass(frozen=True)
class Plan:
    """How each image is made into a row of the cache; equal plans give equal rows."""

    height: int
    width: int
    fit: Fit = "crop"
    background: RGB = (255, 255, 255)
    frames: Frames = "first"
    video: str = CUTS
    thumbnail_size: int | None = None

    @property
    def aim(self) -> Aim:
        """The part of the plan that decoders use."""
        return Aim(self.height, self.width, self.fit, self.thumbnail_size or 0)


@dataclass(slots=True)
class Row:
    """One image on its way into the cache."""

    item: int
    key: str
    pixels: np.ndarray
    kind: Kind
    width: int
    height: int
    format: str
    mode: str
    n_frames: int
    frame: int
    sha256: str
    notes: str
    amplitudes: np.ndarray | None = None
    phash: int = 0
    thumbnail: bytes | np.ndarray | None = None

    @property
    def n_bytes(self) -> int:
        """Approximate size in memory."""
        arrays = (a for a in (self.pixels, self.amplitudes, self.thumbnail) if isinstance(a, np.ndarray))
        return 1000 + sum(a.nbytes for a in arrays) + (len(self.thumbnail) if isinstance(self.thumbnail, bytes) else 0)


class Skip(NamedTuple):
    """An item that was not used; the reason is None if it is not an image at all."""

    item: int
    key: str
    reason: str | None


@dataclass
class Tally:
    """The skipped items of a set; those that are not images share one line with their count."""

    skipped: list[tuple[str, str]] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)

    def add(self, skip: Skip) -> None:
        """Add one item."""
        if skip.reason is not None:
            self.skipped.append((skip.key, skip.reason))
        else:
            ending = suffix_of(skip.key) or "no ending"
            self.others[ending] = self.others.get(ending, 0) + 1

    def lines(self) -> list[tuple[str, str]]:
        """(key, reason) of each item, the counted line last."""
        if not self.others:
            return list(self.skipped)
        n = sum(self.others.values())
        kinds = sorted(self.others, key=lambda e: (-self.others[e], e))
        listed = ", ".join(f"{self.others[e]} {e}" for e in kinds[:8]) + (", ..." if len(kinds) > 8 else "")
        if any(ending in TABLES for ending in kinds):
            listed += "; a table of images is read if it is given itself"
        return [*self.skipped, (f"({n} other file{'s' if n > 1 else ''})", f"no images: {listed}")]


def _may_be_picture(source: Source, item: int) -> bool:
    """Whether an item is a picture by its name or first bytes, or was listed explicitly by the user.

    Arrays next to pictures hold metadata about them; in a folder of nothing but arrays they are the pictures.
    """
    key = source.keys[item]
    if source.explicit or has_image_name(key) or has_video_name(key):
        return True
    try:
        head = source.head(item)
    except DecodeError:
        return False
    if sniff_video(head):
        return True
    found = sniff(head)
    if found == "NPY":
        return bool(getattr(source, "holds_arrays", False))
    return found is not None and not key.rpartition("/")[2].startswith("._")


class DecodedFiles:
    """The rows of the last files, by content: a set may hold the same file many thousand times."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Any, ...], tuple[str, list[Row | Skip], int]] = OrderedDict()
        self._n_bytes = 0

    def find(self, sign: tuple[Any, ...], item: int, key: str) -> list[Row | Skip] | None:
        """The rows of an item with this signature; None if it is not known."""
        with self._lock:
            found = self._known.get(sign)
            if found is None:
                return None
            self._known.move_to_end(sign)
        name, rows, _ = found
        renamed: list[Row | Skip] = []
        for row in rows:
            other = key + row.key[len(name) :]  # "#2" of the second frame
            if isinstance(row, Row):
                renamed.append(replace(row, item=item, key=other))
            else:
                renamed.append(row._replace(item=item, key=other))
        return renamed

    def keep(self, sign: tuple[Any, ...], key: str, rows: list[Row | Skip]) -> None:
        """Remember the rows of a file, and forget the oldest."""
        size = 1000 + sum(row.n_bytes for row in rows if isinstance(row, Row))
        with self._lock:
            if sign not in self._known:
                self._known[sign] = (key, rows, size)
                self._n_bytes += size
            while self._n_bytes > memory_budget.budget() // 16:
                self._n_bytes -= self._known.popitem(last=False)[1][2]


def read_item(source: Source, item: int, plan: Plan, decoded: DecodedFiles) -> list[Row | Skip]:
    """The row or rows of one item, or why there is none; files with the same bytes are decoded once."""
    key = source.keys[item]
    try:
        if not _may_be_picture(source, item):
            return [Skip(item, key, None)]
        with memory_budget.sharing(), memory_budget.reading():
            video = opened_video(source, item)
            if video is not None:
                with video:
                    return _rows_of_video(video, item, key, plan, decoded)
            value = source.read(item)
            if not isinstance(value, bytes):
                picture = picture_from(value, plan.background)
                return [_row(picture, item, key, hashlib.sha256(np.asarray(value).tobytes()).hexdigest(), plan)]
            if sniff_video(value[:HEAD]):  # in an archive
                return _rows_of_video(BytesIO(value), item, key, plan, decoded)
            return _rows_of_pictures(value, item, key, plan, decoded, source.packed(item))
    except DecodeError as error:
        return [Skip(item, key, str(error))]
    except SourceError:  # a server that stays away: the rest would be skipped as well
        raise
    except Exception as error:  # a user's dataset may raise anything
        return [Skip(item, key, f"cannot be read ({type(error).__name__}: {error})")]


def _rows_of_pictures(
    value: bytes, item: int, key: str, plan: Plan, decoded: DecodedFiles, packed: int | None
) -> list[Row | Skip]:
    """The rows of a file of one or several pictures."""
    digest = hashlib.sha256(value).hexdigest()
    # All that decoding depends on: the suffix too, for formats without a signature, and the memory limit.
    sign = (digest, suffix_of(key), memory_budget.allowance(len(value) if packed is None else packed))
    rows = decoded.find(sign, item, key)
    if rows is None:
        rows = []
        try:
            for picture in decode.read_frames(
                value, name=key, frames=plan.frames, aim=plan.aim, background=plan.background, packed=packed
            ):
                several = plan.frames == "all" and picture.n_frames > 1
                frame_key = f"{key}#{picture.frame + 1}" if several else key
                rows.append(_row(picture, item, frame_key, digest, plan))
        except DecodeError as error:
            later = Skip(item, f"{key}#{len(rows) + 1}", f"this and later frames: {error}")
            rows.append(later if rows else Skip(item, key, str(error)))
        decoded.keep(sign, key, rows)
    return rows


def _rows_of_video(file: IO[bytes], item: int, key: str, plan: Plan, decoded: DecodedFiles) -> list[Row | Skip]:
    """The rows of the frames of a video that its plan takes; one by one, so that only what is fitted is held."""
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    sign = (digest, "video")
    known = decoded.find(sign, item, key)
    if known is not None:
        return known
    rows: list[Row] = []
    problem: list[Skip] = []
    try:
        with read_video(file) as reader:
            for time, picture in reader.kept(sampler_of(plan.video, reader.rate)):
                picture.frame = time
                rows.append(_row(picture, item, video_frame_key(key, time, reader.n_digits), digest, plan))
    except DecodeError as error:
        problem = [Skip(item, key, f"used in part ({counted(len(rows), 'frame')}): {error}" if rows else str(error))]
    for row in rows:
        # One more than there are, if some are missing: a cache whose rows are fewer than this is not used again.
        row.n_frames = len(rows) + len(problem)
    found: list[Row | Skip] = [*rows, *problem]
    decoded.keep(sign, key, found)
    return found


def opened_video(source: Source, item: int) -> IO[bytes] | None:
    """A video that is a file on disk, opened, as it may be too large to be read; None for anything else."""
    if not isinstance(source, FileSource) or has_image_name(source.keys[item]) or not sniff_video(source.head(item)):
        return None
    return source.open(item)


def _row(picture: Picture, item: int, key: str, digest: str, plan: Plan) -> Row:
    """One picture as a row of the cache."""
    pixels = without_infinity(picture.fitted(plan.height, plan.width, plan.fit, plan.background))
    thumbnail: bytes | np.ndarray | None = None
    amplitudes = hashing.amplitudes(picture.gray())
    if plan.thumbnail_size:
        small = picture.thumbnail(plan.thumbnail_size)
        stack = not picture.kind.is_picture
        thumbnail = encode_thumbnail(small, stack=stack) if small.dtype == np.uint8 else small
    return Row(
        item=item,
        key=key,
        pixels=pixels,
        kind=picture.kind,
        width=picture.width,
        height=picture.height,
        format=picture.format,
        mode=picture.mode,
        n_frames=picture.n_frames,
        frame=picture.frame,
        sha256=digest,
        notes="; ".join(picture.notes),
        amplitudes=amplitudes,
        thumbnail=thumbnail,
    )


def chunked(source: Source, items: Sequence[int]) -> list[list[int]]:
    """Items as tasks of threads: `CHUNK` at a time, but each begins with a video if it holds one."""
    chunks: list[list[int]] = []
    for item in items:
        if has_video_name(source.keys[item]) or not chunks or len(chunks[-1]) == CHUNK:
            chunks.append([item])
        else:
            chunks[-1].append(item)
    return chunks


class RowReader:
    """Makes rows of the items of a source; safe to call from several threads."""

    def __init__(self, source: Source, plan: Plan) -> None:
        self._source, self._plan, self._seen = source, plan, DecodedFiles()

    def read_chunk(self, items: Sequence[int]) -> list[list[Row | Skip]]:
        """The rows of each of some items; their perceptual hashes are computed together."""
        results = []
        with quiet():
            for item in items:
                results.append(read_item(self._source, item, self._plan, self._seen))
        rows = [row for result in results for row in result if isinstance(row, Row)]
        if rows:
            hashes = hashing.hash_bits(np.stack([row.amplitudes for row in rows if row.amplitudes is not None]))
            for row, value in zip(rows, hashes.tolist(), strict=True):
                row.phash = value
        return results

    def read(self, chunks: Sequence[Sequence[int]], workers: int | Workers) -> Generator[list[list[Row | Skip]]]:
        """The rows of each item of each chunk, in order, read by threads here or by the workers of a cluster.

        Raises
        ------
        SourceError
            If a worker cannot read an item that can be read here.
        """
        if isinstance(workers, int):
            yield from in_order(self.read_chunk, chunks, workers)
            return
        for items, found in zip(chunks, workers.map(self.read_chunk, chunks), strict=True):
            self._confirm(items, found)
            yield found

    def _confirm(self, items: Sequence[int], found: Sequence[Sequence[Row | Skip]]) -> None:
        """Read here what a worker has skipped: it may be a machine without the images."""
        for item, rows in zip(items, found, strict=True):
            skips = [row for row in rows if isinstance(row, Skip)]
            if skips and not any(isinstance(row, Skip) for row in self.read_chunk([item])[0]):
                raise unread_by_worker(skips[0].key, skips[0].reason or "it seems to be no image")

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self._source, "plan": self._plan}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def unread_by_worker(key: str, reason: str) -> SourceError:
    """The error of a worker that cannot read what this machine can."""
    return SourceError(
        f"A worker of the cluster cannot read '{key}', which this machine can ({reason}); every machine of the cluster "
        "needs the images at the same path, or give their address, as in 's3://…'."
    )


def in_order(
    work: Callable[[Any], Any], tasks: Iterable[Any], workers: int, begin: Callable[[], Any] | None = None
) -> Generator[Any, None, None]:
    """Yield `work(task)` for each task in order, computed by threads a few tasks ahead; each first calls `begin`."""
    if workers <= 1:
        yield from map(work, tasks)
        return
    waiting: deque[Future] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="imatlas-images", initializer=begin)
    try:
        for task in tasks:
            waiting.append(pool.submit(work, task))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def with_networks(work: Callable[[Any], Any], tasks: Iterable[Any], at_most: int) -> Generator[Any, None, None]:
    """As `in_order` with at most so many threads, for work that torch does with several: its threads are shared out."""
    workers = min(n_workers(None), at_most)
    with threads_of_workers(workers) as begin, contextlib.closing(in_order(work, tasks, workers, begin)) as results:
        yield from results


def n_workers(workers: int | Workers | None) -> int:
    """The number of threads here: as asked, or one per usable core, at most 16."""
    return max(1, workers) if isinstance(workers, int) else min(16, usable_cores())


def with_progress(items: Sequence[Any], title: str, show: bool) -> Iterable[Any]:
    """The items, with a progress bar on a terminal; elsewhere a line every ten seconds."""
    return _with_progress(items, title) if show else items


def _with_progress(items: Sequence[Any], title: str) -> Iterator[Any]:
    if sys.stderr.isatty():
        from rich.markup import escape
        from rich.progress import track

        shown = escape(visible(title))
        yield from track(items, shown, len(items), console=console(error=True), update_period=0.2, transient=True)
        return
    shown_at = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if time.monotonic() - shown_at > 10.0:
            shown_at = time.monotonic()
            say(f"{title}: {done} of {len(items)}", error=True)


def peek_size(source: Source, item: int) -> tuple[int, int] | None:
    """(height, width) of an item's original without decoding its pixels; None if it is not an image."""
    key = source.keys[item]
    try:
        if not _may_be_picture(source, item):
            return None
        value = opened_video(source, item) or source.read(item)
        if isinstance(value, bytes) and not sniff_video(value[:HEAD]):
            return decode.size_of(value, key)
        if isinstance(value, bytes | FileIO):
            with BytesIO(value) if isinstance(value, bytes) else value as file, read_video(file) as video:
                return (video.height, video.width)
        height, width = np.asarray(value).shape[:2]
        return (int(height), int(width))
    except SourceError:
        raise
    except Exception:
        return None
