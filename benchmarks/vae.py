"""Overhead of the training loop, and a VAE against pythae's: `python -m benchmarks vae [--blocks 12] [--epochs 5]`.

Peer environment: pythae (see `benchmarks._peers`).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._data import fashion_mnist
from benchmarks._peers import PEERS, env_command, last_json, python_of
from benchmarks._table import save_table
from imatlas import VAE, seeding
from imatlas.images.spec import ImageSpec
from imatlas.models.base import estimator
from imatlas.training import loop
from imatlas.training.batches import Batch, Data

BLOCK = 100
"""Steps per block: the snapshot interval, so that each block contains one snapshot."""

LATENT_DIM = 32


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks vae")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    train, test = fashion_mnist("train")[0], fashion_mnist("t10k")[0]
    loops = {
        "plain loop": PlainLoop(train, fast=False).step,
        "plain loop, fused Adam, channels_last": PlainLoop(train, fast=True).step,
        "imatlas": library_loop(train),
    }
    loop_table(loops, options.blocks, options.threads)
    peer_table(train, test, options.epochs, options.threads)


class PlainLoop:
    """A hand-written loop: the same network and loss, images in memory, fp32, nothing else."""

    def __init__(self, pixels: np.ndarray, *, fast: bool) -> None:
        self.model = VAE(latent_dim=LATENT_DIM)
        with seeding.seeded_init(0):
            self.module = self.model._build(ImageSpec(28, 28, 1))
        if fast:
            self.module = self.module.to(memory_format=torch.channels_last)
        weights = [p for name, p in self.module.named_parameters() if name != "log_scale"]
        groups = [{"params": weights}, {"params": [self.module.log_scale], "lr": 10 * self.model.learning_rate}]
        kind: dict[str, Any] = {"fused": True} if fast else {}
        self.adam = torch.optim.AdamW(groups, lr=self.model.learning_rate, betas=(0.9, 0.99), **kind)
        self.pixels = torch.from_numpy(pixels.copy())[:, None]
        self.generator = torch.Generator().manual_seed(0)
        self.order = torch.randperm(len(pixels), generator=self.generator)
        self.next = 0

    def step(self) -> float:
        """One step; the loss."""
        if self.next + 64 > len(self.order):
            self.order, self.next = torch.randperm(len(self.order), generator=self.generator), 0
        x = self.pixels[self.order[self.next : self.next + 64]].float() / 127.5 - 1
        self.next += 64
        _, loss, _ = next(iter(self.model._losses(self.module, Batch(x), self.generator)))
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return loss.item()


@estimator
class Watched(VAE):
    """A VAE that stores the loss of each step in `last`."""

    def _losses(self, module: Any, batch: Batch, generator: torch.Generator) -> Iterator[Any]:
        for name, loss, logs in super()._losses(module, batch, generator):
            self.last = loss.item()
            yield name, loss, logs


def library_loop(pixels: np.ndarray) -> Callable[[], float]:
    """The loop of `imatlas.training.loop`, one step at a time, without held-out images."""
    model = Watched(latent_dim=LATENT_DIM, max_steps=10**6, precision="fp32", progress=False)
    spec = ImageSpec(28, 28, 1)
    with seeding.seeded_init(0):
        module = model._build(spec)
    pixels = pixels[..., None]
    run = loop.Run(model, module, Data(pixels, spec, pixels[:0]), seed=0)
    run.weights.snapshot()

    def step() -> float:
        began = time.perf_counter()
        run.steps.take(run.state, run.seed, run._precision())
        run._count_step(began)
        return model.last

    return step


def loop_table(loops: dict[str, Callable[[], float]], n_blocks: int, threads: int) -> None:
    """Time of the loops, interleaved block by block, and their losses after equal steps."""
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    losses: dict[str, list[float]] = {name: [] for name in loops}
    for block in range(n_blocks + 1):
        for name in list(loops) if block % 2 else list(loops)[::-1]:
            began = time.perf_counter()
            values = [loops[name]() for _ in range(BLOCK)]
            if block:  # The first block is a warm-up.
                seconds[name].append(time.perf_counter() - began)
                losses[name].append(statistics.fmean(values))
    rows = []
    fused = "plain loop, fused Adam, channels_last"
    for name, taken in seconds.items():
        ratios = [a / b for a, b in zip(taken, seconds[fused])]
        speedups = [b / a for a, b in zip(taken, seconds["plain loop"])]
        rows.append(
            [
                name,
                64 * BLOCK / statistics.median(taken),
                statistics.median(speedups),
                statistics.median(ratios),
                f"{min(ratios):.3f} to {max(ratios):.3f}",
                statistics.fmean(losses[name][-3:]) / 784,
            ]
        )
    off = max(row[-1] for row in rows) - min(row[-1] for row in rows)
    save_table(
        "vae",
        f"Overhead of the training loop (VAE on Fashion-MNIST, {LATENT_DIM} latent dimensions, fp32, "
        f"{threads} threads)",
        [
            "loop",
            "images/s",
            "speed / plain loop",
            "step time / fused plain loop",
            "range",
            "loss",
        ],
        rows,
        [
            f"{n_blocks} blocks of {BLOCK} steps of 64 images, the loops interleaved in one process after a warm-up "
            "block; medians, ratios within a block. Each block of imatlas includes a snapshot, and its loop also "
            "averages weights, clips gradients and checks every step; no images are held out.",
            f"Loss in nats per pixel, mean of the last 300 of {BLOCK * (n_blocks + 1)} steps, each loop with its own "
            f"order of images; the largest difference is {off:.3f} (tolerance 0.02; it starts at about 1).",
            "Targets: step time at most 1.05 times the fused plain loop; images/s at least 1.0 times the plain loop on "
            "a CPU without bf16.",
        ],
    )


def peer_table(train: np.ndarray, test: np.ndarray, n_epochs: int, threads: int) -> None:
    """pythae for some epochs, then imatlas for the same time."""
    rows: list[list[Any]] = []
    budget = 60.0
    if not python_of("pythae").exists():
        rows.append(["pythae", "not installed", None, None, None, None])
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pixels.npz"
            np.savez(path, train=train, test=test)
            done = subprocess.run(
                [*env_command("pythae", threads), *map(str, [PEERS / "pythae_vae.py", path, n_epochs, LATENT_DIM])],
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            rows.append(["pythae", "failed: " + done.stderr.strip().splitlines()[-1], None, None, None, None])
        else:
            peer = last_json(done.stdout)
            budget = peer["seconds"]
            name = f"pythae {peer['version']} VAE (MLP)"
            rows.append([name, peer["mse"], budget, peer["images"] / budget, peer["images"], peer["weights"]])
    began = time.perf_counter()
    model = VAE(latent_dim=LATENT_DIM, budget=budget, progress=False).fit(train)
    seconds = time.perf_counter() - began
    reconstructed = model.inverse_transform(model.transform(test))[..., 0] / np.float32(255)
    error = float(np.mean((reconstructed - test / np.float32(255)) ** 2, dtype=np.float64))
    n_images = model.history_["images_seen"][-1]
    n_weights = sum(p.numel() for p in model.module_.parameters())
    rows.append(["imatlas VAE (convolutional)", error, seconds, n_images / seconds, n_images, n_weights])
    save_table(
        "vae_peers",
        f"VAEs compared: Fashion-MNIST, {LATENT_DIM} latent dimensions, equal time, {threads} threads",
        ["model", "test MSE", "seconds", "images/s", "images", "weights"],
        rows,
        [
            "60,000 training images; MSE (range 0 to 1) of reconstructions from the posterior mean on the 10,000 test "
            "images. pythae: its default network, loss ('mse') and trainer, batches of 64, learning rate 1e-3; "
            "imatlas: defaults, with the time of pythae as budget. One seed each.",
            "The two weight reconstruction against the KL divergence differently (imatlas learns the scale of its "
            "likelihood), so MSE alone does not rank them as generative models.",
        ],
    )
