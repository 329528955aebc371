"""Time that `learn` spends of its budget, by stage: `python -m benchmarks budget [--only grocery_photos]`.

`imatlas learn` in a process of its own, on sets of several sizes with tight to comfortable budgets.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

import imatlas as ia
from benchmarks._data import SETS, fashion_mnist, grocery_photos
from benchmarks._memory import Run, run_measured
from benchmarks._table import save_table
from imatlas.atlas.time_budget import SHARES

TITLE = "Budget of learn: time spent by stage"

RUNS = {"grocery_photos": [(24, 10), (261, 20), (261, 60), (1000, 40)], "fashion_mnist": [(2000, 30), (10_000, 120)]}
"""(images, budget in seconds) of each run."""

REPEATS, SHORT = 3, 40
"""Repeats of a run, and the budget in seconds up to which runs are repeated."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks budget")
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    options = parser.parse_args(argv)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.only:
            for n, budget in RUNS[name]:
                source = _some(name, n, Path(scratch) / f"{name}-{n}")
                rows.append(_row(name, n, budget, source, Path(scratch) / "set.atlas"))
    stages = list(SHARES["own"])
    save_table(
        "budget",
        TITLE,
        ["set", "images", "budget s", "learning s", "learning / budget", "whole command s", *stages],
        rows,
        [
            "Grocery photos: drawn at random, with the pretrained encoder; Fashion-MNIST: with an autoencoder trained "
            "on the set.",
            "Learning: everything after the pixel cache exists, which is what the budget covers. The whole command "
            "includes interpreter start and decoding.",
            "Stages: seconds spent, and in brackets the share of the budget. Unspent time goes to later stages; a "
            "minimum is reserved for the report.",
            f"The run with the median learning time of {REPEATS} up to a budget of {SHORT} s, single runs above. Seed "
            "0.",
        ],
    )  # fmt: skip


def _some(name: str, n: int, path: Path) -> Path:
    """A source of `n` images of a set."""
    if name == "fashion_mnist":
        path = path.with_suffix(".npy")
        np.save(path, fashion_mnist()[0][:n])
        return path
    files = sorted(file for file in grocery_photos().rglob("*") if file.suffix == ".jpg")
    path.mkdir(exist_ok=True)
    for number, file in enumerate(random.Random(0).sample(files, n)):
        shutil.copyfile(file, path / f"{number:04}.jpg")
    return path


def _row(name: str, n: int, budget: int, source: Path, folder: Path) -> list[object]:
    runs = [_run(source, folder, budget) for _ in range(REPEATS if budget <= SHORT else 1)]
    middle = statistics.median_low([sum(seconds.values()) for _, seconds, _ in runs])
    run, seconds, shares = next(run for run in runs if sum(run[1].values()) == middle)
    parts = [f"{seconds[stage]:.1f} ({share * budget:.1f})" for stage, share in shares.items()]
    return [SETS[name], n, budget, round(middle, 1), round(middle / budget, 2), round(run.seconds, 1), *parts]


def _run(source: Path, folder: Path, budget: int) -> tuple[Run, dict[str, float], dict[str, float]]:
    """The measured command, the seconds of each stage, and its share of the budget."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "imatlas", "learn", str(source), "-o", str(folder), "--budget", f"{budget}s"]
    run = run_measured(command)
    print(run.output)
    stages = ia.load(folder).store.manifest.stages
    shares = SHARES[stages["intake"]["encoder"]]
    return run, {stage: stages[stage]["seconds"] for stage in shares}, shares
