"""Reconstruction of Fashion-MNIST from 64 numbers, autoencoder against PCA:
`python -m benchmarks autoencoder [--budget 5m] [--seed 0]`."""

from __future__ import annotations

import argparse
import time

import numpy as np
from sklearn.decomposition import PCA

from benchmarks._data import fashion_mnist
from benchmarks._table import save_table
from imatlas import Autoencoder

LATENT_DIM = 64


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks autoencoder")
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    train, test = fashion_mnist("train")[0], fashion_mnist("t10k")[0]

    began = time.perf_counter()
    pca = PCA(LATENT_DIM, random_state=options.seed).fit(train.reshape(len(train), -1) / np.float32(255))
    pca_seconds = time.perf_counter() - began
    codes = pca.transform(test.reshape(len(test), -1) / np.float32(255))
    pca_error = mse(test, pca.inverse_transform(codes).reshape(test.shape))

    began = time.perf_counter()
    model = Autoencoder(latent_dim=LATENT_DIM, budget=options.budget, random_state=options.seed).fit(train)
    seconds = time.perf_counter() - began
    rebuilt = model.inverse_transform(model.transform(test))[..., 0]
    error = mse(test, rebuilt / np.float32(255))

    n_weights = sum(p.numel() for p in model.module_.parameters())
    rows = [
        [f"PCA, {LATENT_DIM} components", pca_error, 1.0, pca_seconds, None, pca.components_.size + pca.mean_.size],
        [f"imatlas Autoencoder, budget {options.budget}", error, error / pca_error, seconds, model.n_steps_, n_weights],
    ]
    save_table(
        "autoencoder",
        f"Reconstruction of Fashion-MNIST from {LATENT_DIM} numbers",
        ["model", "MSE", "MSE / PCA MSE", "fit s", "steps", "weights"],
        rows,
        [
            "Fitted to the 60,000 training images without labels. MSE over the 28 x 28 pixels (range 0 to 1) of the "
            "10,000 test images; the autoencoder's output is rounded to 8 bits first.",
            f"Autoencoder: defaults except latent_dim and budget, seed {options.seed}; 1,000 of the training images "
            "are held out for validation. Fit time includes the mixture that it samples from.",
            "Target: at most 0.75 times the error of PCA.",
        ],
    )


def mse(images: np.ndarray, rebuilt: np.ndarray) -> float:
    """Mean squared error of images (N, H, W) uint8 against reconstructions in [0, 1]."""
    return float(np.mean((images / np.float32(255) - rebuilt) ** 2, dtype=np.float64))
