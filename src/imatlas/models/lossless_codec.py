"""Lossless image codec learned from images: a network predicts each pixel from those that are already known.

    image -> integers -> planes of color -> every second pixel, and what the others differ by from their neighbors
    -> range coder -> bytes

Pixels are known from coarse to fine: from every second one of a grid, the others are predicted, as mixtures of logistic
distributions (Reed et al. 2017, "Parallel multiscale autoregressive density estimation"; Cao, Wu & Krähenbühl 2020,
"Lossless image compression through super-resolution"). The network is that of `ImageCodec`, and computes exactly, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imatlas.errors import InputError
from imatlas.images.pixels import kind_of
from imatlas.images.spec import ImageSpec
from imatlas.models.base import estimator
from imatlas.models.parts.codec_base import CodecBase
from imatlas.models.parts.coded_image import CodedGroup, CodedImages, Effort
from imatlas.models.parts.coefficient_coding import Coefficients
from imatlas.models.parts.color_planes import from_integer_planes, groups_of, to_integer_planes
from imatlas.models.parts.integer_scales import from_integers, scale_of, to_integers
from imatlas.models.parts.lossless_coding import NO_STEP, Rate, read_exactly, write_exactly
from imatlas.nn.coefficient_network import CoefficientNetwork
from imatlas.nn.wavelet import INTERPOLATING
from imatlas.system.threads import sharing_cores
from imatlas.training.batches import Batch, Data

WIDTHS, HIDDEN = (32, 32, 32), 32
MIDDLE = 128
"""Is subtracted from all integers: a plane of uint8 is 0 in the middle of its range."""


class LosslessNetworks(nn.Module):
    """The network of a lossless codec."""

    def __init__(self) -> None:
        super().__init__()
        self.coefficients = CoefficientNetwork(WIDTHS, HIDDEN, lossless=True)


@estimator
class LosslessCodec(CodecBase):
    """Compression of images without loss, learned from images.

    `LosslessCodec.general()` has learned from photographs; `fit` adapts it to yours. Images may have any sizes, depths
    and channels; every value comes back as it was, NaN too, on every machine.

    Examples
    --------
    >>> import numpy as np
    >>> codec = LosslessCodec.general()
    >>> image = np.arange(2000, dtype=np.uint8).reshape(40, 50, 1)
    >>> bool((codec.decompress(codec.compress(image[None]))[0] == image).all())
    True
    """

    is_lossless = True
    _places = {"little": 8, "much": 7}  # noqa: RUF012
    _weights = "lossless_weights"

    @classmethod
    def _networks(cls) -> LosslessNetworks:
        return LosslessNetworks()

    @sharing_cores()
    def compress(self, images: Any) -> list[bytes]:
        """Images as bytes.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
            Of any size, dtype and number of channels.

        Returns
        -------
        list of bytes
            One for each image, for `decompress` of the same model.
        """
        return self._coded_each(images, 0)

    def coded_and_decoded(
        self, pixels: np.ndarray, spec: ImageSpec, step: int, effort: Effort = "normal"
    ) -> tuple[CodedImages, np.ndarray]:
        """Images (N, H, W, C) of one size, coded, and as they will be decoded: the same, at any step and effort."""
        n, height, width, channels = pixels.shape
        own = ImageSpec(height, width, channels, spec.dtype, spec.low, spec.high, spec.has_alpha)
        groups = []
        for part in groups_of(kind_of(own).colors, own.has_alpha):
            scale = scale_of(pixels[..., part])
            planes = to_integer_planes(_tensor(to_integers(pixels[..., part], scale)) - MIDDLE)
            data, checksum = write_exactly(self._exact(), planes, scale.n_low_bits)
            groups.append(CodedGroup(data, checksum, scale=scale))
        return CodedImages(n, own, None, tuple(groups)), pixels

    def decoded(self, coded: CodedImages) -> np.ndarray:
        """Images (N, H, W, C) of their dtype.

        Raises
        ------
        InputError
            If the data is damaged, or was written by another model.
        """
        spec, n = coded.spec, coded.n
        if coded.step is not None:
            raise InputError("These images were written by an ImageCodec; decompress them with one.")
        out = np.empty((n, *spec.shape), spec.dtype)
        parts = groups_of(kind_of(spec).colors, spec.has_alpha)
        for part, group in zip(parts, coded.groups, strict=True):
            shape = (n, part.stop - part.start, spec.height, spec.width)
            planes = read_exactly(self._exact(), group.data, shape, group.scale.n_low_bits, group.checksum)
            integers = (from_integer_planes(planes) + MIDDLE).numpy().astype(np.int64).transpose(0, 2, 3, 1)
            out[..., part] = from_integers(integers, group.scale, spec.dtype)
        return out

    # -- the network -------------------------------------------------------------------------------------------------

    def _crops(self, images: list[np.ndarray], spec: ImageSpec, seed: int) -> Data:
        """As of every codec; of uint16 and float32, as the integers that are predicted."""
        self._largest = 255 if spec.dtype == "uint8" else 2**16 - 1
        if spec.dtype != "uint8":
            images = [_predicted_part(pixels) for pixels in images]
            spec = ImageSpec(spec.height, spec.width, spec.channels, "uint16", 0, 2**16 - 1, spec.has_alpha)
        return super()._crops(images, spec, seed)

    def _losses(
        self, module: Any, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        yield "adam", self._bits(module, self._varied(batch.x, generator)), {}

    def _held_out_loss(self, module: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        return self._bits(module, batch.x)

    def _bits(self, module: LosslessNetworks, x: Tensor) -> Tensor:
        """Bits of a value, on average."""
        with torch.autocast(x.device.type, enabled=False):
            values = torch.round((x.float() + 1) * (self._largest / 2)) - MIDDLE
            if values.shape[1] != 3:
                values = values.flatten(0, 1)[:, None]
            planes = to_integer_planes(values)
            rate = Rate(Coefficients.of(planes, INTERPOLATING))
        size = (x.shape[2], x.shape[3])
        module.coefficients.walk(rate.coefficients.coarsest, NO_STEP, size, planes.shape[1], rate)
        return rate.bits.mean() / planes[0].numel()  # type: ignore[union-attr]


def _predicted_part(pixels: np.ndarray) -> np.ndarray:
    """The integers (H, W, C) of an image without the bits that are written as they are, at most 2 ** 16 - 1."""
    pixels = np.nan_to_num(pixels)
    scale = scale_of(pixels)
    integers = to_integers(pixels, scale)
    return (integers >> scale.n_low_bits).clip(0, 2**16 - 1).astype(np.uint16)


def _tensor(integers: np.ndarray) -> Tensor:
    """Images (N, H, W, C) as (N, C, H, W) of float64."""
    return torch.from_numpy(integers.transpose(0, 3, 1, 2).astype(np.float64))
