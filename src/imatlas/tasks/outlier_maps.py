"""Outlier heat maps: the distance of each location of an image to anything that ordinary images show.

Roth, K. et al. (2022), "Towards total recall in industrial anomaly detection" (PatchCore), CVPR, section 3: locations
are described by the middle layers of a pretrained network, averaged over their surroundings, and compared with the
nearest location in any ordinary image. Unlike PatchCore, only the few ordinary images nearest to the outlier are used,
so no memory bank is kept.

Other encoders are treated as black boxes: parts of the outlier are replaced by the same parts of the nearest ordinary
image, and the heat is how much closer that brings the embedding (occlusion; Zeiler, M. and Fergus, R., 2014).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_tensor
from imatlas.models.pretrained import SIDE
from imatlas.neighbors import as_tensor, nearest
from imatlas.nn.backbones import EfficientNetLite0
from imatlas.training import devices

BLOCKS = (7, 10)
"""Blocks of the network whose outputs describe locations: 192 features for each 16 x 16 pixels."""

FEATURE_MAP_SPEC = ImageSpec(128, 128, 3)
"""Kind of the images given to an encoder with feature maps: the size of an atlas's thumbnails."""

COMPARED = ("image", "heat map", "nearest ordinary", "second", "third")
"""What is shown of an outlier, side by side."""

PARTS = 8
"""Parts per side that are replaced in turn for other encoders."""

FADING, HEAT_COLOR = 0.55, np.array([255.0, 60.0, 0.0])
"""How far ordinary locations fade to gray, and the color of unusual ones."""


def has_feature_maps(encoder: Any) -> bool:
    """Whether an encoder describes locations; it then takes images of `FEATURE_MAP_SPEC`."""
    return hasattr(getattr(encoder, "module_", None), "maps")


def heat_map(encoder: Any, image: np.ndarray, ordinary: np.ndarray, embed: Callable[[Any], np.ndarray]) -> np.ndarray:
    """How unusual each location of an image is.

    Parameters
    ----------
    encoder : model
        With an EfficientNet-Lite0 as its `module_`, its feature maps are used.
    image : ndarray (H, W, C)
        As `embed` takes it; 8-bit with 3 channels if the encoder has feature maps.
    ordinary : ndarray (n, H, W, C)
        Ordinary images, the nearest to `image` first.
    embed : callable
        Images (n, H, W, C) -> embeddings; used if the encoder has no feature maps.

    Returns
    -------
    ndarray (h, w) float32
        0 for locations no more unusual than those of ordinary images are to each other, 1 for the most unusual one.
    """
    if has_feature_maps(encoder):
        heat = _by_feature_maps(encoder.module_, image, ordinary, encoder.device)
    else:
        heat = _by_replacing(image, ordinary[0], embed)
    heat = np.maximum(heat, 0.0)
    return (heat / max(float(heat.max()), 1e-12)).astype(np.float32)


def overlaid(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """An image (H, W, C) uint8 under its heat map (h, w), as (H, W, 3) uint8: unusual locations glow, others fade."""
    pixels = np.broadcast_to(image[..., :3] if image.shape[2] >= 3 else image[..., :1], (*image.shape[:2], 3))
    pixels = pixels.astype(np.float32)
    large = F.interpolate(torch.from_numpy(heat)[None, None], pixels.shape[:2], mode="bicubic", align_corners=False)
    share = large[0, 0].clamp(0, 1).numpy()[..., None]
    gray = FADING * 200 + (1 - FADING) * pixels.mean(axis=2, keepdims=True)
    glowing = 0.55 * pixels + 0.45 * HEAT_COLOR
    return np.clip((1 - share) * gray + share * glowing, 0, 255).astype(np.uint8)


def _by_feature_maps(
    module: EfficientNetLite0, image: np.ndarray, ordinary: np.ndarray, device_name: str
) -> np.ndarray:
    """Distance (h, w) of each location to the nearest one of ordinary images, relative to the typical one, minus 1."""
    device = devices.pick_device(device_name)
    module.eval()
    devices.place(module, device)
    maps = []
    with torch.inference_mode():
        for pixels in (image, *ordinary):  # one at a time, so that the number of images changes no result
            x = to_tensor(np.ascontiguousarray(pixels)[None], ImageSpec(*pixels.shape), device)
            x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
            maps.append(_smoothed(module.maps(x, BLOCKS)).cpu())
    own, others = maps[0], torch.stack(maps[1:])  # (C, h, w), (n, C, h, w)
    mean, deviation = others.mean(dim=(0, 2, 3)), others.std(dim=(0, 2, 3)).clamp(min=1e-6)
    flat = [((one.flatten(1).T - mean) / deviation).contiguous() for one in (own, *others)]
    distances = nearest(flat[0], torch.cat(flat[1:]))[1].sqrt()
    typical = 1.0
    if len(others) > 1:  # the nearest ordinary image against the others
        typical = float(nearest(flat[1], torch.cat(flat[2:]))[1].sqrt().median())
    return (distances / max(typical, 1e-12) - 1).reshape(own.shape[1:]).numpy()


def _smoothed(maps: list[torch.Tensor]) -> torch.Tensor:
    """Feature maps averaged over 3 x 3 locations and stacked at the resolution of the first: (C, h, w)."""
    averaged = [F.avg_pool2d(one, 3, stride=1, padding=1, count_include_pad=False) for one in maps]
    size = averaged[0].shape[2:]
    return torch.cat([F.interpolate(one, size, mode="bilinear", align_corners=False) for one in averaged], dim=1)[0]


def _by_replacing(image: np.ndarray, ordinary: np.ndarray, embed: Callable[[Any], np.ndarray]) -> np.ndarray:
    """How much closer (parts, parts) to an ordinary image replacing each part brings the embedding of an image."""
    rows, columns = (np.linspace(0, side, min(PARTS, side) + 1).astype(int) for side in image.shape[:2])
    variants = [image, ordinary]
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            variant = image.copy()
            variant[top:bottom, left:right] = ordinary[top:bottom, left:right]
            variants.append(variant)
    embedding = as_tensor(embed(np.stack(variants)))
    distances = torch.linalg.vector_norm(embedding - embedding[1], dim=1)
    return (distances[0] - distances[2:]).reshape(len(rows) - 1, len(columns) - 1).numpy()
