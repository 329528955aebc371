"""What else the map must show: hexagons beside peers, time and memory as rows grow, missing values, bit-equal runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks._som_runs import measured, noisy, ours_of, settings_of
from benchmarks._table import save_table

ROWS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
HEX = {"topology": "hexagonal"}
TOLD_HEX = {"torchsom": (3, (0.7,)), "somoclu": (1, (0.7,)), "minisom": (1, (0.7,))}
"""(epochs, last radii) of the slow ones."""

SLOW_ROWS = 6000


def hexagons(peers: Sequence[str], radii: Sequence[float], prefix: list[str]) -> None:
    """40 x 40 hexagonal cells on the pixels: ours at its default and swept, each peer swept."""
    rows = []
    for radius in (None, *radii):
        rows.append(_hex_row("imatlas", measured("imatlas", "pixels784", ours_of(40, radius, **HEX), prefix=prefix)))
    longer = {**ours_of(40, 1.1, **HEX), "n_epochs": 48}
    rows.append(_hex_row("imatlas", measured("imatlas", "pixels784", longer, prefix=prefix)))
    for peer in peers:
        n_epochs, some = TOLD_HEX.get(peer, (10, radii))
        slow = {"n_rows": SLOW_ROWS} if peer in TOLD_HEX and peer != "torchsom" else {}
        for radius in some:
            chosen = settings_of(40, n_epochs, radius, **HEX, **slow)
            rows.append(_hex_row(peer, measured(peer, "pixels784", chosen, prefix=prefix)))
    save_table(
        "som_hexagons",
        "40 x 40 hexagonal cells, 60,000 x 784 (one core)",
        ["library", "epochs", "last radius", "seconds", "QE", "TE", "peak PSS MB", "besides the input"],
        rows,
        [
            "TE: share of test rows whose two best cells do not touch, of 6. Peers: 10 epochs, PCA start, first "
            f"radius 8; torchsom 3 epochs; Somoclu and MiniSom one epoch over {SLOW_ROWS:,} rows, for time.",
            "XPySom's hexagonal rows lie 1 apart instead of √3/2, IntraSOM counts steps between hexagons, torchsom "
            "moves every other row down by half a row; all are measured on the regular lattice.",
            "Targets of ours: TE < 0.05 at a QE no worse than any peer's at that TE; under 1 GB.",
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
    told = radius or f"default ({schedule[-1][0]:.2f})"
    numbers = [run["seconds"], run["qe"], run["te"], run["peak_mb"], run["peak_mb"] - run["input_mb"]]
    return [peer, n_epochs, told, *numbers]


def scaling(prefix: list[str], *, quick: bool = False) -> None:
    """Time over rows of 64 columns on a 20 x 20 map, with its slope; memory of 1M x 784 on 50 x 50."""
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
        "Time and memory of the map as rows grow (one core)",
        ["data", "rows", "map", "seconds", "QE", "TE", "peak PSS MB", "besides the input"],
        rows,
        [
            f"Slope of log time over log rows: {slopes[0]:.2f} over all sizes, {slopes[1]:.2f} over the last three "
            "(1 is linear; below it, early epochs on a part of the rows weigh more where there are few).",
            "Synthetic: rows of Fashion-MNIST (64: of its PCA-64; 784: of its pixels) drawn again and again, each "
            "with Gaussian noise of a tenth of the deviation of the column. Errors on the 10,000 real test rows.",
            "Peak: summed PSS of the process with the interpreter, its libraries and the input in memory; 'besides' "
            "takes off the input alone. Rows below the whole set: the input is the part that is learned from, drawn "
            "from the whole, so their peak is that of the drawing. Target: under 1,500 MB.",
        ],
    )


def _scaled(run: dict[str, Any]) -> list[Any]:
    if "failed" in run:
        return [None, "failed: " + run["failed"][:80], None, None, None]
    partly = bool(run["settings"].get("n_rows"))
    besides = None if partly else run["peak_mb"] - run["input_mb"]
    return [run["seconds"], run["qe"], run["te"], None if partly else run["peak_mb"], besides]


def _slope(points: list[tuple[int, float]]) -> float:
    if len(points) < 2:
        return float("nan")
    n, seconds = np.log(np.array(points, dtype=float)).T
    return float(np.polyfit(n, seconds, 1)[0])


def missing(seeds: int, prefix: list[str]) -> None:
    """The map learned with 30 % of the values missing beside the one without gaps, both on complete test rows."""
    rows = []
    for data in ("pixels784", "pca64"):
        for side in (20, 50):
            for seed in range(seeds):
                whole = measured("imatlas", data, ours_of(side, None, seed), prefix=prefix)
                holed = measured("imatlas", data, ours_of(side, None, seed, missing=0.3), prefix=prefix)
                rows.append([data, f"{side} x {side}", seed, *_pair(whole, holed)])
    save_table(
        "som_missing",
        "The map learned with 30 % of the values missing",
        ["data", "map", "seed", "QE without gaps", "QE with gaps", "ratio", "TE without", "TE with", "s", "s with"],
        rows,
        [
            "Values missing completely at random, drawn by the seed, in the 60,000 training rows; both errors on the "
            "10,000 complete test rows. Target: a ratio of 1.05 at most.",
        ],
    )


def _pair(whole: dict[str, Any], holed: dict[str, Any]) -> list[Any]:
    if "failed" in whole or "failed" in holed:
        problem = whole.get("failed") or holed.get("failed")
        return [whole.get("qe"), "failed: " + str(problem)[:80], *[None] * 5]
    ratio = holed["qe"] / whole["qe"]
    return [whole["qe"], holed["qe"], ratio, whole["te"], holed["te"], whole["seconds"], holed["seconds"]]


def twice(prefix: list[str]) -> None:
    """Whether two processes with one seed give the same codebook bit for bit."""
    rows = []
    for data, topology in (("pixels784", "rectangular"), ("pca64", "hexagonal")):
        chosen = ours_of(20, None, topology=topology)
        first, second = (measured("imatlas", data, chosen, prefix=prefix, turn=turn) for turn in (0, 1))
        same = first.get("sha256") == second.get("sha256") if "failed" not in first else first["failed"][:80]
        rows.append([data, topology, "20 x 20", same, (first.get("sha256") or "")[:16]])
    save_table(
        "som_twice",
        "Two runs with one seed, each in a process of its own, one thread",
        ["data", "lattice", "map", "bit-equal", "sha256 of the codebook"],
        rows,
    )
