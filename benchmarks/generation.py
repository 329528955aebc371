"""Image generators at equal training time: `python -m benchmarks generation [--data fashion_mnist] [--minutes 10]`.

Each generator is trained on the training part of a set in a process of its own and evaluated against the test part, in
the features of a fixed classifier (`benchmarks._classifier`). Peer environments: pythae, torchcfm, ddpm (see
`benchmarks._peers`).

Runs are cached under benchmarks/.data/generation by settings and code, with a contact sheet of 64 images each.
With `--models`, the rows of the other models are kept from the saved table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
from typing import Any

import numpy as np
import torch

from benchmarks._classifier import Classifier, classifier
from benchmarks._data import SCRATCH, SETS, Labeled, labeled
from benchmarks._generation_metrics import MAX_IMAGES, frechet, near_copies, overlap, subset
from benchmarks._peers import PEERS, add_prefix_option, env_command, last_json, python_of
from benchmarks._table import save_table, saved_table
from imatlas.metrics.generation import copying_score
from imatlas.tasks.sample import write_samples

FOLDER = SCRATCH / "generation"
N_SAMPLES = 10_000

N_SLOW = 2_000
"""Images of models that take a tenth of a second for one."""

MODELS: dict[str, tuple[str, str, str]] = {
    "patch": ("imatlas", "PatchDiffusion", "imatlas PatchDiffusion, nothing trained (default of learn for small sets)"),
    "default": ("imatlas", "default", "imatlas Autoencoder, mixture"),
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
    "model", "Fréchet", "floor", "n", "precision", "recall", "density", "coverage", "C_T", "near copies",
    "near copies expected", "64 images s", "fit s", "weights", "training",
)  # fmt: skip


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks generation")
    parser.add_argument("--data", choices=SETS, default="fashion_mnist", help="image set")
    parser.add_argument("--minutes", type=float, default=10.0, help="training time of each model")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample-minutes", type=float, default=5.0, help="time limit for sampling")
    add_prefix_option(parser, default=())
    parser.add_argument("--again", action="store_true", help="ignore cached runs")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    data, judge = labeled(options.data), classifier(options.data)
    features = {"train": judge.features(data.train), "test": judge.features(data.test)}
    copies = _training_copies(data.train)
    rows: list[list[Any]] = [
        ["real images", *_real_row(features)],
        ["training images + noise", *_measures(judge.features(copies), features), *[None] * 3, "control: a copier"],
    ]
    table = f"generation_{options.data}" + ("" if options.minutes >= 1 else "_short")
    length = f"{options.minutes:g} minutes of training each, {options.threads} thread(s)"
    title = f"Generators compared: {SETS[options.data]}, {length}"
    saved = saved_table(table, title)["rows"]
    for name, (_, _, label) in MODELS.items():
        if name in options.models:
            run = _run(name, data, options)
            row = _failed(run) if "failed" in run else _row(run, judge, features)
            rows.append([f"{label} {run.get('version', '')}".strip(), *row])
            print(rows[-1], flush=True)
        else:
            rows += [row for row in saved if label in (row[0], row[0].rpartition(" ")[0])]  # the version follows
    save_table(table, title, COLUMNS, rows, _notes(options, data, judge))


def _run(name: str, data: Labeled, options: argparse.Namespace) -> dict[str, Any]:
    """The output of one model's runner, cached or new, and `samples`, the file of its images."""
    peer, method, _ = MODELS[name]
    if not python_of(peer).exists():
        return {"failed": f"not installed (benchmarks/peers/{peer}.txt)"}
    settings = {
        "method": method,
        "seconds": 60 * options.minutes,
        "n_samples": N_SLOW if name == "patch" else N_SAMPLES,
        "sample_seconds": 60 * options.sample_minutes,
        "seed": options.seed,
        "threads": options.threads,
        "latent_dim": 64 if data.train.shape[1] <= 32 else 128,
    }
    key = hashlib.sha256(json.dumps([settings, _code(peer), data.train.shape]).encode()).hexdigest()[:12]
    folder = FOLDER / options.data / f"{name}-{options.minutes:g}min-{key}"
    output, samples = folder / "run.json", folder / "samples.npy"
    if options.again or not output.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.json").write_text(json.dumps(settings, indent=1))
        train = FOLDER / options.data / "train.npy"
        np.save(train, data.train)
        command = [*options.prefix, *env_command(peer, options.threads), PEERS / f"gen_{peer}.py"]
        command += [train, folder / "settings.json", samples]
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
        output.write_text(json.dumps(last_json(done.stdout)))
        write_samples(np.load(samples)[:64], folder / "samples.png", recipe={"model": name, **settings})
    return {**json.loads(output.read_text()), "samples": samples}


