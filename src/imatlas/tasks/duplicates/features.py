"""Cosine features that propose pairs of images for comparison, and a tangent distance between them.

A duplicate may be recompressed, scaled, cropped by about a tenth, made brighter or of other contrast, rotated or
mirrored. Pictures are stretched to `SIDE` x `SIDE` RGB; coordinates run from -1 to 1 along an axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

SIDE = 64
"""Side length in pixels at which pictures are compared."""

COARSE = 32
"""Side length in pixels for features, registration, and differences in lightness."""

N_WAVES, N_CHROMA_WAVES = 8, 3
"""Lowest cosine frequencies along each axis, for lightness and for the two chroma channels."""

N_FEATURES = N_WAVES**2 + 2 * N_CHROMA_WAVES**2

WINDOWS = (
    (-1.0, 1.0, -1.0, 1.0),
    (-0.9, 0.9, -0.9, 0.9),
    (-1.0, 0.8, -1.0, 0.8),
    (-1.0, 0.8, -0.8, 1.0),
    (-0.8, 1.0, -1.0, 0.8),
    (-0.8, 1.0, -0.8, 1.0),
)
"""The whole picture, and what cropping a tenth leaves: top, bottom, left, right of each window."""

STRIPS = ((-1.0, -0.16, -1.0, 1.0), (0.16, 1.0, -1.0, 1.0))
"""Above and below the center: a watermark leaves one of them unchanged."""

NOISE = 2.0
"""Gray levels, of 255, that compression may change."""

N_ORIENTATIONS = 8
"""Orientation 0 is upright, 1 to 3 are rotated by 90 degrees each, 4 to 7 are the same after mirroring."""

BATCH = 256
"""Images processed together: bounds memory."""

PixelReader = Callable[[np.ndarray], np.ndarray]
"""Rows (n,) -> pixels (n, H, W, 3) uint8, each image stretched to one size."""

_TO_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
_STEP = 0.04


@dataclass(frozen=True)
class Features:
    """The features of all images as `picture_features` gives them, in half precision; 2 KB per image."""

    windows: np.ndarray
    tangents: np.ndarray
    strips: np.ndarray

    @classmethod
    def of(cls, pixels_of: PixelReader, n: int) -> Features:
        """The features of `n` images."""
        shapes = (len(WINDOWS), 4, len(STRIPS))
        arrays = [np.empty((n, m, N_FEATURES), np.float16) for m in shapes]
        for start in range(0, n, BATCH):
            rows = np.arange(start, min(n, start + BATCH))
            for array, part in zip(arrays, picture_features(resize(pixels_of(rows)))):
                array[rows] = part.numpy()
        return cls(*arrays)

    def distance(self, first: np.ndarray, second: np.ndarray, window: np.ndarray | int, orientation: int) -> np.ndarray:
        """The tangent distance (n,) of a window of each image `first`, reoriented, to the whole of each `second`."""
        query = reorient_features(as_float(self.windows[first, window]), orientation)
        return tangent_distance(query, as_float(self.windows[second, 0]), as_float(self.tangents[second])).numpy()


def as_float(array: np.ndarray) -> torch.Tensor:
    """An array as a float32 tensor."""
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def resize(pixels: np.ndarray) -> torch.Tensor:
    """Pixels (n, H, W, 3) uint8 stretched to (n, 3, SIDE, SIDE) float32, 0 to 255."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float()
    if tensor.shape[2:] == (SIDE, SIDE):
        return tensor
    return F.interpolate(tensor, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


def picture_features(rgb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features of pictures (n, 3, SIDE, SIDE).

    Returns
    -------
    windows : Tensor (n, len(WINDOWS), N_FEATURES)
    tangents : Tensor (n, 4, N_FEATURES)
        Derivatives of the features of the whole picture with respect to shift and scale along x and y.
    strips : Tensor (n, len(STRIPS), N_FEATURES)
    """
    ycc = F.avg_pool2d(to_ycc(rgb), SIDE // COARSE)
    windows = torch.stack([_coefficients(ycc, window) for window in WINDOWS], 1)
    strips = torch.stack([_coefficients(ycc, strip) for strip in STRIPS], 1)
    tangents = []
    for axis in (2, 0):
        for move in ((_STEP, _STEP), (-_STEP, _STEP)):
            ends = [list(WINDOWS[0]), list(WINDOWS[0])]
            for sign, end in zip((1, -1), ends):
                end[axis] += sign * move[0]
                end[axis + 1] += sign * move[1]
            tangents.append((_coefficients(ycc, tuple(ends[0])) - _coefficients(ycc, tuple(ends[1]))) / (2 * _STEP))
    return windows, torch.stack(tangents, 1), strips


def reorient(rgb: torch.Tensor, orientation: int) -> torch.Tensor:
    """Pictures (n, 3, SIDE, SIDE) in an orientation: mirrored from 4 on, then rotated by 90 degrees each."""
    return torch.rot90(rgb.flip(-1) if orientation >= 4 else rgb, orientation % 4, (-2, -1))


def reorient_features(feats: torch.Tensor, orientation: int) -> torch.Tensor:
    """The features (..., N_FEATURES) of reoriented pictures: coefficients only change sign or swap axes."""
    if orientation == 0:
        return feats
    parts = []
    start = 0
    for size in (N_WAVES, N_CHROMA_WAVES, N_CHROMA_WAVES):
        part = feats[..., start : start + size**2].unflatten(-1, (size, size))
        start += size**2
        parity = torch.tensor([1.0, -1.0]).repeat(size)[:size].to(part.dtype)
        if orientation >= 4:
            part = part * parity
        for _ in range(orientation % 4):
            part = part.transpose(-1, -2) * parity[:, None]
        parts.append(part.flatten(-2))
    return torch.cat(parts, -1)


def normalized(feats: torch.Tensor) -> torch.Tensor:
    """Features (..., N_FEATURES) without the mean lightness, scaled to length 1."""
    feats = torch.cat([torch.zeros_like(feats[..., :1]), feats[..., 1:]], -1)
    return feats / (feats.norm(dim=-1, keepdim=True) + 1e-3)


def lowest_frequencies(feats: torch.Tensor) -> torch.Tensor:
    """The 4 x 4 lowest lightness coefficients and the chroma, unscaled: they separate pictures without detail."""
    light = feats[:, : N_WAVES**2].unflatten(1, (N_WAVES, N_WAVES))[:, :4, :4]
    return torch.cat([light.flatten(1), feats[:, N_WAVES**2 :]], 1)


def tangent_distance(query: torch.Tensor, whole: torch.Tensor, tangents: torch.Tensor) -> torch.Tensor:
    """The share (n,) of the features that no change of lighting, small shift or small change of scale explains.

    The tangent distance (Simard, LeCun, Denker, "Efficient pattern recognition using a new transformation distance",
    1992) from `query` (n, N_FEATURES) to `whole` along `tangents` (n, 4, N_FEATURES), over the length of `query`; a
    ridge keeps shifts and scales to about a tenth.
    """
    light = torch.zeros_like(query)
    light[:, 0] = 1.0
    basis = torch.cat([whole[:, None], light[:, None], tangents], 1)
    gram = basis @ basis.transpose(1, 2)
    ridge = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0]) * (NOISE / 8 / 0.1) ** 2 + 1e-4
    weights = torch.linalg.solve(gram + torch.diag(ridge), basis @ query[..., None])
    residual = query - (basis * weights).sum(1)
    spread = query.clone()
    spread[:, 0] = 0
    return residual.norm(dim=1) / (spread.square().sum(1) + (NOISE / 2) ** 2).sqrt()


def to_ycc(rgb: torch.Tensor) -> torch.Tensor:
    """Pictures (n, 3, H, W) as lightness and two chroma channels."""
    return torch.einsum("kc,nchw->nkhw", _TO_YCC, rgb)


def pixel_centers(size: int) -> torch.Tensor:
    """The coordinates of pixels along an axis (size,), from -1 to 1."""
    return (torch.arange(size) + 0.5) * 2 / size - 1


def _coefficients(ycc: torch.Tensor, window: tuple[float, ...]) -> torch.Tensor:
    """The lowest cosine coefficients (n, N_FEATURES) of a window of pictures (n, 3, COARSE, COARSE)."""
    rows, columns = _cosine_basis(window[0], window[1]), _cosine_basis(window[2], window[3])
    light = torch.einsum("kh,nhw,lw->nkl", rows, ycc[:, 0], columns)
    rows, columns = rows[:N_CHROMA_WAVES], columns[:N_CHROMA_WAVES]
    chroma = torch.einsum("kh,nchw,lw->nckl", rows, ycc[:, 1:], columns)
    return torch.cat([light.flatten(1), chroma.flatten(1)], 1)


def _cosine_basis(low: float, high: float) -> torch.Tensor:
    """Cosines (N_WAVES, COARSE) over [low, high]; higher frequencies weigh more, as pictures have less of them."""
    line = pixel_centers(COARSE)
    half = 1 / COARSE
    inside = ((line + half).clamp(max=high) - (line - half).clamp(min=low)).clamp(min=0)
    order = torch.arange(N_WAVES)[:, None]
    waves = torch.cos(torch.pi * order * (line - low) / (high - low)) * inside / inside.sum()
    return waves * order.clamp(min=1) ** 0.4
