"""Outlier detection: `python -m benchmarks outliers [ranking|false-positives|flags] [--seeds 3]`.

`ranking`: AUROC with 5 % of images of another kind in the fitted set. `false-positives`: the false positive rate on new
images against the requested one. `flags`: recall and precision of quality flags for blurred, dark and bright images.
Features are computed once (minutes). Peer environments: pyod, cleanvision (see `benchmarks._peers`).
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM

from benchmarks._data import FOLDERS, SCRATCH, fashion_mnist, grocery_photos, noto_emoji
from benchmarks._peers import PEERS, last_json, python_of
from benchmarks._table import mean_std, save_table
from imatlas import Images, OutlierDetector, PretrainedEncoder
from imatlas.images.decode import read_picture
from imatlas.images.encode import encode_thumbnail
from imatlas.tasks.quality_flags import THUMBNAIL, quality_flags

SHARE = 0.05
"""Share of outliers in a mixture."""

Score = Callable[[np.ndarray, int], np.ndarray]
"""Features and a seed -> the outlier score of each row."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks outliers")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    warnings.filterwarnings("ignore", module="sklearn")
    for part in options.parts or PARTS:
        PARTS[part](options.seeds)


def ranking(n_seeds: int) -> None:
    """AUROC of each method on each mixture."""
    settings = {
        "Noto Emoji in Grocery photos": lambda seed: [
            mixed(features_of("grocery_photos"), features_of("noto_emoji"), 1000, seed)
        ],
        "EuroSAT in Fashion-MNIST": lambda seed: [
            mixed(features_of("fashion_mnist"), features_of("eurosat"), 2000, seed)
        ],
        "one class in nine": lambda seed: _each_class(1000, seed, lambda y, c: (y != c, y == c)),
        "one class in one": lambda seed: _each_class(400, seed, lambda y, c: (y == (c + 1 + 3 * seed) % 10, y == c)),
        "nine classes in one": lambda seed: _each_class(400, seed, lambda y, c: (y == c, y != c)),
    }
    found: dict[str, dict[str, list[float]]] = {name: {} for name in [*METHODS, "pyod ECOD", "pyod COPOD"]}
    for setting, draw in settings.items():
        for seed in range(n_seeds):
            mixtures = [(embed(features, seed), is_outlier) for features, is_outlier in draw(seed)]
            areas: dict[str, list[float]] = {}
            for (X, is_outlier), peers in zip(mixtures, _pyod_scores([X for X, _ in mixtures]), strict=True):
                for name, values in ({name: score(X, seed) for name, score in METHODS.items()} | peers).items():
                    areas.setdefault(name, []).append(float(roc_auc_score(is_outlier, values)))
            for name, values in areas.items():
                found[name].setdefault(setting, []).append(float(np.mean(values)))
            print(setting, seed, {name: round(float(np.mean(v)), 3) for name, v in areas.items()}, flush=True)
    rows = [
        [name, *(mean_std(by_setting[s]) if s in by_setting else "" for s in settings)]
        for name, by_setting in found.items()
        if by_setting
    ]
    save_table("outliers", "Outliers in the fitted set: AUROC", ("method", *settings), rows, NOTES)


