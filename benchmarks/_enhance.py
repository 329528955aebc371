"""Known faults of exposure, contrast and color, undone without references: part `enhance` of `restoration`.

A third of a folder gets a fault, `Enhancer` is fitted on the whole folder, and its images are compared with those
before the fault; thrice, so that each image had it once. "none" is the harm done to good images.
"""

from __future__ import annotations

import argparse
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import color, exposure
from skimage.metrics import structural_similarity

from benchmarks._data import ROOT
from benchmarks._peers import PEERS as PEERS_FOLDER
from benchmarks._peers import env_command, python_of
from benchmarks._table import save_table
from imatlas import Enhancer
from imatlas.images.spec import ImageSpec
from imatlas.metrics.restoration import psnr
from imatlas.models.parts.color_casts import LUMINANCE
from imatlas.models.parts.tone_curves import encoded, linear

SHARES = 3
N_PHOTOS = 12
MOST_PSNR = 60.0
"""PSNR of an unchanged image, for means."""

Curve = Callable[[np.ndarray], np.ndarray]


def stops(n: float) -> Curve:
    return lambda x: encoded(linear(x) * 2.0**n)


def cast(red: float, blue: float) -> Curve:
    gains = np.array([red, 1.0, blue])
    return lambda x: encoded(np.clip(linear(x) * gains / (gains @ LUMINANCE), 0, 1))


FAULTS: dict[str, Curve] = {
    "none": lambda x: x,
    "-1 EV": stops(-1),
    "-3 EV": stops(-3),
    "gamma 1.8": lambda x: x**1.8,
    "gamma 0.55": lambda x: x**0.55,
    "contrast 0.5": lambda x: 0.25 + 0.5 * x,
    "contrast 0.4, dark": lambda x: 0.1 + 0.4 * x,
    "warm cast": cast(1.3, 0.65),
    "strong warm cast": cast(1.6, 0.4),
    "blue cast": cast(0.75, 1.35),
    "warm cast, -2 EV": lambda x: stops(-2)(cast(1.3, 0.65)(x)),
}


def faulty(pixels: np.ndarray, fault: str) -> np.ndarray:
    """An image (H, W, 3) uint8 with a fault, rounded to 8 bits."""
    return pixels if fault == "none" else _bytes(FAULTS[fault](pixels / 255.0))


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)


def _stretched(pixels: np.ndarray) -> np.ndarray:
    low, high = np.quantile(pixels, (0.005, 0.995))
    return _bytes((pixels - low) / max(high - low, 1))


def _gamma(pixels: np.ndarray) -> np.ndarray:
    """The power that makes the mean middle gray."""
    x = pixels / 255.0
    return _bytes(x ** (np.log(0.46) / np.log(np.clip(x.mean(), 0.01, 0.99))))


def _gray_world(pixels: np.ndarray) -> np.ndarray:
    light = linear(pixels / 255.0)
    means = light.mean(axis=(0, 1))
    return _bytes(encoded(np.clip(light * (means @ LUMINANCE) / np.maximum(means, 1e-4), 0, 1)))


PEERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "left alone": lambda pixels: pixels,
    "stretch to 0.5 % and 99.5 %": _stretched,
    "gamma to middle gray": _gamma,
    "gray world": _gray_world,
    "scikit-image equalize_hist": lambda pixels: _bytes(
        np.stack([exposure.equalize_hist(pixels[..., c]) for c in range(3)], axis=-1)
    ),
    "scikit-image equalize_adapthist": lambda pixels: _bytes(exposure.equalize_adapthist(pixels)),
}
OURS, PHOTOGRAPHS = "Enhancer", "Enhancer, compared with photographs"
OPENCV = {"clahe": "OpenCV CLAHE", "simple": "OpenCV simple white balance", "learned": "OpenCV learned white balance"}
Scores = dict[str, dict[str, list[tuple[float, float, float]]]]


def main(options: argparse.Namespace) -> None:
    """Tables of PSNR, SSIM and color difference for each set."""
    for name, title, images in _sets(options.n):
        scores = _scores(images)
        methods = list(scores["none"])
        rows = [
            [f"{method}, {measure}", *[_mean(scores[fault][method], i, digits) for fault in FAULTS]]
            for i, measure, digits in ((0, "PSNR", 1), (1, "SSIM", 3), (2, "color difference", 1))
            for method in methods
        ]
        alone = float(np.mean([score[0] >= MOST_PSNR for score in scores["none"][OURS]]))
        rows.append([f"{OURS}, share left alone", round(alone, 2), *[None] * (len(FAULTS) - 1)])
        if options.n is not None:
            print(*rows, sep="\n")
            continue
        save_table(f"restoration_enhance_{name}", title, ["method, measure", *FAULTS], rows, _notes(len(images)))


