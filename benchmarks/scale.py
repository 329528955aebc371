"""From ten thousand images to a million on one machine: `python -m benchmarks scale [--n 10000 100000 1000000]`.

JPEG files of 64 x 64 pixels, random parts of the images of three sets with 63 classes, in folders of 10,000; the first
folders are the smaller sets. `imatlas learn` runs in a process of its own; its memory is sampled and laid to the stage
that runs. A million files take 4 GB below benchmarks/.data, which stay there, as do the atlases.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.metrics import normalized_mutual_info_score

import imatlas as ia
from benchmarks._data import SCRATCH, eurosat, fashion_mnist, grocery_photos
from benchmarks._memory import Run, run_measured
from benchmarks._table import save_table, saved_table
from imatlas.tasks.search import InMemory

SIDE, QUALITY, IN_FOLDER = 64, 85, 10_000
N_QUERIES, K = 200, 10
STAGES = ("intake", "encoder", "map", "clusters", "outliers", "layout", "generator", "report")
STAGES_TITLE = "Learning from ten thousand to a million images: seconds and memory by stage"
WHOLE_TITLE = "Learning from ten thousand to a million images"
BUDGETS = {10_000: "3m", 100_000: "10m", 1_000_000: "30m"}
"""Of learning, after the intake; by the number of images."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks scale")
    parser.add_argument("--n", type=int, nargs="+", default=sorted(BUDGETS))
    options = parser.parse_args(argv)
    stages = {row[0]: row for row in saved_table("scale_stages", STAGES_TITLE)["rows"]}
    whole = {row[0]: row for row in saved_table("scale", WHOLE_TITLE)["rows"]}
    for n in options.n:
        atlas, run = learned(n)
        for row in stage_rows(n, atlas, run):
            stages[f"{n:,} {row[0]}"] = [f"{n:,} {row[0]}", *row[1:]]
        whole[f"{n:,}"] = whole_row(n, atlas, run)
        _save(sorted(stages.values(), key=_place), sorted(whole.values(), key=_place))


def _place(row: list[Any]) -> tuple[int, int]:
    """Where a row belongs in its table: by the number of images, then by the stage."""
    n, _, stage = row[0].partition(" ")
    return int(n.replace(",", "")), STAGES.index(stage) if stage else 0


def learned(n: int) -> tuple[Path, Run]:
    """An atlas of the first `n` images, and how it was learned."""
    folder = SCRATCH / "scale" / f"{n}.atlas"
    shutil.rmtree(folder, ignore_errors=True)
    sources = [str(part) for part in folders(n)]
    run = run_measured(
        [sys.executable, "-m", "imatlas", "learn", *sources, "-o", str(folder), "--budget", BUDGETS.get(n, "10m")],
        every=1.0,
    )
    print(run.output, flush=True)
    return folder, run


def stage_rows(n: int, atlas: Path, run: Run) -> list[list[Any]]:
    """Seconds, images a second, and peak memory in MB of each stage, with mapped files and without."""
    events = [json.loads(line) for line in (atlas / "metrics.jsonl").read_text().splitlines()]
    begun = {e["stage"]: e["time"] for e in events if e["event"] == "stage" and e["state"] == "started"}
    seconds = {e["stage"]: e["seconds"] for e in events if e["event"] == "stage" and e["state"] == "done"}
    rows = []
    for stage in STAGES:
        # The images are decoded before the first stage is told of.
        start = run.samples[0][0] if stage == "intake" else begun[stage]
        end = begun[stage] + seconds[stage]
        during = [sample[1:] for sample in run.samples if start <= sample[0] <= end + 0.2] or [(0.0, 0.0)]
        peak, own = (round(max(values)) for values in zip(*during, strict=True))
        rows.append([stage, round(end - start, 1), round(n / max(end - start, 1e-9)), peak, own])
    return rows


def whole_row(n: int, atlas: Path, run: Run) -> list[Any]:
    """The whole run, and how good its clusters and its search are."""
    opened = ia.load(atlas)
    labels = np.concatenate([np.load(part / "labels.npy") for part in folders(n)])
    rows = opened.store.rows
    numbers = [int(Path(key).stem) for key in rows["key"].tolist()]
    nmi = normalized_mutual_info_score(labels[numbers], rows["cluster"])
    size = sum(file.stat().st_size for file in atlas.rglob("*") if file.is_file())
    cached = sum(file.stat().st_size for file in (atlas / "cache").rglob("*") if file.is_file())
    return [
        f"{n:,}", BUDGETS.get(n, "10m"), round(run.seconds / 60, 1), round(run.peak_mb / 1024, 2),
        round(max(own for _, _, own in run.samples) / 1024, 2),
        len(np.unique(rows["cluster"])), round(float(nmi), 3),
        round(recall(opened), 3), round((size - cached) / 2**30, 2), round(cached / 2**30, 2),
    ]  # fmt: skip


