"""Known faults of exposure, contrast and color, undone without references: part `enhance` of `restoration`.

A third of a folder gets a fault, `Enhancer` is fitted on the whole folder, and its images are compared with those
before the fault; thrice, so that each image had it once. "none" is the harm done to good images.
"""

from __future__ import annotations

import argparse
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import color, exposure
from skimage.metrics import structural_similarity

from benchmarks._data import ROOT
from benchmarks._table import save_table
from imatlas import Enhancer
from imatlas.images.spec import ImageSpec
from imatlas.metrics.restoration import psnr
from imatlas.models.parts.color_casts import LUMINANCE
from imatlas.models.parts.tone_curves import encoded, linear

SHARES = 3
N_PHOTOS = 60
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
    "-2 EV": stops(-2),
    "-3 EV": stops(-3),
    "gamma 1.8": lambda x: x**1.8,
    "gamma 2.5": lambda x: x**2.5,
    "gamma 0.55": lambda x: x**0.55,
    "contrast 0.5": lambda x: 0.25 + 0.5 * x,
    "contrast 0.4, dark": lambda x: 0.1 + 0.4 * x,
    "warm cast": cast(1.3, 0.65),
    "blue cast": cast(0.75, 1.35),
    "green cast": cast(0.8, 0.8),
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
    "equalize_hist": lambda pixels: _bytes(exposure.equalize_hist(pixels)),
    "equalize_adapthist": lambda pixels: _bytes(exposure.equalize_adapthist(pixels)),
}
OURS, ALONE = "Enhancer", "Enhancer, photographs"


def main(options: argparse.Namespace) -> None:
    """A table of PSNR for each set, and one of SSIM and color difference."""
    for name, title, images in _sets(options.n):
        scores = _scores(images)
        methods = list(next(iter(scores.values())))
        rows = [
            [method, *[round(float(np.mean([s[0] for s in scores[fault][method]])), 1) for fault in FAULTS]]
            for method in methods
        ]
        for which, label in ((1, "SSIM"), (2, "CIEDE2000")):
            print(label)
            for method in methods:
                print(method, *[f"{np.mean([s[which] for s in scores[fault][method]]):.3f}" for fault in FAULTS])
        changed = [f"{fault} {np.mean([s[0] < MOST_PSNR for s in scores[fault][OURS]]):.2f}" for fault in FAULTS]
        print("share changed:", *changed, sep="  ")
        if options.n is None:
            save_table(f"restoration_enhance_{name}", title, ["PSNR, dB", *FAULTS], rows, [])
        else:
            print(*rows, sep="\n")


def _sets(n: int | None) -> list[tuple[str, str, list[np.ndarray]]]:
    kodak = [np.asarray(Image.open(file).convert("RGB")) for file in sorted((ROOT / "kodak").glob("*.png"))]
    with tarfile.open(ROOT / "photos" / "grocery.tar") as tar:
        files = [member for member in tar.getmembers() if member.name.endswith(".jpg")]
        chosen = np.sort(np.random.default_rng(0).permutation(len(files))[:N_PHOTOS])
        photos = [np.asarray(Image.open(tar.extractfile(files[i])).convert("RGB")) for i in chosen]  # type: ignore[arg-type]
    return [("kodak", "Kodak", kodak[:n]), ("grocery_photos", "Grocery photos", photos[:n])]


def _scores(images: list[np.ndarray]) -> dict[str, dict[str, list[tuple[float, float, float]]]]:
    """PSNR, SSIM and color difference of each image, by fault and method."""
    scores: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    for fault in FAULTS:
        scores[fault] = {method: [] for method in (OURS, ALONE, *PEERS)}
        for share in range(SHARES):
            folder = [faulty(x, fault) if i % SHARES == share else x for i, x in enumerate(images)]
            with tempfile.TemporaryDirectory() as path:
                for i, pixels in enumerate(folder):
                    Image.fromarray(pixels).save(Path(path) / f"{i:03d}.png", compress_level=1)
                models = {OURS: Enhancer().fit(path), ALONE: Enhancer(reference="photographs").fit(path)}
            for i in range(share, len(images), SHARES):
                spec = ImageSpec(*folder[i].shape)
                found = {name: model.restore(folder[i], spec) for name, model in models.items()}
                found |= {name: method(folder[i]) for name, method in PEERS.items()}
                for name, pixels in found.items():
                    scores[fault][name].append(_compared(images[i], pixels))
    return scores


def _compared(truth: np.ndarray, found: np.ndarray) -> tuple[float, float, float]:
    step = max(1, int((truth.shape[0] * truth.shape[1] / 2**13) ** 0.5))
    labs = [color.rgb2lab(pixels[::step, ::step]) for pixels in (truth, found)]
    return (
        min(MOST_PSNR, psnr(truth[None], found[None], span=255)),
        float(structural_similarity(truth, found, channel_axis=2)),
        float(color.deltaE_ciede2000(*labs).mean()),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int)
    main(parser.parse_args())
