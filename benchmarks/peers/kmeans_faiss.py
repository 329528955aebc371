"""k-means by faiss: `kmeans_faiss.py TRAIN.npy SETTINGS.json CENTERS.npy`; prints a line of JSON.

Its default limit of 256 training rows per center is lifted. A small fit warms up.
"""

import json
import sys
import time

import faiss
import numpy as np

data = np.load(sys.argv[1])
with open(sys.argv[2], encoding="utf-8") as file:
    settings = json.load(file)
faiss.omp_set_num_threads(settings["threads"])
faiss.Kmeans(data.shape[1], 2, niter=1, max_points_per_centroid=10**9).train(data[:1000])
chosen = {"niter": settings["max_iter"], "seed": settings["seed"] + 1, "max_points_per_centroid": 10**9}
began = time.perf_counter()
kmeans = faiss.Kmeans(data.shape[1], settings["n_clusters"], **chosen)
kmeans.train(data)
seconds = time.perf_counter() - began
np.save(sys.argv[3], kmeans.centroids)
print(json.dumps({"version": faiss.__version__, "seconds": seconds}), flush=True)
