"""What lies in the folder of an atlas, opened for reading: its table, thumbnails, models and originals."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imatlas.arguments import check_int, check_path, is_address, refused, whole
from imatlas.atlas.manifest import Manifest
from imatlas.atlas.originals import Originals
from imatlas.atlas.remote_atlas import RemoteAtlas
from imatlas.atlas.table import REPAIR, ImagesTable
from imatlas.errors import ArtifactError, DecodeError, InputError
from imatlas.images.decode import check_thumbnail
from imatlas.images.keys import video_frame
from imatlas.images.sources.addresses import checked_address
from imatlas.images.sources.keyed import KeyedSource
from imatlas.images.spec import ImageSpec
from imatlas.images.thumbnails import thumbnail_pixels
from imatlas.models import artifact
from imatlas.models.image_clusterer import ImageClusterer
from imatlas.models.layout import Layout
from imatlas.models.outlier_detector import OutlierDetector
from imatlas.models.parts.feature_cache import content_of
from imatlas.models.som import SOM
from imatlas.neighbors import squared_to
from imatlas.system.atomic_io import within
from imatlas.tasks.conditions import MapConditions
from imatlas.tasks.score import autoencoder_of
from imatlas.tasks.search import InMemory, Spread, Vectors, spread

ROLES = ("encoder", "map", "clusters", "outliers", "layout", "generator")
"""The models of an atlas."""

FROM_EMBEDDING: dict[str, type[Any]] = {
    "map": SOM,
    "clusters": ImageClusterer,
    "outliers": OutlierDetector,
    "layout": Layout,
}
"""The models that are fitted on the embedding, and their classes."""

_FRAME = re.compile(r"#(\d{1,9})$")

MOST_BY_INDEX = 1000
"""Largest k that the index answers well; above it the search is exact."""


@dataclass(frozen=True)
class Indexed:
    """The embedding of a table that has an index: searched on disk, approximately; see `ImagesTable.nearest`."""

    table: ImagesTable

    def __len__(self) -> int:
        return len(self.table)

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Approximately the k nearest rows, with exact distances; exactly the nearest for k above 1,000."""
        if k > MOST_BY_INDEX:
            return InMemory(self.table.vectors("embedding")).nearest(queries, k)
        found = [self.table.nearest("embedding", query, k) for query in np.asarray(queries, np.float32)]
        return np.stack([rows for rows, _ in found]), np.stack([distances for _, distances in found])

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Some rows of the embedding."""
        return self.table.vectors_at("embedding", rows)


def misfit(role: str, model: Any, table: ImagesTable) -> str:
    """Why a model cannot belong to the table of its atlas; "" if it can."""
    if role not in FROM_EMBEDDING:
        return ""
    if not isinstance(model, FROM_EMBEDDING[role]):
        return f"it is of the class {type(model).__name__} instead of {FROM_EMBEDDING[role].__name__}"
    width = table.n_features("embedding") or model.n_features_in_
    if width != model.n_features_in_:
        return f"it is for {model.n_features_in_} features, and each image has {width}"
    column, known = {"map": ("cell", "codebook_"), "clusters": ("cluster", "cluster_centers_")}.get(role, ("", ""))
    if column in table.columns:
        n, most = len(getattr(model, known)), pc.max(table.read([column])[column]).as_py() or 0
        if most >= n:
            return f"it has {n:,} rows for the column '{column}' of the table, where an image has the number {most:,}"
    return ""


class Store:
    """The committed state of an atlas. Everything is read when first needed, then kept.

    Parameters
    ----------
    folder : path or str
        Or the address of an atlas in a store, whose files are fetched when they are needed.

    Attributes
    ----------
    folder : Path
    address : str
        Where the atlas is; "" for one in a folder of its own.
    manifest : Manifest
    inventory : Inventory
        Size and hash of every file that counts; compared before a file is parsed.

    Raises
    ------
    SourceError
        If there is no atlas in `folder`.
    ArtifactError
        If it is damaged or of another format.
    """

    def __init__(self, folder: str | Path) -> None:
        place = checked_address(folder) if isinstance(folder, str) and is_address(folder) else folder
        self.address = place if isinstance(place, str) and is_address(place) else ""
        if self.address:
            remote = RemoteAtlas(self.address)
            self.folder, self.manifest, self.inventory = remote.folder, remote.manifest, remote.inventory
        else:
            self.folder = check_path(place, "folder", "Atlas")
            self.manifest = Manifest.read(self.folder)
            self.inventory = self.manifest.inventory(self.folder)
        self._models: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.table)

    @property
    def place(self) -> str | Path:
        """The folder or address of the atlas."""
        return self.address or self.folder

    @property
    def spec(self) -> ImageSpec:
        """Size, depth and range of the images as the models see them."""
        return ImageSpec.from_json(self.manifest.spec)

    @property
    def seed(self) -> int:
        """The seed that the atlas was learned with."""
        return int(self.manifest.settings["random_state"])

    @cached_property
    def table(self) -> ImagesTable:
        """The images table, one row per image."""
        named = self.manifest.table
        self.require("images table", bool(named))
        return ImagesTable(within(self.folder, named["name"]), named["version"], self.inventory)

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """The columns of the table as arrays (n_images,), without vectors and thumbnails."""
        columns = [c for c in self.table.columns if c not in ("thumbnail", "embedding")]
        read = self.table.read(columns)
        return {c: read[c].to_numpy() if read[c].null_count == 0 else np.array(read[c].to_pylist()) for c in columns}

    @cached_property
    def keys(self) -> pa.ChunkedArray:
        """The key of every image, in the order of the table."""
        return self.table.read(["key"])["key"]

    @cached_property
    def contents(self) -> list[bytes]:
        """What identifies the content of every image, in the order of the table, as a `FeatureCache` names it."""
        pairs = zip(self.rows["key"].tolist(), self.rows["sha256"].tolist(), strict=True)
        return [content_of(sha256, _frame_of(key)) for key, sha256 in pairs]

    @cached_property
    def embedding(self) -> np.ndarray:
        """The features of every image, (n_images, n_features) float32."""
        self.require("embedding")
        return self.table.vectors("embedding")

    @cached_property
    def vectors(self) -> Vectors:
        """The embedding, ready to be searched: on disk where the table has an index, otherwise in memory."""
        self.require("embedding")
        return Indexed(self.table) if self.table.has_index("embedding") else InMemory(self.embedding)

    @cached_property
    def spread(self) -> Spread:
        """The distribution of distances between images of this atlas, which gives a distance its meaning."""
        return spread(self.vectors, random_state=self.seed)

    @cached_property
    def map_conditions(self) -> MapConditions:
        """The cell and cluster of every image, and the condition that the generator takes for each cell."""
        return MapConditions.on(self.model("map"), self.rows["cell"], self.rows["cluster"])

    @cached_property
    def composed_of(self) -> tuple[list[str], np.ndarray]:
        """The images that the generator is composed of, in its order: keys, and rows of the table, (n_sources,) int64.

        The row of an image that was removed from the atlas since, or changed, is -1.

        Raises
        ------
        ArtifactError
            If the atlas does not list as many images as the generator has.
        """
        known = self.manifest.composed_of
        n_sources = len(self.model("generator").images_)
        if len(known) != n_sources:
            raise ArtifactError(
                f"The atlas is damaged: '{self.place}/atlas.json' lists {len(known):,} images that its generator "
                f"is composed of, and this has {n_sources:,}; learn the atlas again with --overwrite."
            )
        now = zip(self.rows["key"].tolist(), self.rows["sha256"].tolist(), strict=True)
        row_of = {found: row for row, found in enumerate(now)}
        return list(known), np.array([row_of.get(source, -1) for source in known.items()], np.int64)

    @property
    def layout(self) -> np.ndarray:
        """Coordinates of every image in the plane, (n_images, 2) float32 (UMAP)."""
        self.require("umap_x")
        read = self.table.read(["umap_x", "umap_y"])
        return np.stack([read["umap_x"].to_numpy(), read["umap_y"].to_numpy()], axis=1)

    @cached_property
    def originals(self) -> Originals:
        """The original images, where the source still exists."""
        settings = self.manifest.settings
        return Originals(self.manifest.source, settings.get("field"), str(settings.get("source_signature", "")))

    def originals_of(self, rows: np.ndarray | None = None) -> KeyedSource:
        """The original images of some rows, or of all, as a source; raises SourceError if they are gone."""
        keys, hashes = (self.rows[name] if rows is None else self.rows[name][rows] for name in ("key", "sha256"))
        return self.originals.source(keys.tolist(), hashes.tolist())

    @property
    def autoencoder(self) -> Any:
        """The model that encodes images as short codes and decodes them: of the generator or the encoder, or None."""
        found = (autoencoder_of(self.model(role)) for role in ("generator", "encoder"))
        return next((model for model in found if model is not None), None)

    def model(self, role: str) -> Any:
        """The saved model of one role: "encoder", "map", "clusters", "outliers", "layout" or "generator".

        Raises
        ------
        ParameterError
            If there is no such role.
        InputError
            If the atlas is not finished and has no such model yet.
        ArtifactError
            If the model is damaged or does not belong to the table.
        """
        if not isinstance(role, str) or role not in ROLES:
            raise refused("role", "model", "one of " + ", ".join(map(repr, ROLES)), role)
        if role not in self._models:
            self.require(role, role in self.manifest.models)
            name = self.manifest.models[role]
            self.inventory.check(self.inventory.below(name))
            model = artifact.load(within(self.folder, name))
            reason = misfit(role, model, self.table) if self.manifest.table else ""
            if reason:
                raise ArtifactError(f"The atlas is damaged: '{self.place}/{name}' cannot be used ({reason}); {REPAIR}.")
            self._models[role] = model
        return self._models[role]

    def nearest_first(self, rows: np.ndarray, center: np.ndarray) -> np.ndarray:
        """Some rows, ordered by the distance of their embedding to a point of it."""
        return rows[np.argsort(squared_to(center, self.embedding, rows), kind="stable")]

    def thumbnails(self, rows: np.ndarray | list[int]) -> list[bytes]:
        """The thumbnails of some rows, each as the bytes of an image file.

        Raises
        ------
        ParameterError
            If `rows` are not whole numbers, or there are no such rows.
        """
        numbers = (
            None if isinstance(rows, str | bytes) else [whole(row) for row in rows] if np.ndim(rows) == 1 else None
        )
        if numbers is None or any(number is None for number in numbers):
            raise refused("rows", "Atlas", "a sequence of ints", rows)
        for number in numbers:
            check_int(number, "rows", "Atlas", low=0, high=len(self) - 1)
        found = self.table.take([int(number) for number in numbers if number is not None], ["thumbnail"])
        return [check_thumbnail(data) for data in found["thumbnail"].to_pylist()]

    def pixels(self, rows: np.ndarray | list[int], spec: ImageSpec | None = None) -> np.ndarray:
        """Images (n, H, W, C) made from their thumbnails, in the size and depth that the models see, or of `spec`."""
        fit = self.manifest.settings["fit"]
        return np.stack([thumbnail_pixels(data, spec or self.spec, fit) for data in self.thumbnails(rows)])

    def large_pixels(self, rows: np.ndarray | list[int], side: int) -> np.ndarray:
        """Images of an 8-bit set as RGB (n, side, side, 3) uint8: from the originals where they still exist, otherwise
        from their thumbnails."""
        fit, spec = self.manifest.settings["fit"], ImageSpec(side, side, 3)
        found = []
        for row, thumbnail in zip(rows, self.thumbnails(rows), strict=True):
            key, sha256 = str(self.rows["key"][row]), str(self.rows["sha256"][row])
            try:
                content = self.originals.content(key, sha256) if self.originals.path(key) else thumbnail
                found.append(thumbnail_pixels(content, spec, fit))
            except (OSError, DecodeError):
                found.append(thumbnail_pixels(thumbnail, spec, fit))
        return np.stack(found)

    def require(self, what: str, there: bool | None = None) -> None:
        """Refuse an atlas that is not learned far enough: without a column `what`, or where `there` is False.

        Raises
        ------
        InputError
        """
        there = what in self.table.columns if there is None else there
        if not there:
            raise InputError(
                f"The atlas '{self.place}' has no {what} yet; finish it with the same 'imatlas learn' command again."
            )


def _frame_of(key: str) -> int:
    """The number of a frame in its file, the milliseconds of one in a video; 0 for a file that is one image."""
    video = video_frame(key)
    found = _FRAME.search(key)
    return video[1] if video else int(found[1]) if found else 0
