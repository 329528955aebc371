"""Atlas: what was learned from a set of images, opened from its folder."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from imatlas.arguments import check_int, check_path, check_seed, is_address, strict_yes
from imatlas.atlas import decided_clusters, explanations, exports, queries, report_sections, words
from imatlas.atlas.gallery import gallery
from imatlas.atlas.making import Making
from imatlas.atlas.map_figure import Outline, Show, draw_map
from imatlas.atlas.originals import Region, check_point, check_region
from imatlas.atlas.region_search import search_regions
from imatlas.atlas.store import Store
from imatlas.atlas.words import words_of_clusters
from imatlas.errors import InputError, ParameterError
from imatlas.images.dataset import images_of
from imatlas.images.sources.user_input import as_several
from imatlas.models import artifact
from imatlas.models.outlier_detector import MIN_ROWS
from imatlas.plots import save
from imatlas.report import render
from imatlas.result import ImagePairs, Result
from imatlas.system.inventory import is_atlas
from imatlas.tasks.classify import Classified, classify
from imatlas.tasks.cluster import Clusters, cluster, describe, limits, with_words
from imatlas.tasks.duplicates.groups import Duplicates, find_duplicates
from imatlas.tasks.export import write_numpy
from imatlas.tasks.outliers import FALSE_POSITIVE_RATE, Outliers, outliers
from imatlas.tasks.regions import Regions, regions
from imatlas.tasks.score import NOT_MEASURED, score_on_map
from imatlas.tasks.search import search, search_like, without_self
from imatlas.tasks.segment import Method, segment_files
from imatlas.tasks.words import Words, matching

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = (
    *("key", "width", "height", "held_out", "cell", "x", "y", "umap_x", "umap_y", "cluster", "confidence", "outlier"),
    *("p_value", "duplicate_of", "flags"),
)
"""The columns of the table that users see."""


class Atlas(Making):
    """A learned map of a set of images, read from its folder.

    An image is given to a verb as the key of one in the atlas, or as any one image: a path, the bytes of a file, an
    open file, a Pillow image, or an array (H, W[, C]).

    Parameters
    ----------
    folder : path or str
        The `.atlas` folder that `learn` made, or its address in a store, such as "s3://bucket/photos.atlas", where it
        is only read (docs/object_store.md). It may have been moved: what needs only thumbnails goes on working.

    Attributes
    ----------
    folder : Path
        For an address, a folder in the user's cache.
    store : imatlas.atlas.store.Store
        What lies in the folder: the manifest, the table's columns, thumbnails, originals and models.

    Raises
    ------
    SourceError
        If there is no atlas in `folder`.
    ArtifactError
        If it is damaged, or of another format.
    InputError
        From a verb, if the atlas is not learned far enough for it.

    Examples
    --------
    >>> atlas = imatlas.load("photos.atlas")          # doctest: +SKIP
    >>> atlas.search("query.jpg", k=10).to_pylist()   # doctest: +SKIP
    """

    def __init__(self, folder: str | Path) -> None:
        self.store = Store(folder)
        self.folder = self.store.folder

    def __repr__(self) -> str:
        state = "" if self.store.manifest.finished else ", unfinished"
        return f"Atlas({str(self.store.place)!r}, {len(self):,} images{state})"

    def __len__(self) -> int:
        return len(self.store)

    @property
    def name(self) -> str:
        """The folder's name without its ending."""
        return self.folder.name.removesuffix(".atlas")

    @property
    def keys(self) -> list[str]:
        """The key of every image, in the order of the table."""
        keys: list[str] = self.store.keys.to_pylist()
        return keys

    @property
    def embedding(self) -> np.ndarray:
        """The features of every image, (n_images, n_features) float32."""
        return self.store.embedding

    @property
    def layout(self) -> np.ndarray:
        """Coordinates of every image in the plane, (n_images, 2) float32, similar images together (UMAP)."""
        return self.store.layout

    def model(self, role: str) -> Any:
        """The saved model of one role: "encoder", "map", "clusters", "outliers", "layout" or "generator"."""
        return self.store.model(role)

    def table(self) -> pa.Table:
        """One row per image: key, width, height, held_out, and what was learned about it.

        `cell` is the flat index on the map, `x` and `y` the position on it in cells, `umap_x` and `umap_y` that in the
        layout, `confidence` the share of the nearest images that are in the same `cluster`, `outlier` the outlier
        score, where 1 is ordinary, `p_value` the probability that an ordinary image scores at least as high
        (`imatlas.OutlierDetector`), `duplicate_of` the key of the image that this one duplicates, or null, and `flags`
        its visible faults (`imatlas.tasks.quality_flags`), separated by "; ". Merged clusters count as one.
        """
        rows = self.store.table.read([c for c in COLUMNS if c in self.store.table.columns])
        if "cluster" in rows.column_names and (known := self.decided_clusters).any_merged:
            for name, values in zip(
                ("cluster", "confidence"), decided_clusters.labels_of(self.store, known), strict=True
            ):
                rows = rows.set_column(rows.column_names.index(name), name, pa.array(values))
        return rows

    def info(self) -> Result:
        """What the atlas holds and how it was learned, in words and numbers."""
        return report_sections.summary(self)

    def report(self, path: str | Path) -> Path:
        """Write the report: one self-contained HTML file."""
        path = check_path(path, "path", "report")
        for role in ("encoder", "map", "clusters", "generator"):
            self.store.require(role, role in self.store.manifest.models)
        return render(
            report_sections.sections(self),
            title=self.name,
            subtitle=Path(self.store.manifest.source).name,
            facts=report_sections.facts(self),
            path=path,
        )

    @cached_property
    def regions(self) -> Regions:
        """The map divided into regions of neighboring cells with similar images; see `imatlas.tasks.regions`.

        Unlike a cluster, which ignores the map, each region is connected on it.
        """
        self.store.require("map", "map" in self.store.manifest.models)
        return regions(self.model("map"), self.embedding, keys=self.store.rows["key"], random_state=self.store.seed)

    def map_figure(self, show: Show = "exemplar", *, outline: Outline = "clusters") -> Figure:
        """Draw the map.

        Parameters
        ----------
        show : {'exemplar', 'mean', 'prototype', 'u-matrix', 'u-matrix-between', 'hits'}
            In each cell the image nearest to its prototype, the mean of its images, or its prototype decoded (only if
            the map was learned from an autoencoder's codes); the distances between neighboring prototypes, per cell or
            also between cells; or the number of images of each cell.
        outline : {'clusters', 'regions', 'none'}
            What to outline and number: the clusters, or the regions of the map.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        InputError, ParameterError, MissingExtraError
        """
        for role in ("map", *(["clusters"] if outline == "clusters" else [])):
            self.store.require(role, role in self.store.manifest.models)
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
        """Draw the map into an image file; an existing file is replaced.

        Parameters
        ----------
        path : path
            .png, .jpg, .webp or .tif for pixels; .svg or .pdf for vectors.
        show, outline
            As in `map_figure`.
        width : int
            In pixels; for vectors, 96 pixels are one inch.
        quality : int
            For .jpg and .webp, 1 to 100.

        Returns
        -------
        Path
        """
        path, width = check_path(path, "path", "map"), check_int(width, "width", "map", low=1)
        quality = check_int(quality, "quality", "map", low=1, high=100)
        return save(self.map_figure(show, outline=outline), path, width_px=width, quality=quality)

    def embed(self, images: Any) -> np.ndarray:
        """The features of other images (anything that `Images` takes), (n, n_features) float32."""
        return queries.embed(self.store, images)

    def thumbnails(self, images: Any, *, region: Region | None = None) -> list[bytes]:
        """A thumbnail of each image as the bytes of an image file; of the first image only its `region`, if given."""
        return queries.thumbnails_of(self.store, images, None if region is None else check_region(region))

    def search(
        self,
        query: Any,
        k: int = 10,
        *,
        like: Sequence[Any] = (),
        unlike: Sequence[Any] = (),
        region: Region | None = None,
        regions: bool = False,
        point: tuple[int, int] | None = None,
        progress: bool = False,
    ) -> pa.Table:
        """The images nearest to one image, to a region of it, or to several and far from others.

        With `regions`, a part of the query is looked for among the parts of all images (docs/search.md). The first such
        search takes about 1 s an image, and needs the originals; their parts are then kept in the atlas's cache.

        Parameters
        ----------
        query : image
        k : int
        like : image or sequence of images
            More examples.
        unlike : image or sequence of images
            Counter-examples; see `imatlas.tasks.search.search_like`.
        region : (left, top, width, height), optional
            Part of `query` to search with, in pixels of its original size.
        regions : bool
            Search in parts of images. What is looked for is the region, the part at the point, or else the salient
            object of the query.
        point : (x, y), optional
            In pixels of the query; only with `regions`.
        progress : bool
            Show how far the first search in parts is.

        Returns
        -------
        Table
            `rank` from 1, `key`, `distance` in feature space (to several examples, the harmonic mean), `closer_than`:
            the share of random pairs of this atlas that are farther apart (0.99 is near, 0.5 is unrelated), and
            `closer_than_neighbors`: the share of images whose own nearest image is farther away (0.5 is as near as
            neighbors usually are here, 0 is farther than any). The query images themselves are left out.

            With `regions`: `rank`, `key`, `distance` (cosine; 0 is the same, 1 unrelated), and `left`, `top`, `width`
            and `height` of the nearest part of each image.

        Raises
        ------
        ParameterError
            If `k` is not an int of at least 1, or the region is not four ints.
        InputError, InputTypeError, SourceError
            If an image cannot be read, or the region does not lie within it; with `regions`, if the originals are gone,
            or there are several examples, or both a region and a point.
        """
        k, store = check_int(k, "k", "search", low=1), self.store
        region = None if region is None else check_region(region)
        if regions:
            if len(as_several(like, "like")) or len(as_several(unlike, "unlike")):
                raise InputError("A search in parts of images takes one query; give no others, or no 'regions'.")
            return search_regions(store, query, k, region, None if point is None else check_point(point), progress)
        if point is not None:
            raise InputError("A point chooses a part of an image; give it with regions=True (--regions).")
        like, unlike = as_several(like, "like"), as_several(unlike, "unlike")
        first = (
            queries.embedding_of(store, query, "query")
            if region is None
            else queries.embed(store, queries.region_of(store, query, region)[None])
        )
        wanted = np.concatenate([first, *[queries.embedding_of(store, image, "like") for image in like]])
        unwanted = np.concatenate([wanted[:0], *[queries.embedding_of(store, image, "unlike") for image in unlike]])
        own = np.unique(np.concatenate([queries.row_of(store, image) for image in (query, *like, *unlike)]))
        found = search_like(store.vectors, wanted, unwanted, k=k + len(own), measures=store.spread)
        keep = np.flatnonzero(~np.isin(found.indices[0], own))[:k]
        return pa.table(
            {
                "rank": np.arange(1, len(keep) + 1),
                "key": store.keys.take(pa.array(found.indices[0, keep])),
                "distance": found.distances[0, keep],
                "closer_than": found.closer_than[0, keep],
                "closer_than_neighbors": found.closer_than_neighbors[0, keep],
            }
        )

    @strict_yes
    def segment(
        self,
        output: str | Path,
        *,
        method: Method = "hierarchy",
        level: float | None = None,
        n_segments: int | None = None,
        pixel_size: float = 1.0,
        with_coco: bool = False,
        with_cut_outs: bool = False,
        with_objects: bool = False,
        scribbles: str | Path | None = None,
        overwrite: bool = False,
        random_state: int = 0,
        progress: bool = False,
    ) -> Result:
        """Split the original of every image into segments, and write them.

        Parameters
        ----------
        output : path
            A new folder.
        method, level, n_segments, pixel_size, with_coco, with_cut_outs, with_objects, scribbles, overwrite,
        random_state, progress
            As in `imatlas.tasks.segment.segment_files`, which also says what is written and raised.

        Raises
        ------
        SourceError
            If the originals are gone. Single ones that are gone, or have changed, are skipped.
        """
        return segment_files(
            self.store.originals_of(),
            output,
            method=method,
            level=level,
            n_segments=n_segments,
            pixel_size=pixel_size,
            with_coco=with_coco,
            with_cut_outs=with_cut_outs,
            with_objects=with_objects,
            scribbles=scribbles,
            overwrite=overwrite,
            random_state=random_state,
            progress=progress,
        )

    def kneighbors(self, images: Any = None, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """The nearest images of each of many, as scikit-learn's `kneighbors` returns them.

        Parameters
        ----------
        images : anything that `Images` takes, optional
            None: all images of the atlas, where no image is its own neighbor.
        k : int
            At most the number of images, less one if `images` is None.

        Returns
        -------
        distances : ndarray (n, k) float32
        indices : ndarray (n, k) int64
            Rows of the table, nearest first.
        """
        k, store = check_int(k, "k", "kneighbors", low=1), self.store
        if images is not None:
            found = search(store.vectors, self.embed(images), k=k, measures=store.spread)
            return found.distances, found.indices
        if not 1 <= k < len(self):
            raise InputError(f"'k' must be from 1 to the number of other images, {len(self) - 1}. Got {k}.")
        return without_self(*store.vectors.nearest(store.embedding, k + 1))[::-1]

    @strict_yes
    def clusters(
        self,
        n_clusters: int | None = None,
        *,
        groups: int | None = None,
        as_decided: bool = True,
        words: bool = False,
    ) -> Clusters:
        """The clusters of the images: `labels`, `confidence` and `medoids` per row of the table, and in words.

        Parameters
        ----------
        n_clusters : int, optional
            Cluster the embedding again into this many, for this answer only. None: the clusters of the atlas.
        groups : int, optional
            Also merge the clusters into this many groups.
        as_decided : bool
            Clusters of the atlas that were merged count as one, and have the names that were given; see `decisions`.
            False: as they were found.
        words : bool
            Also propose words for each cluster where the encoder knows some, from at most some hundred images; see
            `words`.

        Returns
        -------
        imatlas.tasks.cluster.Clusters
            Labels of merged clusters are the number that they count as.
        """
        store = self.store
        if n_clusters is None:
            model, sentences = self.model("clusters"), store.manifest.metrics["clusters"]["sentences"]
        else:
            n_clusters = check_int(n_clusters, "n_clusters", "clusters", low=1)
            train = store.embedding[~store.rows["held_out"].astype(bool)]
            found = cluster(train, n_clusters=n_clusters, random_state=store.seed)
            model, sentences = found.model, found.result.sentences
        if groups is not None and check_int(groups, "groups", "clusters", low=1) > model.n_clusters_:
            raise InputError(f"There are {model.n_clusters_} clusters to merge. Got groups={groups}; ask for fewer.")
        known = self.decided_clusters if as_decided and n_clusters is None else None
        named: dict[str, Any] = {} if known is None else {"merged": known.merged, "names": known.given}
        described = describe(model, store.embedding, self.keys, n_groups=groups, **named)
        described.result.sentences[1:1] = limits(sentences)
        proposed = words_of_clusters(store, described.labels, model.n_clusters_) if words else None
        return described if proposed is None else with_words(described, *proposed)

    def outliers(self, images: Any = None, *, false_positive_rate: float = FALSE_POSITIVE_RATE) -> Outliers:
        """The outliers at a given false positive rate.

        Parameters
        ----------
        images : anything that `Images` takes, optional
            Compare these with the images of the atlas. None: compare those of the atlas with each other.
        false_positive_rate : float
            Share of ordinary images that may be called outliers, in (0, 0.5]; an upper bound if the atlas itself holds
            outliers.

        Returns
        -------
        imatlas.tasks.outliers.Outliers
            `outlier_scores` and `p_values` per image, `rows` of the outliers, and in words.
        """
        store = self.store
        if len(self) < MIN_ROWS:
            raise InputError(f"Outliers need an atlas of at least {MIN_ROWS} images. Got {len(self)}; add more.")
        model = self.model("outliers")
        if images is None:
            keys, scores, p_values = self.keys, store.rows["outlier"], store.rows["p_value"]
        else:
            images = images_of(images)
            keys, scores = images.keys, -model.score_samples(self.embed(images))
            p_values = model.p_values_of(scores).astype(np.float32)
        return outliers(model, keys, scores, p_values, false_positive_rate=false_positive_rate, new=images is not None)

    def outlier_heatmaps(self, images: Any) -> ImagePairs:
        """What makes some images outliers: each beside its outlier heat map and the nearest ordinary images.

        Parameters
        ----------
        images : image or sequence of images

        Returns
        -------
        ImagePairs
            One row per image: the image, its heat map, and three ordinary images.
        """
        return explanations.outlier_heatmaps(self.store, images)

    def classify(self, labels: Any = None, *, n_next: int = 10) -> Classified:
        """Labels for all images from those of a few, with calibrated confidence, and which to label next.

        Parameters
        ----------
        labels : dict, pandas Series by key, table with the columns key and label, or path of such a CSV file, optional
            Labels by key; or by path: absolute, relative to the source, or beginning with its name. None, NaN, empty
            and -1 stand for no label. None: those of `decisions`.
        n_next : int
            Number of images to propose for labeling.

        Returns
        -------
        imatlas.tasks.classify.Classified
            `labels` and `confidence` per row of the table. New images: `.model.predict_proba(atlas.embed(images))`.
        """
        n_next, roots = check_int(n_next, "n_next", "classify", low=0), [Path(self.store.originals.name)]
        labels = self.decisions.state.labels if labels is None else labels
        return classify(self.embedding, self.keys, labels, roots=roots, n_next=n_next, random_state=self.store.seed)

    @strict_yes
    def words(self, *, progress: bool = False) -> Words:
        """Words for all images, from the 1,000 classes of ImageNet: see `imatlas.tasks.words.Words`.

        They come from a classifier that people's names have trained, and are proposals. The first call takes about
        10 ms an image; what it found is kept in the cache of the atlas.

        Raises
        ------
        InputError
            If the atlas was learned with an encoder of its own.
        MissingExtraError
            If the names of the classes are not installed: `pip install 'imatlas[words]'`.
        """
        return words.words(self.store, progress=progress)

    def find(self, word: str, k: int = 10) -> pa.Table:
        """The images that a word fits best; see `words`.

        Returns
        -------
        Table
            `rank` from 1, `key`, and `probability`.

        Raises
        ------
        InputError
            If no name of a class contains the word, or as of `words`.
        """
        k = check_int(k, "k", "find", low=1)
        matching(word)  # before the images are looked at
        rows, probability = self.words().nearest(word, k)
        return pa.table(
            {
                "rank": np.arange(1, len(rows) + 1),
                "key": self.store.keys.take(pa.array(rows)),
                "probability": probability,
            }
        )

    @strict_yes
    def duplicates(self, *, rotated: bool = False) -> Duplicates:
        """Groups of near-duplicates, edited ones included, each with its best image; found in the thumbnails.

        The column `duplicate_of` of `table()` is stricter: the same picture, unedited.

        Parameters
        ----------
        rotated : bool
            Also find duplicates rotated by 90, 180 or 270 degrees, or mirrored.

        Returns
        -------
        imatlas.tasks.duplicates.groups.Duplicates
        """
        return find_duplicates(gallery(self.store), rotated=rotated)

    @strict_yes
    def explain(self, *, cluster: int | None = None, image: Any = None, heat: bool = True) -> Result:
        """Why the images of a cluster are together, or why an image is where it is.

        Parameters
        ----------
        cluster : int, optional
            Shows its typical images, those on its border, what decides in them, and the way to the nearest cluster.
        image : image, optional
            Shows its cluster and the second best, its nearest images, and what in it decides.
        heat : bool
            Draw heat maps: 49 forward passes per heat map, a few seconds.

        Raises
        ------
        ParameterError
            If not exactly one of `cluster` and `image` is given.
        InputError
            If there is no such cluster or image.
        """
        if (cluster is None) == (image is None):
            both = "both" if image is not None else "neither"
            raise ParameterError(f"'explain' takes either a cluster or an image. Got {both}.")
        if cluster is not None:
            return explanations.cluster_explained(self.store, self.decided_clusters, cluster, heat=heat)
        return explanations.image_explained(self.store, self.decided_clusters, image, heat=heat)

    def show(self, *, height: int = 720) -> Any:
        """The studio of this atlas in a notebook; where its server cannot run, the report.

        Parameters
        ----------
        height : int
            Of the frame, in pixels.
        """
        studio = importlib.import_module("imatlas.studio.notebook")  # which is built upon this
        return studio.show(self, height=check_int(height, "height", "show", low=100))

    def score(self, *, random_state: int = 0) -> Result:
        """How good the generator is, measured on the held-out images.

        Works from the thumbnails, so also on an atlas that was moved away from its images.
        """
        random_state, store = check_seed(random_state, "score"), self.store
        train, held_out = (np.flatnonzero(store.rows["held_out"] == side) for side in (False, True))
        if not len(held_out):
            return NOT_MEASURED
        return score_on_map(
            self.model("generator"),
            store.map_conditions,
            store.pixels,
            train=train,
            held_out=held_out,
            embedding=store.embedding,
            spec=store.spec,
            encoder=self.model("encoder"),
            embed=self.embed,
            random_state=random_state,
        )

    @strict_yes
    def export(
        self,
        output: str | Path,
        *,
        to: Literal["embedding-atlas", "numpy", "folders", "coco"],
        keys: Sequence[str] | None = None,
        copy: bool = False,
        propagate: bool = False,
        n_neighbors: int = 15,
        overwrite: bool = False,
    ) -> Result:
        """Write the atlas for other programs.

        Parameters
        ----------
        output : path
        to : {'embedding-atlas', 'numpy', 'folders', 'coco'}
            A .parquet file with coordinates, thumbnails and neighbors for Apple's embedding-atlas; the embedding as an
            .npz or .npy file; one folder per cluster with links to the originals; or the labels as a COCO .json file.
        keys : sequence of str, optional
            Folders and coco: only these images. None: all that are not left out.
        copy : bool
            Folders: copy the originals instead of linking to them.
        propagate : bool
            Coco: images without a label get the one that `classify` predicts, with its confidence as `score`.
        n_neighbors : int
            For embedding-atlas: neighbors per image.
        overwrite : bool
            Replace an earlier export.

        Returns
        -------
        Result
            What was written, and what was left out.

        Raises
        ------
        ParameterError, InputError
            If there is no such format, an option does not go with it, or there is nothing to write.
        ArtifactError
            If `output` already exists.
        """
        if to not in ("folders", "coco") and keys is not None:
            raise InputError(f"Some images by their keys can be exported to 'folders' and 'coco' only. Got {to!r}.")
        if to == "embedding-atlas":
            n_neighbors = check_int(n_neighbors, "n_neighbors", "export", low=1)
            return exports.to_embedding_atlas(self.store, self.table(), output, n_neighbors, overwrite)
        if to == "numpy":
            return write_numpy(self.embedding, self.keys, output, overwrite=overwrite)
        if to not in ("folders", "coco"):
            raise ParameterError(f"'to' must be 'embedding-atlas', 'numpy', 'folders' or 'coco'. Got {to!r}.")
        rows = exports.chosen_rows(self.store, self.decisions, keys)
        if to == "folders":
            return exports.to_folders(self.store, self.decided_clusters, rows, output, copy, overwrite)
        predicted = self.classify() if propagate else None
        return exports.to_coco(self.store, rows, self.decisions.state.labels, predicted, output, overwrite)


def load(folder: str | Path, *, classes: tuple[type, ...] = ()) -> Any:
    """Open an atlas or a saved model.

    Parameters
    ----------
    folder : path or str
        Or the address of an atlas in a store, such as "s3://bucket/photos.atlas".
    classes : tuple of classes
        Your own models, which imatlas does not know.

    Returns
    -------
    Atlas or Estimator

    Raises
    ------
    SourceError
        If there is neither in `folder`.
    ArtifactError
        If it is damaged or of another format.
    """
    if isinstance(folder, str) and is_address(folder):
        return Atlas(folder)
    folder = check_path(folder, "folder", "load")
    if is_atlas(folder):
        return Atlas(folder)
    return artifact.load(folder, classes=classes)
