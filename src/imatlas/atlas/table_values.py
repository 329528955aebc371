"""What the columns of an images table may hold, checked wherever they are read.

A checksum says that a file is as it was written, not who wrote it: a stranger computes it anew. So what comes out of a
table is held against what an atlas writes, before anything indexes with it or computes from it.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from imatlas.tasks.quality_flags import FLAGS

MOST_NUMBER = 1e15
"""Largest size of a number: its square, summed over `MOST_FEATURES` of them, is still a float32."""

MOST_TEXT = 2**20
"""Letters in a key."""

NULLABLE = frozenset({"duplicate_of"})

RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("width", "height", "cell", "cluster"), (0, 2**31 - 1)),
    **dict.fromkeys(("embedding", "x", "y", "umap_x", "umap_y"), (-MOST_NUMBER, MOST_NUMBER)),
    "outlier": (0, MOST_NUMBER),
    "confidence": (0, 1),
}
"""The lowest and highest value of each column of numbers; how many cells and clusters there are, only models tell."""


def fault(columns: Mapping[str, pa.ChunkedArray], *, whole: bool) -> str:
    """What is wrong with columns of a table, "" where nothing is.

    Parameters
    ----------
    columns : mapping of str to ChunkedArray
        Of the types that an atlas has.
    whole : bool
        Whether these are all rows: then keys must be unique, and some image must not be held out.
    """
    for name, values in columns.items():
        told = _of_column(name, values)
        if told:
            return f"its column '{name}' {told}"
    if not whole:
        return ""
    keys, doubled, held_out = (columns.get(name) for name in ("key", "duplicate_of", "held_out"))
    if keys is not None and len(pc.unique(keys)) < len(keys):
        return "its column 'key' has a key twice"
    if (
        keys is not None
        and doubled is not None
        and not pc.all(pc.is_in(doubled.drop_null(), pc.unique(keys)), min_count=0).as_py()
    ):
        return "its column 'duplicate_of' names an image that it does not have"
    if held_out is not None and len(held_out) and pc.all(held_out).as_py():
        return "its column 'held_out' leaves no image to learn from"
    return ""


def _of_column(name: str, values: pa.ChunkedArray) -> str:
    """What is wrong with the values of one column."""
    if name not in NULLABLE and values.null_count:
        return "lacks values"
    if name in RANGES:
        numbers = values
        if pa.types.is_fixed_size_list(values.type):
            numbers = pc.list_flatten(values)
            if numbers.null_count:
                return "lacks values"
        return _of_numbers(numbers, *RANGES[name])
    if pa.types.is_string(values.type):
        longest = pc.max(pc.binary_length(values)).as_py() or 0
        if longest > MOST_TEXT:
            return f"has a text of {longest:,} bytes"
    if name == "sha256" and not pc.all(pc.match_substring_regex(values, "^[0-9a-f]{64}$"), min_count=0).as_py():
        return "has what is no SHA-256"
    if name == "flags":
        told = {flag for text in pc.unique(values).to_pylist() if text for flag in text.split("; ")}
        if told - set(FLAGS):
            return f"has the flag {min(told - set(FLAGS))[:40]!r}, which this imatlas does not know"
    return ""


def _of_numbers(values: pa.ChunkedArray, lowest: float, highest: float) -> str:
    """What is wrong with numbers that lie in [lowest, highest]; NaN lies nowhere."""
    for chunk in values.chunks:
        numbers = chunk.to_numpy(zero_copy_only=False)
        # The extremes of an array with NaN are NaN, and NaN is not within.
        if len(numbers) and not (lowest <= numbers.min() and numbers.max() <= highest):
            found = numbers[~((numbers >= lowest) & (numbers <= highest))][0]
            return f"has the number {found:g}, outside {lowest:g} to {highest:g}"
    return ""
