"""What is in here: `python -m benchmarks explore clusters|labels [--sets clothes satellite photos]`.

`clusters`: groups of three sets whose labels only score: 70,000 pictures of clothes, 1,750 of satellites, 1,053
photographs from shops. From pixels, from what networks learn from these images alone, and from pretrained eyes that are
chosen by a score without labels; rivals get the same features. `labels`: a few labels, stretched over all.
"""

from __future__ import annotations

import argparse
import hashlib
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier
from sklearn.semi_supervised import LabelSpreading

from benchmarks._data import SCRATCH, eurosat, fashion_mnist, grocery_photos
from benchmarks._table import save_table, saved_table
from imatlas import Autoencoder, Images, PretrainedEncoder, SelfSupervisedEncoder
from imatlas.metrics.clustering import clustering_scores
from imatlas.models.few_labels import FewLabelsClassifier
from imatlas.models.image_clusterer import ImageClusterer
from imatlas.tasks.choose_encoder import choose_encoder

N_GROUPS = {"fashion_mnist": 10, "eurosat": 10, "grocery_photos": 43}
EYES_SIZE = {"fashion_mnist": 96, "eurosat": 224, "grocery_photos": 224}
"""Side in pixels at which the eyes see: pictures of 28 px need no more."""

DEFAULT = "SimCLR"
"""The default: a network for each seed; of the others one."""

LEARNERS = {
    DEFAULT: SelfSupervisedEncoder(method="simclr"),
    "VICReg": SelfSupervisedEncoder(method="vicreg"),
    "autoencoder": Autoencoder(latent_dim=32),
}
LEARNING_SECONDS = {"fashion_mnist": 400, "eurosat": 60, "grocery_photos": 60}
"""Training of each, on however many threads there are."""

LAID_OUT: dict[tuple[int, int], tuple[np.ndarray, float]] = {}
"""Layouts of the present features, by number of rows and seed, and the seconds that they took."""

LARGE = 20_000
"""Images above which the layouts of rivals are drawn for one seed only, and HDBSCAN sees a sample."""

SOURCES = {"eurosat": eurosat, "grocery_photos": grocery_photos}
SOURCE = Path(__file__).parents[1] / "src" / "imatlas"

Group = Callable[[np.ndarray, int, int], np.ndarray]
"""Rows, number of groups, seed -> labels."""

Featured = tuple[str, list[np.ndarray], Sequence[str]]
"""Features by name, an embedding for each seed, and the methods that group them."""

