"""Which rows on the disk belong to which item of a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from imatlas.images.cache_parts import Piece
from imatlas.images.sources.base import Source


@dataclass(frozen=True)
class Rows:
    """Some rows of pieces of a cache, in columns of one length.

    Attributes
    ----------
    piece, row, item : ndarray (n_rows,) int64
        The number of the piece, that of the row in it, and the item of the source.
    """

    piece: np.ndarray
    row: np.ndarray
    item: np.ndarray

    @classmethod
    def joined(cls, several: Sequence[Rows]) -> Rows:
        """Several of them as one, in the order of their items."""
        piece, row, item = (
            np.concatenate([np.empty(0, np.int64), *(getattr(rows, name) for rows in several)])
            for name in ("piece", "row", "item")
        )
        order = np.lexsort((row, item))
        return cls(piece[order], row[order], item[order])

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Runs of adjacent rows of one piece: its number, the first row and the one behind the last."""
        ends = np.flatnonzero((np.diff(self.piece) != 0) | (np.diff(self.row) != 1)) + 1
        for start, stop in zip([0, *ends.tolist()], [*ends.tolist(), len(self.row)], strict=True):
            yield int(self.piece[start]), int(self.row[start]), int(self.row[stop - 1]) + 1


class Items:
    """The items of a source by what tells whether they have changed."""

    def __init__(self, source: Source, stamps: list[tuple[int, int]] | None) -> None:
        pairs = zip(source.keys, stamps or (), strict=stamps is not None)
        self._numbers = {(key, *stamp): i for i, (key, stamp) in enumerate(pairs)}
        self._source = source

    def __len__(self) -> int:
        return len(self._numbers)

    def rows_of(self, piece: Piece, number: int, taken: np.ndarray) -> Rows:
        """The rows of a piece that are still valid, of items that are not taken (n_items,) bool.

        Of a file whose frames are rows, all or none.
        """
        import pyarrow.compute as pc

        columns = [piece.table[name].to_pylist() for name in ("item_key", "size", "time")]
        items = np.array([self._numbers.get(stamped, -1) for stamped in zip(*columns, strict=True)], np.int64)
        rows = np.flatnonzero((items >= 0) & piece.usable())
        rows = rows[~taken[items[rows]]]
        counts = np.bincount(items[rows], minlength=len(taken))
        table = piece.table.select(["key", "item_key", "n_frames"]).take(rows)
        is_whole = pc.equal(table["key"], table["item_key"]).to_numpy()
        rows = rows[is_whole | (counts[items[rows]] == table["n_frames"].to_numpy())]
        return Rows(np.full(len(rows), number, np.int64), rows, items[rows])
