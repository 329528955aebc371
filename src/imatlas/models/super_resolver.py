"""Super-resolution learned from the scales of the images themselves.

An image and its downscaled version are an example of what is lost; so the images of a folder are all that is needed:

    image -> downscaled -> bicubic interpolation + details by a small network  ~  image        (training)
    image -> bicubic interpolation + details -> nearest image that scales down to the input    (`restore`)

Zontak and Irani 2011, "Internal statistics of a single natural image", found that small parts of natural images recur
across scales; Shocher et al. 2018, "Zero-shot super-resolution using deep internal learning", train on one image. The
network is `imatlas.nn.upscaling_network`. The last step is the back-projection of Irani and Peleg 1991, "Improving
resolution by image registration", which for a known kernel takes one step (`imatlas.models.parts.scaling`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from imatlas import seeding
from imatlas.errors import InputError
from imatlas.images.dataset import Images, images_of
from imatlas.images.pixels import LUMA
from imatlas.images.spec import ImageSpec
from imatlas.models.base import estimator
from imatlas.models.image_estimator import MIN_SIZE, ImageEstimator
from imatlas.models.learned_attributes import FINITE, State, Value
from imatlas.models.parts.scaling import Scaling
from imatlas.models.parts.tiles import in_tiles
from imatlas.models.restorer import check_like_fitted, restore_each
from imatlas.nn.upscaling_network import UpscalingNetwork
from imatlas.system.threads import sharing_cores
from imatlas.training import checkpoints, devices, schedule
from imatlas.training.batches import Batch, Data
from imatlas.training.progress import Callback

CROP, MAX_CROPS = 32, 6000
"""Side of the downscaled crops that the network is trained on, in pixels, and how many crops there are at most."""
MIN_CROPS = 16
MAX_FIT_IMAGES, MAX_FIT_PIXELS = 400, 5e8
"""Images that crops are taken from, and their pixels, at most; those smaller than a crop are left out."""
HELD_OUT = 256
"""Crops held out, at most."""
MIN_APART = 5
"""Images from which on a tenth of them is held out; of fewer, a part of each."""
TILE, MARGIN = 128, 24
"""Side of the tiles that are upscaled, in pixels, and what they see around."""
OVERSHOOT = 1.0
"""How far new pixels may leave the range of the 3 x 3 pixels around them in the input, as a share of it / scale²."""


@estimator
class SuperResolver(ImageEstimator):
    """Upscaling by 2, 3 or 4, learned from the images' own scales.

    Images may have any sizes, depths and numbers of channels. The details of RGB images are those of their brightness;
    other channels, and alpha, are upscaled each on its own. The result, scaled down, is the input again. It is assumed
    that the input came about by antialiased bicubic scaling; an input that was scaled down by a blurrier kernel comes
    out blurrier, by a sharper one with slight halos. Against halos, details leave the range of the 3 x 3 pixels around
    them by at most 1 / scale² of it, unless the result would not be consistent.

    Attributes
    ----------
    held_out_error_ : float
        Mean squared error on held-out parts of the images, divided by that of bicubic interpolation. From 1 on,
        bicubic interpolation is used instead of the network.

    Examples
    --------
    >>> from imatlas.testing import synthetic_images
    >>> images = synthetic_images(16, size=32, channels=3)
    >>> SuperResolver(scale=2, max_steps=2, progress=False).fit(images).transform(images).shape
    (16, 64, 64, 3)
    """

    scale: Annotated[int, Field(ge=2, le=4, description="factor of height and width: 2, 3 or 4")] = 2
    width: Annotated[int, Field(ge=4, le=512, description="channels of the network")] = 48
    depth: Annotated[int, Field(ge=1, le=16, description="residual layers of the network")] = 6
    budget: Annotated[
        float | str | None,
        Field(description="training time: seconds, or a text such as '90s', '5m', '1h'; None for 30 epochs"),
    ] = "2m"
    batch_size: Annotated[int, Field(ge=1, description="crops per training step")] = 16
    learning_rate: Annotated[float, Field(gt=0, description="highest learning rate of the run")] = 4e-3

    any_kind: ClassVar[bool] = True

    _stops_early = True  # small folders are learned by heart

    _state: ClassVar[State] = {
        "bicubic_error_": Value(FINITE),
        "rounding_": Value(FINITE),
        "held_out_error_": Value(FINITE),
    }

    @sharing_cores()
    def fit(  # type: ignore[override]  # no masks, and the fit itself chooses what is held out
        self,
        images: Any,
        y: Any = None,
        *,
        checkpoint: str | Path | checkpoints.Checkpoint | None = None,
        replay: list[dict[str, Any]] | None = None,
        callback: Callback | None = None,
    ) -> SuperResolver:
        """Learn what is lost when the images are scaled down.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
            uint8, uint16, or float; at least 8 x 8 pixels each, at their own sizes; one is enough. NaN is a missing
            pixel, and filled with its nearest neighbor.
        y : None
            Ignored.
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
        opened = images_of(images)
        spec = opened.spec
        data = _crops(opened, self.scale, seed)
        self.rounding_ = 0.0 if spec.dtype == "float32" else 2 / (spec.high - spec.low)
        self.bicubic_error_ = self._error_of_interpolation(data)
        self._fit_data(data, seed, checkpoint=checkpoint, replay=replay, callback=callback)
        self.held_out_error_ = float(self.history_["held_out"][-1])
        self.spec_ = spec
        return self

    @sharing_cores()
    def transform(self, images: Any) -> np.ndarray:
        """Upscaled images (N, scale * H, scale * W, C) of the dtype of the fitted ones. Missing pixels stay missing.

        Raises
        ------
        InputError
            If depth or channels differ from the fitted images; `restore` takes any image.
        """
        self._check_fitted()
        opened = images_of(images)
        check_like_fitted("SuperResolver", self.spec_, opened.spec)
        return restore_each(self.restore, opened, scale=self.scale)

    def restore(self, pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
        """One image (H, W, C) of any size, upscaled to (scale * H, scale * W, C) of the same dtype.

        `spec` says whether the last channel is alpha, and of floats, whose largest value is not known, the range.
        """
        self._check_fitted()

        def run(tile: np.ndarray) -> np.ndarray:
            return self._upscaled(tile, spec)

        return in_tiles(run, pixels, TILE, MARGIN, 1, self.scale)

    def summary(self) -> list[str]:
        """What the held-out parts of the images showed."""
        if self.held_out_error_ >= 1:
            return ["On held-out parts of the images, nothing was better than bicubic interpolation, which is used."]
        gain = -10 * np.log10(self.held_out_error_)
        return [f"On held-out parts of the images, {gain:.1f} dB better than bicubic interpolation."]

    # -- the network -------------------------------------------------------------------------------------------------

    def _build(self, spec: ImageSpec) -> torch.nn.Module:
        return UpscalingNetwork(self.scale, self.width, self.depth)

    def _losses(
        self, module: Any, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        x = batch.x
        flips = torch.rand(3, generator=generator, device=generator.device).tolist()
        x = x.flip(2) if flips[0] < 0.5 else x
        x = x.flip(3) if flips[1] < 0.5 else x
        x = x.transpose(2, 3) if flips[2] < 0.5 else x
        yield "adam", self._loss(module, x), {}

    def _held_out_loss(self, module: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        return self._loss(module, batch.x)

    def _loss(self, module: Any | None, x: Tensor) -> Tensor:
        """Squared error of upscaling gray crops (N, 1, H, W) that were scaled down, relative to interpolation.

        With `module` None, that of interpolation itself.
        """
        height, width = x.shape[2] // self.scale, x.shape[3] // self.scale
        x = x[:, :, : height * self.scale, : width * self.scale]
        with torch.autocast(x.device.type, enabled=False):
            scaling = Scaling(height, width, self.scale)
            small = scaling.down(x)
            if self.rounding_:
                small = (small / self.rounding_).round() * self.rounding_
            lost = x - scaling.up(small)
        error = lost if module is None else lost - module(small).float()
        cut = self.scale * min(2, (min(height, width) - 1) // 2)  # what is beyond the border is not known
        error = error[:, :, cut : x.shape[2] - cut, cut : x.shape[3] - cut]
        return error.square().mean() / (1.0 if module is None else self.bicubic_error_)

    def _error_of_interpolation(self, data: Data) -> float:
        crops = torch.from_numpy(data.held_out).permute(0, 3, 1, 2)
        return max(float(self._loss(None, crops)), 1e-12)

    # -- images ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _upscaled(self, pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
        """A small image (H, W, C), upscaled."""
        colors, alpha = _parts(pixels, spec)
        colors, missing = _without_holes(colors, alpha)
        span = np.float32(spec.high - spec.low)
        planes = torch.from_numpy((colors.astype(np.float32) - np.float32(spec.low)) / span).permute(2, 0, 1)
        large = self._planes(planes[:, None], len(planes) == 3, _limits(spec))
        if alpha is not None:
            opaque = np.nan_to_num(alpha.astype(np.float32), nan=spec.low)
            opacity = torch.from_numpy((opaque - np.float32(spec.low)) / span).permute(2, 0, 1)
            large = torch.cat([large, self._planes(opacity[:, None], False, _limits(spec))])
        values = large[:, 0].permute(1, 2, 0).numpy() * span + np.float32(spec.low)
        if missing.any():
            values[missing.repeat(self.scale, 0).repeat(self.scale, 1)] = np.nan
        return (np.rint(values) if pixels.dtype.kind != "f" else values).astype(pixels.dtype)

    def _planes(self, small: Tensor, is_rgb: bool, limits: tuple[float, float]) -> Tensor:
        """Channels (C, 1, H, W) upscaled."""
        device = devices.pick_device(self.device)
        small = small.to(device)
        scaling = Scaling(small.shape[2], small.shape[3], self.scale)
        large = scaling.up(small)
        if self.held_out_error_ < 1:
            module = self._ready_module()
            seen = (
                (small * torch.tensor(LUMA, device=device).view(3, 1, 1, 1)).sum(0, keepdim=True) if is_rgb else small
            )
            large = large + torch.cat([module(plane[None]) for plane in seen])
        around = F.pad(small, (1, 1, 1, 1), mode="replicate")
        highest, lowest = F.max_pool2d(around, 3, 1), -F.max_pool2d(-around, 3, 1)
        room = OVERSHOOT / self.scale**2 * (highest - lowest)
        large = large.clamp(_repeated(lowest - room, self.scale), _repeated(highest + room, self.scale))
        pairs = zip(large, small, strict=True)  # one by one, as most take few steps
        return torch.stack([scaling.consistent(*pair, *limits) for pair in pairs]).cpu()


def _repeated(planes: Tensor, scale: int) -> Tensor:
    return planes.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


def _limits(spec: ImageSpec) -> tuple[float, float]:
    """The values that a pixel can have, where `low` of the spec is 0 and `high` is 1."""
    if spec.dtype == "float32":
        return -np.inf, np.inf
    top = np.iinfo(spec.dtype).max
    return (0 - spec.low) / (spec.high - spec.low), (top - spec.low) / (spec.high - spec.low)


def _without_holes(colors: np.ndarray, alpha: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Colors with missing and fully transparent pixels filled from the nearest one, and which are missing (H, W)."""
    from scipy.ndimage import distance_transform_edt

    missing = np.zeros(colors.shape[:2], bool)
    if colors.dtype.kind == "f":
        missing = ~np.isfinite(colors).all(axis=2)
    holes = missing if alpha is None else missing | ~(alpha[..., 0] > 0)
    if holes.all():
        return (np.zeros_like(colors) if missing.any() else colors), missing
    if holes.any():
        nearest = distance_transform_edt(holes, return_distances=False, return_indices=True)
        colors = colors[tuple(nearest)]
    return colors, missing


def _crops(opened: Images, scale: int, seed: int) -> Data:
    """Gray crops of the images at their own sizes, in [-1, 1]: of the brightness, or of a channel drawn at random.

    Raises
    ------
    InputError
        If no image is large enough.
    """
    spec, rng = opened.spec, seeding.rng(seed, "crops")
    too_small = InputError(
        f"A SuperResolver needs images of at least {MIN_SIZE} x {MIN_SIZE} pixels. "
        f"Got {spec.height} x {spec.width} instead."
    )
    heights, widths = (opened.records[name].astype(np.int64) for name in ("height", "width"))
    shorter, areas = np.minimum(heights, widths), heights * widths
    rows = rng.permutation(len(opened))
    rows = rows[shorter[rows] >= MIN_SIZE][:MAX_FIT_IMAGES]
    if not len(rows):
        raise too_small
    side = min(CROP, int(np.median(shorter[rows])) // scale) * scale
    rows = rows[shorter[rows] >= side]
    rows = np.sort(rows[np.cumsum(areas[rows]) - areas[rows] < MAX_FIT_PIXELS])
    n = int(np.clip(2 * areas[rows].sum() / side**2, max(MIN_CROPS, len(rows)), MAX_CROPS))
    counts = 1 + rng.multinomial(n - len(rows), areas[rows] / areas[rows].sum())
    held_rows = set(rng.permutation(rows)[: max(1, len(rows) // 10)].tolist() if len(rows) >= MIN_APART else [])
    crops: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])  # to learn from, and held out
    for row, count in zip(rows, counts, strict=True):
        pixels = opened[int(row)]
        if min(pixels.shape[:2]) < side:  # an original that is gone is smaller
            continue
        parts = ((1, pixels),) if row in held_rows else ((0, pixels),) if held_rows else enumerate(_apart(pixels, side))
        for held_out, part in parts:
            n_crops = min(count, HELD_OUT // (len(held_rows) or len(rows))) if held_out else count
            crops[held_out].extend(_gray_crop(part, spec, side, rng) for _ in range(n_crops))
    if not all(crops):
        raise too_small
    crop_spec = ImageSpec(side, side, 1, "float32", -1.0, 1.0, alpha=False)
    return Data(np.stack(crops[0]), crop_spec, np.stack(crops[1]))


def _apart(pixels: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of an image to learn from, and the part at its end that is held out; a short image is both."""
    if max(pixels.shape[:2]) < 4 * side:
        return pixels, pixels
    if pixels.shape[0] > pixels.shape[1]:
        return pixels[:-side], pixels[-side:]
    return pixels[:, :-side], pixels[:, -side:]


def _gray_crop(pixels: np.ndarray, spec: ImageSpec, side: int, rng: np.random.Generator) -> np.ndarray:
    """A crop (side, side, 1) float32; `low` of the spec is -1 and `high` is 1."""
    top, left = (rng.integers(length - side + 1) for length in pixels.shape[:2])
    crop = pixels[top : top + side, left : left + side]
    colors, _ = _without_holes(*_parts(crop, spec))
    scaled = (colors.astype(np.float32) - np.float32(spec.low)) * np.float32(2 / (spec.high - spec.low)) - 1
    if scaled.shape[2] == 3 and rng.random() < 0.5:
        return scaled @ LUMA[:, None]
    channel = rng.integers(scaled.shape[2])
    return scaled[..., channel : channel + 1]


def _parts(pixels: np.ndarray, spec: ImageSpec) -> tuple[np.ndarray, np.ndarray | None]:
    """Colors (H, W, C) and alpha (H, W, 1), or None."""
    return (pixels[..., :-1], pixels[..., -1:]) if spec.has_alpha else (pixels, None)
