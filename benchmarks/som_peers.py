"""Self-organizing map libraries compared: `python -m benchmarks som_peers [--sizes 20,50] [--only table,curve]`.

imatlas against XPySom, IntraSOM, torchsom, MiniSom, Somoclu and ten lines of NumPy on one core, each swept over epochs
and last radii. Peers that are not installed are skipped and named; the environment of peer X is installed from
benchmarks/peers/som_X.txt (see `benchmarks._peers`). Runs are cached (see `_som_runs.py`); those of imatlas are
repeated when its code changes.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks import _som_checks, _som_curve
from benchmarks._peers import add_prefix_option
from benchmarks._som_runs import installed, measured, ours_of, sets, settings_of
from benchmarks._table import save_table

PEERS = ("numpy", "xpysom", "intrasom", "torchsom", "somoclu", "minisom")
BATCH = ("numpy", "xpysom", "intrasom")
"""Fast enough for the full sweep."""

EPOCHS = (3, 5, 10, 20)
RADII = (2.0, 1.5, 1.0, 0.7, 0.5)
OURS: tuple[float | None, ...] = (None, 1.5, 1.0, 0.85, 0.7, 0.6, 0.5)
DECISIVE: tuple[float | None, ...] = (None, 1.0)
"""Our last radii at which speeds are compared; None is the default."""

REPEATS = 3
LONG = 20.0
"""Seconds above which a run is timed once: its ratio to ours is then far from any target."""

PARTS = ("sweep", "table", "curve", "hexagons", "scaling", "missing", "twice")
Run = dict[str, Any]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks som_peers")
    parser.add_argument("--sizes", default="20,50")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", default=",".join(sets()))
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--only", default=",".join(PARTS), help="some of: " + ",".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="few settings, one seed: a smoke test")
    add_prefix_option(parser)
    options = parser.parse_args(argv)
    prefix, parts = options.prefix, options.only.split(",")
    sizes, names = [int(side) for side in options.sizes.split(",")], options.data.split(",")
    peers = [peer for peer in options.peers.split(",") if installed(peer)]
    seeds = 1 if options.quick else options.seeds
    if "sweep" in parts:
        for side, data, peer in itertools.product(sizes, names, peers):
            _swept(peer, data, side, prefix, options.quick)
    if "table" in parts:
        rows = [row for side in sizes for data in names for row in _compare(data, side, peers, prefix, options.quick)]
        _table(rows, [peer for peer in PEERS if not installed(peer)])
    if "curve" in parts:
        swept = [peer for peer in BATCH if peer in peers]
        _som_curve.curves(sizes, names, swept, OURS, RADII, seeds, prefix)
    if "hexagons" in parts:
        _som_checks.hexagons(peers, (1.5, 1.2, 1.1, 1.0, 0.7, 0.5), prefix)
    if "scaling" in parts:
        _som_checks.scaling(prefix, quick=options.quick)
    if "missing" in parts:
        _som_checks.missing(seeds, prefix)
    if "twice" in parts:
        _som_checks.twice(prefix)


def sweep(peer: str, side: int, quick: bool) -> Iterator[Run]:
    """The settings that a peer is swept over; slow peers get the few named in the notes."""
    if quick:
        yield settings_of(side, 3, 0.7)
    elif peer in BATCH and side > 30 and peer != "numpy":
        yield from (settings_of(side, n_epochs, radius) for n_epochs in EPOCHS[1:] for radius in RADII[2:])
    elif peer in BATCH:
        for n_epochs in EPOCHS[: 4 if side <= 30 else 3]:
            for radius in RADII:
                yield settings_of(side, n_epochs, radius)
                if n_epochs <= 5 and radius <= 1:
                    yield settings_of(side, n_epochs, radius, sigma=side / 10)
                if n_epochs in (5, 10) and side <= 30 and peer != "numpy":
                    yield settings_of(side, n_epochs, radius, sigma=side / 2, init="random")
    elif peer == "torchsom" and side <= 30:
        for n_epochs, radius in ((3, 1.0), (3, 0.7), (10, 1.0), (10, 0.7), (10, 0.5)):
            yield settings_of(side, n_epochs, radius)
    elif peer in ("torchsom", "somoclu") and side <= 30:
        yield settings_of(side, 3, 0.7)
    elif side <= 30:
        yield settings_of(side, 1, 0.7)


def _swept(peer: str, data: str, side: int, prefix: list[str], quick: bool) -> list[Run]:
    runs = []
    for chosen in sweep(peer, side, quick):
        run = measured(peer, data, chosen, prefix=prefix)
        if "failed" in run:
            print(f"{peer}, {data}, {_in_words(chosen)}: {run['failed']}", flush=True)
        else:
            runs.append(run)
    return runs


def _compare(data: str, side: int, peers: list[str], prefix: list[str], quick: bool) -> Iterator[list[Any]]:
    """One row per decisive setting of ours and peer."""
    swept = {peer: _swept(peer, data, side, prefix, quick) for peer in peers}
    for radius in DECISIVE[:1] if quick else DECISIVE:
        ours = measured("imatlas", data, ours_of(side, radius), prefix=prefix)
        if "failed" in ours:
            yield [data, side, radius or "default", None, None, None, "imatlas failed: " + ours["failed"]]
            continue
        found = {peer: fastest(swept[peer], ours) for peer in peers}
        readings = with_our_schedule(side, ours).items()
        equal = [(peer, name, chosen) for peer in peers if peer in BATCH for name, chosen in readings if not radius]
        timed = [("imatlas", ours["settings"])]
        timed += [(peer, run["settings"]) for peer, run in found.items() if run]
        timed += [(peer, chosen) for peer, _, chosen in equal]
        runs: list[list[Run]] = [[] for _ in timed]
        for turn in range(1, 2 if quick else REPEATS + 1):  # Interleaved, so that a slow period affects all.
            for (peer, chosen), own in zip(timed, runs, strict=True):
                if turn == 1 or own[0]["seconds"] < LONG:
                    own.append(measured(peer, data, chosen, prefix=prefix, turn=turn))
        medians = [_median(own) for own in runs]
        yield from _rows(data, side, radius, medians, found, [(peer, name) for peer, name, _ in equal])


def fastest(runs: list[Run], ours: Run) -> Run | None:
    """The fastest run within 1 % of our quantization error at no higher topographic error."""
    reached = [run for run in runs if run["qe"] <= 1.01 * ours["qe"] and run["te"] <= ours["te"]]
    return min(reached, key=lambda run: run["seconds"], default=None)


def with_our_schedule(side: int, ours: Run) -> dict[str, Run]:
    """Settings of a peer with our number of epochs and radii, and with two choices of the number of rows.

    imatlas uses more rows from epoch to epoch, a peer the same in each: those of our first epoch, or the mean over our
    epochs, which makes the number of row visits equal.
    """
    schedule = ours["schedule"]
    n_rows_used = [n_rows for _, n_rows in schedule]
    choices = {"first": n_rows_used[0], "mean": round(statistics.fmean(n_rows_used))}
    (first, _), (last, _) = schedule[0], schedule[-1]
    return {
        name: settings_of(side, len(schedule), last, sigma=first, n_rows=n_rows) for name, n_rows in choices.items()
    }


def _median(runs: list[Run]) -> Run:
    return {
        **runs[0],
        "seconds": statistics.median(run["seconds"] for run in runs),
        "peak_mb": statistics.median(run["peak_mb"] for run in runs),
    }


def _rows(
    data: str,
    side: int,
    radius: float | None,
    medians: list[Run],
    found: dict[str, Run | None],
    equal: list[tuple[str, str]],
) -> Iterator[list[Any]]:
    ours, *others = medians
    name = f"{side} x {side}"
    used = f"{radius}" if radius else f"default ({ours['schedule'][-1][0]:.2f})"
    yield [data, name, used, "imatlas", f"{len(ours['schedule'])} epochs", *_numbers(ours), None]
    reached = [peer for peer, run in found.items() if run]
    for peer, run in zip(reached, others, strict=False):
        ratio = run["seconds"] / ours["seconds"]
        yield [data, name, used, peer, _in_words(run["settings"]), *_numbers(run), ratio]
    for peer in (peer for peer, run in found.items() if not run):
        yield [data, name, used, peer, "no run reaches our errors", None, None, None, None, None]
    for (peer, reading), run in zip(equal, others[len(reached) :], strict=True):
        ratio = run["seconds"] / ours["seconds"]
        yield [
            data,
            name,
            used,
            f"{peer}, our epochs, {reading} rows",
            _in_words(run["settings"]),
            *_numbers(run),
            ratio,
        ]


def _numbers(run: Run) -> list[float]:
    return [run["seconds"], run["qe"], run["te"], run["peak_mb"]]


def _in_words(settings: Run) -> str:
    rows = f", {settings['n_rows']} rows" if settings.get("n_rows") else ""
    radii = f"radius {settings['sigma']:.3g} to {settings['final_sigma']:.3g}"
    return f"{settings['n_epochs']} epochs, {radii}, {settings['init']} start{rows}"


def _table(rows: list[list[Any]], absent: list[str]) -> None:
    save_table(
        "som_peers",
        "Self-organizing maps: the fastest run of each library that reaches our errors (one core)",
        ["data", "map", "our last radius", "library", "settings", "seconds", "QE", "TE", "peak PSS MB", "time / ours"],
        [[*row, *[None] * (10 - len(row))] for row in rows],
        [
            "60,000 training rows; QE (quantization error) and TE (topographic error, 8 neighbors) on the 10,000 test "
            "rows, by one function for all. pixels784: Fashion-MNIST in [0, 1]; pca64: its 64 leading principal "
            "components.",
            "A peer's row is its fastest run with a QE within 1 % of ours at no higher TE. Swept: "
            f"{', '.join(map(str, EPOCHS))} epochs, last radius {', '.join(map(str, RADII))}, first radius a fifth of "
            "the side (3 and 5 epochs: also a tenth) from a PCA start; for XPySom and IntraSOM also half the side "
            "from a random start (5 and 10 epochs). At 50 x 50: NumPy without 20 epochs; XPySom and IntraSOM 5, 10 and "
            "20 epochs, last radius at most 1, PCA start only. Slow peers at 20 x 20 only: torchsom five runs, Somoclu "
            "one run of 3 epochs, MiniSom one epoch.",
            "Our epochs and rows: the peer gets our number of epochs and our first and last radius, on one subset of "
            "rows: as many as in our first epoch, or the mean over our epochs (equal row visits).",
            f"Time from rows in memory to the codebook: medians of {REPEATS} interleaved runs (one run above "
            f"{LONG:.0f} s), one thread on one core; without imports and a small warm-up fit. Peak: the whole process "
            "with its input.",
            *([f"Not installed here: {', '.join(absent)}."] if absent else []),
            "Targets: at least 15 times the fastest peer, 4 times the same peer with our rows and epochs, and 4 times "
            "NumPy.",
        ],
    )
