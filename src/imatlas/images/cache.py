"""The pixel cache of a set: decoded once, memory-mapped after, written aside and renamed, its known rows reused.

CACHE_DIR/3f2a.../pixels.npy        (N, H, W, C), plain NumPy format
                  records.parquet   one row an image
                  thumbnails.bin    files one after the other, where asked for
                  cache.json        the plan, the spec, what was skipped, and the hashes of the others

A cache is read only where every byte of it is as it was written: all of it is hashed when it is opened (0.4 s a
700 MB, which are then in memory to learn from), and one that does not agree is built anew. Whatever else lies in these
folders is neither read nor deleted.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from imatlas.errors import ArtifactError, InputError
from imatlas.images.encode import encode_thumbnail
from imatlas.images.intake import Plan, Row, Skip, Tally, n_workers, read_rows, with_progress
from imatlas.images.pixels import Kind, common_kind, converted, fits_in, own_range, value_range
from imatlas.images.records import Records
from imatlas.images.sources.base import Source, reason_of
from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_view
from imatlas.system.atomic_io import flush_tree, is_link, open_new, output_path, remove_listed
from imatlas.system.inventory import Entry, Inventory, open_regular, read_json, seal
from imatlas.system.terminal import say

FORMAT = 3

DATA = ("pixels.npy", "records.parquet", "thumbnails.bin")
FILES = (*DATA, "cache.json")
"""All that a cache consists of, and so all that is deleted with it."""

BUILDING = "building.txt"
"""In the folder of a cache that is being built: the names of what is written there, for who has to clear it away."""

_ASIDE = re.compile(r"\.new-[0-9]{1,10}-[a-z0-9_]{1,16}")
"""Names of the folders in which caches are built."""

_WRITTEN = re.compile(r"pixels\.npy|records\.parquet|thumbnails\.(?:bin|new)|cache\.json|rows-[0-9a-z-]{1,40}\.npy")
"""Names of the files that a build writes there, which alone its list may delete."""

_NPY = b"\x93NUMPY"


class Cache:
    """An opened cache: `pixels`, `records`, `spec`, `skipped`, and thumbnails by row.

    Parameters
    ----------
    folder : path
    check : bool
        Whether to compare all of its files with their hashes; not needed for one that this program has just written.
    settings : dict, optional
        Refuse one that was built with others, before much is read.

    Raises
    ------
    OSError, ValueError
        If it is not whole.
    """

    def __init__(self, folder: Path, *, check: bool = True, settings: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.about: dict[str, Any] = _about(folder)
        if settings is not None and self.about["settings"] != settings:
            raise ValueError("other settings")
        self.spec = ImageSpec.from_json(self.about["spec"])
        self.skipped = [(key, reason) for key, reason in self.about["skipped"]]
        files = {name: Entry(*self.about["files"][name]) for name in DATA}
        for name, reason in Inventory(folder, files).damaged(DATA if check else ()).items():
            raise ValueError(f"{name}: {reason}")
        self.pixels = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        self.records = _records(folder / "records.parquet")
        ends = self.records["thumbnail_end"]
        n = len(self.records)
        if self.pixels.shape != (n, *self.spec.shape) or self.pixels.dtype != self.spec.dtype or not n:
            raise ValueError("sizes do not agree")
        if (np.diff(ends, prepend=0) < 0).any() or ends[-1] != files["thumbnails.bin"].size:
            raise ValueError("thumbnails do not agree")

    def thumbnail(self, row: int) -> bytes:
        """The file in which a row's thumbnail is encoded."""
        with open(self.folder / "thumbnails.bin", "rb") as file:
            return _thumbnail(file, self.records["thumbnail_end"], row)


def _about(folder: Path) -> dict[str, Any]:
    """What `cache.json` says, checked.

    Raises
    ------
    OSError, ValueError
    """
    about = read_json(folder / "cache.json")
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError("another format")
    if about.pop("digest", None) != seal(about):
        raise ValueError("its checksum differs")
    texts = isinstance(about.get("source"), str) and isinstance(about.get("kind"), str)
    skipped, kind, files = (about.get(name) for name in ("skipped", "kind_values", "files"))
    lists = isinstance(skipped, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in skipped
    )
    if not texts or not lists or not isinstance(about.get("settings"), dict) or not isinstance(files, dict):
        raise ValueError("it lacks values")
    if not isinstance(kind, list) or str(Kind(*kind)) != about["kind"] or set(files) != set(DATA):
        raise ValueError("it lacks values")
    return about


