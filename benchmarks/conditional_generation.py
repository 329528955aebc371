"""Images of a place: does telling a generator where on the map help it, and does it go there?

`python -m benchmarks conditional_generation [--minutes 3] [--seeds 0 1 2] [--threads 2] [--data clothes]`

For each seed an autoencoder learns without labels, as `learn` has it; its vectors are laid out on a map and divided
into clusters. Then generators over the same vectors are asked for images, free or told the cell's prototype. The judge
is that of `benchmarks.generation`. Prints two tables, `conditional_generation_DATA` and `few_steps_DATA`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch

import imatlas as ia
from benchmarks._data import SETS, Labeled, labeled
from benchmarks._judge import Judge, judge
from benchmarks._table import save_table
from benchmarks.generation import _near_copies, _overlap, _some
from imatlas.atlas.stages import SHARPENING, SHARPNESS
from imatlas.lattice.geometry import neighbor_table
from imatlas.metrics.generation import copying_score, frechet_distance
from imatlas.tasks.cluster import cluster
from imatlas.tasks.conditions import MapConditions, sample_from_map
from imatlas.tasks.map import fit_map

N = 10_000
"""Images made by each generator."""

N_ASKED = 2_000
"""Images asked of cells, and of clusters."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks conditional_generation")
    parser.add_argument("--data", choices=SETS, default="fashion_mnist")
    parser.add_argument("--minutes", type=float, default=3.0, help="training of the autoencoder, and of both flows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    data, seen_by = labeled(options.data), judge(options.data)
    runs = [_Run(data, seen_by, seed, options.minutes) for seed in options.seeds]
    steering = [run.steering() for run in runs]
    few = [run.few_steps() for run in runs]
    shared = [
        f"{options.data}: {len(data.train):,} training images; {options.minutes:g} minutes of training for the "
        f"autoencoder and half of that for each flow, {options.threads} threads; seeds {options.seeds}: mean "
        "and, after ±, standard deviation.",
        f"Fréchet distance to the test part in the features of a classifier that is right on {seen_by.accuracy:.1%} "
        f"of it; {N:,} images each. No generator saw a label.",
    ]
    save_table(
        f"conditional_generation_{options.data}",
        "Told where on the map, or not, at equal training",
        ("generator", "Fréchet", "precision", "recall", "C_T", "near copies", "by chance", "within a step of the cell",
         "of the cluster"),
        _merged(steering),
        [
            *shared,
            f"Told: the prototype of the cell. {N_ASKED:,} images asked of cells, and as many of clusters, as often as "
            "the images lie in them; each is encoded again by the autoencoder and placed on the map. Rebuilt: test "
            "images encoded, decoded and encoded again, the share of which stays: what an ideal generator could reach.",
        ],
    )  # fmt: skip
    save_table(
        f"few_steps_{options.data}",
        "The flow in few steps",
        ("sampler", "Fréchet", "times that of 30 steps", "seconds for 64 images"),
        _merged(few),
        [*shared, "The told flow, asked for images as they lie on the map. Seconds: median of 5 in a warm process."],
    )


class _Run:
    """One seed: an autoencoder, the map and the clusters of its vectors, and the generators over them."""

    def __init__(self, data: Labeled, seen_by: Judge, seed: int, minutes: float) -> None:
        self.data, self.seen_by, self.seed = data, seen_by, seed
        self.features = {"train": seen_by.features(data.train), "test": seen_by.features(data.test)}
        common = {"random_state": seed, "progress": False, "device": "cpu"}
        width = 64 if data.train.shape[1] <= 32 else 128
        self.own = ia.Autoencoder(latent_dim=width, budget=60 * (1 - SHARPENING) * minutes, **common).fit(data.train)
        self.own.sharpen(data.train, weight=SHARPNESS, budget=60 * SHARPENING * minutes)
        z = self.own.transform(data.train)
        self.som = fit_map(z, held_out=self.own.transform(data.test[:1000]), random_state=seed).som
        self.clusters = cluster(z, random_state=seed).model
        cells = self.som.predict(z)
        self.map_conditions = MapConditions.on(self.som, cells, self.clusters.predict(z))
        told = self.map_conditions.prototypes[cells]
        flow = {"autoencoder": self.own, "budget": 30 * minutes, **common}
        self.free_flow = ia.FlowMatching(**flow).fit(data.train)
        self.told_flow = ia.FlowMatching(**flow).fit(data.train, told)
        self.free_images = self.own.sample(N, random_state=1)
        self.own.fit_prior(data.train, told)

    def steering(self) -> list[list[Any]]:
        rebuilt = self.own.inverse_transform(self.own.transform(self.data.test))
        return [
            ["test images, rebuilt", *self._judged(rebuilt), *self._stay()],
            ["mixture, free", *self._judged(self.free_images), None, None],
            ["mixture, told", *self._judged(self._told(self.own)), *self._hits(self.own)],
            ["flow, free", *self._judged(self.free_flow.sample(N, random_state=1)), None, None],
            ["flow, told", *self._judged(self._told(self.told_flow)), *self._hits(self.told_flow)],
        ]

    def few_steps(self) -> list[list[Any]]:
        told = self.map_conditions.prototypes[self.map_conditions.draw(N, random_state=1)]
        rows: list[list[Any]] = []
        for name, solver, n_steps in (
            ("heun, 30 steps", "heun", 30), ("heun, 15 steps", "heun", 15), ("shortcut, 8 steps", "shortcut", 8),
            ("shortcut, 4 steps", "shortcut", 4), ("shortcut, 2 steps", "shortcut", 2),
            ("shortcut, 1 step", "shortcut", 1),
        ):  # fmt: skip
            asked = {"solver": solver, "n_steps": n_steps}
            far = self._frechet(self.told_flow.sample(N, y=told, random_state=1, **asked))
            taken = []
            for i in range(5):
                began = time.perf_counter()
                self.told_flow.sample(64, y=told[:64], random_state=i, **asked)
                taken.append(time.perf_counter() - began)
            rows.append([name, far, far / (rows[0][1] if rows else far), statistics.median(taken)])
        return rows

    def _told(self, model: Any) -> np.ndarray:
        return sample_from_map(model, self.map_conditions, N, random_state=1)

    def _frechet(self, images: np.ndarray) -> float:
        return frechet_distance(self.features["test"], self.seen_by.features(images))

    def _judged(self, images: np.ndarray) -> list[float]:
        """Fréchet distance, precision, recall, C_T, near copies and what chance would give."""
        made, train, test = self.seen_by.features(images), self.features["train"], self.features["test"]
        copies = copying_score(train, test, made), *_near_copies(train, test, made)
        return [frechet_distance(test, made), *_overlap(test, made)[:2], *copies]

    def _hits(self, model: Any) -> list[float]:
        """The share of images that lie within a step of the cell, and in the cluster, that they were asked of."""
        cells = self.map_conditions.draw(N_ASKED, random_state=2)
        made = model.sample(N_ASKED, y=self.map_conditions.prototypes[cells], random_state=2)
        found = self.som.predict(self.own.transform(made))
        right = []
        for one in np.unique(self.map_conditions.clusters):
            n = round(N_ASKED * (self.map_conditions.clusters == one).mean())
            if n:
                made = sample_from_map(model, self.map_conditions, n, cluster=int(one), random_state=3)
                right.append(self.clusters.predict(self.own.transform(made)) == one)
        return [float(self._near(cells, found).mean()), float(np.concatenate(right).mean())]

    def _stay(self) -> list[float]:
        z = self.own.transform(_some(self.data.test, N_ASKED))
        again = self.own.transform(self.own.inverse_transform(z))
        kept = self.clusters.predict(z) == self.clusters.predict(again)
        return [float(self._near(self.som.predict(z), self.som.predict(again)).mean()), float(kept.mean())]

    def _near(self, asked: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Whether cells (n,) are the same or neighbors."""
        neighbors = neighbor_table(self.som.rows_, self.som.cols_, self.som.topology)
        return (asked == found) | (neighbors[asked] == found[:, None]).any(1)


def _merged(runs: list[list[list[Any]]]) -> list[list[Any]]:
    """Rows of several runs as one: mean, and where there are several runs their deviation."""
    merged = []
    for rows in zip(*runs, strict=True):
        values = []
        for numbers in list(zip(*rows, strict=True))[1:]:
            if numbers[0] is None:
                values.append(None)
                continue
            text = f"{statistics.mean(numbers):.4g}"
            values.append(f"{text} ± {statistics.stdev(numbers):.2g}" if len(numbers) > 1 else text)
        merged.append([rows[0][0], *values])
    return merged
