"""The calling convention of the map runners: `python som_X.py TRAIN.npy SETTINGS.json CODEBOOK.npy`.

SETTINGS holds rows, cols, topology, n_epochs, sigma (first radius), final_sigma (radius of the last epoch), init, seed,
threads, and perhaps n_rows (learn from that many rows, drawn by the seed) or missing (the share of values that are made
NaN, drawn by the seed). A radius is the standard deviation of the Gaussian neighborhood, in cells. One line of JSON
comes back: seconds from the rows in memory to the codebook, after the same fit of 256 rows on 4 x 4 cells for warming
up. The codebook is row-major, odd rows of hexagons shifted right.
"""

import hashlib
import json
import os
import sys
import time


def run(distribution, fit):
    """Time `fit(data, settings) -> codebook (n_cells, n_features)` and save what it returns."""
    from importlib.metadata import PackageNotFoundError, version

    import numpy as np

    data = np.load(sys.argv[1])
    with open(sys.argv[2], encoding="utf-8") as file:
        settings = json.load(file)
    if settings.get("n_rows"):
        chosen = np.random.default_rng(settings["seed"]).permutation(len(data))[: settings["n_rows"]]
        data = np.ascontiguousarray(data[np.sort(chosen)])
    if settings.get("missing"):
        gaps = np.random.default_rng(settings["seed"]).random(data.shape, dtype=np.float32) < settings["missing"]
        data[gaps] = np.nan
        del gaps
    target = os.path.abspath(sys.argv[3])
    tiny = {"rows": 4, "cols": 4, "n_epochs": 2, "sigma": 1.5, "final_sigma": 1.0}
    fit(np.array(data[:256]), {**settings, **tiny})  # what is imported, compiled or set up at the first call
    began = time.perf_counter()
    fitted = fit(data, settings)
    seconds = time.perf_counter() - began
    codebook, more = fitted if isinstance(fitted, tuple) else (fitted, {})
    codebook = np.ascontiguousarray(codebook, dtype=np.float32)
    np.save(target, codebook)
    more["sha256"] = hashlib.sha256(codebook.tobytes()).hexdigest()
    try:
        number = version(distribution)
    except PackageNotFoundError:
        number = ""
    described = {"version": number, "seconds": seconds, "warmed": "a tiny fit", "input_mb": data.nbytes / 2**20, **more}
    print(json.dumps(described), flush=True)