def _records(path: Path) -> Records:
    """The records in a file, if they have the columns of ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_regular(path) as file:
        # Threads of Arrow that read through a Python file may outlive it, and abort the process when it ends.
        table = pq.read_table(file, use_threads=False, pre_buffer=False)
    types = {field.name: field.type for field in table.schema}
    counts = dict.fromkeys(("item", "size", "time", "thumbnail_end"), pa.int64())
    wanted = {**_types(), "item_key": pa.string(), "kind": pa.dictionary(pa.int32(), pa.string()), **counts}
    if types != wanted:
        raise ValueError("its records have other columns")
    return Records(table)


def _thumbnail(file: IO[bytes], ends: np.ndarray, row: int) -> bytes:
    start = int(ends[row - 1]) if row else 0
    file.seek(start)
    return file.read(int(ends[row]) - start)


def open_or_build(
    source: Source, plan: Plan, cache_dir: Path | None, *, workers: int | None = None, progress: bool = False
) -> tuple[Cache, bool]:
    """The cache of a source under a plan, and whether it is temporary.

    Raises
    ------
    InputError
        If not one image of the source can be used.
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
            except _UNREADABLE as error:
                if progress:
                    told = f"The pixel cache in '{cache_dir / name}' cannot be used ({error}); it is built anew."
                    say(told, error=True)
        return _build(source, stamps, plan, cache_dir, name, n_workers(workers), progress), temporary
    except BaseException as error:
        if temporary:
            shutil.rmtree(cache_dir, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, ArtifactError):
            raise ArtifactError(_told(error, cache_dir)) from error
        raise


def _told(error: OSError, cache_dir: Path) -> str:
    """What kept the cache from being written, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        advice = "free some space or choose another cache_dir"
    elif error.errno in (errno.EEXIST, errno.ENOTDIR):
        advice = "a file is in the way; move it or choose another cache_dir"
    else:
        advice = "choose a cache_dir that you may write to"
    return f"The pixel cache cannot be written to '{cache_dir}' ({reason_of(error)}); {advice}."


def _settings(plan: Plan) -> dict[str, Any]:
    """What rows depend on besides their files, as JSON gives it back."""
    heif = importlib.util.find_spec("pillow_heif") is not None  # with it more files can be read
    return json.loads(json.dumps({"format": FORMAT, **asdict(plan), "heif": heif}))


def _name(source: Source, stamps: list[tuple[int, int]] | None, plan: Plan) -> str:
    """The cache's folder name: a hash over the plan and the listing of the source."""
    digest = hashlib.sha256(json.dumps(_settings(plan), sort_keys=True).encode())
    if stamps is None:
        digest.update(source.name.encode("utf-8", "surrogatepass"))
        return f"unlisted-{digest.hexdigest()[:16]}"  # told apart by nothing: always built anew, in one place
    digest.update(str(source.explicit).encode())
    for key, stamp in zip(source.keys, stamps, strict=True):
        digest.update(f"{key}\0{stamp[0]}\0{stamp[1]}\n".encode())
    return digest.hexdigest()[:20]


_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, NotImplementedError)


def open_cache(folder: Path, **options: Any) -> Cache | None:
    """The cache in a folder, or None where there is none or it is damaged."""
    try:
        return Cache(folder, **options)
    except _UNREADABLE:
        return None


def _build(
    source: Source,
    stamps: list[tuple[int, int]] | None,
    plan: Plan,
    cache_dir: Path,
    name: str,
    workers: int,
    progress: bool,
) -> Cache:
    """Write a cache aside, rename it into place, and open it."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    target = cache_dir / name
    _refuse_in_the_way(target)  # before all is decoded
    _sweep(cache_dir)
    previous, known = _known_rows(source, stamps, plan, cache_dir)
    aside = Path(tempfile.mkdtemp(prefix=f".new-{os.getpid()}-", dir=cache_dir))
    try:
        rows = _new_and_known(source, plan, workers, previous, known)
        with _Writer(aside, plan, stamps) as writer:
            for result in with_progress(rows, len(source.keys), "Reading images", progress):
                writer.add(result)
            writer.finish(source)
        flush_tree(aside)
        if os.path.lexists(target) and (stamps is None or open_cache(target) is None):
            remove_listed(target, FILES)
        try:
            _put(aside, target)
        except OSError:
            if open_cache(target) is None:  # else another process has built the same meanwhile
                raise
        if previous is not None and previous.about["source"] == source.name and previous.folder != target:
            remove_listed(previous.folder, FILES)
        return Cache(target, check=False)
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # made above under a random name: ours


def _refuse_in_the_way(folder: Path) -> None:
    """Refuse to build a cache where its folder is a link, or one of its files none."""
    odd = [name for name in FILES if (folder / name).exists() and not (folder / name).is_file()]
    if is_link(folder) or (folder.exists() and not folder.is_dir()) or odd:
        path = folder / odd[0] if odd else folder
        raise ArtifactError(f"'{path}' is in the way of the pixel cache; move it away or choose another cache_dir.")


def _put(aside: Path, target: Path) -> None:
    """Rename a cache into place; file by file, the one that makes it count last, where others' files lie there."""
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
            ours = _ASIDE.fullmatch(left.name) and not is_link(left)
            if ours and time.time() - left.stat().st_mtime > 86400:
                with open_regular(left / BUILDING) as file:
                    names = file.read(100_000).decode().splitlines()
                listed = [name for name in names if _WRITTEN.fullmatch(name)]
                if listed:  # else it is no list of ours
                    remove_listed(left, [*listed, BUILDING])


