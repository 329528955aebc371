"""Image codec learned from images: a wavelet transform, a network that predicts its coefficients, and one that
removes what quantization did.

    image -> planes of color -> wavelet coefficients / step -> integers -> range coder -> bytes
    bytes -> range decoder -> integers -> expected coefficients * step -> image -> filter -> image

An integer takes -log2 of its predicted probability in bits, so the better the prediction, the smaller the file. The
wavelet 9/7 and uniform quantization are those of JPEG 2000 (Taubman & Marcellin 2002). What is learned follows learned
codecs: coefficients are predicted from coarse to fine by a network (Ma et al. 2020, "End-to-end optimized versatile
image compression with wavelet-like transform"), which is trained to the least bits (Ballé et al. 2018, "Variational
image compression with a scale hyperprior"), at all steps at once. The decoder must repeat the encoder's predictions to
the last bit, so they are computed in exact arithmetic (`imatlas.nn.exact`).
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
from imatlas.models.parts.coded_image import MOST_VALUES, CodedGroup, CodedImages, Effort, Filtering
from imatlas.models.parts.coefficient_coding import Coefficients, Quantizer, decode, encode
from imatlas.models.parts.color_planes import from_planes, groups_of, to_planes
from imatlas.models.parts.fitted_filter import applied, fitted
from imatlas.models.parts.quantization import RATE_WEIGHT
from imatlas.models.parts.tiles import in_tiles
from imatlas.nn.coefficient_network import CoefficientNetwork, log_step_of
from imatlas.nn.synthesis_filter import SynthesisFilter
from imatlas.system.threads import sharing_cores
from imatlas.training import devices
from imatlas.training.batches import Batch

STEPS = (4.0, 100.0)
"""Quantization steps that are learned for, where pixels span 255."""
VIEWS: dict[Effort, int] = {"normal": 1, "high": 4}
"""Mirrored views that are filtered."""
TILE, MARGIN = 512, 32
"""Side of the tiles that are filtered, in pixels, and what they see around."""


class CodecNetworks(nn.Module):
    """The networks of a codec."""

    def __init__(self) -> None:
        super().__init__()
        self.coefficients = CoefficientNetwork()
        self.filter = SynthesisFilter()


@estimator
class ImageCodec(CodecBase):
    """Compression of images, learned from images.

    `ImageCodec.general()` has learned from photographs; `fit` adapts a tenth of its weights to yours, so that the model
    takes little room in a file. Images may have any sizes, depths and channels; the same bytes are decoded to the same
    coefficients on every machine.

    Examples
    --------
    >>> import numpy as np
    >>> codec = ImageCodec.general()
    >>> image = np.full((40, 50, 3), 90, np.uint8)
    >>> data = codec.compress(image[None], quality=50)
    >>> codec.decompress(data)[0].shape
    (40, 50, 3)
    """

    is_lossless = False
    _places = {"little": 8, "much": 5}  # noqa: RUF012
    _weights = "codec_weights"

    @classmethod
    def _networks(cls) -> CodecNetworks:
        return CodecNetworks()

    # -- coding ------------------------------------------------------------------------------------------------------

    @sharing_cores()
    def compress(self, images: Any, *, quality: float = 50, effort: Effort = "normal") -> list[bytes]:
        """Images as bytes.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
            Of any size, dtype and number of channels.
        quality : float in [1, 100]
            Each 15 more are half the error, about.
        effort : {"normal", "high"}
            "high" for less error in as many bytes; the images then take longer to decode, too.

        Returns
        -------
        list of bytes
            One for each image, for `decompress` of the same model.

        Raises
        ------
        InputError
            If a pixel is missing.
        """
        return self._coded_each(images, step_of(quality), effort)

    def coded(self, pixels: np.ndarray, spec: ImageSpec, step: int, effort: Effort = "normal") -> CodedImages:
        """Images (N, H, W, C) of one size, with a quantization step of 2 to the power of `step` / 8.

        Raises
        ------
        InputError
            If a pixel is missing.
        """
        return self.coded_and_decoded(pixels, spec, step, effort)[0]

    @torch.no_grad()
    def coded_and_decoded(
        self, pixels: np.ndarray, spec: ImageSpec, step: int, effort: Effort = "normal"
    ) -> tuple[CodedImages, np.ndarray]:
        """As `coded`, and the images that will be decoded."""
        own = _own_spec(pixels, spec)
        values = _values(pixels, own)
        steps = torch.full((len(values), 1, 1, 1), 2.0 ** (step / 8), dtype=torch.float64)
        groups, out = [], np.empty_like(pixels)
        for part in groups_of(kind_of(own).colors, own.has_alpha):
            planes = to_planes(values[:, part])
            data, decoded, checksum = encode(self._exact(), planes / steps, log_step_of(steps))
            filtering, made = self._best_filtering(planes, decoded * steps.float(), steps, VIEWS[effort])
            groups.append(CodedGroup(data, checksum, filtering))
            out[..., part] = _pixels(made, own)
        return CodedImages(len(pixels), own, step, tuple(groups)), out

    def _best_filtering(
        self, original: Tensor, decoded: Tensor, steps: Tensor, n_views: int
    ) -> tuple[Filtering, Tensor]:
        """How decoded planes are filtered best, and the values (N, channels, H, W) that follow."""
        values = from_planes(decoded)
        filtered = self._filtered(values, steps, n_views)
        of_network = to_planes(filtered)
        weights = fitted(decoded, of_network, original)
        tried = [
            (Filtering(), values),
            (Filtering(n_views), filtered),
            (Filtering(n_views, weights), from_planes(applied(weights, decoded, of_network))),
        ]
        target, bit = from_planes(original), RATE_WEIGHT * float(steps[0]) ** 2

        def cost(each: tuple[Filtering, Tensor]) -> float:
            return float((each[1] - target).square().sum()) + bit * 8 * len(each[0].to_bytes())

        return min(tried, key=cost)

    @torch.no_grad()
    def decoded(self, coded: CodedImages) -> np.ndarray:
        """Images (N, H, W, C) of their dtype.

        Raises
        ------
        InputError
            If the data is damaged, or was written by another model.
        """
        spec, n = coded.spec, coded.n
        if coded.step is None:
            raise InputError("These images were written by a LosslessCodec; decompress them with one.")
        steps = torch.full((n, 1, 1, 1), 2.0 ** (coded.step / 8), dtype=torch.float64)
        out = np.empty((n, *spec.shape), spec.dtype)
        parts = groups_of(kind_of(spec).colors, spec.has_alpha)
        for part, group in zip(parts, coded.groups, strict=True):
            shape = (n, part.stop - part.start, spec.height, spec.width)
            planes = decode(self._exact(), group.data, shape, log_step_of(steps), group.checksum) * steps.float()
            values, filtering = from_planes(planes), group.filtering
            if filtering.n_views:
                values = self._filtered(values, steps, filtering.n_views)
            if filtering.weights:
                values = from_planes(applied(filtering.weights, planes, to_planes(values)))
            out[..., part] = _pixels(values, spec)
        return out

    def _filtered(self, values: Tensor, steps: Tensor, n_views: int) -> Tensor:
        """Decoded values (N, 1 or 3, H, W) without what quantization did to them: the mean over mirrored views."""
        axes = [(), (2,), (3,), (2, 3)][:n_views]
        return torch.stack([self._filtered_once(values.flip(each), steps).flip(each) for each in axes]).mean(0)

    def _filtered_once(self, values: Tensor, steps: Tensor) -> Tensor:
        """Decoded values (N, 1 or 3, H, W) without what quantization did to them.

        What the network adds is small, so bf16 is exact enough; but a machine without it may differ by 1 of 255.
        """
        networks, device = self._ready_module(), devices.pick_device(self.device)
        channels, n = values.shape[1], len(values)
        step = steps[:1].float().to(device)

        def run(tile: np.ndarray) -> np.ndarray:
            x = torch.from_numpy(np.ascontiguousarray(tile)).to(device).unflatten(2, (n, channels)).permute(2, 3, 0, 1)
            with devices.autocast(device, "bf16" if devices.has_bf16(device) else "fp32"):
                made = networks.filter(x.expand(-1, 3, -1, -1), step.expand(n, -1, -1, -1))
            made = made if channels == 3 else made.mean(1, keepdim=True)
            return made.permute(2, 3, 0, 1).flatten(2).cpu().numpy()

        stacked = values.permute(2, 3, 0, 1).flatten(2).numpy()
        filtered = torch.from_numpy(in_tiles(run, stacked, TILE, MARGIN, 2))
        return filtered.unflatten(2, (n, channels)).permute(2, 3, 0, 1)

    # -- the networks ------------------------------------------------------------------------------------------------

    def _build(self, spec: ImageSpec) -> nn.Module:
        networks: Any = super()._build(spec)
        for name, parameter in networks.filter.named_parameters():
            parameter.requires_grad_(self.start == "nothing" or name.endswith("bias") or "leave" in name)
        return networks

    def _losses(
        self, module: Any, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        x = self._varied(batch.x, generator)
        low, high = np.log(STEPS)
        step = torch.exp(low + (high - low) * torch.rand(len(x), 1, 1, 1, generator=generator, device=generator.device))
        rate, error = self._rate_and_error(module, x, step.to(x.device))
        yield "adam", rate + error, {"rate": rate.detach(), "error": error.detach()}

    def _held_out_loss(self, module: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        low, high = np.log(STEPS)
        step = torch.exp(torch.linspace(float(low), float(high), len(batch.x), device=batch.x.device))
        return sum(self._rate_and_error(module, batch.x, step.view(-1, 1, 1, 1)))  # type: ignore[return-value]

    def _rate_and_error(self, module: CodecNetworks, x: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Bits a pixel, weighted by the step so that all steps count alike; and the squared error after the filter,
        relative to that before."""
        with torch.autocast(x.device.type, enabled=False):
            values = 127.5 * (x.float() + 1)
            if values.shape[1] != 3:
                step = step.repeat_interleave(values.shape[1], 0)
                values = values.flatten(0, 1)[:, None]
            planes = to_planes(values) / step
            n_planes = planes.shape[1]
            quantizer = Quantizer(Coefficients.of(planes))
        module.coefficients.walk(
            quantizer.decoded.coarsest, log_step_of(step), (x.shape[2], x.shape[3]), n_planes, quantizer
        )
        with torch.autocast(x.device.type, enabled=False):
            decoded = from_planes(quantizer.decoded.image()[:, :n_planes] * step)
            before = (decoded - values).square().mean((1, 2, 3))
        filtered = module.filter(decoded.expand(-1, 3, -1, -1), step)
        after = (filtered - values).square().mean((1, 2, 3))
        bits = quantizer.bits / (x.shape[2] * x.shape[3])
        return (bits * step[:, 0, 0, 0] / 16).mean(), (after / before.clamp_min(1e-6)).mean()


