"""Clustering of small sets: `python -m benchmarks small_sets [--sets eurosat]`.

From each of four labeled sets, 8 draws of 100 to 300 images of some of its classes are clustered as by `imatlas learn
--clusters k`, with the functions of its stages: features and clusters are fitted to the training images, and held-out
images are assigned to them. Baseline: k-means on the last layer of the same network. Labels are used for drawing and
scoring only.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np
from sklearn.cluster import KMeans

from benchmarks._data import FOLDERS, SETS, fashion_mnist, folder_labels
from benchmarks._table import save_table, saved_table
from imatlas import Images, PretrainedEncoder
from imatlas.atlas.learn_encoder import CHOOSING
from imatlas.atlas.stages import HELD_OUT, held_out_rows
from imatlas.atlas.time_budget import default_budget
from imatlas.metrics.clustering import accuracy
from imatlas.models.image_clusterer import propose_n_clusters
from imatlas.tasks.choose_encoder import encoder_for
from imatlas.tasks.cluster import cluster
from imatlas.tasks.duplicates.by_hash import duplicate_of

DRAWS = 8
"""Draws per set."""

MIN_PER_CLASS = 5
"""Fewest images of a class in a draw."""

KMEANS_SEEDS = 3

COLUMNS = (
    "set",
    "draws",
    "images",
    "classes",
    "k-means on the last layer",
    "k-means on the features of learn",
    "learn --clusters k",
    "gain over the last layer: mean; min; max",
    "estimated clusters / classes: min, median, max",
)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks small_sets")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--draws", type=int, default=DRAWS, help="draws per set")
    options = parser.parse_args(argv)
    warnings.filterwarnings("ignore", category=FutureWarning)
    title = "Clustering of small sets: draws of 100 to 300 images"
    new: dict[str, list[Any]] = {}
    for name in options.sets:
        images, labels = load_set(name)
        found = [one_draw(images, labels, i) for i in range(options.draws)]
        new[SETS[name]] = row_of(SETS[name], found)
        saved = {row[0]: row for row in saved_table("small_sets", title)["rows"]}
        rows = [new.get(set_name, saved.get(set_name)) for set_name in SETS.values()]
        rows = [row for row in rows if row]
        save_table("small_sets", title, COLUMNS, [*rows, mean_of(rows)], NOTES)


def load_set(name: str) -> tuple[Images, np.ndarray]:
    """The images of a set, and the class (n,) of each."""
    if name == "fashion_mnist":
        pixels, labels = fashion_mnist("t10k")
        return Images(pixels), labels.astype(np.int64)
    images = Images(FOLDERS[name](), progress=False)
    return images, np.unique(folder_labels(images.keys), return_inverse=True)[1]


def draw_rows(labels: np.ndarray, seed: int) -> np.ndarray:
    """Rows of 100 to 300 images of 5 to 12 classes, or of one class per 12 images; unbalanced in half of the draws."""
    rng = np.random.default_rng(seed)
    n, most = int(rng.integers(100, 301)), int(labels.max()) + 1
    few = rng.random() < 0.7
    k = int(rng.integers(5, min(most, 12) + 1)) if few else min(most, n // 12)
    shares = np.full(k, 1 / k) if rng.random() < 0.5 else rng.dirichlet(np.full(k, 3.0))
    rows: list[int] = []
    for kind, share in zip(rng.permutation(most)[:k], shares, strict=True):
        rows += rng.permutation(np.flatnonzero(labels == kind))[: max(MIN_PER_CLASS, round(share * n))].tolist()
    return np.sort(np.array(rows))


def one_draw(images: Images, labels: np.ndarray, seed: int) -> dict[str, Any]:
    """The scores of one draw of a set."""
    rows = draw_rows(labels, seed)
    part, y = images[rows], labels[rows]
    k = len(np.unique(y))
    last_layer = PretrainedEncoder(normalize=False).fit_transform(part)
    baseline = [accuracy(y, labels) for labels in _kmeans(last_layer, k)]
    embedding, found, n_estimated = cluster_as_learn(part, k)
    scores = {
        "images": len(part),
        "classes": k,
        "baseline": float(np.mean(baseline)),
        "features": float(np.mean([accuracy(y, labels) for labels in _kmeans(embedding, k)])),
        "learn": accuracy(y, found),
        "share": n_estimated / k,
    }
    print(scores, flush=True)
    return scores


def cluster_as_learn(images: Images, k: int) -> tuple[np.ndarray, np.ndarray, int]:
    """As in `learn`: the embedding and the cluster of each image, and the estimated number of clusters."""
    held_out = held_out_rows(images.records["sha256"].tolist(), duplicate_of(images), HELD_OUT, 0)
    seconds = CHOOSING * default_budget(len(images))
    encoder = encoder_for(images[np.flatnonzero(~held_out)], n_all=len(images), seconds=seconds).encoder
    learned = encoder.fit_transform(images[np.flatnonzero(~held_out)])
    embedding = np.empty((len(images), learned.shape[1]), np.float32)
    embedding[~held_out] = learned
    embedding[held_out] = encoder.transform(images[np.flatnonzero(held_out)])
    found = cluster(learned, n_clusters=k).model.predict(embedding)
    return embedding, found, propose_n_clusters(learned).n_clusters


def _kmeans(X: np.ndarray, k: int) -> list[np.ndarray]:
    """Labels (n,) by scikit-learn for each seed."""
    return [KMeans(k, n_init=10, random_state=seed).fit_predict(X) for seed in range(KMEANS_SEEDS)]


def row_of(name: str, found: list[dict[str, Any]]) -> list[Any]:
    """The table row of a set."""
    by = {key: np.array([draw[key] for draw in found]) for key in found[0]}
    gains = by["learn"] - by["baseline"]
    low, middle, high = np.percentile(by["share"], (0, 50, 100))
    return [
        name,
        len(found),
        f"{by['images'].min()} to {by['images'].max()}",
        f"{by['classes'].min()} to {by['classes'].max()}",
        round(float(by["baseline"].mean()), 3),
        round(float(by["features"].mean()), 3),
        round(float(by["learn"].mean()), 3),
        f"{gains.mean():+.3f}; {gains.min():+.3f}; {gains.max():+.3f}",
        f"{low:.2f}, {middle:.2f}, {high:.2f}",
    ]


def mean_of(rows: list[list[Any]]) -> list[Any]:
    """The table row of all draws together."""
    n = np.array([row[1] for row in rows])
    baseline, features, learned = (float(np.average([row[i] for row in rows], weights=n)) for i in (4, 5, 6))
    means = [round(mean, 3) for mean in (baseline, features, learned)]
    return ["all", int(n.sum()), "", "", *means, f"{learned - baseline:+.3f}", ""]


NOTES = (
    f"Draws with seeds 0 to {DRAWS - 1}: 100 to 300 images of 5 to 12 classes (in 3 of 10 draws of one class per 12 "
    "images), drawn at random; half of the draws are unbalanced (Dirichlet 3), with at least "
    f"{MIN_PER_CLASS} images per class. Accuracy of all images of a draw under the best one-to-one match of clusters "
    "to classes, the number of classes given. Labels are used for drawing and scoring only.",
    "k-means on the last layer: EfficientNet-Lite0 (trained with ImageNet labels), center crop at 224 px, global "
    f"average pooling, 1,280 features; scikit-learn, 10 starts, mean of {KMEANS_SEEDS} seeds.",
    "learn --clusters k: its encoder and cluster stages with the default budget, seed 0; a tenth of the images is held "
    "out from both and assigned to the clusters. Sets this small get the preset objects+texture without a comparison.",
)
