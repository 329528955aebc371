"""Time and memory of `imatlas segment` on large images: part of `python -m benchmarks segmentation --only large`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks._data import ROOT
from benchmarks._memory import run_measured
from benchmarks._table import save_table
from imatlas.images.encode import encode

SIZES = {"1 MP": (1224, 816), "6 MP": (3000, 2000), "24 MP": (6000, 4000)}
NOISE = 4.0
"""Standard deviation of the gray noise, in 8 bits."""


def large(images: list[Any], options: argparse.Namespace) -> None:
    """One process per image: decoding, segments, label map, overlay and tables."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for title, size in SIZES.items():
            for depth in ("8-bit JPEG", "16-bit TIFF"):
                path = _picture(Path(folder), size, depth)
                output = Path(folder) / f"{path.name}-segments"
                command = [sys.executable, "-m", "imatlas", "segment", str(path), "-o", str(output), "--json"]
                run = run_measured([*options.prefix, *command])
                found = json.loads(run.output)
                rows.append([title, depth, round(run.seconds, 1), round(run.peak_mb), found["metrics"]["n_segments"]])
                print(rows[-1], flush=True)
    save_table(
        "segmentation_large",
        "imatlas segment on one large image",
        ("image", "file", "s", "peak PSS MB", "segments"),
        rows,
        [
            "A photograph of the Kodak set, enlarged by bicubic interpolation, with fine noise; default level. Seconds "
            "of the whole command, of which about 3 start the program; single runs.",
            f"Load average of the machine at the end: {os.getloadavg()[1]:.1f}; more than 2 on two cores means that "
            "other programs ran beside.",
        ],
    )


def _picture(folder: Path, size: tuple[int, int], depth: str) -> Path:
    """A large picture as a file: kodim23, enlarged, with noise."""
    with Image.open(ROOT / "kodak" / "kodim23.png") as picture:
        pixels = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    noise = np.random.default_rng(0).normal(0, NOISE, (*pixels.shape[:2], 1)).astype(np.float32)
    pixels = np.clip(pixels + noise, 0, 255)
    path = folder / f"{size[0]}.{'jpg' if '8' in depth else 'tif'}"
    if "8" in depth:
        path.write_bytes(encode(np.rint(pixels).astype(np.uint8), "jpeg", quality=92))
    else:
        path.write_bytes(encode(np.rint(pixels * 257).astype(np.uint16), "tiff"))
    return path
