"""Labeled image sets and their embeddings by the pretrained encoder, shared by `clustering` and `few_labels`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks._data import FOLDERS, SCRATCH, fashion_mnist, folder_labels
from imatlas import Images, PretrainedEncoder
from imatlas.tasks.choose_encoder import choose_encoder

CLASSES = {"fashion_mnist": 10, "eurosat": 10, "grocery_photos": 43}
"""The sets and their number of classes."""

SIZE = {"fashion_mnist": 96, "eurosat": 224, "grocery_photos": 224}
"""Input size of the pretrained encoder in pixels; images of 28 px need less."""

FOLDER = SCRATCH / "embeddings"
SOURCE = Path(__file__).parents[1] / "src" / "imatlas"


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of a set by the pretrained encoder: the chosen preset's (n, 128) and the last layer's (n, 1280)."""

    preset: str
    chosen: np.ndarray
    last_layer: np.ndarray
    why: str
    """How the preset was chosen, in words."""


def load_set(name: str) -> tuple[Images, np.ndarray]:
    """The images of a set and the label of each; Fashion-MNIST with both parts, training part first."""
    if name == "fashion_mnist":
        parts = [fashion_mnist(part) for part in ("train", "t10k")]
        return Images(np.concatenate([pixels for pixels, _ in parts])), np.concatenate([labels for _, labels in parts])
    images = Images(FOLDERS[name](), progress=False)
    return images, folder_labels(images.keys)


def embeddings(name: str, images: Images) -> Embeddings:
    """The embeddings of a set, cached by the code that computes them."""
    path = FOLDER / f"{name}-{code_key(('models/pretrained.py', 'tasks/choose_encoder.py'))}.npz"
    if not path.exists():
        last_layer = PretrainedEncoder(image_size=SIZE[name]).fit_transform(images)
        began = time.perf_counter()
        choice = choose_encoder(images, image_size=SIZE[name])
        choosing = time.perf_counter() - began
        chosen = choice.encoder.fit_transform(images)
        total = time.perf_counter() - began
        spent = f"Choosing took {choosing:.0f} s, with the features of all images {total:.0f} s"
        why = f"{choice.why}. {spent}, {torch.get_num_threads()} thread(s)."
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, preset=choice.name, chosen=chosen, last_layer=last_layer, why=why)
    with np.load(path) as saved:
        return Embeddings(str(saved["preset"]), saved["chosen"], saved["last_layer"], str(saved["why"]))


def code_key(parts: Sequence[str], *settings: str) -> str:
    """Hash of source files and folders of imatlas, and of settings."""
    files = [file for part in parts for file in _files(SOURCE / part)]
    content = b"".join(file.read_bytes() for file in files) + "".join(settings).encode()
    return hashlib.sha256(content).hexdigest()[:12]


def _files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]
