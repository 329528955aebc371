"""Part `inpaint` of `benchmarks.restoration`: scattered pixels and blocks of held-out photographs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import torch

from benchmarks._classifier import as_input, classifier
from benchmarks._data import bsds500, labeled
from benchmarks._table import save_table, saved_table
from imatlas import Inpainter
from imatlas.images.spec import ImageSpec
from imatlas.metrics.restoration import psnr
from imatlas.models.parts.boundary_cues import texture_network
from imatlas.models.parts.region_tree import dense_maps

N_SMALL, N_LARGE = 60, 8
"""Held-out photographs of 64 px, and of 481 x 321."""

BLOCK = 32
MISSING = ["50 % of pixels", "25 % in blocks"]

Fill = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""Pixels (H, W, C), missing (H, W), number of the image -> pixels."""


def main(options: argparse.Namespace) -> None:
    """Scattered pixels and blocks, on small photographs of one kind and on large ones of all kinds."""
    for set_name, load in SETS.items():
        train, photos, blocks, perceptual = load(options.n)
        rng = np.random.default_rng(0)
        masks = {
            "50 % of pixels": [rng.random(photo.shape[:2]) < 0.5 for photo in photos],
            "25 % in blocks": [blocks(photo.shape[:2], rng) for photo in photos],
        }
        own = Inpainter()
        for what in (what for what in masks if what in options.missing):
            model, learned = own, ""
            if what == "50 % of pixels":
                model = Inpainter(turns=4, budget=60 * options.minutes, device="cpu", progress=False)
                model.fit(train)
                learned = f", {options.minutes:g} min"
                print(f"{set_name}: {model.seconds_:.0f} s, {model.n_steps_} steps, {model.verdict_}", flush=True)
            fills: dict[str, Fill] = {
                f"Inpainter{learned}": lambda pixels, mask, i, model=model: _by_model(model, pixels, mask, i),  # type: ignore[misc]
                "biharmonic (scikit-image)": _biharmonic,
            }
            if model is not own and len(photos[0]) <= 64:
                fills["Inpainter, not fitted"] = lambda pixels, mask, i: _by_model(own, pixels, mask, i)  # noqa: B023
            rows = []
            for name, fill in fills.items():
                began = time.perf_counter()
                made = [fill(photo, mask, i) for i, (photo, mask) in enumerate(zip(photos, masks[what], strict=True))]
                seconds = (time.perf_counter() - began) / len(photos)
                equal = all(np.array_equal(m[~k], p[~k]) for m, p, k in zip(made, photos, masks[what], strict=True))
                pairs = list(zip(photos, made, strict=True))
                decibels = float(np.mean([psnr(a[None], b[None], span=255) for a, b in pairs]))
                distance = float(np.mean([perceptual(a, b) for a, b in pairs]))
                rows.append([set_name, what, name, round(decibels, 3), round(distance, 1), equal, round(seconds, 3)])
                print(rows[-1], flush=True)
            if options.n is None:
                _save(rows)


def _save(rows: list[list[Any]]) -> None:
    """Save the rows of one set and one way of missing, beside those of others."""
    title, columns = (
        "Inpainting",
        (
            *("set", "missing", "method", "PSNR dB", "perceptual distance"),
            *("known pixels equal", "s an image"),
        ),
    )
    notes = [
        f"Means over {N_SMALL} and {N_LARGE} held-out photographs; PSNR over all pixels. For scattered pixels the "
        "Inpainter learned from the other 843 photographs, and from the 200 of train, in the minutes given (turns=4); "
        "holes are filled by patches of the image itself, without fit. PatchDiffusion on the small photographs is in "
        "`new_images_edits`.",
        f"Blocks of {BLOCK} x {BLOCK}: one at a random place of each small photograph, as many as cover a quarter "
        "of each large one, at random places.",
        "Perceptual distance: mean squared difference of unit vectors of features at each place, times 1,000, as "
        "in LPIPS (Zhang et al. 2018) without learned weights; of the first two blocks of the benchmarks' "
        "classifier for small photographs, as in `new_images_edits`; of EfficientNet-Lite0 for large ones.",
        "Seconds: other programs may have run beside.",
    ]
    others = [row for row in saved_table("restoration_inpaint", title)["rows"] if row[:2] != rows[0][:2]]
    save_table("restoration_inpaint", title, columns, sorted([*others, *rows], key=lambda row: row[:2]), notes)


def _grocery(n: int | None) -> Any:
    data, judge = labeled("grocery_photos"), classifier("grocery_photos")

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        total, x, y = 0.0, as_input(a[None]), as_input(b[None])
        with torch.no_grad():
            for layer in list(judge.network.body)[:8]:
                x, y = layer(x), layer(y)
                if isinstance(layer, torch.nn.ReLU):
                    total += _feature_distance(x, y)
        return total

    def blocks(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        return _with_block(np.zeros(size, bool), rng)

    return data.train, list(data.test[: n or N_SMALL]), blocks, distance


def _bsds(n: int | None) -> Any:
    train = [pixels[:320, :320] for _, pixels, _ in bsds500("train")]
    photos = [pixels for _, pixels, _ in islice(bsds500("val"), n or N_LARGE)]
    network = texture_network()

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        x, y = (torch.from_numpy(p.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None] for p in (a, b))
        with torch.no_grad():
            return _feature_distance(dense_maps(network, x), dense_maps(network, y))

    def blocks(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        mask = np.zeros(size, bool)
        while mask.mean() < 0.25:
            mask = _with_block(mask, rng)
        return mask

    return np.stack(train), photos, blocks, distance


def _with_block(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    top, left = (int(rng.integers(0, n - BLOCK + 1)) for n in mask.shape)
    mask[top : top + BLOCK, left : left + BLOCK] = True
    return mask


def _feature_distance(x: torch.Tensor, y: torch.Tensor) -> float:
    u, v = (t / (t.norm(dim=1, keepdim=True) + 1e-6) for t in (x, y))
    return 1000 * float((u - v).square().sum(1).mean())


def _by_model(model: Inpainter, pixels: np.ndarray, mask: np.ndarray, i: int) -> np.ndarray:
    height, width, channels = pixels.shape
    return model.restoration(pixels, ImageSpec(height, width, channels), missing=mask, key=i).pixels


def _biharmonic(pixels: np.ndarray, mask: np.ndarray, i: int) -> np.ndarray:
    from skimage.restoration import inpaint_biharmonic

    made = inpaint_biharmonic(np.where(mask[..., None], 0, pixels / 255.0), mask, channel_axis=-1)
    return np.where(mask[..., None], np.rint(np.clip(made, 0, 1) * 255).astype(np.uint8), pixels)


SETS: dict[str, Callable[[int | None], Any]] = {
    "Grocery photos, 64 px": _grocery,
    "BSDS500 val, 481 x 321": _bsds,
}