def _known_rows(
    source: Source, stamps: list[tuple[int, int]] | None, plan: Plan, cache_dir: Path
) -> tuple[Cache | None, dict[int, list[int]]]:
    """The earlier cache of the same plan that knows most of the items, and its rows by item.

    Only rows that the cache holds as they were decoded count; one that was made gray or 8-bit to fit its set does not.
    """
    best: tuple[Cache | None, dict[int, list[int]]] = (None, {})
    if stamps is None:
        return best
    index = {(key, *stamp): i for i, (key, stamp) in enumerate(zip(source.keys, stamps, strict=True))}
    for folder in sorted(cache_dir.glob("[0-9a-f]*")):
        cache = open_cache(folder, settings=_settings(plan))
        if cache is None:
            continue
        columns = [cache.records[name].tolist() for name in ("item_key", "size", "time", "kind")]
        rows: dict[int, list[int]] = {}
        for row, (key, size, changed, kind) in enumerate(zip(*columns, strict=True)):
            item = index.get((key, size, changed))
            if item is not None and kind == cache.about["kind"]:
                rows.setdefault(item, []).append(row)
        frames = cache.records["n_frames"]
        if plan.frames == "all":  # all frames of a file or none
            rows = {item: found for item, found in rows.items() if len(found) == frames[found[0]]}
        if len(rows) > len(best[1]):
            best = (cache, rows)
    return best


def _new_and_known(
    source: Source, plan: Plan, workers: int, previous: Cache | None, known: dict[int, list[int]]
) -> Iterator[list[Row | Skip]]:
    """The rows of every item in order: from the previous cache where it knows them, else decoded."""
    fresh = [item for item in range(len(source.keys)) if item not in known]
    decoded = read_rows(source, fresh, plan, workers)
    try:
        columns = previous.records.table.to_pydict() if previous is not None else {}
        kind = Kind(*previous.about["kind_values"]) if previous is not None else None
        for item in range(len(source.keys)):
            if item not in known:
                yield next(decoded)
                continue
            assert previous is not None
            assert kind is not None
            yield [_known_row(previous, columns, kind, item, row) for row in known[item]]
    finally:
        decoded.close()  # type: ignore[attr-defined]


def _known_row(cache: Cache, columns: dict[str, list], kind: Kind, item: int, row: int) -> Row:
    pixels = cache.pixels[row]
    values = {name: columns[name][row] for name in _FIELDS}
    thumbnail = cache.thumbnail(row) if cache.about["settings"]["thumbnail_size"] else None
    return Row(
        item=item,
        pixels=pixels,
        kind=kind,
        clear=kind.alpha and bool((pixels[..., -1] < 255).any()),
        thumbnail=thumbnail,
        **values,
    )


_FIELDS = ("key", "width", "height", "format", "mode", "n_frames", "frame", "sha256", "phash", "notes")


