"""Baseline: a batch SOM in ten lines of NumPy; see `_som.py`."""

import numpy as np
from _som import run


def fit(data, settings):
    """PCA start, fp32 products in cache-sized chunks, one smoothing with the full Gaussian per epoch."""
    rows, cols, n_epochs = settings["rows"], settings["cols"], settings["n_epochs"]
    first, last = settings["sigma"], settings["final_sigma"]
    y, x = (axis.ravel() for axis in np.mgrid[:rows, :cols].astype(np.float32))
    if settings["topology"] == "hexagonal":
        x, y = x + 0.5 * (y % 2), y * np.float32(0.75**0.5)
    mean = data.mean(0)
    values, axes = np.linalg.eigh(np.cov(data[:: max(1, len(data) // 8192)], rowvar=False))
    grid = np.stack([(x / x.max() - 0.5) * 3, (y / y.max() - 0.5) * 3], axis=1)
    codebook = (mean + grid @ (axes[:, :-3:-1] * np.sqrt(values[:-3:-1])).T).astype(np.float32)
    apart = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
    scores = np.empty((1024, rows * cols), np.float32)
    for epoch in range(n_epochs):
        sigma = first * (last / first) ** (epoch / max(1, n_epochs - 1))
        half, best = (codebook**2).sum(1) / -2, np.empty(len(data), np.int64)
        for at in range(0, len(data), 1024):
            part = data[at : at + 1024]
            found = np.matmul(part, codebook.T, out=scores[: len(part)])
            best[at : at + 1024] = np.add(found, half, out=found).argmax(1)
        order = np.argsort(best, kind="stable")
        hits = np.bincount(best, minlength=rows * cols).astype(np.float32)
        sums = np.zeros_like(codebook)
        starts = np.flatnonzero(np.r_[True, np.diff(best[order]) > 0])
        for begin, end in zip(starts, np.r_[starts[1:], len(order)], strict=True):
            sums[best[order[begin]]] = data[order[begin:end]].sum(0)
        spread = np.exp(apart / np.float32(-2 * sigma**2))
        codebook = (spread @ sums) / np.maximum(spread @ hits, 1e-12)[:, None]
    return codebook


if __name__ == "__main__":
    run("numpy", fit)
