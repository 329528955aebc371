"""Segmentation of BSDS500: `python -m benchmarks segmentation [--only PARTS] [--methods NAMES]`.

`hierarchy`: the measures of the BSDS benchmark over scales. `superpixels`: boundary recall, undersegmentation error,
achievable accuracy and compactness at about 200 segments; the number asked for is adjusted on training images, so that
all methods give as many. `collection`: classes that are the same in all images. `scribbles`: segments from strokes.
`objects`: salient objects. `large`: time and memory of one large image. `domain`: microscopy and satellite images with
known masks (`benchmarks._domain` says how to get them).
Settings of the peers of the first two were fixed beforehand and not tuned. Val is reported, test is not used.
`--ucm FOLDER` adds a row for stored ultrametric contour maps (`ID.mat` with `ucm2`, as published for gPb-owt-ucm).
Peer environment: opencv, with benchmarks/peers/segments_opencv.txt (see `benchmarks._peers`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _objects
from benchmarks._collection import collection
from benchmarks._data import SCRATCH, bsds500
from benchmarks._domain import domain
from benchmarks._large_images import large
from benchmarks._peers import PEERS, add_prefix_option, env_command, last_json, python_of
from benchmarks._scribbles import scribbles
from benchmarks._table import save_table, saved_table
from imatlas.metrics.hierarchies import HierarchyCounts, cut_saliency, score_hierarchy, summarize
from imatlas.metrics.segmentation import achievable_accuracy, boundary_recall, compactness, undersegmentation_error

N_SEGMENTS = 200
N_CALIBRATION = 20
"""Training images on which the number of superpixels to ask for is adjusted."""


@dataclass(frozen=True)
class Method:
    """A segmenter: where it runs, and what it is swept over, from coarse to fine."""

    environment: str
    script: str
    name: str
    sweep: tuple[float, ...] = ()
    n_images: int | None = None
    """Images to report on, for slow methods; all by default."""


def _geometric(first: float, last: float, n: int) -> tuple[float, ...]:
    return tuple(float(value) for value in np.geomspace(first, last, n).round(2))


HIERARCHIES = {
    "imatlas hierarchy": Method(
        "imatlas", "segments_imatlas.py", "hierarchy", tuple(np.linspace(0.96, 0, 25).round(2).tolist())
    ),
    "scikit-image felzenszwalb": Method("imatlas", "segments_skimage.py", "felzenszwalb", _geometric(10000, 20, 25)),
    "scikit-image slic": Method("imatlas", "segments_skimage.py", "slic", _geometric(2, 400, 20)),
    "scikit-image quickshift": Method(
        "imatlas", "segments_skimage.py", "quickshift", _geometric(160, 5, 8), n_images=10
    ),
    "OpenCV mean shift": Method("opencv", "segments_opencv.py", "mean shift", _geometric(80, 4, 20)),
}
SUPERPIXELS = {
    "imatlas superpixels": Method("imatlas", "segments_imatlas.py", "superpixels"),
    "imatlas hierarchy": Method("imatlas", "segments_imatlas.py", "hierarchy, number"),
    "OpenCV SLIC": Method("opencv", "segments_opencv.py", "slic"),
    "OpenCV SLICO": Method("opencv", "segments_opencv.py", "slico"),
    "OpenCV SEEDS": Method("opencv", "segments_opencv.py", "seeds"),
    "OpenCV LSC": Method("opencv", "segments_opencv.py", "lsc"),
    "scikit-image slic": Method("imatlas", "segments_skimage.py", "slic"),
    "scikit-image felzenszwalb": Method("imatlas", "segments_skimage.py", "felzenszwalb, number"),
    "scikit-image quickshift": Method("imatlas", "segments_skimage.py", "quickshift, number", n_images=10),
}

Image = tuple[str, np.ndarray, np.ndarray]
"""Key, pixels and human segmentations."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks segmentation")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--methods", help="some of: " + "; ".join({**HIERARCHIES, **SUPERPIXELS}))
    parser.add_argument("--part", choices=("train", "val"), default="val", help="train saves no table")
    parser.add_argument("--n", type=int, help="only the first images; saves no table")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ucm", type=Path, help="folder of stored ultrametric contour maps")
    parser.add_argument("--wheels", type=Path, default=SCRATCH / "domain", help="folder of the images of `domain`")
    add_prefix_option(parser)
    options = parser.parse_args(argv)
    images = list(islice(bsds500(options.part), options.n))
    for part in options.only:
        PARTS[part](images, options)


