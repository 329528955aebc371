"""What models between images and short vectors share: the way there, the way back, and how well both fit."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from imatlas.batches import Batch
from imatlas.errors import InputError
from imatlas.export import Network, OnnxMixin, images_in, images_out, random_images, random_vectors
from imatlas.images.spec import ImageSpec
from imatlas.models.base import estimator
from imatlas.models.network import ImageEstimator


@estimator
class LatentModel(OnnxMixin, ImageEstimator):
    """The base of models that turn an image into `latent_dim` numbers and back.

    A model declares the field `latent_dim` and gives, besides what `ImageEstimator` asks for, `_encode(module, batch)`,
    `_decode(module, z)` and `_score(module, batch)`.
    """

    latent_dim = 0  # every model declares the field, with its own default

    def _encode(self, module: Any, batch: Batch) -> Tensor:
        """The vectors (N, latent_dim) of a batch."""
        raise NotImplementedError

    def _decode(self, module: Any, z: Tensor) -> Tensor:
        """The images (N, C, H, W), in [-1, 1], of vectors (N, latent_dim)."""
        raise NotImplementedError

    def _score(self, module: Any, batch: Batch) -> Tensor:
        """How usual each image of a batch is, (N,)."""
        raise NotImplementedError

    def transform(self, images: Any, *, mask: np.ndarray | None = None) -> np.ndarray:
        """The vectors of images like those of `fit`.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
        mask : array (N, H, W) of bool, optional
            True where a pixel is missing.

        Returns
        -------
        array (N, latent_dim) float32
        """
        return self._encode_chunks(self._encode, self._load_like_fitted(images, mask))

    def _vectors(self, pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
        """The vectors (N, latent_dim) of pixels (N, H, W, C) that are loaded already.

        Raises
        ------
        InputError
            If they are not of the kind that the model was fitted on.
        """
        self._check_fitted()
        if (spec.shape, spec.dtype) != (self.spec_.shape, self.spec_.dtype):
            raise InputError(
                f"This {type(self).__name__} learnt from images of shape {self.spec_.shape}, {self.spec_.dtype}. "
                f"Got {spec.shape}, {spec.dtype} instead; give images like those."
            )
        return self._encode_chunks(self._encode, pixels) if len(pixels) else np.zeros((0, self.latent_dim), np.float32)

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """The images of vectors.

        Parameters
        ----------
        Z : array (N, latent_dim)

        Returns
        -------
        array (N, H, W, C) of the dtype that was fitted
        """
        return self._decode_chunks(self._decode, self._check_codes(Z, self.latent_dim))

    def score_samples(self, images: Any, *, mask: np.ndarray | None = None) -> np.ndarray:
        """How usual each image is, by the measure that the model names.

        Returns
        -------
        array (N,) float32; higher is more like the images that were learnt
        """
        return self._encode_chunks(self._score, self._load_like_fitted(images, mask))

    def _exported(self) -> dict[str, Network]:
        """Encoder and decoder, as `transform` and `inverse_transform` use them."""
        z = f"float32 (N, {self.latent_dim}): "
        encoder = Network(
            self.module_,
            lambda module, x: self._encode(module, Batch(x)),
            {"images": random_images(self.spec_)},
            "z",
            {"input images": images_in(self.spec_), "output z": z + "the vectors that transform gives"},
        )
        decoder = Network(
            self.module_,
            self._decode,
            {"z": random_vectors(self.latent_dim)},
            "images",
            {"input z": z + "vectors such as transform gives", "output images": images_out(self.spec_)},
        )
        return {"encoder": encoder, "decoder": decoder}
