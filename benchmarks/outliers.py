"""Odd images in a set that holds them: `python -m benchmarks outliers [rank|alarms|flags] [--seeds 3]`.

`rank`: 5 % of another kind mixed in, and how well each method ranks them first. `alarms`: the rate of false alarms
beside the one asked for. `flags`: planted blur, darkness and brightness. Features are computed once and kept under
benchmarks/.data/outliers (minutes). Peers in environments of their own, made with `python -m venv` and
benchmarks/peers/NAME.txt under benchmarks/.envs/NAME: pyod, cleanvision.
"""

from __future__ import annotations

import argparse
import json
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
from benchmarks._table import save_table
from imatlas import Images, OutlierDetector, PretrainedEncoder
from imatlas.images.decode import read_picture
from imatlas.images.encode import encode_thumbnail
from imatlas.tasks.quality_flags import THUMBNAIL, quality_flags

HERE = Path(__file__).parent
SHARE = 0.05

Score = Callable[[np.ndarray, int], np.ndarray]
"""Features and a seed -> how odd each row is."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks outliers")
    parser.add_argument("parts", nargs="*", choices=["rank", "alarms", "flags", []], default=[])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    warnings.filterwarnings("ignore", module="sklearn")
    for part in options.parts or ("rank", "alarms", "flags"):
        {"rank": rank, "alarms": alarms, "flags": flags}[part](options.seeds)


def rank(n_seeds: int) -> None:
    """AUROC of each method on each mixture."""
    settings = {
        "emoji among photos": lambda seed: [mixed(seen("grocery_photos"), seen("noto_emoji"), 1000, seed)],
        "satellite among clothes": lambda seed: [mixed(seen("fashion_mnist"), seen("eurosat"), 2000, seed)],
        "a class among nine": lambda seed: _each_class(1000, seed, lambda y, c: (y != c, y == c)),
        "a class among one": lambda seed: _each_class(400, seed, lambda y, c: (y == (c + 1 + 3 * seed) % 10, y == c)),
        "nine among a class": lambda seed: _each_class(400, seed, lambda y, c: (y == c, y != c)),
    }
    found: dict[str, dict[str, list[float]]] = {name: {} for name in [*METHODS, "pyod ECOD", "pyod COPOD"]}
    for setting, draw in settings.items():
        for seed in range(n_seeds):
            mixtures = [(projected(features, seed), odd) for features, odd in draw(seed)]
            areas: dict[str, list[float]] = {}
            for (X, odd), peers in zip(mixtures, _by_pyod([X for X, _ in mixtures]), strict=True):
                for name, values in ({name: score(X, seed) for name, score in METHODS.items()} | peers).items():
                    areas.setdefault(name, []).append(float(roc_auc_score(odd, values)))
            for name, values in areas.items():
                found[name].setdefault(setting, []).append(float(np.mean(values)))
            print(setting, seed, {name: round(float(np.mean(v)), 3) for name, v in areas.items()}, flush=True)
    rows = [
        [name, *(f"{np.mean(by[s]):.3f} ± {np.std(by[s]):.3f}" if s in by else "" for s in settings)]
        for name, by in found.items()
        if by
    ]
    save_table("outliers", "Odd images in the set that is learned from: AUROC", ("method", *settings), rows, NOTES)


def _each_class(n: int, seed: int, divided: Callable[..., tuple[Any, Any]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A mixture for each class of clothes; `divided` says which are ordinary and which odd, by labels and class."""
    features, labels = seen("fashion_mnist"), _labels()
    for kind in range(10):
        ordinary, odd = divided(labels, kind)
        yield mixed(features[ordinary], features[odd], n, seed)


