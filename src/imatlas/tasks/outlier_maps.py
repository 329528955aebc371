"""Where an image is odd: a map of how far each place of it is from anything that ordinary images show.

Roth, K. et al. (2022), "Towards total recall in industrial anomaly detection" (PatchCore), CVPR, section 3: places are
described by the middle layers of a pretrained network, each with what lies around it, and compared with the nearest
place in any ordinary image. Here those are the few ordinary images nearest to the odd one, so no memory is kept.

Of other encoders nothing is known but what they make of a whole image: there parts of the odd image are replaced by
the same parts of the ordinary one nearest to it (occlusion; Zeiler, M. and Fergus, R., 2014), and it is told how much
nearer that brings it.
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
from imatlas.neighbors import as_tensor, nearest
from imatlas.nn.backbones import EfficientNetLite0
from imatlas.training import devices

BLOCKS = (7, 10)
"""Blocks of the network whose ends describe places: 192 numbers for each 16 x 16 pixels."""

PLACES_SPEC = ImageSpec(128, 128, 3)
"""Kind of the pictures that are looked at place by place: the size of an atlas's thumbnails."""

COMPARED = ("image", "where it is odd", "nearest ordinary", "second", "third")
"""What is shown of an odd image, side by side."""

SIDE = 224
"""Height and width at which the network looks."""

PARTS = 8
"""Parts of a side that are replaced in turn where the encoder has no places."""

FADED, GLOW = 0.55, np.array([255.0, 60.0, 0.0])
"""How far what is ordinary is washed out to gray, and the color of what is odd."""


def has_places(encoder: Any) -> bool:
    """Whether the eyes can say what they see in each place of an image; they then take pictures of `PLACES_SPEC`."""
    return isinstance(getattr(encoder, "module_", None), EfficientNetLite0)


def heat_map(encoder: Any, image: np.ndarray, ordinary: np.ndarray, embed: Callable[[Any], np.ndarray]) -> np.ndarray:
    """How odd each place of an image is.

    Parameters
    ----------
    encoder : model
        The eyes: those with an EfficientNet-Lite0 in `module_` are asked what they see in each place.
    image : ndarray (H, W, C)
        As `embed` takes it, 8-bit with 3 channels for eyes with places.
    ordinary : ndarray (n, H, W, C)
        Ordinary images, the nearest to `image` first.
    embed : callable
        Images (n, H, W, C) to places in the learned space, asked where the eyes have no places.

    Returns
    -------
    ndarray (h, w) float32
        0 where a place is no odder than those of ordinary images are to each other, 1 at the oddest place.
    """
    if has_places(encoder):
        heat = _by_places(encoder.module_, image, ordinary, encoder.device)
    else:
        heat = _by_replacing(image, ordinary[0], embed)
    heat = np.maximum(heat, 0.0)
    return (heat / max(float(heat.max()), 1e-12)).astype(np.float32)


def overlaid(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """An image (H, W, C) uint8 with its heat map (h, w) over it, (H, W, 3) uint8: odd places glow, others fade."""
    pixels = np.broadcast_to(image[..., :3] if image.shape[2] >= 3 else image[..., :1], (*image.shape[:2], 3))
    pixels = pixels.astype(np.float32)
    large = F.interpolate(torch.from_numpy(heat)[None, None], pixels.shape[:2], mode="bicubic", align_corners=False)
    share = large[0, 0].clamp(0, 1).numpy()[..., None]
    gray = FADED * 200 + (1 - FADED) * pixels.mean(axis=2, keepdims=True)
    glowing = 0.55 * pixels + 0.45 * GLOW
    return np.clip((1 - share) * gray + share * glowing, 0, 255).astype(np.uint8)


def _by_places(module: EfficientNetLite0, image: np.ndarray, ordinary: np.ndarray, device_name: str) -> np.ndarray:
    """Distance (h, w) of each place to the nearest one of ordinary images, over what is usual among these, less 1."""
    device = devices.pick_device(device_name)
    module.eval()
    devices.place(module, device)
    described = []
    with torch.inference_mode():
        for pixels in (image, *ordinary):  # one at a time: as fast on a processor, and the same for any number
            x = to_tensor(np.ascontiguousarray(pixels)[None], ImageSpec(*pixels.shape), device)
            x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
            described.append(_places(module.maps(x, BLOCKS)).cpu())
    own, others = described[0], torch.stack(described[1:])  # (C, h, w), (n, C, h, w)
    mean, deviation = others.mean(dim=(0, 2, 3)), others.std(dim=(0, 2, 3)).clamp(min=1e-6)
    flat = [((one.flatten(1).T - mean) / deviation).contiguous() for one in (own, *others)]
    known = torch.cat(flat[1:])
    apart = nearest(flat[0], known)[1].sqrt()
    usual = 1.0
    if len(others) > 1:  # the nearest ordinary image against the others
        usual = float(nearest(flat[1], torch.cat(flat[2:]))[1].sqrt().median())
    return (apart / max(usual, 1e-12) - 1).reshape(own.shape[1:]).numpy()


def _places(maps: list[torch.Tensor]) -> torch.Tensor:
    """What stands at each place and just around it, of all layers: (C, h, w), with the places of the first layer."""
    around = [F.avg_pool2d(one, 3, stride=1, padding=1, count_include_pad=False) for one in maps]
    size = around[0].shape[2:]
    return torch.cat([F.interpolate(one, size, mode="bilinear", align_corners=False) for one in around], dim=1)[0]


def _by_replacing(image: np.ndarray, ordinary: np.ndarray, embed: Callable[[Any], np.ndarray]) -> np.ndarray:
    """How much nearer (parts, parts) to an ordinary image each part brings an image when it is replaced."""
    rows, columns = (np.linspace(0, side, min(PARTS, side) + 1).astype(int) for side in image.shape[:2])
    made = [image, ordinary]
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            changed = image.copy()
            changed[top:bottom, left:right] = ordinary[top:bottom, left:right]
            made.append(changed)
    places = as_tensor(embed(np.stack(made)))
    apart = torch.linalg.vector_norm(places - places[1], dim=1)
    return (apart[0] - apart[2:]).reshape(len(rows) - 1, len(columns) - 1).numpy()
