"""The real image sets that benchmarks run on: IMATLAS_DATA, or `../shared/data` beside the checkout."""

from __future__ import annotations

import csv
import gzip
import os
import tarfile
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
