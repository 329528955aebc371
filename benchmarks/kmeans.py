"""k-means beside faiss and scikit-learn: `python -m benchmarks kmeans [--clusters 100,1000] [--seeds 3]`.

faiss needs an environment of its own:
`python -m venv benchmarks/.envs/faiss && benchmarks/.envs/faiss/bin/pip install -r benchmarks/peers/kmeans_faiss.txt`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._memory import run_measured
from benchmarks._som_runs import FOLDER, HERE, ONE_THREAD, default_prefix, rows_of, sets, split_prefix
from benchmarks._table import save_table
from imatlas.neighbors import as_tensor, nearest

ITERATIONS = 25
PEERS: dict[str, dict[str, Any]] = {
    "imatlas": {"model": "imatlas"},
    "faiss": {},
    "scikit-learn, k-means++": {"model": "KMeans", "init": "k-means++"},
    "scikit-learn, random": {"model": "KMeans", "init": "random"},
    "scikit-learn, mini-batches": {"model": "MiniBatchKMeans", "batch_size": 4096},
}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks kmeans")
    parser.add_argument("--clusters", default="100,1000")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peers", help="a part of: " + "; ".join(PEERS))
    parser.add_argument("--data", default="pixels784", choices=sets())
    parser.add_argument("--prefix", default=default_prefix(), help="a command that each run goes through")
    options = parser.parse_args(argv)
    peers = options.peers.split(";") if options.peers else list(PEERS)
    rows = []
    for n_clusters in map(int, options.clusters.split(",")):
        runs: dict[str, list[dict[str, float]]] = {peer: [] for peer in peers}
        for seed in range(options.seeds):  # the peers in turn, so that a slow minute hits all of them
            for peer in peers:
                runs[peer].append(_run(peer, options.data, n_clusters, seed, split_prefix(options.prefix)))
                print(n_clusters, peer, seed, runs[peer][-1], flush=True)
        rows += _rows(n_clusters, runs)
    save_table(
        "kmeans",
        f"k-means beside each other: Fashion-MNIST, 60,000 x 784, {ITERATIONS} iterations, one core",
        ["k", "model", "version", "seconds", "range", "times ours", "inertia a row", "over ours", "peak PSS MB"],
        rows,
        [
            f"Medians over {options.seeds} seeds, the models taking turns; each run is a process of its own on one "
            "core with one thread. Seconds of the fit alone, after imports and a tiny fit; the fits of imatlas and "
            "scikit-learn end with labels of all rows, that of faiss does not.",
            "Inertia a row: mean squared distance of the 60,000 training rows to the nearest center, by one function "
            "for all. Pixels between 0 and 1. Tolerance 0, one start.",
            "faiss: its default of learning from at most 256 rows a center is off, so that it sees all rows. "
            "Mini-batches: 4,096 rows, 25 passes at most, stopping by its own rule; it learns less and is told for "
            "its time alone.",
            "Target at k = 1000: at least 4 times faster than faiss and 15 times faster than scikit-learn's k-means "
            "at an inertia within 0.5 % of theirs.",
        ],
    )


def _run(peer: str, data: str, n_clusters: int, seed: int, prefix: list[str]) -> dict[str, Any]:
    settings = {**PEERS[peer], "n_clusters": n_clusters, "max_iter": ITERATIONS, "seed": seed, "threads": 1}
    own = peer != "faiss"
    python = sys.executable if own else str(HERE / ".envs" / "faiss" / "bin" / "python")
    with tempfile.TemporaryDirectory() as folder:
        chosen, centers = Path(folder) / "settings.json", Path(folder) / "centers.npy"
        chosen.write_text(json.dumps(settings))
        limits = [f"{name}={value}" for name, value in ONE_THREAD.items()]
        limits = ["env", f"PYTHONPATH={HERE.parent / 'src' if own else ''}", *limits]
        script = HERE / "peers" / ("kmeans_own.py" if own else "kmeans_faiss.py")
        arguments = [str(FOLDER / f"{data}-train.npy"), str(chosen), str(centers)]
        run = run_measured([*prefix, *limits, python, str(script), *arguments])
        told = json.loads(next(line for line in reversed(run.output.splitlines()) if line.startswith("{")))
        return {**told, "peak_mb": run.peak_mb, "inertia": inertia(rows_of(data, "train"), np.load(centers))}


def inertia(data: np.ndarray, centers: np.ndarray) -> float:
    """Mean squared distance of rows to the nearest center: exact differences to the center that the search finds."""
    rows, codes = as_tensor(data), as_tensor(np.ascontiguousarray(centers, dtype=np.float32))
    labels, _ = nearest(rows, codes)
    parts = zip(rows.split(4096), labels.split(4096), strict=True)
    return sum(float((part - codes[label]).square_().sum(dtype=torch.float64)) for part, label in parts) / len(data)


def _rows(n_clusters: int, runs: dict[str, list[dict[str, Any]]]) -> list[list[Any]]:
    """One row a model; ratios of medians to ours."""

    def middle(peer: str, name: str) -> float:
        return statistics.median(run[name] for run in runs[peer])

    rows = []
    for peer, found in runs.items():
        seconds = [run["seconds"] for run in found]
        ratio = middle(peer, "seconds") / middle("imatlas", "seconds") if "imatlas" in runs else None
        over = middle(peer, "inertia") / middle("imatlas", "inertia") - 1 if "imatlas" in runs else None
        rows.append(
            [
                n_clusters,
                peer,
                found[0]["version"],
                statistics.median(seconds),
                f"{min(seconds):.2f} to {max(seconds):.2f}",
                ratio,
                middle(peer, "inertia"),
                None if over is None else f"{over:+.2%}",
                middle(peer, "peak_mb"),
            ]
        )
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
