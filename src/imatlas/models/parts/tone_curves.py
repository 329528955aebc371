"""Tone of an image: its quantiles, and the curves that may undo what happened to them.

A fault of tone is one or several of three: too little light (a gain in linear light), haze or low contrast (values
squeezed between a black and a white level), a wrong gamma. These are the levels of photographers. What a curve restores
lies within the range, so no curve clips more than the outermost quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from imatlas.models.parts.fault_hypotheses import Density, Hypotheses

QUANTILES = np.array([0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999])
N_QUANTILES = len(QUANTILES)
MAX_GAIN = 8.0
"""Largest ratio of a value after and before: more would show noise and the steps of 8 bits."""
MIN_SPAN = 0.03
"""Images whose outermost quantiles are nearer to each other have no contrast to tell their tone by."""

SOUND = 0.8
"""Prior probability that an image has no fault of tone."""
SHARES = (0.03, 0.5, 0.4)
"""Prior probabilities that a wrong gamma, too little light and a raised black level have part in a fault."""
DEVIATIONS = (0.6, 0.9, 0.15)
"""Prior standard deviations of log gamma, log white level and black level."""
LOG_POWERS = np.linspace(-1.25, 1.25, 27)
WHITES = np.array([1, 0.985, 0.97, 0.95, 0.92, 0.88, 0.83, 0.77, 0.7, 0.62, 0.54])
BLACKS = np.array([0, 0.01, 0.02, 0.035, 0.055, 0.08, 0.12, 0.17, 0.23])
"""Hypotheses on where the outermost quantiles were before the fault."""
STEP = 0.01
"""Half the step of numerical derivatives: quantiles are not exact."""
TIED = 0.001
"""Quantiles that are no further apart are equal."""


def linear(values: np.ndarray) -> np.ndarray:
    """sRGB values in [0, 1] as linear light."""
    return np.where(values <= 0.04045, values / 12.92, ((np.maximum(values, 0) + 0.055) / 1.055) ** 2.4)


def encoded(light: np.ndarray) -> np.ndarray:
    """Linear light as sRGB values."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


