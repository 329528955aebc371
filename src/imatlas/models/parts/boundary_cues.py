"""Probability of a boundary at each pixel of one image, from its color, its texture and features of a network.

After Arbelaez et al. 2011, "Contour Detection and Hierarchical Image Segmentation", section 3: cues compare the two
halves of discs, and a logistic function of a few weights adds them up. We differ in the cues: textons are clusters, in
this one image, of features of the pretrained encoder, and the features themselves are compared too. The eight weights
were fitted to training images of BSDS500; nothing else knows human segmentations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from imatlas.models.parts.half_discs import (
    half_disc_differences,
    halved,
    histogram_distances,
    resized,
)
from imatlas.models.parts.published_weights import load_checkpoint
from imatlas.nn.backbones import EfficientNetLite0, fold_checkpoint

CUES = {
    "lightness, 3 px": 1.887,
    "lightness histogram, 5 px": 1.421,
    "color histogram, 5 px": 1.972,
    "fine textons, 10 px": 1.988,
    "coarse textons, 10 px": 1.089,
    "coarse textons, 20 px": 1.96,
    "first block": 1.123,
    "last block": 1.231,
}
"""Weight of each cue in the logit of a boundary."""
INTERCEPT = -8.612

BLOCKS = {0: 2, 2: 4, 4: 8, 10: 16}
"""Blocks of EfficientNet-Lite0 that are used, and their strides."""
STRIDE_MULTIPLE = 32
N_TEXTONS = 24
N_TEXTON_SAMPLES = 4000
LIGHTNESS_BINS, COLOR_BINS = 10, 11
COLOR_RANGE = 0.6
RAREST_BIN = 5e-4
"""Share of an image below which a bin is left out."""


@dataclass(frozen=True)
class ImageFeatures:
    """What boundaries and regions of an image are compared by; h = ceil(H / 2), w = ceil(W / 2) and so on."""

    lab: Tensor
    """Color (3, H, W) in CIELAB, as L / 100, a / 60, b / 60."""
    colors: Tensor
    """Memberships (n_bins, h, w) in the bins of three histograms, of L, a and b; those of each sum to 1,
    except where a rare bin was left out."""
    n_bins: tuple[int, int, int]
    fine_textons: Tensor
    """Texton (h, w) of each position at stride 2."""
    coarse_textons: Tensor
    """Texton of each position at stride 4."""
    first_block: Tensor
    """Features (16, h, w) at stride 2, of mean squared deviation about 1."""
    last_block: Tensor
    """Features (112, ...) at stride 16, of mean squared deviation about 1."""


@cache
def texture_network() -> EfficientNetLite0:
    """The pretrained encoder's network, learned with ImageNet's labels."""
    with torch.device("meta"):
        module = EfficientNetLite0()
    module = module.to_empty(device="cpu").requires_grad_(False)
    module.load_state_dict(fold_checkpoint(load_checkpoint("efficientnet-lite0")))
    return module.eval()


@torch.inference_mode()
def image_features(rgb: np.ndarray) -> ImageFeatures:
    """Features of an image (H, W, 3) of values in [0, 1], of any size; about 0.1 s at 481 x 321."""
    from skimage.color import rgb2lab

    lab = torch.from_numpy(rgb2lab(rgb).astype(np.float32)).permute(2, 0, 1)
    lab = (lab / torch.tensor([100.0, 60.0, 60.0])[:, None, None]).contiguous()
    small = halved(lab)
    histograms = [
        memberships(small[0], 0, 1, LIGHTNESS_BINS),
        *(memberships(channel, -COLOR_RANGE, COLOR_RANGE, COLOR_BINS) for channel in small[1:]),
    ]
    histograms = [bins[bins.mean(dim=(1, 2)) > RAREST_BIN] for bins in histograms]
    maps = block_maps(rgb)
    fine = principal_maps(torch.cat([maps[0], resized(maps[1], maps[0].shape[1:])]), 12)
    size = maps[1].shape[1:]
    coarse = [
        resized(block, size) / max(float(block.std(correction=0)), 1e-6) / len(block) ** 0.5 for block in maps[1:3]
    ]
    return ImageFeatures(
        lab=lab,
        colors=torch.cat(histograms),
        n_bins=(len(histograms[0]), len(histograms[1]), len(histograms[2])),
        fine_textons=clustered(fine, N_TEXTONS),
        coarse_textons=clustered(principal_maps(torch.cat(coarse), 16), N_TEXTONS),
        first_block=_of_unit_spread(maps[0]),
        last_block=_of_unit_spread(maps[3]),
    )


def block_maps(rgb: np.ndarray) -> list[Tensor]:
    """Feature maps of an image (H, W, 3) after `BLOCKS`, each (C, ceil(H / stride), ceil(W / stride))."""
    x = torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None] * 2 - 1
    height, width = x.shape[2:]
    x = F.pad(x, (0, -width % STRIDE_MULTIPLE, 0, -height % STRIDE_MULTIPLE), mode="replicate")
    maps = texture_network().maps(x, tuple(BLOCKS))
    return [
        block[0, :, : -(-height // stride), : -(-width // stride)].contiguous()
        for block, stride in zip(maps, BLOCKS.values(), strict=True)
    ]


def boundary_probability(features: ImageFeatures) -> np.ndarray:
    """Probability (H, W) float32 of a boundary at each pixel, in its most likely direction; 0.2 s at 481 x 321."""
    cues = boundary_cues(features)
    logits = torch.tensordot(torch.tensor(list(CUES.values())), cues, dims=1) + INTERCEPT
    return full_size(torch.sigmoid(logits), features.lab.shape[1:]).amax(0).numpy()


def full_size(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps (C, ceil(H / 2), ceil(W / 2)) at the size (C, H, W)."""
    return F.interpolate(maps[None], scale_factor=2, mode="bilinear", align_corners=False)[0, :, : size[0], : size[1]]


