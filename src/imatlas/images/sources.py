"""Where images come from: a folder, a pattern, files, an archive, a Parquet file, arrays, or a dataset object.

Every source is a list of items: a key each (relative to the source, with forward slashes), a stamp that changes when
the content does, and a way to read one. Nothing is decoded here and archives are never unpacked by their own names.
"""

from __future__ import annotations

import glob
import math
import os
import stat
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np

from imatlas.arguments import article
from imatlas.errors import DecodeError, InputError, InputTypeError, SourceError
from imatlas.images import budget
from imatlas.images.arrow import ArrowColumn
from imatlas.images.formats import has_image_name, recognized, sniff
from imatlas.images.given import as_items, content_of, is_open_file, is_tensor, looks_like_one
from imatlas.images.members import Member, packed_size
from imatlas.images.names import key_of

MAX_BYTES = 2**30
"""The largest single file that is read: 1 GiB."""

MANY = 100_000
"""Items that a file may hold whatever its size; beyond, each must have 16 bytes at least."""

MAX_RATIO = 200
"""All items of an archive may unpack to this many times its bytes, where that is more than the budget."""

HEAD = 64
"""How many bytes tell what a file is."""

# Without O_NONBLOCK a named pipe among the files would wait for a writer for ever.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
_ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


class Source(Protocol):
    """A list of items that may be images."""

    name: str
    """What to call the source in messages."""
    root: Path | None
    """The folder or file it lives in, where there is one."""
    keys: list[str]
    """One name an item, unique, relative to the source."""
    skipped: list[tuple[str, str]]
    """What could not even be listed, with the reason."""
    explicit: bool
    """Whether every item is meant to be a picture; in a folder or archive other files may lie beside them."""

    def stamps(self) -> list[tuple[int, int]] | None:
        """For each item a pair (size, time or checksum) that changes with the content; None where there is none."""

    def head(self, index: int) -> bytes:
        """The first bytes of an item, or b"" where an item is no file."""

    def packed(self, index: int) -> int | None:
        """The bytes that an item takes on the disk, packed or with holes; None where it is of no file."""

    def read(self, index: int) -> Any:
        """An item: the bytes of a file, an array, or a Pillow image. Raises DecodeError with the reason."""


def open_source(source: Any, field: str | None = None) -> Source:
    """The source behind whatever the user gave; `field` is where images are in a table or in items of a dataset.

    Raises
    ------
    SourceError
        Where a path does not exist or holds no files.
    InputTypeError
        Where the object is nothing that images can be read from.
    """
    budget.budget()  # a wrong setting is told before anything is read
    if isinstance(source, str | os.PathLike):
        return _open_path(os.fsdecode(source), field)
    source = as_items(source, field)
    if isinstance(source, np.ndarray) or is_tensor(source):
        return ArraySource(source)
    if isinstance(source, Sequence) and source and all(isinstance(s, str | os.PathLike) for s in source):
        return FileSource.from_list([_expanded(os.fsdecode(s)) for s in source])
    if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return DatasetSource(source, field)
    if any(base.__name__ == "IterableDataset" for base in type(source).__mro__):
        return DatasetSource(list(source), field)  # it has no places: all of it has to be at hand
    if hasattr(source, "__iter__"):
        raise InputTypeError(
            f"Images cannot be read from {article(type(source).__name__)}, which has no length; give its items as a "
            "list: list(source)."
        )
    raise InputTypeError(
        f"Images cannot be read from {article(type(source).__name__)}; give a folder, a file, a list of files, an "
        "array or a dataset with a length."
    )


def files_of(sources: Sequence[str]) -> list[str]:
    """The files of several folders, patterns and files, in this order, as one list.

    Raises
    ------
    SourceError
        Where one of them does not exist or holds no files.
    InputError
        Where one holds its images in itself, as an archive does.
    """
    found: list[str] = []
    for text in sources:
        source = open_source(text)
        if not isinstance(source, FileSource):
            raise InputError(
                f"'{text}' holds its images in itself, so it cannot be one of several sources; give it alone, or "
                "unpack it."
            )
        found += [str(source.path(i)) for i in range(len(source.keys))]
    return found


