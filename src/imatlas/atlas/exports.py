"""An atlas in the formats of other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imatlas.arguments import shown
from imatlas.atlas.decided_clusters import DecidedClusters
from imatlas.atlas.decisions import Decisions
from imatlas.atlas.store import Store
from imatlas.errors import InputError
from imatlas.result import Result
from imatlas.tasks.classify import Classified
from imatlas.tasks.cluster_folders import write_folders
from imatlas.tasks.coco_labels import coco_labels, write_coco
from imatlas.tasks.export import write_embedding_atlas
from imatlas.tasks.search import without_self


def to_embedding_atlas(store: Store, rows: pa.Table, output: str | Path, n_neighbors: int, overwrite: bool) -> Result:
    """The table with coordinates, thumbnails and nearest neighbors, for Apple's embedding-atlas."""
    x, y = store.layout.T
    rows = rows.drop_columns(["x", "y", "umap_x", "umap_y"])
    rows = rows.add_column(1, "y", pa.array(y)).add_column(1, "x", pa.array(x))
    k = min(n_neighbors, len(store) - 1)
    near = without_self(*store.vectors.nearest(store.embedding, k + 1))
    return write_embedding_atlas(rows, near, store.thumbnails, output, overwrite=overwrite)


def chosen_rows(store: Store, decisions: Decisions, keys: Sequence[str] | None) -> np.ndarray:
    """The rows of some images, in their order; None: of all that are not left out.

    Raises
    ------
    InputError
        If a key is not in the atlas, or there are none.
    """
    if keys is not None and not len(keys):
        raise InputError("No image was chosen, so there is nothing to export.")
    if keys is None:
        left_out = decisions.state.left_out
        return np.array([row for row, key in enumerate(store.keys.to_pylist()) if key not in left_out], np.int64)
    rows = pc.index_in(pa.array(list(keys), pa.string()), store.keys)
    if rows.null_count:
        gone = next(key for key, row in zip(keys, rows.to_pylist(), strict=True) if row is None)
        raise InputError(
            f"The atlas has no image {shown(gone)}, nor {rows.null_count - 1:,} others of those that were asked for; "
            "'imatlas table' lists the keys."
        )
    return rows.to_numpy().astype(np.int64)


def to_coco(
    store: Store, rows: np.ndarray, given: Mapping[str, str], predicted: Classified | None, output: Any, overwrite: bool
) -> Result:
    """The labels of some images as COCO JSON: those that were given, and for others those that were predicted."""
    read = store.table.take(rows.tolist(), ["key", "width", "height"]).to_pylist()
    labels: list[str | None] = [given.get(each["key"]) for each in read]
    scores: list[float | None] = [None] * len(rows)
    for i, row in enumerate(rows.tolist()):
        if predicted is not None and labels[i] is None:
            labels[i], scores[i] = str(predicted.labels[row]), float(predicted.confidence[row])
    sizes = [(each["width"], each["height"]) for each in read]
    return write_coco(coco_labels([each["key"] for each in read], sizes, labels, scores), output, overwrite=overwrite)


def to_folders(
    store: Store, decided: DecidedClusters, chosen: np.ndarray, output: str | Path, copy: bool, overwrite: bool
) -> Result:
    """One folder per cluster with links to the originals of some images, or copies of them."""
    originals = store.originals
    rows = store.table.take(chosen.tolist(), ["key", "cluster", "sha256"])
    keys, labels = rows["key"].to_pylist(), decided.merged[rows["cluster"].to_numpy()]
    hashes = dict(zip(keys, rows["sha256"].to_pylist(), strict=True))

    def read(key: str) -> Any:
        return originals.copy(key, hashes.get(key, ""))

    def path_of(key: str) -> Path | None:
        path = originals.path(key)
        if path is not None:
            read(key)  # a link, too, must lead to what the atlas was learned from
        return path

    return write_folders(keys, labels, path_of, read, output, copy=copy, overwrite=overwrite, names=decided.given)
