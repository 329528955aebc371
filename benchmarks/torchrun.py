"""Training in several processes: `python -m benchmarks torchrun [--only vae gan] [--batch 64] [--quick]`.

The same network, images and number of steps in one process with one thread, in two processes with one thread each under
torchrun, and in one process with two threads. Each run is a program of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

from benchmarks._data import fashion_mnist
from benchmarks._table import save_table, saved_table

WAYS = {
    "1 process, 1 thread": (1, 1),
    "2 processes, 1 thread each": (2, 1),
    "1 process, 2 threads": (1, 2),
}
"""Processes, and threads of each."""

NETWORKS = ("autoencoder", "vae", "gan", "flow_matching")
BATCH_SIZES = (64, 256)
N_IMAGES, N_STEPS, RUNS = 10_000, 300, 3
"""Number of steps at the first batch size; larger batches take fewer, of as many images in all."""
QUICK = (1000, 20, 1)
TITLE = "Training in several processes"


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks torchrun")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--batch", nargs="+", type=int, default=list(BATCH_SIZES))
    parser.add_argument("--quick", action="store_true", help="few steps, one run; saves no table")
    parser.add_argument("--one", nargs=4, metavar=("NAME", "BATCH", "IMAGES", "STEPS"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        name, *numbers = options.one
        _train(name, *map(int, numbers))
        return
    n_images, n_steps, runs = QUICK if options.quick else (N_IMAGES, N_STEPS, RUNS)
    rows = {tuple(row[:2]): row for row in saved_table("torchrun", TITLE)["rows"]}
    for name in options.only:
        for batch_size in options.batch:
            steps = n_steps * BATCH_SIZES[0] // batch_size
            rows[name, batch_size] = _row(name, batch_size, n_images, steps, runs)
            print(rows[name, batch_size], flush=True)
            if not options.quick:
                _save(list(rows.values()), n_images, n_steps, runs)


def _save(rows: list[list[Any]], n_images: int, n_steps: int, runs: int) -> None:
    save_table(
        "torchrun",
        TITLE,
        [
            "network", "batch", *(f"{way}: images/s" for way in WAYS), "2 processes / 1 thread", "2 threads / 1 thread",
            *(f"{way}: held-out loss" for way in WAYS),
        ],
        rows,
        [
            f"{n_images:,} images of Fashion-MNIST of 28 x 28 pixels, a tenth held out; {n_steps} steps of "
            f"{BATCH_SIZES[0]} images, or as many of more, seed 0. Each process takes its share of every batch.",
            f"Medians of {runs} alternating runs, each a new program. Images per second of training, with its "
            "evaluations and without imports and reading. The held-out loss is that after the last step.",
            "Noise within a step differs between one process and two.",
        ],
    )  # fmt: skip


def _row(name: str, batch_size: int, n_images: int, n_steps: int, runs: int) -> list[Any]:
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(runs):
        for way, (n_processes, n_threads) in WAYS.items():
            found[way].append(_run(n_processes, n_threads, name, batch_size, n_images, n_steps))
    speeds = [statistics.median(batch_size * n_steps / run["seconds"] for run in found[way]) for way in WAYS]
    losses = [statistics.median(run["held_out"] for run in found[way]) for way in WAYS]
    ratios = [round(speed / speeds[0], 2) for speed in speeds[1:]]
    return [name, batch_size, *(round(speed) for speed in speeds), *ratios, *losses]


def _run(n_processes: int, n_threads: int, *given: object) -> dict[str, float]:
    """One run in programs of their own."""
    command = [sys.executable]
    if n_processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_processes)]
    done = subprocess.run(
        [*command, "-m", "benchmarks", "torchrun", "--one", *map(str, given)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": str(n_threads)},
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _train(name: str, batch_size: int, n_images: int, n_steps: int) -> None:
    from imatlas.models import model_class
    from imatlas.system import processes

    options: dict[str, Any] = {"autoencoder": None} if name == "flow_matching" else {}
    model = model_class(name)(batch_size=batch_size, max_steps=n_steps, progress=False, random_state=0, **options)
    model.fit(fashion_mnist()[0][:n_images])
    if processes.is_first():
        print(json.dumps({"seconds": model.seconds_, "held_out": model.history_["held_out"][-1]}))
