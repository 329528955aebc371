"""Photographs scaled down and up again: part `upscale` of `restoration`.

12 images of Kodak, scaled down by Pillow's antialiased BICUBIC and rounded to 8 bits. `SuperResolver` is fitted on
these small images themselves ("the folder itself"), on each alone, or on other photographs (BSDS500, train).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling

from benchmarks._data import ROOT, bsds500
from benchmarks._peers import PEERS, env_command, last_json, python_of
from benchmarks._table import save_table
from imatlas import SuperResolver
from imatlas.images.spec import ImageSpec
from imatlas.metrics.restoration import perceptual_distance, psnr, ssim
from imatlas.models.parts.boundary_cues import texture_network
from imatlas.models.parts.scaling import Scaling

BUDGET, BUDGET_ALONE = "2m", "20s"
N_ALONE = 3
"""Images that a model is fitted to each alone: every fourth."""
LUMA = np.array([65.481, 128.553, 24.966], np.float32) / 255
"""Of the channel Y that papers report on, from 16 to 235."""
KERNELS = {
    "bicubic": Resampling.BICUBIC,
    "Lanczos": Resampling.LANCZOS,
    "box": Resampling.BOX,
    "bilinear": Resampling.BILINEAR,
}
COLUMNS = (
    *("factor", "method", "images", "PSNR", "over bicubic", "least", "PSNR of Y", "over bicubic", "SSIM"),
    *("perceptual distance", "scaled back: RMSE", "largest", "fit, steps", "CPU s per MP"),
)

Upscale = Callable[[list[np.ndarray]], list[np.ndarray]]


def main(options: argparse.Namespace) -> None:
    files = sorted((ROOT / "kodak").glob("*.png"))[: options.n]
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    others = [pixels for _, pixels, _ in bsds500("train")]
    rows, models = [], {}
    for scale in (2, 3, 4):
        targets = [x[: x.shape[0] // scale * scale, : x.shape[1] // scale * scale] for x in images]
        small = [_scaled(x, 1 / scale) for x in targets]
        models[scale] = {"the folder itself": _fitted(small, scale), "BSDS500 train": _fitted(others, scale)}
        methods: dict[str, Upscale] = {
            "bicubic (Pillow)": lambda images, s=scale: [_scaled(x, s) for x in images],
            "Lanczos (Pillow)": lambda images, s=scale: [_scaled(x, s, Resampling.LANCZOS) for x in images],
        }
        if python_of("opencv").exists():
            for kernel in ("cubic", "lanczos"):
                methods[f"{kernel} (OpenCV)"] = lambda images, k=kernel, s=scale: _by_opencv(images, k, s)
        for on, model in models[scale].items():
            methods[f"SuperResolver, fitted on {on}"] = lambda images, m=model: [_restored(m, x) for x in images]
        steps = {f"SuperResolver, fitted on {on}": model.n_steps_ for on, model in models[scale].items()}
        baseline: list[float] = []
        for method, upscale in methods.items():
            rows.append(_row(scale, method, upscale, targets, small, baseline, steps.get(method)))
            print(rows[-1], flush=True)
        if scale == 2:
            some = range(0, len(images), max(1, len(images) // N_ALONE))
            chosen = ([values[i] for i in some] for values in (targets, small, baseline))
            rows.append(_alone(scale, *chosen))
            print(rows[-1], flush=True)
    notes = _notes(images, models[2]["BSDS500 train"])
    if options.n is None:
        save_table("restoration_upscale", "Upscaling: Kodak, 12 images", COLUMNS, rows, notes)


def _alone(scale: int, targets: list[np.ndarray], small: list[np.ndarray], bicubic: list[float]) -> list[Any]:
    models = [_fitted([x], scale, BUDGET_ALONE) for x in small]
    found = iter(models)
    method = f"SuperResolver, fitted on each image alone, {BUDGET_ALONE}"
    steps = round(float(np.mean([m.n_steps_ for m in models])))
    return _row(scale, method, lambda xs: [_restored(next(found), x) for x in xs], targets, small, bicubic, steps)


def _row(
    scale: int,
    method: str,
    upscale: Upscale,
    targets: list[np.ndarray],
    small: list[np.ndarray],
    bicubic: list[tuple[float, float]],
    steps: int | None,
) -> list[Any]:
    """Means over images; the first method's PSNRs are added to `bicubic`, which must be empty then."""
    began = time.process_time()
    found = upscale(small)
    seconds = time.process_time() - began
    pairs = [(x[None], y[None]) for x, y in zip(targets, found, strict=True)]
    decibels = [(psnr(x, y, span=255), _luma_psnr(x[0], y[0], scale)) for x, y in pairs]
    if not bicubic:
        bicubic += decibels
    gains = np.array(decibels) - np.array(bicubic)
    back = [_scaled_back(y, x, scale) for y, x in zip(found, small, strict=True)]
    mean, mean_luma = np.mean(decibels, axis=0)
    return [
        *(scale, method, len(targets), round(mean, 2), round(gains[:, 0].mean(), 2), round(gains[:, 0].min(), 2)),
        *(round(mean_luma, 2), round(gains[:, 1].mean(), 2)),
        round(float(np.mean([ssim(x, y, span=255) for x, y in pairs])), 4),
        round(float(np.mean([perceptual_distance(x, y, span=255, network=texture_network()) for x, y in pairs])), 4),
        *(round(float(np.sqrt(np.mean([s for s, _ in back]))), 3), round(max(most for _, most in back), 2)),
        *(steps, None if "OpenCV" in method else round(seconds / sum(x.size for x in targets) * 3e6, 2)),
    ]


