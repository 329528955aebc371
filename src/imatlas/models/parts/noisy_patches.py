"""A Gaussian mixture of the patches of clean images, learned from noisy ones, and the denoising that it makes possible.

A patch y = x + n of a noisy image, with noise of known covariance N and x from the Gaussian k, has the covariance
S_k + N. So a mixture of noisy patches is fitted by expectation maximization, and S_k is what exceeds N. Then

    x = mean + S_k inv(S_k + N) (y - mean)                                                    (Wiener filter)

for the most probable k: Yu, Sapiro & Mallat 2012, "Solving Inverse Problems with Piecewise Linear Estimators";
Houdard, Bouveyron & Delon 2018, "High-dimensional mixture models for unsupervised image denoising". Overlapping patches
are averaged, mixed with the noisy image, and filtered again with less and less noise: Zoran & Weiss 2011, "From
Learning Models of Natural Image Patches to Whole Image Restoration" (half quadratic splitting). All is computed on
patches whose noise is made white, N = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor
from torch.nn import Fold
from torch.nn.functional import pad, unfold

from imatlas import seeding
from imatlas.models.parts.noise import covariance_of
from imatlas.models.parts.patch_mixture import initial_labels, log_densities, logarithms, most_probable, principal

MAX_SIDE, MAX_VALUES = 7, 75
"""Largest side of the patches in pixels, and number of values of one: 5 x 5 colors are better and faster than 6 x 6."""
MAX_PATCHES, PATCHES_EACH, MAX_COMPONENTS = 100_000, 1300, 64
"""Patches that the mixture is fitted to, at most; those for each Gaussian; and most Gaussians."""
HARD_ROUNDS, SOFT_ROUNDS = 3, 4
"""Rounds of expectation maximization: in the first ones each patch counts for its most probable Gaussian only, which is
several times as fast, and .1 dB worse if there are no others."""
OVERALL = 5.0
"""Patches of all kinds that are added to each Gaussian."""
LEAST, CONDITION = 1e-3, 1e-5
"""Least variance of what is not noise, relative to the noise, and to the largest one."""
NEGLECTED = 0.005
"""Variance of what is not noise that may be lost with the directions that are left out, relative to the noise. Of
patches with much noise, some directions hold nothing else."""
WEIGHTS = (1.0, 4.0)
"""Weight of the filtered patches against the noisy image in each step; the noise that is left is 1 / weight. Four steps
up to 8 are .3 dB worse on single photographs."""
SCREENED, N_RIVALS = 24, 4
"""Directions, those with the most variance, by which Gaussians are chosen that are then compared by all; and how many:
no worse than to compare all, and twice as fast."""
STRIDE = 2
"""Distance of the patches that an image is filtered by, in pixels: each pixel is in about a dozen of them. With all
patches, results are .1 dB better, and take four times as long."""
MARGIN = 16
"""What tiles of large images see around, in pixels."""
CHUNK = 8192


@dataclass(frozen=True)
class NoisyPatches:
    """Gaussians of patches with white noise.

    Attributes
    ----------
    mean : Tensor (D,)
        D = C side side values, channel by channel.
    whitening, coloring : Tensor (E, D), (D, E)
        To values whose noise is white, along the E directions in which there is more than noise, and back.
    covariances : Tensor (K, E, E)
        Of the whitened patches, without noise.
    weights : Tensor (K,)
    """

    mean: Tensor
    whitening: Tensor
    coloring: Tensor
    covariances: Tensor
    weights: Tensor

    @classmethod
    def of(cls, images: list[np.ndarray], spectrum: np.ndarray, seed: int) -> NoisyPatches:
        """The mixture of the complete patches of images (H, W, C) with noise of this power (C, 9, 9)."""
        channels, rng = len(spectrum), seeding.rng(seed, "noisy patches")
        shortest = min(length for image in images for length in image.shape[:2])
        side = max(1, min(MAX_SIDE, math.isqrt(MAX_VALUES // channels), shortest))
        each = max(1, MAX_PATCHES // len(images))
        patches = torch.cat([_some_patches(image, side, each, rng) for image in images])
        lower = torch.linalg.cholesky(torch.from_numpy(covariance_of(spectrum, side)).float())
        mean = patches.mean(0)
        whitening, coloring = _directions(patches - mean, lower)
        white = (patches - mean) @ whitening.T
        covariances, weights = _fitted(white, coloring, channels, seed)
        return cls(mean, whitening, coloring, covariances, weights)

    def denoise(self, values: np.ndarray, stride: int = STRIDE) -> np.ndarray:
        """An image (H, W, C) without its noise, by patches at this distance."""
        channels = values.shape[2]
        side = math.isqrt(len(self.mean) // channels)
        y = torch.from_numpy(values.transpose(2, 0, 1).astype(np.float32))
        around = [min(side - 1, length - 1) for length in y.shape[1:]]
        missing = [max(0, side - length - 2 * more) for length, more in zip(y.shape[1:], around, strict=True)]
        y = pad(y[None], (around[1], around[1], around[0], around[0]), mode="reflect")
        y = pad(y, (0, missing[1], 0, missing[0]), mode="replicate")
        odd = [(length - side) % stride for length in y.shape[2:]]
        y = pad(y, (0, odd[1], 0, odd[0]), mode="replicate")
        fold_patches = Fold(y.shape[2:], side, stride=stride)
        counts = fold_patches(unfold(torch.ones_like(y[:, :1]), side, stride=stride))
        x, rivals = y, None
        for i, weight in enumerate(WEIGHTS):
            white = (unfold(x, side, stride=stride)[0].T - self.mean) @ self.whitening.T
            noisy = self.covariances + torch.eye(white.shape[1]) / weight
            if rivals is None:
                rivals = _rivals(white, noisy, self.weights)
            labels = _best(white, rivals, noisy, self.weights)
            filtered = _filtered(white, labels, self.covariances, noisy)
            z = fold_patches((filtered @ self.coloring.T + self.mean).T[None]) / counts
            x = z if i == len(WEIGHTS) - 1 else (y + weight * z) / (1 + weight)
        height, width = values.shape[:2]
        return x[0, :, around[0] : around[0] + height, around[1] : around[1] + width].permute(1, 2, 0).numpy()


def _some_patches(image: np.ndarray, side: int, n: int, rng: np.random.Generator) -> Tensor:
    """At most n complete patches (P, C side side) of an image (H, W, C), at random places."""
    places = sliding_window_view(image, (side, side), axis=(0, 1))  # (rows, columns, C, side, side), without copies
    n_rows, n_columns = places.shape[:2]
    chosen = np.sort(rng.choice(n_rows * n_columns, min(n, n_rows * n_columns), replace=False))
    patches = torch.from_numpy(places[chosen // n_columns, chosen % n_columns].astype(np.float32)).flatten(1)
    return patches[patches.isfinite().all(1)]


def _directions(patches: Tensor, lower: Tensor) -> tuple[Tensor, Tensor]:
    """Whitening (E, D) and coloring (D, E) for patches (P, D) with noise of covariance L L', L = lower (D, D)."""
    inverse = torch.linalg.solve_triangular(lower, torch.eye(len(lower)), upper=False)
    white = patches @ inverse.T
    values, axes = principal(white.T @ white / max(1, len(white)))
    most = int((torch.cumsum((values - 1).clamp(min=0), 0) <= NEGLECTED * len(values)).sum())
    axes = axes[:, min(most, len(values) - 1) :]
    return axes.T @ inverse, lower @ axes


