"""Probability of a boundary at each pixel of one image, from its color, its texture and features of a network.

After Arbelaez et al. 2011, "Contour Detection and Hierarchical Image Segmentation", section 3: cues compare the two
halves of discs, and a logistic function of a few weights adds them up. We differ in three ways: textons are clusters,
in this one image, of features of the pretrained encoder, and the features themselves are compared too; the logarithms
of cues are added, so that they confirm each other; and the finest cues are gradients at full size, which say where
exactly a boundary is. The eight weights, and eight for images without color, were fitted to training images of BSDS500;
nothing else knows human segmentations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from imatlas.models.parts.half_discs import (
    directional,
    half_disc_differences,
    halved,
    histogram_distances,
    resized,
    structure_tensor,
)
from imatlas.models.parts.published_weights import load_checkpoint
from imatlas.nn.backbones import EfficientNetLite0, fold_checkpoint
from imatlas.nn.blocks import pad_to

CUES = {
    "lightness histogram, 5 px": (0.567, 1.409),
    "color histogram, 5 px": (1.25, 0.0),
    "fine textons, 10 px": (1.618, 2.002),
    "coarse textons, 20 px": (1.939, 1.908),
    "middle block": (-1.941, -2.224),
    "last block": (2.375, 2.679),
    "lightness, 1 px": (0.79, 0.745),
    "first block, 1 px": (1.021, 0.948),
}
"""Weights of the logarithm of each cue in the logit of a boundary: in images with color, and in those without."""
INTERCEPTS = (2.801, 2.579)
LEAST_COLOR = 0.01
"""Standard deviation of a color channel, in units of `ImageFeatures.lab`, below which an image has no color."""
N_FULL_SIZE = 2
"""The last cues are computed at full size, the others at half of it."""
OFFSET = 0.1
"""Added to a cue before its logarithm."""

BLOCKS = {0: 2, 2: 4, 4: 8, 7: 16, 10: 16}
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
    gradients: Tensor
    """Structure tensors (2, 3, H, W) of the lightness and of the first block at full size, as xx, xy, yy."""
    middle_block: Tensor
    """Features (80, ...) at stride 16, of mean squared deviation about 1."""
    last_block: Tensor
    """Features (112, ...) at stride 16, of mean squared deviation about 1."""

    @cached_property
    def is_gray(self) -> bool:
        """Whether the image has no color, or one tint: then other weights hold, as color cannot tell parts apart."""
        return float(self.lab[1:].std(dim=(1, 2), correction=0).max()) < LEAST_COLOR


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
    """Features of an image (H, W, 3) of values in [0, 1], of any size; about 0.2 s at 481 x 321."""
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
        gradients=torch.stack([structure_tensor(lab[:1]), structure_tensor(_of_unit_spread(first_block(rgb)))]),
        middle_block=_of_unit_spread(maps[3]),
        last_block=_of_unit_spread(maps[4]),
    )


def block_maps(rgb: np.ndarray) -> list[Tensor]:
    """Feature maps of an image (H, W, 3) after `BLOCKS`, each (C, ceil(H / stride), ceil(W / stride))."""
    maps = texture_network().maps(padded(network_input(rgb)), tuple(BLOCKS))
    return [
        block[0, :, : -(-rgb.shape[0] // stride), : -(-rgb.shape[1] // stride)].contiguous()
        for block, stride in zip(maps, BLOCKS.values(), strict=True)
    ]


def first_block(rgb: np.ndarray) -> Tensor:
    """Features (16, H, W) of an image (H, W, 3) after the first block, at each pixel: those of the doubled image."""
    maps = texture_network().maps(padded(doubled(network_input(rgb))), (0,))
    return maps[0][0, :, : rgb.shape[0], : rgb.shape[1]]


def network_input(rgb: np.ndarray) -> Tensor:
    """An image (H, W, 3) in [0, 1] as the network takes it: (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None] * 2 - 1


def doubled(x: Tensor) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] at twice the size: the network then sees finer texture."""
    return F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False).clamp(-1, 1)


def padded(x: Tensor) -> Tensor:
    """Images (N, C, H, W), edges repeated until the sides are multiples of `STRIDE_MULTIPLE`."""
    height, width = (side + -side % STRIDE_MULTIPLE for side in x.shape[2:])
    return pad_to(x, height, width)


def boundary_probability(features: ImageFeatures) -> np.ndarray:
    """Probability (H, W) float32 of a boundary at each pixel, in its most likely direction; 0.3 s at 481 x 321."""
    coarse, fine = boundary_cues(features)
    weights = torch.tensor(list(CUES.values()))[:, int(features.is_gray)]
    logits = full_size(torch.tensordot(weights[:-N_FULL_SIZE], coarse, dims=1), fine.shape[2:])
    logits += torch.tensordot(weights[-N_FULL_SIZE:], fine, dims=1)
    return torch.sigmoid(logits.amax(0) + INTERCEPTS[features.is_gray]).numpy()


def full_size(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (C, ceil(H / 2), ceil(W / 2)) at the size (C, H, W)."""
    return F.interpolate(maps[None], scale_factor=2, mode="bilinear", align_corners=False)[0, :, : size[0], : size[1]]


@torch.inference_mode()
def boundary_cues(features: ImageFeatures) -> tuple[Tensor, Tensor]:
    """Logarithms of the cues.

    Returns
    -------
    coarse : Tensor (len(CUES) - N_FULL_SIZE, N_DIRECTIONS, ceil(H / 2), ceil(W / 2))
    fine : Tensor (N_FULL_SIZE, N_DIRECTIONS, H, W)
    """
    colors = features.colors
    size = colors.shape[1:]
    by_color = histogram_distances(colors, features.n_bins, 2.5)
    by_texture = histogram_distances(halved(one_hot(features.fine_textons)), [N_TEXTONS], 2.5)[0]
    by_wide_texture = histogram_distances(one_hot(features.coarse_textons), [N_TEXTONS], 5)[0]
    blocks = [
        half_disc_differences(block, 1.5).square().sum(0).sqrt()
        for block in (features.middle_block, features.last_block)
    ]
    coarse = [
        by_color[0].sqrt(),
        (by_color[1] + by_color[2]).sqrt(),
        *(resized(cue, size) for cue in (by_texture.sqrt(), by_wide_texture.sqrt(), *blocks)),
    ]
    fine = [directional(tensor) for tensor in features.gradients]
    return (torch.stack(coarse) + OFFSET).log_(), (torch.stack(fine) + OFFSET).log_()


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