def _expanded(text: str) -> Path:
    """A path; '~' is the user's home only where the text begins with it."""
    return Path(os.path.expanduser(text))


def _open_path(text: str, field: str | None = None) -> Source:
    path = _expanded(text)
    try:
        is_folder = path.is_dir()
        exists = is_folder or path.exists()
    except OSError as error:
        raise SourceError(f"'{text}' cannot be looked at ({reason_of(error)}); check its permissions.") from error
    if is_folder:
        what = own_folder(str(path))
        if what:
            raise SourceError(f"'{text}' is {what}, and no folder of images; give the folder that holds the images.")
        return FileSource.from_folder(path)
    if not exists:
        if glob.has_magic(text):
            return FileSource.from_pattern(os.path.expanduser(text))
        raise SourceError(f"There is no file or folder '{text}'; give a path that exists.")
    with _opened(path) as file:
        head = file.read(512)
    try:
        return _open_file(path, head, field)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, tarfile.TarError) as error:
        if isinstance(error, SourceError | InputError):
            raise
        raise SourceError(f"'{text}' cannot be opened ({reason_of(error)}); is the file whole?") from error


def _open_file(path: Path, head: bytes, field: str | None) -> Source:
    """A file by its first bytes; by its name only where these say nothing."""
    from imatlas.images.archives import ParquetSource, TarSource, ZipSource

    name = path.name.lower()
    if head.startswith(b"\x93NUMPY"):
        return _open_numpy(path)
    if head.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        return _open_numpy(path) if names and all(n.endswith(".npy") for n in names) else ZipSource(path)
    if head.startswith(b"PAR1"):
        return ParquetSource(path, field)
    if head[257:262] == b"ustar" or head.startswith(_PACKED):
        return TarSource(path)
    if head.startswith(b"ARROW1") or name.endswith(".arrow"):
        column = DatasetSource(ArrowColumn(path, field))
        column.name, column.root = str(path), path
        return column
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        raise SourceError(f"'{path}' is packed with Zstandard, which is not read; unpack it first (zstd -d).")
    what = recognized(head)
    if sniff(head) is not None or (what and what.startswith("a pointer")):
        return FileSource.from_list([path])
    if name.endswith((".npy", ".npz")):
        return _open_numpy(path)
    if name.endswith((".parquet", ".pq")):
        return ParquetSource(path, field)
    if name.endswith(".zip"):
        return ZipSource(path)
    if name.endswith(_ARCHIVE_SUFFIXES):
        return TarSource(path)
    return FileSource.from_list([path])


def _opened(path: Path) -> IO[bytes]:
    if not path.is_file():
        raise SourceError(f"'{path}' is neither a file nor a folder; give a path to images.")
    try:
        return open(path, "rb")
    except OSError as error:
        raise SourceError(f"'{path}' cannot be opened ({reason_of(error)}); check its permissions.") from error


