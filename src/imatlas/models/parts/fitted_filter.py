"""The last filter of a decoded image, fitted to the image: its weights are a part of the file.

To each plane is added a weighted sum of what a network adds, and of second differences of the result in five
directions. The encoder knows the original, so it finds the weights of the least squared error; the adaptive loop filter
of video codecs does the same (Tsai et al. 2013, "Adaptive loop filtering for video coding"). Where the network does too
much, as in noise, its weight is small.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

DIRECTIONS = (((0, 1),), ((1, 0),), ((1, 1), (1, -1)), ((0, 2),), ((2, 0),))
"""Rows and columns to the two neighbors of which each second difference is made; of diagonals, the sum of two."""
UNITS = torch.tensor([1 / 64] + [1 / 512] * len(DIRECTIONS))
"""What a weight of 1 in a file stands for."""
N_WEIGHTS = len(UNITS)
REACH = 2


def fitted(decoded: Tensor, filtered: Tensor, original: Tensor) -> bytes:
    """The weights for planes (N, C, H, W) that were decoded, and filtered by the network: `N_WEIGHTS` bytes a plane."""
    found = []
    for plane in range(decoded.shape[1]):
        before, after = (x[:, plane].float() for x in (decoded, filtered))
        terms = torch.stack([term.flatten() for term in _terms(before, after)]).double()
        missing = (original[:, plane] - before).double().flatten()
        products = terms @ terms.T
        products.diagonal().add_(1e-6 * products.diagonal().mean() + 1e-9)  # an image of one color has no differences
        found.append(torch.linalg.solve(products, terms @ missing))
    whole = torch.round(torch.stack(found) / UNITS).clamp(-128, 127)
    return whole.numpy().astype(np.int8).tobytes()


def applied(weights: bytes, decoded: Tensor, filtered: Tensor) -> Tensor:
    """Planes (N, C, H, W) float32 that were decoded, and filtered by the network, with weights of `fitted`."""
    out = decoded.float().clone()
    for plane, of_plane in enumerate(np.frombuffer(weights, np.int8).reshape(-1, N_WEIGHTS).astype(np.float32)):
        terms = _terms(decoded[:, plane].float(), filtered[:, plane].float())
        for weight, term in zip(torch.from_numpy(of_plane) * UNITS, terms, strict=True):
            out[:, plane] += weight * term
    return out


def _terms(before: Tensor, after: Tensor) -> list[Tensor]:
    """What is added with a weight each to a plane (N, H, W)."""
    height, width = after.shape[1:]
    wide = F.pad(after[:, None], (REACH,) * 4, mode="replicate")[:, 0]

    def moved(rows: int, columns: int) -> Tensor:
        return wide[:, REACH + rows : REACH + rows + height, REACH + columns : REACH + columns + width]

    differences = (
        sum((moved(y, x) + moved(-y, -x) - 2 * after for y, x in each), torch.zeros_like(after)) for each in DIRECTIONS
    )
    return [after - before, *differences]
