"""The values in the columns of an images table: checks, made whenever they are read, and conversion from and to NumPy.

A checksum does not protect against a manipulated atlas, whose author can recompute it. So values are checked before
they are used as indices or in computations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imatlas.tasks.quality_flags import FLAGS

MAX_VALUE = 1e15
"""Largest absolute value: the sum of `MAX_FEATURES` squares still fits in float32."""

MAX_TEXT_BYTES = 2**20
"""Most bytes in a text."""

NULLABLE = frozenset({"duplicate_of"})

RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("width", "height", "cell", "cluster"), (0, 2**31 - 1)),
    **dict.fromkeys(("embedding", "x", "y", "umap_x", "umap_y"), (-MAX_VALUE, MAX_VALUE)),
    "outlier": (0, MAX_VALUE),
    **dict.fromkeys(("confidence", "p_value"), (0, 1)),
}
"""Lowest and highest value of each numeric column; the numbers of cells and clusters are checked with the models."""


def fault(columns: Mapping[str, pa.ChunkedArray], *, whole: bool) -> str:
    """What is wrong with the columns of a table; "" if nothing is.

    Parameters
    ----------
    columns : mapping of str to ChunkedArray
        Columns of the types in an atlas.
    whole : bool
        Whether these are all rows: then keys must be unique, and not all images held out.
    """
    for name, values in columns.items():
        problem = _column_fault(name, values)
        if problem:
            return f"its column '{name}' {problem}"
    if not whole:
        return ""
    keys, originals, held_out = (columns.get(name) for name in ("key", "duplicate_of", "held_out"))
    if keys is not None and len(pc.unique(keys)) < len(keys):
        return "its column 'key' has repeated keys"
    if (
        keys is not None
        and originals is not None
        and not pc.all(pc.is_in(originals.drop_null(), pc.unique(keys)), min_count=0).as_py()
    ):
        return "its column 'duplicate_of' names an unknown image"
    if held_out is not None and len(held_out) and pc.all(held_out).as_py():
        return "its column 'held_out' leaves no training image"
    return ""


def _column_fault(name: str, values: pa.ChunkedArray) -> str:
    """What is wrong with the values of one column."""
    if name not in NULLABLE and values.null_count:
        return "lacks values"
    if name in RANGES:
        numbers = values
        if pa.types.is_fixed_size_list(values.type):
            numbers = pc.list_flatten(values)
            if numbers.null_count:
                return "lacks values"
        return _numbers_fault(numbers, *RANGES[name])
    if pa.types.is_string(values.type):
        longest = pc.max(pc.binary_length(values)).as_py() or 0
        if longest > MAX_TEXT_BYTES:
            return f"has a text of {longest:,} bytes"
    if name == "sha256" and not pc.all(pc.match_substring_regex(values, "^[0-9a-f]{64}$"), min_count=0).as_py():
        return "has values that are not SHA-256 hashes"
    if name == "flags":
        unknown = {flag for text in pc.unique(values).to_pylist() if text for flag in text.split("; ")} - set(FLAGS)
        if unknown:
            return f"has the unknown flag {min(unknown)[:40]!r}"
    return ""


def _numbers_fault(values: pa.ChunkedArray, lowest: float, highest: float) -> str:
    """What is wrong with numbers that must be in [lowest, highest], which NaN is not."""
    for chunk in values.chunks:
        numbers = chunk.to_numpy(zero_copy_only=False)
        # The extremes of an array with NaN are NaN, which fails the comparison.
        if len(numbers) and not (lowest <= numbers.min() and numbers.max() <= highest):
            value = numbers[~((numbers >= lowest) & (numbers <= highest))][0]
            return f"has the value {value:g}, outside {lowest:g} to {highest:g}"
    return ""


@contextmanager
def unwrapped(batches: Iterable[pa.RecordBatch]) -> Iterator[Iterator[pa.RecordBatch]]:
    """The same batches, for Lance to write; exceptions of their source, even Ctrl-C, are raised unchanged.

    Lance would wrap them in an OSError.
    """
    caught: list[BaseException] = []

    def guarded() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except BaseException as error:
            caught.append(error)
            raise

    try:
        yield guarded()
    except OSError:
        if caught:
            raise caught[0] from None
        raise


def matrix_of(values: pa.Array) -> np.ndarray:
    """Lists of equal lengths as an array (n, length)."""
    return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)


def arrow_of(values: np.ndarray | pa.Array) -> pa.Array:
    """An array as a column; of two dimensions, as lists of equal lengths."""
    if isinstance(values, np.ndarray) and values.ndim == 2:
        flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).ravel())
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return values if isinstance(values, pa.Array) else pa.array(values)
