"""Make docs/pictures/enhanced.webp: images of a folder with four faulty ones, before and after: make_enhanced.py"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import imatlas as ia  # noqa: E402
from benchmarks._data import ROOT  # noqa: E402
from benchmarks._enhance import faulty  # noqa: E402
from imatlas import plots  # noqa: E402
from imatlas.images.spec import ImageSpec  # noqa: E402

FAULTS = {
    "kodim23": "-3 EV",
    "kodim15": "contrast 0.4, dark",
    "kodim05": "strong warm cast",
    "kodim21": "gamma 1.8",
    "kodim03": "none",
}
"""Shown images of Kodak and their faults; the other seven have none."""


def main() -> None:
    images = {file.stem: np.asarray(Image.open(file).convert("RGB")) for file in sorted((ROOT / "kodak").glob("*.png"))}
    folder = {name: faulty(pixels, FAULTS.get(name, "none")) for name, pixels in images.items()}
    with tempfile.TemporaryDirectory() as path:
        for name, pixels in folder.items():
            Image.fromarray(pixels).save(Path(path) / f"{name}.png", compress_level=1)
        model = ia.Enhancer().fit(path)
    figure = Figure(figsize=(len(FAULTS) * 2.2, 4.75), layout="none")
    for column, (name, fault) in enumerate(FAULTS.items()):
        given = folder[name]
        rows = {
            fault: given,
            "enhanced": model.restore(given, ImageSpec(*given.shape)),
            "before the fault": images[name],
        }
        for row, (title, pixels) in enumerate(rows.items()):
            axes = figure.add_axes((column / 5 + 0.004, 1 - (row + 1) / 3 + 0.004, 0.192, 0.27))
            axes.imshow(pixels[: 2 * pixels.shape[1] // 3])
            axes.set_title("no fault" if title == "none" else title, fontsize=9, pad=3)
            axes.set_axis_off()
    plots.save(figure, HERE / "pictures" / "enhanced.webp", width_px=1500, quality=82)


if __name__ == "__main__":
    main()
