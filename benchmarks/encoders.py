"""Throughput of the pretrained encoder from JPEG files on one core: `python -m benchmarks encoders`.

About two minutes on an idle machine. Peer environment: encoders_ort, ONNX Runtime (see `benchmarks._peers`).
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
from sklearn.cluster import KMeans

from benchmarks._data import grocery_photos
from benchmarks._peers import PEERS, python_of
from benchmarks._table import mean_std, save_table
from benchmarks.peers.encoders_ort import BATCH, SIDE, center_crop
from imatlas import Images, PretrainedEncoder
from imatlas.images.decode import read_picture
from imatlas.images.picture import Aim
from imatlas.metrics.clustering import clustering_scores
from imatlas.models.onnx import export_onnx

Run = Callable[[list[Path]], tuple[np.ndarray, float]]
"""Files -> unit-length features (n, 1280), and CPU seconds."""


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
        for number in range(options.runs):  # Interleaved, so that a slow period affects all.
            for name, run in methods.items():
                runs[name].append(run(files))
                print(number, name, f"{len(files) / runs[name][-1][1]:.1f} images a second", flush=True)
    loop = runs["PyTorch fp32 loop, Pillow"]
    rows = []
    for name, found in runs.items():
        rates = [len(files) / seconds for _, seconds in found]
        ratio = statistics.median(own[1] for own in loop) / statistics.median(seconds for _, seconds in found)
        cosine = float((found[0][0] * loop[0][0]).sum(1).min())
        nmi = mean_std([_nmi(found[0][0], labels, seed) for seed in range(3)])
        spread = f"{min(rates):.1f} to {max(rates):.1f}"
        rows.append([name, statistics.median(rates), spread, ratio, f"{cosine:.5f}", nmi])
    save_table(
        "encoders",
        f"EfficientNet-Lite0 at {SIDE} px from JPEG files, one core",
        ["engine", "images/s per core", "range", "speed / loop", "min cosine to the loop", "k-means NMI"],
        rows,
        [
            f"{len(files)} images of Grocery photos, about 348 x 348 px, decoding included; medians of "
            f"{options.runs} interleaved runs; CPU time on one core with one thread.",
            f"k-means: scikit-learn, {len(set(labels))} clusters as there are folders, mean ± standard deviation over "
            "3 seeds.",
            _cost_breakdown(files),
            "Loop: Pillow's Lanczos, batches of 8, contiguous fp32. imatlas: PyTorch's Lanczos, batches of 4, channels "
            "last, prepacked weights, ReLU6 fused into the convolutions.",
        ],
    )


def _methods(folder: Path) -> dict[str, Run]:
    encoder = PretrainedEncoder().fit(np.zeros((1, 32, 32, 3), np.uint8))

    def ours(files: list[Path]) -> tuple[np.ndarray, float]:
        images = Images([str(path) for path in files], workers=1)
        encoder.transform(images[:BATCH])  # Warm up: pixel cache and one-time setup.
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
                batch = np.stack([center_crop(path) for path in files[start : start + BATCH]])
                parts.append(module(torch.from_numpy(batch)).numpy())
        seconds = time.process_time() - began
        features = np.concatenate(parts)
        return features / np.linalg.norm(features, axis=1, keepdims=True), seconds

    methods: dict[str, Run] = {"imatlas": ours, "PyTorch fp32 loop, Pillow": loop}
    python = python_of("encoders_ort")
    if not python.exists():
        print(f"ONNX Runtime is skipped: {python} does not exist; see benchmarks/_peers.py.")
        return methods
    model = folder / "encoder.onnx"
    export_onnx(encoder, model)

    def onnx(files: list[Path]) -> tuple[np.ndarray, float]:
        listed, out = folder / "files.txt", folder / "out.npz"
        listed.write_text("\n".join(map(str, files)), encoding="utf-8")
        command: list[Any] = [python, PEERS / "encoders_ort.py", model, listed, out]
        subprocess.run([str(part) for part in command], check=True)
        with np.load(out) as found:
            return found["features"], float(found["seconds"])

    return {**methods, "ONNX Runtime fp32, Pillow": onnx}


def _nmi(features: np.ndarray, labels: np.ndarray, seed: int) -> float:
    groups = KMeans(len(set(labels)), n_init=10, random_state=seed).fit_predict(features)
    return float(clustering_scores(labels, groups)["nmi"])


def _cost_breakdown(files: list[Path]) -> str:
    """Time of decoding and resizing in words, and an upper bound on the throughput."""
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
        f"Of imatlas' time per image, decoding takes {decoding * 1e3:.1f} ms and resizing {resizing * 1e3:.1f} ms. "
        f"With the network's {MULTIPLICATIONS / 1e6:.0f} million multiplications at the rate of a large matrix product "
        f"on this core ({rate / 1e9:.0f} billion per second), the upper bound is {1 / floor:.0f} images per second."
    )


MULTIPLICATIONS = 383.9e6
"""Per image of 224 px, summed over all convolutions."""
