"""MiniSom; see `_som.py`.

Online learning, one row at a time: an epoch is as many updates as rows. Its default schedule decays the radius to a
third, so the first radius is three times the last.
"""

import numpy as np
from _som import run
from minisom import MiniSom


def fit(data, settings):
    rows, cols = settings["rows"], settings["cols"]
    som = MiniSom(
        cols, rows, data.shape[1], sigma=3 * settings["final_sigma"], learning_rate=0.5,
        topology=settings["topology"], random_seed=settings["seed"],
    )  # fmt: skip
    if settings["init"] == "pca":
        som.pca_weights_init(data)
    else:
        som.random_weights_init(data)
    som.train(data, settings["n_epochs"] * len(data), random_order=True)
    weights = np.asarray(som.get_weights())  # (cols, rows, features)
    if settings["topology"] == "hexagonal" and rows % 2 == 0:
        weights = weights[::-1]
    return weights.transpose(1, 0, 2).reshape(rows * cols, -1)


if __name__ == "__main__":
    run("minisom", fit)
