"""Update of an atlas after its folder grew by a tenth: `python -m benchmarks growth [--budget 5m]`.

`imatlas learn` on nine tenths of Grocery photos, then again on all of them: the time of the update, and how far the
first images moved. About seven minutes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

import imatlas as ia
from benchmarks._data import grocery_photos
from benchmarks._memory import run_measured
from benchmarks._table import save_table

ADDED = 0.1


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks growth")
    parser.add_argument("--budget", default="5m")
    options = parser.parse_args(argv)
    source = grocery_photos()
    files = [path.relative_to(source) for path in sorted(source.rglob("*.jpg"))]
    late = set(np.random.default_rng(0).permutation(len(files))[: round(ADDED * len(files))].tolist())
    with tempfile.TemporaryDirectory() as scratch:
        folder, place = Path(scratch) / "photos", Path(scratch) / "photos.atlas"
        command = [sys.executable, "-m", "imatlas", "learn", str(folder), "-o", str(place), "--budget", options.budget]
        rows, before = [], None
        for added in (False, True):
            for i, path in enumerate(files):
                if (i in late) == added:
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source / path, folder / path)
            run = run_measured(command)
            print(run.output, flush=True)
            now = _places(place)
            first = rows[0][2] if rows else run.seconds
            moved = ["", "", ""] if before is None else _moved(before, now)
            rows.append(["update" if added else "first run", len(now["key"]), run.seconds, run.seconds / first, *moved])
            before = now
    save_table(
        "growth",
        f"Update of an atlas after its folder grew by {ADDED:.0%} (Grocery photos)",
        ["run", "images", "seconds", "relative time", "mean move, map cells", "mean move, layout", "cluster changed"],
        rows,
        [
            f"Budget {options.budget}. Wall time of the whole command with interpreter start, intake and report.",
            "Moves of the images of the first run between map cells, and in the layout relative to its width; and the "
            "share of them whose cluster changed.",
        ],
    )


def _places(atlas: Path) -> dict[str, np.ndarray]:
    """The map position, layout position and cluster of each image of an atlas, sorted by key."""
    opened = ia.load(atlas)
    order = np.argsort(opened.store.rows["key"])
    columns = {name: np.asarray(opened.store.rows[name])[order] for name in ("key", "x", "y", "cluster")}
    columns["layout"] = np.asarray(opened.layout)[order]
    return columns


def _moved(before: dict[str, np.ndarray], now: dict[str, np.ndarray]) -> list[float]:
    """Mean move on the map and in the layout, and the share of images whose cluster changed."""
    rows = np.searchsorted(now["key"], before["key"])
    assert (now["key"][rows] == before["key"]).all()
    cells = np.hypot(*(now[axis][rows] - before[axis].astype(float) for axis in ("x", "y")))
    width = np.ptp(before["layout"], axis=0).max()
    layout = np.linalg.norm(now["layout"][rows] - before["layout"], axis=1) / width
    return [float(cells.mean()), float(layout.mean()), float((now["cluster"][rows] != before["cluster"]).mean())]