def _fitted(white: Tensor, coloring: Tensor, channels: int, seed: int) -> tuple[Tensor, Tensor]:
    """Covariances (K, E, E) and weights (K,) of Gaussians of white patches (P, E) less their noise."""
    n_values = white.shape[1]
    overall = white.T @ white / max(1, len(white))
    signal = _without_noise(overall)
    clean = white @ torch.linalg.solve(signal + torch.eye(n_values), signal) @ coloring.T
    detail = clean.reshape(len(clean), channels, len(coloring) // channels)
    detail = (detail - detail.mean(2, keepdim=True)).flatten(1)
    n = max(1, min(MAX_COMPONENTS, len(white) // PATCHES_EACH))
    contrast = max(float(detail.norm(dim=1).median()), 1e-6) if len(detail) else 1.0
    labels = initial_labels(detail, n, contrast, seeding.seed_of(seed, "noisy patches"))

    def gaussians(sums: list[Tensor], counts: Tensor) -> tuple[Tensor, Tensor]:
        noisy = (torch.stack(sums) + OVERALL * overall) / (counts + OVERALL)[:, None, None]
        return torch.stack([_without_noise(part) for part in noisy]), (counts + 1) / (counts.sum() + n)

    def of_labels() -> tuple[Tensor, Tensor]:
        counts = labels.bincount(minlength=n)
        parts = [white[rows] for rows in labels.argsort(stable=True).split(counts.tolist())]
        return gaussians([part.T @ part for part in parts], counts)

    covariances, weights = of_labels()
    for _ in range(HARD_ROUNDS):
        labels = most_probable(white, covariances + torch.eye(n_values), weights, labels)
        covariances, weights = of_labels()
    for _ in range(SOFT_ROUNDS):
        shares = _shares(white, covariances + torch.eye(n_values), weights)
        covariances, weights = gaussians([(white * shares[:, k : k + 1]).T @ white for k in range(n)], shares.sum(0))
    return covariances, weights


def _without_noise(covariance: Tensor) -> Tensor:
    """What exceeds the unit matrix, without negative variances, nor ones that vanish beside the largest."""
    values, axes = principal(covariance)
    return (axes * (values - 1).clamp(min=max(LEAST, CONDITION * float(values[-1])))) @ axes.T


def _shares(white: Tensor, covariances: Tensor, weights: Tensor) -> Tensor:
    """Probability (P, K) that each patch comes from each Gaussian."""
    whitening, constants = logarithms(covariances, weights)
    parts = [log_densities(rows, whitening, constants) for rows in white.split(CHUNK)]
    return torch.softmax(torch.cat(parts), 1)


def _rivals(white: Tensor, covariances: Tensor, weights: Tensor) -> Tensor:
    """The Gaussians (P, N_RIVALS) that are most probable by the last directions of patches (P, E) alone."""
    n = min(SCREENED, white.shape[1])
    whitening, constants = logarithms(covariances[:, -n:, -n:], weights)
    together = whitening.flatten(0, 1).T.contiguous()
    parts = []
    for rows in white[:, -n:].split(CHUNK // 2):
        distances = torch.linalg.vector_norm((rows @ together).view(len(rows), -1, n), dim=2)
        parts.append((constants - distances.square() / 2).topk(min(N_RIVALS, len(weights))).indices)
    return torch.cat(parts)


def _best(white: Tensor, rivals: Tensor, covariances: Tensor, weights: Tensor) -> Tensor:
    """The most probable (P,) of the Gaussians in `rivals` (P, R) of patches (P, E)."""
    whitening, constants = logarithms(covariances, weights)
    turns = rivals.T.flatten()
    scores = torch.empty(len(turns))
    for k, rows in enumerate(turns.argsort(stable=True).split(turns.bincount(minlength=len(weights)).tolist())):
        if len(rows):
            distances = torch.linalg.vector_norm(white[rows % len(white)] @ whitening[k].T, dim=1)
            scores[rows] = constants[k] - distances.square() / 2
    best = scores.view(rivals.shape[1], -1).argmax(0)
    return rivals.gather(1, best[:, None])[:, 0]


def _filtered(white: Tensor, labels: Tensor, clean: Tensor, noisy: Tensor) -> Tensor:
    """Patches (P, D) after the Wiener filter of their Gaussian."""
    out = torch.empty_like(white)
    order = labels.argsort(stable=True)
    for k, rows in enumerate(order.split(labels.bincount(minlength=len(clean)).tolist())):
        if len(rows):
            out[rows] = white[rows] @ torch.linalg.solve(noisy[k], clean[k])
    return out
