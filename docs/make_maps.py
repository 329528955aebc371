"""Make the figures of docs/map.md: python docs/make_maps.py [fashion-mnist] [noto-emoji] [grocery-photos]

The image sets are read from IMATLAS_DATA, or from `../shared/data` beside the checkout. No labels are used.
"""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path

import numpy as np

import imatlas as ia
from imatlas import plots

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("IMATLAS_DATA", HERE.parents[1] / "shared" / "data"))
PICTURES = HERE / "pictures"


def fashion_mnist() -> None:
    """60,000 images of Fashion-MNIST by their pixels: cell means, U-matrix and hits."""
    with gzip.open(DATA / "fashion_mnist" / "train-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    X = images.reshape(len(images), -1) / np.float32(255)
    som = ia.SOM(rows=20, cols=30, topology="hexagonal").fit(X)
    cells = som.predict(X)
    regions = ia.KMeans(n_clusters=12).fit(X).predict(som.codebook_)
    framed = np.pad(images, ((0, 0), (2, 2), (2, 2)))  # Black margins, which hexagons may cut.
    sheet = plots.image_sheet(som, framed, cells, show="mean", clusters=regions)
    plots.save(sheet, PICTURES / "hex-fashion-mnist.webp", width_px=2000, quality=80)
    gaps = plots.u_matrix(som, between=True, clusters=regions)
    plots.save(gaps, PICTURES / "hex-fashion-mnist-gaps.webp", width_px=1200, quality=80)
    plots.save(plots.hit_map(som, cells), PICTURES / "hex-fashion-mnist-hits.webp", width_px=1200, quality=80)


def noto_emoji() -> None:
    """1,688 emoji by the features of the pretrained encoder: the emoji nearest to each prototype."""
    images = ia.Images(DATA / "emoji" / "noto_emoji64.tar", image_size=64)
    X = ia.PretrainedEncoder().fit(images).transform(images)
    som = ia.SOM(rows=17, cols=24, topology="hexagonal").fit(X)
    sheet = plots.image_sheet(som, images.pixels, X, crop=False)
    plots.save(sheet, PICTURES / "hex-noto-emoji.webp", width_px=2000, quality=80)


def grocery_photos() -> None:
    """1,053 shop photographs by the same features: the photograph nearest to each prototype."""
    images = ia.Images(DATA / "photos" / "grocery.tar", image_size=224)
    X = ia.PretrainedEncoder().fit(images).transform(images)
    som = ia.SOM(rows=11, cols=15, topology="hexagonal").fit(X)
    regions = ia.KMeans(n_clusters=20).fit(X).predict(som.codebook_)
    sheet = plots.image_sheet(som, images.pixels, X, clusters=regions)
    plots.save(sheet, PICTURES / "hex-grocery-photos.webp", width_px=1900, quality=70)


if __name__ == "__main__":
    figures = {"fashion-mnist": fashion_mnist, "noto-emoji": noto_emoji, "grocery-photos": grocery_photos}
    for name in sys.argv[1:] or figures:
        figures[name]()
