"""What the pages of the studio show of an atlas, as plain values."""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Iterable
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from imatlas.atlas.atlas import Atlas
from imatlas.atlas.decisions import State
from imatlas.errors import DecodeError, ImatlasError, InputError, SourceError
from imatlas.images.decode import read_picture
from imatlas.images.pixels import rgb_view, value_range
from imatlas.images.spec import ImageSpec
from imatlas.studio.tiles import CELLS, Tiles
from imatlas.tasks.duplicates.plans import PlanRow, read_plan, write_plan
from imatlas.tasks.duplicates.trash import apply_plan, undo
from imatlas.tasks.wall import scattered, wall
from imatlas.tasks.words import LEARNED_WITH, Words, matching

N_NEIGHBORS = 12
MOST_SIDE = 4096
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


class Views:
    """An atlas as the studio shows it. Whatever is slow is made once; safe to use from several threads."""

    def __init__(self, atlas: Atlas) -> None:
        self.atlas, self.store = atlas, atlas.store
        self.decisions = atlas.decisions
        self._lock = threading.RLock()
        self._labels: tuple[int, np.ndarray, list[str]] | None = None
        self._groups: list[list[int]] = []

    @once
    def keys(self) -> list[str]:
        """The key of every image."""
        return self.atlas.keys

    @once
    def row_of(self) -> dict[str, int]:
        """The row of every key."""
        return {key: row for row, key in enumerate(self.keys)}

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
                self.layouts["map"].tile(z, x, y)
        pa.default_memory_pool().release_unused()  # what reading the columns took

    # -- the atlas as a whole ----------------------------------------------------------------------------------------

    def overview(self, *, read_only: bool) -> dict[str, Any]:
        """What a page needs first."""
        state = self.decisions.state
        index, labels = self.labels(state)
        outlier = self.columns["outlier"]
        names = self.cluster_names(state)
        sizes = np.bincount(self.columns["cluster"], minlength=len(names))
        return {
            "name": self.atlas.name,
            "source": self.store.manifest.source,
            "n_images": len(self.keys),
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
                {"id": i, "name": name, "size": int(sizes[i]), "medoid": int(self.medoids[i])}
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
            ],
            "can": {
                "create": "generator" in self.store.manifest.models,
                "explain": True,
                "originals": self.store.originals.folder is not None,
                "words": self.store.manifest.stages.get("intake", {}).get("encoder") == "pretrained",
            },
            "undo": state.undo,
            "redo": state.redo,
        }  # fmt: skip

    def column(self, name: str) -> np.ndarray | None:
        """A column as numbers (n_images,) float32: of categories the number of the value, -1 for none."""
        state = self.decisions.state
        made = {
            "cluster": lambda: self.columns["cluster"],
            "outlier": lambda: self.columns["outlier"],
            "confidence": lambda: self.columns["confidence"],
            "label": lambda: self.labels(state)[0],
            "flag": lambda: self.flags[0],
            "left_out": lambda: self.left_out(state).astype(np.float32) - 1,
        }.get(name)
        return None if made is None else np.asarray(made(), np.float32)

    @once
    def medoids(self) -> np.ndarray:
        """The most typical image of each cluster."""
        centers = self.store.model("clusters").cluster_centers_
        found = np.zeros(len(centers), np.int64)
        for i, center in enumerate(centers):
            rows = np.flatnonzero(self.columns["cluster"] == i)
            found[i] = self.store.nearest_first(rows, center)[0] if len(rows) else 0
        return found

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

    def cluster_names(self, state: State) -> list[str]:
        """The name of each cluster: that which it was given, or its number."""
        names = [f"cluster {i + 1}" for i in range(len(self.store.model("clusters").cluster_centers_))]
        for key, name in state.names.items():
            if key in self.row_of:
                names[int(self.columns["cluster"][self.row_of[key]])] = name
        return names

    # -- images ------------------------------------------------------------------------------------------------------

    def images(self, rows: Iterable[int]) -> list[dict[str, Any]]:
        """Some images, in short."""
        state = self.decisions.state
        index, labels = self.labels(state)
        columns = self.columns
        return [
            {
                "row": int(row),
                "key": self.keys[row],
                "width": int(columns["width"][row]),
                "height": int(columns["height"][row]),
                "cluster": int(columns["cluster"][row]),
                "label": labels[index[row]] if index[row] >= 0 else None,
                "left_out": self.keys[row] in state.left_out,
                "outlier": float(columns["outlier"][row]),
                "confidence": float(columns["confidence"][row]),
            }
            for row in rows
        ]

    def listed(self, query: Any) -> np.ndarray:
        """The rows that a query asks for, in its order."""
        state, columns = self.decisions.state, self.columns
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
            return rows[::-1] if query.descending else rows  # the table is in order of the keys
        values = columns[query.sort][rows]
        return rows[np.argsort(-values if query.descending else values, kind="stable")]

    def image(self, row: int) -> dict[str, Any]:
        """All that is known of one image."""
        (found,) = self.images([row])
        path = self.store.originals.path(self.keys[row])
        texts = self._texts(row)
        near = self.search(row, N_NEIGHBORS)
        at = {name: tiles.centers()[row].tolist() for name, tiles in self.layouts.items()}
        return found | {
            "path": None if path is None else str(path),
            "flags": [text.strip() for text in (texts["flags"] or "").split(";") if text.strip()],
            "duplicate_of": texts["duplicate_of"],
            "at": at,
            "neighbors": near,
        }

    def _texts(self, row: int) -> dict[str, Any]:
        found: dict[str, Any] = self.store.table.take([row], ["flags", "duplicate_of", "sha256"]).to_pylist()[0]
        return found

    def thumbnail(self, row: int) -> bytes:
        """The thumbnail of an image, as it is stored."""
        return self.store.thumbnails([row])[0]

    def picture(self, row: int, side: int) -> tuple[bytes, bool]:
        """An image as WebP, no longer than `side`, and whether it is the original or only a thumbnail."""
        try:
            content = self.store.originals.content(self.keys[row], self._texts(row)["sha256"])
            return as_webp(content, side), True
        except (DecodeError, SourceError, OSError):
            return as_webp(self.thumbnail(row), side), False

    def search(self, query: Any, k: int, **options: Any) -> list[dict[str, Any]]:
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

    @cached_property
    def words(self) -> Words:
        """Words for all images; slow at first."""
        return self.atlas.words()

    def proposed_names(self) -> dict[str, Any]:
        """Words that stand out in each cluster."""
        found = self.words.of_clusters(self.columns["cluster"], len(self.medoids))
        return {
            "clusters": [[{"word": word, "share": round(share, 3)} for word, share in each] for each in found],
            "note": f"Proposed {LEARNED_WITH}.",
        }

    def found(self, word: str, k: int) -> dict[str, Any]:
        """The images that a word fits best."""
        matching(word)  # before the images are looked at
        best = zip(*(part.tolist() for part in self.words.nearest(word, k)), strict=True)
        return {"results": [{"row": row, "key": self.keys[row], "probability": round(p, 3)} for row, p in best]}

    def propagated(self, n_next: int) -> dict[str, Any]:
        """Labels of all images from those of a few."""
        state = self.decisions.state
        given, _ = self.labels(state)
        labels = {key: label for key, label in state.labels.items() if key in self.row_of}
        found = self.atlas.classify(labels, n_next=n_next)
        values, index = np.unique(found.labels, return_inverse=True)
        counts = np.bincount(index, minlength=len(values))
        n_given = np.bincount(index[given >= 0], minlength=len(values))
        return {
            "labels": [
                {"label": str(value), "count": int(count), "given": int(n)}
                for value, count, n in zip(values, counts, n_given, strict=True)
            ],
            "rows": list(range(len(self.keys))),
            "label_of": index.tolist(),
            "confidence": np.round(found.confidence.astype(float), 4).tolist(),
            "next": found.next_rows.tolist(),
        }

    def outliers(self, rate: float, limit: int) -> dict[str, Any]:
        """The outliers at a false positive rate."""
        with self._lock:
            found = self.atlas.outliers(false_positive_rate=rate)
        rows = found.rows[:limit]
        return {
            "total": len(found.rows),
            "images": [
                {
                    "row": int(row), "key": self.keys[row],
                    "outlier": float(found.outlier_scores[row]), "p_value": float(found.p_values[row]),
                }
                for row in rows
            ],
            "sentence": found.result.sentences[0] if found.result.sentences else "",
        }  # fmt: skip

    def duplicates(self) -> dict[str, Any]:
        """Groups of near-duplicates, the best of each first."""
        with self._lock:
            found = self.atlas.duplicates()
        self._groups = []
        for number in range(int(found.group.max(initial=-1)) + 1):
            rows = np.flatnonzero(found.group == number)
            self._groups.append(rows[np.argsort(~found.best[rows], kind="stable")].tolist())
        best = {int(row) for row in np.flatnonzero(found.best)}
        return {"groups": [[each | {"best": each["row"] in best} for each in self.images(g)] for g in self._groups]}

    def move_away(self, rows: list[int]) -> dict[str, Any]:
        """Move the files of some images to a trash folder beside theirs; of each group that was found, one stays.

        Raises
        ------
        InputError
            If they are in no group that was found, a group would lose all images, or the images are no files.
        ArtifactError
            If a file is gone or has changed.
        """
        moved, plan = set(rows), []
        for number, group in enumerate(self._groups, start=1):
            for row in group if moved & set(group) else ():
                action = "move" if row in moved else "keep"
                plan.append(PlanRow(self.keys[row], action, str(number), "studio", self._texts(row)["sha256"]))
        if not moved or moved - {row for group in self._groups for row in group}:
            raise InputError("Only duplicates are moved; look for duplicates first, and choose among them.")
        folder = self._folder()
        with tempfile.TemporaryDirectory() as aside:
            path = Path(aside, "plan.csv")
            write_plan(plan, folder, path, signed=False)
            return {"sentences": apply_plan(read_plan(path, folder)).sentences}

    def bring_back(self) -> dict[str, Any]:
        """Undo the last `move_away`, also of an earlier day.

        Raises
        ------
        InputError, SourceError
            If nothing was moved.
        """
        return {"sentences": undo(self._folder()).sentences}

    def _folder(self) -> Path:
        folder = self.store.originals.folder
        if folder is None:
            raise InputError("The images of this atlas are not files of a folder, so they stay where they are.")
        return folder

    def created(
        self, row: int | None, cell: int | None, n: int, novelty: float | None, strength: float | None, seed: int
    ) -> tuple[list[bytes], list[Any]]:
        """New images as PNG, and for each the images that it is composed of, if the generator knows."""
        place = int(self.columns["cell"][row]) if row is not None else cell
        has_sources = hasattr(self.store.model("generator"), "panorama")
        options: dict[str, Any] = {"cell": place, "random_state": seed}
        if has_sources:
            options |= {"novelty": novelty, "return_provenance": True}
        elif row is not None and strength is not None and strength < 1:
            options = {"like": self.keys[row], "strength": strength, "random_state": seed}
        made = self.atlas.sample(n, **options)
        pixels, found = made if has_sources else (made, None)
        sources = [
            [{"row": self.row_of.get(key), "key": key, "share": share} for key, share in list(each.items())[:8]]
            for each in (found.sources if found is not None else [{}] * n)
        ]
        return [_as_png(each) for each in pixels], sources

    def why(self, row: int) -> bytes | None:
        """A heat map over an image, of what decides its cluster."""
        result = self.atlas.explain(image=self.keys[row])
        for panel in result.panels:
            rows = getattr(panel, "rows", None)
            if rows and len(rows[0]) >= 2:
                picture = rows[0][1]
                return picture if isinstance(picture, bytes) else _as_png(np.asarray(picture))
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


