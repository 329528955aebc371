"""What is in an atlas's folder, opened: its rows, pictures and models, and the places of images in its space."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imatlas.arguments import check_int, check_path, refused, whole
from imatlas.atlas.manifest import Manifest
from imatlas.atlas.originals import Originals, Region, check_region, cropped
from imatlas.atlas.table import AGAIN, ROWS, THUMBNAIL, ImagesTable
from imatlas.errors import ArtifactError, DecodeError, InputError, Notice, SourceError
from imatlas.images.dataset import Images, images_of, load_pixels, pixels_like
from imatlas.images.decode import check_thumbnail, read_picture
from imatlas.images.keys import keys_of
from imatlas.images.pixels import alike, conformed, kind_of
from imatlas.images.sources.given import as_one, as_several
from imatlas.images.spec import ImageSpec
from imatlas.images.thumbnails import stretched_view, thumbnail_pixels
from imatlas.models import artifact
from imatlas.models.image_estimator import ImageEstimator
from imatlas.system.atomic_io import within
from imatlas.tasks.duplicates.features import SIDE
from imatlas.tasks.duplicates.gallery import Gallery
from imatlas.tasks.search import InMemory, Spread, Vectors, spread

COLUMNS = (
    *("key", "width", "height", "held_out", "cell", "x", "y", "umap_x", "umap_y", "cluster", "confidence", "outlier"),
    *("duplicate_of", "flags"),
)
"""Of the table that users see."""

ROLES = ("encoder", "map", "clusters", "layout", "generator")
"""What the models of an atlas are there for."""

FROM_TABLE = ("map", "clusters", "layout")
"""The models that are learned from the embedding."""

MOST_BY_INDEX = 1000
"""Images asked for up to which the index knows them well; for more all images are looked at."""


@dataclass(frozen=True)
class Indexed:
    """The embedding of a table that has an index: searched on the disk, nearly exactly; see `ImagesTable.nearest`."""

    table: ImagesTable

    def __len__(self) -> int:
        return len(self.table)

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """About the nearest of all rows, with exact distances; exactly these for more than 1,000."""
        if k > MOST_BY_INDEX:
            return InMemory(self.table.vectors("embedding")).nearest(queries, k)
        found = [self.table.nearest("embedding", query, k) for query in np.asarray(queries, np.float32)]
        return np.stack([rows for rows, _ in found]), np.stack([distances for _, distances in found])

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Some rows of the embedding."""
        return self.table.vectors_at("embedding", rows)


def misfit(role: str, model: Any, table: ImagesTable) -> str:
    """In which way the table does not go with a model of an atlas, "" where it does."""
    if role not in FROM_TABLE:
        return ""
    width = table.n_features("embedding") or getattr(model, "n_features_in_", None)
    if width != getattr(model, "n_features_in_", width):
        return f"it is for {model.n_features_in_} features, and each image has {width}"
    column, known = {"map": ("cell", "codebook_"), "clusters": ("cluster", "cluster_centers_")}.get(role, ("", ""))
    if column in table.columns and hasattr(model, known):
        n, most = len(getattr(model, known)), pc.max(table.read([column])[column]).as_py() or 0
        if most >= n:
            return f"it has {n:,} of what the table calls '{column}', and an image is in number {most:,}"
    return ""


