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
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from imatlas.errors import ArtifactError, InputError, SourceError
from imatlas.images.cache_building import Building
from imatlas.images.cache_folder import BUILDING, FILES, UNREADABLE, Cache, open_cache, settings_of
from imatlas.images.cache_parts import open_part
from imatlas.images.cache_writer import CacheWriter
from imatlas.images.intake import Plan, n_workers
from imatlas.images.sources.base import Source, reason_of
from imatlas.system.atomic_io import flush_tree, is_link, output_path, remove_listed
from imatlas.system.inventory import open_regular
from imatlas.system.locks import folder_lock
from imatlas.system.terminal import say
from imatlas.system.workers import Workers

_ASIDE = re.compile(r"\.new-[0-9]{1,10}-[a-z0-9_]{1,16}")
"""Names of the temporary folders in which caches are built."""

_NAME = re.compile(r"[0-9a-f]{20}")
"""Names of the folders of caches."""

_WRITTEN = re.compile(
    r"pixels\.npy|records\.parquet|thumbnails\.(?:bin|new)|cache\.json|part\.json|rows-[0-9a-z-]{1,40}\.npy"
)
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
    """Decode what no part and no earlier cache has, write a cache into a temporary folder, and rename it into place."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    target = cache_dir / name
    _refuse_in_the_way(target)  # before decoding
    with _only_builder(cache_dir) as alone:
        aside = _new_folder(cache_dir)
        building = Building(source, stamps, plan, cache_dir if alone else aside)
        try:
            previous = building.find_known(cache_dir)
            if alone:
                _sweep(cache_dir, [piece.folder for piece in building.pieces])
            building.decode(partial(_new_folder, cache_dir), workers, progress, limit)
            CacheWriter(aside, source, plan, stamps).write(building.pieces, building.rows, building.tally)
            flush_tree(aside)
            if os.path.lexists(target) and (stamps is None or open_cache(target) is None):
                remove_listed(target, FILES)
            try:
                _put(aside, target)
            except OSError:
                if open_cache(target) is None:  # else another process has built the same one meanwhile
                    raise
            if previous is not None and previous.about["source"] == source.name and previous.folder != target:
                remove_listed(previous.folder, FILES)
            building.remove_parts()
            return Cache(target, check=False)
        except InputError:  # what was decoded is of no use to another attempt, unlike after a full disk
            building.remove_parts()
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)  # created above under a random name


def _new_folder(cache_dir: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".new-{os.getpid()}-", dir=cache_dir))


@contextlib.contextmanager
def _only_builder(cache_dir: Path) -> Iterator[bool]:
    """Whether no other process or thread builds a cache there now; only then parts are left for later builds, and used.

    The lock is on the folder itself, and ends with the process.
    """
    try:
        descriptor = folder_lock(cache_dir)
    except BlockingIOError:
        descriptor = None
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


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


def _sweep(cache_dir: Path, used: list[Path]) -> None:
    """Remove what builds that were killed more than a day ago have left: parts that this build does not use, and
    unfinished folders by the list that each of them kept."""
    for left in cache_dir.glob(".part-*"):
        with contextlib.suppress(*UNREADABLE):
            if left not in used and time.time() - left.stat().st_mtime > 86400:
                open_part(left).remove()
    for left in cache_dir.glob(".new-*"):
        with contextlib.suppress(OSError, ArtifactError, UnicodeDecodeError):
            is_ours = _ASIDE.fullmatch(left.name) and not is_link(left)
            if is_ours and time.time() - left.stat().st_mtime > 86400:
                with open_regular(left / BUILDING) as file:
                    names = file.read(100_000).decode().splitlines()
                listed = [name for name in names if _WRITTEN.fullmatch(name)]
                if listed:  # else it is not our list
                    remove_listed(left, [*listed, BUILDING])
