"""What is in here: the verbs of an atlas that search, group, classify and explain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from imatlas.errors import ArtifactError, InputError, ParameterError
from imatlas.images.spec import ImageSpec
from imatlas.models.image_clusterer import ImageClusterer
from imatlas.models.pretrained import PretrainedEncoder
from imatlas.opened import OpenedAtlas
from imatlas.result import Result
from imatlas.tasks.classify import Classified, read_labels
from imatlas.tasks.classify import classify as classify_embedding
from imatlas.tasks.cluster import Clusters, describe
from imatlas.tasks.cluster import cluster as group
from imatlas.tasks.explain import Space, explain_cluster, explain_image
from imatlas.tasks.search import search as search_embedding


class Exploring(OpenedAtlas):
    """The verbs that say what is in an atlas."""

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
        model = self._clusterer() if n_clusters is None else None
        if model is None:
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
        return classify_embedding(self.embedding, self.rows["key"].tolist(), known, n_next=n_next, random_state=seed)

    def explain(self, *, cluster: int | None = None, image: str | None = None, heat: bool = True) -> Result:
        """Why the images of a cluster are together, or why an image is where it is.

        Parameters
        ----------
        cluster : int, optional
            Its typical images, those on its border, what decides in them, and the way to the nearest other cluster.
        image : str, optional
            The key of an image: its cluster and the second best, its nearest images, and what in it decides.
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
            raise ParameterError(
                f"'explain' takes either a cluster or an image. Got cluster={cluster}, image={image!r}."
            )
        eyes = self.model("encoder")
        pretrained = isinstance(eyes, PretrainedEncoder)
        space = Space(
            self._clusterer(),
            self.embedding,
            self.rows["key"].tolist(),
            show=lambda rows: list(self.thumbnails(rows)),
            look=lambda rows: self.originals(rows, eyes.source_side) if pretrained else self.pixels(rows),
            embed=self.embed,
            spec=ImageSpec(1, 1, 3) if pretrained else self.spec,
        )
        if cluster is not None:
            return explain_cluster(space, cluster, heat=heat)
        own = self._own(image)
        if not len(own):
            raise InputError(f"The atlas has no image '{image}'; 'imatlas table' lists the keys.")
        cell = divmod(int(self.rows["cell"][own[0]]), self.model("map").cols_)
        return explain_image(space, int(own[0]), cell=cell, heat=heat)

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
