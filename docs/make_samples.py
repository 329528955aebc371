"""Make the figures of docs/new-images.md: make_samples.py generators fashion_mnist | morph fashion-mnist.atlas

`generators` shows the first images of each cached run of `python -m benchmarks generation --data SET`; `morph` shows a
morph of images and a path over the map of an atlas.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import imatlas as ia
from imatlas import plots

HERE = Path(__file__).resolve().parent
RUNS = HERE.parent / "benchmarks" / ".data" / "generation"
PICTURES = HERE / "pictures"
N_SHOWN = 16

NAMES = {
    "real": "real, for comparison",
    "default": "Autoencoder, default of learn",
    "sharpened": "Autoencoder, sharpened",
    "autoencoder": "Autoencoder, not sharpened",
    "flow": "FlowMatching",
    "gan": "GAN",
    "vae": "VAE, normal prior",
    "pythae-rae": "pythae RAE, mixture",
    "pythae-vae": "pythae VAE",
    "torchcfm": "torchcfm, pixels",
    "ddpm": "DDPM, pixels",
}


def rows_of_pictures(rows: dict[str, np.ndarray]) -> Figure:
    """A labeled row of images (n, H, W, C) uint8 per name."""
    figure = Figure(figsize=(N_SHOWN * 0.62 + 2.4, len(rows) * 0.64), layout="none")
    for i, (name, images) in enumerate(rows.items()):
        axes = figure.add_axes((0.0, 1 - (i + 1) / len(rows), 1.0, 1 / len(rows)))
        strip = np.concatenate([np.pad(x, ((2, 2), (2, 2), (0, 0)), constant_values=255) for x in images], axis=1)
        high, wide = strip.shape[:2]
        axes.imshow(strip.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_xlim(-0.235 * wide, wide)
        axes.text(-0.23 * wide, high / 2, name, va="center", fontsize=9)
        axes.set_axis_off()
    return figure


def generators(data: str) -> None:
    """A row of generated images per model, from its newest cached run on a set."""
    rows = {NAMES["real"]: np.load(RUNS / data / "train.npy", mmap_mode="r")[:N_SHOWN]}
    for model, name in list(NAMES.items())[1:]:
        runs = [path for path in (RUNS / data).glob(f"{model}-*min-*") if (path / "run.json").exists()]
        if runs:
            newest = max(runs, key=lambda path: (path / "run.json").stat().st_mtime)
            rows[name] = np.load(newest / "samples.npy", mmap_mode="r")[:N_SHOWN]
    plots.save(
        rows_of_pictures(rows), PICTURES / f"generators-{data.replace('_', '-')}.webp", width_px=1600, quality=85
    )


def morph(folder: str) -> None:
    """A morph through four held-out images, and a path over the map from corner to corner."""
    atlas = ia.load(folder)
    held_out = np.flatnonzero(atlas.store.rows["held_out"])
    keys = [atlas.store.rows["key"][row] for row in held_out[:: max(1, len(held_out) // 4)][:4]]
    rows, cols = atlas.map_conditions.shape
    path = [(0, 0), (0, cols - 1), (rows - 1, cols - 1), (rows - 1, 0)]
    shown = {
        "a morph of four images": atlas.morph(*keys, frames=N_SHOWN),
        "a path over the map": atlas.morph(cells=path, frames=N_SHOWN, random_state=1),
        "near one image": atlas.sample(N_SHOWN, like=keys[0], strength=0.5),
        "of one cell": atlas.sample(N_SHOWN, cell=(rows // 2, cols // 2)),
    }
    plots.save(rows_of_pictures(shown), PICTURES / f"morph-{atlas.name}.webp", width_px=1600, quality=85)


if __name__ == "__main__":
    {"generators": generators, "morph": morph}[sys.argv[1]](sys.argv[2])
