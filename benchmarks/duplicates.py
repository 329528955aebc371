"""Recall and precision of near-duplicate detection: `python -m benchmarks duplicates [--sets eurosat] [--seeds 3]`.

Edited copies are planted in sets without duplicates, one kind of edit at a time. Peer environment: imagehash (see
`benchmarks._peers`).
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks._data import FOLDERS, SCRATCH, SETS, fashion_mnist
from benchmarks._edits import EDITS, edited_copy
from benchmarks._peers import PEERS, python_of
from benchmarks._table import save_table, saved_table
from imatlas.images.hashing import hamming
from imatlas.tasks.duplicates.gallery import Gallery
from imatlas.tasks.duplicates.groups import find_duplicates

ORDER = ("grocery_photos", "eurosat", "noto_emoji", "fashion_mnist")
HASHES = ("phash", "dhash", "whash")
DEFAULT_BITS = 10
"""Default threshold of imagededup: differing bits of 64, for the hash that imagehash calls phash."""

ROTATIONS = ("rotated", "mirrored")
"""Edits that are searched with `rotated=True`."""

PYTHON = python_of("imagehash")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks duplicates")
    parser.add_argument("--sets", nargs="+", choices=ORDER, default=list(ORDER))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--planted", type=int, default=200, help="copies per kind of edit")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    recall(options.sets, options.seeds, options.planted)


def files(name: str) -> list[Path]:
    """The image files of a set; of Fashion-MNIST the first 5,000 test images."""
    if name == "fashion_mnist":
        folder = SCRATCH / "duplicates" / "fashion_mnist"
        if not folder.exists():
            folder.mkdir(parents=True)
            for i, pixels in enumerate(fashion_mnist("t10k")[0][:5000]):
                Image.fromarray(pixels).save(folder / f"{i:05d}.png")
        return sorted(folder.glob("*.png"))
    folder = FOLDERS[name]()
    return sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))


def on_white(path: Path) -> Image.Image:
    """An image composited on white."""
    with Image.open(path) as image:
        if image.mode in ("RGBA", "LA", "P"):
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("L" if image.mode == "L" else "RGB")


def without_duplicates(paths: list[Path]) -> tuple[list[Path], int]:
    """The images left once no duplicates are found, rotated or not, and the number found at first."""
    gallery = Gallery.of(paths)
    keys, first = np.arange(len(paths)), None
    while True:
        part = _part(gallery, keys)
        found = [find_duplicates(part, rotated=rotated) for rotated in (False, True)]
        first = first if first is not None else found[0].result.metrics["n_duplicates"]
        single = np.all([each.group < 0 for each in found], axis=0)
        if single.all():
            return [paths[i] for i in keys], first
        keys = keys[single]


def _part(gallery: Gallery, rows: np.ndarray) -> Gallery:
    return Gallery(
        [gallery.keys[i] for i in rows],
        lambda some: gallery.pixels_of(rows[some]),
        lambda row: gallery.thumbnail_of(int(rows[row])),
        gallery.content[rows],
        gallery.area[rows],
        gallery.size[rows],
    )


def recall(names: list[str], n_seeds: int, n_planted: int) -> None:
    """One row per set and kind of edit: imatlas, and each hash at its best threshold."""
    title = "Edited copies found, against perceptual hashes"
    notes: list[str] = []
    new: dict[str, list[list[Any]]] = {}
    for name in names:
        began = time.process_time()
        paths, n_first = without_duplicates(files(name))
        notes.append(
            f"{SETS[name]}: {len(files(name)):,} images, {n_first} reported as duplicates before any were removed, "
            f"{len(paths):,} after."
        )
        print(notes[-1], flush=True)
        runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in EDITS}
        with tempfile.TemporaryDirectory() as folder:
            hashes = _hashed(paths, Path(folder))
            gallery = Gallery.of(paths)
            for seed in range(n_seeds):
                for kind, true, added in _planted(paths, n_planted, seed, Path(folder)):
                    runs[kind].append(_scored(gallery, paths, hashes, kind, true, added, Path(folder)))
                    print(name, kind, seed, runs[kind][-1], flush=True)
        new[name] = [_row(SETS[name], kind, found) for kind, found in runs.items()]
        print(f"{time.process_time() - began:.0f} s of CPU time", flush=True)
    saved = [row for row in saved_table("duplicates", title)["rows"] if len(row) == 6 + len(HASHES)]
    rows = [row for name in ORDER for row in new.get(name, [row for row in saved if row[0] == SETS[name]])]
    columns = ["set", "edit", "imatlas: recall", "precision", f"phash ≤ {DEFAULT_BITS}: recall", "precision"]
    columns += [f"{kind}: recall, precision (bits)" for kind in HASHES]
    save_table("duplicates", title, columns, rows, [*notes, *NOTES])


NOTES = (
    "One copy each of randomly drawn images; each kind of edit separately, among all images of the set without "
    "duplicates. A pair is found if both images are in one group; mean over seeds.",
    "Sets without duplicates: images are removed until imatlas finds no duplicates among the rest, rotated or not. "
    "Precision therefore counts wrong matches that appear once copies are present; the number of duplicates reported "
    "in the original sets is given above.",
    "Recompressed: JPEG quality 40 to 75. Resized: half to twice; cropped: a tenth of width and height; brightness: "
    "brightness and contrast by up to a quarter each; watermark: semi-transparent text over 60 % of the width; all "
    "saved as JPEG of quality 90. Rotated by 90, 180 or 270 degrees and mirrored: imatlas with rotated=True; the "
    "hashes have no such option.",
    "Hashes of imagehash, each with the threshold in bits that is best for this kind and set: the highest recall among "
    "those with precision 0.99, else the highest product of both.",
    "imagededup could not be run: it needs torchvision and downloads weights.",
)


def _planted(paths: list[Path], n: int, seed: int, folder: Path) -> Iterator[tuple[str, np.ndarray, list[Path]]]:
    """(kind, rows of the originals, files of the copies) per kind of edit."""
    rng = np.random.default_rng(seed)
    for kind in EDITS:
        true = rng.permutation(len(paths))[:n]
        new = []
        for i, row in enumerate(true.tolist()):
            new.append(folder / f"{kind}-{seed}-{i:04d}.jpg")
            new[-1].write_bytes(edited_copy(on_white(paths[row]), kind, rng))
        yield kind, true, new


def _scored(
    gallery: Gallery,
    paths: list[Path],
    hashes: dict[str, np.ndarray],
    kind: str,
    true: np.ndarray,
    new: list[Path],
    folder: Path,
) -> dict[str, Any]:
    n = len(paths)
    planted_pairs = {(int(row), n + i) for i, row in enumerate(true)}
    both = gallery.with_others(Gallery.of(new))
    found = find_duplicates(both, rotated=kind in ROTATIONS)
    members: dict[int, list[int]] = {}
    for row, group in enumerate(found.group.tolist()):
        if group >= 0:
            members.setdefault(group, []).append(row)
    pairs = {pair for rows in members.values() for pair in combinations(rows, 2)}
    quality: dict[str, Any] = {"ours": _quality(pairs, planted_pairs)}
    if kind not in ROTATIONS:
        for name, values in _hashed(new, folder).items():
            quality[name] = _by_bits(np.concatenate([hashes[name], values]), planted_pairs)
    return quality


def _quality(pairs: set[tuple[int, int]], true: set[tuple[int, int]]) -> tuple[float, float]:
    n_correct = len(pairs & true)
    return n_correct / len(true), n_correct / max(1, len(pairs))


def _by_bits(hashes: np.ndarray, true: set[tuple[int, int]]) -> list[tuple[float, float]]:
    """Recall and precision at thresholds of 0 to 20 bits."""
    a, b = np.array(sorted(true)).T
    right = hamming(hashes[a], hashes[b])
    counts = np.zeros(21, np.int64)
    for i in range(len(hashes) - 1):
        distance = hamming(hashes[i], hashes[i + 1 :])
        counts += np.bincount(distance[distance <= 20], minlength=21)
    found = np.cumsum(counts)
    return [(float((right <= bits).mean()), float((right <= bits).sum() / max(1, found[bits]))) for bits in range(21)]


def _hashed(paths: list[Path], folder: Path) -> dict[str, np.ndarray]:
    """Hashes of imagehash; empty if it is not installed."""
    if not PYTHON.exists():
        return {}
    listed, out = folder / "list.txt", folder / "hashes.npz"
    listed.write_text("\n".join(map(str, paths)))
    subprocess.run(
        [str(PYTHON), str(PEERS / "hash_files.py"), str(listed), str(out), *HASHES], check=True, capture_output=True
    )
    with np.load(out) as found:
        return {kind: found[kind] for kind in HASHES}


def _row(name: str, kind: str, runs: list[dict[str, Any]]) -> list[Any]:
    recall, precision = np.mean([run["ours"] for run in runs], axis=0)
    row: list[Any] = [name, kind, f"{recall:.3f}", f"{precision:.3f}"]
    at_default = np.mean([run["phash"][DEFAULT_BITS] for run in runs], axis=0) if "phash" in runs[0] else None
    row += [None, None] if at_default is None else [f"{value:.3f}" for value in at_default]
    for peer in HASHES:
        if peer not in runs[0]:
            row.append(None)
            continue
        means = np.mean([run[peer] for run in runs], axis=0)
        good = np.flatnonzero(means[:, 1] >= 0.99)
        bits = int(good[means[good, 0].argmax()]) if len(good) else int(means.prod(axis=1).argmax())
        row.append(f"{means[bits, 0]:.3f}, {means[bits, 1]:.3f} ({bits})")
    return row
