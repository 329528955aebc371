"""Why images of an atlas are where they are: heat maps of outliers, clusters and single images explained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.atlas.decided_clusters import DecidedClusters
from imatlas.atlas.queries import embed, embedding_of, pixels_of, row_of, thumbnails_of
from imatlas.atlas.store import Store
from imatlas.errors import InputError
from imatlas.images.pixels import rgb_view
from imatlas.images.sources.user_input import as_several
from imatlas.images.spec import ImageSpec
from imatlas.result import ImagePairs, Result
from imatlas.tasks.explain import Space, explain_cluster, explain_image
from imatlas.tasks.outlier_maps import COMPARED, FEATURE_MAP_SPEC, has_feature_maps, heat_map, overlaid
from imatlas.tasks.outliers import ordinary_near


def outlier_heatmaps(store: Store, images: Sequence[Any]) -> ImagePairs:
    """See `Atlas.outlier_heatmaps`."""
    store.require("p_value")
    images, encoder, p_values = as_several(images), store.model("encoder"), store.rows["p_value"]
    spec = FEATURE_MAP_SPEC if has_feature_maps(encoder) else store.spec
    rows = []
    for image in images:
        near = ordinary_near(p_values, store.embedding, embedding_of(store, image)[0], exclude=row_of(store, image))
        pixels = np.concatenate([pixels_of(store, [image], spec), store.pixels(near, spec)])
        heat = heat_map(encoder, pixels[0], pixels[1:], lambda images: embed(store, images))
        shown = rgb_view(pixels[: len(COMPARED) - 1], spec)
        rows.append([shown[0], overlaid(shown[0], heat), *shown[1:]])
    captions = [str(image) if isinstance(image, str | Path) else "" for image in images]
    return ImagePairs(
        names=COMPARED, rows=rows, captions=captions, size=112, alt="Outliers, and what makes them outliers."
    )


def cluster_explained(store: Store, decided: DecidedClusters, cluster: int, *, heat: bool) -> Result:
    """See `Atlas.explain`."""
    return explain_cluster(_space(store, decided), cluster, heat=heat)


def image_explained(store: Store, decided: DecidedClusters, image: Any, *, heat: bool) -> Result:
    """See `Atlas.explain`."""
    space, som, own = _space(store, decided), store.model("map"), row_of(store, image)
    if len(own):
        cell = divmod(int(store.rows["cell"][own[0]]), som.cols_)
        return explain_image(space, int(own[0]), cell=cell, heat=heat)
    if isinstance(image, str) and not os.path.lexists(os.path.expanduser(image)):
        raise InputError(f"The atlas has no image '{image}', nor is there such a file; 'imatlas table' lists the keys.")
    place = embedding_of(store, image)
    name = os.fspath(image) if isinstance(image, str | os.PathLike) else "the image"
    space = space.with_image(
        place[0], name, thumbnails_of(store, image)[0], pixels_of(store, [image], _encoder_spec(store))[0]
    )
    return explain_image(space, len(store), cell=divmod(int(som.predict(place)[0]), som.cols_), heat=heat)


def _space(store: Store, decided: DecidedClusters) -> Space:
    """The clusters, embedding and pictures that an explanation needs."""
    spec, large = _encoder_spec(store), store.model("encoder").pretrained
    return Space(
        store.model("clusters"),
        store.embedding,
        store.rows["key"].tolist(),
        show=lambda rows: list(store.thumbnails(rows)),
        pixels=lambda rows: store.large_pixels(rows, spec.height) if large else store.pixels(rows),
        embed=lambda images: embed(store, images),
        spec=spec,
        merged=decided.merged,
        names=decided.given,
    )


def _encoder_spec(store: Store) -> ImageSpec:
    """Size and depth at which the encoder sees images."""
    encoder = store.model("encoder")
    if encoder.pretrained:
        return ImageSpec(encoder.source_side, encoder.source_side, 3)
    return store.spec
