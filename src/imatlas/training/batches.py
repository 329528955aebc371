"""Which images a training step gets, and in what form."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from imatlas import seeding
from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_tensor

MAX_ABS = 1e4
"""Pixels farther from zero than this, where the set spans -1 to 1, are taken for broken ones."""


@dataclass(frozen=True)
class Batch:
    """What `_losses` gets: images x (N, C, H, W) in [-1, 1] with missing pixels 0; `known` (same shape, bool) is None
    where nothing is missing; y (N, …) is what the user passed to condition on, or None; `n_images` is how many images
    the batch was drawn from, which says how much there is to learn from."""

    x: Tensor
    known: Tensor | None = None
    y: Tensor | None = None
    n_images: int = 0


@dataclass(frozen=True)
class Data:
    """The images to learn from, and those kept aside: pixels (N, H, W, C), conditions y (N, …) or None."""

    pixels: np.ndarray
    spec: ImageSpec
    held_out: np.ndarray
    y: np.ndarray | None = None
    held_out_y: np.ndarray | None = None
    rows: np.ndarray | None = None
    """Which rows of `pixels` are learned from (all where None), so that a memory-mapped array is never copied."""

    def __len__(self) -> int:
        return len(self.pixels if self.rows is None else self.rows)

    def drawn(self, n_images: int, *parts: int | str) -> np.ndarray:
        """Rows of `pixels` of at most so many images to learn from, ascending, drawn by `seeding.rng(*parts)`."""
        chosen = np.sort(seeding.rng(*parts).permutation(len(self))[:n_images])
        return chosen if self.rows is None else self.rows[chosen]


def make_batch(
    pixels: np.ndarray,
    spec: ImageSpec,
    device: torch.device | str = "cpu",
    y: np.ndarray | None = None,
    n_images: int = 0,
) -> Batch:
    """Pixels (N, H, W, C) as a batch; floats that are NaN, infinite or beyond `MAX_ABS` count as missing."""
    x = to_tensor(pixels, spec, device)
    known = None
    if pixels.dtype.kind == "f":
        sane = x.abs() <= MAX_ABS  # False for NaN
        if not bool(sane.all()):
            known, x = sane, torch.where(sane, x, 0.0)
    return Batch(x, known, None if y is None else torch.as_tensor(y, device=device), n_images)


def batch_rows(n_images: int, seed: int, start: int, size: int) -> np.ndarray:
    """Rows (size,) number `start` and on in the endless row of permutations, each drawn from (seed, epoch)."""
    parts = []
    while size > 0:
        epoch, offset = divmod(start, n_images)
        part = _permutation(n_images, seed, epoch)[offset : offset + size]
        parts.append(part)
        start, size = start + len(part), size - len(part)
    return np.concatenate(parts)


@functools.lru_cache(maxsize=2)
def _permutation(n_images: int, seed: int, epoch: int) -> np.ndarray:
    return seeding.rng(seed, "epoch", epoch).permutation(n_images)
