"""Ray with one and two workers on this machine: `python -m benchmarks ray_cluster [--images N]`.

Features of the pretrained encoder (one view of 224 px) of Grocery photos, the map and k-means of these features, each
compared with one process without Ray; then the same features while a worker, and while the driver is killed.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import imatlas as ia
from benchmarks._data import grocery_photos
from benchmarks._table import save_table
from imatlas.models.parts.feature_cache import FeatureCache
from imatlas.models.parts.sharded_embedding import AT_ONCE
from imatlas.scale.ray_cluster import RayWorkers, connected

N_IMAGES, RUNS, N_WARM = 2048, 3, 128
N_CLUSTERS = 43


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks ray_cluster")
    parser.add_argument("--images", type=int, default=N_IMAGES, help="number of images, photos are repeated")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--one", metavar="CACHE", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    images = pictures(options.images)
    if options.one:
        with connected("local", n_workers=2) as workers:
            embed(images, workers, FeatureCache(options.one))
        return
    expected = embed(images, None)
    with connected("local", n_workers=1) as workers:
        one, _ = rate(images, workers, options.runs)
    with connected("local", n_workers=2) as workers:
        two, features = rate(images, workers, options.runs)
        rows: list[list[Any]] = [
            ["embedding, 1 worker: images/s", one],
            ["embedding, 2 workers: images/s", two],
            ["2 workers / 1 worker", two / one],
            ["embedding: largest difference to one process", difference(features, expected)],
            *learned_rows(expected, workers),
            *killed_worker_rows(images, workers, expected),
        ]
        rows += killed_driver_rows(images, workers, expected)
    save_table(
        "ray_cluster",
        "Ray on one machine",
        ["", "value"],
        rows,
        [
            f"{len(images):,} images of Grocery photos (repeated), EfficientNet-Lite0, one view of 224 px, one thread "
            f"per worker; median of {options.runs} runs after {N_WARM} images to warm up. Decoding is part of it.",
            "Map: size by the rule of SOM; k-means: 43 clusters; both of the features, seed 0.",
        ],
    )


def pictures(n: int) -> ia.Images:
    """The first n photos, the whole set repeated as often as needed."""
    images = ia.Images(grocery_photos(), image_size=64)
    return images[np.arange(n) % len(images)]


def embed(images: ia.Images, workers: RayWorkers | None, cache: FeatureCache | None = None) -> np.ndarray:
    """Features (n_images, 1280), by the workers if there are any."""
    images = images[:]
    images.workers = workers
    return ia.PretrainedEncoder().fit(images).transform(images, cache=cache)


def rate(images: ia.Images, workers: RayWorkers, runs: int) -> tuple[float, np.ndarray]:
    """Images per second, and the features."""
    embed(images[:N_WARM], workers)
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        features = embed(images, workers)
        seconds.append(time.perf_counter() - began)
    return len(images) / statistics.median(seconds), features


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference."""
    return float(np.abs(a - b).max())


def learned_rows(X: np.ndarray, workers: RayWorkers) -> list[list[Any]]:
    """How the map and k-means differ from those of one process."""
    maps = [ia.SOM().fit(X, workers=w).codebook_ for w in (None, workers)]
    odd = [ia.OutlierDetector().fit(X, workers=w).outlier_scores_ for w in (None, workers)]
    means = [ia.KMeans(n_clusters=N_CLUSTERS).fit(X, workers=w).cluster_centers_ for w in (None, workers)]
    return [
        ["map: largest difference to one process", difference(*maps)],
        ["k-means: largest difference to one process", difference(*means)],
        ["outlier scores: largest difference to one process", difference(*odd)],
    ]


def killed_worker_rows(images: ia.Images, workers: RayWorkers, expected: np.ndarray) -> list[list[Any]]:
    """Kill a worker by its number while it embeds."""
    finished, before = threading.Event(), workers.n_retried

    def kill_one() -> None:
        while not finished.wait(0.5):
            busy = [int(p.parent.name) for p in Path("/proc").glob("[0-9]*/cmdline") if _is_busy(p)]
            if busy:
                os.kill(busy[0], signal.SIGKILL)
                return

    killer = threading.Thread(target=kill_one)
    killer.start()
    features = embed(images, workers)
    finished.set()
    killer.join()
    return [
        ["a worker killed: tasks computed again", workers.n_retried - before],
        ["a worker killed: largest difference", difference(features, expected)],
    ]


def _is_busy(command: Path) -> bool:
    """Whether a process is a worker of Ray of this user that computes a block."""
    try:
        return command.stat().st_uid == os.getuid() and command.read_bytes().startswith(b"ray::_run_block")
    except OSError:
        return False


def killed_driver_rows(images: ia.Images, workers: RayWorkers, expected: np.ndarray) -> list[list[Any]]:
    """Kill the driver once a part of the features is kept, and run it again."""
    with tempfile.TemporaryDirectory() as folder:
        driver = subprocess.Popen(
            [sys.executable, "-m", "benchmarks", "ray_cluster", "--images", str(len(images)), "--one", folder],
            env={k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
        )
        while driver.poll() is None and not list(Path(folder).glob("*.npy")):
            time.sleep(0.1)
        driver.kill()
        driver.wait()
        kept = sum(len(np.load(path)) for path in Path(folder).glob("*.npy"))
        features = embed(images, workers, FeatureCache(folder))
    return [
        [f"the driver killed: images kept (in parts of {AT_ONCE:,})", kept],
        ["the driver killed: largest difference after the second run", difference(features, expected)],
    ]
