"""The images of a set as sources of new ones: their values, the search for neighbors, mirrored and shifted copies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from imatlas import seeding
from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_pixels, to_tensor
from imatlas.models.parts.patch_posterior import Sources
from imatlas.neighbors import as_tensor, k_nearest

SMALL = 8
"""Side of the images whose principal components are the default space."""

MAX_COMPONENTS = 64
"""Largest number of principal components that are kept of a space."""

MAX_FITTED = 20_000
"""Most rows that principal components are computed from."""

CHUNK = 1024
"""Images that are made small at a time."""

NEAR_DUPLICATE = 0.15
"""Root mean square difference at 8 x 8 pixels, for values in [-1, 1], below which two images count as one source."""

COPIES = 120
"""Sources of a new image. With fewer neighbors, shifted copies fill the number up."""

SHIFT = 1 / 16
"""Largest shift of copies, as a fraction of the longer side."""

MIRRORED = 1.1
"""Largest ratio of the distance of mirrored images to their nearest neighbors to that of images to theirs."""

N_MIRRORED = 400
"""Images that this is measured on."""


def to_values(pixels: np.ndarray, spec: ImageSpec, device: str | torch.device = "cpu") -> Tensor:
    """Pixels (N, H, W, C) as a tensor (N, C, H, W) in [-1, 1], where colors are multiplied by alpha."""
    x = to_tensor(pixels, spec, device)
    if spec.has_alpha:
        x[:, :-1] = (x[:, :-1] + 1) * (x[:, -1:] + 1) / 2 - 1
    return x


def from_values(x: Tensor, spec: ImageSpec) -> np.ndarray:
    """The inverse of `to_values`; colors where alpha is 0 become `spec.low`."""
    x = x.clamp(-1, 1) if spec.dtype == "uint8" else x
    if spec.has_alpha:
        alpha = (x[:, -1:] + 1) / 2
        colors = torch.where(alpha > 1 / 512, (x[:, :-1] + 1) / alpha.clamp(min=1 / 512) - 1, -1.0)
        x = torch.cat([colors.clamp(max=1.0), x[:, -1:]], 1)
    return to_pixels(x, spec)


def small_features(pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """The values of images at 8 x 8 pixels: (N, 64 C) float32."""
    parts = [
        adaptive_avg_pool2d(to_values(pixels[i : i + CHUNK], spec), SMALL).flatten(1)
        for i in range(0, len(pixels), CHUNK)
    ]
    return torch.cat(parts).numpy()


def principal_components(X: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (D,), axes (D, k) and coordinates (N, k) float32 along the first principal axes of vectors X (N, D)."""
    some = X
    if len(X) > MAX_FITTED:
        some = X[np.sort(seeding.rng(seed, "components").permutation(len(X))[:MAX_FITTED])]
    mean = some.mean(0, dtype=np.float64).astype(np.float32)
    centered = (some - mean).astype(np.float64)
    n_kept = min(MAX_COMPONENTS, X.shape[1])
    axes = np.ascontiguousarray(np.linalg.eigh(centered.T @ centered)[1][:, ::-1][:, :n_kept].astype(np.float32))
    coordinates = [(X[i : i + 16 * CHUNK].astype(np.float32) - mean) @ axes for i in range(0, len(X), 16 * CHUNK)]
    return mean, axes, np.concatenate(coordinates)


def mirrored_are_alike(pixels: np.ndarray, spec: ImageSpec, seed: int) -> bool:
    """Whether mirrored images are as near to the images of the set as these are to each other."""
    if len(pixels) < 8:
        return True
    rows = np.sort(seeding.rng(seed, "mirrored").permutation(len(pixels))[: 2 * N_MIRRORED])
    x = adaptive_avg_pool2d(to_values(pixels[rows], spec), SMALL)
    asked, known = as_tensor(x[::2].flatten(1).numpy()), as_tensor(x[1::2].flatten(1).numpy())
    flipped = as_tensor(x[::2].flip(3).flatten(1).numpy())
    own, other = (k_nearest(a, known, 1)[1].sqrt().median() for a in (asked, flipped))
    return bool(other <= MIRRORED * own + 1e-6)