def reason_of(error: BaseException) -> str:
    """An error as a few plain words, on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def check_size(size: int) -> None:
    """Refuse an item that is too large to be one picture."""
    if size > MAX_BYTES:
        raise DecodeError(f"{size / 2**30:.1f} GiB is more than the limit of {MAX_BYTES / 2**30:.0f} GiB for one file")


def check_unpacked(size: int, packed: int, *, part: int = 2, remedy: str = "unpack it yourself") -> None:
    """Refuse what unpacks to far more than its file has: `packed` bytes may become a `part` of the budget."""
    limit = max(budget.budget() // part, budget.RATIO * packed)
    if size > limit:
        raise DecodeError(
            f"unpacks from {budget.amount(packed)} to {budget.amount(size)}, more than the limit of "
            f"{budget.amount(limit)}; {remedy}, or set {budget.VARIABLE} to allow more"
        )


def check_total(size: int, packed: int, share: float = 1.0) -> None:
    """Refuse what comes after `size` bytes of an archive, or of a part of it that has a share of its items.

    `packed` is what these bytes have in the archive. Each item by itself may be small: of many there is no end.
    """
    limit = max(int(share * budget.budget()), MAX_RATIO * packed)
    if size > limit:
        raise DecodeError(
            f"up to here the archive unpacks to {budget.amount(size)} in sum, more than the limit of "
            f"{budget.amount(limit)}; unpack it yourself, or set {budget.VARIABLE} to allow more"
        )


def check_members(n: int, size: int, name: str) -> None:
    """Refuse a file of `size` bytes that claims to hold far more items than it can."""
    if n > MANY and n > size // 16:
        raise SourceError(
            f"'{name}' says that {budget.amount(size)} hold {n:,} items; it is not read, as no image is that small."
        )


NOT_A_SOURCE = "{}, whose files are no images to learn from"


def own_folder(folder: str) -> str:
    """What of ours a folder is, whose files are no images to learn from: an atlas, a model, a cache, a trash; or ""."""
    from imatlas.inventory import is_atlas

    if is_atlas(folder):
        return "an atlas"
    return _ours(os.path.abspath(folder), {name for name in _MARKS if os.path.lexists(os.path.join(folder, name))})


def _ours(folder: str, names: set[str]) -> str:
    """What of ours a folder is by the marks among the names in it; or ""."""
    if "atlas.json" in names:
        return "an atlas"
    if "undo.json" in names and os.path.dirname(folder).endswith("-trash"):
        return "a trash"
    return next((what for what, all_of in _OURS.items() if names.issuperset(all_of)), "")


_OURS = {
    "a model": ("model.json", "weights.safetensors"),
    "a pixel cache": ("cache.json", "pixels.npy", "records.parquet"),
}
_MARKS = {"atlas.json", "undo.json"}.union(*_OURS.values())


def own_folders(keys: Iterable[str]) -> dict[str, str]:
    """The folders of ours in an archive, and what they are, by the keys of its members."""
    named: dict[str, set[str]] = {}
    for key in keys:
        folder, _, name = key.rpartition("/")
        if name in _MARKS and folder:
            named.setdefault(folder, set()).add(name)
    found = {folder: _ours(folder, names) for folder, names in named.items()}
    return {folder: what for folder, what in found.items() if what}


def _lies_in_own(folder: str, root: str, known: dict[str, bool]) -> bool:
    """Whether a folder, or one above it up to `root`, is one of ours."""
    if folder not in known:
        above = os.path.dirname(folder)
        inside = len(folder) > len(root) and above != folder
        known[folder] = bool(own_folder(folder or ".")) or (inside and _lies_in_own(above, root, known))
    return known[folder]


def _unreadable(root: Path) -> list[tuple[str, str]]:
    """The folders directly below `root`, and `root`, that may not be listed: a pattern passes over them in silence."""
    found = []
    for folder in (root, *(p for p in _folders_of(root))):
        try:
            with os.scandir(folder):
                pass
        except OSError as error:
            key = key_of(os.path.relpath(folder, root)) + "/"
            found.append((key, f"the folder cannot be read ({reason_of(error)})"))
    return found


def _folders_of(root: Path) -> list[Path]:
    try:
        with os.scandir(root) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir()]
    except OSError:
        return []


class FileSource:
    """Files on the disk: of a folder and all folders below, of a pattern, or of a list."""

    def __init__(
        self, root: Path, paths: Iterable[str], name: str, skipped: list[tuple[str, str]], explicit: bool = False
    ) -> None:
        self.explicit = explicit
        self.root: Path | None = root
        self.name = name
        self.skipped = skipped
        base = str(root)
        found: dict[str, str] = {}
        for path in paths:
            key = key_of(os.path.relpath(path, base))
            if key in found:
                self.skipped.append((key, "named twice; used once"))
            found[key] = path
        self.keys = list(found) if explicit else sorted(found)
        self.holds_arrays = not any(has_image_name(key) for key in self.keys)
        self._paths = [found[key] for key in self.keys]

    @classmethod
    def from_folder(cls, root: Path) -> FileSource:
        """All files below `root`; links are followed, each folder is entered once."""
        paths: list[str] = []
        skipped: list[tuple[str, str]] = []
        entered: dict[tuple[int, int], str] = {}
        waiting = [str(root)]
        while waiting:
            folder = waiting.pop()
            key = key_of(os.path.relpath(folder, root)) + "/"
            try:
                status = os.stat(folder)
                first = entered.setdefault((status.st_dev, status.st_ino), key)
                if first != key:
                    skipped.append((key, f"a link to a folder that is read already as '{first}'"))
                    continue
                # Real folders first: what a link points to then keeps its own name.
                with os.scandir(folder) as entries:
                    links: list[str] = []
                    for entry in sorted(entries, key=lambda e: e.name, reverse=True):
                        if entry.is_dir():
                            what = own_folder(entry.path)
                            if what:
                                skipped.append(
                                    (key_of(os.path.relpath(entry.path, root)) + "/", NOT_A_SOURCE.format(what))
                                )
                                continue
                            (links if entry.is_symlink() else waiting).append(entry.path)
                        else:
                            paths.append(entry.path)
                    waiting[:0] = links
            except OSError as error:
                skipped.append((key, f"the folder cannot be read ({reason_of(error)})"))
        if not paths and skipped:
            raise SourceError(f"Nothing in '{root}' can be read: {skipped[0][0]} {skipped[0][1]}.")
        if not paths:
            raise SourceError(f"There are no files in '{root}'; give a folder with images.")
        return cls(root, paths, str(root), skipped)

    @classmethod
    def from_pattern(cls, pattern: str) -> FileSource:
        """All files that match a glob pattern; `**` goes into folders."""
        root = cls.root_of(pattern)
        ours: dict[str, bool] = {}
        paths = [p for p in glob.glob(pattern, recursive=True) if not os.path.isdir(p)]
        paths = [p for p in paths if not _lies_in_own(os.path.dirname(p), str(root), ours)]
        if not os.path.lexists(root):
            raise SourceError(f"There is no folder '{root}', where '{pattern}' looks; check the pattern.")
        skipped = _unreadable(root)
        if not paths:
            if skipped:
                raise SourceError(f"No file matches '{pattern}', and {skipped[0][0]} {skipped[0][1]}.")
            raise SourceError(f"No file matches '{pattern}'; check the pattern, and use ** to go into folders.")
        return cls(root, paths, pattern, skipped)

    @staticmethod
    def root_of(pattern: str) -> Path:
        """The folder that the keys of a pattern's files are relative to: what stands before its first sign."""
        parts = Path(pattern).parts[:-1]
        fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
        return Path(*parts[:fixed])

    @classmethod
    def from_list(cls, paths: list[Path]) -> FileSource:
        """These files; the keys are relative to the folder that holds them all."""
        absolute = [os.path.abspath(p) for p in paths]
        try:
            root = os.path.commonpath([os.path.dirname(p) for p in absolute])
        except ValueError:  # several drives
            root = ""
        name = str(paths[0]) if len(paths) == 1 else f"a list of {len(paths)} files"
        return cls(Path(root), absolute, name, [], explicit=True)

    def stamps(self) -> list[tuple[int, int]] | None:
        """Size and time of change of each file; (-1, -1) where that cannot be told."""
        return [self._stamp(path) for path in self._paths]

    @staticmethod
    def _stamp(path: str) -> tuple[int, int]:
        try:
            status = os.stat(path)
        except OSError:
            return (-1, -1)
        return (status.st_size, status.st_mtime_ns)

    def path(self, index: int) -> Path:
        """Where an item lies on the disk."""
        return Path(self._paths[index])

    def head(self, index: int) -> bytes:
        """The first bytes of a file."""
        return self._read(index, HEAD)

    def packed(self, index: int) -> int | None:
        """The bytes that a file takes on the disk."""
        try:
            return _on_disk(os.stat(self._paths[index]))
        except OSError:
            return None

    def read(self, index: int) -> bytes:
        """The bytes of a file."""
        return self._read(index, None)

    def _read(self, index: int, size: int | None) -> bytes:
        try:
            descriptor = os.open(self._paths[index], _OPEN_FLAGS)
            with open(descriptor, "rb", buffering=0) as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise DecodeError("not a regular file")
                check_size(status.st_size)
                if size is None:
                    check_unpacked(status.st_size, _on_disk(status), remedy="fill its holes by copying it")
                    budget.content(status.st_size)
                return file.read(status.st_size + 1 if size is None else size) or b""
        except FileNotFoundError:
            broken = os.path.islink(self._paths[index])
            raise DecodeError("a broken link" if broken else "no such file") from None
        except OSError as error:
            raise DecodeError(f"cannot be read ({reason_of(error)})") from None