def step_of(quality: float) -> int:
    """The number of the quantization step of a quality from 1 to 100."""
    return round(8 + 0.55 * (100 - float(np.clip(quality, 1, 100))))


def _own_spec(pixels: np.ndarray, spec: ImageSpec) -> ImageSpec:
    """The spec of images (N, H, W, C): of their own size, and of uint16 and float their own range.

    Raises
    ------
    InputError
        If a pixel is missing, or there are too many.
    """
    if pixels.size > MOST_VALUES:
        raise InputError(
            f"At most {MOST_VALUES:,} values can be compressed together. Got {len(pixels)} x {spec.channels} channels "
            f"of {pixels.shape[1]} x {pixels.shape[2]} pixels instead; cut the image into parts, or reduce it."
        )
    low, high = 0.0, 255.0
    if spec.dtype != "uint8":
        low, high = float(pixels.min()), float(pixels.max())
        if not np.isfinite(high - low):
            raise InputError("Images with missing pixels (NaN) cannot be compressed; fill them first: imatlas inpaint.")
        high = high if high > low else low + 1
    return ImageSpec(pixels.shape[1], pixels.shape[2], pixels.shape[3], spec.dtype, low, high, spec.has_alpha)


def _values(pixels: np.ndarray, spec: ImageSpec) -> Tensor:
    """Values (N, C, H, W) float64 in the range 0 to 255."""
    return torch.from_numpy(
        (pixels.astype(np.float64).transpose(0, 3, 1, 2) - spec.low) * (255 / (spec.high - spec.low))
    )


def _pixels(values: Tensor, spec: ImageSpec) -> np.ndarray:
    """The inverse of `_values`, (N, H, W, C)."""
    made = values.clamp(0, 255).permute(0, 2, 3, 1).double().numpy() * ((spec.high - spec.low) / 255) + spec.low
    return (np.rint(made) if spec.dtype != "float32" else made).astype(spec.dtype)
