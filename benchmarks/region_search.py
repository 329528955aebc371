"""Search for a part of an image: `python -m benchmarks region_search`.

Emoji are pasted on different photographs, at a random place and scale; is the emoji of a query found in the others?
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

import imatlas as ia
from benchmarks._composites import emoji_on
from benchmarks._data import bsds500, noto_emoji
from benchmarks._table import save_table

N_KINDS, N_EACH = 6, 6
"""Emoji, and photographs with each; so five others are to be found for each query."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks region_search")
    parser.parse_args(argv)
    save(_precisions(seed=0))


def save(found: dict[str, float]) -> None:
    """Save the table: precision of each way to search."""
    save_table(
        "region_search",
        "Search for a part of an image",
        ["search", "precision at 5"],
        [[way, round(value, 3)] for way, value in found.items()],
        [
            f"{N_KINDS} emoji, each on {N_EACH} different photographs of BSDS500 val, its longer side 0.25 to 0.6 of "
            "the shorter side of the photograph; every image is a query. Precision at 5: share of the five nearest "
            f"images that have the same emoji; by chance {(N_EACH - 1) / (N_KINDS * N_EACH - 1):.3f}. One draw.",
            "The region is the box of the emoji, the point its center. Whole images are compared by the features of "
            "the atlas, as learned from these images; parts by those of `imatlas.tasks.region_search`, whose settings "
            "were chosen on photographs of BSDS500 train with another draw of emoji.",
        ],
    )


def _precisions(seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    emoji = sorted(noto_emoji().rglob("*.png"))
    some = [emoji[i] for i in rng.permutation(len(emoji))[:N_KINDS]]
    photographs = [pixels for _, pixels, _ in islice(bsds500("val"), N_KINDS * N_EACH)]
    boxes = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "photos")
        folder.mkdir()
        for i, photograph in enumerate(photographs):
            pixels, alpha = next(iter(emoji_on([photograph], [some[i % N_KINDS]], rng)))
            Image.fromarray(pixels).save(folder / f"{i:03d}.png")
            y, x = np.nonzero(alpha > 0.5)
            boxes.append((int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1))
        atlas = ia.learn(folder, Path(name, "photos.atlas"), budget="5s")
        ways: dict[str, list[float]] = {}
        for i, (left, top, width, height) in enumerate(boxes):
            box, point = (left, top, width, height), (left + width // 2, top + height // 2)
            for way, asked in {
                "whole images": {},
                "region against whole images": {"region": box},
                "region against parts": {"region": box, "regions": True},
                "part at a point against parts": {"point": point, "regions": True},
                "salient object against parts": {"regions": True},
            }.items():
                keys = atlas.search(f"{i:03d}.png", N_EACH - 1, **asked)["key"].to_pylist()
                ways.setdefault(way, []).append(float(np.mean([int(key[:3]) % N_KINDS == i % N_KINDS for key in keys])))
    return {way: float(np.mean(values)) for way, values in ways.items()}
