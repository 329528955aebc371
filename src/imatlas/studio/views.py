"""What the pages of the studio show of an atlas, as plain values."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imatlas.atlas.atlas import Atlas
from imatlas.atlas.decided_clusters import DecidedClusters, anchor_keys, decided_clusters, labels_of
from imatlas.atlas.decisions import State
from imatlas.errors import DecodeError, ImatlasError, SourceError
from imatlas.studio.pictures import as_png, as_webp
from imatlas.studio.tiles import CELLS, Tiles
from imatlas.tasks.duplicates.trash import moved
from imatlas.tasks.wall import scattered, wall

N_NEIGHBORS = 12
N_TYPICAL = 6
"""Images that a cluster is shown by."""
NUMBERS = ("width", "height", "cell", "x", "y", "umap_x", "umap_y", "cluster", "confidence", "outlier")
"""Columns of the table that are kept."""
JITTER = 0.9
"""Width of a cell of the map over which its images are spread before they are put on the wall."""


class _Once(cached_property):
    """A property that is made once, even if several threads ask for it at the same time."""

    def __get__(self, views: Any, owner: Any = None) -> Any:
        with views._lock:
            return super().__get__(views, owner)


if TYPE_CHECKING:
    once = property
else:
    once = _Once


class Clustered(NamedTuple):
    """The clusters as they were named and merged: of each image its cluster, and the confidence in it."""

    decided: DecidedClusters
    labels: np.ndarray
    confidence: np.ndarray


class Predicted(NamedTuple):
    """Labels as they were last spread: of each image the number of its label (-1 for none), and the confidence."""

    version: int
    values: list[str]
    label_of: np.ndarray
    confidence: np.ndarray


class Views:
    """An atlas as the studio shows it. Whatever is slow is made once; safe to use from several threads."""

    def __init__(self, atlas: Atlas) -> None:
        self.atlas, self.store = atlas, atlas.store
        self.decisions = atlas.decisions
        self._lock, self._closed = threading.RLock(), False
        self._labels: tuple[int, np.ndarray, list[str]] | None = None
        self._clustered: tuple[Any, Clustered] | None = None
        self._moved: list[int] | None = None
        self.predicted: Predicted | None = None

    @once
    def keys(self) -> list[str]:
        """The key of every image."""
        return self.atlas.keys

    @once
    def row_of(self) -> dict[str, int]:
        """The row of every key."""
        return {key: row for row, key in enumerate(self.keys)}

    @once
    def _key_ranks(self) -> np.ndarray:
        """The place of every image (n,) in the order of the keys; the table is in the order in which they came."""
        ranks = np.empty(len(self.keys), np.int64)
        ranks[pc.sort_indices(pa.array(self.keys))] = np.arange(len(self.keys))
        return ranks

    @once
    def columns(self) -> dict[str, np.ndarray]:
        """The numbers of every image; texts are read when they are needed, as they take much memory."""
        read = self.store.table.read(list(NUMBERS))
        return {name: read[name].to_numpy() for name in NUMBERS}

    @once
    def faults(self) -> pa.ChunkedArray:
        """The visible faults of every image, separated by "; "."""
        return self.store.table.read(["flags"])["flags"].fill_null("")

    @once
    def layouts(self) -> dict[str, Tiles]:
        """Walls of the images: by the map, and as UMAP scatters them."""
        rank = self.columns["outlier"]  # ordinary images stand for others
        spread = np.stack([self.columns["umap_x"], self.columns["umap_y"]], 1)
        on_map = np.stack([self.columns["x"], self.columns["y"]], 1)
        on_map += JITTER * _within_cells(spread, self.columns["cell"])
        width, height = np.ptp(self.store.model("map").positions_, axis=0) + 1
        return {
            "map": Tiles(self.store, wall(on_map, rank, cells=CELLS, shape=(float(width), float(height)))),
            "similarity": Tiles(self.store, scattered(spread, rank, cells=CELLS)),
        }

    def warm_up(self) -> None:
        """Draw the tiles that a page shows first."""
        for z in range(3):
            for x, y in itertools.product(range(2**z), repeat=2):
                if self._closed:
                    return
                self.layouts["map"].tile(z, x, y)
        pa.default_memory_pool().release_unused()  # what reading the columns took

    def close(self) -> None:
        """End what is drawn ahead."""
        self._closed = True
        for tiles in self.__dict__.get("layouts", {}).values():
            tiles.close()

    # -- the atlas as a whole ----------------------------------------------------------------------------------------

    def overview(self, *, read_only: bool) -> dict[str, Any]:
        """What a page needs first."""
        state = self.decisions.state
        index, labels = self.labels(state)
        outlier = self.columns["outlier"]
        decided, of_images, _ = self.clustered(state)
        names = decided.names
        sizes = np.bincount(of_images, minlength=len(names))
        return {
            "name": self.atlas.name,
            "source": self.store.manifest.source,
            "n_images": len(self.keys),
            "n_skipped": self.store.manifest.stages.get("intake", {}).get("n_skipped", 0),
            "read_only": read_only,
            "revision": state.revision,
            "layouts": [
                {
                    "name": name,
                    "title": {"map": "Map", "similarity": "Similarity"}[name],
                    "slot": tiles.slot,
                    "max_zoom": tiles.max_level,
                    "bounds": [0.0, 0.0, *((tiles.wall.places.max(0) + 1) * tiles.slot).tolist()],
                }
                for name, tiles in self.layouts.items()
            ],
            "clusters": [
                {
                    "id": i, "name": name, "named": i in decided.given, "size": int(sizes[i]),
                    "medoid": next(iter(self.typical[i].tolist()), 0),
                    "typical": self.typical_of(decided.parts(i)), "parts": decided.parts(i),
                }
                for i, name in enumerate(names)
            ],
            "labels": [
                {"label": label, "count": count}
                for label, count in zip(labels, np.bincount(index[index >= 0], minlength=len(labels)).tolist())
            ],
            "columns": [
                {"name": "cluster", "title": "cluster", "kind": "category", "values": names},
                {"name": "label", "title": "label", "kind": "category", "values": labels},
                {"name": "flag", "title": "visible fault", "kind": "category", "values": self.flags[1]},
                {"name": "left_out", "title": "left out", "kind": "category", "values": ["left out"]},
                {
                    "name": "outlier", "title": "outlier score", "kind": "number",
                    "low": float(outlier.min()), "high": float(np.quantile(outlier, 0.995)),
                },
                {"name": "confidence", "title": "confidence of the cluster", "kind": "number", "low": 0.0, "high": 1.0},
                *self._predicted_columns(),
            ],
            "can": {
                "create": "generator" in self.store.manifest.models,
                "explain": True,
                "originals": self.store.originals.folder is not None,
                "words": self.store.manifest.stages.get("intake", {}).get("encoder") == "pretrained",
            },
            "moved": self.moved,
            "undo": state.undo,
            "redo": state.redo,
        }  # fmt: skip

    def _predicted_columns(self) -> list[dict[str, Any]]:
        """What the columns of predicted labels are; none before labels were spread."""
        if self.predicted is None:
            return []
        version, values, *_ = self.predicted
        label = {"name": "predicted", "title": "predicted label", "kind": "category", "values": values}
        sure = {"name": "predicted_confidence", "title": "confidence of the label", "kind": "number"}
        return [label | {"version": version}, sure | {"low": 0.0, "high": 1.0, "version": version}]

    def predict(self, values: list[str], label_of: np.ndarray, confidence: np.ndarray) -> None:
        """Show predicted labels from now on."""
        version = 0 if self.predicted is None else self.predicted.version + 1
        self.predicted = Predicted(version, values, label_of, np.where(label_of >= 0, confidence, np.nan))

    def column(self, name: str) -> np.ndarray | None:
        """A column as numbers (n_images,) float32: of categories the number of the value, -1 for none."""
        state, predicted = self.decisions.state, self.predicted
        made = {
            "cluster": lambda: self.clustered(state).labels,
            "outlier": lambda: self.columns["outlier"],
            "confidence": lambda: self.clustered(state).confidence,
            "label": lambda: self.labels(state)[0],
            "flag": lambda: self.flags[0],
            "left_out": lambda: self.left_out(state).astype(np.float32) - 1,
            "predicted": lambda: None if predicted is None else predicted.label_of,
            "predicted_confidence": lambda: None if predicted is None else predicted.confidence,
        }.get(name, lambda: None)
        values = made()
        return None if values is None else np.asarray(values, np.float32)

    @once
    def typical(self) -> list[np.ndarray]:
        """The most typical images of each cluster of the model, the most typical first; none of an empty one."""
        centers, cluster = self.store.model("clusters").cluster_centers_, self.columns["cluster"]
        distances = np.empty(len(cluster), np.float32)
        n = 0
        for vectors in self.store.table.vector_batches("embedding"):
            part = slice(n, n := n + len(vectors))
            distances[part] = np.square(vectors - centers[cluster[part]]).sum(1)
        order = np.lexsort((distances, cluster))
        starts = np.searchsorted(cluster[order], np.arange(len(centers) + 1))
        return [order[start:end][:N_TYPICAL] for start, end in itertools.pairwise(starts)]

    def typical_of(self, parts: list[int]) -> list[int]:
        """The most typical images of merged clusters: of each part in turn."""
        rows = itertools.chain(*itertools.zip_longest(*(self.typical[part].tolist() for part in parts)))
        return [row for row in rows if row is not None][:N_TYPICAL]

    @once
    def flags(self) -> tuple[np.ndarray, list[str]]:
        """The first visible fault of each image (-1 for none), and all kinds of faults."""
        first = [text.partition(";")[0].strip() for text in self.faults.to_pylist()]
        values = sorted(set(first) - {""})
        number = {value: i for i, value in enumerate(values)}
        return np.array([number.get(text, -1) for text in first]), values

    def labels(self, state: State) -> tuple[np.ndarray, list[str]]:
        """The number of the label of each image (-1 for none), and the labels."""
        known = self._labels
        if known is None or known[0] != state.revision:
            values = sorted(set(state.labels.values()))
            number = {value: i for i, value in enumerate(values)}
            index = np.full(len(self.keys), -1, np.int32)
            for key, label in state.labels.items():
                if key in self.row_of:
                    index[self.row_of[key]] = number[label]
            known = self._labels = (state.revision, index, values)
        return known[1], known[2]

    def left_out(self, state: State) -> np.ndarray:
        """Whether each image is left out."""
        found = np.zeros(len(self.keys), bool)
        found[[self.row_of[key] for key in state.left_out if key in self.row_of]] = True
        return found

    @property
    def moved(self) -> list[int]:
        """The images whose files were moved to the trash as duplicates, also on an earlier day."""
        if self._moved is None:
            keys: list[str] = []
            if self.store.originals.folder is not None:
                with suppress(ImatlasError, OSError):  # a damaged trash is told by whoever uses it
                    keys = moved(self.store.originals.folder)
            self._moved = sorted(self.row_of[key] for key in keys if key in self.row_of)
        return self._moved

    def forget_moved(self) -> None:
        """Look again which files are in the trash, when that is next asked for."""
        self._moved = None

    def clustered(self, state: State) -> Clustered:
        """The clusters as they were named and merged."""
        known, decisions = self._clustered, (state.names, state.merges)
        if known is None or known[0] != decisions:
            keys = anchor_keys(state) & self.row_of.keys()
            cluster_of = {key: int(self.columns["cluster"][self.row_of[key]]) for key in keys}
            decided = decided_clusters(state, self.store.model("clusters").n_clusters_, cluster_of)
            known = self._clustered = (decisions, Clustered(decided, *labels_of(self.store, decided)))
        return known[1]

    # -- images ------------------------------------------------------------------------------------------------------

    def images(self, rows: Iterable[int]) -> list[dict[str, Any]]:
        """Some images, in short."""
        state = self.decisions.state
        index, labels = self.labels(state)
        columns, (_, of_images, confidence) = self.columns, self.clustered(state)
        return [
            {
                "row": int(row),
                "key": self.keys[row],
                "width": int(columns["width"][row]),
                "height": int(columns["height"][row]),
                "cluster": int(of_images[row]),
                "label": labels[index[row]] if index[row] >= 0 else None,
                "left_out": self.keys[row] in state.left_out,
                "outlier": float(columns["outlier"][row]),
                "confidence": float(confidence[row]),
                **self._predicted_of(row),
            }
            for row in rows
        ]

    def _predicted_of(self, row: int) -> dict[str, Any]:
        """The label that was predicted for an image, and how sure that is, once labels were spread."""
        found = self.predicted
        if found is None:
            return {}
        index = int(found.label_of[row])
        sure = None if index < 0 else round(float(found.confidence[row]), 4)
        return {"predicted": None if index < 0 else found.values[index], "predicted_confidence": sure}

    def listed(self, query: Any) -> np.ndarray:
        """The rows that a query asks for, in its order."""
        state = self.decisions.state
        clustered = self.clustered(state)
        columns = self.columns | {"cluster": clustered.labels, "confidence": clustered.confidence}
        chosen = np.ones(len(self.keys), bool)
        if query.rows is not None:
            chosen[:] = False
            chosen[query.rows] = True
        if query.cluster is not None:
            chosen &= columns["cluster"] == query.cluster
        if query.label is not None:
            index, labels = self.labels(state)
            chosen &= index == (labels.index(query.label) if query.label in labels else -2)
        if query.flag is not None:
            chosen &= pc.match_substring(self.faults, query.flag).to_numpy()
        if query.left_out is not None:
            chosen &= self.left_out(state) == query.left_out
        if query.text:
            chosen &= np.array([query.text.lower() in key.lower() for key in self.keys])
        rows = np.flatnonzero(chosen)
        if query.sort == "key":
            rows = rows[np.argsort(self._key_ranks[rows])]
            return rows[::-1] if query.descending else rows
        values = columns[query.sort][rows]
        return rows[np.argsort(-values if query.descending else values, kind="stable")]

    def image(self, row: int) -> dict[str, Any]:
        """All that is known of one image."""
        (found,) = self.images([row])
        path = self.store.originals.path(self.keys[row])
        texts = self.texts(row)
        near = self.nearest(row, N_NEIGHBORS)
        at = {name: tiles.centers()[row].tolist() for name, tiles in self.layouts.items()}
        return found | {
            "path": None if path is None else str(path),
            "flags": [text.strip() for text in (texts["flags"] or "").split(";") if text.strip()],
            "duplicate_of": texts["duplicate_of"],
            "at": at,
            "neighbors": near,
        }

    def texts(self, row: int) -> dict[str, Any]:
        """What is written of an image in the table."""
        found: dict[str, Any] = self.store.table.take([row], ["flags", "duplicate_of", "sha256"]).to_pylist()[0]
        return found

    def thumbnail(self, row: int) -> bytes:
        """The thumbnail of an image, as it is stored."""
        return self.store.thumbnails([row])[0]

    def picture(self, row: int, side: int) -> tuple[bytes, bool]:
        """An image as WebP, no longer than `side`, and whether it is the original or only a thumbnail."""
        try:
            content = self.store.originals.content(self.keys[row], self.texts(row)["sha256"])
            return as_webp(content, side), True
        except (DecodeError, SourceError, OSError):
            return as_webp(self.thumbnail(row), side), False

    def nearest(self, query: Any, k: int, **options: Any) -> list[dict[str, Any]]:
        """The images nearest to a row or an image."""
        given = self.keys[query] if isinstance(query, int) else query
        found = self.atlas.search(given, k, **options).to_pylist()
        return [
            {
                "row": self.row_of[each["key"]], "key": each["key"],
                "distance": each["distance"], "closer_than": each["closer_than"],
            }
            for each in found
        ]  # fmt: skip

    def why(self, row: int) -> bytes | None:
        """A heat map over an image, of what decides its cluster."""
        result = self.atlas.explain(image=self.keys[row])
        for panel in result.panels:
            rows = getattr(panel, "rows", None)
            if rows and len(rows[0]) >= 2:
                picture = rows[0][1]
                return picture if isinstance(picture, bytes) else as_png(np.asarray(picture))
        return None


def _within_cells(points: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Points (n, 2) relative to the middle of those of their cell, from -0.5 to 0.5."""
    out = np.zeros((len(points), 2))
    order = np.argsort(cell, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(cell[order])) + 1):
        for axis in range(2):  # by rank, so that the cell is filled evenly
            rank = np.argsort(np.argsort(points[part, axis], kind="stable"))
            out[part, axis] = (rank + 0.5) / len(part) - 0.5
    return out
