"""Part `gate` of `benchmarks.restoration`: does the Denoiser choose the right way, and leave good images alone?"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image

from benchmarks._camera import shot
from benchmarks._data import bsds500, eurosat, fashion_mnist, grocery_photos, noto_emoji
from benchmarks._denoise import KINDS
from benchmarks._table import save_table
from imatlas import Denoiser
from imatlas.images.spec import ImageSpec
from imatlas.metrics.restoration import psnr

N_IMAGES, SIDE, STEPS = 8, 128, 400
"""Images of a case, the side to which they are cut, and training steps."""
TOLERANCE = 0.1
"""dB by which the choice may be worse than the best way and still count as right."""
UNTOUCHED = 45.0
"""dB between images without damage and what comes back, from which on they count as untouched."""
EQUAL = 99.0
"""dB that equal images count as."""

Pixels = list[np.ndarray]
Damage = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _jpeg(quality: int) -> Damage:
    def damage(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        file = io.BytesIO()
        image = np.rint(pixels).astype(np.uint8)
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file), np.float64).reshape(pixels.shape)

    return damage


def _gaussian(sigma: float) -> Damage:
    return lambda pixels, rng: pixels + rng.normal(0, sigma, pixels.shape)


DAMAGES: dict[str, Damage] = {
    "none": lambda pixels, rng: pixels.astype(np.float64),
    "JPEG 80": _jpeg(80),
    "JPEG 30": _jpeg(30),
    "Gaussian, 3": _gaussian(3),
    "Gaussian, 10": _gaussian(10),
    "Gaussian, 25": KINDS["gaussian25"].add,
    "Gaussian, 50": KINDS["gaussian50"].add,
    "Poisson-Gaussian": KINDS["poisson"].add,
    "correlated, 25": KINDS["correlated"].add,
    "camera": lambda pixels, rng: shot(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), 4e-4, 90, rng)[
        ..., : pixels.shape[2]
    ].astype(np.float64),
}


def _sets() -> Iterator[tuple[str, Pixels]]:
    def opened(files: list, mode: str, n: int = N_IMAGES) -> Pixels:
        step = max(1, len(files) // n)
        images = [np.asarray(Image.open(file).convert(mode), np.float32) for file in files[::step][:n]]
        return [image.reshape(*image.shape[:2], -1)[:SIDE, :SIDE] for image in images]

    photos = [pixels for _, pixels, _ in bsds500("val")][:: 100 // N_IMAGES][:N_IMAGES]
    grays = [np.asarray(Image.fromarray(p).convert("L"), np.float32)[:SIDE, :SIDE, None] for p in photos]
    yield "BSDS500, gray", grays
    yield "BSDS500", [np.asarray(p, np.float32)[-SIDE:, -SIDE:] for p in photos]
    yield "Grocery photos", opened(sorted(grocery_photos().rglob("*.jpg")), "RGB")
    yield "emoji", opened(sorted(noto_emoji().rglob("*.png")), "RGB")
    yield "EuroSAT", opened(sorted(eurosat().rglob("*.png")), "RGB", 2 * N_IMAGES)
    yield "Fashion-MNIST", [image[..., None].astype(np.float32) for image in fashion_mnist("t10k")[0][: 8 * N_IMAGES]]


def main(options: argparse.Namespace) -> None:
    """Every damage on every set: the error of each way to denoise, and the way that was chosen without clean images."""
    torch.set_num_threads(options.threads)
    rows = []
    for name, images in _sets():
        for damage, add in DAMAGES.items():
            rows.append([name, damage, *_case(images, add)])
            print(rows[-1], flush=True)
    right = sum(row[7] >= UNTOUCHED if row[1] == "none" else row[6] <= TOLERANCE for row in rows)
    notes = [
        f"{N_IMAGES} images of each set (EuroSAT {2 * N_IMAGES}, Fashion-MNIST {8 * N_IMAGES}), cut to {SIDE} pixels; "
        f"{STEPS} training steps. PSNR in dB over all pixels, of values rounded and clipped to 0 to 255, against the "
        "images before the damage; of those without damage, of what comes back against what was given "
        f"({EQUAL:g}: unchanged).",
        f"Right, within {TOLERANCE} dB of the best way, or without damage changed by no more than {UNTOUCHED:g} dB: "
        f"{right} of {len(rows)} cases.",
        "Camera: as in `restoration_denoise`, against the image before, whose detail the camera loses, too.",
    ]
    columns = ("set", "damage", "unchanged", "mixture", "network", "choice", "worse than the best by", "as chosen")
    save_table("restoration_gate", "What the Denoiser chooses", columns, rows, notes)


def _case(images: Pixels, add: Damage) -> list[float | str | None]:
    rng = np.random.default_rng(0)
    given = np.stack([np.rint(add(image, rng)).clip(0, 255).astype(np.uint8) for image in images])
    clean = np.stack(images)
    model = Denoiser(max_steps=STEPS, budget=None, progress=False).fit(given)
    chosen, found = model.choice_, {}
    spec = ImageSpec(*given.shape[1:])
    for way in model.risks_:
        model.choice_ = way
        restored = np.stack([model.restore(image, spec) for image in given])
        found[way] = min(psnr(clean, restored.astype(np.float32), span=255), EQUAL)
    worse = max(found.values()) - found[chosen]
    values = [round(found[way], 2) if way in found else None for way in ("unchanged", "mixture", "network")]
    return [*values, chosen, round(worse, 2), round(found[chosen], 2)]