class _Writer:
    """Takes rows in order and appends their pixels to one file a kind; most sets have one, which then is the cache."""

    def __init__(self, folder: Path, plan: Plan, stamps: list[tuple[int, int]] | None) -> None:
        self._folder = folder
        self._plan = plan
        self._stamps = stamps
        self._files: dict[Kind, IO[bytes]] = {}
        self._counts: dict[Kind, int] = {}
        self._kinds: list[Kind] = []
        self._any_clear = False
        self._columns: dict[str, list[Any]] = {name: [] for name in (*_FIELDS, "item")}
        self._ends: list[int] = []
        self._list = open_new(folder / BUILDING)
        self._will_write(*FILES, "thumbnails.new")
        self._thumbnails = open(folder / "thumbnails.bin", "wb")  # noqa: SIM115 - closed in finish
        self._unfinished_thumbnails = False
        self._tally = Tally()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        for file in [*self._files.values(), self._thumbnails, self._list]:
            with contextlib.suppress(OSError):  # a full disk was told already
                file.close()

    def _will_write(self, *names: str) -> None:
        """List files before they are made."""
        self._list.write("".join(f"{name}\n" for name in names).encode())
        self._list.flush()

    def add(self, results: list[Row | Skip]) -> None:
        """Append the rows of one item."""
        for row in results:
            if isinstance(row, Skip):
                self._tally.add(row)
                continue
            if row.kind not in self._files:
                self._will_write(self._path(row.kind).name)
                file = open(self._path(row.kind), "wb", buffering=2**18)  # noqa: SIM115 - closed in finish
                self._files[row.kind] = file
                self._counts[row.kind] = 0
                _write_header(file, row.kind, self._plan, 0)
            self._files[row.kind].write(np.ascontiguousarray(row.pixels).data)
            self._counts[row.kind] += 1
            self._kinds.append(row.kind)
            self._any_clear |= row.clear
            for name, column in self._columns.items():
                column.append(getattr(row, name))
            self._add_thumbnail(row.thumbnail)

    def _add_thumbnail(self, thumbnail: bytes | np.ndarray | None) -> None:
        if isinstance(thumbnail, np.ndarray):  # its range is known only at the end
            np.save(self._thumbnails, thumbnail, allow_pickle=False)
            self._unfinished_thumbnails = True
        elif thumbnail is not None:
            self._thumbnails.write(thumbnail)
        self._ends.append(self._thumbnails.tell())

    def _path(self, kind: Kind) -> Path:
        return self._folder / f"rows-{kind}.npy"

    def finish(self, source: Source) -> None:
        """Bring all rows to the common kind and write the records."""
        skipped = [*source.skipped, *self._tally.lines()]
        if not self._kinds:
            raise InputError(_nothing(source, skipped))
        for kind, file in self._files.items():
            file.seek(0)
            _write_header(file, kind, self._plan, self._counts[kind])
            file.close()
        self._thumbnails.close()
        target = common_kind(self._counts, self._any_clear, gaps=getattr(source, "has_gaps", False))
        kept = np.array([fits_in(kind, target) for kind in self._kinds])
        for row in np.flatnonzero(~kept):
            skipped.append((self._columns["key"][row], _misfit(self._kinds[row], target)))
        self._write_pixels(target, kept)
        pixels = np.load(self._folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        low, high = value_range(pixels)
        size = self._plan.height, self._plan.width
        spec = ImageSpec(*size, target.channels, target.dtype, low, high, target.alpha)
        ends = np.array(self._ends, np.int64)
        if self._unfinished_thumbnails or not kept.all():
            ends = self._finish_thumbnails(spec, kept)
        self._write_records(kept, ends)
        about = {
            "format": FORMAT,
            "source": source.name,
            "settings": _settings(self._plan),
            "spec": spec.to_json(),
            "n": len(pixels),
            "kind": str(target),
            "kind_values": list(target),
            "skipped": skipped,
        }
        inventory = Inventory(self._folder)
        inventory.record(DATA)
        about = json.loads(json.dumps({**about, "files": inventory.files}))
        text = json.dumps({**about, "digest": seal(about)}, indent=1)
        (self._folder / "cache.json").write_text(text + "\n", encoding="utf-8")
        self._list.close()
        (self._folder / BUILDING).unlink()

    def _write_pixels(self, target: Kind, kept: np.ndarray) -> None:
        """`pixels.npy`: the one file there is, or a merger of several."""
        path = self._folder / "pixels.npy"
        if list(self._counts) == [target]:
            os.rename(self._path(target), path)
            return
        parts = {kind: np.load(self._path(kind), mmap_mode="r", allow_pickle=False) for kind in self._counts}
        deep = [
            own_range(part, kind) for kind, part in parts.items() if kind.dtype != "uint8" and fits_in(kind, target)
        ]
        deep_range = (min(low for low, _ in deep), max(high for _, high in deep)) if deep else (0.0, 1.0)
        at = dict.fromkeys(parts, 0)
        with open(path, "wb", buffering=2**18) as out:
            _write_header(out, target, self._plan, int(kept.sum()))
            for kind, n in _runs(self._kinds):
                if fits_in(kind, target):
                    rows = parts[kind][at[kind] : at[kind] + n]
                    out.write(
                        np.ascontiguousarray(converted(rows, kind, target, self._plan.background, deep_range)).data
                    )
                at[kind] += n
        for row, kind in enumerate(self._kinds):
            if kind.dtype != target.dtype and kept[row]:
                note = f"{kind.dtype} brought to the {target.dtype} of most"
                self._columns["notes"][row] = "; ".join(filter(None, (self._columns["notes"][row], note)))
        del parts
        for kind in self._counts:
            self._path(kind).unlink()

    def _finish_thumbnails(self, spec: ImageSpec, kept: np.ndarray) -> np.ndarray:
        """Encode the deep thumbnails through the range of the set, and leave out those of rows that were left out."""
        ends = np.array(self._ends, np.int64)
        path, new = self._folder / "thumbnails.bin", self._folder / "thumbnails.new"
        out_ends = []
        with open(path, "rb") as file, open(new, "wb") as out:
            for row in np.flatnonzero(kept):
                content = _thumbnail(file, ends, int(row))
                if content.startswith(_NPY):
                    start = int(ends[row - 1]) if row else 0
                    file.seek(start)
                    deep = np.load(file, allow_pickle=False)
                    own = spec if spec.dtype == deep.dtype.name else _spec_of(deep, spec)
                    content = encode_thumbnail(to_view(deep, own), stack=not self._kinds[row].is_picture)
                out.write(content)
                out_ends.append(out.tell())
        os.replace(new, path)
        return np.array(out_ends, np.int64)

    def _write_records(self, kept: np.ndarray, ends: np.ndarray) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = np.flatnonzero(kept)
        columns: dict[str, Any] = {}
        types = _types()
        for name in _FIELDS:
            values = self._columns[name] if len(rows) == len(kept) else [self._columns[name][i] for i in rows]
            columns[name] = pa.array(values, types[name])
        items = np.array(self._columns["item"], np.int64)[rows]
        columns["item"] = pa.array(items)
        # The listing's own key and stamp tell later whether a file is still the same.
        columns["item_key"] = pa.array([_item_key(key, n, f) for key, n, f in self._names(rows)], pa.string())
        stamps = np.array(self._stamps, np.int64)[items] if self._stamps is not None else np.full((len(items), 2), -1)
        columns["size"], columns["time"] = pa.array(stamps[:, 0]), pa.array(stamps[:, 1])
        columns["kind"] = pa.array([str(self._kinds[i]) for i in rows], pa.string()).dictionary_encode()
        columns["thumbnail_end"] = pa.array(ends)
        pq.write_table(pa.table(columns), self._folder / "records.parquet", compression="zstd")

    def _names(self, rows: np.ndarray) -> Iterator[tuple[str, int, int]]:
        for i in rows:
            several = self._plan.frames == "all" and self._columns["n_frames"][i] > 1
            yield self._columns["key"][i], several, self._columns["frame"][i]


def _item_key(key: str, several: int, frame: int) -> str:
    return key.removesuffix(f"#{frame + 1}") if several else key


def _types() -> dict[str, Any]:
    import pyarrow as pa

    text, count = pa.string(), pa.int32()
    return {
        "key": text,
        "width": count,
        "height": count,
        "format": text,
        "mode": text,
        "n_frames": count,
        "frame": count,
        "sha256": text,
        "phash": pa.uint64(),
        "notes": text,
    }


def _write_header(file: IO[bytes], kind: Kind, plan: Plan, n: int) -> None:
    """NumPy's own header; it is padded so that it is as long for any number of rows."""
    shape = (n, plan.height, plan.width, kind.channels)
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(kind.dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _runs(kinds: Sequence[Kind], most: int = 1024) -> Iterator[tuple[Kind, int]]:
    """Runs of equal kinds with their lengths."""
    start = 0
    for i in range(1, len(kinds) + 1):
        if i == len(kinds) or kinds[i] != kinds[start] or i - start == most:
            yield kinds[start], i - start
            start = i


def _spec_of(pixels: np.ndarray, spec: ImageSpec) -> ImageSpec:
    """The spec to view one picture by whose depth is not that of its set."""
    low, high = value_range(pixels[None])
    return ImageSpec(spec.height, spec.width, spec.channels, pixels.dtype.name, low, high)  # type: ignore[arg-type]


def _misfit(kind: Kind, target: Kind) -> str:
    if target.is_picture:
        return f"has {kind.channels} channels, and most of the set are pictures"
    return f"has {kind.channels} channels, and most of the set have {target.channels}"


def _named(source: Source) -> str:
    """A source in a sentence: a path in quotes, words as they are."""
    return f"'{source.name}'" if source.root is not None and not source.name.startswith("a list of ") else source.name


def _nothing(source: Source, skipped: list[tuple[str, str]]) -> str:
    """Why there is nothing to learn from."""
    first = "; ".join(f"{key}: {reason}" for key, reason in skipped[:3])
    more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    return f"None of the {len(source.keys)} items of {_named(source)} can be used as an image ({first}{more})."
