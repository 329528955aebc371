"""Intake of JPEG files into the pixel cache, against a bare thumbnail loop: `python -m benchmarks intake`."""

from __future__ import annotations

import argparse
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks._data import ROOT
from benchmarks._table import save_table
from imatlas.images.dataset import Images

WIDTH, HEIGHT, QUALITY, SIZE = 500, 375, 88, 64


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks intake")
    parser.add_argument("--files", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="imatlas-intake-"))
    try:
        files = make_files(folder, options.files)
        processes = ProcessPoolExecutor(2, mp_context=get_context("spawn"))
        ways: dict[str, Callable[[], object]] = {
            "bare": lambda: bare_loop(files),
            "bare two": lambda: list(processes.map(bare_loop, [files[::2], files[1::2]])),
            "one": lambda: intake(folder, workers=1),
            "two": lambda: intake(folder, workers=2),
        }
        for way in ways.values():  # Warm up: page cache, imports, processes.
            way()
        # Interleaved, so that a slow period affects all.
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                times[name].append(time.perf_counter() - start)
        processes.shutdown()
        quality = psnr_to_full_decoding(folder, files)
        report(times, quality, len(files), sum(f.stat().st_size for f in files) / len(files))
    finally:
        shutil.rmtree(folder)


def make_files(folder: Path, n: int) -> list[Path]:
    """Crops of BSDS500 and Kodak photographs, resized to 500 x 375, as JPEG files of quality 88."""
    rng = np.random.default_rng(0)
    pictures = [Image.open(path).convert("RGB") for path in sorted((ROOT / "kodak").glob("*.png"))]
    with tarfile.open(ROOT / "bsds500" / "images_train_val.tar") as archive:
        for member in archive.getmembers():
            if member.name.endswith(".jpg"):
                pictures.append(Image.open(archive.extractfile(member)).convert("RGB"))  # type: ignore[arg-type]
    files = []
    for i in range(n):
        picture = pictures[i % len(pictures)]
        share = rng.uniform(0.75, 1.0)
        width = min(picture.width, picture.height * WIDTH / HEIGHT) * share
        height = width * HEIGHT / WIDTH
        left, top = rng.uniform(0, picture.width - width), rng.uniform(0, picture.height - height)
        box = (left, top, left + width, top + height)
        path = folder / f"{i:05d}.jpg"
        picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=box).save(path, quality=QUALITY)
        files.append(path)
    return files


def bare_loop(files: list[Path]) -> None:
    """The three-line loop; results are discarded."""
    for path in files:
        with Image.open(path) as image:
            image.thumbnail((SIZE, SIZE))


def intake(folder: Path, workers: int) -> int:
    """List, read, sniff, hash, orient, decode, crop, perceptual hash, write and map the cache."""
    return len(Images(folder, image_size=SIZE, workers=workers).pixels)


def psnr_to_full_decoding(folder: Path, files: list[Path]) -> np.ndarray:
    """PSNR in dB of each cached image to the same crop, fully decoded and downscaled by Lanczos in one step."""
    pixels = Images(folder, image_size=SIZE).pixels
    left = (WIDTH - HEIGHT) / 2
    values = []
    for path, cached in zip(files, pixels, strict=True):
        with Image.open(path) as image:
            full = image.resize((SIZE, SIZE), Image.Resampling.LANCZOS, box=(left, 0, left + HEIGHT, HEIGHT))
        error = np.mean((np.asarray(full, np.float64) - cached) ** 2)
        values.append(10 * np.log10(255**2 / max(error, 1e-12)))
    return np.array(values)


def report(times: dict[str, list[float]], quality: np.ndarray, n: int, size: float) -> None:
    """Save the table: medians over rounds, ratios within a round."""
    bare = np.array(times["bare"])

    def row(name: str, key: str, psnr: float | str) -> list[object]:
        seconds = np.array(times[key])
        ratios = bare / seconds
        return [
            name,
            float(np.median(seconds) / n * 1e3),
            float(np.median(ratios)),
            f"{ratios.min():.2f} to {ratios.max():.2f}",
            psnr,
        ]

    mean = f"{quality.mean():.1f} (min {quality.min():.1f})"
    save_table(
        "intake",
        f"Intake of {n} JPEG files of {WIDTH} x {HEIGHT} to {SIZE} px",
        ["method", "ms per image, median", "speed / bare loop", "range", "PSNR to full decoding, dB, mean"],
        [
            [f"bare loop: Pillow {version('pillow')} open and thumbnail, 1 thread", *row("", "bare", "")[1:]],
            row("bare loop in two processes", "bare two", ""),
            row("imatlas, into the cache, workers=1", "one", mean),
            row("imatlas, into the cache, workers=2", "two", mean),
        ],
        [
            f"Crops of BSDS500 (train, val) and Kodak photographs, quality {QUALITY}, {size / 1024:.0f} KiB per file.",
            "imatlas: list the folder, read, sniff, SHA-256, EXIF, decode, crop to a square, perceptual hash, write "
            "and map the cache and its records.",
            f"{len(times['bare'])} interleaved rounds, files in the page cache.",
            "PSNR to the same crop, fully decoded and downscaled by Lanczos in one step.",
        ],
    )
