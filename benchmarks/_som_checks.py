"""Further checks of the map: hexagonal maps against peers, scaling, missing values, reproducibility."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks._som_runs import measured, noisy, ours_of, settings_of
from benchmarks._table import save_table

ROWS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
HEX = {"topology": "hexagonal"}
SLOW_HEX = {"torchsom": (3, (0.7,)), "somoclu": (1, (0.7,)), "minisom": (1, (0.7,))}
"""(epochs, last radii) of the slow peers."""

SLOW_ROWS = 6000


def hexagons(peers: Sequence[str], radii: Sequence[float], prefix: list[str]) -> None:
    """40 x 40 hexagonal cells on the pixels: imatlas by default and swept, each peer swept."""
    rows = []
    for radius in (None, *radii):
        rows.append(_hex_row("imatlas", measured("imatlas", "pixels784", ours_of(40, radius, **HEX), prefix=prefix)))
    longer = {**ours_of(40, 1.1, **HEX), "n_epochs": 48}
    rows.append(_hex_row("imatlas", measured("imatlas", "pixels784", longer, prefix=prefix)))
    for peer in peers:
        n_epochs, some = SLOW_HEX.get(peer, (10, radii))
        slow = {"n_rows": SLOW_ROWS} if peer in SLOW_HEX and peer != "torchsom" else {}
        for radius in some:
            chosen = settings_of(40, n_epochs, radius, **HEX, **slow)
            rows.append(_hex_row(peer, measured(peer, "pixels784", chosen, prefix=prefix)))
    save_table(
        "som_hexagons",
        "Hexagonal maps of 40 x 40 cells, 60,000 x 784 (one core)",
        ["library", "epochs", "last radius", "seconds", "QE", "TE", "peak PSS MB", "without input MB"],
        rows,
        [
            "TE: topographic error on the test rows, 6 neighbors. Peers: 10 epochs, PCA start, first radius 8; "
            f"torchsom 3 epochs; Somoclu and MiniSom one epoch over {SLOW_ROWS:,} rows, to limit the time.",
            "XPySom's hexagonal rows are 1 apart instead of √3/2, IntraSOM counts steps between hexagons, torchsom "
            "shifts every other row down by half a row; all are measured on the regular lattice.",
            "Targets: TE < 0.05 at a QE no higher than any peer's at that TE; under 1 GB.",
        ],
    )


def _hex_row(peer: str, run: dict[str, Any]) -> list[Any]:
    radius = run["settings"]["final_sigma"]
    if "failed" in run:
        return [
            peer,
            run["settings"]["n_epochs"],
            radius or "default",
            None,
            "failed: " + run["failed"][:80],
            *[None] * 3,
        ]
    schedule = run.get("schedule")
    n_epochs = len(schedule) if schedule else run["settings"]["n_epochs"]
    last_radius = radius or f"default ({schedule[-1][0]:.2f})"
    numbers = [run["seconds"], run["qe"], run["te"], run["peak_mb"], run["peak_mb"] - run["input_mb"]]
    return [peer, n_epochs, last_radius, *numbers]


def scaling(prefix: list[str], *, quick: bool = False) -> None:
    """Time over the number of rows (64 columns, 20 x 20 cells) and its slope; memory of 1M x 784 with 50 x 50 cells."""
    n_samples = 100_000 if quick else 1_000_000
    name, sizes = noisy(64, n_samples), [n for n in ROWS if n <= n_samples]
    runs = [measured("imatlas", name, ours_of(20, None, n_rows=n), prefix=prefix) for n in sizes]
    rows = [[name, n, "20 x 20", *_scaled(run)] for n, run in zip(sizes, runs, strict=True)]
    good = [(n, run["seconds"]) for n, run in zip(sizes, runs, strict=True) if "failed" not in run]
    slopes = [_slope(good), _slope(good[-3:])]
    wide = noisy(784, n_samples)
    rows.append([wide, n_samples, "50 x 50", *_scaled(measured("imatlas", wide, ours_of(50, None), prefix=prefix))])
    save_table(
        "som_scaling",
        "Time and memory of the map over the number of rows (one core)",
        ["data", "rows", "map", "seconds", "QE", "TE", "peak PSS MB", "without input MB"],
        rows,
        [
            f"Slope of log time over log rows: {slopes[0]:.2f} over all sizes, {slopes[1]:.2f} over the last three "
            "(1 is linear; it is lower for few rows, where the early epochs on a subset weigh more).",
            "Synthetic: rows of Fashion-MNIST (64: its PCA-64; 784: its pixels) drawn with replacement, each with "
            "Gaussian noise of a tenth of the standard deviation of the column. Errors on the 10,000 real test rows.",
            "Peak: summed PSS of the process with interpreter, libraries and input; 'without input' subtracts the "
            "input. No peak for subsets, where it would be that of drawing them. Target: under 1,500 MB.",
        ],
    )


def _scaled(run: dict[str, Any]) -> list[Any]:
    if "failed" in run:
        return [None, "failed: " + run["failed"][:80], None, None, None]
    is_subset = bool(run["settings"].get("n_rows"))
    without_input = None if is_subset else run["peak_mb"] - run["input_mb"]
    return [run["seconds"], run["qe"], run["te"], None if is_subset else run["peak_mb"], without_input]


def _slope(points: list[tuple[int, float]]) -> float:
    if len(points) < 2:
        return float("nan")
    n, seconds = np.log(np.array(points, dtype=float)).T
    return float(np.polyfit(n, seconds, 1)[0])


def missing(seeds: int, prefix: list[str]) -> None:
    """The map fitted with 30 % of the values missing, against the one fitted to complete rows."""
    rows = []
    for data in ("pixels784", "pca64"):
        for side in (20, 50):
            for seed in range(seeds):
                complete = measured("imatlas", data, ours_of(side, None, seed), prefix=prefix)
                gappy = measured("imatlas", data, ours_of(side, None, seed, missing=0.3), prefix=prefix)
                rows.append([data, f"{side} x {side}", seed, *_pair(complete, gappy)])
    save_table(
        "som_missing",
        "The map fitted with 30 % of the values missing",
        [
            "data",
            "map",
            "seed",
            "QE complete",
            "QE missing",
            "ratio",
            "TE complete",
            "TE missing",
            "complete s",
            "missing s",
        ],
        rows,
        [
            "Values of the 60,000 training rows missing completely at random, drawn by the seed; errors on the 10,000 "
            "complete test rows. Target: a ratio of at most 1.05.",
        ],
    )


def _pair(complete: dict[str, Any], gappy: dict[str, Any]) -> list[Any]:
    if "failed" in complete or "failed" in gappy:
        problem = complete.get("failed") or gappy.get("failed")
        return [complete.get("qe"), "failed: " + str(problem)[:80], *[None] * 5]
    ratio = gappy["qe"] / complete["qe"]
    return [complete["qe"], gappy["qe"], ratio, complete["te"], gappy["te"], complete["seconds"], gappy["seconds"]]


def twice(prefix: list[str]) -> None:
    """Whether two processes with the same seed give the same codebook bit for bit."""
    rows = []
    for data, topology in (("pixels784", "rectangular"), ("pca64", "hexagonal")):
        chosen = ours_of(20, None, topology=topology)
        first, second = (measured("imatlas", data, chosen, prefix=prefix, turn=turn) for turn in (0, 1))
        same = first.get("sha256") == second.get("sha256") if "failed" not in first else first["failed"][:80]
        rows.append([data, topology, "20 x 20", same, (first.get("sha256") or "")[:16]])
    save_table(
        "som_twice",
        "Two runs with the same seed in separate processes, one thread",
        ["data", "topology", "map", "bit-equal", "sha256 of the codebook"],
        rows,
    )