def _each_class(n: int, seed: int, divide: Callable[..., tuple[Any, Any]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A mixture per class of Fashion-MNIST; `divide` gives the masks of inliers and outliers by labels and class."""
    features, labels = features_of("fashion_mnist"), _labels()
    for kind in range(10):
        inliers, outliers = divide(labels, kind)
        yield mixed(features[inliers], features[outliers], n, seed)


def mixed(inliers: np.ndarray, outliers: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`n` inliers with 5 % outliers, and the mask of the outliers."""
    rng = np.random.default_rng(seed)
    n = min(n, len(inliers))
    n_outliers = round(n * SHARE / (1 - SHARE))
    rows = [inliers[rng.permutation(len(inliers))[:n]], outliers[rng.permutation(len(outliers))[:n_outliers]]]
    return np.concatenate(rows), np.arange(n + n_outliers) >= n


def embed(features: np.ndarray, seed: int) -> np.ndarray:
    """The embedding of `learn`: 128 principal components of the mixture, half-whitened."""
    pca = PCA(min(128, len(features) - 1), svd_solver="randomized", random_state=seed).fit(features)
    deviation = np.sqrt(pca.explained_variance_)
    return (pca.transform(features) * np.sqrt(deviation[0] / deviation)).astype(np.float32)


def features_of(name: str) -> np.ndarray:
    """Last-layer features (n, 1280) of the pretrained encoder for a set, cached; one view per image."""
    path = SCRATCH / "outliers" / f"{name}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "fashion_mnist":
            images: Any = fashion_mnist("t10k")[0]
        elif name == "fashion_mnist_train":
            images = fashion_mnist("train")[0][:4000]
        else:
            images = Images(_some_emoji() if name == "noto_emoji" else FOLDERS[name]())
        side = 224 if name in ("grocery_photos", "noto_emoji") else 96
        np.save(path, PretrainedEncoder(image_size=side).fit_transform(images))
    return np.load(path)


def _some_emoji() -> list[Path]:
    """300 emoji, drawn with a fixed seed."""
    files = sorted(noto_emoji().rglob("*.png"))
    return [files[i] for i in np.random.default_rng(0).permutation(len(files))[:300]]


def _labels() -> np.ndarray:
    return fashion_mnist("t10k")[1]


def _pyod_scores(mixtures: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Scores of pyod's detectors for several feature arrays; empty if its environment is missing."""
    python = python_of("pyod")
    if not python.exists():
        return [{} for _ in mixtures]
    with tempfile.TemporaryDirectory() as folder:
        features, scores = Path(folder) / "features.npz", Path(folder) / "scores.npz"
        np.savez(features, *mixtures)
        subprocess.run([python, PEERS / "outliers_pyod.py", features, scores], check=True, capture_output=True)
        with np.load(scores) as found:
            return [{f"pyod {name}": found[f"{name} {i}"] for name in ("ECOD", "COPOD")} for i in range(len(mixtures))]


def _nearest(X: np.ndarray, k: int) -> np.ndarray:
    return NearestNeighbors(n_neighbors=k).fit(X).kneighbors()[0].mean(axis=1)


METHODS: dict[str, Score] = {
    "imatlas OutlierDetector": lambda X, seed: OutlierDetector(random_state=seed).fit(X).outlier_scores_,
    "IsolationForest": lambda X, seed: -IsolationForest(n_estimators=200, random_state=seed).fit(X).score_samples(X),
    "LOF, 20 neighbors": lambda X, seed: -LocalOutlierFactor(n_neighbors=20).fit(X).negative_outlier_factor_,
    "LOF, 100 neighbors": lambda X, seed: -LocalOutlierFactor(n_neighbors=100).fit(X).negative_outlier_factor_,
    "one-class SVM": lambda X, seed: -OneClassSVM(nu=0.1).fit(X).decision_function(X),
    "Mahalanobis, Ledoit-Wolf": lambda X, seed: LedoitWolf().fit(X).mahalanobis(X),
    "kNN, 10": lambda X, seed: _nearest(X, 10),
    "kNN, 50": lambda X, seed: _nearest(X, 50),
}


def false_positives(n_seeds: int) -> None:
    """False positive rate on new images against the requested rate."""
    rows = []
    for share in (0.0, 0.05, 0.10):
        for rate in (0.01, 0.05):
            got = np.array([_rates(share, rate, seed) for seed in range(n_seeds)])
            mean, spread = got.mean(axis=0), got.std(axis=0)
            cells = [f"{mean[0]:.4f} ± {spread[0]:.4f}", f"{got[:, 0].max():.4f}", *(f"{m:.4f}" for m in mean[1:3])]
            rows.append([f"{share:.0%}", f"{rate:.0%}", *cells, f"{mean[3]:.3f}" if share else ""])
            print(rows[-1], flush=True)
    columns = (
        "outliers in the set",
        "requested rate",
        "rate on new images",
        "highest",
        "reported bound (95 %)",
        "rate in the set",
        "recall in the set",
    )
    notes = [
        f"Fitted to {len(features_of('fashion_mnist_train')):,} images of Fashion-MNIST, the given share of them "
        "replaced by EuroSAT; new images: 5,000 of Fashion-MNIST. Mean ± standard deviation over "
        f"{n_seeds} seeds. Features as in the AUROC table, principal components of the fitted rows."
    ]
    save_table("outliers_false_positives", "False positive rate, requested and measured", columns, rows, notes)


def _rates(share: float, rate: float, seed: int) -> tuple[float, float, float, float]:
    """False positive rate on new images, reported bound, false positive rate in the set, recall in the set."""
    rng = np.random.default_rng(seed)
    new, fitted, others = features_of("fashion_mnist"), features_of("fashion_mnist_train"), features_of("eurosat")
    n_outliers = round(len(fitted) * share)
    is_outlier = np.arange(len(fitted)) >= len(fitted) - n_outliers
    kept = fitted[rng.permutation(len(fitted))[n_outliers:]]
    mixture = np.concatenate([kept, others[rng.permutation(len(others))[:n_outliers]]])
    pca = PCA(128, svd_solver="randomized", random_state=seed).fit(mixture)
    scale = np.sqrt(np.sqrt(pca.explained_variance_[0] / pca.explained_variance_))
    model = OutlierDetector(false_positive_rate=rate, random_state=seed).fit(pca.transform(mixture) * scale)
    new = pca.transform(new[rng.permutation(len(new))[:5000]]) * scale
    flagged = model.p_values_ <= rate
    recall = float(flagged[is_outlier].mean()) if n_outliers else 0.0
    return (
        float((model.predict(new) < 0).mean()),
        model.false_positive_bound_,
        float(flagged[~is_outlier].mean()),
        recall,
    )


def flags(n_seeds: int) -> None:
    """Precision and recall of quality flags for planted defects, against cleanvision."""
    defects: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
        "blurred": ("blurry", lambda im: im.filter(ImageFilter.GaussianBlur(4))),
        "dark": ("dark", lambda im: im.point(lambda v: int(v * 0.2))),
        "bright": ("light", lambda im: im.point(lambda v: int(243 + v * 0.05))),
    }
    counts = {who: {defect: np.zeros(3) for defect in defects} for who in ("imatlas", "cleanvision")}
    peer = ""
    for seed in range(n_seeds):
        with tempfile.TemporaryDirectory() as folder:
            truth = _planted(Path(folder), defects, seed)
            found = {"imatlas": _own_flags(Path(folder))}
            python = python_of("cleanvision")
            if python.exists():
                command = [python, PEERS / "flags_cleanvision.py", folder]
                answer = last_json(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                found["cleanvision"], peer = answer["flags"], f"cleanvision {answer['version']}: defaults. "
        for who, by in found.items():
            for defect, (other, _) in defects.items():
                named = {name for name, all_of in by.items() if (defect if who == "imatlas" else other) in all_of}
                right = {name for name, planted in truth.items() if planted == defect}
                counts[who][defect] += [len(named & right), len(named), len(right)]
    rows = [
        [who, defect, f"{hit / max(named, 1):.3f}", f"{hit / right:.3f}", int(named), int(right)]
        for who, by in counts.items()
        for defect, (hit, named, right) in by.items()
        if right
    ]
    columns = ("library", "defect", "precision", "recall", "flagged", "planted")
    notes = [
        f"{n_seeds} draws of 400 of the 1,053 images, 8 with each planted defect: Gaussian blur of 4 pixels at 348 px, "
        f"pixels times 0.2, pixels at 243 to 255. {peer}Images flagged without a planted defect count as false "
        "positives, though some may be defective."
    ]
    save_table("outliers_flags", "Quality flags: planted defects in Grocery photos", columns, rows, notes)


def _planted(folder: Path, defects: dict[str, Any], seed: int) -> dict[str, str]:
    """Write 400 photographs, some with a defect; returns the defect by file name, "" for none."""
    files = sorted(grocery_photos().glob("*/*.jpg"))
    chosen = np.random.default_rng(seed).permutation(len(files))[:400]
    names = list(defects)
    truth = {}
    for place, row in enumerate(chosen.tolist()):
        defect = names[place // 8] if place < 8 * len(names) else ""
        with Image.open(files[row]) as picture:
            picture = picture.convert("RGB")
        picture = defects[defect][1](picture) if defect else picture
        picture.save(folder / f"{place}.jpg", quality=92)
        truth[f"{place}.jpg"] = defect
    return truth


def _own_flags(folder: Path) -> dict[str, list[str]]:
    files = sorted(folder.glob("*.jpg"))
    pictures = [read_picture(file.read_bytes()) for file in files]
    sizes = np.array([(picture.width, picture.height) for picture in pictures])
    small = [encode_thumbnail(picture.thumbnail(THUMBNAIL)) for picture in pictures]
    found = quality_flags(small, sizes[:, 0], sizes[:, 1])
    return {file.name: text.split("; ") for file, text in zip(files, found.of, strict=True)}


NOTES = (
    "5 % of the rows of the fitted and ranked set are outliers. Mean ± standard deviation over draws. 1,000 images of "
    "Grocery photos with Noto Emoji; 2,000 of Fashion-MNIST with EuroSAT; each of the ten classes of Fashion-MNIST in "
    "1,000 images of the other nine, and in 400 of one other class, a different one per draw (class c in class c + 1, "
    "4, 7 modulo 10): means of ten.",
    "All methods get the same features: last layer of EfficientNet-Lite0 (trained with ImageNet labels), one view, at "
    "224 px, Fashion-MNIST and EuroSAT at 96 px; 128 principal components of the mixture, half-whitened, as in "
    "`learn`.",
    "imatlas scores each row by a model fitted to the other half of the rows; the other methods use all rows.",
)

PARTS = {"ranking": ranking, "false-positives": false_positives, "flags": flags}
