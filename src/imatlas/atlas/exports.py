"""An atlas in the formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from imatlas.atlas.store import Store
from imatlas.result import Result
from imatlas.tasks.cluster_folders import write_folders
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


def to_folders(store: Store, output: str | Path, copy: bool, overwrite: bool) -> Result:
    """One folder per cluster with links to the originals, or copies of them."""
    originals, rows = store.originals, store.table.read(["key", "cluster", "sha256"])
    keys, labels = rows["key"].to_pylist(), rows["cluster"].to_numpy()
    hashes = dict(zip(keys, rows["sha256"].to_pylist(), strict=True))

    def read(key: str) -> Any:
        return originals.content(key, hashes.get(key, ""))

    def path_of(key: str) -> Path | None:
        path = originals.path(key)
        if path is not None:
            read(key)  # a link, too, must lead to what the atlas was learned from
        return path

    return write_folders(keys, labels, path_of, read, output, copy=copy, overwrite=overwrite)