def mixed(ordinary: np.ndarray, odd: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`n` ordinary rows and so many odd ones that they are 5 % of all, with which are odd."""
    rng = np.random.default_rng(seed)
    n = min(n, len(ordinary))
    n_outliers = round(n * SHARE / (1 - SHARE))
    rows = [ordinary[rng.permutation(len(ordinary))[:n]], odd[rng.permutation(len(odd))[:n_outliers]]]
    return np.concatenate(rows), np.arange(n + n_outliers) >= n


def projected(features: np.ndarray, seed: int) -> np.ndarray:
    """What `learn` makes of features: 128 principal components of this mixture, half-whitened."""
    pca = PCA(min(128, len(features) - 1), svd_solver="randomized", random_state=seed).fit(features)
    deviation = np.sqrt(pca.explained_variance_)
    return (pca.transform(features) * np.sqrt(deviation[0] / deviation)).astype(np.float32)


def seen(name: str) -> np.ndarray:
    """The last layer of the eyes for a set (n, 1280), kept under benchmarks/.data/outliers; whole images, one view."""
    kept = SCRATCH / "outliers" / f"{name}.npy"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        if name == "fashion_mnist":
            images: Any = fashion_mnist("t10k")[0]
        elif name == "fitted":
            images = fashion_mnist("train")[0][:4000]
        else:
            images = Images(_some_emoji() if name == "noto_emoji" else FOLDERS[name]())
        side = 224 if name in ("grocery_photos", "noto_emoji") else 96
        np.save(kept, PretrainedEncoder(image_size=side).fit_transform(images))
    return np.load(kept)


def _some_emoji() -> list[Path]:
    """300 emoji, drawn by one seed."""
    files = sorted(noto_emoji().rglob("*.png"))
    return [files[i] for i in np.random.default_rng(0).permutation(len(files))[:300]]


def _labels() -> np.ndarray:
    return fashion_mnist("t10k")[1]


def _by_pyod(mixtures: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The scores of pyod's detectors for some features; none where its environment is not there."""
    python = HERE / ".envs" / "pyod" / "bin" / "python"
    if not python.exists():
        return [{} for _ in mixtures]
    with tempfile.TemporaryDirectory() as folder:
        features, scores = Path(folder) / "features.npz", Path(folder) / "scores.npz"
        np.savez(features, *mixtures)
        subprocess.run([python, HERE / "peers" / "outliers_pyod.py", features, scores], check=True, capture_output=True)
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


def alarms(n_seeds: int) -> None:
    """Fresh ordinary clothes that are called odd, beside the rate that was asked for."""
    rows = []
    for share in (0.0, 0.05, 0.10):
        for rate in (0.01, 0.05):
            got = np.array([_alarm_rates(share, rate, seed) for seed in range(n_seeds)])
            mean, spread = got.mean(axis=0), got.std(axis=0)
            cells = [f"{mean[0]:.4f} ± {spread[0]:.4f}", f"{got[:, 0].max():.4f}", *(f"{m:.4f}" for m in mean[1:3])]
            rows.append([f"{share:.0%}", f"{rate:.0%}", *cells, f"{mean[3]:.3f}" if share else ""])
            print(rows[-1], flush=True)
    columns = (
        "satellite pictures in the set",
        "asked for",
        "had on 5,000 fresh clothes",
        "highest",
        "bound told (95 %)",
        "had in the set",
        "odd ones found",
    )
    notes = [
        f"Learned from {len(seen('fitted')):,} clothes, the given share of them replaced. Mean ± deviation over "
        f"{n_seeds} seeds. Features as in the table of ranks; principal components of the fitted rows alone."
    ]
    save_table("outliers_false_positives", "False alarms asked for, and had", columns, rows, notes)


def _alarm_rates(share: float, rate: float, seed: int) -> tuple[float, float, float, float]:
    """False alarms on fresh clothes, the bound told, false alarms in the set, and the share of odd ones found in it."""
    rng = np.random.default_rng(seed)
    fresh, clothes, others = seen("fashion_mnist"), seen("fitted"), seen("eurosat")
    n_outliers = round(len(clothes) * share)
    odd = np.arange(len(clothes)) >= len(clothes) - n_outliers
    kept = clothes[rng.permutation(len(clothes))[n_outliers:]]
    mixture = np.concatenate([kept, others[rng.permutation(len(others))[:n_outliers]]])
    pca = PCA(128, svd_solver="randomized", random_state=seed).fit(mixture)
    scale = np.sqrt(np.sqrt(pca.explained_variance_[0] / pca.explained_variance_))
    model = OutlierDetector(false_positive_rate=rate, random_state=seed).fit(pca.transform(mixture) * scale)
    new = pca.transform(fresh[rng.permutation(len(fresh))[:5000]]) * scale
    own = model.p_values_ <= rate
    found = float(own[odd].mean()) if n_outliers else 0.0
    return float((model.predict(new) < 0).mean()), model.false_positive_bound_, float(own[~odd].mean()), found


def flags(n_seeds: int) -> None:
    """Planted faults among photographs: precision and recall beside cleanvision."""
    faults: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
        "blurred": ("blurry", lambda im: im.filter(ImageFilter.GaussianBlur(4))),
        "dark": ("dark", lambda im: im.point(lambda v: int(v * 0.2))),
        "bright": ("light", lambda im: im.point(lambda v: int(243 + v * 0.05))),
    }
    counts = {who: {fault: np.zeros(3) for fault in faults} for who in ("imatlas", "cleanvision")}
    told = ""
    for seed in range(n_seeds):
        with tempfile.TemporaryDirectory() as folder:
            truth = _planted(Path(folder), faults, seed)
            found = {"imatlas": _own_flags(Path(folder))}
            python = HERE / ".envs" / "cleanvision" / "bin" / "python"
            if python.exists():
                command = [python, HERE / "peers" / "flags_cleanvision.py", folder]
                said = subprocess.run(command, check=True, capture_output=True, text=True)
                answer = json.loads(said.stdout.strip().splitlines()[-1])
                found["cleanvision"], told = answer["flags"], f"cleanvision {answer['version']}, its defaults. "
        for who, by in found.items():
            for fault, (other, _) in faults.items():
                named = {name for name, all_of in by.items() if (fault if who == "imatlas" else other) in all_of}
                right = {name for name, planted in truth.items() if planted == fault}
                counts[who][fault] += [len(named & right), len(named), len(right)]
    rows = [
        [who, fault, f"{hit / max(named, 1):.3f}", f"{hit / right:.3f}", int(named), int(right)]
        for who, by in counts.items()
        for fault, (hit, named, right) in by.items()
        if right
    ]
    columns = ("who", "fault", "precision", "recall", "flagged", "planted")
    notes = [
        f"{n_seeds} draws of 400 of 1,053 photographs, 8 of each fault planted: Gaussian blur of 4 pixels at 348 px, "
        f"pixels times 0.2, and pixels at 243 to 255. {told}Photographs that are flagged without a planted fault count "
        "as wrong, though some may be."
    ]
    save_table("outliers_flags", "Planted faults among photographs", columns, rows, notes)