def hierarchy(images: list[Image], options: argparse.Namespace) -> None:
    """ODS, OIS and AP over the scales of each method."""
    rows = []
    for title, method in _chosen(HIERARCHIES, options):
        used = images[: method.n_images]
        labels, facts = _run(method, method.sweep, used, options)
        counts = [score_hierarchy(labels[key], truths) for key, _, truths in used]
        rows.append([f"{title} {facts['version']}", len(used), len(method.sweep), *_scores(counts), _seconds(facts)])
        print(rows[-1], flush=True)
    if options.ucm:
        counts = [score_hierarchy(_stored(options.ucm, key), truths) for key, _, truths in images]
        rows.append(["gPb-owt-ucm (stored)", len(images), len(THRESHOLDS), *_scores(counts), None])
    counts = [score_hierarchy([truths[0]], truths[1:]) for _, _, truths in images]
    rows.append(["one human against the others", len(images), 1, *_scores(counts)[:-1], None, None])
    print(*rows[-2:], sep="\n", flush=True)
    _save(
        options,
        "segmentation_hierarchy",
        "Hierarchies of segmentations: BSDS500, val",
        ("method", "images", "scales", *SCORES.values(), "s per image"),
        rows,
        [
            "Measures as in the code of the benchmark (Arbelaez et al. 2011), whose stored examples are reproduced: "
            "covering, PRI and VOI to all digits, F to 0.0002. A scale is a value of the sweep, the same for all "
            "images. VOI in bits, less is better; F: boundary F-measure, tolerance 0.0075 of the diagonal.",
            "imatlas: levels 0.96 to 0; its 17 weights were fitted to human segmentations of training images. "
            "felzenszwalb: scales 10,000 to 20, sigma 0.8, smallest segment half the scale in pixels. slic: 2 to 400 "
            "segments, compactness 10. quickshift: largest distance 160 to 5. Mean shift: color radius 80 to 4, "
            "spatial radius 8, Lab; segments under 100 pixels merged.",
            f"Seconds: median for all scales together, {options.threads} thread(s).",
        ],
    )