COLUMNS = ("features", "method", "k", "accuracy", "NMI", "s to group", "seeds")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks explore")
    parser.add_argument("part", choices=["clusters", "labels"])
    parser.add_argument("--sets", nargs="+", choices=list(N_GROUPS), default=list(N_GROUPS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(FEATURES), default=list(FEATURES), help="features to group")
    options = parser.parse_args(argv)
    warnings.filterwarnings("ignore", module="umap")
    warnings.filterwarnings("ignore", category=FutureWarning)
    if options.part == "labels":
        few_labels(options.sets, options.seeds)
        return
    for name in options.sets:
        clusters(name, options.only, options.seeds)


def clusters(name: str, only: list[str], n_seeds: int) -> None:
    """The table of one set; of the features that are not asked for the rows stay as an earlier run left them."""
    images, labels = opened(name)
    title = f"Groups without labels: {len(images):,} {name}, {N_GROUPS[name]} classes"
    before = saved_table(f"clustering_{name}", title)
    rows: list[list[Any]] = []
    notes: list[str] = []
    for kind, look in FEATURES.items():
        if kind not in only:
            rows += [row for row in before["rows"] if row[0].startswith(kind)]
            notes += [note for note in before["notes"] if note.startswith(f"{name}, {kind}: ")]
            continue
        for features, embeddings, methods in look(name, images, n_seeds, notes):
            for method in methods:
                group, known = METHODS[method]
                rows.append([features, method, *_row(group, embeddings, labels, N_GROUPS[name], known)])
                print(rows[-1], flush=True)
            LAID_OUT.clear()
    save_table(f"clustering_{name}", title, COLUMNS, rows, [*notes, *NOTES])


def opened(name: str) -> tuple[Images, np.ndarray]:
    """The images of a set, and the label of each."""
    if name == "fashion_mnist":
        parts = [fashion_mnist(part) for part in ("train", "t10k")]
        return Images(np.concatenate([pixels for pixels, _ in parts])), np.concatenate([labels for _, labels in parts])
    images = Images(SOURCES[name](), progress=False)
    return images, np.array([Path(key).parts[-2] for key in images.keys])


def from_pixels(name: str, images: Images, n_seeds: int, notes: list[str]) -> list[Featured]:
    """Pixels, and their principal components."""
    pixels = np.asarray(images.pixels, np.float32).reshape(len(images), -1) / 255
    plane = PCA(64, svd_solver="randomized", random_state=0).fit_transform(pixels)
    return [("pixels", [pixels] * n_seeds, ["k-means"]), ("pixels, PCA 64", [plane] * n_seeds, [*RIVALS, *OURS])]


def learned_here(name: str, images: Images, n_seeds: int, notes: list[str]) -> list[Featured]:
    """What networks learn from these images alone."""
    return [
        (
            f"learned here: {told}",
            learned(name, images, model, n_seeds if told == DEFAULT else 1, notes),
            [*ALONE, *OURS],
        )
        for told, model in LEARNERS.items()
    ]


def by_eyes(name: str, images: Images, n_seeds: int, notes: list[str]) -> list[Featured]:
    """What pretrained eyes see."""
    eyes, seen, last, why = seen_by_eyes(name, images)
    notes.append(why.replace(f"{name}: ", f"{name}, eyes: ", 1))
    return [
        ("eyes, last layer", [last] * n_seeds, ["k-means", "UMAP + k-means"]),
        (f"eyes for {eyes}", [seen] * n_seeds, [*RIVALS, *OURS]),
    ]


def learned(name: str, images: Images, model: Any, n_seeds: int, notes: list[str]) -> list[np.ndarray]:
    """What a network that learns from these images alone makes of them, for each seed.

    Kept under benchmarks/.data/explore by the parameters and the code of the network.
    """
    parts = ("models/self_supervised.py", "models/autoencoder.py", "nn/looker.py", "nn/encoder.py", "views.py")
    code = b"".join((SOURCE / part).read_bytes() for part in (*parts, "losses.py", "training.py"))
    seconds = LEARNING_SECONDS[name]
    pixels: Any = images.pixels if name == "fashion_mnist" else Images(SOURCES[name](), image_size=64, progress=False)
    found, steps = [], []
    for seed in range(n_seeds):
        model = clone(model).set_params(random_state=seed, budget=seconds, progress=False)
        key = hashlib.sha256(code + repr(model).encode()).hexdigest()[:12]
        kept = SCRATCH / "explore" / f"{name}-{type(model).__name__}-{key}.npz"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            features = model.fit(pixels).transform(pixels)
            np.savez(kept, features=features, steps=model.n_steps_, threads=torch.get_num_threads())
        with np.load(kept) as before:
            found.append(before["features"])
            steps.append(f"{int(before['steps']):,}")
            threads = int(before["threads"])
    method = getattr(model, "method", "")
    notes.append(
        f"{name}, learned: {type(model).__name__} {method}: {seconds} s of training for each seed, {threads} threads, "
        f"{found[0].shape[1]} features; {', '.join(steps)} steps."
    )
    return found


def seen_by_eyes(name: str, images: Images) -> tuple[str, np.ndarray, np.ndarray, str]:
    """The name of the eyes chosen for a set, what they see, what the last layer sees, and why in words.

    Kept under benchmarks/.data/explore by the code of the eyes.
    """
    code = b"".join((SOURCE / part).read_bytes() for part in ("models/pretrained.py", "tasks/embed.py"))
    kept = SCRATCH / "explore" / f"{name}-{hashlib.sha256(code).hexdigest()[:12]}.npz"
    if not kept.exists():
        last = PretrainedEncoder(image_size=EYES_SIZE[name]).fit_transform(images)
        began = time.perf_counter()
        chosen = choose_encoder(images, image_size=EYES_SIZE[name])
        found = time.perf_counter() - began
        seen = chosen.encoder.fit_transform(images)
        took = time.perf_counter() - began
        spent = f"Choosing took {found:.0f} s, with the features of all {took:.0f} s"
        why = f"{name}: {chosen.why}. {spent}, {torch.get_num_threads()} threads."
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, eyes=chosen.name, seen=seen, last=last, why=why)
    with np.load(kept) as found_before:
        return str(found_before["eyes"]), found_before["seen"], found_before["last"], str(found_before["why"])