def _on_disk(status: os.stat_result) -> int:
    """The bytes that a file takes on the disk: a file may have holes, which are zeros that take nothing."""
    blocks = getattr(status, "st_blocks", 0)  # 0 also where a file system does not say
    return min(status.st_size, 512 * blocks) if blocks else status.st_size


class ArraySource:
    """Images in memory, or memory-mapped: an array or tensor (N, H, W) or (N, H, W, C)."""

    explicit = True

    def __init__(self, array: Any, path: Path | None = None) -> None:
        one = looks_like_one(tuple(array.shape), is_tensor(array))
        if one:
            raise InputError(
                f"An array of images must have the shape (N, H, W) or (N, H, W, C). Got {tuple(array.shape)}, which "
                f"looks like {one}."
            )
        if is_tensor(array):
            array = array.detach().cpu().numpy()
        array = _without_masked(array)
        self.root: Path | None = path
        self.name = f"an array of shape {tuple(array.shape)}" if path is None else str(path)
        self.skipped: list[tuple[str, str]] = []
        self.array = as_pixels(array)
        digits = max(6, len(str(len(self.array))))
        self.keys = [f"{i:0{digits}d}" for i in range(len(self.array))]

    def stamps(self) -> list[tuple[int, int]] | None:
        """None: an array has no cheap sign of its content."""
        return None

    def head(self, index: int) -> bytes:
        """Nothing: an array is no file."""
        return b""

    def packed(self, index: int) -> None:
        """None: an array is no file."""

    def read(self, index: int) -> np.ndarray:
        """One image (H, W, C)."""
        return self.array[index]


