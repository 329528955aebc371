"""The image sets that benchmarks run on, from IMATLAS_DATA or `../shared/data` beside the checkout."""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(os.environ.get("IMATLAS_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SCRATCH = Path(__file__).parent / ".data"
"""Unpacked sets, computed features and runs; ignored by git."""


def fashion_mnist(part: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 28, 28) uint8 and labels (n,): 60,000 of "train" or 10,000 of "t10k"."""
    folder = ROOT / "fashion_mnist"

    def read(name: str, offset: int) -> np.ndarray:
        with gzip.open(folder / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    pixels = read(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    return pixels, read(f"{part}-labels-idx1-ubyte.gz", 8)


def unpacked(archive: str, folder: str) -> Path:
    """The folder that an archive of the image sets unpacks to, unpacked on the first call."""
    target = SCRATCH / folder
    if not target.exists():
        SCRATCH.mkdir(exist_ok=True)
        with tarfile.open(ROOT / archive) as tar:
            tar.extractall(SCRATCH, filter="data")
    return target


def grocery_photos() -> Path:
    """The folder of 1,053 shop photographs in 43 folders."""
    return unpacked("photos/grocery.tar", "grocery")


def eurosat() -> Path:
    """The folder of 1,750 satellite images: train and test, 10 folders each."""
    return unpacked("eurosat/eurosat_rgb64.tar", "eurosat")


def noto_emoji() -> Path:
    """The folder of 1,688 RGBA emoji, a folder per category."""
    return unpacked("emoji/noto_emoji64.tar", "noto_emoji64")


def bsds500(part: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Key, pixels (H, W, 3) uint8 and human segmentations (n_annotators, H, W) of the images of BSDS500.

    200 of "train", 100 of "val"; 481 x 321 or 321 x 481 pixels. Train is there to choose settings, val to report.
    """
    folder = ROOT / "bsds500"
    with tarfile.open(folder / "images_train_val.tar") as tar, np.load(folder / "groundtruth_train_val.npz") as truths:
        for key in truths.files:
            if key.startswith(f"{part}/"):
                file = tar.extractfile(f"{key}.jpg")
                assert file is not None
                with Image.open(file) as picture:
                    yield key, np.asarray(picture.convert("RGB")), truths[key]


SETS = {
    "grocery_photos": "Grocery photos",
    "eurosat": "EuroSAT",
    "fashion_mnist": "Fashion-MNIST",
    "noto_emoji": "Noto Emoji",
}
"""Key of each set (options, file names) and its name in tables."""

FOLDERS: dict[str, Callable[[], Path]] = {
    "grocery_photos": grocery_photos,
    "eurosat": eurosat,
    "noto_emoji": noto_emoji,
}
"""The sets that are folders of files."""


def folder_labels(keys: Iterable[str]) -> np.ndarray:
    """The label (n,) of each image of such a set by its key: the name of its folder."""
    return np.array([Path(key).parts[-2] for key in keys])


@dataclass(frozen=True)
class Labeled:
    """Images (n, H, W, C) uint8 and the index of their class (n,), split into a training and a test part."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def labeled(name: str) -> Labeled:
    """A set as arrays: Fashion-MNIST padded to 32 px, EuroSAT, Noto Emoji (RGBA) and Grocery photos at 64 px.

    Fashion-MNIST and EuroSAT have a test part; of the others a fifth, drawn with a fixed seed, is the test part.
    """
    if name == "fashion_mnist":
        parts = [fashion_mnist(part) for part in ("train", "t10k")]
        padded = [np.pad(pixels, ((0, 0), (2, 2), (2, 2)))[..., None] for pixels, _ in parts]
        return Labeled(padded[0], parts[0][1].astype(np.int64), padded[1], parts[1][1].astype(np.int64))
    from imatlas import Images

    images = Images(FOLDERS[name](), image_size=64, progress=False)
    labels = np.unique(folder_labels(images.keys), return_inverse=True)[1]
    if name == "eurosat":
        test = np.array(["test" in Path(key).parts for key in images.keys])
    else:
        test = np.zeros(len(labels), bool)
        test[np.random.default_rng(0).permutation(len(labels))[: len(labels) // 5]] = True
    pixels = np.asarray(images.pixels)
    return Labeled(pixels[~test], labels[~test], pixels[test], labels[test])
