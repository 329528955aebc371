"""What is in an atlas's folder, opened: its rows, pictures and models, and the places of images in its space."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from imatlas import artifact
from imatlas.errors import DecodeError, InputError
from imatlas.images.dataset import load_pixels
from imatlas.images.spec import ImageSpec
from imatlas.images.thumbnails import thumbnail_pixels
from imatlas.manifest import Manifest
from imatlas.table import ImagesTable


class OpenedAtlas:
    """The folder of an atlas, and what all of its verbs need."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = Manifest.read(self.folder)
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
        return ImagesTable(self.folder / self.manifest.table["name"], self.manifest.table["version"])

    @cached_property
    def embedding(self) -> np.ndarray:
        """The place of every image in the learnt space, (n_images, n_features) float32."""
        self._require("embedding")
        return self.images_table.vectors("embedding")

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """The columns of the table without vectors and thumbnails, as arrays."""
        columns = [c for c in self.images_table.columns if c not in ("thumbnail", "embedding")]
        read = self.images_table.read(columns)
        return {c: read[c].to_numpy() if read[c].null_count == 0 else np.array(read[c].to_pylist()) for c in columns}

    def model(self, role: str) -> Any:
        """The saved model of one role: "encoder", "map", "clusters" or "generator"."""
        if role not in self._models:
            self._require(role, role in self.manifest.models)
            self._models[role] = artifact.load(self.folder / self.manifest.models[role])
        return self._models[role]

    def table(self) -> pa.Table:
        """One row an image: key, width, height, held_out, cell, x, y, cluster, confidence, outlier, duplicate_of.

        `cell` is the flat index on the map, `x` and `y` the place on it in cells, `confidence` the share of the nearest
        images that are in the same cluster, `outlier` the score that `imatlas.tasks.outliers` defines, `duplicate_of`
        the key of the image that this one doubles, or null.
        """
        wanted = ("key", "width", "height", "held_out", "cell", "x", "y", "cluster", "confidence", "outlier")
        return self.images_table.read([c for c in (*wanted, "duplicate_of") if c in self.images_table.columns])

    def thumbnails(self, rows: np.ndarray | list[int]) -> list[bytes]:
        """The stored small pictures of some rows, as the bytes of image files."""
        return self.images_table.take(rows, ["thumbnail"])["thumbnail"].to_pylist()

    def pixels(self, rows: np.ndarray | list[int]) -> np.ndarray:
        """Some images at the size of the models, (n, H, W, C) in the atlas's own depth, from their thumbnails."""
        fit = self.manifest.settings["fit"]
        return np.stack([thumbnail_pixels(data, self.spec, fit) for data in self.thumbnails(rows)])

    def originals(self, rows: np.ndarray | list[int], side: int) -> np.ndarray:
        """Some images as RGB at `side` x `side` (n, side, side, 3) uint8, from their files where these are still there,
        else from their thumbnails; for 8-bit sets."""
        fit, folder = self.manifest.settings["fit"], Path(self.manifest.source)
        spec = ImageSpec(side, side, 3)
        found = []
        for row, thumbnail in zip(rows, self.thumbnails(rows), strict=True):
            try:
                pixels = thumbnail_pixels((folder / self.rows["key"][row]).read_bytes(), spec, fit)
            except (OSError, DecodeError):
                pixels = thumbnail_pixels(thumbnail, spec, fit)
            found.append(pixels)
        return np.stack(found)

    def embed(self, images: Any) -> np.ndarray:
        """The place of other images in the learnt space, (n, n_features) float32."""
        model = self.model("encoder")
        if hasattr(model, "inverse_transform"):  # an autoencoder sees one size, depth and number of channels only
            images = load_pixels(images, spec=model.spec_)[0]
        return np.asarray(model.transform(images), dtype=np.float32)

    def _place_of(self, image: Any) -> np.ndarray:
        """The place of one image in the learnt space, (1, n_features): known by its key, or embedded."""
        own = self._own(image)
        return self.embedding[own] if len(own) else self.embed(_one_image(image))

    def _pixels_of(self, images: Sequence[Any]) -> np.ndarray:
        """Images of the atlas, by their keys, or others, as its models see them (n, H, W, C)."""
        found = []
        for image in images:
            own = self._own(image)
            found.append(self.pixels(own) if len(own) else load_pixels(_one_image(image), spec=self.spec)[0])
        return np.concatenate(found)

    def _own(self, image: Any) -> np.ndarray:
        """The row of the image of this atlas that `image` is the key of, (1,); (0,) where it is none."""
        return np.flatnonzero(self.rows["key"] == image)[:1] if isinstance(image, str) else np.empty(0, int)

    def _require(self, what: str, there: bool | None = None) -> None:
        there = what in self.images_table.columns if there is None else there
        if not there:
            raise InputError(
                f"The atlas '{self.folder}' has no {what} yet; finish it with the same 'imatlas learn' command again."
            )


def _one_image(image: Any) -> Any:
    """One image as a set of one."""
    if isinstance(image, str | Path):
        return [image]
    return np.asarray(image)[None]