def _without_masked(array: np.ndarray) -> np.ndarray:
    """An array with NaN for what a mask hides; as floats where anything is."""
    if not isinstance(array, np.ma.MaskedArray):
        return array
    if not np.ma.is_masked(array):
        return array.data
    return np.where(np.ma.getmaskarray(array), np.float32(np.nan), array.data.astype(np.float32))


def as_pixels(array: np.ndarray) -> np.ndarray:
    """An array of images as (N, H, W, C) in uint8, uint16 or float32, copied only where the type must change.

    Whole numbers of other types become uint8 or uint16 where all values fit, else float32.
    """
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or 0 in array.shape:
        raise InputError(
            f"An array of images must have the shape (N, H, W) or (N, H, W, C), none of them 0. Got {array.shape}."
        )
    if array.shape[1] in (1, 3, 4) and array.shape[3] > 16 and array.shape[2] > 4:
        raise InputError(
            f"An array of images must have its channels last. Got {array.shape}, which looks like (N, C, H, W); use "
            "x.transpose(0, 2, 3, 1), or x.permute(0, 2, 3, 1) for a tensor."
        )
    if array.dtype in (np.uint8, np.uint16, np.float32):
        return array
    if array.dtype == bool:
        pixels = array.astype(np.uint8)
        pixels *= np.uint8(255)
        return pixels
    if np.issubdtype(array.dtype, np.integer):
        low, high = int(array.min()), int(array.max())
        fitting = np.uint8 if low >= 0 and high <= 255 else np.uint16 if low >= 0 and high <= 65535 else np.float32
        return array.astype(fitting)
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32)
    raise InputTypeError(f"An array of images must hold numbers. Got dtype {array.dtype} instead.")


