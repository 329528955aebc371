"""The pixel cache of a set: each image is decoded once, and rows of an earlier cache are reused."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

from imatlas.errors import ArtifactError, SourceError
from imatlas.images.cache_folder import BUILDING, FIELDS, FILES, UNREADABLE, Cache, open_cache, settings_of
from imatlas.images.cache_writer import BATCH, CacheWriter
from imatlas.images.intake import Plan, Row, RowReader, Skip, chunked, n_workers, with_progress
from imatlas.images.pixels import Kind
from imatlas.images.sources.base import Source, reason_of
from imatlas.system.atomic_io import flush_tree, is_link, output_path, remove_listed
from imatlas.system.inventory import open_regular
from imatlas.system.terminal import say
from imatlas.system.workers import Workers

_ASIDE = re.compile(r"\.new-[0-9]{1,10}-[a-z0-9_]{1,16}")
"""Names of the temporary folders in which caches are built."""

_NAME = re.compile(r"[0-9a-f]{20}")
"""Names of the folders of caches."""

_WRITTEN = re.compile(r"pixels\.npy|records\.parquet|thumbnails\.(?:bin|new)|cache\.json|rows-[0-9a-z-]{1,40}\.npy")
"""Names of the files that a build writes there; only these may be deleted by its list."""


def open_or_build(
    source: Source,
    plan: Plan,
    cache_dir: Path | None,
    *,
    workers: int | Workers | None = None,
    progress: bool = False,
    limit: int | None = None,
) -> tuple[Cache, bool]:
    """The cache of a source under a plan, and whether it is temporary.

    Raises
    ------
    InputError
        If none of the images can be used, or a new cache would take more than `limit` bytes.
    ArtifactError
        If the cache cannot be written: a file in the way, no permission, a full disk.
    """
    temporary = cache_dir is None
    cache_dir = Path(tempfile.mkdtemp(prefix="imatlas-")) if cache_dir is None else output_path(cache_dir)
    try:
        stamps = source.stamps()
        name = _name(source, stamps, plan)
        if stamps is not None and os.path.lexists(cache_dir / name):
            try:
                return Cache(cache_dir / name), temporary
            except UNREADABLE as error:
                if progress:
                    message = f"The pixel cache in '{cache_dir / name}' cannot be used ({error}); it is built again."
                    say(message, error=True)
        readers = n_workers(workers) if workers is None else workers
        return _build(source, stamps, plan, cache_dir, name, readers, progress, limit), temporary
    except BaseException as error:
        if temporary:
            shutil.rmtree(cache_dir, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, ArtifactError | SourceError):
            raise ArtifactError(_write_error(error, cache_dir)) from error
        raise


def holds_only_caches(folder: Path) -> bool:
    """Whether a folder holds pixel caches and nothing else."""
    return (
        folder.is_dir()
        and not is_link(folder)
        and all(
            _NAME.fullmatch(each.name) and not is_link(each) and each.is_dir() and {*os.listdir(each)} <= {*FILES}
            for each in folder.iterdir()
        )
    )


def _write_error(error: OSError, cache_dir: Path) -> str:
    """What kept the cache from being written, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        advice = "free some space or choose another cache_dir"
    elif error.errno in (errno.EEXIST, errno.ENOTDIR):
        advice = "a file is in the way; move it or choose another cache_dir"
    else:
        advice = "choose a cache_dir that you may write to"
    return f"The pixel cache cannot be written to '{cache_dir}' ({reason_of(error)}); {advice}."


def _name(source: Source, stamps: list[tuple[int, int]] | None, plan: Plan) -> str:
    """The cache's folder name: a hash of the plan and of the listing of the source."""
    digest = hashlib.sha256(json.dumps(settings_of(plan), sort_keys=True).encode())
    if stamps is None:
        digest.update(source.name.encode("utf-8", "surrogatepass"))
        return f"unlisted-{digest.hexdigest()[:16]}"  # nothing tells its versions apart: always rebuilt, in one place
    digest.update(str(source.explicit).encode())
    for key, stamp in zip(source.keys, stamps, strict=True):
        digest.update(f"{key}\0{stamp[0]}\0{stamp[1]}\n".encode())
    return digest.hexdigest()[:20]


