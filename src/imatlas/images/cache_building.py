"""What a build of a pixel cache has: rows of parts and of an earlier cache, and those that it decodes itself."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np

from imatlas.errors import InputError
from imatlas.images.cache_folder import Cache, open_cache, settings_of
from imatlas.images.cache_parts import PartWriter, Piece, of_cache, open_part, parts_in
from imatlas.images.cache_rows import Items, Rows
from imatlas.images.intake import Plan, RowReader, Skip, Tally, chunked, with_progress
from imatlas.images.memory_budget import amount
from imatlas.images.sources.base import Source
from imatlas.system.workers import Workers

MIN_TO_ESTIMATE = 256
"""Items after which the size of the whole cache is estimated."""


class Building:
    """The rows of a cache that is being built, in pieces on the disk.

    Parameters
    ----------
    source : Source
    stamps : list of (int, int), optional
        Those of the source.
    plan : Plan
    place : Path
        Where its parts are.

    Attributes
    ----------
    pieces : list of Piece
    rows : Rows
        All rows of the cache; complete after `decode`.
    tally : Tally
        The items that were not used.
    """

    def __init__(self, source: Source, stamps: list[tuple[int, int]] | None, plan: Plan, place: Path) -> None:
        self._source, self._stamps, self._plan, self._place = source, stamps, plan, place
        self.pieces: list[Piece] = []
        self._parts: list[Piece] = []
        self._rows: list[Rows] = []
        self._taken = np.zeros(len(source.keys), bool)
        """Which items have rows."""
        self.tally = Tally()

    @property
    def rows(self) -> Rows:
        """All rows, in the order of their items."""
        return Rows.joined(self._rows)

    def find_known(self, cache_dir: Path) -> Cache | None:
        """Find the rows that need not be decoded: of parts, and of the earlier cache that has most of the others.

        Returns that cache.
        """
        items = Items(self._source, self._stamps)
        if not len(items):
            return None
        settings = settings_of(self._plan)
        for piece in parts_in(self._place, settings):
            rows = items.rows_of(piece, len(self.pieces), self._taken)
            if len(rows.item):
                self._add(piece, rows)
                self._parts.append(piece)
        best: tuple[Cache, Rows] | None = None
        for folder in sorted(cache_dir.glob("[0-9a-f]*")):
            cache = open_cache(folder, settings=settings)
            if cache is not None:
                rows = items.rows_of(of_cache(cache), len(self.pieces), self._taken)
                if len(rows.item) and (best is None or len(rows.item) > len(best[1].item)):
                    best = cache, rows
        if best is None:
            return None
        self._add(of_cache(best[0]), best[1])
        return best[0]

    def _add(self, piece: Piece, rows: Rows) -> None:
        self.pieces.append(piece)
        self._rows.append(rows)
        self._taken[rows.item] = True

    def decode(self, new_folder: Callable[[], Path], workers: int | Workers, progress: bool, limit: int | None) -> None:
        """Decode all other items, into parts; those that are complete stay if this is stopped.

        Raises
        ------
        InputError
            If the cache would take more than `limit` bytes.
        """
        fresh = np.flatnonzero(~self._taken).tolist()
        reader = RowReader(self._source, self._plan)
        chunks = chunked(self._source, fresh)
        n_bytes, writer = 0, None
        try:
            with contextlib.closing(reader.read(chunks, workers)) as results:
                decoded = chain.from_iterable(results)
                for done, _ in enumerate(with_progress(fresh, "Reading images", progress), start=1):
                    for row in next(decoded):
                        if isinstance(row, Skip):
                            self.tally.add(row)
                            continue
                        if writer is None:
                            writer = PartWriter(new_folder(), self._source, self._plan, self._stamps)
                        writer.add(row)
                    if limit is not None and done >= min(MIN_TO_ESTIMATE, len(fresh)):
                        self._check_room(limit, (n_bytes + (writer.n_bytes if writer else 0)) / done)
                    if writer is not None and writer.is_full:
                        n_bytes += writer.n_bytes
                        self._seal(writer)
                        writer = None
            if writer is not None:
                self._seal(writer)
                writer = None
        finally:
            if writer is not None:
                writer.close()
                shutil.rmtree(writer.folder, ignore_errors=True)  # created by `new_folder` under a random name

    def _seal(self, writer: PartWriter) -> None:
        """Complete a part."""
        items = np.array(writer.items, np.int64)
        piece = open_part(writer.seal(self._place), check=False)
        self._parts.append(piece)
        self._add(piece, Rows(np.full(len(items), len(self.pieces), np.int64), np.arange(len(items)), items))

    def _check_room(self, limit: int, per_item: float) -> None:
        """Raise InputError if the whole cache will probably be larger than it may."""
        n, plan = len(self._source.keys), self._plan
        if per_item * n > limit:
            raise InputError(
                f"The pixel cache of {n:,} images of {plan.width} x {plan.height} pixels takes about "
                f"{amount(per_item * n)}, more than the cache size of {amount(limit)}; allow more (--cache-size), or "
                "see the images smaller (--image-size)."
            )

    def remove_parts(self) -> None:
        """Delete the parts, once they are in a cache or of no use."""
        for piece in self._parts:
            piece.remove()
