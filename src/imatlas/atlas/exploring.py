"""What is in here: the verbs of an atlas that search, group, classify and explain."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from imatlas.arguments import check_int, strict_yes
from imatlas.atlas.originals import Region, check_region
from imatlas.atlas.store import OpenedAtlas
from imatlas.errors import ArtifactError, InputError, ParameterError
from imatlas.images.dataset import images_of
from imatlas.images.pixels import rgb_view
from imatlas.images.sources.given import as_several
from imatlas.images.spec import ImageSpec
from imatlas.models.image_clusterer import ImageClusterer
from imatlas.models.pretrained import PretrainedEncoder
from imatlas.result import ImagePairs, Result
from imatlas.tasks.classify import Classified
from imatlas.tasks.classify import classify as classify_embedding
from imatlas.tasks.cluster import Clusters, describe, limits
from imatlas.tasks.cluster import cluster as group
from imatlas.tasks.cluster_folders import write_folders
from imatlas.tasks.duplicates.groups import Duplicates, find_duplicates
from imatlas.tasks.explain import Space, explain_cluster, explain_image
from imatlas.tasks.export import write_embedding_atlas, write_numpy
from imatlas.tasks.outlier_maps import COMPARED, FEATURE_MAP_SPEC, has_feature_maps, heat_map, overlaid
from imatlas.tasks.outliers import FALSE_POSITIVE_RATE, Outliers, ordinary_near
from imatlas.tasks.outliers import outliers as find_outliers
from imatlas.tasks.search import search as search_embedding
from imatlas.tasks.search import search_like, without_self


class Exploring(OpenedAtlas):
    """The verbs that say what is in an atlas."""

    def search(
        self,
        query: Any,
        k: int = 10,
        *,
        like: Sequence[Any] = (),
        unlike: Sequence[Any] = (),
        region: Region | None = None,
    ) -> pa.Table:
        """The images that are nearest to one image, to a region of it, or to several and far from others.

        Parameters
        ----------
        query : key of an image in the atlas, or any one image
            A path, the bytes of a file, a file that is open, a Pillow image, or an array (H, W[, C]).
        k : int
        like : sequence of the same, or one
            More examples of what is meant.
        unlike : sequence of the same, or one
            What is not meant; see `imatlas.tasks.search.search_like`.
        region : (left, top, width, height), optional
            The part of `query` that is meant, in pixels of it at its original size.

        Returns
        -------
        Table
            `rank` from 1, `key`, `distance` in the learned space (to several examples, the harmonic mean),
            `closer_than`: the share of random pairs of this atlas that are farther apart than that (0.99 is near, 0.5
            is nothing), and `closer_than_neighbors`: the share of its images whose own nearest image is farther away
            (0.5 is as near as neighbors are here, 0 is farther than any). The images asked for are not among them.

        Raises
        ------
        ParameterError
            If `k` is no int of at least 1, or the region is not four.
        InputError, InputTypeError, SourceError
            If an image cannot be read, or the region does not lie within the image.
        """
        k = check_int(k, "k", "search", low=1)
        region = None if region is None else check_region(region)
        like, unlike = as_several(like, "like"), as_several(unlike, "unlike")
        first = self._place_of(query, "query") if region is None else self.embed(self._region_of(query, region)[None])
        wanted = np.concatenate([first, *[self._place_of(image, "like") for image in like]])
        other = np.concatenate([wanted[:0], *[self._place_of(image, "unlike") for image in unlike]])
        own = np.unique(np.concatenate([self._own(image) for image in (query, *like, *unlike)]))
        found = search_like(self.vectors, wanted, other, k=k + len(own), measures=self.spread)
        keep = np.flatnonzero(~np.isin(found.indices[0], own))[:k]
        return pa.table(
            {
                "rank": np.arange(1, len(keep) + 1),
                "key": self.keys.take(pa.array(found.indices[0, keep])),
                "distance": found.distances[0, keep],
                "closer_than": found.closer_than[0, keep],
                "closer_than_neighbors": found.closer_than_neighbors[0, keep],
            }
        )

    def kneighbors(self, images: Any = None, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """The nearest images of each of many, as scikit-learn's `kneighbors` returns them.

        Parameters
        ----------
        images : anything that `Images` takes, optional
            None: all images of the atlas, of which none is its own neighbor.
        k : int
            At most the number of images, less one where `images` is None.

        Returns
        -------
        distances : ndarray (n, k) float32
        indices : ndarray (n, k) int64
            Rows of the table, nearest first.
        """
        k = check_int(k, "k", "kneighbors", low=1)
        if images is not None:
            found = search_embedding(self.vectors, self.embed(images), k=k, measures=self.spread)
            return found.distances, found.indices
        if not 1 <= k < len(self):
            raise InputError(f"'k' must be from 1 to the number of other images, {len(self) - 1}. Got {k}.")
        indices, distances = self.vectors.nearest(self.embedding, k + 1)
        return without_self(indices, distances)[::-1]

    @strict_yes
    def export(
        self,
        output: str | Path,
        *,
        to: Literal["embedding-atlas", "numpy", "folders"],
        copy: bool = False,
        n_neighbors: int = 15,
        overwrite: bool = False,
    ) -> Result:
        """Hand the atlas over to other programs.

        Parameters
        ----------
        output : path
        to : {'embedding-atlas', 'numpy', 'folders'}
            A .parquet file with places, pictures and neighbors that Apple's embedding-atlas opens; the embedding as
            an .npz or .npy file; or a folder a cluster with links to the originals.
        copy : bool
            Folders: copy the originals in place of linking to them.
        n_neighbors : int
            For embedding-atlas: of each image.
        overwrite : bool
            Replace an earlier export.

        Returns
        -------
        Result
            What was written, and what was left out.
        """
        if to == "embedding-atlas":
            x, y = self.layout.T
            rows = self.table().drop_columns(["x", "y", "umap_x", "umap_y"])
            rows = rows.add_column(1, "y", pa.array(y)).add_column(1, "x", pa.array(x))
            n_neighbors = check_int(n_neighbors, "n_neighbors", "export", low=1)
            near = self.kneighbors(k=min(n_neighbors, len(self) - 1))[::-1]
            return write_embedding_atlas(rows, near, self.thumbnails, output, overwrite=overwrite)
        if to == "numpy":
            return write_numpy(self.embedding, self.keys.to_pylist(), output, overwrite=overwrite)
        if to != "folders":
            raise ParameterError(f"'to' must be 'embedding-atlas', 'numpy' or 'folders'. Got {to!r}.")
        originals, rows = self.originals, self.images_table.read(["key", "cluster", "sha256"])
        keys, labels = rows["key"].to_pylist(), rows["cluster"].to_numpy()
        hashes = dict(zip(keys, rows["sha256"].to_pylist(), strict=True))

        def read(key: str) -> Any:
            return originals.content(key, hashes.get(key, ""))

        def path_of(key: str) -> Path | None:
            path = originals.path(key)
            if path is not None:
                read(key)  # what is linked to, too, is what the atlas was learned from
            return path

        return write_folders(keys, labels, path_of, read, output, copy=copy, overwrite=overwrite)

    @property
    def layout(self) -> np.ndarray:
        """Where every image lies in the plane (n_images, 2) float32, neighbors beside each other (UMAP)."""
        self._require("umap_x")
        read = self.images_table.read(["umap_x", "umap_y"])
        return np.stack([read["umap_x"].to_numpy(), read["umap_y"].to_numpy()], axis=1)

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
        if n_clusters is None:
            model = self._clusterer()
            told = limits(self.manifest.metrics["clusters"]["sentences"])
        else:
            n_clusters = check_int(n_clusters, "n_clusters", "clusters", low=1)
            seed = self.manifest.settings["random_state"]
            train = self.embedding[~self.rows["held_out"].astype(bool)]
            grouped = group(train, n_clusters=n_clusters, random_state=seed)
            model, told = grouped.model, limits(grouped.result.sentences)
        if groups is not None and check_int(groups, "groups", "clusters", low=1) > model.n_clusters_:
            raise InputError(f"There are {model.n_clusters_} clusters to merge. Got groups={groups}; ask for fewer.")
        found = describe(model, self.embedding, self.rows["key"].tolist(), n_groups=groups)
        found.result.sentences[1:1] = told
        return found

    def outliers(self, images: Any = None, *, false_positive_rate: float = FALSE_POSITIVE_RATE) -> Outliers:
        """Find the outliers among images at a given false positive rate.

        Parameters
        ----------
        images : Images, or any source that `Images` takes, optional
            Judge these by those of the atlas. None: judge those of the atlas by each other.
        false_positive_rate : float
            Share of ordinary images that may be called outliers, in (0, 0.5]; an upper bound if the atlas contains
            outliers.

        Returns
        -------
        imatlas.tasks.outliers.Outliers
            `outlier_scores` and `p_values`, one per image; `rows`, the outliers; and in words.
        """
        keys, seed = self.rows["key"].tolist(), self.manifest.settings["random_state"]
        if images is None:
            return find_outliers(self.embedding, keys, false_positive_rate=false_positive_rate, random_state=seed)
        images = images_of(images)
        return find_outliers(
            self.embedding,
            keys,
            false_positive_rate=false_positive_rate,
            new=self.embed(images),
            new_keys=images.keys,
            random_state=seed,
        )

    def why_odd(self, images: Sequence[Any], found: Outliers | None = None) -> ImagePairs:
        """Where some images are odd: each beside a map of it, and the ordinary images that are nearest to it.

        Parameters
        ----------
        images : sequence of keys or of images as `search` takes them, or one
        found : Outliers, optional
            What `outliers` gave, so that it is not found again.

        Returns
        -------
        ImagePairs
            A row an image: itself, the same with what is odd glowing, and three ordinary images.
        """
        images = as_several(images)
        if found is None:
            found = self.outliers()
        encoder = self.model("encoder")
        spec = FEATURE_MAP_SPEC if has_feature_maps(encoder) else self.spec
        rows = []
        for image in images:
            near = ordinary_near(found, self.embedding, self._place_of(image)[0], exclude=self._own(image))
            seen = np.concatenate([self._pixels_of([image], spec), self.pixels(near, spec)])
            heat = heat_map(encoder, seen[0], seen[1:], self.embed)
            shown = rgb_view(seen[: len(COMPARED) - 1], spec)
            rows.append([shown[0], overlaid(shown[0], heat), *shown[1:]])
        captions = [str(image) if isinstance(image, str | Path) else "" for image in images]
        return ImagePairs(
            names=COMPARED, rows=rows, captions=captions, size=112, alt="Odd images and why they are odd."
        )

    def classify(self, labels: Any, *, n_next: int = 10) -> Classified:
        """Labels for all images from those of a few, with calibrated confidence, and what to label next.

        Parameters
        ----------
        labels : dict, pandas Series by key, table with the columns key and label, or path of such a CSV file
            The labels of some images, by their keys; or by their paths, absolute, below the source or with its name
            before. What is None, NaN or empty is no label, nor is the number -1.
        n_next : int
            How many images to propose for labeling.

        Returns
        -------
        imatlas.tasks.classify.Classified
            `labels` and `confidence`, one a row of the table. New images: `.model.predict_proba(atlas.embed(images))`.
        """
        n_next, seed = check_int(n_next, "n_next", "classify", low=0), self.manifest.settings["random_state"]
        keys, roots = self.rows["key"].tolist(), [Path(self.originals.name)]
        return classify_embedding(self.embedding, keys, labels, roots=roots, n_next=n_next, random_state=seed)

    @strict_yes
    def duplicates(self, *, rotated: bool = False) -> Duplicates:
        """Images that are copies of others, edited ones too, in groups with a best copy; from the stored thumbnails.

        `table()` has a stricter and quicker answer in its column `duplicate_of`: the same picture, not edited.

        Parameters
        ----------
        rotated : bool
            Find also copies that were rotated by 90, 180 or 270 degrees, or mirrored.

        Returns
        -------
        imatlas.tasks.duplicates.groups.Duplicates
        """
        return find_duplicates(self.gallery(), rotated=rotated)

    @strict_yes
    def explain(self, *, cluster: int | None = None, image: Any = None, heat: bool = True) -> Result:
        """Why the images of a cluster are together, or why an image is where it is.

        Parameters
        ----------
        cluster : int, optional
            Its typical images, those on its border, what decides in them, and the way to the nearest other cluster.
        image : key of an image in the atlas, or any one image as `search` takes it, optional
            Its cluster and the second best, its nearest images, and what in it decides.
        heat : bool
            Draw heat maps: 49 looks at each of the images that get one, a few seconds.

        Raises
        ------
        ParameterError
            If not just one of `cluster` and `image` is given.
        InputError
            If there is no such cluster or image.
        """
        if (cluster is None) == (image is None):
            both = "both" if image is not None else "neither"
            raise ParameterError(f"'explain' takes either a cluster or an image. Got {both}.")
        eyes = self.model("encoder")
        pretrained = isinstance(eyes, PretrainedEncoder)
        space = Space(
            self._clusterer(),
            self.embedding,
            self.rows["key"].tolist(),
            show=lambda rows: list(self.thumbnails(rows)),
            look=lambda rows: self.large_pixels(rows, eyes.source_side) if pretrained else self.pixels(rows),
            embed=self.embed,
            spec=ImageSpec(1, 1, 3) if pretrained else self.spec,
        )
        if cluster is not None:
            return explain_cluster(space, cluster, heat=heat)
        own = self._own(image)
        som = self.model("map")
        if len(own):
            cell = divmod(int(self.rows["cell"][own[0]]), som.cols_)
            return explain_image(space, int(own[0]), cell=cell, heat=heat)
        if isinstance(image, str) and not os.path.lexists(os.path.expanduser(image)):
            raise InputError(
                f"The atlas has no image '{image}', nor is there such a file; 'imatlas table' lists the keys."
            )
        place = self._place_of(image)
        side = eyes.source_side if pretrained else 0
        seen = self._pixels_of([image], ImageSpec(side, side, 3) if pretrained else None)[0]
        name = os.fspath(image) if isinstance(image, str | os.PathLike) else "the image"
        space = space.with_image(place[0], name, self.pictures([image])[0], seen)
        return explain_image(space, len(self), cell=divmod(int(som.predict(place)[0]), som.cols_), heat=heat)

    def _clusterer(self) -> ImageClusterer:
        """The model of the clusters.

        Raises
        ------
        ArtifactError
            If it is one that tells no confidence.
        """
        model = self.model("clusters")
        if not isinstance(model, ImageClusterer):
            raise ArtifactError(
                f"'{self.folder}' was grouped by an older imatlas that did not tell how sure a cluster is; ask for "
                "n_clusters, or learn the atlas again with --overwrite."
            )
        return model