def _row(group: Group, Xs: list[np.ndarray], labels: np.ndarray, k: int, known: bool) -> list[Any]:
    seeds = range(1 if len(labels) > LARGE and group in LAYOUTS else len(Xs))
    found = []
    for seed in seeds:
        X = Xs[seed]
        began = time.perf_counter()
        known_layout = LAID_OUT.get((min(len(X), LARGE) if group is _umap_hdbscan else len(X), seed), (None, 0.0))[1]
        got = group(X, k, seed)
        seconds = time.perf_counter() - began + (known_layout if group in LAYOUTS else 0.0)
        scores = clustering_scores(labels, got)
        found.append([scores["accuracy"], scores["nmi"], seconds, len(np.unique(got[got >= 0]))])
    mean, spread = np.mean(found, axis=0), np.std(found, axis=0)
    numbers = sorted({int(n) for *_, n in found})
    many = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    return [
        "given" if known else f"found: {many}",
        f"{mean[0]:.3f} ± {spread[0]:.3f}",
        f"{mean[1]:.3f} ± {spread[1]:.3f}",
        f"{mean[2]:.1f}",
        len(seeds),
    ]


def _clusterer(X: np.ndarray, k: int | None, seed: int) -> np.ndarray:
    return ImageClusterer(n_clusters=k, random_state=seed).fit(X).labels_


def _kmeans(X: np.ndarray, k: int, seed: int) -> np.ndarray:
    return KMeans(k, n_init=10, random_state=seed).fit_predict(X)


def _layout(X: np.ndarray, seed: int) -> np.ndarray:
    from umap import UMAP

    if (len(X), seed) not in LAID_OUT:
        model = UMAP(n_neighbors=10, n_components=10, min_dist=0.0, random_state=seed, n_jobs=1)
        began = time.perf_counter()
        LAID_OUT[len(X), seed] = model.fit_transform(X), time.perf_counter() - began
    return LAID_OUT[len(X), seed][0]


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


def few_labels(sets: list[str], n_seeds: int) -> None:
    """One table a set: labels of a few images a class, drawn anew for each seed, and how right the rest then are."""
    for name in sets:
        images, words = opened(name)
        y = np.unique(words, return_inverse=True)[1]
        _, seen, _, why = seen_by_eyes(name, images)
        train = np.arange(len(y)) < (60_000 if name == "fashion_mnist" else len(y))
        rows = []
        for method, classify in CLASSIFIERS.items():
            found = []
            for seed in range(n_seeds):
                known = np.full(len(y), -1)
                rng = np.random.default_rng(seed)
                for kind in range(y.max() + 1):
                    some = rng.permutation(np.flatnonzero((y == kind) & train))[: EACH[name]]
                    known[some] = kind
                judged = np.flatnonzero(~train) if not train.all() else np.flatnonzero(known < 0)
                began = time.perf_counter()
                shares, told = classify(seen[train], known[train], seen[judged], seed)
                seconds = time.perf_counter() - began
                right = shares.argmax(axis=1) == y[judged]
                found.append([right.mean(), _calibration_error(shares.max(axis=1), right), told, seconds])
            mean, spread = np.mean(found, axis=0), np.std(found, axis=0)
            own = "" if np.isnan(mean[2]) else f"{mean[2]:.3f} ± {spread[2]:.3f}"
            cells = [f"{mean[i]:.3f} ± {spread[i]:.3f}" for i in (0, 1)]
            rows.append([method, *cells, own, f"{mean[3]:.1f}"])
            print(rows[-1], flush=True)
        where = "10,000 images of the test part, never fitted" if name == "fashion_mnist" else "all others"
        save_table(
            f"few_labels_{name}",
            f"A few labels: {EACH[name]} images of each of {N_GROUPS[name]} classes of {name}",
            ("method", "accuracy", "calibration error", "accuracy it tells itself", "s"),
            rows,
            [
                f"Judged on {where}. Mean ± standard deviation over {n_seeds} draws of labels, the same for all.",
                "Calibration error: mean distance of confidence to accuracy over ten bins of confidence, by size.",
                f"All see the same features. {why}",
                "scikit-learn: LabelSpreading with the kernel 'knn', 15 neighbors and alpha 0.9 (of clothes on 5,000 "
                "unlabeled rows, drawn at random), logistic regression with C = 1, 1-NN.",
            ],
        )


