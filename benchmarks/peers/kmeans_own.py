"""k-means by imatlas or scikit-learn: `kmeans_own.py TRAIN.npy SETTINGS.json CENTERS.npy`; prints a line of JSON.

settings["model"] names the estimator. A small fit warms up.
"""

import json
import sys
import time
from importlib.metadata import version

import numpy as np
import sklearn.cluster
import torch

import imatlas as ia


def model(settings, **size):
    """The estimator, unfitted."""
    shared = {"random_state": settings["seed"], **size}
    if settings["model"] == "imatlas":
        return ia.KMeans(tol=0, **shared)
    if settings["model"] == "MiniBatchKMeans":
        return sklearn.cluster.MiniBatchKMeans(n_init=1, batch_size=settings["batch_size"], **shared)
    return sklearn.cluster.KMeans(n_init=1, tol=0, init=settings["init"], algorithm="lloyd", **shared)


data = np.load(sys.argv[1])
with open(sys.argv[2], encoding="utf-8") as file:
    settings = json.load(file)
torch.set_num_threads(settings["threads"])
model(settings, n_clusters=2, max_iter=2).fit(data[:1000])
began = time.perf_counter()
fitted = model(settings, n_clusters=settings["n_clusters"], max_iter=settings["max_iter"]).fit(data)
seconds = time.perf_counter() - began
np.save(sys.argv[3], fitted.cluster_centers_)
package = "imatlas" if settings["model"] == "imatlas" else "scikit-learn"
print(json.dumps({"version": version(package), "seconds": seconds, "n_iter": int(fitted.n_iter_)}), flush=True)
