"""Calling convention of the SOM runners: `python som_X.py TRAIN.npy SETTINGS.json CODEBOOK.npy`.

SETTINGS: rows, cols, topology, n_epochs, sigma (first radius), final_sigma (radius of the last epoch), init, seed,
threads, and optionally n_rows (train on that many rows, drawn by the seed) or missing (share of values set to NaN). A
radius is the standard deviation of the Gaussian neighborhood, in cells. Prints one line of JSON with the seconds from
rows in memory to the codebook, after a warm-up fit of 256 rows on 4 x 4 cells. The codebook is row-major, odd rows of
hexagons shifted right.
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
    fit(np.array(data[:256]), {**settings, **tiny})  # Imports, compilation, setup.
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
    facts = {"version": number, "seconds": seconds, "input_mb": data.nbytes / 2**20, **more}
    print(json.dumps(facts), flush=True)
