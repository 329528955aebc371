"""Words for the images of an atlas; what they are computed from is kept in its cache, by content."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from imatlas.atlas.store import Store
from imatlas.errors import InputError, MissingExtraError
from imatlas.images.intake import with_progress
from imatlas.images.thumbnails import square_view
from imatlas.models.parts.feature_cache import FeatureCache
from imatlas.models.pretrained import SIDE, PretrainedEncoder
from imatlas.nn.backbones import N_FEATURES
from imatlas.system.atomic_io import is_link
from imatlas.tasks.words import Words, names, words_of

CACHED = "words"
"""Name of the features in the cache; a change of `_pixels` gets a new one."""
STEP, SAVED = 32, 256
"""Images that are looked at at once, and after which the cache is written."""
MOST_ASKED, LEAST_ASKED = 300, 3
"""Images of all clusters together from which words are proposed in passing, some 10 ms each; and at least of each."""


def words(
    store: Store,
    rows: np.ndarray | None = None,
    *,
    progress: bool = False,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> Words:
    """Words for some images, or for all.

    Parameters
    ----------
    store : Store
    rows : ndarray (n_images,) of int, optional
    progress : bool
        Show a progress bar.
    tell : callable
        Hears how many images that are not in the cache are done, and of how many.

    Raises
    ------
    InputError
        If the atlas was learned without a network that people's names have trained.
    """
    if not store.model("encoder").pretrained:
        raise InputError(
            "This atlas has an encoder of its own, which knows no words; for words, learn it with --encoder pretrained."
        )
    rows = np.arange(len(store)) if rows is None else rows
    contents = [store.contents[row] for row in rows]
    features = np.full((len(rows), N_FEATURES), np.nan, np.float32)
    folder = store.folder / "cache"
    cache = None if is_link(folder) else FeatureCache(folder / "words")
    missing = np.arange(len(rows)) if cache is None else np.flatnonzero(~cache.find(CACHED, contents, features))
    encoder, saved = None, 0
    for start in with_progress(range(0, len(missing), STEP), "Finding words", progress):
        tell(start, len(missing))
        part = missing[start : start + STEP]
        pixels = _pixels(store, rows[part])
        encoder = encoder or PretrainedEncoder(normalize=False).fit(pixels)
        features[part] = encoder.transform(pixels)
        done = start + len(part)
        if cache is not None and (done - saved >= SAVED or done == len(missing)):
            new, saved = missing[saved:done], done
            cache.add(CACHED, [contents[i] for i in new], features[new])
    return words_of(features)


def words_of_clusters(
    store: Store, labels: np.ndarray, n_clusters: int
) -> tuple[list[list[tuple[str, float]]], int] | None:
    """Words that stand out in each cluster, with their mean probability there, and from how many images they come.

    Of large sets only some images of each cluster are looked at, evenly spaced in their order.

    Parameters
    ----------
    store : Store
    labels : ndarray (n_images,) of int
    n_clusters : int

    Returns
    -------
    words : list of lists of (word, probability)
    n_images : int
        None instead of both if the encoder knows no words, or their names are not installed.
    """
    if not store.model("encoder").pretrained:
        return None
    try:
        names()
    except MissingExtraError:
        return None
    present = np.unique(labels)
    each = max(LEAST_ASKED, MOST_ASKED // len(present))
    members = [np.flatnonzero(labels == label) for label in present]
    some = [m if len(m) <= each else m[np.linspace(0, len(m) - 1, each).astype(int)] for m in members]
    rows = np.sort(np.concatenate(some))
    return words(store, rows).of_clusters(labels[rows], n_clusters), len(rows)


def _pixels(store: Store, rows: np.ndarray) -> np.ndarray:
    """Images as RGB (n, 224, 224, 3): of the originals, where these still exist and have 8 bits."""
    if store.spec.dtype == "uint8":
        return store.large_pixels(rows, SIDE)
    return np.stack([square_view(data, SIDE, "crop") for data in store.thumbnails(rows)])