def as_webp(content: Any, side: int) -> bytes:
    """The bytes of an image file, or pixels, as WebP for a page.

    Raises
    ------
    DecodeError
        If it cannot be read.
    """
    if isinstance(content, bytes):
        picture = read_picture(content).to_srgb()
        pixels, alpha = picture.thumbnail(side), picture.kind.alpha
    else:
        pixels = np.asarray(content)
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        alpha = pixels.shape[2] == 4
    height, width, channels = pixels.shape
    spec = ImageSpec(height, width, channels, pixels.dtype.name, *value_range(pixels[None]), alpha)  # type: ignore
    image = Image.fromarray(rgb_view(pixels[None], spec)[0, ..., :3])
    image.thumbnail((side, side))
    out = BytesIO()
    image.save(out, "WEBP", quality=88, method=2)
    return out.getvalue()


def _as_png(pixels: np.ndarray) -> bytes:
    """Pixels (H, W, C) uint8 as PNG; of many channels the first three, of two the first."""
    out = BytesIO()
    shown = pixels if pixels.shape[2] in (3, 4) else pixels[..., :3] if pixels.shape[2] > 4 else pixels[..., 0]
    Image.fromarray(np.ascontiguousarray(shown)).save(out, "PNG")
    return out.getvalue()


def upload_size(content: bytes) -> tuple[int, int]:
    """Width and height of an image that was sent.

    Raises
    ------
    InputError
        If it is none.
    """
    try:
        picture = read_picture(content)
    except (DecodeError, ImatlasError) as error:
        raise InputError(f"This is no image that can be read ({error}).") from None
    return picture.width, picture.height
