"""Generators beside each other at equal wall time: `python -m benchmarks generation --data clothes --minutes 10`.

Each learns in a process of its own from the training part of a set, and is judged on the test part in the features of a
network that learned the labels of the set (`benchmarks._judge`) and that nobody here may tune. Peers need environments
of their own, benchmarks/.envs/NAME, made with `python -m venv` and benchmarks/peers/NAME.txt: pythae, torchcfm, ddpm.

A run is kept under benchmarks/.data/generation by its settings and its code, with a contact sheet of 64 of its images.
With `--models`, the rows of the others stay as an earlier run of the same length left them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._data import SCRATCH, SETS, Labeled, labeled
from benchmarks._judge import Judge, judge
from benchmarks._table import save_table, saved_table
from imatlas.metrics.generation import (
    copying_score,
    density_coverage,
    frechet_distance,
    near_copy_chance,
    near_copy_share,
    precision_recall,
)
from imatlas.neighbors import as_tensor, nearest
from imatlas.tasks.sample import write_samples

HERE = Path(__file__).parent
FOLDER = SCRATCH / "generation"
N_SAMPLES = 10_000
N_OVERLAP = 5_000
"""Images a side for precision, recall, density and coverage."""

MODELS: dict[str, tuple[str, str, str]] = {
    "default": ("imatlas", "default", "imatlas Autoencoder, mixture (as learn has it)"),
    "sharpened": ("imatlas", "sharpened", "imatlas Autoencoder, sharpened, mixture"),
    "autoencoder": ("imatlas", "Autoencoder", "imatlas Autoencoder, mixture (simple baseline)"),
    "flow": ("imatlas", "FlowMatching", "imatlas FlowMatching over the sharpened Autoencoder"),
    "gan": ("imatlas", "GAN", "imatlas GAN"),
    "vae": ("imatlas", "VAE", "imatlas VAE, normal prior"),
    "vae-mixture": ("imatlas", "VAE mixture", "imatlas VAE, sharpened, mixture"),
    "pythae-rae": ("pythae", "rae", "pythae RAE-L2, mixture"),
    "pythae-vae": ("pythae", "vae", "pythae VAE, prior"),
    "torchcfm": ("torchcfm", "otcfm", "torchcfm OT-CFM, pixels"),
    "ddpm": ("ddpm", "ddpm", "denoising-diffusion-pytorch, pixels"),
}
"""Name -> (runner and environment, method, name in the table)."""

COLUMNS = (
    "model", "Fréchet", "floor at this n", "n", "precision", "recall", "density", "coverage", "C_T", "near copies",
    "by chance", "s for 64 images", "s to fit", "weights", "what it says",
)  # fmt: skip


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks generation")
    parser.add_argument("--data", choices=SETS, default="fashion_mnist")
    parser.add_argument("--minutes", type=float, default=10.0, help="training time of each")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample-minutes", type=float, default=5.0, help="time after which no more images are drawn")
    parser.add_argument("--prefix", default="", help="a command that the runs go through, such as 'taskset -c 1'")
    parser.add_argument("--again", action="store_true", help="run anew what is kept")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    data, seen_by = labeled(options.data), judge(options.data)
    features = {"train": seen_by.features(data.train), "test": seen_by.features(data.test)}
    copies = _planted_copies(data.train)
    rows: list[list[Any]] = [
        ["real images", *_real_row(features)],
        ["planted copier", *_measures(seen_by.features(copies), features), *[None] * 3, "training images and noise"],
    ]
    table = f"generation_{options.data}" + ("" if options.minutes >= 1 else "_short")
    title = (
        f"New images beside each other: {options.data}, {options.minutes:g} minutes of training each, "
        f"{options.threads} threads"
    )
    before = saved_table(table, title)["rows"]
    for name, (_, _, told) in MODELS.items():
        if name in options.models:
            run = _run(name, data, options)
            row = _failed(run) if "failed" in run else _row(run, seen_by, features)
            rows.append([f"{told} {run.get('version', '')}".strip(), *row])
            print(rows[-1], flush=True)
        else:
            rows += [row for row in before if row[0].startswith(told)]
    save_table(
        table,
        title,
        COLUMNS,
        rows,
        _notes(options, data, seen_by),
    )


def _run(name: str, data: Labeled, options: argparse.Namespace) -> dict[str, Any]:
    """Train and sample one model, or find the kept run: what its runner told, and `samples`, the file of its images."""
    peer, method, _ = MODELS[name]
    python = sys.executable if peer == "imatlas" else str(HERE / ".envs" / peer / "bin" / "python")
    if not Path(python).exists():
        return {"failed": f"not installed (benchmarks/peers/{peer}.txt)"}
    settings = {
        "method": method,
        "seconds": 60 * options.minutes,
        "n_samples": N_SAMPLES,
        "sample_seconds": 60 * options.sample_minutes,
        "seed": options.seed,
        "threads": options.threads,
        "latent_dim": 64 if data.train.shape[1] <= 32 else 128,
    }
    key = hashlib.sha256(json.dumps([settings, _code(peer), data.train.shape]).encode()).hexdigest()[:12]
    folder = FOLDER / options.data / f"{name}-{options.minutes:g}min-{key}"
    told, samples = folder / "run.json", folder / "samples.npy"
    if options.again or not told.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.json").write_text(json.dumps(settings, indent=1))
        train = FOLDER / options.data / "train.npy"
        np.save(train, data.train)
        script = HERE / "peers" / f"gen_{peer}.py"
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        environment["PYTHONPATH"] = str(HERE.parent / "src") if peer == "imatlas" else ""
        command = [*shlex.split(options.prefix), python, str(script), train, folder / "settings.json", samples]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
        told.write_text(next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{")))
        write_samples(np.load(samples)[:64], folder / "samples.png", recipe={"model": name, **settings})
    return {**json.loads(told.read_text()), "samples": samples}


def _code(peer: str) -> str:
    """What a kept run stands for: its runner, its pins, and for imatlas the library."""
    files = [HERE / "peers" / "_generate.py", HERE / "peers" / f"gen_{peer}.py"]
    pins = HERE / "peers" / f"{peer}.txt"
    files += sorted((HERE.parent / "src" / "imatlas").rglob("*.py")) if peer == "imatlas" else [pins]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _row(run: dict[str, Any], seen_by: Judge, features: dict[str, np.ndarray]) -> list[Any]:
    measures = _measures(seen_by.features(np.load(run["samples"])), features)
    return [*measures, run["sample_64"], run["seconds"], run["n_weights"], run["said"]]


def _measures(made: np.ndarray, features: dict[str, np.ndarray]) -> list[Any]:
    """From the Fréchet distance to near copies."""
    train, test = features["train"], features["test"]
    near = [_frechet(test, made), _frechet(test, _some(train, len(made))), len(made), *_overlap(test, made)]
    return [*near, copying_score(train, test, made), *_near_copies(train, test, made)]


def _real_row(features: dict[str, np.ndarray]) -> list[Any]:
    """Training images in the place of made ones; copying is measured between two halves of the test part."""
    train, test = features["train"], features["test"]
    real = _some(train, N_SAMPLES)
    copying = [copying_score(train, test[::2], test[1::2]), *_near_copies(train, test[::2], test[1::2])]
    return [_frechet(test, real), None, len(real), *_overlap(test, real), *copying, *[None] * 4]


def _failed(run: dict[str, Any]) -> list[Any]:
    return [*[None] * (len(COLUMNS) - 2), run["failed"]]


def _planted_copies(train: np.ndarray) -> np.ndarray:
    """Training images with a little noise: what the copying test must catch."""
    copies = _some(train, N_SAMPLES)
    noise = np.random.default_rng(1).normal(0, 1, copies.shape)
    return np.clip(np.rint(copies + noise), 0, 255).astype(np.uint8)


def _some(rows: np.ndarray, n: int) -> np.ndarray:
    return rows[np.sort(np.random.default_rng(0).permutation(len(rows))[:n])]


def _frechet(test: np.ndarray, made: np.ndarray) -> float | None:
    return frechet_distance(test, made) if min(len(test), len(made)) >= 2 * test.shape[1] else None


def _overlap(test: np.ndarray, made: np.ndarray) -> Sequence[float]:
    n = min(len(test), len(made), N_OVERLAP)
    sides = _some(test, n), _some(made, n)
    return *precision_recall(*sides), *density_coverage(*sides)


def _near_copies(train: np.ndarray, test: np.ndarray, made: np.ndarray) -> tuple[float, float]:
    to_train = [nearest(as_tensor(a), as_tensor(train))[1].numpy() for a in (made, test)]
    return near_copy_share(*to_train), near_copy_chance(len(test), len(made))[0]


def _notes(options: argparse.Namespace, data: Labeled, seen_by: Judge) -> list[str]:
    n_features = seen_by.network.head.in_features
    return [
        f"{len(data.train):,} training images, {len(data.test):,} test images, "
        f"{data.train.shape[2]} x {data.train.shape[1]} x {data.train.shape[3]}; seed {options.seed}; "
        f"{options.minutes:g} minutes of training for each, on {options.threads} threads.",
        f"The judge: a plain CNN that learned the labels of the training part; it is right on {seen_by.accuracy:.1%} "
        f"of the test part. All distances are between its {n_features} features, to the test part. No generator saw a "
        "label.",
        "Fréchet distance of n images to the test part; it grows as n falls, so each row has its floor: that of n real "
        "training images. Left out where there are fewer than two images a feature.",
        f"Precision and recall (k = 3), density and coverage (k = 5) with equal numbers of images, at most "
        f"{N_OVERLAP:,}. C_T below -3 is copying. Near copies: share nearer to a training image than 99.9 % of test "
        "images; 'by chance' is what a perfect generator is expected to score. On the row of real images these three "
        "compare two halves of the test part.",
        f"At most {N_SAMPLES:,} images, and no more after {options.sample_minutes:g} minutes of sampling. Seconds for "
        "64 images: median of 3 in a warm process. Seconds to fit hold what comes after training (mixtures) too.",
        "Sharpened: a third of the autoencoder's time goes to its decoder alone, which learns from a discriminator; "
        "learn does that where there are 2,000 images or more. "
        "FlowMatching: 60 % of the time goes to its autoencoder. RAE and VAE of pythae get "
        "small convolutional networks of ours (its own are made for a GPU) and its trainer, stopped by the clock; "
        "torchcfm and denoising-diffusion-pytorch their own U-Nets at 32 channels. See benchmarks/peers/gen_*.py.",
    ]
