"""Generation conditioned on map cells: `python -m benchmarks conditional_generation [--minutes 3] [--seeds 0 1 2]`.

For each seed, an autoencoder is trained without labels as in `learn`, and a map and clusters are fitted to its latent
vectors. Generators over these vectors are compared unconditional and conditioned on the prototype of a cell, with the
metrics of `benchmarks.generation`. Two tables: `conditional_generation_DATA` and `few_steps_DATA`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch

import imatlas as ia
from benchmarks._classifier import Classifier, classifier
from benchmarks._data import SETS, Labeled, labeled
from benchmarks._generation_metrics import near_copies, overlap, subset
from benchmarks._table import save_table
from imatlas.atlas.learn_generator import SHARPENING, SHARPNESS
from imatlas.lattice.geometry import neighbor_table
from imatlas.metrics.generation import copying_score, frechet_distance
from imatlas.tasks.cluster import cluster
from imatlas.tasks.conditions import MapConditions, sample_from_map
from imatlas.tasks.map import fit_map

N = 10_000
"""Images sampled from each generator."""

N_CONDITIONED = 2_000
"""Images sampled for given cells, and for given clusters."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks conditional_generation")
    parser.add_argument("--data", choices=SETS, default="fashion_mnist", help="image set")
    parser.add_argument(
        "--minutes", type=float, default=3.0, help="training time of the autoencoder, and of two of the three flows"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    data, judge = labeled(options.data), classifier(options.data)
    runs = [_Run(data, judge, seed, options.minutes) for seed in options.seeds]
    conditions = [run.conditions() for run in runs]
    few = [run.few_steps() for run in runs]
    shared = [
        f"{SETS[options.data]}: {len(data.train):,} training images; {options.minutes:g} minutes of training for the "
        f"autoencoder, half of that for each flow, {options.threads} thread(s); mean ± standard deviation over seeds "
        f"{options.seeds}.",
        f"Fréchet distance to the test part on the features of a classifier (test accuracy {judge.accuracy:.1%}), "
        f"{N:,} images each. No generator uses labels.",
    ]
    save_table(
        f"conditional_generation_{options.data}",
        "Generation with and without a condition on the map cell, at equal training",
        ("generator", "Fréchet", "precision", "recall", "C_T", "near copies",
         "near copies expected", "in or next to the cell", "in the cluster"),
        _merged(conditions),
        [
            *shared,
            f"Condition: the prototype of the cell. {N_CONDITIONED:,} images for cells, and as many for clusters, in "
            "proportion to the images in them; each is encoded again and placed on the map. Reconstructed: test images "
            "encoded, decoded and encoded again; the share that stays is the upper bound.",
        ],
    )  # fmt: skip
    save_table(
        f"few_steps_{options.data}",
        "Flow matching with few sampling steps",
        ("sampler", "Fréchet", "relative to 30 steps", "64 images s"),
        _merged(few),
        [
            *shared,
            "Conditional flows, without and with shortcuts; cells in proportion to their images. 64 images: median of "
            "5 in a warm process.",
        ],
    )


class _Run:
    """One seed: an autoencoder, the map and clusters of its latent vectors, and the generators over them."""

    def __init__(self, data: Labeled, judge: Classifier, seed: int, minutes: float) -> None:
        self.data, self.judge, self.seed = data, judge, seed
        self.features = {"train": judge.features(data.train), "test": judge.features(data.test)}
        common = {"random_state": seed, "progress": False, "device": "cpu"}
        width = 64 if data.train.shape[1] <= 32 else 128
        self.autoencoder = ia.Autoencoder(latent_dim=width, budget=60 * (1 - SHARPENING) * minutes, **common)
        self.autoencoder.fit(data.train)
        self.autoencoder.sharpen(data.train, weight=SHARPNESS, budget=60 * SHARPENING * minutes)
        z = self.autoencoder.transform(data.train)
        self.som = fit_map(z, held_out=self.autoencoder.transform(data.test[:1000]), random_state=seed).som
        self.clusters = cluster(z, random_state=seed).model
        cells = self.som.predict(z)
        self.map_conditions = MapConditions.on(self.som, cells, self.clusters.predict(z))
        cond = self.map_conditions.prototypes[cells]
        flow = {"autoencoder": self.autoencoder, "budget": 30 * minutes, **common}
        self.unconditional_flow = ia.FlowMatching(**flow).fit(data.train)
        self.conditional_flow = ia.FlowMatching(**flow).fit(data.train, cond)
        self.shortcut_flow = ia.FlowMatching(**flow, solver="shortcut").fit(data.train, cond)
        self.unconditional_images = self.autoencoder.sample(N, random_state=1)
        self.autoencoder.fit_prior(data.train, cond)

    def conditions(self) -> list[list[Any]]:
        reconstructed = self.autoencoder.inverse_transform(self.autoencoder.transform(self.data.test))
        return [
            ["test images, reconstructed", *self._metrics(reconstructed), *self._roundtrip()],
            ["mixture, unconditional", *self._metrics(self.unconditional_images), None, None],
            ["mixture, conditional", *self._conditional(self.autoencoder)],
            ["flow, unconditional", *self._metrics(self.unconditional_flow.sample(N, random_state=1)), None, None],
            ["flow, conditional", *self._conditional(self.conditional_flow)],
        ]

    def few_steps(self) -> list[list[Any]]:
        cond = self.map_conditions.prototypes[self.map_conditions.draw(N, random_state=1)]
        rows: list[list[Any]] = []
        for name, solver, n_steps in (
            ("heun, 30 steps", "heun", 30), ("heun, 15 steps", "heun", 15), ("shortcut, 8 steps", "shortcut", 8),
            ("shortcut, 4 steps", "shortcut", 4), ("shortcut, 2 steps", "shortcut", 2),
            ("shortcut, 1 step", "shortcut", 1),
        ):  # fmt: skip
            sampler = {"solver": solver, "n_steps": n_steps}
            flow = self.shortcut_flow if solver == "shortcut" else self.conditional_flow
            distance = self._frechet(flow.sample(N, y=cond, random_state=1, **sampler))
            taken = []
            for i in range(5):
                began = time.perf_counter()
                flow.sample(64, y=cond[:64], random_state=i, **sampler)
                taken.append(time.perf_counter() - began)
            rows.append([name, distance, distance / (rows[0][1] if rows else distance), statistics.median(taken)])
        return rows

    def _conditional(self, model: Any) -> list[float]:
        return [*self._metrics(sample_from_map(model, self.map_conditions, N, random_state=1)), *self._hits(model)]

    def _frechet(self, images: np.ndarray) -> float:
        return frechet_distance(self.features["test"], self.judge.features(images))

    def _metrics(self, images: np.ndarray) -> list[float]:
        """Fréchet distance, precision, recall, C_T, near copies and their expected share."""
        generated, train, test = self.judge.features(images), self.features["train"], self.features["test"]
        copies = copying_score(train, test, generated), *near_copies(train, test, generated)
        return [frechet_distance(test, generated), *overlap(test, generated)[:2], *copies]

    def _hits(self, model: Any) -> list[float]:
        """Shares of images in or next to the requested cell, and in the requested cluster."""
        cells = self.map_conditions.draw(N_CONDITIONED, random_state=2)
        images = model.sample(N_CONDITIONED, y=self.map_conditions.prototypes[cells], random_state=2)
        found = self.som.predict(self.autoencoder.transform(images))
        right = []
        for one in np.unique(self.map_conditions.clusters):
            n = round(N_CONDITIONED * (self.map_conditions.clusters == one).mean())
            if n:
                images = sample_from_map(model, self.map_conditions, n, cluster=int(one), random_state=3)
                right.append(self.clusters.predict(self.autoencoder.transform(images)) == one)
        return [float(self._near(cells, found).mean()), float(np.concatenate(right).mean())]

    def _roundtrip(self) -> list[float]:
        z = self.autoencoder.transform(subset(self.data.test, N_CONDITIONED))
        again = self.autoencoder.transform(self.autoencoder.inverse_transform(z))
        same_cluster = self.clusters.predict(z) == self.clusters.predict(again)
        return [float(self._near(self.som.predict(z), self.som.predict(again)).mean()), float(same_cluster.mean())]

    def _near(self, cells: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Whether cells (n,) are equal or adjacent."""
        neighbors = neighbor_table(self.som.rows_, self.som.cols_, self.som.topology)
        return (cells == found) | (neighbors[cells] == found[:, None]).any(1)


def _merged(runs: list[list[list[Any]]]) -> list[list[Any]]:
    """Rows of several runs as one: mean, and standard deviation of more than one run."""
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