@dataclass(frozen=True, eq=False)
class ToneCurves:
    """K monotone curves; arrays (K,)."""

    black: np.ndarray
    white: np.ndarray
    power: np.ndarray

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Values (n,) after each curve (K, n), clipped to [0, 1]."""
        return np.clip(self._stretched(values), 0, 1) ** self.power[:, None]

    def slope(self, values: np.ndarray) -> np.ndarray:
        """Slope (K, n) of each curve at values (n,)."""
        left, right = self._unbounded(values - STEP), self._unbounded(values + STEP)
        return (right - left) / (2 * STEP)

    def chosen(self, which: np.ndarray) -> ToneCurves:
        """Some of the curves."""
        return ToneCurves(self.black[which], self.white[which], self.power[which])

    def _unbounded(self, values: np.ndarray) -> np.ndarray:
        stretched = self._stretched(values)
        return np.sign(stretched) * np.abs(stretched) ** self.power[:, None]

    def _stretched(self, values: np.ndarray) -> np.ndarray:
        """Without a black level, white is a gain in linear light; with one, levels are those of the encoded values."""
        black, white = self.black[:, None], self.white[:, None]
        squeezed = (values - black) / (white - black)
        lit = np.sign(values) * encoded(linear(np.abs(values)) / linear(white))
        return np.where((black > 0) | (white == 1), squeezed, lit)


def tone_quantiles(values: np.ndarray) -> np.ndarray:
    """Quantiles (D,) of known values in [0, 1], those of all channels together."""
    return np.quantile(values, QUANTILES)


def tone_hypotheses(quantiles: np.ndarray) -> tuple[Hypotheses, ToneCurves]:
    """Hypotheses for an image with these quantiles (D,), and the curve of each; the first is the identity."""
    curves, prior = _candidates(quantiles[0], quantiles[-1])
    # Clipped and equal values stay so under any curve, and span no volume.
    free = (quantiles > TIED) & (quantiles < 1 - TIED) & (np.diff(quantiles, prepend=-1) > TIED)
    volume = np.log(np.maximum(curves.slope(quantiles[free]), 1e-3)).sum(axis=1)
    return Hypotheses(curves(quantiles), np.log(np.maximum(prior, 1e-300)) + volume), curves


def mean_curve(weights: np.ndarray, curves: ToneCurves, knots: np.ndarray) -> np.ndarray:
    """The expected curve at knots (n,) if there is a fault, with a limited gain; `weights` (K,)."""
    faulty = weights * (np.arange(len(weights)) > 0)
    likely = np.flatnonzero(faulty > 1e-5 * faulty.max())
    mean = faulty[likely] @ curves.chosen(likely)(knots) / faulty[likely].sum()
    return np.maximum.accumulate(np.minimum(mean, MAX_GAIN * knots))  # against rounding errors


def built_in_tone() -> Density:
    """Quantiles of well-exposed photographs: around middle gray (18 % of the light, 0.46), filling the range."""
    z = ndtri(QUANTILES)
    ends = np.ones(N_QUANTILES)
    ends[[0, -1]], ends[[1, -2]] = 0.3, 0.6  # black and white vary less
    scatter = 0.12**2 + 0.045**2 * np.outer(z, z) + 0.05**2 * np.exp(-np.abs(np.subtract.outer(z, z)))
    scatter = scatter * np.outer(ends, ends) + STEP**2 * np.eye(N_QUANTILES)
    return Density(np.clip(0.45 + 0.22 * z, 0.02, 0.97), scatter)


def _candidates(low: float, high: float) -> tuple[ToneCurves, np.ndarray]:
    """Curves for an image with these outermost quantiles, and the prior probability (K,) of each."""
    gamma, light, haze = SHARES
    powers = np.exp(LOG_POWERS)
    power_prior = gamma * _normal(LOG_POWERS, DEVIATIONS[0]) * _widths(LOG_POWERS)
    power_prior[np.abs(LOG_POWERS).argmin()] += 1 - gamma
    whites = high / WHITES
    white_prior = light * 2 * _normal(np.log(whites), DEVIATIONS[1]) * _widths(np.log(WHITES))
    whites, white_prior = np.append(1.0, whites[whites < 1]), np.append(1 - light, white_prior[whites < 1])
    power, white, restored = (a.ravel() for a in np.meshgrid(powers, whites, np.append(-1.0, BLACKS), indexing="ij"))
    priors = np.meshgrid(power_prior, white_prior, np.append(0.0, _widths(BLACKS)), indexing="ij")
    first, second, width = (a.ravel() for a in priors)
    hazy = restored >= 0
    black = np.where(hazy, (low - restored * white) / (1 - restored), 0.0)
    per_level = np.abs(white - low) / (1 - restored) ** 2  # derivative of `black` by `restored`
    prior = first * second * np.where(hazy, haze * 2 * _normal(black, DEVIATIONS[2]) * width * per_level, 1 - haze)
    identity = ~hazy & (white == 1) & np.isclose(power, 1)
    possible = identity | ((~hazy | (black > 0)) & (white - black > 1 / MAX_GAIN))
    order = np.argsort(~identity[possible], kind="stable")
    prior = np.where(identity, SOUND, (1 - SOUND) * prior)[possible][order]
    return ToneCurves(*(a[possible][order] for a in (black, white, power))), prior


def _normal(values: np.ndarray, deviation: float) -> np.ndarray:
    return np.exp(-0.5 * (values / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))


def _widths(grid: np.ndarray) -> np.ndarray:
    """Width of the cell of each value of a grid, which is sorted up or down."""
    middles = (grid[1:] + grid[:-1]) / 2
    return np.abs(np.diff(np.concatenate([grid[:1], middles, grid[-1:]])))