def _build(
    source: Source,
    stamps: list[tuple[int, int]] | None,
    plan: Plan,
    cache_dir: Path,
    name: str,
    workers: int | Workers,
    progress: bool,
    limit: int | None,
) -> Cache:
    """Write a cache into a temporary folder, rename it into place, and open it."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    target = cache_dir / name
    _refuse_in_the_way(target)  # before decoding
    _sweep(cache_dir)
    known = _known_rows(source, stamps, plan, cache_dir)
    aside = Path(tempfile.mkdtemp(prefix=f".new-{os.getpid()}-", dir=cache_dir))
    try:
        items = range(len(source.keys))
        fresh = [item for item in items if item not in known]
        chunks = chunked(source, fresh)
        reader = RowReader(source, plan)
        with (
            contextlib.closing(reader.read(chunks, workers)) as results,
            CacheWriter(aside, source, plan, stamps, limit) as writer,
        ):
            decoded = chain.from_iterable(results)
            for item in with_progress(items, "Reading images", progress):
                writer.add(known[item] if item in known else next(decoded))
            writer.finish()
        flush_tree(aside)
        if os.path.lexists(target) and (stamps is None or open_cache(target) is None):
            remove_listed(target, FILES)
        try:
            _put(aside, target)
        except OSError:
            if open_cache(target) is None:  # else another process has built the same one meanwhile
                raise
        previous = known.cache
        if previous is not None and previous.about["source"] == source.name and previous.folder != target:
            remove_listed(previous.folder, FILES)
        return Cache(target, check=False)
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # created above under a random name


def _refuse_in_the_way(folder: Path) -> None:
    """Refuse to build a cache where its folder is a link, or where one of its files is not a file."""
    blocking = [name for name in FILES if (folder / name).exists() and not (folder / name).is_file()]
    if is_link(folder) or (folder.exists() and not folder.is_dir()) or blocking:
        path = folder / blocking[0] if blocking else folder
        raise ArtifactError(f"'{path}' is in the way of the pixel cache; move it away or choose another cache_dir.")


def _put(aside: Path, target: Path) -> None:
    """Rename a cache into place; file by file, `cache.json` last, where the folder holds other files."""
    try:
        os.rename(aside, target)
    except OSError:
        if not target.is_dir() or any(os.path.lexists(target / name) for name in FILES):
            raise
        for name in FILES:
            os.rename(aside / name, target / name)


def _sweep(cache_dir: Path) -> None:
    """Remove what builds that were killed more than a day ago have left, by the list that each of them kept."""
    for left in cache_dir.glob(".new-*"):
        with contextlib.suppress(OSError, ArtifactError, UnicodeDecodeError):
            is_ours = _ASIDE.fullmatch(left.name) and not is_link(left)
            if is_ours and time.time() - left.stat().st_mtime > 86400:
                with open_regular(left / BUILDING) as file:
                    names = file.read(100_000).decode().splitlines()
                listed = [name for name in names if _WRITTEN.fullmatch(name)]
                if listed:  # else it is not our list
                    remove_listed(left, [*listed, BUILDING])


class _KnownRows:
    """The rows of an earlier cache that are still valid, by item."""

    def __init__(self, cache: Cache | None, numbers: dict[int, list[int]]) -> None:
        self.cache, self._numbers = cache, numbers
        self._kind = Kind(*cache.about["kind_values"]) if cache is not None else None
        self._columns: dict[str, list[Any]] = {}
        self._start = -1  # of the rows that `_columns` holds

    def __contains__(self, item: int) -> bool:
        return item in self._numbers

    def __getitem__(self, item: int) -> list[Row | Skip]:
        return [self._row(item, number) for number in self._numbers[item]]

    def _row(self, item: int, number: int) -> Row:
        assert self.cache is not None
        assert self._kind is not None
        start = number - number % BATCH
        if start != self._start:  # items come nearly in order
            self._columns = self.cache.records.table.select(FIELDS).slice(start, BATCH).to_pydict()
            self._start = start
        pixels = self.cache.pixels[number]
        return Row(
            item=item,
            pixels=pixels,
            kind=self._kind,
            transparent=self._kind.alpha and bool((pixels[..., -1] < 255).any()),
            thumbnail=self.cache.thumbnail(number) if self.cache.about["settings"]["thumbnail_size"] else None,
            **{name: column[number - start] for name, column in self._columns.items()},
        )


def _known_rows(source: Source, stamps: list[tuple[int, int]] | None, plan: Plan, cache_dir: Path) -> _KnownRows:
    """The rows of the earlier cache of the same plan that knows most of the items.

    Only rows stored as they were decoded count, not those converted to fit their set.
    """
    best: Cache | None = None
    best_rows: dict[int, list[int]] = {}
    folders = sorted(cache_dir.glob("[0-9a-f]*")) if stamps is not None else []
    pairs = zip(source.keys, stamps or (), strict=True) if folders else ()
    index = {(key, *stamp): i for i, (key, stamp) in enumerate(pairs)}
    for folder in folders:
        cache = open_cache(folder, settings=settings_of(plan))
        if cache is None:
            continue
        columns = [cache.records[name].tolist() for name in ("item_key", "size", "time", "kind")]
        rows: dict[int, list[int]] = {}
        for row, (key, size, changed, kind) in enumerate(zip(*columns, strict=True)):
            item = index.get((key, size, changed))
            if item is not None and kind == cache.about["kind"]:
                rows.setdefault(item, []).append(row)
        keys, frames = cache.records["key"], cache.records["n_frames"]
        # Of a file whose frames are rows, all or none.
        rows = {
            item: found
            for item, found in rows.items()
            if keys[found[0]] == source.keys[item] or len(found) == frames[found[0]]
        }
        if len(rows) > len(best_rows):
            best, best_rows = cache, rows
    return _KnownRows(best, best_rows)
