"""SelfSupervisedEncoder: images to features by a network that learns from the images themselves, without labels.

Two views of each image, cut, turned and lit a little differently, must be told from the views of all other images by
their nearness: Chen, Kornblith, Norouzi, Hinton 2020, "A simple framework for contrastive learning of visual
representations" (SimCLR). Or they must come out alike while the features of different images stay spread out: Bardes,
Ponce, LeCun 2022, "VICReg: Variance-invariance-covariance regularization for self-supervised learning". Neither can
collapse: features that do not vary cost more than views that differ. In minutes on a processor the first groups images
a little better (`python -m benchmarks explore clusters`).
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
from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_pixels
from imatlas.models.base import estimator
from imatlas.models.image_estimator import ImageEstimator, Size
from imatlas.models.learned import SCALAR, TEXT, State, Value
from imatlas.models.onnx import Network, images_in, random_images
from imatlas.nn.losses import contrastive, vicreg
from imatlas.nn.pooled_encoder import PooledEncoder
from imatlas.nn.views import N_INSPECTED, Views, views_for
from imatlas.training.batches import Batch, Data, make_batch

WIDEST: dict[str, int] = {"small": 64, "medium": 128, "large": 256}
"""Features by the size of the network."""

SAME, SPREAD, VARIETY = 25.0, 25.0, 1.0
"""Weights of the parts of the loss, as in the paper (section 4.2)."""


class SelfSupervisedModule(nn.Module):
    """The network that is kept, and the projector whose outputs are compared while it learns."""

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
    """Features in which images of one kind lie together, learned from the images alone.

    What a view may change is chosen for the set (`views_`, with the reason as "why"): images without an up are
    turned by any angle, things on a plain ground are seen whole, of scenes parts are seen. `preview` shows it.

    An image becomes 128 numbers >= 0 (64 for `size="small"`, 256 for "large"): the channels of the last layer, each
    averaged over the image. Missing pixels are seen as mid-gray.

    Attributes
    ----------
    views_ : dict
        How the views differ from the images: the parameters of `imatlas.nn.views.Views`, and in words as "why".

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
        Field(description="what it learns by: telling images apart, or VICReg's terms"),
    ] = "simclr"
    rotation_invariant: Annotated[
        bool | None, Field(description="views are turned by any angle; None: where turned images look like others")
    ] = None
    batch_size: Annotated[int, Field(ge=2, description="images in a training step")] = 256
    _state: ClassVar[State] = {"views_": Value(dict[TEXT, SCALAR | list[SCALAR] | tuple[SCALAR, ...]])}

    def preview(self, images: Any, *, n_images: int = 8, n_views: int = 7) -> tuple[np.ndarray, str]:
        """What the network would learn from: images, and views of each.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
        n_images, n_views : int

        Returns
        -------
        pictures : array (n_images, 1 + n_views, H, W, C) of the dtype of the images
            Each image, and its views.
        why : str
            What the views change, and why.
        """
        self._check_parameters()
        pixels, spec = self._load(images, None)
        seed = self._seed()
        views = self._views(pixels, spec, seed)
        rows = np.sort(seeding.rng(seed, "preview").permutation(len(pixels))[:n_images])
        x = make_batch(pixels[rows], spec).x
        generator = seeding.generator(seed, "preview")
        shown = [x, *[views(x, generator) for _ in range(n_views)]]
        return np.stack([to_pixels(part, spec) for part in shown], axis=1), views.why

    def transform(self, images: Any, *, mask: np.ndarray | None = None) -> np.ndarray:
        """Features of images (N, n_features) float32, each >= 0.

        Raises
        ------
        InputError
            If an array differs in shape or depth from what was fitted.
        """
        pixels = self._load_like_fitted(images, mask)
        return self._encode_chunks(lambda module, batch: module.encoder(batch.x), pixels)

    def _prepare(self, data: Data, seed: int, **options: Any) -> tuple[Data, dict[str, Any]]:
        self.views_ = asdict(self._views(data.pixels[data.drawn(4096, seed, "kind")], data.spec, seed))
        return data, {}

    def _views(self, pixels: np.ndarray, spec: ImageSpec, seed: int) -> Views:
        rows = np.sort(seeding.rng(seed, "kind").permutation(len(pixels))[:N_INSPECTED])
        return views_for(make_batch(pixels[rows], spec).x, seed, rotate=self.rotation_invariant)

    def _build(self, spec: ImageSpec) -> SelfSupervisedModule:
        return SelfSupervisedModule(spec.shape, WIDEST[self.size])

    def _losses(
        self, module: Any, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        view = Views(**self.views_)
        seen = torch.cat([view(batch.x, generator), view(batch.x, generator)])
        a, b = module.projector(module.encoder(seen)).float().chunk(2)
        if self.method == "simclr":
            yield "adam", contrastive(a, b), {}
            return
        same, spread, variety = vicreg(a, b)
        loss = SAME * same + SPREAD * spread + VARIETY * variety
        yield "adam", loss, {"same": same, "spread": spread, "variety": variety}

    def _networks(self) -> dict[str, Network]:
        module: Any = self.module_
        contract = {"input images": images_in(self.spec_), "output features": f"float32 (N, {self._n_features_out})"}
        network = Network(
            module.encoder, lambda m, x: m(x), {"images": random_images(self.spec_)}, "features", contract
        )
        return {"encoder": network}

    @property
    def _n_features_out(self) -> int:
        return WIDEST[self.size]