def _open_numpy(path: Path) -> ArraySource:
    """The array in a .npy file (memory-mapped) or a .npz file; pickled objects are refused."""
    with open(path, "rb") as file:
        single = file.read(6) == b"\x93NUMPY"
        file.seek(0)
        about = _array_header(file, str(path)) if single else None
    if about is not None and about.dtype.hasobject:
        raise SourceError(f"'{path}' cannot be opened (it holds Python objects); save an array of numbers.")
    if about is not None and about.n_bytes > os.path.getsize(path):
        raise SourceError(f"'{path}' cannot be opened (it ends before its {budget.amount(about.n_bytes)}).")
    if single:
        return ArraySource(np.load(path, mmap_mode="r", allow_pickle=False), path)
    with zipfile.ZipFile(path) as archive:
        members = {m.filename.removesuffix(".npy"): m for m in archive.infolist() if not m.is_dir()}
    preferred = [n for n in ("images", "image", "x", "X", "x_train", "train_images", "data", "arr_0") if n in members]
    for name in dict.fromkeys([*preferred, *members]):
        array = _unpacked_array(members[name], name, path)
        if array is not None:
            return ArraySource(array, path)
    names = ", ".join(list(members)[:20])
    raise SourceError(f"No array in '{path}' has the shape (N, H, W) or (N, H, W, C) (arrays: {names}).")


class _ArrayHeader(NamedTuple):
    """What a .npy file says of its array."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype

    @property
    def n_bytes(self) -> int:
        """What the array takes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def n_bytes_as_pixels(self) -> int:
        """What it takes while its type is changed, by `as_pixels`, besides."""
        if self.dtype in (np.uint8, np.uint16, np.float32):
            return 0
        return math.prod(self.shape) * (1 if self.dtype == bool else 4)


_LONGEST_HEADER = 10_000  # as numpy has it


def _array_header(stream: Any, name: str) -> _ArrayHeader | None:
    """The header of the .npy file in a stream, which is then at the first value; None where it is no such file.

    Raises
    ------
    SourceError
        If it is longer than that of any array, or damaged.
    """
    if stream.read(6) != b"\x93NUMPY":
        return None
    version = tuple(stream.read(2))
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        return None
    size = stream.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(size, "little")
    if length > _LONGEST_HEADER:
        raise SourceError(
            f"The array '{name}' has a header of {budget.amount(length)}, more than the limit of "
            f"{budget.amount(_LONGEST_HEADER)}; no array of images needs that: save it anew."
        )
    try:
        about = _ArrayHeader(*readers[version](BytesIO(size + stream.read(length))))
        if not all(type(n) is int and 0 <= n < 2**60 for n in about.shape):
            raise ValueError("its shape is none")
        return about
    except Exception as error:  # what its words look like to a parser of Python may raise anything
        raise SourceError(f"The array '{name}' has a damaged header ({reason_of(error)}); save it anew.") from None


def _unpacked_array(member: zipfile.ZipInfo, name: str, path: Path) -> np.ndarray | None:
    """An array (N, H, W) or (N, H, W, C) of a .npz file, memory-mapped from a nameless temporary file; else None.

    Its header is looked at before it is unpacked, and no more is unpacked than the header says.
    """
    packed = packed_size(member, os.path.getsize(path))
    with Member(path, member) as stream:
        about = _array_header(stream, f"{name}' in '{path}")
        if about is None or about.dtype.hasobject or len(about.shape) not in (3, 4) or min(about.shape) < 1:
            return None
        needed = about.n_bytes + about.n_bytes_as_pixels
        limit = max(budget.budget(), budget.RATIO * packed)
        if needed > limit:
            raise SourceError(
                f"The array '{name}' in '{path}' unpacks from {budget.amount(packed)} to {budget.amount(needed)}"
                f"{' with its change of type' if about.n_bytes_as_pixels else ''}, more than the limit of "
                f"{budget.amount(limit)}; save it as a .npy file, or set {budget.VARIABLE} to allow more."
            )
        if about.n_bytes <= 2**26 or member.compress_type == zipfile.ZIP_STORED:
            content = stream.read(about.n_bytes)
            n = math.prod(about.shape)
            flat = np.frombuffer(content, about.dtype, n) if len(content) == about.n_bytes else None
        else:
            flat = _in_file(stream, about.n_bytes, about.dtype)
        if flat is None:
            raise ValueError(f"the array '{name}' ends before its {about.n_bytes} bytes")
        return flat.reshape(about.shape[::-1]).T if about.fortran else flat.reshape(about.shape)


