"""The probability flow of the local denoiser over a canvas, from coarse to fine."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from imatlas.models.parts.patch_posterior import (
    SIGMA_MAX,
    Locality,
    Sources,
    level_scale,
    noise_levels,
    posterior,
)

BASE_SIDE = 64
"""Longest side, in pixels, of the coarsest scale of larger images."""

REFINED_FROM, REFINING_STEPS, REFINING_SOURCES = 0.5, 5, 16
"""At each finer scale: the noise level that the enlarged image starts from, steps, and sources that take part."""

HELD = 0.1
"""Noise level, at most, at which pixels that are held fixed are compared: no image of the set has exactly these."""

WORKING = 8
"""Arrays of the size of an image, or of the sources of a window, that a step needs at a time."""

VALUE_BYTES = 6
"""Bytes of a float32 value, and what the allocator holds besides: measured 1.1 to 1.6 times 4 in all."""

OVERLAP = 0.5
"""Least overlap of neighboring windows of a canvas, as a fraction of the window."""


@dataclass(frozen=True)
class Start:
    """An image that sampling starts from, in place of noise: values (C, H, W), and the noise level added to it."""

    values: Tensor
    sigma: float


@dataclass(frozen=True)
class Held:
    """Pixels that are held fixed: values (C, H, W), and where they are known, (H, W) of bool."""

    values: Tensor
    known: Tensor


Stack = Callable[[int, tuple[int, int], "Tensor | None"], Sources]
"""The sources of a window: from images reduced by a factor, at a size (height, width), all or those of some indices."""


@dataclass(frozen=True)
class Sampler:
    """Samples of one canvas size.

    Attributes
    ----------
    size : (height, width)
        Of the images of the set.
    canvas : (height, width)
    tile : bool
        Whether the canvas wraps around.
    locality : Locality
    n_steps : int
        Steps of the flow at the coarsest scale, from pure noise.
    """

    size: tuple[int, int]
    canvas: tuple[int, int]
    tile: bool
    locality: Locality
    n_steps: int

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of the windows."""
        return min(self.size[0], self.canvas[0]), min(self.size[1], self.canvas[1])

    def corners(self) -> list[tuple[int, int]]:
        """The top left corners of the windows."""
        tops, lefts = (
            _offsets(length, window, self.tile) for length, window in zip(self.canvas, self.window, strict=True)
        )
        return [(top, left) for top in tops for left in lefts]

    def n_bytes(self, n_channels: int, n_sources: int, n_stacks: int | None = None) -> int:
        """About how much memory one image takes, in bytes, at the scale that takes most.

        Parameters
        ----------
        n_channels : int
        n_sources : int
            Of a window at the coarsest scale, with copies.
        n_stacks : int, optional
            Different stacks of sources at that scale. None: one for each window.
        """
        n_windows = math.prod(
            _n_offsets(length, window, self.tile) for length, window in zip(self.canvas, self.window, strict=True)
        )
        n_stacks, factor, most = n_stacks or n_windows, self._coarsest(), 0
        while factor >= 1:
            canvas, window = (math.prod(max(1, n // factor) for n in size) for size in (self.canvas, self.window))
            # Pixels of each stack, weights of each window in this step and the last one, and the work on one window.
            n_arrays = n_stacks * n_channels + 2 * n_windows + n_channels + WORKING
            most = max(most, VALUE_BYTES * (window * n_sources * n_arrays + canvas * n_channels * WORKING))
            n_sources, n_stacks, factor = min(n_sources, REFINING_SOURCES), n_windows, factor // 2
        return most

    def _coarsest(self) -> int:
        """The factor by which images are reduced at the coarsest scale."""
        return 2 ** max(0, math.ceil(math.log2(max(self.window) / BASE_SIDE)))

    def __call__(
        self,
        stacks: Sequence[Stack],
        rng: np.random.Generator,
        n_channels: int,
        device: torch.device,
        start: Start | None = None,
        held: Held | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One image (C, H, W), and the row (H, W) of the source that weighs most at each pixel.

        Parameters
        ----------
        stacks : sequence of Stack
            The sources of each window of `corners`.
        rng : numpy Generator
            The source of all noise.
        n_channels : int
        device : torch.device
        start : Start, optional
        held : Held, optional
        """
        factor = self._coarsest()
        chosen: list[Tensor | None] = [None] * len(stacks)
        image, rows = None, torch.empty(0)
        while factor >= 1:
            scale = _Scale.of(self, factor)
            if image is None:  # windows with one stack share its sources
                made = {stack: stack(factor, scale.window, None) for stack in dict.fromkeys(stacks)}
                sources = [made[stack] for stack in stacks]
            else:
                sources = [stack(factor, scale.window, which) for stack, which in zip(stacks, chosen, strict=True)]
            noise = torch.from_numpy(rng.standard_normal((n_channels, *scale.canvas), dtype=np.float32)).to(device)
            fixed = held if held is None or factor == 1 else _held_at(held, scale.canvas)
            highest, steps = SIGMA_MAX * scale.level, self.n_steps
            if image is not None:
                image = _resized(image, scale.canvas)
                highest, steps = min(REFINED_FROM, start.sigma if start else math.inf), REFINING_STEPS
                if start is not None:  # what the edit keeps is kept at every scale
                    image = image + _detail(start.values, scale.canvas, factor)
            elif start is not None:
                image, highest = _resized(start.values, scale.canvas), min(start.sigma, highest)
                steps = max(2, round(self.n_steps * _fraction(highest, SIGMA_MAX * scale.level)))
            x = torch.zeros_like(noise) if image is None else image
            if fixed is not None:
                x = torch.where(fixed.known, fixed.values, x)
            image, rows, weights = scale.flow(x + highest * noise, sources, noise_levels(steps, highest), fixed)
            chosen = [_most_used(w, which) for w, which in zip(weights, chosen, strict=True)]
            factor //= 2
        assert image is not None
        return image, rows


@dataclass(frozen=True)
class _Scale:
    """One scale of the canvas."""

    canvas: tuple[int, int]
    window: tuple[int, int]
    indices: list[tuple[Tensor, Tensor]]  # rows and columns of each window
    bump: Tensor  # (h, w), how much a window counts at each of its pixels
    locality: Locality
    level: float  # factor on noise levels

    @classmethod
    def of(cls, sampler: Sampler, factor: int) -> _Scale:
        canvas, window = (tuple(max(1, round(n / factor)) for n in size) for size in (sampler.canvas, sampler.window))
        starts = (
            tuple(
                round(at / factor) if sampler.tile else round(at * (m - n) / max(1, full_m - full_n))
                for at, n, m, full_n, full_m in zip(corner, window, canvas, sampler.window, sampler.canvas, strict=True)
            )
            for corner in sampler.corners()
        )
        indices = [
            tuple((at + torch.arange(n)) % m for at, n, m in zip(start, window, canvas, strict=True))
            for start in starts
        ]
        bumps = [torch.hann_window(n + 2, periodic=False)[1:-1] + 0.01 for n in window]
        level = level_scale(3 * window[0] * window[1])
        return cls(canvas, window, indices, bumps[0][:, None] * bumps[1], sampler.locality, level)  # type: ignore[arg-type]

    def flow(
        self, x: Tensor, sources: Sequence[Sources], levels: Sequence[float], held: Held | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Euler steps down the noise levels: the image, the main source of each pixel, and the weights of windows."""
        weights: list[Tensor] = []
        for sigma, lower in itertools.pairwise(levels):
            mean, weights = self._mean(x, sources, sigma, held)
            if held is not None:
                mean = torch.where(held.known, held.values, mean)
            x = x + (lower - sigma) / sigma * (x - mean)
        rows = self._main_source(sources, weights)
        if held is not None:
            x = torch.where(held.known, held.values, x)
        return x, rows, weights

    def _mean(
        self, x: Tensor, sources: Sequence[Sources], sigma: float, held: Held | None
    ) -> tuple[Tensor, list[Tensor]]:
        """The estimate of the clean canvas: that of each window, averaged where windows overlap."""
        side = self.locality.side(sigma, *self.window, self.level)
        certainty = None
        compared = x
        if held is not None:
            compared = torch.where(held.known, held.values, x)
            certainty = torch.where(held.known, (sigma / min(sigma, HELD)) ** 2, 1.0)
        if len(sources) == 1:  # it covers the canvas
            mean, weights = posterior(compared, sources[0], sigma, side, self.locality.max_share, certainty)
            return mean, [weights]
        bump = self.bump.to(x.device)
        total, norm, all_weights = torch.zeros_like(x), torch.zeros_like(x[0]), []
        for (down, across), one in zip(self.indices, sources, strict=True):
            own = None if certainty is None else certainty[down][:, across]
            mean, weights = posterior(compared[:, down][:, :, across], one, sigma, side, self.locality.max_share, own)
            total[:, down[:, None], across] += mean * bump
            norm[down[:, None], across] += bump
            all_weights.append(weights)
        return total / norm, all_weights

    def _main_source(self, sources: Sequence[Sources], weights: Sequence[Tensor]) -> Tensor:
        """The row (H, W) of the source with the largest weight; where windows overlap, weights count by their bump."""
        best = torch.full(self.canvas, -1.0, device=weights[0].device)
        rows = torch.zeros(self.canvas, dtype=torch.int64, device=best.device)
        for (down, across), one, w in zip(self.indices, sources, weights, strict=True):
            largest, index = w.expand(*self.window, -1).max(-1)
            largest = largest * self.bump.to(best.device)
            place = (down[:, None], across)
            better = largest > best[place]
            rows[place] = torch.where(better, one.rows[index], rows[place])
            best[place] = torch.where(better, largest, best[place])
        return rows


def _offsets(length: int, window: int, tile: bool) -> list[int]:
    """Evenly spaced starts of windows that cover an axis with the least overlap."""
    n = _n_offsets(length, window, tile)
    if tile:
        return [round(i * length / n) for i in range(n)]
    return [round(i * (length - window) / max(1, n - 1)) for i in range(n)]


def _n_offsets(length: int, window: int, tile: bool) -> int:
    """How many windows that are."""
    stride = max(1.0, window * (1 - OVERLAP))
    return max(2, math.ceil(length / stride)) if tile else math.ceil((length - window) / stride) + 1


def _most_used(weights: Tensor, before: Tensor | None) -> Tensor:
    """The indices of the sources with the largest shares, which take part at the next finer scale."""
    each = weights.mean((0, 1))
    top = each.topk(min(REFINING_SOURCES, len(each))).indices.sort().values
    return top if before is None else before[top]


def _resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Values (C, H, W) at a size: averages of areas, or bilinear between pixels."""
    if tuple(values.shape[1:]) == size:
        return values
    if size[0] <= values.shape[1] and size[1] <= values.shape[2]:
        return adaptive_avg_pool2d(values, size)
    return interpolate(values[None], size, mode="bilinear", align_corners=False)[0]


def _detail(values: Tensor, size: tuple[int, int], factor: int) -> Tensor:
    """What the next coarser scale of an image lacks."""
    fine = _resized(values, size)
    coarser = tuple(max(1, round(n / (2 * factor))) for n in values.shape[1:])
    return fine - _resized(_resized(values, coarser), size)  # type: ignore[arg-type]


def _held_at(held: Held, size: tuple[int, int]) -> Held:
    """Held pixels at a coarser scale, where a pixel is known if it is mostly known."""
    known = held.known.float()
    share = adaptive_avg_pool2d(known[None], size)[0]
    values = adaptive_avg_pool2d(held.values * known, size) / share.clamp(min=1e-6)
    return Held(values, share > 0.5)


def _fraction(sigma: float, highest: float) -> float:
    """How much of the steps from `highest` down lie below a noise level."""
    levels = noise_levels(100, highest)
    return sum(level <= sigma for level in levels) / len(levels)
