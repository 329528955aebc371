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

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from imatlas import seeding
from imatlas.errors import InputError
from imatlas.images.dataset import images_of
from imatlas.images.pixels import kind_of
from imatlas.images.spec import ImageSpec
from imatlas.models.base import estimator
from imatlas.models.image_estimator import ImageEstimator
from imatlas.models.parts.coded_image import MOST_VALUES, CodedGroup, CodedImages
from imatlas.models.parts.coefficient_coding import Coefficients, Quantizer, decode, encode
from imatlas.models.parts.color_planes import from_planes, groups_of, to_planes
from imatlas.models.parts.originals import originals_of, random_crops, split_crops
from imatlas.models.parts.packed_networks import load_general, pack, round_to_packed, unpack
from imatlas.models.parts.tiles import in_tiles
from imatlas.nn.coefficient_network import CoefficientNetwork, log_step_of
from imatlas.nn.exact import exact_copy
from imatlas.nn.synthesis_filter import SynthesisFilter
from imatlas.system.threads import sharing_cores
from imatlas.training import checkpoints, devices, schedule
from imatlas.training.batches import Batch, Data
from imatlas.training.progress import Callback

CROP, MAX_CROPS, HELD_OUT = 128, 8000, 64
"""Side of the crops that are learned from, in pixels, and how many are cut out and held out at most."""
CROPS_EACH = 2.0
"""Crops for each that would cover the images once."""
STEPS = (4.0, 100.0)
"""Quantization steps that are learned for, where pixels span 255."""
TILE, MARGIN = 512, 32
"""Side of the tiles that are filtered, in pixels, and what they see around."""


class CodecNetworks(nn.Module):
    """The networks of a codec."""

    def __init__(self) -> None:
        super().__init__()
        self.coefficients = CoefficientNetwork()
        self.filter = SynthesisFilter()


