"""A million vectors that lie as those of real images do, and real ones held out as queries; made once and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA

from benchmarks._data import SCRATCH, eurosat, fashion_mnist, grocery_photos, noto_emoji
from imatlas import Images, PretrainedEncoder
from imatlas.neighbors import as_tensor, k_nearest

FOLDER = SCRATCH / "search"
DIM, N_QUERIES, N_CLOTHES = 256, 1000, 6000
NEIGHBORS = 10
"""A made vector lies between a real one and one of so many of its nearest."""

WHITEN = 0.5
"""As in the embedding that `learn` makes: components brought half of the way to one spread."""

HOW = (
    f"The eyes' features of {N_CLOTHES:,} clothes, 1,750 satellite pictures, 1,688 emoji and 1,053 photographs, "
    f"{DIM} principal components, half-whitened. Queries: {N_QUERIES:,} of these, held out. Each vector to search "
    f"among is a real one moved by a uniform share, 0 to 1, towards one of its {NEIGHBORS} nearest, plus noise in the "
    "directions of the set's own spread, a fifth as long as the distance of the two."
)


def million(n: int = 1_000_000) -> tuple[Path, Path]:
    """The files of the vectors (n, 256) and of the queries (1,000, 256), both float32 .npy."""
    vectors, queries = FOLDER / f"vectors-{n}.npy", FOLDER / "queries.npy"
    if vectors.exists() and queries.exists():
        return vectors, queries
    FOLDER.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    real = seen()[rng.permutation(len(seen()))]
    np.save(queries, real[:N_QUERIES])
    base = real[N_QUERIES:]
    data = as_tensor(base)
    near = k_nearest(data, data, NEIGHBORS, exclude_self=torch.arange(len(base)))[0].numpy()
    spread = base.std(axis=0) / np.linalg.norm(base.std(axis=0))
    made = np.lib.format.open_memmap(vectors.with_suffix(".part"), "w+", np.float32, (n, DIM))
    for start in range(0, n, 50_000):
        first = rng.integers(len(base), size=min(50_000, n - start))
        way = base[near[first, rng.integers(NEIGHBORS, size=len(first))]] - base[first]
        noise = rng.standard_normal(way.shape, np.float32) * spread * 0.2 * np.linalg.norm(way, axis=1, keepdims=True)
        made[start : start + len(first)] = base[first] + rng.random((len(first), 1), np.float32) * way + noise
    made.flush()
    vectors.with_suffix(".part").rename(vectors)
    return vectors, queries


def seen() -> np.ndarray:
    """What the eyes see in the real images (n, 256) float32."""
    kept = FOLDER / "seen.npy"
    if not kept.exists():
        plane = PCA(DIM, svd_solver="randomized", random_state=0)
        along = plane.fit_transform(np.concatenate(list(features().values())))
        whitened = along * (plane.explained_variance_[0] / plane.explained_variance_) ** (WHITEN / 2)
        np.save(kept, np.ascontiguousarray(whitened, dtype=np.float32))
    return np.load(kept)


def parts() -> dict[str, np.ndarray]:
    """The rows of `seen` by the set that they come from."""
    sizes = {name: len(part) for name, part in features().items()}
    cut = np.split(seen(), np.cumsum(list(sizes.values()))[:-1])
    return dict(zip(sizes, cut, strict=True))


def features() -> dict[str, np.ndarray]:
    """The last layer of the eyes for each set (n, 1280)."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    return {
        "fashion_mnist": _seen("fashion_mnist", lambda: Images(fashion_mnist("t10k")[0][:N_CLOTHES]), 96),
        "eurosat": _seen("eurosat", lambda: Images(eurosat(), progress=False), 224),
        "noto_emoji": _seen("noto_emoji", lambda: Images(noto_emoji(), progress=False), 224),
        "grocery_photos": _seen("grocery_photos", lambda: Images(grocery_photos(), progress=False), 224),
    }


def _seen(name: str, images: Callable[[], Images], side: int) -> np.ndarray:
    """The eyes' last layer for one set, kept: (n, 1280)."""
    kept = FOLDER / f"seen-{name}.npy"
    if not kept.exists():
        np.save(kept, PretrainedEncoder(image_size=side).fit_transform(images()))
    return np.load(kept)
