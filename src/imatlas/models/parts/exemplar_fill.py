"""Holes filled by patches of the image around them, from coarse to fine.

Each patch p that overlaps the hole has a most similar complete patch q(p), and each missing pixel is the weighted mean
of what the patches over it say (Wexler, Shechtman & Irani 2007, "Space-Time Completion of Video"); both are repeated,
at scales from the one at which the hole is a few pixels wide to the finest. At coarse scales all patches are compared;
at finer ones those of the scale before, of neighbors, and at random nearby, as in PatchMatch (Barnes et al. 2009).
Patches near the border of the hole weigh more (Criminisi, Perez & Toyama 2004; Newson et al. 2014).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, pad

from imatlas.models.parts.patch_mixture import smooth_fill

SIDE = 7
"""Of patches, in pixels."""

RADIUS = SIDE // 2

ROUNDS = (10, 6, 4, 3)
"""Searches and means at each scale, from the coarsest; the last number holds for all finer ones."""

COARSEST_HOLE = 2.0
"""Distance of missing pixels to known ones, at most, at the coarsest scale."""

MIN_SOURCES = 60
"""Complete patches at a scale, at least."""

ALL_COMPARED = 5000
"""Pixels of a scale up to which all patches are compared."""

TRUST = 1.3
"""Factor by which pixels weigh less with each pixel of distance from the border of the hole."""

CHUNK = 1 << 14
"""Patches that are compared at a time."""

SHARPNESS = (0.35, 0.18)
"""Deviation, in sides of a patch, of the weights within it: while searching, and in the final mean."""

NOISE = 0.4
"""Largest relative error of distances at the coarsest scale, for fills that differ."""


def exemplar_fill(image: Tensor, known: Tensor, rng: np.random.Generator, *, varied: bool = False) -> Tensor:
    """An image (C, H, W) with patches of itself where `known` (H, W) is False.

    Parameters
    ----------
    image : Tensor (C, H, W) of float32
    known : Tensor (H, W) of bool
    rng : numpy Generator
        Of the random search.
    varied : bool
        Also choose among similar patches at random at the coarsest scale, so that fills differ by the generator.

    Returns
    -------
    Tensor (C, H, W)
        The smooth fill, if the image has too few complete patches.
    """
    scales = [_Scale.of(image, known)]
    if len(scales[0].sources) < MIN_SOURCES or min(known.shape) <= RADIUS:
        return torch.from_numpy(smooth_fill(image.numpy(), known.numpy()))
    while distance_transform_edt(~scales[-1].known.numpy()).max() > COARSEST_HOLE:
        coarser = scales[-1].coarser()
        if min(coarser.known.shape) <= SIDE or len(coarser.sources) < MIN_SOURCES:
            break
        scales.append(coarser)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    coarsest = scales[-1]
    filled = torch.from_numpy(smooth_fill(coarsest.image.numpy(), coarsest.known.numpy()))
    nearest: Tensor | None = None
    for number, scale in enumerate(reversed(scales)):
        if number:
            filled = interpolate(filled[None], size=scale.known.shape, mode="bilinear", align_corners=False)[0]
            nearest = None if nearest is None else _enlarged(nearest, scale.known.shape)
        filled = torch.where(scale.known, scale.image, filled)
        rounds = ROUNDS[min(number, len(ROUNDS) - 1)]
        for turn in range(rounds):
            last = turn == rounds - 1
            compared = nearest is None or scale.known.numel() <= ALL_COMPARED
            noise = NOISE if varied and number == 0 and not last else 0.0
            if compared:
                places, costs = scale.nearest_of_all(filled, noise, generator)
            else:
                assert nearest is not None
                places, costs = scale.nearest_nearby(filled, nearest[:, scale.rows, scale.columns], generator)
            filled = scale.mean(filled, places, costs, SHARPNESS[last and scale is scales[0]])
            nearest = scale.as_map(places)
    return filled


@dataclass(eq=False)
class _Scale:
    """One scale of an image: its pixels, its patches over the hole, and its complete patches, by their centers.

    `rows` and `columns` (M,) are the centers of patches over the hole, `weights` (M, side²) how much each of their
    pixels counts, `trust` (M,) how much they count themselves; `sources` (S, 2) are the centers of complete patches.
    """

    image: Tensor
    known: Tensor
    complete: Tensor
    sources: Tensor
    rows: Tensor
    columns: Tensor
    index: Tensor = field(repr=False)  # (H, W): the number of the patch at a center, or -1
    weights: Tensor = field(repr=False)
    trust: Tensor = field(repr=False)

    @classmethod
    def of(cls, image: Tensor, known: Tensor) -> _Scale:
        near = max_pool2d((~known)[None, None].float(), SIDE, 1, RADIUS)[0, 0] > 0
        complete = torch.zeros_like(known)
        inner = (slice(RADIUS, -RADIUS), slice(RADIUS, -RADIUS))
        complete[inner] = ~near[inner]
        rows, columns = near.nonzero(as_tuple=True)
        index = torch.full(known.shape, -1)
        index[rows, columns] = torch.arange(len(rows))
        distance = torch.from_numpy(distance_transform_edt(~known.numpy()).astype(np.float32))
        trusted = TRUST**-distance
        weights = _patches(_padded(trusted[None]), rows, columns)
        return cls(
            image,
            known,
            complete,
            complete.nonzero(),
            rows,
            columns,
            index,
            weights / weights.sum(1, keepdim=True),
            trusted[rows, columns],
        )

    def coarser(self) -> _Scale:
        """The scale of half the size; pixels are means of known ones, known where most are."""
        known = self.known.float()[None]
        share = avg_pool2d(known, 2, ceil_mode=True, count_include_pad=False)
        means = avg_pool2d(self.image * known, 2, ceil_mode=True, count_include_pad=False) / share.clamp(min=1e-6)
        return _Scale.of(means, share[0] > 0.5)

    def nearest_of_all(self, filled: Tensor, noise: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The center (M, 2) of the most similar complete patch of each patch over the hole, and its distance (M,)."""
        padded, n_channels = _padded(filled), len(filled)
        known = _patches(padded, *self.sources.T)
        squares = known.square().view(len(known), n_channels, -1).sum(1)
        best, costs = [], []
        for part in torch.arange(len(self.rows)).split(max(1, 2**25 // len(known))):
            own, weights = _patches(padded, self.rows[part], self.columns[part]), self.weights[part]
            weighted = own.view(len(part), n_channels, -1) * weights[:, None]
            constant = (weighted * own.view(len(part), n_channels, -1)).sum((1, 2))
            distances = constant[:, None] - 2 * weighted.flatten(1) @ known.T + weights @ squares.T
            judged = distances
            if noise:
                judged = distances * (1 + noise * torch.rand(distances.shape, generator=generator))
            chosen = judged.argmin(1)
            best.append(chosen)
            costs.append(distances[torch.arange(len(part)), chosen].clamp(min=0))
        return self.sources[torch.cat(best)], torch.cat(costs)

    def nearest_nearby(self, filled: Tensor, places: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `nearest_of_all`, from centers (2, M) to begin with, those of neighbors, and random ones around these."""
        padded = _padded(filled)
        own = _patches(padded, self.rows, self.columns)
        best, costs = places.T.contiguous(), self._costs(padded, own, places.T)
        here = torch.stack([self.rows, self.columns], 1)
        height, width = self.known.shape
        for step in (4, 2, 1, 2, 1):
            for down, right in ((-step, 0), (step, 0), (0, -step), (0, step)):
                rows, columns = (self.rows + down).clamp(0, height - 1), (self.columns + right).clamp(0, width - 1)
                neighbor = self.index[rows, columns]
                offset = (best - here)[neighbor.clamp(min=0)]
                candidate = torch.where((neighbor >= 0)[:, None], here + offset, best)
                best, costs = self._better(padded, own, best, costs, candidate)
            reach = 2 * step
            candidate = best + torch.randint(-reach, reach + 1, best.shape, generator=generator)
            best, costs = self._better(padded, own, best, costs, candidate)
        return best, costs

    def mean(self, filled: Tensor, places: Tensor, costs: Tensor, sharpness: float) -> Tensor:
        """The image with, in its hole, the means of the patches at `places` that lie over each pixel."""
        height, width = self.known.shape
        full = (height + 2 * RADIUS, width + 2 * RADIUS)
        typical = torch.quantile(costs[:: max(1, len(costs) // 2**20)], 0.75).clamp(min=1e-6)
        of_patch = torch.exp(-costs / (2 * typical)) * self.trust
        at = torch.arange(-RADIUS, RADIUS + 1)
        within = torch.exp(-(at[:, None] ** 2 + at**2) / (2 * (sharpness * SIDE) ** 2)).flatten()
        total, norm = torch.zeros(len(filled), math.prod(full)), torch.zeros(math.prod(full))
        padded = _padded(filled)
        for part in torch.arange(len(self.rows)).split(CHUNK):
            values = _patches(padded, *places[part].T).view(len(part), len(filled), -1)
            weights = (of_patch[part][:, None] * within).flatten()
            rows = self.rows[part][:, None, None] + RADIUS + at[:, None]
            columns = self.columns[part][:, None, None] + RADIUS + at
            targets = (rows * full[1] + columns).flatten()
            norm.index_add_(0, targets, weights)
            for channel, sums in enumerate(total):
                sums.index_add_(0, targets, weights * values[:, channel].flatten())
        means = (total / norm.clamp(min=1e-20)).view(-1, *full)[:, RADIUS:-RADIUS, RADIUS:-RADIUS]
        return torch.where(self.known, filled, means)

    def as_map(self, places: Tensor) -> Tensor:
        """The places (2, H, W) by the centers of their patches; elsewhere each center itself."""
        rows, columns = (torch.arange(n) for n in self.known.shape)
        found = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
        found[:, self.rows, self.columns] = places.T
        return found

    def _costs(self, padded: Tensor, own: Tensor, places: Tensor) -> Tensor:
        """Distances (M,) to the patches at `places` (M, 2); infinite if these are not complete."""
        last = torch.tensor(self.known.shape) - 1
        inside = places.clamp(min=torch.zeros(2, dtype=torch.int64), max=last)
        allowed = (inside == places).all(1) & self.complete[inside[:, 0], inside[:, 1]]
        costs = []
        for part in torch.arange(len(places)).split(CHUNK):
            difference = _patches(padded, *inside[part].T) - own[part]
            squares = difference.square().view(len(part), -1, SIDE * SIDE).sum(1)
            costs.append((squares * self.weights[part]).sum(1))
        return torch.where(allowed, torch.cat(costs), math.inf)

    def _better(
        self, padded: Tensor, own: Tensor, best: Tensor, costs: Tensor, candidate: Tensor
    ) -> tuple[Tensor, Tensor]:
        new = self._costs(padded, own, candidate)
        better = new < costs
        return torch.where(better[:, None], candidate, best), torch.where(better, new, costs)


def _padded(image: Tensor) -> Tensor:
    return pad(image[None], (RADIUS,) * 4, mode="reflect")[0]


def _patches(padded: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Patches (M, C side side) around centers (M,) of a padded image."""
    at = torch.arange(SIDE)
    taken = padded[:, rows[:, None, None] + at[:, None], columns[:, None, None] + at]
    return taken.permute(1, 0, 2, 3).flatten(1)


def _enlarged(places: Tensor, shape: torch.Size) -> Tensor:
    """Places (2, h, w) at twice the scale (2, H, W)."""
    size = tuple(shape)
    larger = places.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, : size[0], : size[1]]
    odd = torch.stack(torch.meshgrid(*(torch.arange(n) % 2 for n in size), indexing="ij"))
    return 2 * larger + odd
