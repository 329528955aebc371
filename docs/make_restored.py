"""Make the figures of docs/restoration.md: python docs/make_restored.py [upscaled] [denoised]

Images of Kodak are read from IMATLAS_DATA, or from `../shared/data` beside the checkout.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import imatlas as ia
from imatlas.images.spec import ImageSpec

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("IMATLAS_DATA", HERE.parents[1] / "shared" / "data"))
PICTURES = HERE / "pictures"
GAP = 6


def upscaled() -> None:
    """Parts of halved images: bicubic interpolation, SuperResolver fitted on the 12 small images, originals."""
    images = {file.stem: Image.open(file).convert("RGB") for file in sorted((DATA / "kodak").glob("*.png"))}
    small = {
        name: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)
        for name, image in images.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, image in small.items():
            image.save(Path(folder) / f"{name}.png")
        model = ia.SuperResolver(scale=2, budget=None, max_steps=1000).fit(folder)
    rows = []
    for name, (left, top) in {"kodim05": (330, 190), "kodim19": (170, 330), "kodim07": (330, 180)}.items():
        pixels = np.asarray(small[name])
        interpolated = np.asarray(small[name].resize(images[name].size, Image.Resampling.BICUBIC))
        restored = model.restore(pixels, ImageSpec(*pixels.shape))
        parts = [x[top : top + 130, left : left + 200] for x in (interpolated, restored, np.asarray(images[name]))]
        rows.append(
            np.concatenate([np.pad(part, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for part in parts], 1)
        )
    sheet = Image.fromarray(np.concatenate(rows)[:-GAP, :-GAP])
    sheet = sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST)
    sheet.save(PICTURES / "upscaled.webp", quality=88, method=6)


def denoised() -> None:
    """Parts of images with noise of deviation 25, of what is made of them, and of the expected and the actual error."""
    clean = {file.stem: np.asarray(Image.open(file).convert("RGB")) for file in sorted((DATA / "kodak").glob("*.png"))}
    rng = np.random.default_rng(0)
    noisy = {
        name: np.rint(pixels + rng.normal(0, 25, pixels.shape)).clip(0, 255).astype(np.uint8)
        for name, pixels in clean.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, pixels in noisy.items():
            Image.fromarray(pixels).save(Path(folder) / f"{name}.png")
        model = ia.Denoiser(budget=None, max_steps=400, error_map=True).fit(folder)
    rows = []
    for name, (left, top) in {"kodim05": (330, 190), "kodim07": (330, 180), "kodim19": (170, 330)}.items():
        made = model.restoration(noisy[name], ImageSpec(*noisy[name].shape))
        actual = np.sqrt(np.square(made.pixels - clean[name].astype(np.float32)).mean(axis=2))
        errors = [np.clip(10 * e, 0, 255).astype(np.uint8) for e in (made.maps["error"], actual)]
        parts = [noisy[name], made.pixels, *(np.repeat(e[..., None], 3, axis=2) for e in errors)]
        rows.append(
            np.concatenate(
                [
                    np.pad(part[top : top + 150, left : left + 200], ((0, GAP), (0, GAP), (0, 0)), constant_values=255)
                    for part in parts
                ],
                axis=1,
            )
        )
    Image.fromarray(np.concatenate(rows)[:-GAP, :-GAP]).save(PICTURES / "denoised.webp", quality=85, method=6)


if __name__ == "__main__":
    figures = {"upscaled": upscaled, "denoised": denoised}
    for name in sys.argv[1:] or figures:
        figures[name]()
