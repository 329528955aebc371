"""UMAP with our own exact neighbor search, and with its compiled functions cached between runs.

McInnes, L., Healy, J. and Melville, J. (2018), "UMAP: uniform manifold approximation and projection". umap-learn
compiles its functions at their first call, most of them for a neighbor search that `imatlas.neighbors` replaces.
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
"""Stated cost of the first call in a process: with nothing compiled, and with everything in the cache."""

SECONDS_PER_ROW = 0.0015
"""Stated cost of a row: 500 epochs in up to 10 dimensions."""

_compiled = False


def umap_layout(
    X: np.ndarray, *, n_neighbors: int, n_components: int, min_dist: float, seed: int, init: Any = "spectral"
) -> np.ndarray:
    """UMAP layout of rows (n_samples, n_components) float32; the same seed gives the same layout.

    Parameters
    ----------
    X : ndarray (n_samples, n_features) float32
    n_neighbors : int
        Including the row itself; less than n_samples.
    n_components : int
    min_dist : float
    seed : int
    init : {'spectral'} or ndarray (n_samples, n_components)
    """
    global _compiled
    rows = as_tensor(X)
    others, squared = k_nearest(rows, rows, n_neighbors - 1, exclude_self=torch.arange(len(rows)))
    neighbors = np.c_[np.arange(len(X)), others.numpy()]
    distances = np.c_[np.zeros(len(X), np.float32), squared.sqrt().numpy()]
    with warnings.catch_warnings():  # that a seed disables its threads, and deprecations of its dependencies
        warnings.simplefilter("ignore")
        model = _umap()(
            n_neighbors=n_neighbors,
            n_components=n_components,
            min_dist=min_dist,
            init=init,
            random_state=seed % 2**32,
            precomputed_knn=(neighbors, distances),
            n_jobs=1,
        )
        positions = np.asarray(model.fit_transform(X), dtype=np.float32)
    _compiled = True
    return positions


def umap_seconds(n_rows: int) -> float:
    """Expected duration of a layout: its stated cost times the present slowdown of the machine."""
    return (SECONDS_PER_ROW * n_rows + _fixed_seconds()) * slowdown()


def umap_rows(seconds: float) -> int:
    """Number of rows that can be laid out in `seconds` at the present slowdown of the machine."""
    return max(0, int((seconds / slowdown() - _fixed_seconds()) / SECONDS_PER_ROW))


def _fixed_seconds() -> float:
    """Fixed cost of the next call."""
    if _compiled:
        return 0.0
    spec = find_spec("umap")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else Path()
    is_cached = any((folder / "__pycache__").glob("umap_.smooth_knn_dist*.nbi"))
    return LOAD_SECONDS if is_cached else COMPILE_SECONDS


@functools.cache
def _umap() -> Any:
    """umap-learn's class, with caching enabled for the functions that compile slowest."""
    from umap import UMAP, layouts, umap_

    for module, name in (
        (umap_, "smooth_knn_dist"),
        (umap_, "compute_membership_strengths"),
        (layouts, "_nb_optimize_layout_euclidean_single_epoch"),
    ):
        with contextlib.suppress(AttributeError, RuntimeError):  # another version, or no writable folder
            getattr(module, name).enable_caching()
    return UMAP
