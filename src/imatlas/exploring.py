"""What is in here: the verbs of an atlas that search, group, classify and explain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from imatlas.errors import ArtifactError
from imatlas.models.image_clusterer import ImageClusterer
from imatlas.opened import OpenedAtlas
from imatlas.tasks.classify import Classified, read_labels
from imatlas.tasks.classify import classify as classify_embedding
from imatlas.tasks.cluster import Clusters, describe
from imatlas.tasks.cluster import cluster as group
from imatlas.tasks.doubles import Duplicates, find_duplicates
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
        return classify_embedding(self.embedding, self.rows["key"].tolist(), known, n_next=n_next, random_state=seed)

    def duplicates(self, *, turned: bool = False) -> Duplicates:
        """Images that are copies of others, edited ones too, in groups with a best copy; from the stored thumbnails.

        `table()` has a stricter and quicker answer in its column `duplicate_of`: the same picture, not edited.

        Parameters
        ----------
        turned : bool
            Find also copies that were turned by 90, 180 or 270 degrees, or mirrored.

        Returns
        -------
        imatlas.tasks.doubles.Duplicates
        """
        return find_duplicates(self.gallery(), turned=turned)