def _planted(folder: Path, faults: dict[str, Any], seed: int) -> dict[str, str]:
    """Write 400 photographs, some of them with a fault; the fault of each file name, "" for none."""
    files = sorted(grocery_photos().glob("*/*.jpg"))
    chosen = np.random.default_rng(seed).permutation(len(files))[:400]
    names = list(faults)
    truth = {}
    for place, row in enumerate(chosen.tolist()):
        fault = names[place // 8] if place < 8 * len(names) else ""
        with Image.open(files[row]) as picture:
            picture = picture.convert("RGB")
        picture = faults[fault][1](picture) if fault else picture
        picture.save(folder / f"{place}.jpg", quality=92)
        truth[f"{place}.jpg"] = fault
    return truth


def _own_flags(folder: Path) -> dict[str, list[str]]:
    files = sorted(folder.glob("*.jpg"))
    pictures = [read_picture(file.read_bytes()) for file in files]
    sizes = np.array([(picture.width, picture.height) for picture in pictures])
    small = [encode_thumbnail(picture.thumbnail(THUMBNAIL)) for picture in pictures]
    found = quality_flags(small, sizes[:, 0], sizes[:, 1])
    return {file.name: text.split("; ") for file, text in zip(files, found.of, strict=True)}


NOTES = (
    "5 % of all rows are odd ones, in the set that every method is fitted to and that is ranked. Mean ± standard "
    "deviation over draws. 1,000 photographs and emoji; 2,000 clothes and satellite pictures; each of the ten classes "
    "of clothes among 1,000 of the other nine, and among 400 of one other class, another for each draw (class c among "
    "class c + 1, 4, 7 modulo 10): means of ten.",
    "All see the same: EfficientNet-Lite0's last layer (ImageNet's labels), whole images, at 224 px, clothes and "
    "satellite pictures at 96 px; 128 principal components of the mixture, half-whitened, as `learn` has them.",
    "imatlas is scored by the half of the rows that it did not learn from; the others by all rows.",
)
