"""What is in here: the verbs of an atlas that search, group, classify and explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from imatlas.errors import ArtifactError
from imatlas.images.dataset import Images
from imatlas.images.tensors import to_view
from imatlas.models.image_clusterer import ImageClusterer
from imatlas.opened import OpenedAtlas
from imatlas.result import ImagePairs
from imatlas.tasks.classify import Classified, read_labels
from imatlas.tasks.classify import classify as classify_embedding
from imatlas.tasks.cluster import Clusters, describe
from imatlas.tasks.cluster import cluster as group
from imatlas.tasks.outliers import FALSE_ALARMS, Outliers, ordinary_near
from imatlas.tasks.outliers import outliers as find_outliers
from imatlas.tasks.search import search as search_embedding
from imatlas.tasks.why_odd import COMPARED, PLACES_SPEC, has_places, heat_map, overlaid


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

    def outliers(self, images: Any = None, *, false_alarms: float = FALSE_ALARMS) -> Outliers:
        """The odd images, at a given rate of false alarms.

        Parameters
        ----------
        images : Images, or any source that `Images` takes, optional
            Judge these by those of the atlas. None: judge those of the atlas by each other.
        false_alarms : float
            The share of ordinary images that may be called odd, in (0, 0.5]; it is an upper bound where odd images are
            in the atlas.

        Returns
        -------
        imatlas.tasks.outliers.Outliers
            `oddness` and `p_values`, one an image; `rows`, the odd ones; and in words.
        """
        keys, seed = self.rows["key"].tolist(), self.manifest.settings["random_state"]
        if images is None:
            return find_outliers(self.embedding, keys, false_alarms=false_alarms, random_state=seed)
        images = images if isinstance(images, Images) else Images(images)
        return find_outliers(
            self.embedding,
            keys,
            false_alarms=false_alarms,
            new=self.embed(images),
            new_keys=images.keys,
            random_state=seed,
        )

    def why_odd(self, images: Sequence[Any], found: Outliers | None = None) -> ImagePairs:
        """Where some images are odd: each beside a map of it, and the ordinary images that are nearest to it.

        Parameters
        ----------
        images : sequence of keys, paths or arrays (H, W[, C])
        found : Outliers, optional
            What `outliers` gave, so that it is not found again.

        Returns
        -------
        ImagePairs
            A row an image: itself, the same with what is odd glowing, and three ordinary images.
        """
        found = found or self.outliers()
        encoder = self.model("encoder")
        spec = PLACES_SPEC if has_places(encoder) else self.spec
        rows = []
        for image in images:
            near = ordinary_near(found, self.embedding, self._place_of(image)[0], but=self._own(image))
            seen = np.concatenate([self._pixels_of([image], spec), self.pixels(near, spec)])
            heat = heat_map(encoder, seen[0], seen[1:], self.embed)
            shown = to_view(seen[: len(COMPARED) - 1], spec)
            rows.append([shown[0], overlaid(shown[0], heat), *shown[1:]])
        captions = [str(image) if isinstance(image, str | Path) else "" for image in images]
        return ImagePairs(
            names=COMPARED, rows=rows, captions=captions, size=112, alt="Odd images and why they are odd."
        )

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
