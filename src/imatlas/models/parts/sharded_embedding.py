"""Embedding many images part by part: in this process, or in shards on the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from imatlas.images.dataset import Images
from imatlas.images.intake import unread_by_worker
from imatlas.system.workers import Parts

AT_ONCE = 1024
"""Images whose raw features are in memory; then they are projected, written to the cache, and progress is told."""

SHARD = 64
"""Images that a worker of a cluster embeds at a time."""

Embed = Callable[[Images], list[np.ndarray]]
"""Images -> their features, one array (n_images, n_features) per encoder. Can be pickled."""


def by_part(embed: Embed, images: Images, *, image_size: int) -> Iterator[list[np.ndarray]]:
    """`embed` of `AT_ONCE` images after the other; by workers if the images have some (`Images.workers`).

    Workers decode the originals at `image_size`, in pixels. Images that need no decoding (arrays, or pixels that were
    cached at that size) are embedded in this process.

    Raises
    ------
    SourceError
        If a worker cannot read originals that can be read here.
    """
    parts, workers = parts_of(np.arange(len(images))), images.cluster_workers
    sent = images.for_workers() if workers is not None and len(images) else None
    if workers is None or sent is None or images.spec.shape[:2] == (image_size, image_size):
        for rows in parts:
            yield embed(images[rows])
        return
    shards_of = [list(parts_of(rows, SHARD)) for rows in parts]
    shards = [rows for part in shards_of for rows in part]
    computed = zip(shards, workers.map(_ShardEmbedding(embed, sent), shards), strict=True)
    for part in shards_of:
        found = [_confirmed(embed, images[rows], *result) for rows, result in islice(computed, len(part))]
        yield [np.concatenate(of_one) for of_one in zip(*found, strict=True)]


def of_pixels(model: Any, images: Images) -> np.ndarray:
    """Features (n_images, n_features) by a model of images at the size that it was fitted to; by workers, who are sent
    the pixels, if the images have some."""
    workers = images.cluster_workers
    if workers is None or not len(images):
        return np.asarray(model.transform(images))
    return np.concatenate(list(workers.map(model.transform, Parts(images.pixels_of, len(images), AT_ONCE))))


def parts_of(rows: np.ndarray, size: int | None = None) -> Iterator[np.ndarray]:
    """Rows (n,) in parts of `size`, by default `AT_ONCE`."""
    size = AT_ONCE if size is None else size
    return (rows[start : start + size] for start in range(0, len(rows), size))


@dataclass(frozen=True)
class _ShardEmbedding:
    """What a worker is sent: the encoders, and the images of which it embeds one shard after the other."""

    embed: Embed
    images: Images

    def __call__(self, rows: np.ndarray) -> tuple[list[np.ndarray], int]:
        """Features of some rows, and how many of their originals could not be read."""
        n_lost = self.images.n_lost
        return self.embed(self.images[rows]), self.images.n_lost - n_lost


def _confirmed(embed: Embed, images: Images, features: list[np.ndarray], n_unread: int) -> list[np.ndarray]:
    """Features that a worker computed, or those computed here if it could not read all originals.

    Raises
    ------
    SourceError
        If they can all be read here: then it is a machine without the images.
    """
    if not n_unread:
        return features
    n_lost = images.n_lost
    features = embed(images)
    if images.n_lost == n_lost:
        raise unread_by_worker(images.keys[0], f"{n_unread} of {len(images)} images from this one on")
    return features
