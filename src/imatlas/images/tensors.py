"""Conversion between pixel arrays (N, H, W, C) and network tensors (N, C, H, W) in [-1, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from imatlas.images.spec import ImageSpec

if TYPE_CHECKING:
    import torch


def to_tensor(pixels: np.ndarray, spec: ImageSpec, device: str | torch.device = "cpu") -> torch.Tensor:
    """Pixels (N, H, W, C) of `spec.dtype` as a float32 tensor (N, C, H, W); `low` becomes -1 and `high` becomes +1.

    NaN (a missing pixel) stays NaN, and infinity becomes NaN; training masks both. Integer pixels are copied to the
    device in their own dtype and converted there.
    """
    import torch

    if pixels.dtype == np.uint16:  # torch has few kernels for uint16; int32 holds every value
        pixels = pixels.astype(np.int32)
    tensor = torch.from_numpy(np.require(pixels, requirements=("C", "W"))).to(device)  # a read-only array is copied
    tensor = tensor.permute(0, 3, 1, 2).to(torch.float32)
    scale = 2.0 / (spec.high - spec.low)
    if pixels.dtype == np.float32:
        tensor = torch.where(tensor.isinf(), torch.nan, tensor)
    # The first operation must not be in place: a float array shares its memory with `tensor`.
    return tensor.sub(spec.low).mul_(scale).sub_(1.0)


def to_pixels(tensor: torch.Tensor, spec: ImageSpec) -> np.ndarray:
    """A tensor (N, C, H, W) in [-1, 1] as pixels (N, H, W, C) of `spec.dtype`, rounded and clipped to the dtype."""
    values = tensor.detach().to("cpu").float().permute(0, 2, 3, 1).numpy()
    values = (values + 1.0) * ((spec.high - spec.low) / 2.0) + spec.low
    if spec.dtype == "float32":
        return np.ascontiguousarray(values, dtype=np.float32)
    top = np.iinfo(spec.dtype).max
    return np.ascontiguousarray(np.clip(np.rint(values), 0, top).astype(spec.dtype))


def to_view(pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Pixels (N, H, W, C) or (H, W, C) of any dtype as uint8 for display: `low` black, `high` white, NaN gray."""
    if pixels.dtype == np.uint8:
        return pixels
    with np.errstate(all="ignore"):  # a set of floats may span more than a float holds
        values = (pixels.astype(np.float32) - spec.low) / (spec.high - spec.low)
    values = np.nan_to_num(values, nan=0.5, posinf=1.0, neginf=0.0)
    return np.rint(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)
