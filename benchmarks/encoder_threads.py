"""The pretrained encoder on all cores: `python -m benchmarks encoder_threads`.

Threads that compute every layer together, beside threads that each embed images of their own, from JPEG files at
several sizes; decoding is part of it. One minute.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks._data import grocery_photos
from benchmarks._table import save_table
from imatlas import Images, PretrainedEncoder
from imatlas.models.pretrained import _raw_features
from imatlas.system.threads import usable_cores

SIDES, N_IMAGES, RUNS = (80, 112, 224), 512, 3


def main(argv: list[str]) -> None:
    cores, rows = usable_cores(), []
    images = Images(grocery_photos(), image_size=64)[:N_IMAGES]
    for side in SIDES:
        encoder = PretrainedEncoder(image_size=side).fit(images[:8])
        ways: list[tuple[int, Callable[[Images], np.ndarray]]] = [
            (1, encoder.transform),
            (cores, lambda part, encoder=encoder: _raw_features([encoder], part)[0]),
            (cores, encoder.transform),
        ]
        rates, features = _rates(ways, images)
        together, apart = rates[1:]
        largest = max(float(np.abs(each - features[0]).max()) for each in features)
        rows.append([side, *(round(rate) for rate in rates), round(apart / together, 2), largest])
        print(rows[-1], flush=True)
    save_table(
        "encoder_threads",
        f"The pretrained encoder on {cores} cores: images a second",
        ["size in pixels", "1 thread", f"{cores} threads, together", f"{cores} threads, images of their own",
         "own / together", "largest difference"],
        rows,
        [f"{N_IMAGES} JPEG files of Grocery photos, one view, decoding included; medians of {RUNS} alternating runs."],
    )  # fmt: skip


def _rates(
    ways: list[tuple[int, Callable[[Images], np.ndarray]]], images: Images
) -> tuple[list[float], list[np.ndarray]]:
    """Images per second of each way, and the features."""
    seconds: list[list[float]] = [[] for _ in ways]
    features = [np.empty(0)] * len(ways)
    for _ in range(RUNS):
        for i, (n_threads, embed) in enumerate(ways):
            torch.set_num_threads(n_threads)
            embed(images[:16])
            began = time.perf_counter()
            features[i] = embed(images)
            seconds[i].append(time.perf_counter() - began)
    return [len(images) / statistics.median(each) for each in seconds], features
