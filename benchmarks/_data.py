"""The real image sets that benchmarks run on: IMATLAS_DATA, or `../shared/data` beside the checkout."""

from __future__ import annotations

import csv
import gzip
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(os.environ.get("IMATLAS_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SCRATCH = Path(__file__).parent / ".data"
"""Unpacked copies; not part of the repository."""


def fashion_mnist(part: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 28, 28) uint8 and labels (n,): 60,000 of "train" or 10,000 of "t10k"."""
    folder = ROOT / "fashion_mnist"

    def read(name: str, offset: int) -> np.ndarray:
        with gzip.open(folder / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    pixels = read(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    return pixels, read(f"{part}-labels-idx1-ubyte.gz", 8)


def unpacked(archive: str, folder: str) -> Path:
    """The folder that a tar of the sets unpacks to, unpacked once."""
    target = SCRATCH / folder
    if not target.exists():
        SCRATCH.mkdir(exist_ok=True)
        with tarfile.open(ROOT / archive) as tar:
            tar.extractall(SCRATCH, filter="data")
    return target


def grocery() -> Path:
    """The folder of 1,053 shop photographs in 43 folders."""
    return unpacked("photos/grocery.tar", "grocery")


def grocery_labels(keys: list[str]) -> np.ndarray:
    """The folder name of each photograph, by its key in an atlas of `grocery()`."""
    return np.array([Path(key).parts[-2] for key in keys])


def eurosat() -> Path:
    """The folder of 1,750 satellite pictures in 2 x 10 folders."""
    return unpacked("eurosat/eurosat_rgb64.tar", "eurosat")


def emoji() -> tuple[Path, dict[str, str]]:
    """The folder of 1,688 RGBA emoji, and the category of each file name."""
    folder = unpacked("emoji/noto_emoji64.tar", "noto_emoji64")
    with (folder / "index.csv").open(encoding="utf-8") as file:
        return folder, {row[next(iter(row))]: row.get("category", "") for row in csv.DictReader(file)}


@dataclass(frozen=True)
class Labeled:
    """Images (n, H, W, C) uint8 with the index of their class (n,), in a part to learn from and one to test with."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


LABELLED = ("clothes", "satellite", "emoji", "photos")
"""Sets that `labeled` knows."""


def labeled(name: str) -> Labeled:
    """A set as arrays: "clothes" at 32 px (padded), "satellite", "emoji" (RGBA) and "photos" at 64 px.

    Clothes and satellite pictures come in two parts; of emoji and photographs a fifth, drawn by one seed, is the test.
    """
    if name == "clothes":
        parts = [fashion_mnist(part) for part in ("train", "t10k")]
        padded = [np.pad(pixels, ((0, 0), (2, 2), (2, 2)))[..., None] for pixels, _ in parts]
        return Labeled(padded[0], parts[0][1].astype(np.int64), padded[1], parts[1][1].astype(np.int64))
    from imatlas import Images

    folder = {"satellite": eurosat, "emoji": lambda: emoji()[0], "photos": grocery}[name]()
    images = Images(folder, image_size=64, progress=False)
    kinds = np.array([Path(key).parts[-2] for key in images.keys])
    labels = np.unique(kinds, return_inverse=True)[1]
    if name == "satellite":
        test = np.array(["test" in Path(key).parts for key in images.keys])
    else:
        test = np.zeros(len(labels), bool)
        test[np.random.default_rng(0).permutation(len(labels))[: len(labels) // 5]] = True
    pixels = np.asarray(images.pixels)
    return Labeled(pixels[~test], labels[~test], pixels[test], labels[test])