class OpenedAtlas:
    """The folder of an atlas, and what all of its verbs need."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = check_path(folder, "folder", "Atlas")
        self.manifest = Manifest.read(self.folder)
        self.inventory = self.manifest.inventory(self.folder)
        self._models: dict[str, Any] = {}

    def __repr__(self) -> str:
        state = "" if self.manifest.finished else ", unfinished"
        return f"Atlas({str(self.folder)!r}, {len(self):,} images{state})"

    def __len__(self) -> int:
        return len(self.images_table)

    @property
    def name(self) -> str:
        """The folder's name without its ending."""
        return self.folder.name.removesuffix(".atlas")

    @property
    def spec(self) -> ImageSpec:
        """Size, depth and range of the images as the models see them."""
        return ImageSpec.from_json(self.manifest.spec)

    @cached_property
    def images_table(self) -> ImagesTable:
        """The committed version of the images table."""
        named = self.manifest.table
        self._require("images table", bool(named))
        return ImagesTable(within(self.folder, named["name"]), named["version"], self.inventory)

    @cached_property
    def embedding(self) -> np.ndarray:
        """The place of every image in the learned space, (n_images, n_features) float32."""
        self._require("embedding")
        return self.images_table.vectors("embedding")

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """The columns of the table without vectors and thumbnails, as arrays."""
        columns = [c for c in self.images_table.columns if c not in ("thumbnail", "embedding")]
        read = self.images_table.read(columns)
        return {c: read[c].to_numpy() if read[c].null_count == 0 else np.array(read[c].to_pylist()) for c in columns}

    @cached_property
    def keys(self) -> pa.ChunkedArray:
        """The key of every image, in the order of the table."""
        return self.images_table.read(["key"])["key"]

    @cached_property
    def originals(self) -> Originals:
        """The pictures at their own size, where the source is still there."""
        return Originals(self.manifest.source, self.manifest.settings.get("field"))

    @cached_property
    def vectors(self) -> Vectors:
        """The embedding to search in: on the disk where the table has an index, else in memory."""
        self._require("embedding")
        indexed = self.images_table.has_index("embedding")
        return Indexed(self.images_table) if indexed else InMemory(self.embedding)

    @cached_property
    def spread(self) -> Spread:
        """How far apart the images of this atlas lie, which gives distances a meaning."""
        return spread(self.vectors, random_state=self.manifest.settings["random_state"])

    def model(self, role: str) -> Any:
        """The saved model of one role: "encoder", "map", "clusters", "layout" or "generator"."""
        if not isinstance(role, str) or role not in ROLES:
            raise refused("role", "model", "one of " + ", ".join(map(repr, ROLES)), role)
        if role not in self._models:
            self._require(role, role in self.manifest.models)
            name = self.manifest.models[role]
            self.inventory.check(self.inventory.below(name))
            model = artifact.load(within(self.folder, name))
            told = misfit(role, model, self.images_table) if role in FROM_TABLE and self.manifest.table else ""
            if told:
                raise ArtifactError(f"The atlas is damaged: '{self.folder / name}' cannot be used ({told}); {AGAIN}.")
            self._models[role] = model
        return self._models[role]

    def table(self) -> pa.Table:
        """One row an image: key, width, height, held_out, and what was learned of it.

        `cell` is the flat index on the map, `x` and `y` the place on it in cells, `umap_x` and `umap_y` that in the
        layout, `confidence` the share of the nearest images that are in the same `cluster`, `outlier` how odd it
        is, where 1 is ordinary (`imatlas.OutlierDetector`), `duplicate_of` the key of the image that this one doubles,
        or null, and `flags` what is plainly wrong with it (`imatlas.tasks.quality_flags`), "; " between several.
        """
        return self.images_table.read([c for c in COLUMNS if c in self.images_table.columns])

    def thumbnails(self, rows: np.ndarray | list[int]) -> list[bytes]:
        """The stored small pictures of some rows, as the bytes of image files."""
        found = self.images_table.take(self._rows_of(rows), ["thumbnail"])["thumbnail"].to_pylist()
        return [check_thumbnail(data) for data in found]

    def _rows_of(self, rows: Any) -> list[int]:
        """Rows of the table, as they were asked for.

        Raises
        ------
        ParameterError
            If they are no whole numbers, or there are no such rows.
        """
        numbers = (
            None if isinstance(rows, str | bytes) else [whole(row) for row in rows] if np.ndim(rows) == 1 else None
        )
        if numbers is None or any(number is None for number in numbers):
            raise refused("rows", "Atlas", "a sequence of ints", rows)
        for number in numbers:
            check_int(number, "rows", "Atlas", low=0, high=len(self) - 1)
        return [int(number) for number in numbers if number is not None]

    def pictures(self, images: Sequence[Any], *, region: Region | None = None) -> list[bytes]:
        """Small pictures of images, by their keys, or of others, as the bytes of image files; a region of the first."""
        part: Any = None if region is None else check_region(region)
        found = []
        for image in as_several(images):
            own = self._own(image)
            if part is None and len(own):
                found += self.thumbnails(own)
                continue
            seen, part = as_one(image) if part is None else self._region_of(image, part)[None], None
            one = Images(seen, thumbnail_size=THUMBNAIL)
            if one.spec.dtype != self.spec.dtype == "uint8":  # black and white as the atlas has
                one = Images(self._in_depth(one[0])[None], thumbnail_size=THUMBNAIL)
            found.append(one.thumbnails[0])
        return found

    def pixels(self, rows: np.ndarray | list[int], spec: ImageSpec | None = None) -> np.ndarray:
        """Some images at the size of the models, (n, H, W, C) in the atlas's own depth, from their thumbnails.

        With a `spec`, of that size and depth.
        """
        fit = self.manifest.settings["fit"]
        return np.stack([thumbnail_pixels(data, spec or self.spec, fit) for data in self.thumbnails(rows)])

    def gallery(self) -> Gallery:
        """The images as `find_duplicates` takes them, from their thumbnails; pixels lie in a temporary file."""
        n, rows = len(self), self.rows
        with tempfile.TemporaryFile(prefix="imatlas-") as file:
            stretched = np.memmap(file, np.uint8, "w+", shape=(n, SIDE, SIDE, 3))
        for start in range(0, n, ROWS):
            some = np.arange(start, min(start + ROWS, n))
            for row, data in zip(some.tolist(), self.thumbnails(some), strict=True):
                stretched[row] = stretched_view(data, SIDE)
        folder = self.originals.folder
        sizes = [_size_of(self.originals.path(key)) if folder else 0 for key in rows["key"].tolist()]
        return Gallery(
            keys=rows["key"].tolist(),
            pixels_of=lambda rows: np.asarray(stretched[rows]),
            thumbnail_of=lambda row: self.thumbnails([row])[0],
            content=np.array(self._contents(), dtype=str),
            area=rows["width"].astype(np.int64) * rows["height"],
            size=np.array(sizes, np.int64),
            folder=folder if any(sizes) and not self._has_parts else None,
            user_named_folder=False,
        )

    @property
    def _frames(self) -> str:
        """What was taken from animations: "first" or "all"."""
        return str(self.manifest.settings.get("frames", "first"))

    @property
    def _has_parts(self) -> bool:
        """Whether images may be frames, or pictures of a stack, which are no files to move."""
        return self._frames == "all" or any(re.search(r"\.npy#\d+$", key) for key in self.rows["key"].tolist())

    def _contents(self) -> list[str]:
        """What is equal for equal files, and for the same frame of equal files."""
        hashes, keys = self.rows["sha256"].tolist(), self.rows["key"].tolist()
        if self._frames == "first":
            return [str(sha256) for sha256 in hashes]
        frames = [re.search(r"(#\d+)?$", key) for key in keys]
        return [f"{sha256}{frame[0] if frame else ''}" for sha256, frame in zip(hashes, frames, strict=True)]

    def large_pixels(self, rows: np.ndarray | list[int], side: int) -> np.ndarray:
        """Some images as RGB at `side` x `side` (n, side, side, 3) uint8, from the originals where these are still
        there, else from their thumbnails; for 8-bit sets."""
        fit, spec = self.manifest.settings["fit"], ImageSpec(side, side, 3)
        found = []
        for row, thumbnail in zip(rows, self.thumbnails(rows), strict=True):
            key = str(self.rows["key"][row])
            try:
                own = str(self.rows["sha256"][row])
                content = self.originals.content(key, own) if self.originals.path(key) else thumbnail
                found.append(thumbnail_pixels(content, spec, fit))
            except (OSError, DecodeError):
                found.append(thumbnail_pixels(thumbnail, spec, fit))
        return np.stack(found)

    def embed(self, images: Any) -> np.ndarray:
        """The place of other images in the learned space, (n, n_features) float32."""
        model = self.model("encoder")
        if isinstance(model, ImageEstimator):  # what learned here sees one size, depth and number of channels only
            images = pixels_like(images, model.spec_)
        elif not isinstance(images, Images):
            has_pixels = isinstance(images, np.ndarray) or hasattr(images, "detach")
            images = images_of(images, image_size=None if has_pixels else model.source_side)
        if isinstance(images, Images) and not alike(kind_of(images.spec), kind_of(model.spec_)):
            side = model.source_side
            images = np.ma.getdata(pixels_like(images, replace(model.spec_, height=side, width=side)))
        if not len(images):
            return np.empty((0, self.images_table.n_features("embedding") or model.n_features_in_), np.float32)
        return np.asarray(model.transform(images), dtype=np.float32)

    def _place_of(self, image: Any, name: str = "image") -> np.ndarray:
        """The place of one image in the learned space, (1, n_features): known by its key, or embedded."""
        own = self._own(image)
        places = self.vectors.at(own) if len(own) else self.embed(as_one(image, name))
        if len(places) != 1:
            raise InputError(f"The '{name}' must be one image. Got a file of {len(places)} pictures; give one of them.")
        return places

    def _pixels_of(self, images: Sequence[Any], spec: ImageSpec | None = None) -> np.ndarray:
        """Images of the atlas, by their keys, or others, as its models see them (n, H, W, C), or as `spec` says."""
        spec = spec or self.spec
        found = []
        for image in images:
            own = self._own(image)
            found.append(self.pixels(own, spec) if len(own) else load_pixels(as_one(image), spec=spec)[0])
        return np.concatenate(found)

    def _own(self, image: Any) -> np.ndarray:
        """The row of the image of this atlas that `image` is the key of, (1,); (0,) where it is none."""
        if not isinstance(image, str):
            return np.array([], dtype=np.int64)
        rows = (pc.index(self.keys, key).as_py() for key in keys_of(image))
        return np.array([row for row in rows if row >= 0][:1], dtype=np.int64)

    def _region_of(self, image: Any, region: Region) -> np.ndarray:
        """A region of one image at its original size (height, width, C); of the small picture where that is all."""
        own = self._own(image)
        if not len(own):
            return cropped(self._in_depth(np.asarray(Images(as_one(image))[0])), region, "the image")
        size = self.images_table.take(own, ["width", "height", "sha256"]).to_pylist()[0]
        try:
            whole = self.originals.pixels(image, size["sha256"])
        except (DecodeError, SourceError, OSError) as error:
            small = read_picture(self.thumbnails(own)[0]).pixels()
            shown = f"{small.shape[1]} x {small.shape[0]}"
            warnings.warn(
                f"The original of '{image}' cannot be used ({error}); its region is cut from the small picture of "
                f"{shown} pixels that the atlas keeps.",
                Notice,
                stacklevel=4,
            )
            cropped(np.empty((size["height"], size["width"], 0)), region, f"'{image}'")
            share = np.tile([small.shape[1] / size["width"], small.shape[0] / size["height"]], 2)
            left, top, width, height = (int(v) for v in np.array(region) * share)
            return small[top : top + max(1, height), left : left + max(1, width)]
        return cropped(self._in_depth(whole), region, f"'{image}'")

    def _in_depth(self, whole: np.ndarray) -> np.ndarray:
        """A whole image (H, W, C) in the depth of the atlas: a part alone would not tell what is black and white."""
        if whole.dtype.name == self.spec.dtype:
            return whole
        own = Images(whole[None])
        to = replace(own.spec, dtype=self.spec.dtype, low=self.spec.low, high=self.spec.high)
        return conformed(own.pixels, own.spec, to)[0]

    def _require(self, what: str, there: bool | None = None) -> None:
        there = what in self.images_table.columns if there is None else there
        if not there:
            raise InputError(
                f"The atlas '{self.folder}' has no {what} yet; finish it with the same 'imatlas learn' command again."
            )


def _size_of(path: Path | None) -> int:
    """The bytes of a file, 0 where there is none."""
    try:
        return 0 if path is None else path.stat().st_size
    except OSError:
        return 0