def superpixels(images: list[Image], options: argparse.Namespace) -> None:
    """Measures of superpixels at an equal mean number of segments."""
    calibration = list(islice(bsds500("train"), N_CALIBRATION))
    rows = []
    for title, method in _chosen(SUPERPIXELS, options):
        few = calibration if method.n_images is None else calibration[: method.n_images // 2]
        asked = _number_to_ask_for(method, few, options)
        used = images[: method.n_images]
        labels, facts = _run(method, [asked], used, options)
        scored = np.array([_superpixel_scores(labels[key][0], truths) for key, _, truths in used])
        rows.append(
            [
                f"{title} {facts['version']}",
                len(used),
                round(asked),
                *scored.mean(axis=0).round(4).tolist(),
                _seconds(facts),
            ]
        )
        print(rows[-1], flush=True)
    _save(
        options,
        "segmentation_superpixels",
        f"Superpixels: BSDS500, val, about {N_SEGMENTS} segments",
        (
            *(
                "method",
                "images",
                "asked for",
                "segments",
                "boundary recall",
                "recall, 2 px",
                "undersegmentation error",
            ),
            *("achievable accuracy", "compactness", "s per image"),
        ),
        rows,
        [
            "Means over images and their human segmentations. Boundary recall: tolerance 0.0025 of the diagonal (1 "
            "pixel; Stutz et al. 2018) and 2 pixels; undersegmentation error of Neubert and Protzel 2012;"
            " achievable accuracy of Liu et al. 2011; compactness of Schick et al. 2012.",
            "imatlas superpixels: the five settings were chosen on 20 training images. "
            f"The number to ask for is adjusted on {N_CALIBRATION} training images. OpenCV SLIC, SLICO, LSC: 10 "
            "iterations, Lab, Gaussian blur of 3 pixels, ruler 10, ratio 0.075; SEEDS: 3 levels, prior 2, 5 bins, 10 "
            "iterations, Lab. scikit-image slic: compactness 10, sigma 1.",
            f"Seconds: median, {options.threads} thread(s).",
        ],
    )


def objects(images: list[Image], options: argparse.Namespace) -> None:
    """Masks of salient objects on composites and photographs."""
    _objects.compare(images, options, lambda script, chosen: _run(Method(*script), [0], chosen, options))


def _number_to_ask_for(method: Method, images: list[Image], options: argparse.Namespace) -> float:
    """The number whose mean number of segments is nearest to `N_SEGMENTS`, of a few tried."""
    asked, tried = float(N_SEGMENTS), {}
    for _ in range(4):
        labels, _ = _run(method, [asked], images, options)
        mean = float(np.mean([_number(maps[0]) for maps in labels.values()]))
        tried[asked] = abs(mean - N_SEGMENTS)
        asked *= N_SEGMENTS / mean
    return min(tried, key=lambda number: tried[number])


SCORES = {
    "covering_ods": "covering ODS",
    "covering_ois": "OIS",
    "covering_best": "best",
    "pri_ods": "PRI ODS",
    "pri_ois": "PRI OIS",
    "voi_ods": "VOI ODS",
    "voi_ois": "VOI OIS",
    "boundary_ods": "F ODS",
    "boundary_ois": "F OIS",
    "boundary_ap": "AP",
}
THRESHOLDS = np.arange(1, 51) / 51


def _scores(counts: list[HierarchyCounts]) -> list[float]:
    found = summarize(counts)
    return [round(found[name], 4) for name in SCORES]


def _superpixel_scores(labels: np.ndarray, truths: np.ndarray) -> list[float]:
    two = 2 / float(np.hypot(*labels.shape))
    by_truth = [
        (
            boundary_recall(labels, truth),
            boundary_recall(labels, truth, tolerance=two),
            undersegmentation_error(labels, truth),
            achievable_accuracy(labels, truth),
        )
        for truth in truths
    ]
    return [_number(labels), *np.mean(by_truth, axis=0), compactness(labels)]


def _number(labels: np.ndarray) -> int:
    return len(np.unique(labels))


def _chosen(methods: dict[str, Method], options: argparse.Namespace) -> Iterable[tuple[str, Method]]:
    """The methods asked for whose environment is installed."""
    for title, method in methods.items():
        if options.methods and title not in options.methods.split(";"):
            continue
        if python_of(method.environment).exists():
            yield title, method
        else:
            print(f"{title}: environment '{method.environment}' is missing, skipped")


def _run(
    method: Method, sweep: Iterable[float], images: list[Image], options: argparse.Namespace
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Label maps (K, H, W) of each image by key, and the facts that the segmenter prints."""
    with tempfile.TemporaryDirectory() as folder:
        pixels, settings, labels = (Path(folder) / name for name in ("images.npz", "settings.json", "labels.npz"))
        np.savez(pixels, **{key: image for key, image, _ in images})
        settings.write_text(json.dumps({"method": method.name, "sweep": list(sweep)}))
        command = [*options.prefix, *env_command(method.environment, options.threads), str(PEERS / method.script)]
        done = subprocess.run([*command, pixels, settings, labels], check=True, stdout=subprocess.PIPE, text=True)
        with np.load(labels) as file:
            return {key: file[key] for key in file.files}, last_json(done.stdout)


def _seconds(facts: dict[str, Any]) -> float:
    return statistics.median(facts["seconds"])


def _stored(folder: Path, key: str) -> list[np.ndarray]:
    """Cuts of a stored map of double size: its odd rows and columns are pixels, the others edges between them."""
    from scipy.io import loadmat

    saliency = loadmat(folder / f"{Path(key).name}.mat")["ucm2"].astype(np.float64)
    return cut_saliency(saliency[1::2, 2:-1:2], saliency[2:-1:2, 1::2], THRESHOLDS[::-1])


def _save(options: argparse.Namespace, name: str, *table: Any) -> None:
    """Save the table; rows of methods that were not run are kept."""
    if options.part == "val" and options.n is None:
        title, columns, rows, notes = table
        run = {row[0] for row in rows}
        save_table(
            name, title, columns, [row for row in saved_table(name, title)["rows"] if row[0] not in run] + rows, notes
        )


PARTS: dict[str, Callable[[list[Image], argparse.Namespace], None]] = {
    "hierarchy": hierarchy,
    "superpixels": superpixels,
    "collection": collection,
    "scribbles": scribbles,
    "objects": objects,
    "large": large,
    "domain": domain,
}
