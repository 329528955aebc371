"""Random views of images for self-supervised learning, chosen by the kind of images.

`views_for` measures whether a set shows objects on a plain background, and whether its images have a preferred
orientation.
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
"""Images that suffice to determine the kind of a set."""

PLAIN, TOLERANCE = 0.5, 0.05
"""The background is plain if more than this fraction of all border pixels differ from their median by less than this
fraction of the value range."""

CHANCE = 0.55
"""There is no preferred orientation if a linear classifier detects rotated images with an accuracy below this."""

CLASSIFIED_SIZE = 12
"""Rows and columns of the images for that classifier."""


@dataclass(frozen=True)
class Views:
    """Random views of images.

    Attributes
    ----------
    scale : (float, float)
        Smallest and largest window, as a fraction of the image's sides; above 1 zooms out.
    offset : float
        Least range of the window's center, as a fraction of half the sides, if the window does not fit inside.
    background : tuple of float, or None
        Value around the image per channel, in [-1, 1]; None repeats the border.
    rotate : bool
        Rotate by any angle; otherwise by at most 6 degrees.
    lighting : float
        Gamma varies by factors from e^-lighting to e^lighting, brightness by their square roots.
    color : float
        Each channel varies by factors from e^-color to e^color.
    why : str
        Description and reason, for the user.
    """

    scale: tuple[float, float] = (0.5, 1.0)
    offset: float = 0.0
    background: tuple[float, ...] | None = None
    rotate: bool = False
    lighting: float = 0.4
    color: float = 0.1
    why: str = ""

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """One view of each image (N, C, H, W) in [-1, 1], half of them mirrored left to right."""
        n = len(x)

        def uniform(*shape: int) -> Tensor:
            return 2 * torch.rand(*shape, generator=generator, device=generator.device) - 1

        mean_scale = math.exp((math.log(self.scale[0]) + math.log(self.scale[1])) / 2)
        scale = mean_scale * ((self.scale[1] / self.scale[0]) ** (uniform(n) / 2))
        aspect = torch.exp(0.1 * uniform(n))
        angle = uniform(n) * (math.pi if self.rotate else 0.1)
        mirror = torch.where(uniform(n) < 0, -1.0, 1.0)
        room = (1 - scale).clamp(min=self.offset)
        cos, sin = angle.cos() * scale, angle.sin() * scale
        window = torch.stack(
            [
                torch.stack([mirror * cos * aspect, -sin / aspect, room * uniform(n)], dim=1),
                torch.stack([mirror * sin * aspect, cos / aspect, room * uniform(n)], dim=1),
            ],
            dim=1,
        ).to(x)
        grid = functional.affine_grid(window, list(x.shape), align_corners=False)
        background = torch.tensor(self.background or 0.0).to(x).reshape(1, -1, 1, 1)
        padding = "border" if self.background is None else "zeros"
        view = functional.grid_sample(x - background, grid, padding_mode=padding, align_corners=False) + background
        gain = torch.exp(self.lighting / 2 * uniform(n, 1, 1, 1) + self.color * uniform(n, x.shape[1], 1, 1)).to(x)
        gamma = torch.exp(self.lighting * uniform(n, 1, 1, 1)).to(x)
        return 2 * ((view + 1) / 2 * gain).clamp(0, 1) ** gamma - 1


def views_for(x: Tensor, seed: int, rotate: bool | None = None) -> Views:
    """Views that suit a set of images, by its background and orientation.

    Parameters
    ----------
    x : Tensor (N, C, H, W) in [-1, 1]
        Images of the set; `N_INSPECTED` of them suffice.
    seed : int
    rotate : bool, optional
        Whether to rotate by any angle; None: if the images have no preferred orientation.
    """
    border = torch.cat([x[:, :, [0, -1]].flatten(2), x[:, :, :, [0, -1]].flatten(2)], dim=2)
    border = border.transpose(0, 1).flatten(1)  # (C, pixels)
    background = border.median(1, keepdim=True).values
    close = (border - background).abs().amax(0) <= 2 * TOLERANCE
    plain = float(close.float().mean()) > PLAIN
    if rotate is None:
        accuracy = _rotation_accuracy(x, seed)
        rotate, reason = accuracy < CHANCE, f"a linear classifier detects rotated images with {accuracy:.0%} accuracy"
    else:
        reason = "as requested"
    kind = (
        "objects on a plain background: whole, at slightly different scales and positions"
        if plain
        else "scenes that fill the image: crops from half of the sides up"
    )
    orientation = (
        f"no preferred orientation ({reason}): rotated by any angle"
        if rotate
        else f"a preferred orientation ({reason}): rotated by up to 6 degrees"
    )
    why = f"{kind}; {orientation}; mirrored, brighter and darker" + (", with varied colors" if x.shape[1] > 2 else "")
    color = 0.1 if x.shape[1] > 2 else 0.0
    if plain:
        return Views((0.8, 1.3), 0.2, tuple(background[:, 0].tolist()), rotate, color=color, why=why)
    return Views(scale=(0.5, 1.0), rotate=rotate, color=color, why=why)


def _rotation_accuracy(x: Tensor, seed: int) -> float:
    """Accuracy (0 to 1) of a linear classifier of images that were rotated by 90, 180 or 270 degrees or not."""
    if len(x) < 20:
        return 1.0
    order = torch.from_numpy(seeding.rng(seed, "turned").permutation(len(x)))
    half = len(x) // 2
    small = functional.adaptive_avg_pool2d(x, CLASSIFIED_SIZE)
    rotated = torch.cat([part.rot90(i + 1, (2, 3)) for i, part in enumerate(small[order[:half]].chunk(3))])
    rows = torch.cat([rotated, small[order[half:]]]).flatten(1).numpy()
    labels = np.arange(len(rows)) < half
    return float(cross_val_score(LogisticRegression(C=0.01, max_iter=300), rows, labels, cv=5).mean())
