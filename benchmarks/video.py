"""Cuts found in a video whose cuts are known, and what its intake and map cost: `python -m benchmarks video`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import imatlas
from benchmarks._data import SCRATCH
from benchmarks._memory import run_measured
from benchmarks._table import save_table
from benchmarks._video import FPS, HEIGHT, KINDS, WIDTH, Boundary, made_video
from imatlas.images.cuts import LONG, Shots
from imatlas.images.formats.video import read_video, small_frame

TOLERANCE = 0.1
"""Seconds by which a cut may be found before or after its transition."""

THRESHOLDS = np.linspace(0.02, 0.6, 59)
"""Fixed thresholds that are tried for the baseline."""

MODES = ("cuts", "5s", "2s", "1s", "0.2s")

INTAKE = """
import json, sys, time
from imatlas.images.dataset import Images
from imatlas.tasks.duplicates.by_hash import duplicate_of
began = time.perf_counter()
images = Images(sys.argv[1], video=sys.argv[2], thumbnail_size=256, image_size=64, fit="stretch")
n = len(images)
seconds = time.perf_counter() - began
print(json.dumps({"n": n, "seconds": seconds, "near": int((duplicate_of(images) >= 0).sum())}))
"""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks video")
    parser.add_argument("--seconds", type=float, default=600, help="length of the video")
    parser.add_argument("--budget", default="90s", help="learning time of the map")
    options = parser.parse_args(argv)
    path, boundaries, facts = made_video(options.seconds)
    about = [
        f"A video of {options.seconds:g} s, {WIDTH} x {HEIGHT}, {FPS} frames per second, H.264, {facts['shots']} shots "
        f"of Grocery photos that are panned and zoomed by an unsteady hand, with noise and {facts['flashes']} flashes; "
        "half of the cuts lead to the next photograph of the same shelf.",
    ]
    report_cuts(path, boundaries, about)
    report_intake(path, about, options.budget)


def report_cuts(path: Path, boundaries: list[Boundary], about: Sequence[str]) -> None:
    """Precision and recall of the cuts, by kind, against a fixed threshold on the same difference."""
    shots, times, differences = Shots(FPS), list[float](), list[float]()
    began = time.perf_counter()
    with open(path, "rb") as file, read_video(file) as reader:
        for milliseconds, frame in reader.frames():
            shots.add(milliseconds / 1000, lambda: small_frame(frame))  # noqa: B023 - called at once
            times.append(milliseconds / 1000)
            differences.append(shots.last_difference)
    shots.finish()
    seconds = time.perf_counter() - began
    fixed = [[t for t, d in zip(times, differences, strict=True) if d > level] for level in THRESHOLDS]
    best = max(fixed, key=lambda found: _f1(found, boundaries))
    rows = [
        ["imatlas, window of Yeo and Liu", *_scores(shots.cuts, boundaries), seconds],
        ["fixed threshold, the best one in hindsight", *_scores(best, boundaries), None],
    ]
    save_table(
        "video_cuts",
        "Cuts of a video",
        ["method", "found", "precision", "recall of cuts", "of fades through black", "of cross-fades", "F1", "seconds"],
        rows,
        [
            *about,
            f"A cut counts as found within {TOLERANCE:g} s of its transition. F1 is of cuts and fades; cross-fades are "
            "not sought, and one that is found counts as right for the precision.",
            "Seconds: decoding and comparing all frames.",
        ],
    )


def report_intake(path: Path, about: Sequence[str], budget: str) -> None:
    """Frames, time and memory of each way of taking frames; and a map of those at cuts."""
    rows = []
    for mode in MODES:
        run = run_measured([sys.executable, "-c", INTAKE, str(path), mode])
        read = json.loads(run.output.splitlines()[-1])
        rows.append([f"video={mode!r}", read["n"], read["near"], read["seconds"], run.peak_mb])
    folder = SCRATCH / "video" / "photos.atlas"
    shutil.rmtree(folder, ignore_errors=True)
    began = time.perf_counter()
    atlas = imatlas.learn(path, folder, video="cuts", budget=budget, progress=False)
    seconds = time.perf_counter() - began
    atlas.map(SCRATCH / "video" / "map.png", width=1200)
    n_clusters = len(set(atlas.table()["cluster"].to_pylist()))
    save_table(
        "video",
        f"Intake of a video of {path.stat().st_size / 2**20:.0f} MB",
        ["frames taken", "images", "of them near-duplicates", "seconds", "peak memory, MB"],
        rows,
        [
            *about,
            f"'cuts' is one frame of each shot, and one every {LONG:g} s of longer ones.",
            "Memory: PSS of a process that decodes the set to 64 px with thumbnails of 256 px and finds duplicates by "
            "hash; without any image it takes about as much as imatlas takes to be imported.",
            f"An atlas of the frames at cuts with a budget of {budget}: {len(atlas)} images, {n_clusters} clusters, "
            f"{seconds:.0f} s in all.",
        ],
    )


def _hits(found: Sequence[float], boundaries: Sequence[Boundary]) -> tuple[list[bool], list[bool]]:
    """Which of the found cuts are right, and which of the boundaries are found; each is matched once, in order."""
    right, seen = [False] * len(found), [False] * len(boundaries)
    for number, boundary in enumerate(boundaries):
        for i, at in enumerate(found):
            if not right[i] and boundary.first - TOLERANCE <= at <= boundary.last + TOLERANCE:
                right[i] = seen[number] = True
                break
    return right, seen


def _f1(found: Sequence[float], boundaries: Sequence[Boundary]) -> float:
    right, seen = _hits(found, boundaries)
    sought = [s for s, boundary in zip(seen, boundaries, strict=True) if boundary.kind != "dissolve"]
    precision, recall = np.mean(right) if right else 0.0, np.mean(sought)
    return float(2 * precision * recall / max(precision + recall, 1e-9))


def _scores(found: Sequence[float], boundaries: Sequence[Boundary]) -> list[object]:
    """Number found, precision, recall by kind, and F1."""
    right, seen = _hits(found, boundaries)
    recalls = []
    for kind in KINDS:
        of_kind = [s for s, boundary in zip(seen, boundaries, strict=True) if boundary.kind == kind]
        recalls.append(f"{np.mean(of_kind):.3f} ({sum(of_kind)} of {len(of_kind)})" if of_kind else "")
    return [len(found), float(np.mean(right)) if right else None, *recalls, _f1(found, boundaries)]
