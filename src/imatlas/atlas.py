"""Atlas: what was learnt from a set of images, opened from its folder. A verb is a few lines over models and tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from imatlas import artifact, story
from imatlas.drawing import Outline, Show, draw_map
from imatlas.errors import ArtifactError, InputError
from imatlas.images.dataset import load_pixels
from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_view
from imatlas.images.thumbnails import thumbnail_pixels
from imatlas.manifest import Manifest
from imatlas.models.image_clusterer import ImageClusterer
from imatlas.plots import save
from imatlas.report import render
from imatlas.result import Result
from imatlas.table import ImagesTable
from imatlas.tasks.classify import Classified, classify, read_labels
from imatlas.tasks.cluster import Clusters, describe
from imatlas.tasks.cluster import cluster as group
from imatlas.tasks.regions import Regions, regions
from imatlas.tasks.score import MOST_TRAIN, eyes_in_words, rebuilder_of
from imatlas.tasks.score import score as score_generator
from imatlas.tasks.search import search as search_embedding
from imatlas.tasks.steer import Cell, Places, need_steered, sample_places

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Atlas:
    """A learnt map of a set of images, read from its folder.

    Parameters
    ----------
    folder : path
        The `.atlas` folder that `learn` made. It may have been moved: what needs only the thumbnails goes on working.

    Raises
    ------
    SourceError
        If there is no atlas in `folder`.
    ArtifactError
        If it is damaged, of a newer format, or not far enough learnt for the verb asked of it.

    Examples
    --------
    >>> atlas = imatlas.load("photos.atlas")          # doctest: +SKIP
    >>> atlas.search("query.jpg", k=10).to_pylist()   # doctest: +SKIP
    """

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

    def embed(self, images: Any) -> np.ndarray:
        """The place of other images in the learnt space, (n, n_features) float32."""
        model = self.model("encoder")
        if hasattr(model, "inverse_transform"):  # an autoencoder sees one size, depth and number of channels only
            images = load_pixels(images, spec=model.spec_)[0]
        return np.asarray(model.transform(images), dtype=np.float32)

    def search(self, query: Any, k: int = 10) -> pa.Table:
        """The images that are nearest to one image.

        Parameters
        ----------
        query : path, array (H, W[, C]), or key of an image in the atlas
        k : int

        Returns
        -------
        Table
            `rank` from 1, `key`, `distance` in the learnt space, and `closer_than`: the share of random pairs of this
            atlas that are farther apart than this one; 0.99 is very near.
        """
        keys, own = self.rows["key"], self._own(query)
        found = search_embedding(self.embedding, self._place_of(query), k=k + len(own))
        indices, distances, closer = found.indices[0], found.distances[0], found.closer_than[0]
        keep = ~np.isin(indices, own)
        return pa.table(
            {
                "rank": np.arange(1, keep.sum() + 1),
                "key": keys[indices[keep]].tolist(),
                "distance": distances[keep],
                "closer_than": closer[keep],
            }
        )

    def clusters(self, n_clusters: int | None = None, *, groups: int | None = None) -> Clusters:
        """The clusters of the images: `labels`, `confidence` and `medoids`, one a row of the table; and in words.

        Parameters
        ----------
        n_clusters : int, optional
            Group the embedding anew into so many, for this answer alone. None: the clusters of the atlas.
        groups : int, optional
            Tell, too, which of so many groups of clusters each is in.

        Returns
        -------
        imatlas.tasks.cluster.Clusters
        """
        model = self.model("clusters")
        if not isinstance(model, ImageClusterer) and n_clusters is None:
            raise ArtifactError(
                f"'{self.folder}' was grouped by an older imatlas that did not tell how sure a cluster is; ask for "
                "n_clusters, or learn the atlas again with --overwrite."
            )
        if n_clusters is not None:
            seed = self.manifest.settings["random_state"]
            train = self.embedding[~self.rows["held_out"].astype(bool)]
            model = group(train, n_clusters=n_clusters, random_state=seed).model
        return describe(model, self.embedding, self.rows["key"].tolist(), n_groups=groups)

    def classify(self, labels: Mapping[str, str] | str | Path, *, n_next: int = 10) -> Classified:
        """Labels for all images from those of a few, with calibrated confidence, and what to label next.

        Parameters
        ----------
        labels : dict, or path of a CSV file with the columns key and label
            The labels of some images, by their keys.
        n_next : int
            How many images to propose for labelling.

        Returns
        -------
        imatlas.tasks.classify.Classified
            `labels` and `confidence`, one a row of the table. New images: `.model.predict_proba(atlas.embed(images))`.
        """
        known = labels if isinstance(labels, Mapping) else read_labels(labels)
        seed = self.manifest.settings["random_state"]
        return classify(self.embedding, self.rows["key"].tolist(), known, n_next=n_next, random_state=seed)

    @cached_property
    def places(self) -> Places:
        """Where the images lie on the map, and what the generator is told of each cell."""
        return Places.on(self.model("map"), self.rows["cell"], self.rows["cluster"])

    def sample(
        self,
        n: int,
        *,
        cell: Cell | Sequence[Cell] | None = None,
        cluster: int | Sequence[int] | None = None,
        like: Any = None,
        strength: float = 0.6,
        weights: Sequence[float] | None = None,
        random_state: int = 0,
    ) -> np.ndarray:
        """New images; image i depends on (`random_state`, i) only.

        Parameters
        ----------
        n : int
        cell : (row, column), flat index, or several, optional
            Where on the map they are to lie.
        cluster : int or several, optional
            In which cluster.
        like : path, array (H, W[, C]), key of an image in the atlas, or a list of them, optional
            Alone: variations of these images, in turn. With cells or clusters: their cells count.
        strength : float in [0, 1]
            Of variations: 0 gives the image back as far as the model keeps it, 1 new ones of its place on the map.
        weights : sequence of float, optional
            How often each cell, cluster and image that was asked for comes up, in this order. None: equally often.

        Returns
        -------
        array (n, H, W, C) uint8

        Raises
        ------
        InputError
            If a cell or cluster is not there, or an image cannot be read.
        """
        model = self.model("generator")
        asked = {"cell": cell, "cluster": cluster, "weights": weights}
        asked = {name: value for name, value in asked.items() if value is not None}
        likes = like if isinstance(like, list) else [] if like is None else [like]
        near = self._cells_of(likes)
        if likes and not asked and strength < 1:
            need_steered(model)
            turn = np.arange(n) % len(likes)
            told = self.places.prototypes[near[turn]]
            pixels = self._pixels_of(likes)[turn]
            return to_view(model.vary(pixels, strength=strength, y=told, random_state=random_state), self.spec)
        if likes:
            asked["near"] = near.tolist()
        return to_view(sample_places(model, self.places, n, random_state=random_state, **asked), self.spec)

    def morph(self, *images: Any, cells: Sequence[Cell] = (), frames: int = 60, random_state: int = 0) -> np.ndarray:
        """A film from image to image, or along a path of cells, through images that do not exist.

        Parameters
        ----------
        *images : path, array (H, W[, C]), or key of an image in the atlas
            Two or more; the film passes through each as far as the model keeps it.
        cells : sequence of (row, column) or flat index
            Two or more, in place of images: new images of these and all cells between, from one and the same noise.
        frames : int
        random_state : int
            Of that noise.

        Returns
        -------
        array (frames, H, W, C) uint8

        Raises
        ------
        InputError
            If there are not two places to go between.
        """
        model, places = self.model("generator"), self.places
        if bool(images) == bool(len(cells)) or max(len(images), len(cells)) < 2:
            raise InputError(
                f"A morph goes between two or more images, or along two or more cells. Got {len(images)} images and "
                f"{len(cells)} cells."
            )
        need_steered(model)
        if frames < 2:
            raise InputError(f"A morph has 2 frames or more. Got {frames}.")
        if images:
            told, pixels = places.prototypes[self._cells_of(images)], self._pixels_of(images)
        else:
            told, pixels = places.prototypes[places.path(cells)], None
        return to_view(model.morph(frames, images=pixels, y=told, random_state=random_state), self.spec)

    def sliders(self, image: Any = None, *, directions: int = 8, steps: int = 9) -> np.ndarray:
        """What changes along the directions in which the images differ most; see `imatlas.Autoencoder.sliders`.

        Parameters
        ----------
        image : path, array (H, W[, C]) or key of an image in the atlas, optional
            Where to start from. None: the mean of all.
        directions, steps : int
            Directions, the longest first, and images along each.

        Returns
        -------
        array (directions, steps, H, W, C) uint8

        Raises
        ------
        InputError
            If the generator has no vectors, or the image cannot be read.
        """
        generator = self.model("generator")
        model = rebuilder_of(generator)
        if model is None:
            raise InputError(f"This atlas has a {type(generator).__name__}, which has no vectors to move along.")
        made = model.sliders(
            None if image is None else self._pixels_of([image]), n_directions=directions, n_steps=steps
        )
        return to_view(made.reshape(-1, *made.shape[2:]), self.spec).reshape(*made.shape[:4], -1)

    def _cells_of(self, images: Sequence[Any]) -> np.ndarray:
        """The cell of each image of the atlas, by its key, or of another one."""
        return np.array([int(self.model("map").predict(self._place_of(image))[0]) for image in images], np.int64)

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

    def score(self, *, random_state: int = 0) -> Result:
        """How good the generator is, measured on the images that were held out from learning.

        Works from the thumbnails, so it also works on an atlas that was moved away from its images.
        """
        train, held_out = (np.flatnonzero(self.rows["held_out"] == side) for side in (False, True))
        if len(train) > MOST_TRAIN:
            train = np.sort(np.random.default_rng(random_state).choice(train, MOST_TRAIN, replace=False))
        return score_generator(
            self.model("generator"),
            self.pixels(train),
            self.pixels(held_out),
            spec=self.spec,
            embed=self.embed,
            eyes=eyes_in_words(self.model("encoder")),
            places=(self.embedding[train], self.embedding[held_out]),
            sample=lambda n, seed: sample_places(self.model("generator"), self.places, n, random_state=seed),
            random_state=random_state,
        )

    def info(self) -> Result:
        """What the atlas holds and how it was learnt, in words and numbers."""
        return story.summary(self)

    def report(self, path: str | Path) -> Path:
        """Write everything as one HTML file that needs nothing else."""
        for what in ("encoder", "map", "clusters", "generator"):
            self._require(what, what in self.manifest.models)
        source = Path(self.manifest.source).name
        return render(story.tell(self), title=self.name, subtitle=source, facts=story.facts(self), path=Path(path))

    @cached_property
    def regions(self) -> Regions:
        """The map divided into regions of neighbouring cells that hold one kind of image; see `imatlas.tasks.regions`.

        Other than the clusters, which know nothing of the map, each region hangs together on it.
        """
        self._require("map", "map" in self.manifest.models)
        seed = self.manifest.settings["random_state"]
        return regions(self.model("map"), self.embedding, keys=self.rows["key"], random_state=seed)

    def map_figure(self, show: Show = "exemplar", *, outline: Outline = "clusters") -> Figure:
        """Draw the map.

        Parameters
        ----------
        show : {'exemplar', 'mean', 'prototype', 'u-matrix', 'u-matrix-between', 'hits'}
            In each cell the image nearest to its prototype, the mean of its images, or its prototype decoded (only
            where the map was learnt from an autoencoder's codes); the distances of neighbouring prototypes, a cell or
            also a gap between two cells; or how many images each cell holds.
        outline : {'clusters', 'regions', 'none'}
            What to outline and number: the clusters, or the regions of the map.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        InputError, ParameterError, MissingExtraError
        """
        for what in ("map", *(["clusters"] if outline == "clusters" else [])):
            self._require(what, what in self.manifest.models)
        return draw_map(self, show, outline=outline)

    def map(
        self,
        path: str | Path,
        show: Show = "exemplar",
        *,
        width: int = 2400,
        outline: Outline = "clusters",
        quality: int = 90,
    ) -> Path:
        """Write the map as a picture file; a file that is there is replaced.

        Parameters
        ----------
        path : path
            .png, .jpg, .webp or .tif for pixels; .svg or .pdf for vectors.
        show, outline
            As in `map_figure`.
        width : int
            In pixels; for vectors 96 of them are an inch.
        quality : int
            For .jpg and .webp, 1 to 100.

        Returns
        -------
        Path
            The file.
        """
        return save(self.map_figure(show, outline=outline), path, width_px=width, quality=quality)

    def _require(self, what: str, there: bool | None = None) -> None:
        there = what in self.images_table.columns if there is None else there
        if not there:
            raise InputError(
                f"The atlas '{self.folder}' has no {what} yet; finish it with the same 'imatlas learn' command again."
            )


def load(folder: str | Path, *, classes: tuple[type, ...] = ()) -> Any:
    """Open an atlas or a saved model, whichever is in `folder`.

    Parameters
    ----------
    folder : path
    classes : tuple of classes
        Models of your own that the table of imatlas does not know.

    Returns
    -------
    Atlas or Estimator

    Raises
    ------
    SourceError
        If there is neither in `folder`.
    ArtifactError
        If what is there is damaged or of a newer format.
    """
    if (Path(folder) / "atlas.json").is_file():
        return Atlas(folder)
    return artifact.load(folder, classes=classes)


def _one_image(image: Any) -> Any:
    """One image as a set of one."""
    if isinstance(image, str | Path):
        return [image]
    return np.asarray(image)[None]
