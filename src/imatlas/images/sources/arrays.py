"""Arrays as a source: in memory, in a `.npy` file (memory-mapped) or in a `.npz` file."""

from __future__ import annotations

import math
import os
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imatlas.errors import InputError, InputTypeError, SourceError
from imatlas.images import memory_budget
from imatlas.images.keys import row_keys
from imatlas.images.pixels import without_infinity
from imatlas.images.sources.base import reason_of
from imatlas.images.sources.origin import Origin, in_memory, located
from imatlas.images.sources.user_input import IMAGE_ARRAYS, is_tensor, looks_like_one, numpy_of
from imatlas.images.sources.zip_members import Member, packed_size


class ArraySource:
    """Images in memory, or memory-mapped: an array or tensor (N, H, W) or (N, H, W, C)."""

    explicit = True

    def __init__(self, array: Any, path: Path | None = None) -> None:
        one = looks_like_one(tuple(array.shape), is_tensor(array) or path is not None)
        if one:
            of_file = f" (or ['{path.name}'] for one picture)" if path is not None and path.suffix != ".npz" else ""
            raise InputError(
                f"An array of images must have the shape (N, H, W) or (N, H, W, C). Got {tuple(array.shape)}, which "
                f"looks like {one}{of_file}."
            )
        if is_tensor(array):
            array = numpy_of(array)
        self.has_gaps = bool(np.ma.is_masked(array))
        array = without_masked(array)
        self.root: Path | None = path
        self.name = f"an array of shape {tuple(array.shape)}" if path is None else str(path)
        self.skipped: list[tuple[str, str]] = []
        self.array = as_pixels(array)
        self.keys = row_keys(len(self.array))

    @property
    def origin(self) -> Origin:
        """The file; or the size of one image of an array in memory."""
        return Origin(in_memory("array", self.array.shape[1:]) if self.root is None else located(self.root))

    def stamps(self) -> list[tuple[int, int]] | None:
        """None: changes of an array cannot be detected cheaply."""
        return None

    def head(self, index: int) -> bytes:
        """Empty: an array is not a file."""
        return b""

    def packed(self, index: int) -> None:
        """None: an array is not a file."""

    def read(self, index: int) -> np.ndarray:
        """One image (H, W, C)."""
        return self.array[index]


def without_masked(array: np.ndarray) -> np.ndarray:
    """An array with NaN for masked values; float32 if any are masked, with 8 and 16 bits scaled to 0..1."""
    if not isinstance(array, np.ma.MaskedArray):
        return array
    if not np.ma.is_masked(array):
        return array.data
    return np.where(np.ma.getmaskarray(array), np.float32(np.nan), as_floats(array.data))


def as_floats(array: np.ndarray) -> np.ndarray:
    """Pixels as float32: full scale of 8 and 16 bits is 1, other dtypes keep their values."""
    values = array.astype(np.float32)
    return values / np.float32(np.iinfo(array.dtype).max) if array.dtype in (np.uint8, np.uint16) else values


def is_wide(dtype: np.dtype) -> bool:
    """Whether integers of a dtype are not pixels yet: signed, or of 32 bits and more."""
    return np.issubdtype(dtype, np.integer) and dtype not in (np.uint8, np.uint16)


def narrowest(low: int, high: int) -> type:
    """The pixel dtype for integers from `low` to `high`."""
    return np.uint8 if low >= 0 and high <= 255 else np.uint16 if low >= 0 and high <= 65535 else np.float32