def _code(peer: str) -> str:
    """Hash of the code that a cached run depends on: its runner and its pinned versions, or imatlas itself."""
    files = [PEERS / "_generate.py", PEERS / f"gen_{peer}.py"]
    source = PEERS.parents[1] / "src" / "imatlas"
    files += sorted(source.rglob("*.py")) if peer == "imatlas" else [PEERS / f"{peer}.txt"]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _row(run: dict[str, Any], judge: Classifier, features: dict[str, np.ndarray]) -> list[Any]:
    measures = _measures(judge.features(np.load(run["samples"])), features)
    return [*measures, run["sample_64"], run["seconds"], run["n_weights"], run["training"]]


def _measures(generated: np.ndarray, features: dict[str, np.ndarray]) -> list[Any]:
    """The columns from the Fréchet distance to near copies."""
    train, test = features["train"], features["test"]
    n = len(generated)
    quality = [frechet(test, generated), frechet(test, subset(train, n)), n, *overlap(test, generated)]
    return [*quality, copying_score(train, test, generated), *near_copies(train, test, generated)]


def _real_row(features: dict[str, np.ndarray]) -> list[Any]:
    """Training images in place of generated ones; copying is measured between two halves of the test part."""
    train, test = features["train"], features["test"]
    real = subset(train, N_SAMPLES)
    copying = [copying_score(train, test[::2], test[1::2]), *near_copies(train, test[::2], test[1::2])]
    return [frechet(test, real), None, len(real), *overlap(test, real), *copying, *[None] * 4]


def _failed(run: dict[str, Any]) -> list[Any]:
    return [*[None] * (len(COLUMNS) - 2), run["failed"]]


def _training_copies(train: np.ndarray) -> np.ndarray:
    """Training images with a little noise, which the copying metrics must flag."""
    copies = subset(train, N_SAMPLES)
    noise = np.random.default_rng(1).normal(0, 1, copies.shape)
    return np.clip(np.rint(copies + noise), 0, 255).astype(np.uint8)


def _notes(options: argparse.Namespace, data: Labeled, judge: Classifier) -> list[str]:
    n_features = judge.network.head.in_features
    return [
        f"{len(data.train):,} training images, {len(data.test):,} test images, "
        f"{data.train.shape[2]} x {data.train.shape[1]} x {data.train.shape[3]}; seed {options.seed}; "
        f"{options.minutes:g} minutes of training each on {options.threads} thread(s).",
        f"Metrics use the {n_features} features of a plain CNN classifier trained on the labels of the training part "
        f"(test accuracy {judge.accuracy:.1%}), against the test part. No generator uses labels.",
        "Fréchet distance of n images to the test part. It grows as n falls; floor: the distance of n real training "
        "images. Omitted with fewer than two images per feature.",
        f"Precision and recall (k = 3), density and coverage (k = 5): equally many images per side, at most "
        f"{MAX_IMAGES:,}. C_T below -3 indicates copying. Near copies: share of images closer to a training image than "
        "99.9 % of test images; expected: of a perfect generator. In the row of real images, these three compare two "
        "halves of the test part.",
        f"At most {N_SAMPLES:,} images and {options.sample_minutes:g} minutes of sampling. 64 images: median of 3 in a "
        "warm process. Fit time includes steps after training (mixtures).",
        "PatchDiffusion searches neighbors in features of the pretrained encoder (of small images for gray sets), in "
        "which its novelty is also calibrated; it was given no training time and no labels of the set, but ImageNet's "
        "labels trained that encoder.",
        "Sharpened: training of the decoder alone on textures for a third of the autoencoder's time; learn does it "
        "from 2,000 images on. FlowMatching: 60 % of the time is its autoencoder's. pythae's RAE and VAE use small "
        "convolutional networks of ours (its own are sized for a GPU) and pythae's trainer, stopped by the clock; "
        "torchcfm and denoising-diffusion-pytorch use their own U-Nets with 32 channels. See "
        "benchmarks/peers/gen_*.py.",
    ]
