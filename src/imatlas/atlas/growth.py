"""Growth of an atlas: rows of an earlier run stay where they are, and new images are placed behind them.

An update costs the new images, and one pass over names, hashes and small columns of all. The files of a fragment of the
table stay as long as all of its rows do. What was predicted for an image stays as long as the model that predicted it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from imatlas.atlas.job import Job, Known, Update
from imatlas.atlas.manifest import Manifest
from imatlas.atlas.table import FRAGMENT, ROWS, SCHEMA, ImagesTable
from imatlas.images.dataset import Images
from imatlas.system.workers import Workers, by_rows
from imatlas.tasks.quality_flags import quality_flags

FLAG_SAMPLE = 2000
"""Old images, at least, among which the quality flags of new ones are decided."""

FROM_RECORDS = ("key", "width", "height", "sha256")
"""Columns of the table that are copied from the records of the intake."""


def in_table_order(images: Images, folder: Path, manifest: Manifest) -> tuple[Images, Known | None]:
    """The images in the order of the table of an earlier run, new ones last, and which of them it knows."""
    if not manifest.table:
        return images, None
    table = ImagesTable(folder / manifest.table["name"], manifest.table["version"])
    columns = table.read(["key", "sha256"])
    row_of = {key: row for row, key in enumerate(columns["key"].to_pylist())}
    rows = np.array([row_of.get(key, -1) for key in images.keys], np.int64)
    del row_of
    found = np.flatnonzero(rows >= 0)
    hashes = columns["sha256"].to_numpy()[rows[found]]
    rows[found[hashes != images.records["sha256"][found]]] = -1
    stay = np.zeros(len(table), bool)
    stay[rows[rows >= 0]] = True
    # A fragment that is not full is written again with new rows, so that updates leave no small files.
    fragments = table.named.whole(stay, at_least=FRAGMENT if (rows < 0).any() else 1)
    in_place = table.named.rows_of(fragments)
    # First the rows that stay in place, then those that move, then the new images, each in the order that they had.
    moved = np.where(rows < 0, 2, np.where(in_place[rows], 0, 1))
    order = np.lexsort((np.where(rows < 0, np.arange(len(rows)), rows), moved))
    known = Known(rows[order], fragments)
    return (images if (order == np.arange(len(order))).all() else images[order]), known


def predicted(
    job: Job, with_model: bool, names: Sequence[str], predict: Callable[[np.ndarray], Sequence[np.ndarray]]
) -> dict[str, np.ndarray]:
    """Columns of all images: an update with the model of before predicts those of new images alone.

    Parameters
    ----------
    job : Job
    with_model : bool
        Whether the model is that of the earlier run.
    names : sequence of str
    predict : function
        The columns, each (n,), of an embedding (n, n_features) of n > 0 images.
    """
    update = job.update
    if not with_model or update is None or not set(names) <= set(update.table.columns):
        return dict(zip(names, _of_all(predict, job.table.vectors("embedding"), job.workers), strict=True))
    fresh = update.known.fresh
    old = {name: update.column(name) for name in names}
    if not len(fresh):
        return {name: update.known.of(values, values[:0]) for name, values in old.items()}
    new = _of_all(predict, job.table.vectors_at("embedding", fresh), job.workers)
    return {name: update.known.of(old[name], values) for name, values in zip(names, new, strict=True)}


def _of_all(
    predict: Callable[[np.ndarray], Sequence[np.ndarray]], vectors: np.ndarray, workers: Workers | None
) -> list[np.ndarray]:
    """The columns of an embedding, by the workers of a cluster if there are any."""
    return [np.concatenate(of_one) for of_one in zip(*by_rows(predict, vectors, workers), strict=True)]


def flags_of(job: Job) -> list[str]:
    """The quality flags of every image; an update looks at the new ones, and at a sample of the others beside them."""
    images, update = job.images, job.update
    widths, heights = images.records["width"], images.records["height"]
    if update is None:
        return quality_flags(images.thumbnails, widths, heights, workers=job.workers).of
    fresh = update.known.fresh
    others = np.flatnonzero(update.known.rows >= 0)
    n = min(len(others), max(FLAG_SAMPLE, len(fresh)))
    sample = np.sort(np.random.default_rng(job.settings.random_state).choice(others, n, replace=False))
    rows = np.concatenate([sample, fresh])
    found = quality_flags(images[rows].thumbnails, widths[rows], heights[rows]).of[n:] if len(fresh) else []
    return update.known.of(update.column("flags").astype(object), np.array(found, object)).tolist()


def table_batches(
    images: Images, first: int, *, held_out: np.ndarray, duplicate_of: list[str | None], flags: list[str]
) -> Iterator[pa.RecordBatch]:
    """Rows of the table from the number `first` on, in batches that bound memory."""
    for start in range(first, len(images), ROWS):
        some = slice(start, min(start + ROWS, len(images)))
        known = {name: pa.array(images.records[some].table[name].to_pylist()) for name in FROM_RECORDS}
        columns = {
            **{name: known[name].cast(SCHEMA.field(name).type) for name in FROM_RECORDS},
            "held_out": held_out[some],
            "duplicate_of": duplicate_of[some],
            "flags": flags[some],
        }
        yield pa.record_batch(columns, schema=SCHEMA)


def thumbnail_batches(images: Images, first: int) -> Iterator[list[bytes]]:
    """The thumbnails of the same rows."""
    for start in range(first, len(images), ROWS):
        yield list(images.thumbnails[start : start + ROWS])


def update_of(job: Job) -> Update | None:
    """How this run changes the table of an earlier one; None if it writes one, as features of another encoder lie in
    another space."""
    manifest, known = job.manifest, job.known
    if known is None or "encoder" not in manifest.models or "embedding" not in job.table.columns:
        return None
    # Thumbnails of deep images are drawn in the range of their set: with another one all are written.
    fragments = known.fragments & (manifest.spec == job.images.spec.to_json())
    n_in_place = int(job.table.named.rows_of(fragments).sum())
    table = ImagesTable(job.folder / manifest.table["name"], manifest.table["version"])
    return Update(table, Known(known.rows, fragments), n_in_place)


def write_update(job: Job, update: Update, vectors: np.ndarray) -> None:
    """Write the rows of an update that do not stay in place: moved ones, and new ones with their embedding."""
    first, known = update.n_in_place, update.known
    rows = known.rows[first:]
    embedding = np.empty((len(rows), job.table.n_features("embedding") or 0), np.float32)
    embedding[rows < 0] = vectors if len(vectors) else 0
    if (rows >= 0).any():
        embedding[rows >= 0] = update.table.vectors_at("embedding", rows[rows >= 0])
    job.journal.writing_table(job.manifest.table["name"])
    table = job.table.grown(
        known.fragments,
        lambda: table_batches(job.images, first, **job.of_rows),
        lambda: thumbnail_batches(job.images, first),
        embedding,
    )
    job.manifest.table["version"] = table.version
    # A new image may be the original of an old one.
    now = table.read(list(job.of_rows))
    changed = {
        name: pa.array(values, SCHEMA.field(name).type)
        for name, values in job.of_rows.items()
        if now[name].to_pylist() != list(values)
    }
    if changed:
        job.save_columns(**changed)
