"""A million synthetic vectors distributed like those of real images, with real ones as queries; generated once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA

from benchmarks._data import FOLDERS, SCRATCH, SETS, fashion_mnist, folder_labels
from imatlas import Images, PretrainedEncoder
from imatlas.images.sources.opening import open_source
from imatlas.neighbors import as_tensor, k_nearest

FOLDER = SCRATCH / "search"
N_DIMENSIONS, N_QUERIES, N_FASHION = 256, 1000, 6000
N_NEIGHBORS = 10
"""A synthetic vector lies between a real one and one of its nearest."""

WHITEN = 0.5
"""Half-whitening, as in the embedding of `learn`."""

HOW = (
    f"Features of the pretrained encoder of {N_FASHION:,} Fashion-MNIST, 1,750 EuroSAT, 1,688 Noto Emoji and 1,053 "
    f"Grocery photos images, {N_DIMENSIONS} principal components, half-whitened. Queries: {N_QUERIES:,} of these, held "
    "out. Each vector of the index is a real one moved by a uniform fraction, 0 to 1, towards one of its "
    f"{N_NEIGHBORS} nearest, plus Gaussian noise scaled to the set's standard deviation per dimension, a fifth as long "
    "as their distance."
)

ORDER = ("fashion_mnist", "eurosat", "noto_emoji", "grocery_photos")


def made_vectors(n: int = 1_000_000) -> tuple[Path, Path]:
    """Files of the vectors (n, 256) and of the queries (1,000, 256), both float32 .npy."""
    vectors, queries = FOLDER / f"vectors-{n}.npy", FOLDER / "queries.npy"
    if vectors.exists() and queries.exists():
        return vectors, queries
    FOLDER.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    real = embedding()
    real = real[rng.permutation(len(real))]
    np.save(queries, real[:N_QUERIES])
    base = real[N_QUERIES:]
    data = as_tensor(base)
    near = k_nearest(data, data, N_NEIGHBORS, exclude_self=torch.arange(len(base)))[0].numpy()
    spread = base.std(axis=0) / np.linalg.norm(base.std(axis=0))
    made = np.lib.format.open_memmap(vectors.with_suffix(".part"), "w+", np.float32, (n, N_DIMENSIONS))
    for start in range(0, n, 50_000):
        first = rng.integers(len(base), size=min(50_000, n - start))
        step = base[near[first, rng.integers(N_NEIGHBORS, size=len(first))]] - base[first]
        noise = rng.standard_normal(step.shape, np.float32) * spread * 0.2 * np.linalg.norm(step, axis=1, keepdims=True)
        made[start : start + len(first)] = base[first] + rng.random((len(first), 1), np.float32) * step + noise
    made.flush()
    vectors.with_suffix(".part").rename(vectors)
    return vectors, queries


def embedding() -> np.ndarray:
    """Half-whitened principal components (n, 256) float32 of the features of all sets, cached."""
    path = FOLDER / "embedding.npy"
    if not path.exists():
        pca = PCA(N_DIMENSIONS, svd_solver="randomized", random_state=0)
        projected = pca.fit_transform(np.concatenate([features(name) for name in ORDER]))
        whitened = projected * (pca.explained_variance_[0] / pca.explained_variance_) ** (WHITEN / 2)
        np.save(path, np.ascontiguousarray(whitened, dtype=np.float32))
    return np.load(path)


def features(name: str) -> np.ndarray:
    """Last-layer features (n, 1280) of the pretrained encoder for one set, cached."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"features-{name}.npy"
    if not path.exists():
        fashion = name == "fashion_mnist"
        images = Images(fashion_mnist("t10k")[0][:N_FASHION] if fashion else FOLDERS[name](), progress=False)
        np.save(path, PretrainedEncoder(image_size=96 if fashion else 224).fit_transform(images))
    return np.load(path)


def labeled_embedding() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows (n, 256) of `embedding` and the class of each, by the name of the set."""
    ends = np.cumsum([len(features(name)) for name in ORDER])
    labels = {"fashion_mnist": fashion_mnist("t10k")[1][:N_FASHION]}
    for name, folder in FOLDERS.items():
        keys = open_source(str(folder())).keys
        labels[name] = folder_labels(key for key in keys if key.lower().endswith((".jpg", ".jpeg", ".png")))
    parts = np.split(embedding(), ends[:-1])
    return {SETS[name]: (part, labels[name]) for name, part in zip(ORDER, parts, strict=True)}
