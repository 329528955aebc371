"""Does a map clean images before a VAE learns them? `python -m benchmarks som_noise [--seconds 60] [--threads 2]`.

Clothes with Gaussian noise, which is clipped to the range as a camera does. A VAE learns from the noisy images as they
are, from the prototype of their cell (hard), from the mean of prototypes weighted by nearness (soft), from their
projection on 64 principal components (the simple baseline), and from the clean images (what could be had at best).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.decomposition import PCA

import imatlas as ia
from benchmarks._data import labeled
from benchmarks._judge import judge
from benchmarks._table import save_table
from imatlas.metrics.generation import frechet_distance, precision_recall

N_SAMPLES = 10_000
N_OVERLAP = 5_000
ROWS = 5_000
"""Images that go through the map at a time: the weights of all cells are many numbers an image."""

Cleaner = Callable[[np.ndarray], np.ndarray]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks som_noise")
    parser.add_argument("--seconds", type=float, default=60.0, help="training time of each VAE")
    parser.add_argument("--noise", type=float, default=0.3, help="standard deviation, in parts of the range")
    parser.add_argument("--side", type=int, default=20, help="cells along a side of the map")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    data, seen_by = labeled("fashion_mnist"), judge("fashion_mnist")
    rng = np.random.default_rng(0)
    noisy = {"train": with_noise(data.train, options.noise, rng), "test": with_noise(data.test, options.noise, rng)}
    real = seen_by.features(data.test)
    floor = frechet_distance(real, seen_by.features(data.train[rng.permutation(len(data.train))[:N_SAMPLES]]))
    rows = []
    for name, (clean, seconds) in cleaners(noisy["train"], options.side).items():
        train = data.train if name == "clean images (ceiling)" else clean(noisy["train"])
        test = clean(noisy["test"])
        model = ia.VAE(latent_dim=32, budget=options.seconds, progress=False).fit(train)
        made = seen_by.features(model.sample(N_SAMPLES, random_state=0))
        precision, recall = precision_recall(real[:N_OVERLAP], made[:N_OVERLAP])
        rebuilt = model.inverse_transform(model.transform(test))
        errors = [mean_error(test, data.test), mean_error(rebuilt, data.test)]
        rows.append([name, frechet_distance(real, made), precision, recall, *errors, seconds, model.n_steps_])
        print(rows[-1], flush=True)
    save_table(
        "som_noise" + ("" if options.seconds >= 60 else "_short"),
        f"A map before a VAE, on noisy clothes (sigma {options.noise:g} of the range)",
        [
            "VAE learns from", "Fréchet of samples", "precision", "recall", "MSE before the VAE", "MSE after it",
            "s to prepare", "steps",
        ],
        rows,
        [
            f"60,000 images at 32 px, noise clipped to the range; VAEs of 32 dimensions, {options.seconds:g} s each on "
            f"{options.threads} threads, one seed. Map: {options.side} x {options.side} cells, learned from the noisy "
            "images; PCA of 64 components likewise.",
            f"Fréchet distance of 10,000 samples of the prior to the 10,000 clean test images, in the judge's features "
            f"(accuracy {seen_by.accuracy:.1%}); as many real training images score {floor:.3g}. Precision and recall "
            f"with k = 3, {N_OVERLAP:,} images a side.",
            "MSE (0 to 1) to the clean test images, of noisy test images that were prepared alike, and after the VAE "
            "has rebuilt them. The VAE that learned from clean images is given noisy ones too.",
        ],
    )  # fmt: skip


def cleaners(train: np.ndarray, side: int) -> dict[str, tuple[Cleaner, float]]:
    """What each VAE's images go through first, by name, with the seconds it took to learn it from noisy images."""
    rows = flat(train)
    began = time.perf_counter()
    som = ia.SOM(rows=side, cols=side).fit(rows)
    for_map = time.perf_counter() - began
    began = time.perf_counter()
    pca = PCA(64, random_state=0).fit(rows)
    for_pca = time.perf_counter() - began
    return {
        "noisy images": (lambda x: x, 0.0),
        "cells of the map, hard": (by_parts(lambda x: som.inverse_transform(som.predict(x))), for_map),
        "cells of the map, soft": (by_parts(lambda x: som.inverse_transform(som.soft_cells(x))), for_map),
        "PCA of 64 (simple baseline)": (by_parts(lambda x: pca.inverse_transform(pca.transform(x))), for_pca),
        "clean images (ceiling)": (lambda x: x, 0.0),
    }


def by_parts(clean: Cleaner) -> Cleaner:
    """`clean`, which takes rows from 0 to 1, for images (n, H, W, C) uint8, some at a time."""

    def cleaned(images: np.ndarray) -> np.ndarray:
        parts = [clean(flat(images[at : at + ROWS])) for at in range(0, len(images), ROWS)]
        return np.rint(np.clip(np.concatenate(parts), 0, 1) * 255).astype(np.uint8).reshape(images.shape)

    return cleaned


def with_noise(images: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Images (n, H, W, C) uint8 with Gaussian noise, clipped to the range."""
    noise = rng.standard_normal(images.shape, dtype=np.float32) * np.float32(255 * deviation)
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def flat(images: np.ndarray) -> np.ndarray:
    """Images as rows (n, H * W * C) from 0 to 1."""
    return images.reshape(len(images), -1) / np.float32(255)


def mean_error(images: np.ndarray, target: np.ndarray) -> float:
    """Mean squared error of 8-bit images, from 0 to 1."""
    return float(np.mean((images / np.float32(255) - target / np.float32(255)) ** 2, dtype=np.float64))