@torch.inference_mode()
def boundary_cues(features: ImageFeatures) -> Tensor:
    """The cues (len(CUES), N_DIRECTIONS, ceil(H / 2), ceil(W / 2)), each at least 0."""
    colors = features.colors
    size = colors.shape[1:]
    lightness = half_disc_differences(features.lab[:1], 3)[0]
    by_color = histogram_distances(colors, features.n_bins, 2.5)
    fine = halved(one_hot(features.fine_textons))
    coarse = one_hot(features.coarse_textons)
    n = [len(fine), len(coarse)]
    by_texture = histogram_distances(torch.cat([fine, coarse]), n, 2.5)
    by_wide_texture = histogram_distances(coarse, n[1:], 5)
    blocks = [
        half_disc_differences(block, radius).square().sum(0).sqrt()
        for block, radius in ((features.first_block, 2.5), (features.last_block, 1.5))
    ]
    return torch.stack(
        [
            halved(lightness).abs(),
            by_color[0].sqrt(),
            (by_color[1] + by_color[2]).sqrt(),
            *(resized(distance.sqrt(), size) for distance in (*by_texture, *by_wide_texture)),
            blocks[0],
            resized(blocks[1], size),
        ]
    )


def memberships(values: Tensor, low: float, high: float, n: int) -> Tensor:
    """Memberships (n, H, W) of values (H, W) in bins centered from `low` to `high`; linear between two, of sum 1."""
    centers = torch.linspace(low, high, n)[:, None, None]
    width = (high - low) / (n - 1)
    return (1 - (values.clamp(low, high) - centers).abs() / width).clamp(min=0)


def one_hot(labels: Tensor) -> Tensor:
    """Labels (H, W) as memberships (N_TEXTONS, H, W)."""
    return F.one_hot(labels, N_TEXTONS).permute(2, 0, 1).float()


def principal_maps(maps: Tensor, n: int) -> Tensor:
    """Maps (C, H, W) projected on their first n principal axes over positions, (n, H, W)."""
    flat = maps.flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    axes = torch.linalg.eigh(flat @ flat.T / flat.shape[1])[1][:, -n:]
    return (axes.T @ flat).reshape(n, *maps.shape[1:])


def clustered(maps: Tensor, k: int, n_iterations: int = 10) -> Tensor:
    """Cluster (H, W) of each position of maps (C, H, W), by k-means on `N_TEXTON_SAMPLES` random positions."""
    flat = maps.flatten(1).T
    drawn = torch.randperm(len(flat), generator=torch.Generator().manual_seed(0))[:N_TEXTON_SAMPLES]
    samples = flat[drawn]
    centers = samples[:k].clone()
    for _ in range(n_iterations):
        nearest = torch.cdist(samples, centers).argmin(1)
        counts = torch.bincount(nearest, minlength=len(centers)).clamp(min=1)
        centers = torch.zeros_like(centers).index_add_(0, nearest, samples) / counts[:, None]
    return torch.cdist(flat, centers).argmin(1).reshape(maps.shape[1:])


def _of_unit_spread(block: Tensor) -> Tensor:
    """Features (C, H, W), scaled so that the standard deviation of a channel is 1 / √C on average."""
    return block / max(float(block.std(dim=(1, 2), correction=0).mean()), 1e-6) / len(block) ** 0.5
