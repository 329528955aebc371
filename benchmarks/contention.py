"""Slowdown under CPU contention: `python -m benchmarks contention [--only som|kmeans|late|learn] [--quick]`.

Each workload runs in a process of its own, alternating between the idle machine and one competing process per core.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks._data import fashion_mnist, grocery_photos
from benchmarks._table import save_table, saved_table

TITLE = "Slowdown with one competing process per core"
RUNS, QUICK_RUNS = 3, 1
N_PHOTOS, BUDGET = 1000, 40.0
TARGET = 2.5
IDLE = 0.93
"""Share of the cores that this process gets on an idle machine, at least."""

WORKLOADS = {
    "som": "SOM 20 x 20, 60,000 x 784",
    "kmeans": "KMeans of 50, 60,000 x 784",
    "late": "KMeans of 50, torch imported before imatlas",
    "learn": f"learn, {N_PHOTOS:,} photographs, budget {BUDGET:.0f} s",
}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks contention")
    parser.add_argument("--only", choices=tuple(WORKLOADS))
    parser.add_argument("--quick", action="store_true", help="one run each with little data; saves no table")
    parser.add_argument("--anyway", action="store_true", help="measure even if the machine is not idle")
    parser.add_argument("--one", choices=tuple(WORKLOADS), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        print(json.dumps(_work(options.one, options.quick)))
        return
    share = _idle_share()
    if share < IDLE and not options.anyway:
        sys.exit(
            f"The machine is not idle: {share:.0%} of its cores are available. Stop other programs, or use --anyway."
        )
    saved = {row[0]: row for row in saved_table("contention", TITLE)["rows"]}
    rows = []
    for name, label in WORKLOADS.items():
        if options.only in (None, name):
            rows.append(_row(name, label, options.quick))
            print(rows[-1], flush=True)
        elif label in saved:
            rows.append(saved[label])
    if options.quick:
        return
    save_table(
        "contention",
        TITLE,
        [
            "workload", "idle s", "contended s", "ratio", "idle CPU s", "contended CPU s", "runs",
            f"at most {TARGET:g} times", "generator steps",
        ],
        rows,
        [
            "Medians of alternating runs, each a new process with the default number of threads; contended: "
            f"{_n_cores()} endless Python loops, one per core. Time of the call alone, without imports and reading; "
            "CPU time is summed over all cores and grows if threads spin.",
            "A fair share of each core gives a ratio of 2.0. 'learn' keeps to its budget by doing less: generator "
            "steps, idle and contended.",
            f"{share:.0%} of the cores were available at the start.",
        ],
    )  # fmt: skip


def _row(name: str, label: str, quick: bool) -> list[object]:
    idle: list[dict[str, float]] = []
    contended: list[dict[str, float]] = []
    for _ in range(QUICK_RUNS if quick else RUNS):
        idle.append(_fresh(name, quick))
        with _other_programs():
            contended.append(_fresh(name, quick))
    middle = {
        side: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for side, runs in (("idle", idle), ("contended", contended))
    }
    ratio = middle["contended"]["seconds"] / middle["idle"]["seconds"]
    seconds = [round(middle[side][key], 2) for key in ("seconds", "cpu") for side in ("idle", "contended")]
    steps = [f"{middle[side]['steps']:.0f}" for side in middle if "steps" in middle[side]]
    on_target = "yes" if ratio <= TARGET else "no"
    return [label, *seconds[:2], round(ratio, 2), *seconds[2:], len(idle), on_target, " and ".join(steps)]


def _fresh(name: str, quick: bool) -> dict[str, float]:
    """One run in a process of its own, without environment variables about threads."""
    variables = {"OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT", "OPENBLAS_NUM_THREADS"}
    command = [sys.executable, *(["-c", LATE] if name == "late" else ["-m", "benchmarks"]), "contention", "--one", name]
    done = subprocess.run(
        [*command, *(["--quick"] if quick else [])],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={key: value for key, value in os.environ.items() if key not in variables},
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


LATE = "import sys, torch, sklearn.cluster; sys.argv[0] = 'benchmarks'; from benchmarks.__main__ import main; main()"
"""For the case that torch is imported before imatlas."""


def _work(name: str, quick: bool) -> dict[str, float]:
    """Run one workload: wall seconds, CPU seconds of all cores, and generator steps if any."""
    import imatlas as ia

    if name == "learn":
        return _learn(quick)
    pixels = fashion_mnist()[0]
    rows = pixels[: 10_000 if quick else len(pixels)].reshape(-1, 784).astype(np.float32) / 255
    model = ia.SOM(rows=20, cols=20) if name == "som" else ia.KMeans(n_clusters=50)
    began, used = time.perf_counter(), time.process_time()
    model.fit(rows)
    return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - used}


def _learn(quick: bool) -> dict[str, float]:
    import imatlas as ia

    n, budget = (150, 10.0) if quick else (N_PHOTOS, BUDGET)
    files = sorted(str(path) for path in grocery_photos().glob("*/*.jpg"))
    chosen = [files[i] for i in np.sort(np.random.default_rng(0).permutation(len(files))[:n])]
    folder = Path(tempfile.mkdtemp())
    try:
        began, used = time.perf_counter(), time.process_time()
        atlas = ia.learn(chosen, folder / "photos.atlas", budget=budget, progress=False)
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        for stage, decided in atlas.store.manifest.stages.items():
            print(f"{stage:<10} {decided['seconds']:6.1f} s  {decided['summary']}", file=sys.stderr, flush=True)
        return {"seconds": seconds, "cpu": cpu, "steps": float(atlas.model("generator").n_steps_)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _other_programs() -> Iterator[None]:
    """Context with one endless loop per core running."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(_n_cores())]
    try:
        time.sleep(0.5)  # Until they have started.
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def _n_cores() -> int:
    from imatlas.system.threads import usable_cores

    return usable_cores()


def _idle_share() -> float:
    """Share of the cores that this process gets."""
    from imatlas.system.threads import cores_obtained

    return min(1.0, cores_obtained(_n_cores(), seconds=1.0) / _n_cores())
