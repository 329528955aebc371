"""Color cast of an image: four estimates of the color of its light, and what cast they speak for.

Each estimate assumes that something is gray on average: the image (gray world; Buchsbaum 1980), its bright parts
(shades of gray; Finlayson and Trezzi 2004), its brightest parts, or its edges (gray edge; van de Weijer, Gevers and
Gijsenij 2007). A cast moves all four alike in the logarithm, and a colorful scene moves each in its own way: from how
they vary over the images of a set follows how far to trust each of them, and all.
"""

from __future__ import annotations

import numpy as np

from imatlas.models.parts.fault_hypotheses import Density, Hypotheses
from imatlas.models.parts.tone_curves import encoded, linear

N_ESTIMATES = 4
N_CHROMAS = 2 * N_ESTIMATES
SOUND = 0.8
"""Prior probability that an image has no color cast."""
DEVIATION = 0.5
"""Prior standard deviation of casts: of log R / G and log B / G in linear light."""
CASTS = np.linspace(-1.3, 1.3, 41)
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
STIFFNESS = 4.0
"""What the built-in scatter counts for, in sizes of the set."""
CLIPPED = 0.98
"""Values above are clipped, and have no color."""
KNEE = 0.9
"""Highlights above are rolled off, if a gain would clip them."""


def chromas(rgb: np.ndarray) -> np.ndarray:
    """Descriptors (D,): log R / G and log B / G of each estimate, of an image (H, W, 3) in [0, 1]; NaN is unknown."""
    light = linear(rgb) + 1e-3
    known = light[np.isfinite(rgb).all(axis=2)]
    unclipped = known[known.max(axis=1) < linear(np.array(CLIPPED))]
    flat = unclipped if len(unclipped) > len(known) // 10 else known
    edges = np.concatenate([np.abs(np.diff(light, axis=axis)).reshape(-1, 3) for axis in (0, 1)])
    edges = edges[np.isfinite(edges).all(axis=1)]
    edge = (edges**1.5).mean(axis=0) ** (1 / 1.5) if len(edges) else np.zeros(3)
    shades = (flat**6).mean(axis=0) ** (1 / 6)
    lights = np.log([flat.mean(axis=0), shades, np.quantile(flat, 0.97, axis=0), edge + 1e-4])
    return np.asarray((lights[:, [0, 2]] - lights[:, [1]]).ravel())


def cast_hypotheses(chroma: np.ndarray) -> tuple[Hypotheses, np.ndarray]:
    """Hypotheses for an image with these descriptors (D,), and the cast (K, 2) of each; the first is none."""
    casts = np.stack(np.meshgrid(CASTS, CASTS, indexing="ij"), axis=-1).reshape(-1, 2)
    prior = np.exp(-0.5 * (casts**2).sum(axis=1) / DEVIATION**2)
    casts = np.concatenate([np.zeros((1, 2)), casts])
    prior = np.append(SOUND, (1 - SOUND) * prior / prior.sum())
    return Hypotheses(chroma - np.tile(casts, N_ESTIMATES), np.log(prior)), casts


def built_in_color() -> Density:
    """Estimates of the light of photographs: gray, within 15 %, and alike.

    It is stiff: images with casts in a set would else make casts typical of it. Its mean is not: a set of forests may
    be green.
    """
    alike = 0.15**2 * (0.6 + 0.4 * np.eye(N_ESTIMATES))
    scatter = np.kron(alike, np.array([[1, -0.3], [-0.3, 1]])) + 0.02**2 * np.eye(N_CHROMAS)
    return Density(np.zeros(N_CHROMAS), scatter, stiffness=STIFFNESS)


def balanced(curve: np.ndarray, cast: np.ndarray, brightest: np.ndarray) -> np.ndarray:
    """Curves (3, n) that remove a cast (2,) after a tone curve (n,), keeping the luminance of grays.

    `brightest` (3,) are high quantiles of the image after the tone curve. A channel of which they would be clipped is
    rolled off.
    """
    gains = np.exp(-np.array([cast[0], 0.0, cast[1]]))
    gains /= gains @ LUMINANCE
    out = encoded(linear(curve) * gains[:, None])
    over = linear(brightest) * gains > 1
    out[over] = np.where(out[over] <= KNEE, out[over], KNEE + (1 - KNEE) * np.tanh((out[over] - KNEE) / (1 - KNEE)))
    return np.clip(out, 0, 1)
