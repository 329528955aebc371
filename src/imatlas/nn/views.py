"""Views of images: each seen a little differently, so that a network can learn what they have in common.

Which changes leave an image what it is depends on the kind of image; `views_for` looks at a set and says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from torch import Tensor
from torch.nn import functional

from imatlas import seeding

N_INSPECTED = 1000
"""Images that are enough to judge the kind of a set by."""

PLAIN, EVEN = 0.5, 0.05
"""A set shows things on a plain ground where this share of all border pixels differ less from their median than so."""

SAME = 0.55
"""A turned image may be any image of the set where a linear classifier tells both apart less often than this."""

SMALL = 12
"""Rows and columns at which that classifier sees an image."""


@dataclass(frozen=True)
class Views:
    """How views of an image differ from it.

    Attributes
    ----------
    zoom : (float, float)
        The window that is seen, from the smallest to the largest, as a share of the image's sides; above 1 is farther.
    wander : float
        How far from the middle of the image a window may lie where there is no room, as a share of half its sides.
    ground : tuple of float, or None
        What lies around an image, for each channel in [-1, 1]; None: its border goes on.
    rotate : bool
        By any angle; else by at most 6 degrees.
    light : float
        The gamma varies by factors of e^-light to e^light, the brightness by their roots.
    color : float
        Each channel varies by factors of e^-color to e^color.
    why : str
        In words, for the user.
    """

    zoom: tuple[float, float] = (0.5, 1.0)
    wander: float = 0.0
    ground: tuple[float, ...] | None = None
    rotate: bool = False
    light: float = 0.4
    color: float = 0.1
    why: str = ""

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """One view of each image (N, C, H, W) in [-1, 1], half of them mirrored left to right."""
        n = len(x)

        def drawn(*shape: int) -> Tensor:
            return 2 * torch.rand(*shape, generator=generator, device=generator.device) - 1

        size = math.exp((math.log(self.zoom[0]) + math.log(self.zoom[1])) / 2)
        scale = size * ((self.zoom[1] / self.zoom[0]) ** (drawn(n) / 2))
        wide = torch.exp(0.1 * drawn(n))
        angle = drawn(n) * (math.pi if self.rotate else 0.1)
        mirrored = torch.where(drawn(n) < 0, -1.0, 1.0)
        room = (1 - scale).clamp(min=self.wander)
        cos, sin = angle.cos() * scale, angle.sin() * scale
        window = torch.stack(
            [
                torch.stack([mirrored * cos * wide, -sin / wide, room * drawn(n)], dim=1),
                torch.stack([mirrored * sin * wide, cos / wide, room * drawn(n)], dim=1),
            ],
            dim=1,
        ).to(x)
        grid = functional.affine_grid(window, list(x.shape), align_corners=False)
        ground = torch.tensor(self.ground or 0.0).to(x).reshape(1, -1, 1, 1)
        around = "border" if self.ground is None else "zeros"
        seen = functional.grid_sample(x - ground, grid, padding_mode=around, align_corners=False) + ground
        gain = torch.exp(self.light / 2 * drawn(n, 1, 1, 1) + self.color * drawn(n, x.shape[1], 1, 1)).to(x)
        gamma = torch.exp(self.light * drawn(n, 1, 1, 1)).to(x)
        return 2 * ((seen + 1) / 2 * gain).clamp(0, 1) ** gamma - 1


def views_for(x: Tensor, seed: int, rotate: bool | None = None) -> Views:
    """The views that suit a set of images: by whether they have a plain ground, and an up.

    Parameters
    ----------
    x : Tensor (N, C, H, W) in [-1, 1]
        Images of the set; `N_INSPECTED` of them are enough.
    seed : int
    rotate : bool, optional
        What the user knows of an up; None: found out.
    """
    border = torch.cat([x[:, :, [0, -1]].flatten(2), x[:, :, :, [0, -1]].flatten(2)], dim=2)
    border = border.transpose(0, 1).flatten(1)  # (C, pixels)
    ground = border.median(1, keepdim=True).values
    even = (border - ground).abs().amax(0) <= 2 * EVEN
    plain = float(even.float().mean()) > PLAIN
    if rotate is None:
        told = _rotation_accuracy(x, seed)
        rotate, known = told < SAME, f"a linear classifier tells turned images from others in {told:.0%} of cases"
    else:
        known = "as asked"
    kind = (
        "things on a plain ground: seen whole, from a little nearer and farther and not quite in the middle"
        if plain
        else "scenes that fill the image: parts of them are seen, from half of their sides on"
    )
    up = f"no up ({known}): turned by any angle" if rotate else f"an up ({known}): hardly turned"
    why = f"{kind}; {up}; mirrored, lighter and darker" + (", in slightly other colors" if x.shape[1] > 2 else "")
    color = 0.1 if x.shape[1] > 2 else 0.0
    if plain:
        return Views((0.8, 1.3), 0.2, tuple(ground[:, 0].tolist()), rotate, color=color, why=why)
    return Views(zoom=(0.5, 1.0), rotate=rotate, color=color, why=why)


def _rotation_accuracy(x: Tensor, seed: int) -> float:
    """How often a linear classifier tells images from others that were turned by a quarter or half, 0..1."""
    if len(x) < 20:
        return 1.0
    order = torch.from_numpy(seeding.rng(seed, "turned").permutation(len(x)))
    half = len(x) // 2
    small = functional.adaptive_avg_pool2d(x, SMALL)
    turned = torch.cat([part.rot90(i + 1, (2, 3)) for i, part in enumerate(small[order[:half]].chunk(3))])
    rows = torch.cat([turned, small[order[half:]]]).flatten(1).numpy()
    labels = np.arange(len(rows)) < half
    return float(cross_val_score(LogisticRegression(C=0.01, max_iter=300), rows, labels, cv=5).mean())
