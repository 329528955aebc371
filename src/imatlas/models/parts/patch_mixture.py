"""A Gaussian mixture of small patches, and the most probable values of the missing pixels of an image.

Zoran & Weiss 2011, "From Learning Models of Natural Image Patches to Whole Image Restoration": all overlapping patches
p of a good image are probable under a mixture of Gaussians with full covariances. Yu, Sapiro & Mallat 2012, "Solving
Inverse Problems with Piecewise Linear Estimators": once each patch has chosen its Gaussian k, the most probable image

    argmin_x  sum_p (x_p - mean)' inv(covariance_k(p)) (x_p - mean)          over the missing pixels of x

is the solution of a linear system, here by conjugate gradients over all patches at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, uniform_filter
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor
from torch.nn.functional import fold, unfold

from imatlas import seeding
from imatlas.images.spec import ImageSpec
from imatlas.models.parts.source_images import to_values

SIDE, MAX_VALUES = 6, 256
"""Side of the patches in pixels, and the largest number of values of one; more channels make it smaller."""

MAX_COMPONENTS, PATCHES_EACH = 512, 500
"""Most Gaussians, and the patches that each takes at least on average."""

MAX_PATCHES, N_ASSIGNMENTS = 256_000, 4
"""Patches that the mixture is fitted to, and times that each of them chooses its Gaussian."""

MAX_IMAGES = 1024
"""Images that patches are taken from."""

INIT_COMPONENTS, CONTRAST = 24, 0.3
"""Principal components in which Gaussians are initialized, and the contrast above which that of patches counts less."""

FLOOR = 1e-5
"""Added to variances of values in [-1, 1]; rounding to 8 bits alone has 5e-6."""

CHOICE, ROUGHNESS = 3e-3, 1e-4
"""Variance of the errors of a fill while patches choose their Gaussian, and of patches around their Gaussian."""

STEPS = (24, 24, 48)
"""Steps of conjugate gradients after each time that patches choose their Gaussian."""

RIVALS, JUDGES, FAR = 24, 16, 20.0
"""Gaussians that a patch chooses from once it has one, the patches by which those of each Gaussian are found, and the
log-density below the best from which a Gaussian is no rival."""

CONVERGED = 1e-10
"""Residual, relative to the first and squared, below which conjugate gradients stop."""

CHUNK = 16_384
"""Patches that are compared with all Gaussians at a time."""

KNOWN_NEARBY = 0.25
"""Share of known pixels around a missing one from which it is determined by them."""


def is_scattered(known: np.ndarray) -> np.ndarray:
    """Which pixels (H, W) of bool are missing and have enough known ones, (H, W) of bool, in the patch around them."""
    return ~known & (uniform_filter(known.astype(float), SIDE, mode="nearest") >= KNOWN_NEARBY)


@dataclass(frozen=True)
class PatchMixture:
    """Gaussians of patches with the mean `mean`; their covariances include the variance of the patches' own means.

    Attributes
    ----------
    side : int
        Of the patches in pixels.
    mean : Tensor (D,)
        D = C side side values in [-1, 1], channel by channel.
    covariances : Tensor (K, D, D)
    weights : Tensor (K,)
    """

    side: int
    mean: Tensor
    covariances: Tensor
    weights: Tensor

    @classmethod
    def of(cls, images: np.ndarray, missing: np.ndarray | None, spec: ImageSpec, seed: int) -> PatchMixture | None:
        """The mixture of the complete patches of images (N, H, W, C); None if there is none.

        `missing` (N, H, W) is positive where pixels are missing. Each patch belongs to one Gaussian, the one in
        which it is most probable, in turn with the Gaussians being those of their patches (classification EM: Celeux &
        Govaert 1992).
        """
        channels, rng = images.shape[3], seeding.rng(seed, "patches")
        side = max(1, min(SIDE, math.isqrt(MAX_VALUES // channels)))
        rows = np.sort(rng.permutation(len(images))[:MAX_IMAGES])
        known = None if missing is None else torch.from_numpy(missing[rows] == 0)
        patches = _some_patches(to_values(images[rows], spec), known, side, rng)
        if len(patches) < 2:
            return None
        own = patches.reshape(len(patches), channels, side * side)
        level = own.mean(2)
        detail = (own - level[:, :, None]).flatten(1)
        n = max(1, min(MAX_COMPONENTS, len(detail) // PATCHES_EACH))
        labels = initial_labels(detail, n, CONTRAST, seeding.seed_of(seed, "patches"))
        overall = detail.T @ detail / len(detail)
        eye = torch.eye(detail.shape[1])
        for _ in range(N_ASSIGNMENTS):
            members = [detail[labels == k] for k in range(n)]
            covariances = torch.stack([(m.T @ m + overall) / (len(m) + 1) for m in members]) + FLOOR * eye
            weights = torch.tensor([(len(m) + 1) / (len(detail) + n) for m in members])
            labels = most_probable(detail, covariances + ROUGHNESS * eye, weights, labels)
        centered = level - level.mean(0)
        of_level = centered.T @ centered / len(centered) + FLOOR * torch.eye(channels)
        covariances += torch.kron(of_level, torch.ones(side * side, side * side))
        return cls(side, level.mean(0).repeat_interleave(side * side), covariances, weights)

    @classmethod
    def adapted(cls, image: Tensor, known: Tensor, wanted: Tensor, rounds: int, seed: int) -> Tensor:
        """An image (C, H, W) whose `wanted` missing pixels are filled by mixtures of its own patches.

        The first is fitted to a smooth fill, each other one to the fill by the one before.
        """
        made = torch.from_numpy(smooth_fill(image.numpy(), known.numpy()))
        height, width = known.shape
        if min(height, width) < SIDE:
            return made
        spec = ImageSpec(height, width, len(image), "float32", -1.0, 1.0, alpha=False)
        for _ in range(rounds):
            mixture = cls.of(made.permute(1, 2, 0).numpy()[None], None, spec, seed)
            if mixture is None:
                break
            made = mixture.fill(image, known, wanted, start=made)
        return made

    def fill(self, image: Tensor, known: Tensor, wanted: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        """An image (C, H, W) with its most probable values where `known` (H, W) is False.

        `wanted` (H, W) of bool says which missing pixels matter, None: all; only patches with one of these are used.
        `start` (C, H, W) is a first fill; None: a smooth one.
        """
        missing = ~known
        eye = torch.eye(len(self.mean))
        precisions = torch.cholesky_inverse(torch.linalg.cholesky(self.covariances + ROUGHNESS * eye))
        x = torch.from_numpy(smooth_fill(image.numpy(), known.numpy())) if start is None else start
        used = unfold((missing if wanted is None else wanted)[None, None].to(x.dtype), self.side)[0].amax(0) > 0
        for steps in STEPS:
            patches = unfold(x[None], self.side)[0].T[used] - self.mean
            labels = most_probable(patches, self.covariances + CHOICE * eye, self.weights)
            x = self._most_probable_image(x, missing, used.nonzero()[:, 0], labels, precisions, steps)
        return x

    def fill_scattered(self, image: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """An image (C, H, W) whose scattered missing pixels are filled, and which pixels are then known, (H, W)."""
        scattered = torch.from_numpy(is_scattered(known.numpy()))
        if not scattered.any():
            return image, known
        return torch.where(scattered, self.fill(image, known, scattered), image), known | scattered

    def _most_probable_image(
        self, x: Tensor, missing: Tensor, used: Tensor, labels: Tensor, precisions: Tensor, steps: int
    ) -> Tensor:
        """The minimum over the missing pixels, by preconditioned conjugate gradients from x.

        `used` (P,) are the patches that count, and `labels` (P,) their Gaussians.
        """
        size = x.shape[1:]
        used = used[labels.argsort()]
        counts = labels.bincount(minlength=len(precisions)).tolist()
        everywhere = torch.zeros((size[0] - self.side + 1) * (size[1] - self.side + 1), len(self.mean))

        def image_of(patches: Tensor) -> Tensor:
            return fold(everywhere.index_copy(0, used, patches).T[None], size, self.side)[0]

        diagonal = image_of(precisions.diagonal(dim1=1, dim2=2)[labels.sort().values])
        free = missing & (diagonal > 0)

        def gradient(v: Tensor, mean: Tensor | float = 0.0) -> Tensor:
            parts = (unfold(v[None], self.side)[0].T[used] - mean).split(counts)
            return image_of(torch.cat([part @ precisions[k] for k, part in enumerate(parts)])) * free

        scale = torch.where(free, diagonal, 1.0)
        residual = -gradient(x, self.mean)
        step = z = residual / scale
        product = first = (residual * z).sum()
        for _ in range(steps):
            if product <= CONVERGED * first:
                break
            change = gradient(step)
            rate = product / (step * change).sum()
            x, residual = x + rate * step, residual - rate * change
            z = residual / scale
            product, before = (residual * z).sum(), product
            step = z + product / before * step
        return x


def smooth_fill(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """An image (C, H, W) with averages of the nearest known pixels where `known` (H, W) is False."""
    filled, left, sigma = image.copy(), ~known, 0.7
    while left.any():
        share = gaussian_filter(known.astype(np.float32), sigma, mode="constant")
        means = gaussian_filter(image * known, (0, sigma, sigma), mode="constant") / share.clip(1e-6)
        reached = left & (share > 0.05)
        filled[:, reached] = means[:, reached]
        left, sigma = left & ~reached, 2 * sigma
    return filled


def _some_patches(images: Tensor, known: Tensor | None, side: int, rng: np.random.Generator) -> Tensor:
    """Complete patches (P, C side side) at random places."""
    n, _, height, width = images.shape
    if known is None:
        complete = np.ones((n, height - side + 1, width - side + 1), bool)
    else:
        complete = (unfold(known[:, None].float(), side).amin(1) > 0).numpy()
        complete = complete.reshape(n, height - side + 1, width - side + 1)
    places = np.flatnonzero(complete)
    if len(places) > MAX_PATCHES:
        places = np.sort(rng.choice(places, MAX_PATCHES, replace=False))
    rows, tops, lefts = (torch.from_numpy(i) for i in np.unravel_index(places, complete.shape))
    offsets = torch.arange(side)
    down, right = tops[:, None, None] + offsets[:, None], lefts[:, None, None] + offsets
    return images[rows[:, None, None], :, down, right].permute(0, 3, 1, 2).flatten(1)


def initial_labels(detail: Tensor, n: int, contrast: float, seed: int) -> Tensor:
    """The first Gaussian of n for each patch (P, D), by k-means over shape and contrast.

    Where the norm of a patch is above `contrast`, its shape counts less than proportionally.
    """
    if n == 1:
        return torch.zeros(len(detail), dtype=torch.int64)
    axes = principal(detail.T @ detail)[1][:, -INIT_COMPONENTS:]
    norm = detail.norm(dim=1, keepdim=True) + contrast
    shape = torch.cat([detail @ axes / norm, norm.log()], 1)
    means = MiniBatchKMeans(n, n_init=1, batch_size=4096, random_state=seed % 2**32)
    return torch.from_numpy(means.fit_predict(shape.numpy())).long()


def logarithms(covariances: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """W (K, D, D) and c (K,) such that a row x has the weighted density exp(c - |W x|^2 / 2) in each Gaussian."""
    lower = torch.linalg.cholesky(covariances)
    whitening = torch.linalg.solve_triangular(lower, torch.eye(lower.shape[1]).expand_as(lower), upper=False)
    return whitening, weights.log() - lower.diagonal(dim1=1, dim2=2).log().sum(1)


def log_densities(rows: Tensor, whitening: Tensor, constants: Tensor) -> Tensor:
    """Logarithms (N, K) of the weighted densities of rows (N, D), from what `logarithms` gives."""
    pairs = zip(constants, whitening, strict=True)
    return torch.stack([c - (rows @ w.T).square().sum(1) / 2 for c, w in pairs], 1)


def most_probable(X: Tensor, covariances: Tensor, weights: Tensor, labels: Tensor | None = None) -> Tensor:
    """The Gaussian with mean 0 in which each row is most probable, (N,) of int64.

    With earlier `labels`, each row chooses only from the Gaussians in which some rows of its own are most probable.
    """
    whitening, constants = logarithms(covariances, weights)

    if labels is None or len(weights) <= 2 * RIVALS:
        return torch.cat([log_densities(rows, whitening, constants).argmax(1) for rows in X.split(CHUNK)])
    found = torch.empty_like(labels)
    for members in labels.argsort().split(labels.bincount(minlength=len(weights)).tolist()):
        if len(members):
            some = members[:: max(1, len(members) // JUDGES)]
            of_some = log_densities(X[some], whitening, constants)
            near = (of_some - of_some.amax(1, keepdim=True)).clamp(min=-FAR)
            choices = near.mean(0).topk(RIVALS).indices
            of_all = log_densities(X[members], whitening[choices], constants[choices])
            found[members] = choices[of_all.argmax(1)]
    return found


def principal(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Variances (D,), ascending, and axes (D, D) float32. With 32 bits, those of an image without noise do not always
    converge."""
    values, axes = torch.linalg.eigh(covariance.double())
    return values.float(), axes.float()
