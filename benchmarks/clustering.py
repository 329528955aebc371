"""Clustering of labeled sets, labels used for scoring only: `python -m benchmarks clustering [--sets eurosat]`.

Features: pixels, networks trained on the set itself, and the pretrained encoder with the preset chosen without labels.
All methods get the same features.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier

from benchmarks._data import FOLDERS, SETS
from benchmarks._embeddings import CLASSES, FOLDER, code_key, embeddings, load_set
from benchmarks._table import mean_std, save_table, saved_table
from imatlas import Autoencoder, Images, SelfSupervisedEncoder
from imatlas.metrics.clustering import clustering_scores
from imatlas.models.image_clusterer import ImageClusterer

DEFAULT = "SimCLR"
"""Trained once per seed; the other networks once."""

NETWORKS = {
    DEFAULT: SelfSupervisedEncoder(method="simclr"),
    "VICReg": SelfSupervisedEncoder(method="vicreg"),
    "autoencoder": Autoencoder(latent_dim=32),
}
TRAINING_SECONDS = {"fashion_mnist": 400, "eurosat": 60, "grocery_photos": 60}
NETWORK_CODE = ("models/self_supervised.py", "models/autoencoder.py", "nn", "training")

LAYOUTS: dict[tuple[int, int], tuple[np.ndarray, float]] = {}
"""UMAP layouts of the current features by number of rows and seed, with the seconds that they took."""

LARGE = 20_000
"""Number of images above which UMAP runs for one seed only, and HDBSCAN on a sample."""

Group = Callable[[np.ndarray, int, int], np.ndarray]
"""Rows, number of groups, seed -> labels."""

Featured = tuple[str, list[np.ndarray], Sequence[str]]
"""Name of the features, the features for each seed, and the methods applied to them."""

COLUMNS = ("features", "method", "k", "accuracy", "NMI", "seconds", "seeds")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks clustering")
    parser.add_argument("--sets", nargs="+", choices=list(CLASSES), default=list(CLASSES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(FEATURES), default=list(FEATURES), help="features to group")
    options = parser.parse_args(argv)
    warnings.filterwarnings("ignore", module="umap")
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in options.sets:
        cluster_set(name, options.only, options.seeds)


def cluster_set(name: str, only: list[str], n_seeds: int) -> None:
    """Save the table of one set; the rows of other features than `only` are kept from the saved table."""
    images, labels = load_set(name)
    title = f"Clustering of {SETS[name]}: {len(images):,} images, {CLASSES[name]} classes"
    saved = saved_table(f"clustering_{name}", title)
    rows: list[list[Any]] = []
    notes: list[str] = []
    for kind, compute in FEATURES.items():
        if kind not in only:
            rows += [row for row in saved["rows"] if row[0].startswith(kind)]
            notes += [note for note in saved["notes"] if note.startswith(f"{kind}: ")]
            continue
        for features, per_seed, methods in compute(name, images, n_seeds, notes):
            for method in methods:
                group, k_given = METHODS[method]
                rows.append([features, method, *_row(group, per_seed, labels, CLASSES[name], k_given)])
                print(rows[-1], flush=True)
            LAYOUTS.clear()
    save_table(f"clustering_{name}", title, COLUMNS, rows, [*notes, *NOTES])


def from_pixels(name: str, images: Images, n_seeds: int, notes: list[str]) -> list[Featured]:
    """Pixels, and their principal components."""
    pixels = np.asarray(images.pixels, np.float32).reshape(len(images), -1) / 255
    projected = PCA(64, svd_solver="randomized", random_state=0).fit_transform(pixels)
    return [("pixels", [pixels] * n_seeds, ["k-means"]), ("pixels, PCA 64", [projected] * n_seeds, [*PEERS, *OURS])]


def from_own_networks(name: str, images: Images, n_seeds: int, notes: list[str]) -> list[Featured]:
    """Features of networks trained on the set itself."""
    return [
        (
            f"own network, {network}",
            _trained(name, images, model, n_seeds if network == DEFAULT else 1, notes),
            ["k-means", "UMAP + mixture", *OURS],
        )
        for network, model in NETWORKS.items()
    ]


def from_pretrained(name: str, images: Images, n_seeds: int, notes: list[str]) -> list[Featured]:
    """Features of the pretrained encoder: its last layer, and the chosen preset."""
    found = embeddings(name, images)
    notes.append(f"pretrained: {found.why}")
    return [
        ("pretrained, last layer", [found.last_layer] * n_seeds, ["k-means", "UMAP + k-means"]),
        (f"pretrained, {found.preset}", [found.chosen] * n_seeds, [*PEERS, *OURS]),
    ]


def _trained(name: str, images: Images, model: Any, n_seeds: int, notes: list[str]) -> list[np.ndarray]:
    """Features of a network trained on the set, for each seed; cached by its parameters and code."""
    seconds = TRAINING_SECONDS[name]
    pixels: Any = images.pixels if name == "fashion_mnist" else Images(FOLDERS[name](), image_size=64, progress=False)
    features, steps = [], []
    for seed in range(n_seeds):
        model = clone(model).set_params(random_state=seed, budget=seconds, progress=False)
        path = FOLDER / f"{name}-{type(model).__name__}-{code_key(NETWORK_CODE, repr(model))}.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            new = model.fit(pixels).transform(pixels)
            np.savez(path, features=new, steps=model.n_steps_, threads=torch.get_num_threads())
        with np.load(path) as saved:
            features.append(saved["features"])
            steps.append(f"{int(saved['steps']):,}")
            n_threads = int(saved["threads"])
    method = " ".join([type(model).__name__, *filter(None, [getattr(model, "method", "")])])
    notes.append(
        f"own network: {method}, {seconds} s of training per seed on {n_threads} thread(s), {features[0].shape[1]} "
        f"features; {', '.join(steps)} steps."
    )
    return features


def _row(group: Group, per_seed: list[np.ndarray], labels: np.ndarray, k: int, k_given: bool) -> list[Any]:
    seeds = range(1 if len(labels) > LARGE and group in ON_LAYOUT else len(per_seed))
    accuracy, nmi, seconds, numbers = [], [], [], set()
    for seed in seeds:
        X = per_seed[seed]
        n_rows = min(len(X), LARGE) if group is _umap_hdbscan else len(X)
        layout_seconds = LAYOUTS[n_rows, seed][1] if group in ON_LAYOUT and (n_rows, seed) in LAYOUTS else 0.0
        began = time.perf_counter()
        found = group(X, k, seed)
        seconds.append(time.perf_counter() - began + layout_seconds)
        scores = clustering_scores(labels, found)
        accuracy.append(scores["accuracy"])
        nmi.append(scores["nmi"])
        numbers.add(len(np.unique(found[found >= 0])))
    estimated = " to ".join(str(n) for n in sorted({min(numbers), max(numbers)}))
    k_text = "given" if k_given else f"estimated: {estimated}"
    return [k_text, mean_std(accuracy), mean_std(nmi), f"{np.mean(seconds):.1f}", len(seeds)]


def _clusterer(X: np.ndarray, k: int | None, seed: int) -> np.ndarray:
    return ImageClusterer(n_clusters=k, random_state=seed).fit(X).labels_


def _kmeans(X: np.ndarray, k: int, seed: int) -> np.ndarray:
    return KMeans(k, n_init=10, random_state=seed).fit_predict(X)


def _layout(X: np.ndarray, seed: int) -> np.ndarray:
    from umap import UMAP

    if (len(X), seed) not in LAYOUTS:
        model = UMAP(n_neighbors=10, n_components=10, min_dist=0.0, random_state=seed, n_jobs=1)
        began = time.perf_counter()
        LAYOUTS[len(X), seed] = model.fit_transform(X), time.perf_counter() - began
    return LAYOUTS[len(X), seed][0]


def _umap_kmeans(X: np.ndarray, k: int, seed: int) -> np.ndarray:
    return _kmeans(_layout(X, seed), k, seed)


def _umap_mixture(X: np.ndarray, k: int, seed: int) -> np.ndarray:
    return GaussianMixture(k, covariance_type="tied", n_init=3, random_state=seed).fit_predict(_layout(X, seed))


def _umap_hdbscan(X: np.ndarray, k: int, seed: int) -> np.ndarray:
    rows = np.sort(np.random.default_rng(seed).permutation(len(X))[:LARGE])
    found = HDBSCAN(min_cluster_size=max(10, len(rows) // 200), copy=True).fit_predict(_layout(X[rows], seed))
    if len(rows) == len(X):
        return found
    return KNeighborsClassifier(1).fit(X[rows], found).predict(X)


METHODS: dict[str, tuple[Group, bool]] = {
    "k-means": (_kmeans, True),
    "UMAP + k-means": (_umap_kmeans, True),
    "UMAP + mixture": (_umap_mixture, True),
    "UMAP + HDBSCAN": (_umap_hdbscan, False),
    "imatlas ImageClusterer": (_clusterer, True),
    "imatlas ImageClusterer, k estimated": (lambda X, k, seed: _clusterer(X, None, seed), False),
}
"""How to group, and whether the number of groups is given."""

PEERS, OURS = list(METHODS)[:4], list(METHODS)[4:]
ON_LAYOUT = (_umap_kmeans, _umap_mixture, _umap_hdbscan)
FEATURES = {"pixels": from_pixels, "own network": from_own_networks, "pretrained": from_pretrained}

NOTES = (
    "Accuracy under the best one-to-one match of clusters to classes; NMI with the arithmetic mean. Mean ± standard "
    "deviation over seeds of the clustering; all methods get the same features. Labels are used for scoring only.",
    "Pretrained encoder: EfficientNet-Lite0, trained with ImageNet labels, at 224 px, Fashion-MNIST at 96 px; presets "
    "give 128 principal components, half-whitened.",
    "Own networks: trained on the images of the set alone; Grocery photos at 64 px. An autoencoder with UMAP and a "
    "mixture is the method of N2D (McConville et al. 2021).",
    "k-means: scikit-learn, 10 starts. UMAP: 10 neighbors, 10 dimensions. HDBSCAN's noise (-1) counts as one cluster; "
    f"above {LARGE:,} images it runs on a sample and the others follow their nearest neighbor. Accuracies with "
    "different numbers of clusters are hard to compare.",
)
