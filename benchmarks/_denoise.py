"""Denoising without clean images: a part of `benchmarks.restoration`."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from benchmarks import _camera
from benchmarks._data import ROOT, bsds500, grocery_photos
from benchmarks._peers import PEERS, env_command, last_json, python_of
from benchmarks._table import save_table, saved_table
from imatlas.images.spec import ImageSpec
from imatlas.metrics.restoration import psnr

N_PHOTOS = 40
"""Color images, at most."""
GAIN, READ = 2.0, 25.0
"""Of the Poisson-Gaussian noise: variance = GAIN value + READ, for values up to 255."""
WIDTH = 0.8
"""Width of the Gaussian that makes noise correlated, in pixels."""

Images = dict[str, np.ndarray]
"""Pixels (H, W, C) float32, 0 to 1, by key."""


@dataclass(frozen=True)
class Kind:
    """A kind of noise on a set of images, and the sigma (of 255) that BM3D and others are told.

    Without a sigma they estimate it on each image, by the median of wavelet coefficients. `reference` makes the clean
    image of an original, which by default is the original.
    """

    title: str
    add: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    sigma: float | None
    images: str = "gray"
    reference: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None


def _gaussian(sigma: float) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    return lambda pixels, rng: pixels + rng.normal(0, sigma, pixels.shape)


def _poisson_gaussian(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return GAIN * rng.poisson(pixels / GAIN) + rng.normal(0, READ**0.5, pixels.shape)


def _correlated(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = gaussian_filter(rng.normal(size=pixels.shape), (WIDTH, WIDTH, 0), mode="wrap")
    return pixels + 25 * noise / noise.std()


def _shot(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise, quality = _settings(pixels)
    return _camera.shot(pixels, noise, quality, rng).astype(np.float64)


def _reference(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _camera.reference(pixels, *_settings(pixels), rng)


def _settings(pixels: np.ndarray) -> tuple[float, int]:
    """Noise and quality of the camera that takes this image, which differ from image to image."""
    pick = int(pixels.sum(dtype=np.float64))
    return (1e-4, 4e-4, 1.6e-3)[pick % 3], (95, 85)[pick // 3 % 2]


KINDS = {
    "gaussian15": Kind("Gaussian, 15", _gaussian(15), 15),
    "gaussian25": Kind("Gaussian, 25", _gaussian(25), 25),
    "gaussian50": Kind("Gaussian, 50", _gaussian(50), 50),
    "poisson": Kind("Poisson-Gaussian", _poisson_gaussian, 15.6),
    "correlated": Kind("correlated, 25", _correlated, 25),
    "kodak25": Kind("Gaussian, 25, color", _gaussian(25), 25, "kodak"),
    "camera": Kind("camera, JPEG", _shot, None, "photos", _reference),
}


def denoise(options: argparse.Namespace) -> None:
    """PSNR of each method on each kind of noise."""
    torch.set_num_threads(options.threads)
    columns = ("noise", "method", "images", "PSNR", "noisy", "least gain", "choice", "fit s", "s per image")
    title = "Denoising without clean images"
    for name in options.kinds:
        kind = KINDS[name]
        train, test = _sets(kind, options.n or 100)
        clean, noisy = _clean(kind, test), _noisy(kind, test, 1)
        before = _psnrs(clean, noisy)
        for method in options.methods:
            if method in PEER_METHODS and not python_of("denoise").exists():
                print(f"{method}: environment 'denoise' is missing, skipped")
                continue
            learned = _noisy(kind, train, 0 if kind.images == "gray" else 1)
            restored, facts = METHODS[method](kind, learned, noisy, options)
            after = _psnrs(clean, restored)
            row = [kind.title, facts.get("method", method), len(restored), round(statistics.mean(after.values()), 3)]
            row += [
                round(statistics.mean(before[key] for key in restored), 3),
                round(min(after[key] - before[key] for key in restored), 3),
                facts.get("choice"),
                facts.get("fit"),
                round(statistics.median(facts["seconds"]), 3),
            ]
            print(row, flush=True)
            rows = [old for old in saved_table("restoration_denoise", title)["rows"] if old[:3] != row[:3]]
            save_table("restoration_denoise", title, columns, sorted([*rows, row], key=lambda r: (r[0], -r[3])), NOTES)


NOTES = [
    "Gray: the 200 noisy images of the training part of BSDS500 to learn from, images of val to report on (every 100 / "
    "n-th of 100); portrait images transposed. Color: 12 images of the Kodak set, learned from in their noisy versions "
    "and reported on. Noise is added to values of 0 to 255 without clipping. Poisson-Gaussian: variance 2 value + 25; "
    "correlated: Gaussian noise blurred by 0.8 px, deviation 25. PSNR in dB, mean over images, of values clipped to "
    "0 to 255.",
    "imatlas is told nothing about the noise; a single image: fitted to each image alone. BM3D and scikit-image are "
    "told its deviation (of Poisson-Gaussian noise 15.6, the root of the mean variance); for photographs of a camera "
    "they estimate it on each image (scikit-image estimate_sigma).",
    "Camera: 40 Grocery photos taken again by a simulated camera (benchmarks._camera), whose noise and JPEG quality "
    "differ from image to image; the reference is the mean of 40 shots. Least gain: of an image over leaving it alone.",
    "Seconds: medians; other programs may have run beside.",
]


def _sets(kind: Kind, n: int) -> tuple[Images, Images]:
    """Images (H, W, C), 0 to 255, to learn from and to report on."""
    if kind.images != "gray":
        files = (
            sorted((ROOT / "kodak").glob("*.png"))
            if kind.images == "kodak"
            else sorted(grocery_photos().rglob("*.jpg"))
        )
        step = max(1, len(files) // N_PHOTOS)
        images = {
            file.stem: np.asarray(Image.open(file).convert("RGB"), np.float32) for file in files[::step][:N_PHOTOS]
        }
        images = {
            key: pixels if pixels.shape[0] < pixels.shape[1] else pixels.swapaxes(0, 1)
            for key, pixels in images.items()
        }
        height, width = (min(pixels.shape[axis] for pixels in images.values()) for axis in (0, 1))
        images = {key: pixels[:height, :width] for key, pixels in images.items()}
        return images, dict(islice(images.items(), n))
    train, val = ({key: _gray(pixels) for key, pixels, _ in bsds500(part)} for part in ("train", "val"))
    step = max(1, len(val) // n)
    return train, {key: val[key] for key in list(val)[::step][:n]}


def _gray(pixels: np.ndarray) -> np.ndarray:
    gray = np.asarray(Image.fromarray(pixels).convert("L"), np.float32)
    return (gray if gray.shape[0] < gray.shape[1] else gray.T)[..., None]


def _noisy(kind: Kind, images: Images, seed: int) -> Images:
    rngs = {key: np.random.default_rng([seed, i]) for i, key in enumerate(sorted(images))}
    return {key: (kind.add(pixels, rngs[key]) / 255).astype(np.float32) for key, pixels in images.items()}


def _clean(kind: Kind, images: Images) -> Images:
    if kind.reference is None:
        return {key: pixels / 255 for key, pixels in images.items()}
    rngs = {key: np.random.default_rng([2, i]) for i, key in enumerate(sorted(images))}
    return {key: kind.reference(pixels, rngs[key]) / 255 for key, pixels in images.items()}


def _psnrs(clean: Images, restored: Images) -> dict[str, float]:
    return {key: psnr(clean[key][None], np.clip(pixels, 0, 1)[None], span=1) for key, pixels in restored.items()}


def _spec(pixels: np.ndarray) -> ImageSpec:
    return ImageSpec(*pixels.shape, "float32", 0.0, 1.0)


def _ours(kind: Kind, train: Images, noisy: Images, options: argparse.Namespace) -> tuple[Images, dict[str, Any]]:
    from imatlas import Denoiser

    began = time.perf_counter()
    model = Denoiser(budget=60 * options.minutes, progress=False).fit(np.stack(list(train.values())))
    fit = round(time.perf_counter() - began, 1)
    restored, seconds = {}, []
    for key, pixels in noisy.items():
        began = time.perf_counter()
        restored[key] = model.restore(pixels, _spec(pixels))
        seconds.append(time.perf_counter() - began)
    print(model.risks_, model.n_steps_, "steps; deviation", model.noise_.deviation() * 255, flush=True)
    method = f"imatlas, {options.minutes:g} min, {options.threads} thread(s)"
    return restored, {"seconds": seconds, "choice": model.choice_, "fit": fit, "method": method}


def _single(kind: Kind, train: Images, noisy: Images, options: argparse.Namespace) -> tuple[Images, dict[str, Any]]:
    from imatlas import Denoiser

    restored, seconds = {}, []
    for key in list(noisy)[:: max(1, len(noisy) // 10)]:
        began = time.perf_counter()
        model = Denoiser(progress=False).fit(noisy[key][None])
        restored[key] = model.restore(noisy[key], _spec(noisy[key]))
        seconds.append(time.perf_counter() - began)
    return restored, {"seconds": seconds, "choice": model.choice_}


def _peer(name: str) -> Callable[..., tuple[Images, dict[str, Any]]]:
    def run(kind: Kind, train: Images, noisy: Images, options: argparse.Namespace) -> tuple[Images, dict[str, Any]]:
        sigma = None if kind.sigma is None else kind.sigma / 255
        with tempfile.TemporaryDirectory() as folder:
            images, settings, output = (Path(folder) / file for file in ("images.npz", "settings.json", "restored.npz"))
            np.savez(images, **noisy)  # type: ignore[arg-type]
            settings.write_text(json.dumps({"sigmas": dict.fromkeys(noisy, sigma)}))
            command = [*options.prefix, *env_command("denoise", options.threads), str(PEERS / "denoise_classical.py")]
            done = subprocess.run(
                [*command, name, images, settings, output], check=True, stdout=subprocess.PIPE, text=True
            )
            with np.load(output) as restored:
                return {key: restored[key] for key in restored.files}, last_json(done.stdout)

    return run


PEER_METHODS = {
    "BM3D": "bm3d",
    "scikit-image nl_means": "nl_means",
    "scikit-image tv": "tv",
    "scikit-image wavelets": "wavelets",
    "OpenCV fastNlMeans": "opencv",
}
METHODS: dict[str, Callable[[Kind, Images, Images, argparse.Namespace], tuple[Images, dict[str, Any]]]] = {
    "imatlas": _ours,
    "imatlas, single image": _single,
    **{title: _peer(name) for title, name in PEER_METHODS.items()},
}