def as_pixels(array: np.ndarray, whole: type | None = None) -> np.ndarray:
    """An array of images as (N, H, W, C) in uint8, uint16 or float32, copied only if the dtype must change.

    Integers of other dtypes become uint8 or uint16 if all values fit, else float32. `whole` sets their dtype if the
    array is part of a set.
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
    if whole is not None and np.issubdtype(array.dtype, np.integer):
        return array.astype(whole, copy=False)
    if array.dtype in (np.uint8, np.uint16):
        return array
    if array.dtype == bool:
        pixels = array.astype(np.uint8)
        pixels *= np.uint8(255)
        return pixels
    if np.issubdtype(array.dtype, np.integer):
        return array.astype(narrowest(int(array.min()), int(array.max())))
    if np.issubdtype(array.dtype, np.floating):
        with np.errstate(over="ignore"):  # overflow becomes NaN, as infinity does
            return without_infinity(array.astype(np.float32, copy=False))
    raise InputTypeError(f"An array of images must hold numbers. Got dtype {array.dtype} instead.")


def open_numpy(path: Path, field: str | None = None) -> ArraySource:
    """The array in a .npy file (memory-mapped), or the one named `field` of a .npz file; no pickled objects."""
    with open(path, "rb") as file:
        single = file.read(6) == b"\x93NUMPY"
        file.seek(0)
        about = array_header(file, str(path)) if single else None
    if about is not None and about.dtype.hasobject:
        raise SourceError(f"'{path}' cannot be opened (it contains Python objects); save an array of numbers.")
    if about is not None and about.n_bytes > os.path.getsize(path):
        raise SourceError(f"'{path}' cannot be opened (it ends before its {memory_budget.amount(about.n_bytes)}).")
    if single:
        return ArraySource(np.load(path, mmap_mode="r", allow_pickle=False), path)
    with zipfile.ZipFile(path) as archive:
        members = {m.filename.removesuffix(".npy"): m for m in archive.infolist() if not m.is_dir()}
    preferred = [name for name in IMAGE_ARRAYS if name in members]
    if field is not None and field not in members:
        raise SourceError(f"'{path}' has no array '{field}'; its arrays: {', '.join(list(members)[:20])}.")
    for name in [field] if field is not None else dict.fromkeys([*preferred, *members]):
        array = _unpacked_array(members[name], name, path)
        if array is not None:
            return ArraySource(array, path)
    names = ", ".join(list(members)[:20])
    raise SourceError(f"No array in '{path}' has the shape (N, H, W) or (N, H, W, C) (arrays: {names}).")


class _ArrayHeader(NamedTuple):
    """The header of a .npy file."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype

    @property
    def n_bytes(self) -> int:
        """The size of the array in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def n_bytes_as_pixels(self) -> int:
        """Further bytes for changing its dtype in `as_pixels`."""
        if self.dtype in (np.uint8, np.uint16, np.float32):
            return 0
        return math.prod(self.shape) * (1 if self.dtype == bool else 4)


_LONGEST_HEADER = 10_000  # as numpy has it


def array_header(stream: Any, name: str) -> _ArrayHeader | None:
    """The header of the .npy file in a stream, which is then at the first value; None for other data.

    Raises
    ------
    SourceError
        If it is too long or damaged.
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
            f"The array '{name}' has a header of {memory_budget.amount(length)}, more than the limit of "
            f"{memory_budget.amount(_LONGEST_HEADER)}; no array of images needs that: save it again."
        )
    try:
        about = _ArrayHeader(*readers[version](BytesIO(size + stream.read(length))))
        if not all(type(n) is int and 0 <= n < 2**60 for n in about.shape):
            raise ValueError("its shape is invalid")
        return about
    except Exception as error:  # the header is parsed as Python, which may raise anything
        raise SourceError(f"The array '{name}' has a damaged header ({reason_of(error)}); save it again.") from None


def _unpacked_array(member: zipfile.ZipInfo, name: str, path: Path) -> np.ndarray | None:
    """An array (N, H, W) or (N, H, W, C) of a .npz file, memory-mapped from an unnamed temporary file; else None.

    Its header is checked before it is unpacked, and no more is unpacked than it declares.
    """
    packed = packed_size(member, os.path.getsize(path))
    with Member(path, member) as stream:
        about = array_header(stream, f"{name}' in '{path}")
        if about is None or about.dtype.hasobject or len(about.shape) not in (3, 4) or min(about.shape) < 1:
            return None
        needed = about.n_bytes + about.n_bytes_as_pixels
        limit = max(memory_budget.budget(), memory_budget.RATIO * packed)
        if needed > limit:
            raise SourceError(
                f"The array '{name}' in '{path}' unpacks from {memory_budget.amount(packed)} to "
                f"{memory_budget.amount(needed)}"
                f"{' with its change of dtype' if about.n_bytes_as_pixels else ''}, more than the limit of "
                f"{memory_budget.amount(limit)}; save it as a .npy file, or set {memory_budget.VARIABLE} to allow more."
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
    """The values of a stream, mapped from a temporary file that goes with the array; None if there are too few."""
    with tempfile.TemporaryFile(prefix="imatlas-") as file:
        left = n_bytes
        while left and (block := stream.read(min(left, 2**20))):
            file.write(block)
            left -= len(block)
        if left:
            return None
        file.flush()
        return np.memmap(file, dtype, "r", shape=(n_bytes // dtype.itemsize,))
