"""`imatlas learn` from start to report: `python -m benchmarks learn [--budget 5m] [--only grocery_photos]`.

The command runs in a process of its own. Labels are used for scoring only.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.metrics import normalized_mutual_info_score

import imatlas as ia
from benchmarks._data import SETS, fashion_mnist, folder_labels, grocery_photos
from benchmarks._memory import run_measured
from benchmarks._table import save_table, saved_table

TITLE = "imatlas learn from start to report"


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks learn")
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--only", choices=("grocery_photos", "fashion_mnist"))
    parser.add_argument("--keep", type=Path, help="folder to keep the atlases in")
    options = parser.parse_args(argv)
    saved = {row[0]: row for row in saved_table("learn", TITLE)["rows"]}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("grocery_photos", "fashion_mnist"):
            if options.only in (None, name):
                rows.append(_row(name, Path(scratch), options.budget, options.keep))
            elif SETS[name] in saved:
                rows.append(saved[SETS[name]])
    save_table(
        "learn",
        TITLE,
        [
            "set", "images", "budget", "wall min", "peak PSS GB", "topographic error", "QE / k-means QE",
            "MSE / PCA MSE", "kernel distance (floor)", "near copies", "clusters", "NMI with labels",
        ],
        rows,
        [
            "Grocery photos: 1,053 JPEG files in 43 folders (the labels); Fashion-MNIST: the 60,000 training images as "
            "one .npy file, 10 classes. No labels are used in learning; the encoder for Grocery photos was pretrained "
            "with ImageNet labels.",
            "Errors, ratios and distances on held-out images (10 %, at most 1,000); k-means with as many centers as "
            "the map has cells.",
            "Wall time: the whole command with interpreter start, intake and report; peak: summed PSS of all "
            "processes, sampled every 0.2 s. Seed 0.",
        ],
    )  # fmt: skip


def _row(name: str, scratch: Path, budget: str, keep: Path | None) -> list[object]:
    if name == "grocery_photos":
        source = grocery_photos()
    else:
        source, labels = scratch / "fashion.npy", fashion_mnist()[1]
        np.save(source, fashion_mnist()[0])
    folder = (keep or scratch) / f"{name}.atlas"
    shutil.rmtree(folder, ignore_errors=True)
    run = run_measured([sys.executable, "-m", "imatlas", "learn", str(source), "-o", str(folder), "--budget", budget])
    print(run.output)
    atlas = ia.load(folder)
    if name == "grocery_photos":
        labels = folder_labels(atlas.store.rows["key"].tolist())
    numbers = {**atlas.store.manifest.metrics["map"]["metrics"], **atlas.store.manifest.metrics["quality"]["metrics"]}
    return [
        SETS[name],
        len(atlas),
        budget,
        run.seconds / 60,
        run.peak_mb / 1024,
        numbers["topographic_error"],
        numbers.get("kmeans_ratio"),
        numbers["mse_ratio_to_pca"],
        f"{numbers['kernel_distance']:.3g} ({numbers['kernel_floor']:.3g})",
        numbers["near_copies"],
        len(np.unique(atlas.store.rows["cluster"])),
        normalized_mutual_info_score(labels, atlas.store.rows["cluster"]),
    ]