def recall(opened: ia.Atlas) -> float:
    """Share of the true nearest images among those that the search finds."""
    table = opened.store.table
    if not table.has_index("embedding"):
        return 1.0  # small sets are searched exactly
    embedding = table.vectors("embedding")
    rows = np.sort(np.random.default_rng(0).permutation(len(embedding))[:N_QUERIES])
    true, _ = InMemory(embedding).nearest(embedding[rows], K)
    found = [table.nearest("embedding", embedding[row], K)[0] for row in rows]
    return float(np.mean([len(set(a.tolist()) & set(b.tolist())) / K for a, b in zip(true, found, strict=True)]))


def folders(n: int) -> list[Path]:
    """The folders of the first `n` images, made on the first call."""
    root = SCRATCH / "scale" / "images"
    numbers = range((n + IN_FOLDER - 1) // IN_FOLDER)
    missing = [number for number in numbers if not (root / f"{number:03d}" / "labels.npy").exists()]
    if missing:
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
            for number in processes.map(_write_folder, missing):
                print(f"{number + 1} of {len(numbers)} folders", flush=True)
    return [root / f"{number:03d}" for number in numbers]


def _write_folder(number: int) -> int:
    """Write one folder of images; its labels last."""
    folder = SCRATCH / "scale" / "images" / f"{number:03d}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    labels = np.empty(IN_FOLDER, np.int64)
    for i in range(IN_FOLDER):
        image = number * IN_FOLDER + i
        picture, labels[i] = _picture(image)
        picture.save(folder / f"{image:07d}.jpg", quality=QUALITY)
    np.save(folder / "labels.npy", labels)
    return number


def _picture(image: int) -> tuple[Image.Image, int]:
    """A random part of one image of the three sets in turn, and its class."""
    rng = np.random.default_rng(image)
    pictures, labels = _sets()[image % 3]
    which = int(rng.integers(len(pictures)))
    whole = Image.fromarray(pictures[which])
    side = round(min(whole.size) * float(rng.uniform(0.6, 1)))
    left, top = (int(rng.integers(length - side + 1)) for length in whole.size)
    part = whole.resize((SIDE, SIDE), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    pixels = np.asarray(part.convert("RGB"), np.float32)[:, :: int(rng.choice([1, -1]))]
    pixels = 255 * (np.clip(pixels, 0, 255) / 255) ** rng.uniform(0.7, 1.4) * rng.uniform(0.9, 1.1, 3)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), int(labels[which])


@lru_cache(maxsize=1)
def _sets() -> list[tuple[Any, np.ndarray]]:
    """Images and classes of Fashion-MNIST, Grocery photos and EuroSAT; no two sets share a class."""
    clothes, labels = fashion_mnist()
    found: list[tuple[Any, np.ndarray]] = [(clothes, labels.astype(np.int64))]
    for folder, ending in ((grocery_photos(), "jpg"), (eurosat(), "png")):
        files = sorted(folder.rglob(f"*.{ending}"))
        named = np.unique([file.parent.name for file in files], return_inverse=True)[1]
        pixels = [np.asarray(Image.open(file).convert("RGB").reduce(2 if ending == "jpg" else 1)) for file in files]
        found.append((pixels, named + 1 + max(int(labels.max()) for _, labels in found)))
    return found


def growth_rows(seconds: dict[str, float]) -> list[list[Any]]:
    """The exponent of each stage from one number of images to the next, where both were run: 1 is linear time."""
    sizes = sorted(BUDGETS)
    rows = []
    for stage in STAGES:
        times = [(n, seconds.get(f"{n:,} {stage}")) for n in sizes]
        exponents = [
            round(math.log(more / few, many / n), 2) if few and more else "-"
            for (n, few), (many, more) in pairwise(times)
        ]
        rows.append([stage, *exponents])
    return rows


def _save(stages: list[list[Any]], whole: list[list[Any]]) -> None:
    note = "JPEG files of 64 x 64 pixels, parts of the images of three sets with 63 classes; see `benchmarks/scale.py`."
    save_table(
        "scale_stages", STAGES_TITLE,
        ("images and stage", "seconds", "images a second", "peak PSS MB", "without files"), stages,
        [note, "The intake includes the start of the program. Without files: without pages of mapped files. Seed 0."],
    )  # fmt: skip
    sizes = [f"{n:,}" for n in sorted(BUDGETS)]
    save_table(
        "scale_growth",
        "Exponents of the time of each stage",
        ["stage", *(f"{few} to {many}" for few, many in pairwise(sizes))],
        growth_rows({row[0]: row[1] for row in stages}),
        ["1: time grows as the number of images. The generator fills what the budget leaves.", note],
    )
    save_table(
        "scale",
        WHOLE_TITLE,
        ("images", "budget", "wall min", "peak PSS GB", "without files", "clusters", "NMI with labels", f"recall@{K}",
         "atlas GB", "cache GB"),
        whole,
        [note, f"Recall: of the {K} nearest images of {N_QUERIES} images, by the search index. Seed 0."],
    )  # fmt: skip
