"""Embedding many images part by part: in this process, or in shards on the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from imatlas.images.dataset import Images
from imatlas.images.intake import unread_by_worker, with_networks
from imatlas.system.workers import Parts

AT_ONCE = 1024
"""Images whose raw features are in memory; then they are projected, written to the cache, and progress is told."""

SHARD = 64
"""Images that a worker of a cluster embeds at a time."""

OF_THREAD = (16, 256)
"""Smallest and largest number of images that a thread here embeds at a time."""

Embed = Callable[[Images], list[np.ndarray]]
"""Images -> their features, one array (n_images, n_features) per encoder. Can be pickled."""


def by_part(
    embed: Embed, images: Images, *, image_size: int, in_threads: bool
) -> Iterator[tuple[list[np.ndarray], int]]:
    """`embed` of `AT_ONCE` images after the other, and how many of their originals could not be read.

    If the images have workers (`Images.cluster_workers`), these decode the originals at `image_size`, in pixels, and
    embed them; but images that need no decoding (arrays, or pixels that were cached at that size) are embedded here.
    Here, with `in_threads`, each of several threads has its share of torch's threads and images of its own: layers
    are too small for several threads to compute one together much faster.

    Raises
    ------
    SourceError
        If a worker cannot read originals that can be read here.
    """
    workers = images.cluster_workers
    are_decoded = len(images) > 0 and images.spec.shape[:2] != (image_size, image_size)
    sent = images.for_workers() if workers is not None and are_decoded else None
    n_threads = torch.get_num_threads() if in_threads else 1
    size = SHARD
    if sent is None:
        size = AT_ONCE if n_threads == 1 else int(np.clip(len(images) // (4 * n_threads), *OF_THREAD))
    shards_of = [list(parts_of(rows, size)) for rows in parts_of(np.arange(len(images)))]
    shards = [rows for part in shards_of for rows in part]
    if workers is not None and sent is not None:
        results = workers.map(_ShardEmbedding(embed, sent), shards)
        computed: Iterator[Any] = (_confirmed(embed, images[s], *r) for s, r in zip(shards, results, strict=True))
    else:
        computed = with_networks(_ShardEmbedding(embed, images), shards, min(n_threads, len(shards)))
    for part in shards_of:
        features, n_lost = zip(*islice(computed, len(part)), strict=True)
        yield [np.concatenate(of_one) for of_one in zip(*features, strict=True)], sum(n_lost)


def of_pixels(model: Any, images: Images) -> np.ndarray:
    """Features (n_images, n_features) by a model that sees images as they are in the pixel cache; by workers, which are
    sent the pixels, if the images have some."""
    workers, spec = images.cluster_workers, model.spec_
    as_fitted = (images.spec.shape, images.spec.dtype) == (spec.shape, spec.dtype) and not images.has_gaps
    if workers is None or not len(images) or not as_fitted:
        return np.asarray(model.transform(images))
    parts = Parts(images.pixel_rows.__getitem__, len(images), AT_ONCE)
    return np.concatenate(list(workers.map(model.transform, parts)))


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


def _confirmed(embed: Embed, images: Images, features: list[np.ndarray], n_unread: int) -> tuple[list[np.ndarray], int]:
    """What a worker computed, or the same computed here if it could not read all originals.

    Raises
    ------
    SourceError
        If they can all be read here: then it is a machine without the images.
    """
    if not n_unread:
        return features, 0
    n_lost = images.n_lost
    features = embed(images)
    if images.n_lost == n_lost:
        raise unread_by_worker(images.keys[0], f"{n_unread} of {len(images)} images from this one on")
    return features, n_unread
