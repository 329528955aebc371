"""Update of an atlas after its folder grew by 1 %, and a killed intake: `python -m benchmarks growth [--n 20000]`.

The images are those of `python -m benchmarks scale`. `imatlas learn` on 99 % of them, then again on all: seconds of
each stage, beside the least that an update can take. Then an intake is killed with half of the images read, and run
again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import imatlas as ia
from benchmarks._data import SCRATCH
from benchmarks._memory import Run, run_measured
from benchmarks._table import save_table, saved_table
from benchmarks.scale import STAGES, folders
from imatlas.images.sources.opening import open_source

ADDED = 0.01
TITLE = f"Update of an atlas after its folder grew by {ADDED:.0%}: seconds"
KILLED_TITLE = "An intake that is killed with half of the images read, and run again"
PREDICTED = ("cell", "x", "y", "cluster", "confidence", "outlier", "umap_x", "umap_y")

COUNTING = """
import os, signal, sys, threading
from imatlas import Images
from imatlas.images import intake

read_item, lock, last = intake.read_item, threading.Lock(), int(sys.argv[3])
n = 0

def counted(*given):
    global n
    with lock:
        n += 1
        if n == last:
            os.kill(os.getpid(), signal.SIGKILL)
    return read_item(*given)

intake.read_item = counted
images = Images(sys.argv[1], cache_dir=sys.argv[2], image_size=64, thumbnail_size=128)
print(len(images), n)
"""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks growth")
    parser.add_argument("--n", type=int, nargs="+", default=[20_000])
    parser.add_argument("--budget", default="5m")
    options = parser.parse_args(argv)
    growth = {row[0]: row for row in saved_table("growth", TITLE)["rows"]}
    killed = {row[0]: row for row in saved_table("growth_killed", KILLED_TITLE)["rows"]}
    for n in options.n:
        scratch = SCRATCH / "growth"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            growth |= {row[0]: row for row in _grown(n, scratch, options.budget)}
            row = _killed(n, scratch)
            killed[row[0]] = row
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    save_table(
        "growth",
        TITLE,
        ["images, stage", "first run", "update", "floor"],
        list(growth.values()),
        [
            f"Images of 64 x 64 pixels; 99 % of them learned with a budget of {options.budget}, then all. Wall time. "
            "The first row of each is start, listing, decoding, and checks of the atlas.",
            "Floor: start of the interpreter with imatlas, listing and stamps of all images, decoding of the new ones "
            "(before the stages); features of the new ones (encoder).",
            "What was predicted for the first images was the same after the update: compared value by value.",
        ],
    )
    save_table(
        "growth_killed",
        KILLED_TITLE,
        ["images", "read before the kill", "read after it", "share read twice", "seconds", "uninterrupted"],
        list(killed.values()),
        ["SIGKILL. Seconds of the second process, and of one that was not killed; page cache warm."],
    )


def _grown(n: int, scratch: Path, budget: str) -> list[list[Any]]:
    """Seconds by stage of the first run, of the update, and the floor of the latter."""
    photos, atlas = scratch / "photos", scratch / "photos.atlas"
    files = [file for folder in folders(n) for file in sorted(folder.glob("*.jpg"))][:n]
    late = set(np.random.default_rng(0).permutation(n)[: round(ADDED * n)].tolist())
    command = [sys.executable, "-m", "imatlas", "learn", str(photos), "-o", str(atlas), "--budget", budget]
    runs, before = [], None
    for added in (False, True):
        for i, file in enumerate(files):
            if (i in late) == added:
                _link(file, photos / file.relative_to(file.parents[1]))
        events = len((atlas / "metrics.jsonl").read_text().splitlines()) if added else 0
        began = time.time()
        run = run_measured(command, every=1.0)
        print(run.output, flush=True)
        runs.append(_seconds(atlas, run, began, events))
        now = _predictions(atlas)
        if before is not None:
            assert all(now[key] == values for key, values in before.items()), "an image has moved"
        before = now
    floor = _floor(photos, [photos / files[i].relative_to(files[i].parents[1]) for i in sorted(late)], atlas)
    stages = ["before the stages", *STAGES, "all"]
    return [[f"{n:,} {stage}", *(round(run[stage], 1) for run in runs), floor.get(stage)] for stage in stages]


def _link(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, target)
    except OSError:  # another file system
        shutil.copyfile(file, target)


def _seconds(atlas: Path, run: Run, began: float, n_before: int) -> dict[str, float]:
    """Seconds of each stage, of what comes before them, and of all."""
    events = [json.loads(line) for line in (atlas / "metrics.jsonl").read_text().splitlines()[n_before:]]
    begun = {e["stage"]: e["time"] for e in events if e["event"] == "stage" and e["state"] == "started"}
    done = {e["stage"]: e["seconds"] for e in events if e["event"] == "stage" and e["state"] == "done"}
    return {"before the stages": begun["intake"] - began, **done, "all": run.seconds}


def _predictions(atlas: Path) -> dict[str, tuple[float, ...]]:
    """All that was predicted for each image."""
    rows = ia.load(atlas).store.rows
    return dict(zip(rows["key"].tolist(), zip(*(rows[name].tolist() for name in PREDICTED), strict=True), strict=True))


def _floor(photos: Path, new: list[Path], atlas: Path) -> dict[str, float]:
    """The least that an update can take: start, listing and stamps, decoding and features of the new images."""
    started = _timed(lambda: subprocess.run([sys.executable, "-c", "import imatlas.atlas.learn"], check=True))
    listed = _timed(lambda: open_source(photos).stamps())
    images = ia.Images(new, image_size=64, thumbnail_size=128)
    decoded = _timed(lambda: len(images))
    encoder = ia.load(atlas).model("encoder")
    embedded = _timed(lambda: encoder.transform(images))
    before = started + listed + decoded
    return {"before the stages": round(before, 1), "encoder": round(embedded, 1), "all": round(before + embedded, 1)}


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _killed(n: int, scratch: Path) -> list[Any]:
    """A row of the table of killed intakes."""
    photos, half = scratch / "photos", n // 2

    def read(cache: str, last: int) -> tuple[subprocess.CompletedProcess[str], float]:
        command = [sys.executable, "-c", COUNTING, str(photos), str(scratch / cache), str(last)]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        return done, time.perf_counter() - began

    whole, uninterrupted = read("whole", -1)
    assert whole.returncode == 0, whole.stderr
    read("killed", half)
    again, seconds = read("killed", -1)
    assert again.returncode == 0, again.stderr
    n_images, n_again = map(int, again.stdout.split())
    twice = (half + n_again - n_images) / n_images
    return [f"{n_images:,}", half, n_again, round(twice, 3), round(seconds, 1), round(uninterrupted, 1)]