def _notes(images: list[np.ndarray], model: SuperResolver) -> list[str]:
    other = []
    for name, kernel in KERNELS.items():
        small = [_scaled(x, 1 / 2, kernel) for x in images]
        plain, found = ([f(x) for x in small] for f in (lambda x: _scaled(x, 2), lambda x: _restored(model, x)))
        gains = [
            psnr(x[None], b[None], span=255) - psnr(x[None], a[None], span=255)
            for x, a, b in zip(images, plain, found, strict=True)
        ]
        other.append(f"{name} {np.mean(gains):+.2f}")
    return [
        "PSNR in dB of RGB, all pixels, and of Y without as many pixels at the borders as the factor, as papers do; "
        "'over bicubic': mean gain over Pillow's BICUBIC, and the least one. SSIM and perceptual distance: "
        "`imatlas.metrics.restoration`. Scaled back: by the kernel that scaled the images down, from 8-bit results, "
        "clipped to 0 to 255; errors to the 8-bit input in units of 1/255.",
        f"SuperResolver: defaults, {BUDGET} of training with one thread on cores shared with other programs; 'each "
        f"image alone': every fourth, {BUDGET_ALONE} each. A quiet machine does more steps in this time.",
        "Gain over bicubic interpolation at factor 2, fitted on BSDS500 train, in dB, of images scaled down by other "
        f"kernels than is assumed (Pillow): {'; '.join(other)}.",
        "CPU s per MP: seconds of one core per million pixels of the result.",
    ]


def _fitted(images: list[np.ndarray], scale: int, budget: str = BUDGET) -> SuperResolver:
    with tempfile.TemporaryDirectory() as folder:
        for i, pixels in enumerate(images):
            Image.fromarray(pixels).save(Path(folder) / f"{i:03d}.png", compress_level=1)
        return SuperResolver(scale=scale, budget=budget, progress=False).fit(folder)


def _restored(model: SuperResolver, pixels: np.ndarray) -> np.ndarray:
    return model.restore(pixels, ImageSpec(*pixels.shape))


def _scaled(pixels: np.ndarray, factor: float, kernel: Resampling = Resampling.BICUBIC) -> np.ndarray:
    size = (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor))
    return np.asarray(Image.fromarray(pixels).resize(size, kernel))


def _scaled_back(large: np.ndarray, small: np.ndarray, scale: int) -> tuple[float, float]:
    """Mean squared and largest error."""
    planes = torch.from_numpy(large.astype(np.float32)).permute(2, 0, 1)
    back = Scaling(*small.shape[:2], scale).down(planes).permute(1, 2, 0).numpy().clip(0, 255)
    error = back - small
    return float(np.square(error).mean()), float(np.abs(error).max())


def _luma_psnr(target: np.ndarray, image: np.ndarray, scale: int) -> float:
    inside = slice(scale, -scale)
    planes = [(x.astype(np.float32) @ LUMA)[None, inside, inside, None] for x in (target, image)]
    return psnr(planes[0], planes[1], span=255)


def _by_opencv(images: list[np.ndarray], kernel: str, scale: int) -> list[np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        inputs, settings, outputs = (Path(folder) / name for name in ("images.npz", "settings.json", "large.npz"))
        np.savez(inputs, **{f"{i:03d}": x for i, x in enumerate(images)})
        settings.write_text(json.dumps({"scale": scale, "kernel": kernel}))
        command = [*env_command("opencv"), str(PEERS / "upscale_opencv.py"), inputs, settings, outputs]
        last_json(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        with np.load(outputs) as file:
            return [file[key] for key in file.files]
