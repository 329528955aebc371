"""A self-organizing map as a denoiser in front of a VAE: `python -m benchmarks som_noise [--seconds 60]`.

Fashion-MNIST with Gaussian noise, clipped to the range. A VAE is trained on the noisy images, on the prototype of
their cell (hard), on the mean of prototypes weighted by distance (soft), on their projection onto 64 principal
components (baseline), and on the clean images (upper bound).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.decomposition import PCA

import imatlas as ia
from benchmarks._classifier import classifier
from benchmarks._data import labeled
from benchmarks._generation_metrics import MAX_IMAGES
from benchmarks._table import save_table
from imatlas.metrics.generation import frechet_distance, precision_recall

N_SAMPLES = 10_000
ROWS = 5_000
"""Images per batch: soft assignment holds a weight per image and cell."""

Cleaner = Callable[[np.ndarray], np.ndarray]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks som_noise")
    parser.add_argument("--seconds", type=float, default=60.0, help="training time of each VAE")
    parser.add_argument("--noise", type=float, default=0.3, help="standard deviation, as a fraction of the range")
    parser.add_argument("--side", type=int, default=20, help="rows and columns of the map")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    data, judge = labeled("fashion_mnist"), classifier("fashion_mnist")
    rng = np.random.default_rng(0)
    noisy = {"train": add_noise(data.train, options.noise, rng), "test": add_noise(data.test, options.noise, rng)}
    real = judge.features(data.test)
    floor = frechet_distance(real, judge.features(data.train[rng.permutation(len(data.train))[:N_SAMPLES]]))
    rows = []
    for name, (clean, seconds) in cleaners(noisy["train"], options.side).items():
        train = data.train if name == "clean images (upper bound)" else clean(noisy["train"])
        test = clean(noisy["test"])
        model = ia.VAE(latent_dim=32, budget=options.seconds, progress=False).fit(train)
        generated = judge.features(model.sample(N_SAMPLES, random_state=0))
        precision, recall = precision_recall(real[:MAX_IMAGES], generated[:MAX_IMAGES])
        reconstructed = model.inverse_transform(model.transform(test))
        errors = [mean_error(test, data.test), mean_error(reconstructed, data.test)]
        rows.append([name, frechet_distance(real, generated), precision, recall, *errors, seconds, model.n_steps_])
        print(rows[-1], flush=True)
    save_table(
        "som_noise" + ("" if options.seconds >= 60 else "_short"),
        f"A map as a denoiser in front of a VAE: Fashion-MNIST, noise sigma {options.noise:g} of the range",
        [
            "VAE trained on", "Fréchet", "precision", "recall", "MSE before the VAE", "MSE after the VAE",
            "preparation s", "steps",
        ],
        rows,
        [
            f"60,000 images at 32 px; VAEs with 32 latent dimensions, {options.seconds:g} s of training each on "
            f"{options.threads} thread(s), one seed. Map of {options.side} x {options.side} cells and PCA of 64 "
            "components fitted to the noisy images.",
            f"Fréchet distance of 10,000 samples from the prior to the 10,000 clean test images on classifier features "
            f"(test accuracy {judge.accuracy:.1%}); as many real training images score {floor:.3g}. Precision and "
            f"recall: k = 3, {MAX_IMAGES:,} images per side.",
            "MSE (range 0 to 1) to the clean test images: of the noisy test images prepared the same way, and of their "
            "reconstructions. The VAE trained on clean images gets noisy test images too.",
        ],
    )  # fmt: skip


def cleaners(train: np.ndarray, side: int) -> dict[str, tuple[Cleaner, float]]:
    """The preparation of each VAE's images by name, and the seconds of fitting it."""
    rows = flat(train)
    began = time.perf_counter()
    som = ia.SOM(rows=side, cols=side).fit(rows)
    for_map = time.perf_counter() - began
    began = time.perf_counter()
    pca = PCA(64, random_state=0).fit(rows)
    for_pca = time.perf_counter() - began
    return {
        "noisy images": (lambda x: x, 0.0),
        "map, hard assignment": (in_batches(lambda x: som.inverse_transform(som.predict(x))), for_map),
        "map, soft assignment": (in_batches(lambda x: som.inverse_transform(som.soft_cells(x))), for_map),
        "PCA of 64 (baseline)": (in_batches(lambda x: pca.inverse_transform(pca.transform(x))), for_pca),
        "clean images (upper bound)": (lambda x: x, 0.0),
    }


def in_batches(clean: Cleaner) -> Cleaner:
    """`clean`, a function of rows in [0, 1], as a function of images (n, H, W, C) uint8, batch by batch."""

    def cleaned(images: np.ndarray) -> np.ndarray:
        parts = [clean(flat(images[at : at + ROWS])) for at in range(0, len(images), ROWS)]
        return np.rint(np.clip(np.concatenate(parts), 0, 1) * 255).astype(np.uint8).reshape(images.shape)

    return cleaned


def add_noise(images: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Images (n, H, W, C) uint8 plus Gaussian noise, clipped to the range."""
    noise = rng.standard_normal(images.shape, dtype=np.float32) * np.float32(255 * deviation)
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def flat(images: np.ndarray) -> np.ndarray:
    """Images as rows (n, H * W * C) in [0, 1]."""
    return images.reshape(len(images), -1) / np.float32(255)


def mean_error(images: np.ndarray, target: np.ndarray) -> float:
    """Mean squared error of 8-bit images, scaled to [0, 1]."""
    return float(np.mean((images / np.float32(255) - target / np.float32(255)) ** 2, dtype=np.float64))