@estimator
class ImageCodec(ImageEstimator):
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

    start: Annotated[
        Literal["general", "nothing"],
        Field(description="'general' to continue from what was learned from photographs, 'nothing' to learn all anew"),
    ] = "general"
    budget: Annotated[
        float | str | None,
        Field(description="training time: seconds, or a text such as '90s', '5m', '1h'; None for no limit"),
    ] = "10m"
    batch_size: Annotated[int, Field(ge=1, description="crops per training step")] = 8
    learning_rate: Annotated[float, Field(gt=0, description="highest learning rate of the run")] = 1e-3

    _stops_early = True  # small folders are learned by heart

    @classmethod
    def general(cls) -> ImageCodec:
        """The codec that has learned from photographs, without your images."""
        codec = cls()
        codec.module_ = CodecNetworks()
        load_general(codec.module_)
        codec.spec_ = ImageSpec(CROP, CROP, 3)
        codec.history_ = {name: [] for name in ("step", "images_seen", "seconds", "train", "held_out")}
        codec.decisions_, codec.verdict_, codec.fingerprint_ = [], "too short to tell", ""
        codec.n_steps_, codec.seconds_, codec.interrupted_, codec.n_held_out_, codec.seed_ = 0, 0.0, False, 0, 0
        return codec

    @sharing_cores()
    def fit(  # type: ignore[override]  # crops are held out, never images
        self,
        images: Any,
        y: Any = None,
        *,
        mask: np.ndarray | None = None,
        checkpoint: str | Path | checkpoints.Checkpoint | None = None,
        replay: list[dict[str, Any]] | None = None,
        callback: Callback | None = None,
    ) -> ImageCodec:
        """Learn to predict images like these, and what quantization does to them.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
            uint8, uint16, or float; at least 8 x 8 pixels each, at their own sizes. NaN is filled with the middle of
            the range.
        y : None
            Ignored.
        mask : array (N, H, W) of bool, optional
            True where a pixel is missing.
        checkpoint, replay, callback
            As for every `ImageEstimator`.

        Raises
        ------
        ParameterError, InputError, TrainingError, ArtifactError, KeyboardInterrupt
            As for every `ImageEstimator`.
        """
        self._check_parameters()
        schedule.parse_budget(self.budget)
        seed = self._seed_to_fit(checkpoint)
        originals, spec = originals_of(images, mask, seed, "An ImageCodec")
        data = _crops([pixels[..., : kind_of(spec).colors] for pixels in originals], spec, seed)
        self._fit_data(data, seed, checkpoint=checkpoint, replay=replay, callback=callback)
        self.spec_ = spec
        return self

    # -- coding ------------------------------------------------------------------------------------------------------

    @sharing_cores()
    def compress(self, images: Any, *, quality: float = 50) -> list[bytes]:
        """Images as bytes.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
            Of any size, dtype and number of channels.
        quality : float in [1, 100]
            Each 15 more are half the error, about.

        Returns
        -------
        list of bytes
            One for each image, for `decompress` of the same model.

        Raises
        ------
        InputError
            If a pixel is missing.
        """
        self._check_fitted()
        opened = images_of(images)
        step = step_of(quality)
        return [
            self.coded(pixels[None], opened.spec, step).to_bytes() for part in opened.batches(16) for pixels in part
        ]

    @sharing_cores()
    def decompress(self, data: Sequence[bytes]) -> list[np.ndarray]:
        """The images (H, W, C) that `compress` wrote.

        Raises
        ------
        InputError
            If the data is damaged, or was written by another model.
        """
        self._check_fitted()
        return [pixels for each in data for pixels in self.decoded(CodedImages.from_bytes(each))]

    def coded(self, pixels: np.ndarray, spec: ImageSpec, step: int) -> CodedImages:
        """Images (N, H, W, C) of one size, with a quantization step of 2 to the power of `step` / 8.

        Raises
        ------
        InputError
            If a pixel is missing.
        """
        return self.coded_and_decoded(pixels, spec, step)[0]

    @torch.no_grad()
    def coded_and_decoded(self, pixels: np.ndarray, spec: ImageSpec, step: int) -> tuple[CodedImages, np.ndarray]:
        """As `coded`, and the images that will be decoded."""
        own = _own_spec(pixels, spec)
        values = _values(pixels, own)
        steps = torch.full((len(values), 1, 1, 1), 2.0 ** (step / 8), dtype=torch.float64)
        groups, out = [], np.empty_like(pixels)
        for part in groups_of(kind_of(own).colors, own.has_alpha):
            original = values[:, part]
            data, planes, checksum = encode(self._exact(), to_planes(original) / steps, log_step_of(steps))
            decoded = from_planes(planes * steps.float())
            filtered = self._filtered(decoded, steps)
            better = bool((filtered - original).square().mean() < (decoded - original).square().mean())
            groups.append(CodedGroup(data, checksum, better))
            out[..., part] = _pixels(filtered if better else decoded, own)
        return CodedImages(len(pixels), own, step, tuple(groups)), out

    @torch.no_grad()
    def decoded(self, coded: CodedImages) -> np.ndarray:
        """Images (N, H, W, C) of their dtype.

        Raises
        ------
        InputError
            If the data is damaged, or was written by another model.
        """
        spec, n = coded.spec, coded.n
        steps = torch.full((n, 1, 1, 1), 2.0 ** (coded.step / 8), dtype=torch.float64)
        out = np.empty((n, *spec.shape), spec.dtype)
        parts = groups_of(kind_of(spec).colors, spec.has_alpha)
        for part, group in zip(parts, coded.groups, strict=True):
            shape = (n, part.stop - part.start, spec.height, spec.width)
            planes = decode(self._exact(), group.data, shape, log_step_of(steps), group.checksum)
            values = from_planes(planes * steps.float())
            out[..., part] = _pixels(self._filtered(values, steps) if group.filtered else values, spec)
        return out

    def identity(self) -> bytes:
        """Eight bytes that differ among models that cannot read each other's data."""
        digest = hashlib.blake2b(digest_size=8)
        for parameter in self._exact().parameters():
            digest.update(parameter.numpy().tobytes())
        return digest.digest()

    def packed_weights(self) -> bytes:
        """The networks as bytes for `from_weights`."""
        self._check_fitted()
        return pack(self.module_.cpu())

    @classmethod
    def from_weights(cls, packed: bytes) -> ImageCodec:
        """The codec whose `packed_weights` these are; of none, the general one.

        Raises
        ------
        InputError
            If they are damaged.
        """
        codec = cls.general()
        if packed:
            unpack(codec.module_, packed)
        return codec

    def _exact(self) -> Any:
        """The network that predicts, in exact arithmetic; made once for each network."""
        self._check_fitted()
        made = getattr(self, "_made_exact", None)
        if made is None or made[0] is not self.module_:
            networks: Any = self.module_
            made = self._made_exact = (networks, exact_copy(networks.coefficients))
        return made[1]

    def _filtered(self, values: Tensor, steps: Tensor) -> Tensor:
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

    def _finish(self, data: Data) -> None:
        round_to_packed(self.module_.cpu())

    def _build(self, spec: ImageSpec) -> nn.Module:
        networks = CodecNetworks()
        if self.start == "general" and not next(networks.parameters()).is_meta:  # which a saved model is loaded to
            load_general(networks)
        adapt, n_planes = self.start == "general", 3 if spec.channels == 3 else 1
        networks.coefficients.train_for(n_planes, (spec.height, spec.width), adapt=adapt)
        for name, parameter in networks.filter.named_parameters():
            parameter.requires_grad_(not adapt or name.endswith("bias") or "leave" in name)
        return networks

    def _losses(
        self, module: Any, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        x = batch.x
        draws = torch.rand(4, generator=generator, device=generator.device).tolist()
        x = x.flip(2) if draws[0] < 0.5 else x
        x = x.flip(3) if draws[1] < 0.5 else x
        x = x.transpose(2, 3) if draws[2] < 0.5 else x
        if x.shape[1] == 3 and draws[3] < GRAY:
            x = x[:, 1:2].expand(-1, 3, -1, -1)
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
            full = nn.functional.pad(planes, (0, 0, 0, 0, 0, 3 - n_planes))
            quantizer = Quantizer(Coefficients.of(full))
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


GRAY = 0.06
"""Share of the training steps in which images of three channels are gray."""


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


def _crops(images: list[np.ndarray], spec: ImageSpec, seed: int) -> Data:
    """Crops of images (H, W, C) at places drawn by the seed."""
    side = min(CROP, *(side for pixels in images for side in pixels.shape[:2]))
    area = sum(pixels.shape[0] * pixels.shape[1] for pixels in images)
    n = int(np.clip(CROPS_EACH * area / side**2, 2 * len(images), MAX_CROPS))
    rng = seeding.rng(seed, "crops")
    crops = np.stack(list(random_crops(images, side, n, rng)))
    crop_spec = ImageSpec(side, side, crops.shape[3], spec.dtype, spec.low, spec.high, alpha=False)
    return split_crops(crops, crop_spec, min(HELD_OUT, n // 10), rng)
