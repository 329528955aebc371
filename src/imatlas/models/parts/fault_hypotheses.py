"""Which fault an image has, told from how its descriptors would look without it.

    descriptors of an image -> under each hypothesis (no fault, or one of many) the descriptors of the faultless image
    -> weight of each hypothesis: its prior, times the density of those descriptors among faultless images

The density is a Student t, so that an unusual scene is not taken for a fault too easily. It begins as a built-in one
and is moved to a set of images by expectation maximization over their hypotheses: that of the faultless images is
learned from images of which any may have a fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

DEGREES = 5.0
"""Degrees of freedom of the t distribution."""
MOST = 0.5
"""Share of the images of a set that must be faultless."""
ROUNDS = 5
"""Rounds of expectation maximization."""
N_BUILT_IN = 10
"""Number of images that the built-in density counts for, at least."""


@dataclass(frozen=True, eq=False)
class Hypotheses:
    """Hypotheses on the fault of one image; the first is that it has none."""

    faultless: np.ndarray
    """(K, D): the descriptors that the image would have without the fault."""
    log_prior: np.ndarray
    """(K,): log probability of the fault, plus the log volume ratio of the descriptors without and with it."""


@dataclass(frozen=True, eq=False)
class Density:
    """Density of the descriptors of faultless images: mean (D,) and scatter (D, D) of a t distribution.

    `stiffness` is what a built-in scatter counts for, in sizes of the set that it is fitted to.
    """

    mean: np.ndarray
    scatter: np.ndarray
    stiffness: float = 0.0

    def weights(self, hypotheses: Hypotheses) -> np.ndarray:
        """Posterior probability (K,) of each hypothesis."""
        logs = self._logs(hypotheses)
        return np.asarray(np.exp(logs - logsumexp(logs)))

    def fitted(self, images: Sequence[Hypotheses]) -> Density:
        """The density of a set of images; this one counts for `N_BUILT_IN` images.

        The search begins here, and again with all images taken for faultless, which is also the third result. Of those
        by which most images are faultless, the likeliest counts; the third if there is none: what most images of a
        set have is typical of it, and no fault.
        """
        as_they_are = self._moved(images, [np.eye(1, len(image.log_prior))[0] for image in images])
        found = []
        for density in (self, as_they_are):
            for _ in range(ROUNDS):
                density = self._moved(images, [density.weights(image) for image in images])
            found.append(density)
        possible = [density for density in found if density.share_sound(images) >= MOST]
        return max(possible, key=lambda density: density._likelihood(images, self), default=as_they_are)

    def share_sound(self, images: Sequence[Hypotheses]) -> float:
        """Share of images that probably have no fault."""
        return float(np.mean([self.weights(image)[0] > 0.5 for image in images])) if images else 1.0

    def _moved(self, images: Sequence[Hypotheses], weights: Sequence[np.ndarray]) -> Density:
        """The density of images, given the weight (K,) of each hypothesis of each image."""
        n, stiff = N_BUILT_IN + len(images), N_BUILT_IN + self.stiffness * len(images)
        first, second = np.zeros_like(self.mean), np.zeros_like(self.scatter)
        for image, weight in zip(images, weights, strict=True):
            offset = image.faultless - self.mean
            first += weight @ offset
            second += (offset * weight[:, None]).T @ offset
        moved = first / n
        scatter = (second - n * np.outer(moved, moved) + stiff * self.scatter) / (len(images) + stiff)
        return Density(self.mean + moved, (scatter + scatter.T) / 2)

    def _logs(self, hypotheses: Hypotheses) -> np.ndarray:
        """Log probability (K,) of each hypothesis and its descriptors, but for a constant."""
        factor = np.linalg.cholesky(self.scatter)
        deviation = solve_triangular(factor, (hypotheses.faultless - self.mean).T, lower=True)
        squares = (deviation**2).sum(axis=0)
        tail = -0.5 * (DEGREES + len(self.mean)) * np.log1p(squares / DEGREES)
        return np.asarray(hypotheses.log_prior + tail - np.log(np.diag(factor)).sum())

    def _likelihood(self, images: Sequence[Hypotheses], built_in: Density) -> float:
        """Log likelihood of images, and of the images that the built-in density counts for as it expects them."""
        stiff = N_BUILT_IN + built_in.stiffness * len(images)
        inverse, offset = np.linalg.inv(self.scatter), built_in.mean - self.mean
        expected = stiff * (np.trace(inverse @ built_in.scatter) + np.linalg.slogdet(self.scatter)[1])
        expected += N_BUILT_IN * offset @ inverse @ offset
        return float(sum(logsumexp(self._logs(image)) for image in images) - expected / 2)