def _notes(n: int) -> list[str]:
    return [
        f"{n} images. Of a folder of all, every third has the fault, rounded to 8 bits; Enhancer is fitted on that "
        "folder, with default settings, and restores the faulty images; thrice, so that each image is faulty once. "
        "'none': no image has a fault, so these are the harm done to good images.",
        f"PSNR in dB, {MOST_PSNR:.0f} for unchanged images; SSIM of gray, at half size; color difference by CIEDE2000: "
        "means over images, against the image before the fault.",
        "EV: exposure values, gains of 2 in linear light. gamma: powers of sRGB values. contrast 0.5: 0.25 + 0.5 x; "
        "0.4, dark: 0.1 + 0.4 x. Casts: gains of red and blue in linear light of 1.3 and 0.65 (warm), 1.6 and 0.4 "
        "(strong) and 0.75 and 1.35 (blue), with the luminance of grays kept.",
        "stretch: the 0.5 % and 99.5 % quantiles to black and white. gamma to middle gray: the mean to 0.46. "
        "scikit-image equalize_hist and equalize_adapthist with default settings. OpenCV: CLAHE of L in Lab, clip "
        "limit 2, 8 x 8 tiles; white balance of xphoto with default settings.",
    ]


def _mean(scores: list[tuple[float, float, float]], i: int, digits: int) -> float:
    return round(float(np.mean([score[i] for score in scores])), digits)


def _sets(n: int | None) -> list[tuple[str, str, list[np.ndarray]]]:
    kodak = [np.asarray(Image.open(file).convert("RGB")) for file in sorted((ROOT / "kodak").glob("*.png"))]
    with tarfile.open(ROOT / "photos" / "grocery.tar") as tar:
        files = [member for member in tar.getmembers() if member.name.endswith(".jpg")]
        chosen = np.sort(np.random.default_rng(0).permutation(len(files))[:N_PHOTOS])
        photos = [np.asarray(Image.open(tar.extractfile(files[i])).convert("RGB")) for i in chosen]  # type: ignore[arg-type]
    return [("kodak", "Kodak", kodak[:n]), ("grocery_photos", "Grocery photos", photos[:n])]


def _scores(images: list[np.ndarray]) -> Scores:
    """PSNR, SSIM and color difference of each image, by fault and method."""
    scores: Scores = {}
    for fault in FAULTS:
        changed = [faulty(pixels, fault) for pixels in images]
        found = {OURS: _enhanced(images, changed), PHOTOGRAPHS: _compared_with_photographs(changed)}
        found |= {name: [method(pixels) for pixels in changed] for name, method in PEERS.items()}
        found |= _by_opencv(changed)
        scores[fault] = {
            method: [_compared(truth, pixels) for truth, pixels in zip(images, restored, strict=True)]
            for method, restored in found.items()
        }
        print(fault, {method: _mean(values, 0, 1) for method, values in scores[fault].items()}, flush=True)
    return scores


def _enhanced(images: list[np.ndarray], changed: list[np.ndarray]) -> list[np.ndarray]:
    """The faulty images restored, each by a model fitted on a folder of which a third is faulty."""
    found = [*images]
    for share in range(SHARES):
        folder = [changed[i] if i % SHARES == share else pixels for i, pixels in enumerate(images)]
        with tempfile.TemporaryDirectory() as path:
            for i, pixels in enumerate(folder):
                Image.fromarray(pixels).save(Path(path) / f"{i:03d}.png", compress_level=1)
            model = Enhancer().fit(path)
        for i in range(share, len(images), SHARES):
            found[i] = model.restore(folder[i], ImageSpec(*folder[i].shape))
    return found


def _compared_with_photographs(changed: list[np.ndarray]) -> list[np.ndarray]:
    model = Enhancer(reference="photographs").fit(changed[0][None])
    return [model.restore(pixels, ImageSpec(*pixels.shape)) for pixels in changed]


def _by_opencv(images: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Results of the methods of OpenCV; none where its environment is missing."""
    if not python_of("opencv").exists():
        print("environment 'opencv' is missing, skipped")
        return {}
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "images.npz", Path(folder) / "made.npz"
        np.savez(given, **{f"{i:03d}": pixels for i, pixels in enumerate(images)})
        subprocess.run([*env_command("opencv"), str(PEERS_FOLDER / "enhance_opencv.py"), given, made], check=True)
        with np.load(made) as file:
            return {title: [file[f"{name} {i:03d}"] for i in range(len(images))] for name, title in OPENCV.items()}


def _compared(truth: np.ndarray, found: np.ndarray) -> tuple[float, float, float]:
    small, other = truth[::2, ::2], found[::2, ::2]
    similarity = structural_similarity(color.rgb2gray(small), color.rgb2gray(other), data_range=1)
    difference = color.deltaE_ciede2000(color.rgb2lab(small[::2, ::2]), color.rgb2lab(other[::2, ::2]))
    return min(MOST_PSNR, psnr(truth[None], found[None], span=255)), float(similarity), float(difference.mean())
