"""Inpainting: missing pixels of images of any size, filled from the image itself and from what a set has taught.

    scattered pixels, scratches, text    a small network, trained to fill pixels that it is not shown      `FillNetwork`
    holes                                patches of the image, from coarse to fine                       `exemplar_fill`

The network is trained on crops of the images themselves: known pixels are hidden at random, and the loss is taken
there (as in Krull et al. 2019, "Noise2Void", where hidden pixels are noisy). Pixels that are missing in the training
images are neither shown nor counted, so incomplete images are training data like others. Without `fit`, scattered
pixels take their most probable values under a mixture of the patches of the image itself: see
`imatlas.models.parts.patch_mixture`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter
from torch import Tensor
from torch.nn.functional import interpolate

from imatlas import seeding
from imatlas.arguments import check_int, check_seed
from imatlas.errors import InputError
from imatlas.images.dataset import Images, images_of, with_mask
from imatlas.images.spec import ImageSpec
from imatlas.models.base import estimator
from imatlas.models.image_estimator import MIN_SIZE, ImageEstimator
from imatlas.models.parts.exemplar_fill import exemplar_fill
from imatlas.models.parts.patch_mixture import PatchMixture, smooth_fill
from imatlas.models.parts.source_images import from_values, to_values
from imatlas.models.restorer import Restoration
from imatlas.nn.denoising_unet import STEP
from imatlas.nn.fill_network import REACH, FillNetwork
from imatlas.system.threads import sharing_cores
from imatlas.training import checkpoints, devices
from imatlas.training.batches import Batch

CROP, MAX_CROPS = 64, 4096
"""Side of the crops that the network is trained on, in pixels, and their number."""

HIDDEN = (0.15, 0.85)
"""Share of pixels that are hidden in training."""

HOLE = 7
"""Side of the smallest holes, in pixels; what is missing elsewhere is filled by the network."""

COARSE = 1.5
"""Width of the Gaussian, in pixels, that tells what is coarse in a hole from its details."""

BAND = 512
"""Rows that are converted at a time."""

TILE, CONTEXT, OWN_CONTEXT = 384, 96, 32
"""Side of the parts in which a large image is filled, and pixels around each that are seen."""
NETWORK_TILE = 768
"""The same for the network, which sees `REACH` around."""

TURNS = (0, 7, 3, 4, 1, 2, 5, 6)
"""The 8 symmetries of a square, in the order in which they are used."""

MIXTURE_ROUNDS = 2
"""Times that a mixture of patches is fitted to the filled image and the image filled with it, without a network."""


@estimator
class Inpainter(ImageEstimator):
    """Inpainting of images of any size, depth and number of channels.

    Missing are pixels that a mask names, NaN, and without a mask those that are fully transparent. Known pixels are
    returned bit for bit.

    Examples
    --------
    >>> import numpy as np
    >>> from imatlas import Inpainter
    >>> from imatlas.testing import synthetic_images
    >>> images = synthetic_images(32, size=32, random_state=0)
    >>> mask = np.random.default_rng(0).random(images.shape[:3]) < 0.5
    >>> model = Inpainter(max_steps=5, progress=False).fit(images)
    >>> model.transform(images, mask).shape
    (32, 32, 32, 1)
    """

    n_samples: Annotated[
        int, Field(ge=1, le=64, description="plausible fills of each image; their spread is a map of uncertainty")
    ] = 1
    turns: Annotated[
        int,
        Field(ge=1, le=8, description="turns of an image over which its first fill is averaged: better, and slower"),
    ] = 1
    structure: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="share of patches in what is coarse in holes, the rest is a smooth fill: 1 has crisper edges, "
            "less makes up for wrong patches",
        ),
    ] = 0.55
    texture: Annotated[
        float, Field(ge=0, le=1, description="share of patches in the details of holes; 0 is smooth")
    ] = 1.0
    width: Annotated[int, Field(ge=4, description="channels of the finest grid of the network")] = 48
    budget: Annotated[
        float | str | None,
        Field(description="training time: seconds, or a text such as '90s', '5m', '1h'; None for no limit"),
    ] = "5m"
    batch_size: Annotated[int, Field(ge=1, description="crops per training step")] = 8

    any_kind: ClassVar[bool] = True

    def _build(self, spec: ImageSpec) -> FillNetwork:
        return FillNetwork(spec.channels, self.width)

    def _losses(
        self, module: Any, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        x, known = batch.x, batch.known
        shown = torch.ones_like(x[:, :1]) if known is None else known.all(1, keepdim=True).float()
        hidden = _hidden(len(x), x.shape[2:], generator).to(x.device)
        x, shown, hidden = _turned(x, shown, hidden, generator=generator)
        wanted = hidden * shown
        difference = (module(x, shown * (1 - hidden)).float() - x) * wanted
        loss = (difference.square() + 1e-6).sqrt().sum() / (wanted.sum() * x.shape[1]).clamp(min=1)
        yield "adam", loss, {}

    def fit(
        self,
        images: Any,
        y: Any = None,
        *,
        mask: np.ndarray | Callable[[int, tuple[int, int]], np.ndarray] | None = None,
        checkpoint: str | Path | checkpoints.Checkpoint | None = None,
        **options: Any,
    ) -> Any:
        """Train the network on crops of images of any sizes.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
            uint8, uint16 or float; one is enough. Pixels that are NaN or fully transparent are missing.
        y : None
            Ignored.
        mask : array (N, H, W) of bool, or callable, optional
            True where a pixel is missing; for images of different sizes, a function that returns the mask (H, W) of an
            image, given its row and (H, W).
        checkpoint, **options
            As `ImageEstimator.fit`; the options are replay, callback and validation.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            If a parameter is not what was declared.
        InputError
            If no image has 8 x 8 pixels.
        """
        self._check_parameters()
        values, given = (images, mask) if callable(mask) else with_mask(images, mask)
        crops, missing = _crops(values, given, self._seed_to_fit(checkpoint))
        return super().fit(crops, None, mask=missing, checkpoint=checkpoint, **options)

    @sharing_cores()
    def transform(self, images: Any, mask: np.ndarray | None = None, *, random_state: int | None = None) -> np.ndarray:
        """Images whose missing pixels are filled.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
            Of the fitted depth, and of any size and number of channels; the network is used where it was fitted to as
            many, or to RGB and these are gray. NaN is a missing pixel.
        mask : array (N, H, W) or (H, W) of bool, optional
            True where a pixel is missing.
        random_state : int, optional
            None: the seed of the fit.

        Returns
        -------
        array (N, H, W, C) of the dtype of the images

        Raises
        ------
        InputError
            If the depth differs from the fitted images, the mask has another shape, or nothing of an image is known.
        """
        self._check_fitted()
        images, mask = with_mask(images, mask)
        opened = images_of(images)
        spec, pixels = opened.spec, opened.pixels
        if spec.dtype != self.spec_.dtype:
            raise InputError(
                f"This Inpainter was fitted on {self.spec_.dtype} images. Got {spec.dtype} instead; give images of the "
                "same depth, or one at a time to `restore`."
            )
        if mask is not None:
            mask = np.broadcast_to(np.asarray(mask), pixels.shape[:3])
        made = [
            self.restoration(
                one, spec, missing=None if mask is None else mask[i], n_samples=1, random_state=random_state, key=i
            ).pixels
            for i, one in enumerate(pixels)
        ]
        return np.stack(made) if made else np.asarray(pixels)

    def restore(self, pixels: np.ndarray, spec: ImageSpec, missing: np.ndarray | None = None) -> np.ndarray:
        """One image (H, W, C) of any size with its missing pixels filled; see `restoration`."""
        return self.restoration(pixels, spec, missing=missing, n_samples=1).pixels

    @sharing_cores()
    def restoration(
        self,
        pixels: np.ndarray,
        spec: ImageSpec,
        *,
        missing: np.ndarray | None = None,
        n_samples: int | None = None,
        random_state: int | None = None,
        key: int = 0,
    ) -> Restoration:
        """One image with its missing pixels filled, other plausible fills, and how much these differ.

        Parameters
        ----------
        pixels : array (H, W, C)
        spec : ImageSpec
            With the depth and the value range of the image.
        missing : array (H, W) of bool, optional
            Instead of NaN and fully transparent pixels.
        n_samples : int, optional
            None: the parameter.
        random_state, key : int
            Seed, None for that of the fit; and number of the image, which has fills of its own.

        Returns
        -------
        Restoration
            `maps["spread"]` (H, W) is the standard deviation of several fills, the range of the image being 1; facts
            are `missing`, the share of the pixels, and `spread`, the mean of that map over these.

        Raises
        ------
        InputError
            If nothing of the image is known, or the mask has another shape.
        """
        n = self.n_samples if n_samples is None else check_int(n_samples, "n_samples", "Inpainter", low=1)
        seed = getattr(self, "seed_", 0) if random_state is None else check_seed(random_state, "Inpainter")
        if missing is not None and np.shape(missing) != pixels.shape[:2]:
            raise InputError(f"A mask of an image of {pixels.shape[:2]} pixels has its shape. Got {np.shape(missing)}.")
        gaps = missing_pixels(pixels, spec) if missing is None else np.asarray(missing) | missing_pixels(pixels, None)
        facts: dict[str, Any] = {"missing": round(float(gaps.mean()), 4)}
        if not gaps.any():
            return Restoration(pixels.copy(), facts)
        if gaps.all():
            raise InputError("nothing of it is known, all pixels are missing")
        own = replace(spec, height=pixels.shape[0], width=pixels.shape[1])
        values = _values_of(pixels, gaps, own)
        fills = []
        for number in range(n):
            rng = seeding.rng(seed, "fill", key, number)
            made = self._filled(values.clone() if n > 1 else values, torch.from_numpy(~gaps), rng, number)
            fills.append(_merged(pixels, made, gaps, own, missing is not None))
        maps = {}
        if n > 1:
            spread = np.stack([fill.astype(np.float32) for fill in fills]).std(0).mean(2) / (own.high - own.low)
            maps["spread"] = np.where(gaps, spread, 0).astype(np.float32)
            facts["spread"] = round(float(maps["spread"][gaps].mean()), 4)
        return Restoration(fills[0], facts, maps, tuple(fills[1:]))

    def _filled(self, values: Tensor, known: Tensor, rng: np.random.Generator, number: int) -> Tensor:
        """Values (C, H, W), filled in place where `known` (H, W) is False; fill `number` differs from others."""
        thin = ~known & ~torch.from_numpy(hole_pixels(known.numpy()))
        if thin.any():
            channels = self.spec_.channels if self.__sklearn_is_fitted__() else 0
            if len(values) == channels or (len(values), channels) == (1, 3):
                self._by_network(values, known, thin, number)
            else:
                _by_own_patches(values, known, thin, rng)
            known = known | thin
        for core, window in tiles(known.shape, TILE, CONTEXT):
            if known[core].all():
                continue
            seen, certain = values[:, *window], known[window]
            smooth = torch.from_numpy(smooth_fill(seen.numpy(), certain.numpy()))
            patches = exemplar_fill(seen, certain, rng, varied=number > 0)
            made = smooth + _weakened(patches - smooth, ~certain, self.structure, self.texture)
            values[:, *core] = torch.where(known[core], values[:, *core], made[:, *_within(core, window)])
            known[core] = True
        return values

    @torch.no_grad()
    def _by_network(self, values: Tensor, known: Tensor, wanted: Tensor, number: int) -> None:
        """Fill `wanted` pixels of values by the network: the mean over some turns of the image, or that of one."""
        module, device = self._ready_module(), devices.pick_device(self.device)
        turns = TURNS[: self.turns] if number == 0 else (TURNS[number % 8],)
        for part, _ in tiles(known.shape, NETWORK_TILE, REACH):
            if not wanted[part].any():
                continue
            core, window = _around(wanted, part, REACH)
            x = values[:, *window].to(device)[None].expand(-1, self.spec_.channels, -1, -1)
            seen = known[window].to(device)[None, None].float()
            made = torch.stack(
                [_back(module(_turn(x, turn), _turn(seen, turn)), turn)[0].cpu() for turn in turns]
            ).mean(0)
            made = made if len(made) == len(values) else made.mean(0, keepdim=True)  # gray, by a network of colors
            values[:, *core] = torch.where(wanted[core], made[:, *_within(core, window)], values[:, *core])


def _weakened(change: Tensor, missing: Tensor, coarse: float, fine: float) -> Tensor:
    """A change (C, H, W) of `missing` pixels (H, W), with shares of what is coarser and finer than `COARSE`."""
    where = missing.numpy().astype(np.float32)
    weights = gaussian_filter(where, COARSE).clip(1e-3)
    mean = torch.from_numpy(gaussian_filter(change.numpy() * where, (0, COARSE, COARSE)) / weights)
    return coarse * mean + fine * (change - mean)


def missing_pixels(pixels: np.ndarray, spec: ImageSpec | None) -> np.ndarray:
    """Which pixels (H, W) are not finite, or fully transparent if the spec has alpha."""
    gaps = np.zeros(pixels.shape[:2], bool)
    if pixels.dtype.kind == "f":
        gaps |= ~np.isfinite(pixels).all(2)
    if spec is not None and spec.has_alpha:
        gaps |= pixels[..., -1] == 0
    return gaps


def hole_pixels(known: np.ndarray) -> np.ndarray:
    """Which missing pixels (H, W) belong to holes: squares of `HOLE` pixels a side that are all missing."""
    inside = minimum_filter((~known).view(np.uint8), HOLE, mode="constant", cval=1)
    return ~known & (maximum_filter(inside, HOLE, mode="constant", cval=0) > 0)


def tiles(shape: tuple[int, ...], side: int, context: int) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Parts (rows, columns) that cover an image, each with the window around it that is seen.

    An image that is hardly larger than a part is one.
    """
    parts = []
    for length in shape:
        n = max(1, -(-(length - context) // side))
        ends = [
            *(round(i * length / n / STEP) * STEP for i in range(n)),
            length,
        ]
        parts.append([(slice(a, b), slice(max(0, a - context), min(length, b + context))) for a, b in pairwise(ends)])
    for rows, seen_rows in parts[0]:
        for columns, seen_columns in parts[1]:
            yield (rows, columns), (seen_rows, seen_columns)


def _around(wanted: Tensor, part: tuple[slice, slice], context: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The rows and columns of a part with `wanted` pixels, and the window around them that is seen.

    Both begin at multiples of `STEP`.
    """
    cores, windows = [], []
    for axis, (along, length) in enumerate(zip(part, wanted.shape, strict=True)):
        found = wanted[part].any(1 - axis).nonzero()[:, 0]
        start, stop = along.start + int(found[0]) // STEP * STEP, along.start + int(found[-1]) + 1
        cores.append(slice(start, stop))
        windows.append(slice(max(0, start - context), min(length, stop + context)))
    return (cores[0], cores[1]), (windows[0], windows[1])


def _within(core: tuple[slice, slice], window: tuple[slice, slice]) -> tuple[slice, slice]:
    """The rows and columns of a core in its window."""
    rows, columns = (slice(c.start - w.start, c.stop - w.start) for c, w in zip(core, window, strict=True))
    return rows, columns


def _values_of(pixels: np.ndarray, gaps: np.ndarray, spec: ImageSpec) -> Tensor:
    """Values (C, H, W) of pixels, the middle one in the gaps; in bands, so that a large image is held once."""
    values = torch.empty(pixels.shape[2], *gaps.shape)
    middle = np.array((spec.low + spec.high) / 2).astype(pixels.dtype)
    for top in range(0, len(pixels), BAND):
        rows = slice(top, top + BAND)
        complete = np.where(gaps[rows, :, None], middle, pixels[rows])
        values[:, rows] = to_values(complete[None], spec)[0]
    return values


def _merged(pixels: np.ndarray, values: Tensor, gaps: np.ndarray, spec: ImageSpec, by_mask: bool) -> np.ndarray:
    """Pixels with the values in the gaps; of a pixel that is not finite in some channels only these are filled."""
    out = pixels.copy()
    for top in range(0, len(pixels), BAND):
        rows = slice(top, top + BAND)
        where = np.broadcast_to(gaps[rows, :, None], out[rows].shape)
        if not by_mask and pixels.dtype.kind == "f":
            finite = np.isfinite(pixels[rows])
            where = where & (~finite | finite.all(2, keepdims=True))
        out[rows][where] = from_values(values[None, :, rows], spec)[0][where]
    return out


def _by_own_patches(values: Tensor, known: Tensor, wanted: Tensor, rng: np.random.Generator) -> None:
    """Fill `wanted` pixels of values by a mixture of the patches of the image."""
    for core, window in tiles(known.shape, TILE, OWN_CONTEXT):
        if not wanted[core].any():
            continue
        seed = int(rng.integers(2**31))
        made = PatchMixture.adapted(values[:, *window], known[window], wanted[window], MIXTURE_ROUNDS, seed)
        values[:, *core] = torch.where(wanted[core], made[:, *_within(core, window)], values[:, *core])


def _crops(images: Any, mask: Any, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Crops (N, h, w, C) of images at their own size, for training, and their masks (N, h, w), if there is one.

    Raises
    ------
    InputError
        If no image has 8 x 8 pixels, or the mask has another shape.
    """
    opened: Images = images_of(images)
    rng = seeding.rng(seed, "crops")
    rows = np.sort(rng.permutation(len(opened))[:MAX_CROPS]).tolist()
    if mask is not None and not callable(mask) and np.shape(mask) != opened.pixels.shape[:3]:
        raise InputError(f"The mask must be of shape {opened.pixels.shape[:3]}. Got {np.shape(mask)}.")
    stored = isinstance(images, np.ndarray) or (mask is not None and not callable(mask))
    side, each, first = 0, max(1, -(-MAX_CROPS // max(1, len(rows)))), "none"
    found: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    for row in rows:
        picture = opened.pixels[row] if stored else opened[row]
        height, width = picture.shape[:2]
        first = f"{height} x {width}" if first == "none" else first
        if min(height, width) < max(side, MIN_SIZE):
            continue
        side = side or min(CROP, height, width)
        gaps = missing_pixels(picture, opened.spec)
        if mask is not None:
            gaps = gaps | (mask(row, (height, width)) if callable(mask) else np.asarray(mask[row]))
        n = min(each, max(1, 4 * height * width // side**2))
        for top, left in zip(rng.integers(0, height - side + 1, n), rng.integers(0, width - side + 1, n), strict=True):
            place = (slice(top, top + side), slice(left, left + side))
            found.append(picture[place])
            masks.append(gaps[place])
    if not found:
        raise InputError(f"An Inpainter learns from images of at least {MIN_SIZE} x {MIN_SIZE} pixels. Got {first}.")
    twice = 2 if len(found) == 1 else 1  # training needs two
    missing = np.stack(masks * twice)
    return np.stack(found * twice), missing if missing.any() else None


def _hidden(n: int, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Where pixels are hidden (n, 1, H, W), 1 or 0: for half of the images single ones, else squares of 2 to 4."""
    rate = HIDDEN[0] + (HIDDEN[1] - HIDDEN[0]) * torch.rand(n, 1, 1, 1, generator=generator, device=generator.device)
    chosen = torch.randint(0, 6, (n,), generator=generator, device=generator.device)
    hidden = torch.empty(n, 1, *size, device=generator.device)
    for i in range(n):
        step = max(1, int(chosen[i]) - 1)  # 1 for half of them, else 2 to 4
        coarse = torch.rand(1, 1, *(-(-s // step) for s in size), generator=generator, device=generator.device)
        hidden[i] = interpolate((coarse < rate[i]).float(), scale_factor=step)[0, :, : size[0], : size[1]]
    return hidden


def _turned(*maps: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    """All maps (N, C, H, W) of a batch mirrored or turned in one random way."""
    number = int(torch.randint(0, 8, (), generator=generator, device=generator.device))
    return tuple(_turn(one, number) for one in maps)


def _turn(x: Tensor, number: int) -> Tensor:
    """One of the 8 symmetries of a square."""
    x = x.flip(2) if number & 1 else x
    x = x.flip(3) if number & 2 else x
    return x.transpose(2, 3) if number & 4 else x


def _back(x: Tensor, number: int) -> Tensor:
    """The inverse of `_turn`."""
    x = x.transpose(2, 3) if number & 4 else x
    x = x.flip(3) if number & 2 else x
    return x.flip(2) if number & 1 else x
