"""Features from the layers of a network, averaged over views of each image, standardized and projected."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from imatlas.nn.backbones import LAYERS, N_FEATURES

WIDTHS = (*LAYERS.values(), N_FEATURES)
"""Number of features of each of the last five layers."""

ZOOMS = (1.0, 0.5, 0.75)
"""Share of the height and width of each central crop, in the order in which `n_crops` adds them."""

MIN_DEVIATION = 1e-3
"""Standard deviation, relative to the first component's, below which a component is rounding error."""

EPSILON = 1e-12

View = tuple[float, int]
"""(zoom, number of quarter turns)."""


def views_of(n_crops: int, rotation_invariant: bool) -> list[View]:
    """The views of an image: its central crops, each in all quarter turns if asked."""
    return [(zoom, quarter) for zoom in ZOOMS[:n_crops] for quarter in range(4 if rotation_invariant else 1)]


@dataclass(frozen=True)
class LayerFeatures:
    """Which layers and views of an image become its features; parameters as of `PretrainedEncoder`.

    Attributes
    ----------
    layers : {'last', 'many', 'both'}
    views : int
    rotation_invariant : bool
    normalize : bool
    side : int
        Input height and width of the network.
    """

    layers: Literal["last", "many", "both"]
    views: int
    rotation_invariant: bool
    normalize: bool
    side: int

    def __call__(self, module: Any, x: Tensor, known: dict[View, list[Tensor]] | None = None) -> Tensor:
        """Features (N, n_features) of images (N, 3, H, W) in [-1, 1]: means over views.

        `known` holds the layers of views that were computed before for these images, and gets the new ones.
        """
        known = {} if known is None else known
        views = views_of(self.views, self.rotation_invariant)
        for zoom, quarter in views:
            if (zoom, quarter) not in known:
                view = torch.rot90(zoomed(x, zoom, self.side), quarter, (2, 3))
                known[zoom, quarter] = module.layers(view.contiguous(memory_format=torch.channels_last))
        layers: list[Tensor] = []
        if self.layers != "many":
            layers += self._mean([known[view][-1:] for view in views])
        if self.layers != "last":
            layers += self._mean([known[view] for view in views if self.layers == "many" or view[0] == 1])
        return torch.cat(layers, dim=1)

    def _mean(self, views: list[list[Tensor]]) -> list[Tensor]:
        """The mean of each layer (N, n) over views."""
        if self.normalize:
            views = [[unit_length(layer) for layer in layers] for layers in views]
        if len(views) == 1:
            return views[0]
        total = [reduce(torch.add, layer) for layer in zip(*views, strict=True)]
        return [unit_length(layer) if self.normalize else layer / len(views) for layer in total]

    def spread(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (n_features,) for `standardized`; for both kinds of layers of equal weight."""
        deviation = features.std(0)
        if self.layers == "both":  # the last layer keeps its shape, and the weight of all others together
            total = np.square(deviation[:N_FEATURES]).sum()
            deviation[:N_FEATURES] = np.sqrt(total / (len(WIDTHS) if self.normalize else sum(WIDTHS)))
        return features.mean(0), np.maximum(deviation, 1e-6)

    def standardized(self, features: np.ndarray, center: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        """Features (N, n_features) with mean 0 and deviation 1, each of the last five layers scaled to length 1."""
        scaled = (features - center) / deviation
        if self.normalize:
            for layer in np.split(scaled[:, -sum(WIDTHS) :], np.cumsum(WIDTHS)[:-1], axis=1):
                layer /= np.maximum(np.linalg.norm(layer, axis=1, keepdims=True), EPSILON)
        return scaled

    def standardized_tensor(self, features: Tensor, center: Tensor, deviation: Tensor) -> Tensor:
        """`standardized` as torch operations, for export."""
        scaled = (features - center) / deviation
        if not self.normalize:
            return scaled
        first, many = scaled[:, : -sum(WIDTHS)], scaled[:, -sum(WIDTHS) :]
        return torch.cat([first, *(unit_length(layer) for layer in many.split(WIDTHS, dim=1))], dim=1)


def whitened_components(
    features: np.ndarray, n_components: int, whiten: float, seed: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Principal axes of features (n, n_features), scaled so that deviations are equalized to the degree `whiten`.

    Returns
    -------
    mean : ndarray (n_features,) float32
    components : ndarray (n_axes, n_features) float32
        At most n - 1 of them, the rank of the centered features, and none whose variance is rounding error.
    explained_variance_ratio : float
    """
    rank = max(1, min(len(features) - 1, features.shape[1]))
    if len(features) == 1:
        features = np.repeat(features, 2, axis=0)
    with np.errstate(invalid="ignore"):  # the explained share of no variance
        pca = PCA(min(n_components, rank), svd_solver="randomized", random_state=seed).fit(features)
    deviations = np.sqrt(np.maximum(pca.explained_variance_, EPSILON))
    n = max(1, int((deviations > MIN_DEVIATION * deviations[0]).sum()))
    lengths = (deviations[0] / deviations[:n]) ** whiten  # the first axis keeps its length
    components = (pca.components_[:n] * lengths[:, None]).astype(np.float32)
    ratio = float(np.nan_to_num(pca.explained_variance_ratio_[:n], nan=1.0 / n).sum())
    return pca.mean_.astype(np.float32), components, ratio


def zoomed(x: Tensor, zoom: float, side: int) -> Tensor:
    """The central `zoom` of the height and width of images (N, 3, H, W), resized to `side` x `side`."""
    height, width = x.shape[2:]
    if zoom < 1:
        h, w = round(zoom * height), round(zoom * width)
        top, left = (height - h) // 2, (width - w) // 2
        x = x[:, :, top : top + h, left : left + w]
    if x.shape[2:] != (side, side):
        x = torch.nn.functional.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return x


def unit_length(features: Tensor) -> Tensor:
    return features / torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=EPSILON)
