"""Weights of `boundary_cues` and `region_merging`, fitted to training images of BSDS500.

`python -m benchmarks hierarchy_weights` prints them, to be copied into both files, and with `--gray` those for images
without color, where a cue that is the same everywhere gets no weight. Every `STEP`-th image is used. The
weights of cues are fitted first, then those of merging; each in three rounds, on the directions and the pairs that the
weights of the round before choose.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.special import expit
from skimage.color import rgb2gray
from sklearn.linear_model import LogisticRegression

from benchmarks._data import bsds500
from imatlas.metrics.boundaries import boundary_map
from imatlas.models.parts import boundary_cues
from imatlas.models.parts.boundary_cues import CUES, ImageFeatures, full_size, image_features
from imatlas.models.parts.region_merging import PAIR_FEATURES, RegionMerging, watershed_regions

STEP = 2
N_SAMPLES = 3000
N_ROUNDS = 3
LEAST_DEVIATION = 1e-3
"""Standard deviation below which a feature gets no weight."""
FAR = 4
"""Distance in pixels from any human boundary at which a pixel is an example of none."""

Example = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Cues (n, len(CUES), N_DIRECTIONS) at n pixels, share of people who see a boundary there, pixels each stands for."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks hierarchy_weights")
    parser.add_argument("--gray", action="store_true", help="the weights for images without color")
    gray = parser.parse_args(argv).gray
    images = [(image_features(_read(image, gray)), truths) for _, image, truths in _training()]
    rng = np.random.default_rng(0)
    examples = [_sampled(features, truths, rng) for features, truths in images]
    weights, intercept = _cue_weights(*(np.concatenate(part) for part in zip(*examples, strict=True)))
    _show("CUES", CUES, weights, intercept)
    CUES.update((name, (weight, weight)) for name, weight in zip(CUES, weights.tolist(), strict=True))
    boundary_cues.INTERCEPTS = (intercept, intercept)
    cases = []
    for features, truths in images:
        probability = boundary_cues.boundary_probability(features)
        cases.append((features, probability, watershed_regions(probability), truths))
    weights, intercept = np.eye(len(PAIR_FEATURES))[0], 0.0
    for _ in range(N_ROUNDS):
        weights, intercept = _pair_weights(cases, weights, intercept)
    _show("PAIR_FEATURES", PAIR_FEATURES, weights, intercept)


def _training() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    return islice(bsds500("train"), 0, None, STEP)


def _read(image: np.ndarray, gray: bool) -> np.ndarray:
    """An image (H, W, 3) in [0, 1]; of a gray one, all channels are equal."""
    rgb = image.astype(np.float32) / 255
    return np.repeat(rgb2gray(rgb)[..., None], 3, axis=2) if gray else rgb


def _sampled(features: ImageFeatures, truths: np.ndarray, rng: np.random.Generator) -> Example:
    """Examples of one image: `N_SAMPLES` pixels, on or `FAR` from boundaries."""
    coarse, fine = boundary_cues.boundary_cues(features)
    found = np.stack([_beside(truth) for truth in truths])
    near, far = np.flatnonzero(found.any(axis=0)), np.flatnonzero(distance_transform_edt(~found.any(axis=0)) > FAR)
    cues = np.concatenate([*(full_size(cue, fine.shape[2:])[None] for cue in coarse), fine])
    cues = cues.reshape(*cues.shape[:2], -1)
    rows, counts = [], []
    for pool, n in ((near, 2 * N_SAMPLES // 5), (far, 3 * N_SAMPLES // 5)):
        rows.append(rng.choice(pool, min(n, len(pool)), replace=False))
        counts.append(np.full(len(rows[-1]), len(pool) / max(len(rows[-1]), 1)))
    drawn = np.concatenate(rows)
    return np.moveaxis(cues[..., drawn], 2, 0), found.mean(axis=0).ravel()[drawn], np.concatenate(counts)


def _cue_weights(cues: np.ndarray, share: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights of the cues in the direction that is most likely by them; by the sum of cues at first."""
    weights, intercept = np.ones(cues.shape[1]), 0.0
    for _ in range(N_ROUNDS):
        direction = np.einsum("nkd,k->nd", cues, weights).argmax(axis=1)
        rows = np.take_along_axis(cues, direction[:, None, None], axis=2)[..., 0]
        weights, intercept = _logistic(rows.astype(np.float64), share, counts)
    return weights, intercept


def _beside(truth: np.ndarray) -> np.ndarray:
    """Pixels (H, W) bool beside a boundary, on either side."""
    found = boundary_map(truth, thinned=False)
    both = found.copy()
    both[:, 1:] |= found[:, :-1]
    both[1:] |= found[:-1]
    return both


class RecordedMerging(RegionMerging):
    """Merging with given weights that remembers all pairs it met."""

    def __init__(self, *args: object, weights: np.ndarray, intercept: float) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.weights, self.intercept = weights, intercept
        self.seen: list[tuple[np.ndarray, ...]] = []

    def scores(self, a: np.ndarray, b: np.ndarray, strength: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        pairs = self.pair_features(a, b, strength, lengths)
        self.seen.append((a, b, pairs, lengths))
        return expit(pairs @ self.weights + self.intercept)


def _pair_weights(cases: list, weights: np.ndarray, intercept: float) -> tuple[np.ndarray, float]:
    rows, share, counts = [], [], []
    for features, probability, regions, truths in cases:
        merging = RecordedMerging(regions, probability, features, weights=weights, intercept=intercept)
        merging.run()
        a, b, pairs, lengths = (np.concatenate(part) for part in zip(*merging.seen, strict=True))
        rows.append(pairs)
        share.append(np.mean([_separate(merging, regions, truth, a, b) for truth in truths], axis=0))
        counts.append(lengths)
    return _logistic(*(np.concatenate(part) for part in (rows, share, counts)))


def _separate(
    merging: RegionMerging, regions: np.ndarray, truth: np.ndarray, a: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """How little two regions share a human segment: 1 - cosine of their pixel counts over these."""
    truth = np.unique(truth, return_inverse=True)[1].reshape(truth.shape)
    n_true = int(truth.max()) + 1
    counts = np.zeros((len(merging.parents), n_true))
    pairs = np.bincount(regions.ravel() * n_true + truth.ravel(), minlength=merging.n * n_true)
    counts[: merging.n] = pairs.reshape(merging.n, n_true)
    for region, parent in enumerate(merging.parents[:-1].tolist()):
        counts[parent] += counts[region]
    counts /= np.linalg.norm(counts, axis=1, keepdims=True)
    return np.clip(1 - (counts[a] * counts[b]).sum(axis=1), 0, 1)


def _logistic(rows: np.ndarray, share: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, float]:
    """Logistic regression for examples that are positive to a share; weights of the features as they are."""
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    deviation[deviation < LEAST_DEVIATION] = np.inf
    standardized = (rows - mean) / deviation
    counts = counts / counts.mean()
    model = LogisticRegression(max_iter=500).fit(
        np.concatenate([standardized, standardized]),
        np.repeat([1, 0], len(rows)),
        sample_weight=np.concatenate([counts * share, counts * (1 - share)]),
    )
    weights = model.coef_[0] / deviation
    return weights, float(model.intercept_[0] - weights @ mean)


def _show(title: str, names: Iterable[str], weights: np.ndarray, intercept: float) -> None:
    print(title, {name: round(float(weight), 3) for name, weight in zip(names, weights, strict=True)})
    print("INTERCEPT", round(intercept, 3), flush=True)
