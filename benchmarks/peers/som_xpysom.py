"""XPySom; see `_som.py`.

Its `sigma` is halved by default (std_coeff=0.5); with 1 it is a standard deviation. Its radius would reach `sigmaN` one
epoch after the last, so `sigmaN` is set to give the last epoch the requested radius. In a batch SOM its learning rates
cancel out.
"""

import numpy as np
from _som import run
from xpysom import XPySom


def fit(data, settings):
    rows, cols, n_epochs = settings["rows"], settings["cols"], settings["n_epochs"]
    first, last = settings["sigma"], settings["final_sigma"]
    beyond = first * (last / first) ** (n_epochs / max(1, n_epochs - 1))
    som = XPySom(
        cols, rows, data.shape[1], sigma=first, sigmaN=beyond, std_coeff=1.0, topology=settings["topology"],
        random_seed=settings["seed"], n_parallel=settings.get("chunk", 0), xp=np,
    )  # fmt: skip
    if settings["init"] == "pca":
        som.pca_weights_init(data)
    elif settings["init"] == "sample":
        som.random_weights_init(data)
    som.train(data, n_epochs)
    weights = som.get_weights()  # (cols, rows, features); of hexagons the last row, the last but two … lie left
    if settings["topology"] == "hexagonal" and rows % 2 == 0:
        weights = weights[::-1]
    return weights.transpose(1, 0, 2).reshape(rows * cols, -1)


if __name__ == "__main__":
    run("xpysom", fit)