def _calibration_error(sure: np.ndarray, right: np.ndarray) -> float:
    place = np.minimum((sure * 10).astype(int), 9)
    return float(sum(abs(right[place == i].mean() - sure[place == i].mean()) * (place == i).mean() for i in set(place)))


def _ours(X: np.ndarray, known: np.ndarray, new: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    model = FewLabelsClassifier(random_state=seed).fit(X, known)
    return model.predict_proba(new), model.accuracy_


def _line(X: np.ndarray, known: np.ndarray, new: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    rows = known >= 0
    return LogisticRegression(max_iter=1000).fit(X[rows], known[rows]).predict_proba(new), np.nan


def _nearest(X: np.ndarray, known: np.ndarray, new: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    rows = known >= 0
    return KNeighborsClassifier(1).fit(X[rows], known[rows]).predict_proba(new), np.nan


def _spreading(X: np.ndarray, known: np.ndarray, new: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    labeled = np.flatnonzero(known >= 0)
    others = np.random.default_rng(seed).permutation(np.flatnonzero(known < 0))[:5000]
    rows = np.concatenate([labeled, others])
    model = LabelSpreading(kernel="knn", n_neighbors=15, alpha=0.9, max_iter=100).fit(X[rows], known[rows])
    return np.nan_to_num(model.predict_proba(new)), np.nan


CLASSIFIERS = {
    "imatlas FewLabelsClassifier": _ours,
    "LabelSpreading": _spreading,
    "logistic regression": _line,
    "1-NN": _nearest,
}

METHODS: dict[str, tuple[Group, bool]] = {
    "k-means": (_kmeans, True),
    "UMAP + k-means": (_umap_kmeans, True),
    "UMAP + mixture": (_umap_mixture, True),
    "UMAP + HDBSCAN": (_umap_hdbscan, False),
    "imatlas ImageClusterer": (_clusterer, True),
    "imatlas ImageClusterer, k found": (lambda X, k, seed: _clusterer(X, None, seed), False),
}
"""How to group, and whether it is told into how many groups."""

RIVALS, OURS = list(METHODS)[:4], list(METHODS)[4:]
ALONE = ("k-means", "UMAP + mixture")

FEATURES = {"pixels": from_pixels, "learned": learned_here, "eyes": by_eyes}

EACH = {"fashion_mnist": 10, "eurosat": 5, "grocery_photos": 3}
"""Labeled images of each class."""

LAYOUTS = (_umap_kmeans, _umap_mixture, _umap_hdbscan)

NOTES = (
    "Accuracy under the best one-to-one match of groups to classes; NMI with the arithmetic mean. Labels score only. "
    "Mean ± standard deviation over seeds of the grouping; the features are the same for all.",
    "Eyes: EfficientNet-Lite0, learned with ImageNet's labels, the same for all methods; at 224 px, clothes at 96 px. "
    "Chosen eyes give 128 principal components, half-whitened.",
    "Learned here: by a network that saw these images alone, a network for each seed; photographs at 64 px. An "
    "autoencoder with UMAP and a mixture is the method of N2D (McConville et al. 2021).",
    f"k-means: scikit-learn, 10 starts. UMAP: 10 neighbors, 10 dimensions. HDBSCAN leaves some images out (-1), which "
    f"count as one group; of more than {LARGE:,} images it sees so many, and the others follow their nearest. Accuracy "
    "says little where another number of groups is found.",
)
