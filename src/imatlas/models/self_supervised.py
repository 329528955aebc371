"""SelfSupervisedEncoder: image features learned without labels, from random views of each image.

`simclr`: two views of an image (crops, rotations, lighting) must be more similar to each other than to views of all
other images: Chen, Kornblith, Norouzi, Hinton 2020, "A simple framework for contrastive learning of visual
representations". `vicreg`: they must have equal features, while the features vary over images and are decorrelated:
Bardes, Ponce, LeCun 2022, "VICReg: Variance-invariance-covariance regularization for self-supervised learning".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from torch import Tensor, nn

from imatlas import seeding
from imatlas.images.dataset import load_masked
from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_pixels
from imatlas.models.base import estimator
from imatlas.models.image_estimator import ImageEstimator, Size
from imatlas.models.learned_attributes import SCALAR, TEXT, State, Value
from imatlas.models.onnx import Network, images_in, random_images
from imatlas.nn.losses import nt_xent, vicreg
from imatlas.nn.pooled_encoder import PooledEncoder
from imatlas.nn.views import N_INSPECTED, Views, views_for
from imatlas.system.processes import whole_batch
from imatlas.training.batches import Batch, Data, make_batch

N_FEATURES: dict[str, int] = {"small": 64, "medium": 128, "large": 256}
"""Number of features by size of the network."""

LAMBDA, MU, NU = 25.0, 25.0, 1.0
"""Weights of invariance, variance and covariance in VICReg (section 4.2)."""


class SelfSupervisedModule(nn.Module):
    """The encoder, and the projector on whose outputs the loss is computed in training."""

    def __init__(self, shape: tuple[int, int, int], n_features: int) -> None:
        super().__init__()
        self.encoder = PooledEncoder(shape, n_features)
        self.projector = nn.Sequential(
            nn.Linear(n_features, 4 * n_features, bias=False),
            nn.BatchNorm1d(4 * n_features),
            nn.ReLU(),
            nn.Linear(4 * n_features, 2 * n_features),
        )


@estimator
class SelfSupervisedEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ImageEstimator):
    """Image encoder trained without labels, by contrastive learning or VICReg.

    The views are chosen for the set (`views_`): images without a preferred orientation are rotated by any angle,
    objects on a plain background stay whole, scenes are cropped. `preview` shows them.

    The features are 128 numbers >= 0 (64 for `size="small"`, 256 for "large"): the channels of the last layer, averaged
    over the image. Missing pixels are mid-gray.

    Attributes
    ----------
    views_ : dict
        Parameters of `imatlas.nn.views.Views`, with the reason in words as "why".

    Examples
    --------
    >>> from imatlas import SelfSupervisedEncoder
    >>> from imatlas.testing import synthetic_images
    >>> images = synthetic_images(64, size=16, random_state=0)
    >>> model = SelfSupervisedEncoder(size="small", max_steps=5, progress=False).fit(images)
    >>> model.transform(images).shape
    (64, 64)
    """

    size: Annotated[Size, Field(description="size of the network: 'small', 'medium' or 'large'")] = "medium"
    method: Annotated[
        Literal["simclr", "vicreg"],
        Field(description="loss: contrastive (SimCLR), or VICReg"),
    ] = "simclr"
    rotation_invariant: Annotated[
        bool | None, Field(description="rotate views by any angle; None: if the images have no preferred orientation")
    ] = None
    batch_size: Annotated[int, Field(ge=2, description="images per training step")] = 256
    _state: ClassVar[State] = {"views_": Value(dict[TEXT, SCALAR | list[SCALAR] | tuple[SCALAR, ...]])}

    def preview(self, images: Any, *, n_images: int = 8, n_views: int = 7) -> tuple[np.ndarray, str]:
        """Images, and views of each as the network would be trained on.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
        n_images, n_views : int

        Returns
        -------
        pictures : array (n_images, 1 + n_views, H, W, C) of the dtype of the images
            Each image and its views.
        why : str
            How the views differ from the images, and why.
        """
        self._check_parameters()
        pixels, spec = load_masked(images, None)
        seed = self._seed()
        views = self._views(pixels, spec, seed)
        rows = np.sort(seeding.rng(seed, "preview").permutation(len(pixels))[:n_images])
        x = make_batch(pixels[rows], spec).x
        generator = seeding.generator(seed, "preview")
        columns = [x, *[views(x, generator) for _ in range(n_views)]]
        return np.stack([to_pixels(column, spec) for column in columns], axis=1), views.why

    def transform(self, images: Any, *, mask: np.ndarray | None = None) -> np.ndarray:
        """Features of images (N, n_features) float32, each >= 0.

        Raises
        ------
        InputError
            If an array differs in shape or depth from the images of `fit`.
        """
        pixels = self._load_like_fitted(images, mask)
        return self._encode_chunks(lambda module, batch: module.encoder(batch.x), pixels)

    def _prepare(self, data: Data, seed: int, **options: Any) -> tuple[Data, dict[str, Any]]:
        self.views_ = asdict(self._views(data.pixels[data.draw_rows(4096, seed, "kind")], data.spec, seed))
        return data, {}

    def _views(self, pixels: np.ndarray, spec: ImageSpec, seed: int) -> Views:
        rows = np.sort(seeding.rng(seed, "kind").permutation(len(pixels))[:N_INSPECTED])
        return views_for(make_batch(pixels[rows], spec).x, seed, rotate=self.rotation_invariant)

    def _build(self, spec: ImageSpec) -> SelfSupervisedModule:
        return SelfSupervisedModule(spec.shape, N_FEATURES[self.size])

    def _losses(
        self, module: Any, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        view = Views(**self.views_)
        x = torch.cat([view(batch.x, generator), view(batch.x, generator)])
        features = torch.cat([whole_batch(each) for each in module.encoder(x).chunk(2)])
        a, b = module.projector(features).float().chunk(2)
        if self.method == "simclr":
            yield "adam", nt_xent(a, b), {}
            return
        invariance, variance, covariance = vicreg(a, b)
        loss = LAMBDA * invariance + MU * variance + NU * covariance
        yield "adam", loss, {"invariance": invariance, "variance": variance, "covariance": covariance}

    def _networks(self) -> dict[str, Network]:
        module: Any = self.module_
        contract = {"input images": images_in(self.spec_), "output features": f"float32 (N, {self._n_features_out})"}
        network = Network(
            module.encoder, lambda m, x: m(x), {"images": random_images(self.spec_)}, "features", contract
        )
        return {"encoder": network}

    @property
    def _n_features_out(self) -> int:
        return N_FEATURES[self.size]
