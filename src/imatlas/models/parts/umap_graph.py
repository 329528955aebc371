"""UMAP as its parts are used here: exact neighbors found by our own search, what it compiles kept for the next time.

McInnes, L., Healy, J. and Melville, J. (2018), "UMAP: uniform manifold approximation and projection". umap-learn
compiles its functions when they are first called, which took 15 s on one core, most of them for a search of neighbors
that `imatlas.neighbors` does too. Without it 7 s are left, and 1 s where a run before has put them in numba's cache.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imatlas.neighbors import as_tensor, k_nearest
from imatlas.system.threads import slowdown

COMPILE_SECONDS, LOAD_SECONDS = 9.0, 3.5
"""What the first call in a process is taken to cost: with nothing compiled before, and with all of it in the cache."""

SECONDS_A_ROW = 0.0015
"""What each row is taken to cost: 500 epochs of its neighbors, in up to 10 dimensions."""

_compiled = False


def umap_layout(
    X: np.ndarray, *, n_neighbors: int, n_components: int, min_dist: float, seed: int, init: Any = "spectral"
) -> np.ndarray:
    """Rows laid out so that neighbors stay together (n_samples, n_components) float32; one seed, one layout.

    Parameters
    ----------
    X : ndarray (n_samples, n_features) float32
    n_neighbors : int
        With the row itself; less than n_samples.
    n_components : int
    min_dist : float
    seed : int
    init : {'spectral'} or ndarray (n_samples, n_components)
    """
    global _compiled
    rows = as_tensor(X)
    others, squared = k_nearest(rows, rows, n_neighbors - 1, exclude_self=torch.arange(len(rows)))
    near = np.c_[np.arange(len(X)), others.numpy()]
    apart = np.c_[np.zeros(len(X), np.float32), squared.sqrt().numpy()]
    with warnings.catch_warnings():  # it tells that a seed costs it its threads, and what its parts deprecate
        warnings.simplefilter("ignore")
        model = _umap()(
            n_neighbors=n_neighbors,
            n_components=n_components,
            min_dist=min_dist,
            init=init,
            random_state=seed % 2**32,
            precomputed_knn=(near, apart),
            n_jobs=1,
        )
        places = np.asarray(model.fit_transform(X), dtype=np.float32)
    _compiled = True
    return places


def umap_seconds(n_rows: int) -> float:
    """What a layout of so many rows is taken to cost now: a stated cost, and how busy the machine is."""
    return (SECONDS_A_ROW * n_rows + _once()) * slowdown()


def umap_rows(seconds: float) -> int:
    """How many rows are taken to be laid out in so much time now."""
    return max(0, int((seconds / slowdown() - _once()) / SECONDS_A_ROW))


def _once() -> float:
    """What the next call costs before it looks at a row."""
    if _compiled:
        return 0.0
    spec = find_spec("umap")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else Path()
    kept = any((folder / "__pycache__").glob("umap_.smooth_knn_dist*.nbi"))
    return LOAD_SECONDS if kept else COMPILE_SECONDS


@functools.cache
def _umap() -> Any:
    """umap-learn's class, once its slowest parts are told to keep what they compile, as pynndescent's do."""
    from umap import UMAP, layouts, umap_

    for module, name in (
        (umap_, "smooth_knn_dist"),
        (umap_, "compute_membership_strengths"),
        (layouts, "_nb_optimize_layout_euclidean_single_epoch"),
    ):
        with contextlib.suppress(AttributeError, RuntimeError):  # another version of it, or no folder to write to
            getattr(module, name).enable_caching()
    return UMAP