def _in_file(stream: Member, n_bytes: int, dtype: np.dtype) -> np.ndarray | None:
    """The values of a stream, mapped from a temporary file that goes with the array; None where there are fewer."""
    with tempfile.TemporaryFile(prefix="imatlas-") as file:
        left = n_bytes
        while left and (block := stream.read(min(left, 2**20))):
            file.write(block)
            left -= len(block)
        if left:
            return None
        file.flush()
        return np.memmap(file, dtype, "r", shape=(n_bytes // dtype.itemsize,))


class DatasetSource:
    """A Hugging Face or torch dataset, or any sequence of pictures: whatever has a length and gives items by number.

    An item is a picture, or a dict or tuple that holds one: a Pillow image, an array (H, W[, C]), a tensor (C, H, W) or
    (H, W[, C]), the bytes of an image file, a path, or {"bytes", "path"}. `field` names where a dict has it.
    """

    explicit = True

    def __init__(self, items: Any, field: str | None = None) -> None:
        self._field = field
        self.root: Path | None = None
        self.name = f"a {type(items).__name__} of {len(items)} items"
        self.skipped: list[tuple[str, str]] = []
        self._items = items
        n = len(items)
        if n == 0:
            raise SourceError(f"The {type(items).__name__} holds no items; give one with images.")
        self.keys = [f"{i:0{max(6, len(str(n)))}d}" for i in range(n)]
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"items": self._items, "field": self._field}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def stamps(self) -> list[tuple[int, int]] | None:
        """None: the content of an object has no cheap sign."""
        return None

    def head(self, index: int) -> bytes:
        """Nothing: an item is no file."""
        return b""

    def packed(self, index: int) -> None:
        """None: an item is no file."""

    def read(self, index: int) -> Any:
        """The picture of an item: bytes, an array (H, W, C), or a Pillow image."""
        try:
            with self._lock:  # few datasets promise to be safe among threads
                value = self._items[index]
            if self._field is not None and isinstance(value, dict):
                if self._field not in value:
                    raise DecodeError(f"no field '{self._field}' among {', '.join(map(str, value))}")
                value = value[self._field]
            return _picture_in(value)
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(f"the dataset failed to give it ({type(error).__name__}: {reason_of(error)})") from None


def _picture_in(value: Any) -> Any:
    """The picture that an item of a dataset is or holds."""
    if isinstance(value, dict):
        if isinstance(value.get("bytes"), bytes):
            return value["bytes"]
        for name in ("image", "img", "pixel_values", "png", "jpg", "jpeg", "webp", "path", "file"):
            if value.get(name) is not None:
                return _picture_in(value[name])
        raise DecodeError(f"no image among the fields {', '.join(map(str, value))}; say which one it is in by 'field'")
    if isinstance(value, tuple | list) and value and not np.isscalar(value[0]):
        return _picture_in(value[0])
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if is_open_file(value) and not hasattr(value, "getbands"):
        return content_of(value)
    if isinstance(value, str | os.PathLike):
        return FileSource.from_list([Path(value).expanduser()]).read(0)
    if hasattr(value, "getbands"):
        return value
    if is_tensor(value):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.ndim in (2, 3):
        channels_first = value.ndim == 3 and value.shape[0] in (1, 3, 4) and value.shape[2] > 4
        value = _without_masked(value.transpose(1, 2, 0) if channels_first else value)
        return as_pixels(value[None])[0]
    raise DecodeError(f"a {type(value).__name__} is no picture")