@dataclass(frozen=True)
class Composition:
    """The sources of one new image, with mirrored and shifted copies: rows, log-weights, and how each is changed."""

    rows: np.ndarray  # (K,)
    prior: np.ndarray  # (K,)
    groups: np.ndarray  # (K,)
    flipped: np.ndarray  # (K,) of bool
    shift: np.ndarray  # (K, 2) of int, down and right

    @classmethod
    def of(
        cls,
        rows: np.ndarray,
        prior: np.ndarray,
        small: np.ndarray,
        mirrored: bool,
        reach: int,
        rng: np.random.Generator,
    ) -> Composition:
        """Copies of the images `rows` (m,), given their `small_features`.

        Parameters
        ----------
        reach : int
            Largest shift in pixels.
        """
        apart = np.stack([np.square(small - one).mean(1) for one in small])
        groups = np.unique((apart <= NEAR_DUPLICATE**2).argmax(1), return_inverse=True)[1]  # the first that is alike
        variants = 2 if mirrored else 1
        n_shifted = COPIES // (variants * len(rows)) if reach else 1
        n_copies = variants * max(1, n_shifted)
        shift = rng.integers(-reach, reach + 1, (n_copies, len(rows), 2))
        shift[:variants] = 0
        flipped = np.broadcast_to((np.arange(n_copies) % variants == 1)[:, None], (n_copies, len(rows)))
        rows, prior, groups = (np.tile(each, n_copies) for each in (rows, prior, groups))
        return cls(rows, prior, groups, flipped.ravel(), shift.reshape(-1, 2))

    def stack(
        self,
        images: np.ndarray,
        missing: np.ndarray | None,
        spec: ImageSpec,
        factor: int,
        window: tuple[int, int],
        which: Tensor | None,
        device: torch.device,
    ) -> Sources:
        """The sources, from images reduced by a factor, of which the middle of size `window` is used.

        Parameters
        ----------
        images : array (N, H, W, C)
        missing : array (N, H, W) of uint8, or None
        which : tensor of int64, optional
            Indices of the copies that take part. None: all.
        """
        chosen = np.arange(len(self.rows)) if which is None else which.cpu().numpy()
        rows, index = np.unique(self.rows[chosen], return_inverse=True)
        x, known = to_values(images[rows], spec, device), None
        if missing is not None:
            known = 1.0 - torch.from_numpy(missing[rows]).to(device, torch.float32)[:, None]
            x = x * known
        size = (max(1, round(spec.height / factor)), max(1, round(spec.width / factor)))
        if factor > 1:
            x = adaptive_avg_pool2d(x, size)
            if known is not None:
                share = adaptive_avg_pool2d(known, size)
                x, known = x / share.clamp(min=1e-6), (share > 0.5).float()
        top, left = ((n - m) // 2 for n, m in zip(size, window, strict=True))

        def copies(values: Tensor) -> Tensor:
            made = []
            for i, at in zip(index.tolist(), chosen.tolist(), strict=True):
                one = values[i].flip(-1) if self.flipped[at] else values[i]
                down, right = (int(s) // factor for s in self.shift[at])
                one = _shifted(_shifted(one, down, -2), right, -1)
                made.append(one[:, top : top + window[0], left : left + window[1]])
            return torch.stack(made, -1)

        groups = np.unique(self.groups[chosen], return_inverse=True)[1]
        return Sources(
            copies(x).contiguous(),
            None if known is None else copies(known)[0].contiguous(),
            torch.from_numpy(self.prior[chosen].astype(np.float32)).to(device),
            torch.from_numpy(groups).to(device),
            torch.from_numpy(self.rows[chosen]).to(device),
        )


def _shifted(values: Tensor, by: int, axis: int) -> Tensor:
    """Values moved along an axis; the edge is repeated."""
    if by == 0:
        return values
    n = values.shape[axis]
    return values.index_select(axis, (torch.arange(n, device=values.device) - by).clamp(0, n - 1))
