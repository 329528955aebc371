"""Training data and the batches of a training step."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from imatlas import seeding
from imatlas.images.pixel_rows import PixelRows
from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_tensor

MAX_ABS = 1e4
"""Pixels beyond this in absolute value, where the set spans -1 to 1, count as missing."""


@dataclass(frozen=True)
class Batch:
    """One batch, as `_losses` receives it.

    Attributes
    ----------
    x : Tensor (N, C, H, W) in [-1, 1]
        Images; missing pixels are 0.
    known : Tensor (N, C, H, W) of bool, or None
        Which pixels are not missing; None if none is missing.
    y : Tensor (N, …), or None
        Conditions.
    n_images : int
        Size of the training set.
    """

    x: Tensor
    known: Tensor | None = None
    y: Tensor | None = None
    n_images: int = 0


@dataclass(frozen=True)
class Data:
    """Training and held-out images: pixels (N, H, W, C), conditions y (N, …) or None."""

    pixels: np.ndarray | PixelRows
    spec: ImageSpec
    held_out: np.ndarray
    y: np.ndarray | None = None
    held_out_y: np.ndarray | None = None
    rows: np.ndarray | None = None
    """Rows of `pixels` to train on, None for all; so a memory-mapped array is never copied."""

    def __len__(self) -> int:
        return len(self.pixels if self.rows is None else self.rows)

    def draw_rows(self, n_images: int, *parts: int | str) -> np.ndarray:
        """Rows of at most `n_images` training images, ascending, drawn with `seeding.rng(*parts)`."""
        rows = np.sort(seeding.rng(*parts).permutation(len(self))[:n_images])
        return rows if self.rows is None else self.rows[rows]


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
        valid = x.abs() <= MAX_ABS  # False for NaN
        if not bool(valid.all()):
            known, x = valid, torch.where(valid, x, 0.0)
    return Batch(x, known, None if y is None else torch.as_tensor(y, device=device), n_images)


def batch_rows(n_images: int, seed: int, start: int, size: int) -> np.ndarray:
    """Rows `start` to `start + size` of an endless sequence of permutations, each drawn from (seed, epoch)."""
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
