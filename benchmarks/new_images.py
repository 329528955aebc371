"""New images and edits without training: `python -m benchmarks new_images [--only speed edits novelty]`.

Speed of `PatchDiffusion`, the quality of its edits of held-out photographs against classical methods, and what its
novelty does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np
import torch

from benchmarks._classifier import as_input, classifier
from benchmarks._data import labeled
from benchmarks._memory import run_measured
from benchmarks._novelty import curve
from benchmarks._table import save_table
from imatlas import Images, PatchDiffusion
from imatlas.metrics.restoration import psnr

EDITED = 60
"""Held-out photographs that are edited."""

PARTS = ("speed", "edits", "novelty")

BLOCK, TILES, N_LARGE = 32, 20, 100_000


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks new_images")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    if options.one:
        print(json.dumps(_speed(options.one)))
        return
    if "speed" in options.only:
        _speeds(options.threads)
    if "edits" in options.only:
        _edits()
    if "novelty" in options.only:
        curve()


SPEEDS = {
    "photographs64": "64 images of 64 px from 843 photographs",
    "photographs256": "1 image of 256 px from 200 photographs",
    "many": f"64 images of 64 px from {N_LARGE:,} images",
}


def _speeds(threads: int) -> None:
    rows = []
    for name, label in SPEEDS.items():
        run = run_measured([sys.executable, "-m", "benchmarks", "new_images", "--one", name, "--threads", str(threads)])
        found = json.loads(run.output.strip().splitlines()[-1])
        rows.append([label, found["fit"], found["sample"], run.peak_mb])
    notes = [
        f"PatchDiffusion at novelty 0.5 (fit without calibration), {threads} threads; sample: median of 3 in a warm "
        "process. The images of the last row are the photographs, shifted and recolored at random.",
    ]
    save_table("new_images_speed", "Speed of PatchDiffusion", ("what", "fit s", "sample s", "peak MB"), rows, notes)


def _speed(name: str) -> dict[str, float]:
    n = 64
    if name == "photographs256":
        from benchmarks._data import grocery_photos

        images: Any = np.asarray(Images(grocery_photos(), image_size=256, progress=False)[np.arange(200)].pixels)
        n = 1
    else:
        images = labeled("grocery_photos").train
        if name == "many":
            rng = np.random.default_rng(0)
            many = np.empty((N_LARGE, *images.shape[1:]), np.uint8)
            for i in range(N_LARGE):
                one = np.roll(images[i % len(images)], rng.integers(-8, 9, 2), (0, 1))
                many[i] = np.clip(one * rng.uniform(0.7, 1.3, 3), 0, 255)
            images = many
    began = time.perf_counter()
    model = PatchDiffusion(novelty=0.5, device="cpu").fit(images)
    fit = time.perf_counter() - began
    model.sample(2)
    taken = []
    for seed in range(3):
        began = time.perf_counter()
        model.sample(n, random_state=seed)
        taken.append(time.perf_counter() - began)
    return {"fit": fit, "sample": float(np.median(taken))}


def _edits() -> None:
    data = labeled("grocery_photos")
    judge = classifier("grocery_photos")
    model = PatchDiffusion(novelty=0.5, device="cpu").fit(data.train)
    photos = data.test[:EDITED]
    rng = np.random.default_rng(0)
    blocks, points = np.zeros((2, *photos.shape[:3]), bool)
    for mask in blocks:
        top, left = rng.integers(0, BLOCK + 1, 2)
        mask[top : top + BLOCK, left : left + BLOCK] = True
    points[:] = rng.random(points.shape) < 0.5
    rows: list[list[Any]] = []
    for what, mask in (("25 % block", blocks), ("50 % of pixels", points)):
        for method, fill in (("PatchDiffusion", model.inpaint), ("biharmonic (scikit-image)", _biharmonic)):
            began = time.perf_counter()
            made = fill(photos, mask)
            seconds = (time.perf_counter() - began) / len(photos)
            equal = bool(np.array_equal(made[~mask], photos[~mask]))
            rows.append([what, method, psnr(photos, made, span=255), _perceptual(judge, photos, made), equal, seconds])
    notes = [
        f"{len(photos)} held-out photographs, {len(data.train)} of the set, 64 px. Perceptual distance: mean squared "
        "difference of unit vectors of features at each place of the first two blocks of the benchmarks' classifier, "
        "as in LPIPS (Zhang et al. 2018) without learned weights, times 1,000.",
        *_seams(model),
    ]
    columns = ("missing", "method", "PSNR dB", "perceptual distance", "known pixels equal", "s an image")
    save_table("new_images_edits", "Edits by PatchDiffusion", columns, rows, notes)


def _biharmonic(photos: np.ndarray, mask: np.ndarray) -> np.ndarray:
    from skimage.restoration import inpaint_biharmonic

    made = [inpaint_biharmonic(p / 255.0, m, channel_axis=-1) for p, m in zip(photos, mask, strict=True)]
    filled = np.rint(np.clip(np.stack(made), 0, 1) * 255).astype(np.uint8)
    return np.where(mask[..., None], filled, photos)


def _perceptual(judge: Any, a: np.ndarray, b: np.ndarray) -> float:
    total, x, y = 0.0, as_input(a), as_input(b)
    with torch.no_grad():
        for layer in list(judge.network.body)[:8]:
            x, y = layer(x), layer(y)
            if isinstance(layer, torch.nn.ReLU):
                u, v = (t / (t.norm(dim=1, keepdim=True) + 1e-6) for t in (x, y))
                total += float((u - v).square().sum(1).mean())
    return 1000 * total


def _seams(model: PatchDiffusion) -> list[str]:
    """Whether the border of tiles can be found, and whether a panorama repeats itself."""
    tiles = model.sample(TILES, tile=True, random_state=0).astype(float)
    across = np.abs(np.diff(np.concatenate([tiles, tiles[:, :, :1]], 2), axis=2)).mean((1, 3))  # (n, W)
    rank = (across[:, :-1] < across[:, -1:]).mean(1)
    inner = f"{np.mean(rank):.0%}"
    wide = np.asarray(model.sample(1, shape=(64, 512), random_state=0)[0], float).mean(2)
    parts = [wide[top : top + BLOCK, left : left + BLOCK] for top in (0, 32) for left in range(0, 512 - BLOCK, 8)]
    places = [(top, left) for top in (0, 32) for left in range(0, 512 - BLOCK, 8)]
    flat = np.stack([(p - p.mean()).ravel() / (np.linalg.norm(p - p.mean()) + 1e-9) for p in parts])
    alike = flat @ flat.T
    for i, (top, left) in enumerate(places):
        for j, (other, right) in enumerate(places):
            if top == other and abs(left - right) < BLOCK:
                alike[i, j] = 0
    return [
        f"{TILES} tiles: the step across the border is larger than {inner} of the steps between inner columns, on "
        "average (50 % if it cannot be found).",
        f"A canvas of 64 x 512: the largest correlation of two separate 32 x 32 blocks is {alike.max():.2f}.",
    ]
