"""Weights of `boundary_cues` and `region_merging`, fitted to training images of BSDS500.

`python -m benchmarks hierarchy_weights` prints them, to be copied into both files. Every `STEP`-th image is used. The
weights of cues are fitted first; merging is fitted in three rounds, each on the pairs that merging meets with the
weights of the round before.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from benchmarks._data import bsds500
from imatlas.metrics.boundaries import boundary_map
from imatlas.models.parts import boundary_cues
from imatlas.models.parts.boundary_cues import CUES, ImageFeatures, full_size, image_features
from imatlas.models.parts.region_merging import PAIR_FEATURES, RegionMerging, watershed_regions

STEP = 2
N_SAMPLES = 3000
N_ROUNDS = 3
FAR = 2.5
"""Distance in cues' pixels from any human boundary at which a pixel is an example of none."""

Example = tuple[ImageFeatures, np.ndarray, np.ndarray]
"""Features, cues at half size (float16), human segmentations."""


def main(argv: list[str]) -> None:
    examples = []
    for _, image, truths in islice(bsds500("train"), 0, None, STEP):
        features = image_features(image.astype(np.float32) / 255)
        examples.append((features, boundary_cues.boundary_cues(features).numpy().astype(np.float16), truths))
    weights = None
    for _ in range(2):
        weights, intercept = _cue_weights(examples, weights)
    _show("CUES", CUES, weights, intercept)
    cases = []
    for features, cues, truths in examples:
        probability = _probability(features, cues, weights, intercept)
        cases.append((features, probability, watershed_regions(probability), truths))
    weights, intercept = np.eye(len(PAIR_FEATURES))[0], 0.0
    for _ in range(N_ROUNDS):
        weights, intercept = _pair_weights(cases, weights, intercept)
    _show("PAIR_FEATURES", PAIR_FEATURES, weights, intercept)


def _cue_weights(examples: list[Example], weights: np.ndarray | None) -> tuple[np.ndarray, float]:
    """Weights of the cues in the direction that is most likely by the given weights (or by the sum of cues)."""
    rng = np.random.default_rng(0)
    rows, share, counts = [], [], []
    for _, stored, truths in examples:
        cues = stored.astype(np.float32)
        scale = 1 / cues.mean(axis=(1, 2, 3)) if weights is None else weights
        direction = np.tensordot(scale, cues, 1).argmax(axis=0)
        cues = np.take_along_axis(cues, direction[None, None], axis=1)[:, 0]
        found = np.stack([_halved(boundary_map(truth, thinned=False)) for truth in truths])
        near, far = np.flatnonzero(found.any(axis=0)), np.flatnonzero(distance_transform_edt(~found.any(axis=0)) > FAR)
        for pool, n in ((near, 2 * N_SAMPLES // 5), (far, 3 * N_SAMPLES // 5)):
            drawn = rng.choice(pool, min(n, len(pool)), replace=False)
            rows.append(cues.reshape(len(cues), -1)[:, drawn].T)
            share.append(found.mean(axis=0).ravel()[drawn])
            counts.append(np.full(len(drawn), len(pool) / max(len(drawn), 1)))
    return _logistic(*(np.concatenate(part) for part in (rows, share, counts)))


def _halved(found: np.ndarray) -> np.ndarray:
    """Whether any of 2 x 2 pixels is set."""
    height, width = found.shape
    padded = np.pad(found, ((0, height % 2), (0, width % 2)))
    return padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2).any(axis=(1, 3))


def _probability(features: ImageFeatures, cues: np.ndarray, weights: np.ndarray, intercept: float) -> np.ndarray:
    import torch

    logits = np.tensordot(weights, cues.astype(np.float64), 1) + intercept
    probability = torch.from_numpy(expit(logits).astype(np.float32))
    return full_size(probability, features.lab.shape[1:]).amax(0).numpy()


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
    standardized = (rows - mean) / deviation
    counts = counts / counts.mean()
    model = LogisticRegression(max_iter=500).fit(
        np.concatenate([standardized, standardized]),
        np.repeat([1, 0], len(rows)),
        sample_weight=np.concatenate([counts * share, counts * (1 - share)]),
    )
    weights = model.coef_[0] / deviation
    return weights, float(model.intercept_[0] - weights @ mean)


def _show(title: str, names: dict[str, float], weights: np.ndarray, intercept: float) -> None:
    print(title, {name: round(float(weight), 3) for name, weight in zip(names, weights, strict=True)})
    print("INTERCEPT", round(intercept, 3), flush=True)
