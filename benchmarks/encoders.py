"""How fast the pretrained eyes are, from JPEG files, on one core: `python -m benchmarks encoders`.

About two minutes on an idle machine. ONNX Runtime needs an environment of its own: `python -m venv
benchmarks/.envs/encoders_ort && benchmarks/.envs/encoders_ort/bin/pip install -r benchmarks/peers/encoders_ort.txt`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.cluster import KMeans

from benchmarks._data import grocery_photos
from benchmarks._table import save_table
from imatlas import Images, PretrainedEncoder
from imatlas.images.decode import read_picture
from imatlas.images.picture import Aim
from imatlas.metrics.clustering import clustering_scores
from imatlas.models.onnx import export_onnx

HERE = Path(__file__).parent
SIDE, BATCH = 224, 8
Run = Callable[[list[Path]], tuple[np.ndarray, float]]
"""Files -> features of length 1 (n, 1280), and the seconds of one core that they took."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks encoders")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(argv)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    files = sorted(grocery_photos().rglob("*.jpg"))
    files = [files[i] for i in np.linspace(0, len(files) - 1, min(options.images, len(files))).astype(int)]
    labels = np.array([path.parts[-2] for path in files])
    with tempfile.TemporaryDirectory() as folder:
        methods = _methods(Path(folder))
        runs: dict[str, list[tuple[np.ndarray, float]]] = {name: [] for name in methods}
        for number in range(options.runs):  # in turn, so that a slow minute hits all of them
            for name, run in methods.items():
                runs[name].append(run(files))
                print(number, name, f"{len(files) / runs[name][-1][1]:.1f} images a second", flush=True)
    loop = runs["PyTorch fp32 loop, Pillow"]
    rows = []
    for name, found in runs.items():
        rates = [len(files) / seconds for _, seconds in found]
        ratio = statistics.median(own[1] for own in loop) / statistics.median(seconds for _, seconds in found)
        cosine = float((found[0][0] * loop[0][0]).sum(1).min())
        scores = [_nmi(found[0][0], labels, seed) for seed in range(3)]
        nmi = f"{np.mean(scores):.3f} ± {np.std(scores):.3f}"
        spread = f"{min(rates):.1f} to {max(rates):.1f}"
        rows.append(
            [
                name,
                statistics.median(rates),
                spread,
                ratio,
                f"{cosine:.5f}",
                nmi,
            ]
        )
    save_table(
        "encoders",
        f"EfficientNet-Lite0 at {SIDE} px from JPEG files, one core",
        ["engine", "images/s a core", "range", "times the loop", "least cosine to the loop", "k-means, NMI"],
        rows,
        [
            f"{len(files)} photographs of about 348 x 348 px, decoding included; medians of {options.runs} runs, the "
            "engines taking turns; seconds of processor time on one core with one thread.",
            f"k-means: scikit-learn, {len(set(labels))} groups as there are folders, mean ± deviation over 3 seeds.",
            _parts(files),
            "The loop: Pillow's Lanczos, batches of 8, contiguous fp32. imatlas: PyTorch's Lanczos, "
            "batches of 4, channels last, weights packed once, ReLU6 within the convolutions.",
        ],
    )


def _methods(folder: Path) -> dict[str, Run]:
    encoder = PretrainedEncoder().fit(np.zeros((1, 32, 32, 3), np.uint8))

    def ours(files: list[Path]) -> tuple[np.ndarray, float]:
        images = Images([str(path) for path in files], workers=1)
        encoder.transform(images[:BATCH])  # the pixel cache, and what is made once
        began = time.process_time()
        return encoder.transform(images), time.process_time() - began

    def loop(files: list[Path]) -> tuple[np.ndarray, float]:
        module = encoder._build(None)
        module.load_state_dict(encoder.module_.state_dict())
        module.eval()
        parts = []
        began = time.process_time()
        with torch.inference_mode():
            for start in range(0, len(files), BATCH):
                batch = np.stack([_opened(path) for path in files[start : start + BATCH]])
                parts.append(module(torch.from_numpy(batch)).numpy())
        seconds = time.process_time() - began
        features = np.concatenate(parts)
        return features / np.linalg.norm(features, axis=1, keepdims=True), seconds

    methods: dict[str, Run] = {"imatlas": ours, "PyTorch fp32 loop, Pillow": loop}
    python = HERE / ".envs" / "encoders_ort" / "bin" / "python"
    if not python.exists():
        print(f"ONNX Runtime is left out: there is no {python}; see the head of this file.")
        return methods
    model = folder / "eyes.onnx"
    export_onnx(encoder, model)

    def onnx(files: list[Path]) -> tuple[np.ndarray, float]:
        listed, out = folder / "files.txt", folder / "out.npz"
        listed.write_text("\n".join(map(str, files)), encoding="utf-8")
        command: list[Any] = [python, HERE / "peers" / "encoders_ort.py", model, listed, out]
        subprocess.run([str(part) for part in command], check=True)
        with np.load(out) as found:
            return found["features"], float(found["seconds"])

    return {**methods, "ONNX Runtime fp32, Pillow": onnx}


def _opened(path: Path) -> np.ndarray:
    """The middle of a picture, (3, SIDE, SIDE) float32 in [-1, 1]."""
    image = Image.open(path).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    small = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    return np.asarray(small, np.float32).transpose(2, 0, 1) / 127.5 - 1


def _nmi(features: np.ndarray, labels: np.ndarray, seed: int) -> float:
    groups = KMeans(len(set(labels)), n_init=10, random_state=seed).fit_predict(features)
    return float(clustering_scores(labels, groups)["nmi"])


def _parts(files: list[Path]) -> str:
    """What decoding and resizing cost of imatlas's time, in words, and what cannot be beaten."""
    read = [path.read_bytes() for path in files]
    aim = Aim(SIDE, SIDE, "crop")
    began = time.process_time()
    pictures = [read_picture(data, aim=aim) for data in read]
    decoding = (time.process_time() - began) / len(files)
    began = time.process_time()
    for picture in pictures:
        picture.fitted(SIDE, SIDE, "crop", (255, 255, 255), quick=True)
    resizing = (time.process_time() - began) / len(files)
    square = torch.rand(1024, 1024)
    for _ in range(3):
        began = time.process_time()
        square @ square
        rate = 2**30 / (time.process_time() - began)
    floor = decoding + resizing + MULTIPLICATIONS / rate
    return (
        f"Of imatlas's time an image decoding takes {decoding * 1e3:.1f} ms, resizing {resizing * 1e3:.1f} ms. With "
        f"the {MULTIPLICATIONS / 1e6:.0f} million multiplications of the network at the rate of a large matrix product "
        f"on this core, {rate / 1e9:.0f} thousand million a second, {1 / floor:.0f} images a second are the floor."
    )


MULTIPLICATIONS = 383.9e6
"""Of one image of 224 px: the sum over all convolutions."""
