"""Patch diffusion: new images from few images, by diffusion without a network.

The probability flow of a diffusion process (Karras et al. 2022, eq. 1 and 3)

    dx / dsigma = (x - D(x; sigma)) / sigma          from noise, sigma = 80, to an image, sigma = 0

needs a denoiser D. A network is trained to approximate the mean of the images given a noisy one; here that mean is
computed, from the images themselves and locally: see `imatlas.models.parts.patch_posterior`. So nothing is trained, a
hundred images are enough, and it is known from which image each pixel comes.

- A new image is composed of the nearest neighbors, in a learned space, of one image of the set.
- A canvas that is larger than the images is covered by overlapping windows, whose estimates are averaged at each step:
  Bar-Tal et al. 2023, "MultiDiffusion" (eq. 3). Windows that wrap around make seamless tiles.
- Large images are made from coarse to fine: the small image first, then patches of the same sources at each scale.
- Edits start from the image plus noise: Meng et al. 2022, "SDEdit". Known pixels are held at each step. Scattered
  missing pixels, which those around them determine, take their most probable values under a Gaussian mixture of small
  patches: see `imatlas.models.parts.patch_mixture`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from imatlas import seeding
from imatlas.arguments import MAX_SEED, check_int, check_number
from imatlas.errors import InputError
from imatlas.images.memory_budget import amount
from imatlas.models.base import Estimator, estimator
from imatlas.models.image_estimator import MAX_PIXELS, MIN_SIZE, load_to_fit
from imatlas.models.learned_attributes import FINITE, Array, Labels, OneOf, Spec, State, Value
from imatlas.models.parts.conditional import checked_conditions, labels_as_fitted, vectors_as_fitted
from imatlas.models.parts.patch_mixture import PatchMixture, is_scattered
from imatlas.models.parts.patch_posterior import SIGMA_MAX, Locality, level_scale
from imatlas.models.parts.patch_sampler import Held, Sampler, Start
from imatlas.models.parts.pixels_to_edit import complete_pixels, pixels_to_edit, without_missing
from imatlas.models.parts.source_images import (
    COPIES,
    Composition,
    from_values,
    mirrored_are_alike,
    principal_components,
    small_features,
    to_values,
)
from imatlas.models.parts.source_search import SourceSearch
from imatlas.system.threads import sharing_cores
from imatlas.training import devices

NOVELTIES = (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9)
"""Settings that `calibrate` chooses from."""

UNCHECKED, MIN_AUDITED = 0.6, 8
"""The novelty without a check, and the fewest images that it is checked against."""

AUDITED_SIDE = 32
"""Longest side of the new images that are compared at 8 x 8 pixels."""

WEAKEST, MORPH_STRENGTH = 0.05, 0.4
"""The noise level that the strength of edits starts from, and the strength in the middle between two images."""


@dataclass(frozen=True)
class Provenance:
    """Where the pixels of new images come from.

    Attributes
    ----------
    rows : array (n, H, W) of int64
        The training image that weighs most at each pixel.
    sources : list of dict {int: float}
        For each new image, its training images by row with their share of the pixels, largest first. The shares of an
        image sum to 1.
    """

    rows: np.ndarray
    sources: list[dict[int, float]]


@estimator
class PatchDiffusion(Estimator):
    """Generator that composes new images of patches of the images of the set.

    `fit` only stores the images and prepares the search for neighbors, so it takes seconds. Time per new image does not
    grow with the number of images.

    Attributes
    ----------
    images_ : array (N, H, W, C) uint8, uint16 or float32
        The images of `fit`; missing pixels have the middle value.
    missing_ : array (N, H, W) of uint8, or None
        1 where a pixel is missing.
    vectors_ : array (N, n_components) float32
        The images in the space in which neighbors are searched: principal components of `y`, or of small images.
    mean_, axes_ : arrays (n_features,), (n_features, n_components) float32
        Of these components.
    classes_, labels_ : arrays (n_classes,), (N,), or None
        Labels given to `fit`, ascending, and the index of the label of each image.
    space_ : {'own', 'given'}
        Whether the space of neighbors is that of the images themselves, or of vectors given as `y`.
    mirrored_ : bool
        Whether mirrored copies take part.
    novelty_ : float
        The given or calibrated novelty.
    audit_ : list of dict
        What calibration measured: novelty, c_t, near_copies and near_copies_by_chance.
    spec_ : ImageSpec
        Shape, depth and range of the images.

    Examples
    --------
    >>> from imatlas import PatchDiffusion
    >>> from imatlas.testing import synthetic_images
    >>> images = synthetic_images(32, size=16, random_state=0)
    >>> model = PatchDiffusion(novelty=0.5, n_steps=8).fit(images)
    >>> model.sample(3, random_state=0).shape
    (3, 16, 16, 1)
    >>> model.sample(1, shape=(16, 40), random_state=0).shape
    (1, 16, 40, 1)
    """

    novelty: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="0: near the images of the set, 1: free collage; None: the lowest at which, by images held "
            "out, new ones are no copies",
        ),
    ] = None
    n_neighbors: Annotated[
        int, Field(ge=2, description="images of the set that one new image is composed of, at most")
    ] = 60
    n_steps: Annotated[int, Field(ge=2, le=1000, description="steps from noise to an image")] = 16
    mirror: Annotated[
        bool | None,
        Field(description="also use mirrored images; None: if these look like images of the set"),
    ] = None
    device: Annotated[str, Field(description="'auto', 'cpu', 'cuda', 'cuda:1', 'mps'")] = "auto"

    input = "images"
    labels = "optional"

    _state: ClassVar[State] = {
        "spec_": Spec(MAX_PIXELS),
        "images_": OneOf(tuple(Array(kind, "N", "H", "W", "C") for kind in ("uint8", "uint16", "float32"))),
        "missing_": Array("uint8", "N", "H", "W", high=1, optional=True),
        "vectors_": Array("float32", "N", "n_components"),
        "mean_": Array("float32", "n_features"),
        "axes_": Array("float32", "n_features", "n_components"),
        "classes_": Labels("n_classes", distinct=True, optional=True),
        "labels_": Array("int64", "N", low=0, below="n_classes", optional=True),
        "space_": Value(Literal["own", "given"]),
        "mirrored_": Value(bool),
        "novelty_": Value(FINITE),
        "audit_": Value(list[dict[str, float]]),
        "seed_": Value(Annotated[int, Field(ge=0, le=MAX_SEED)]),
    }

    # -- fitting -----------------------------------------------------------------------------------------------------

    @sharing_cores()
    def fit(self, images: Any, y: Any = None, *, mask: np.ndarray | None = None) -> Any:
        """Store the images, and prepare the search for neighbors.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
            uint8, uint16, or float; at least 2 images of at least 8 x 8 pixels. NaN is a missing pixel.
        y : array (N,) of int or str, or (N, n_features), optional
            A label per image, or a vector of a learned space, such as the features of an encoder. None: neighbors are
            searched among principal components of the images at 8 x 8 pixels.
        mask : array (N, H, W) of bool, optional
            True where a pixel is missing; such pixels are neither compared nor used.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            If a parameter is not what was declared.
        InputError
            If there are too few images, they are too small or too large, or `y` does not fit.
        """
        self._check_parameters()
        loaded, spec = load_to_fit(images, mask, type(self).__name__)
        pixels, missing = without_missing(np.asarray(loaded), spec)
        given = checked_conditions(y, len(pixels))
        self.spec_, self.seed_ = spec, self._seed()
        self.images_ = np.ascontiguousarray(pixels)
        self.missing_: np.ndarray | None = missing
        self.classes_, self.labels_ = given.classes, given.indices
        self.space_ = "own" if given.vectors is None else "given"
        space = small_features(pixels, spec) if given.vectors is None else given.vectors
        self.mean_, self.axes_, self.vectors_ = principal_components(space, self.seed_)
        self.mirrored_ = mirrored_are_alike(pixels, spec, self.seed_) if self.mirror is None else self.mirror
        self.audit_: list[dict[str, float]] = []
        self.novelty_ = UNCHECKED if self.novelty is None else float(self.novelty)
        if self.novelty is None:
            self.calibrate()
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return "images_" in vars(self)

    @property
    def takes_vectors(self) -> bool:
        """Whether `y` of `sample` may be vectors, because `fit` was given some."""
        return self.space_ == "given"

    def calibrate(
        self,
        held_out: Any = None,
        embed: Callable[[np.ndarray], np.ndarray] | None = None,
        *,
        known: np.ndarray | None = None,
        n_samples: int = 200,
        seconds: float | None = None,
    ) -> Any:
        """Set `novelty_` to the lowest at which new images are no copies, judged by images that are held out.

        At each candidate the copying test C_T must be at least -1, and near copies at most 1.5 times as many as of a
        perfect generator. Candidates are searched by bisection, since both fall with the novelty.

        Parameters
        ----------
        held_out : array (n, H, W, C), optional
            Images that were not given to `fit`. None: every tenth image of the set, which is then left out of samples
            while these are compared.
        embed : callable, optional
            Images (n, H, W, C) to features (n, n_features), in which images are compared. None: their values at
            8 x 8 pixels, for which new images of half the size or less suffice.
        known : array (N, n_features), optional
            The features of the images of the set, where they are known and `held_out` is given.
        n_samples : int
            New images per candidate.
        seconds : float, optional
            Time limit; at least one candidate is tried.

        Returns
        -------
        self
        """
        from imatlas.models.parts.copy_audit import lowest_novelty

        self._check_fitted()
        sampler = self if embed is not None else self._reduced()
        weights = np.ones(len(self.images_))
        if held_out is None:
            order = seeding.rng(self.seed_, "held out").permutation(len(self.images_))
            rows = np.sort(order[: min(1000, len(order) // 10)])
            weights[rows], held_out = 0.0, self.images_[rows]
        embed = embed or (lambda pixels: small_features(pixels, self.spec_))
        if len(held_out) >= MIN_AUDITED:
            known = embed(self.images_[weights > 0]) if known is None else known
            self.audit_, self.novelty_ = lowest_novelty(
                lambda novelty: embed(
                    sampler.sample(n_samples, novelty=novelty, weights=weights, random_state=self.seed_)
                ),
                known,
                embed(held_out),
                candidates=NOVELTIES,
                seconds=seconds,
                random_state=self.seed_,
            )
        return self

    def _reduced(self) -> PatchDiffusion:
        """This model with images that are reduced to at most `AUDITED_SIDE` pixels."""
        factor = max(self.spec_.height, self.spec_.width) // AUDITED_SIDE
        if factor < 2 or min(self.spec_.height, self.spec_.width) < factor * MIN_SIZE:
            return self
        small = copy.copy(self)
        height, width = self.spec_.height // factor, self.spec_.width // factor
        cut = (slice(None), slice(factor * height), slice(factor * width))
        shape = (len(self.images_), height, factor, width, factor)
        means = self.images_[cut].reshape(*shape, self.spec_.channels).mean((2, 4), dtype=np.float32)
        small.images_ = (means if self.images_.dtype.kind == "f" else np.rint(means)).astype(self.images_.dtype)
        small.missing_ = None if self.missing_ is None else self.missing_[cut].reshape(shape).max((2, 4))
        small.spec_ = replace(self.spec_, height=height, width=width)
        return small

    # -- new images --------------------------------------------------------------------------------------------------

    @sharing_cores()
    def sample(
        self,
        n_samples: int = 1,
        *,
        y: Any = None,
        weights: np.ndarray | None = None,
        shape: tuple[int, int] | None = None,
        tile: bool = False,
        novelty: float | None = None,
        random_state: int | None = None,
        return_provenance: bool = False,
    ) -> Any:
        """New images; image i depends only on (`random_state`, i).

        Parameters
        ----------
        n_samples : int
        y : label, array (n_samples,) of labels, vector (n_features,) or array (n_samples, n_features), optional
            As in `fit`: images of a label, or the neighbors of a place in the space. None: of an image drawn at random.
        weights : array (N,), optional
            Non-negative weight of each image of the set, both when one is drawn and at each pixel. None: equal.
        shape : (height, width), optional
            Of the canvas in pixels, of any size. None: that of the images of the set.
        tile : bool
            Whether opposite borders fit each other, so that copies can be laid side by side without a seam.
        novelty : float in [0, 1], optional
            None: `novelty_`.
        random_state : int, optional
            None: the seed of the fit.
        return_provenance : bool
            Also return where the pixels come from.

        Returns
        -------
        images : array (n_samples, height, width, C) of the fitted dtype
        provenance : Provenance
            Only with `return_provenance`.

        Raises
        ------
        ParameterError
            If a number is out of its range.
        InputError
            If `y` or `weights` do not fit, or `shape` is wrong or would take more memory than there is.
        """
        self._check_fitted()
        name = type(self).__name__
        n = check_int(n_samples, "n_samples", name, low=0)
        targets = self._targets(y, n)
        prior = self._log_weights(weights)
        sampler = self._sampler(shape, tile, novelty, n_stacks=1)
        seed = self._seed_of(random_state)
        made = []
        for i in range(n):
            rng = seeding.rng(seed, "sample", i)
            composition = self._composition(targets[i], prior, rng)
            made.append(self._run(sampler, [composition] * len(sampler.corners()), rng))
        return self._finished(made, sampler.canvas, return_provenance)

    @sharing_cores()
    def panorama(
        self,
        y: Any,
        *,
        shape: tuple[int, int] | None = None,
        novelty: float | None = None,
        random_state: int | None = None,
    ) -> np.ndarray:
        """One wide image along a path: what is near its beginning on the left, near its end on the right.

        Parameters
        ----------
        y : array (n_keys, n_features) or labels (n_keys,)
            Places on the path, as in `fit`.
        shape : (height, width), optional
            None: as high as the images, and one image wide for each key and the one between it and the next.
        novelty, random_state
            As in `sample`.

        Returns
        -------
        array (height, width, C) of the fitted dtype
        """
        self._check_fitted()
        places = np.asarray(y)
        n_axes = 1 if self.classes_ is None else 0  # of one place
        keys = self._targets(y, 1 if y is None or places.ndim <= n_axes else len(places))
        if shape is None:
            shape = (self.spec_.height, self.spec_.width * max(1, 2 * len(keys) - 1))
        sampler = self._sampler(shape, False, novelty)
        rng = seeding.rng(self._seed_of(random_state), "sample", 0)
        along = int(sampler.canvas[1] * sampler.size[0] < sampler.canvas[0] * sampler.size[1])  # 0: across, 1: down
        compositions, used = [], np.zeros(len(self.images_))
        for corner in sampler.corners():
            length = sampler.canvas[1 - along] - sampler.window[1 - along]
            at = corner[1 - along] / max(1, length) * (len(keys) - 1)
            target = _between(keys, at)
            free = used == 0
            if self.labels_ is not None and target is not None:
                free &= self.labels_ == target
            prior = np.where(free, 0.0, -np.inf) if free.sum() > self.n_neighbors else np.zeros(len(used))
            one = self._composition(target, prior, rng)
            used[one.rows] = 1  # neighboring windows are composed of other images, so that nothing repeats
            compositions.append(one)
        return self._finished([self._run(sampler, compositions, rng)], sampler.canvas, False)[0]

    @sharing_cores()
    def vary(
        self,
        images: Any,
        *,
        strength: float = 0.5,
        y: Any = None,
        novelty: float | None = None,
        random_state: int | None = None,
    ) -> np.ndarray:
        """Variations of images, or of drawings, whose colors and shapes they keep (Meng et al. 2022).

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
        strength : float in [0, 1]
            0 returns the images, 1 new images that only share their neighbors.
        y, novelty, random_state
            As in `sample`; without `y` the neighbors are the images of the set with similar colors at similar places.

        Returns
        -------
        array (N, H, W, C) of the fitted dtype

        Raises
        ------
        InputError
            If an array differs in shape or depth from the images of `fit`.
        """
        self._check_fitted()
        strength = check_number(strength, "strength", type(self).__name__, low=0, high=1)
        pixels = complete_pixels(images, self.spec_)
        if strength == 0:
            return pixels.copy()
        return self._edited(to_values(pixels, self.spec_), self._sigma(strength), y, novelty, random_state)

    @sharing_cores()
    def blend(
        self,
        first: Any,
        second: Any,
        mask: np.ndarray | float = 0.5,
        *,
        strength: float = 0.5,
        novelty: float | None = None,
        random_state: int | None = None,
    ) -> np.ndarray:
        """Images that join pairs of others.

        Parameters
        ----------
        first, second : Images, array (N, H, W[, C]) or any source that `Images` takes
        mask : float, or array (H, W) or (N, H, W), from 0 to 1
            How much of the second image is wanted, everywhere or at each pixel.
        strength, novelty, random_state
            As in `vary`; 0 cross-fades.

        Returns
        -------
        array (N, H, W, C) of the fitted dtype

        Raises
        ------
        InputError
            If the numbers of images differ, or `mask` does not fit them or is not from 0 to 1.
        """
        self._check_fitted()
        strength = check_number(strength, "strength", type(self).__name__, low=0, high=1)
        a, b = (to_values(complete_pixels(images, self.spec_), self.spec_) for images in (first, second))
        share = np.asarray(mask, dtype=np.float32)
        if len(a) != len(b) or share.shape not in ((), a.shape[2:], (len(a), *a.shape[2:])):
            raise InputError(
                f"A blend takes as many second images as first ones, and a mask of shape {tuple(a.shape[2:])}. "
                f"Got {len(a)} and {len(b)} images, and a mask of shape {share.shape}."
            )
        if not ((share >= 0) & (share <= 1)).all():
            low, high = (float(value) for value in (share.min(), share.max()))
            raise InputError(f"The mask of a blend must be from 0 to 1. Got values from {low:g} to {high:g}.")
        wanted = torch.from_numpy(np.broadcast_to(share, (len(a), *a.shape[2:])).copy())[:, None]
        mixed = a + wanted * (b - a)
        if strength == 0:
            return from_values(mixed, self.spec_)
        return self._edited(mixed, self._sigma(strength), None, novelty, random_state, also=(a, b))

    @sharing_cores()
    def morph(
        self,
        n_frames: int,
        *,
        images: Any = None,
        y: Any = None,
        novelty: float | None = None,
        random_state: int | None = None,
    ) -> np.ndarray:
        """Frames of a path through images, or through conditions.

        Parameters
        ----------
        n_frames : int
        images : Images, array (n_keys, H, W[, C]) or any source that `Images` takes, optional
            Key images of the path. None: new images, one for each of `y`, from the same noise.
        y : array (n_keys,) or (n_keys, n_features), optional
            As in `sample`.
        novelty, random_state
            As in `sample`.

        Returns
        -------
        array (n_frames, H, W, C) of the fitted dtype
        """
        self._check_fitted()
        n_frames = check_int(n_frames, "n_frames", type(self).__name__, low=1)
        if images is None:
            if y is None:
                raise InputError("A morph takes key images, or 'y' for new ones. Got neither.")
            seed = self._seed_of(random_state)
            places = np.asarray(y)
            images = np.concatenate([self.sample(1, y=place, novelty=novelty, random_state=seed) for place in places])
        keys = to_values(complete_pixels(images, self.spec_), self.spec_)
        position = np.linspace(0, len(keys) - 1, n_frames)
        leg = np.minimum(position.astype(int), max(0, len(keys) - 2))
        t = position - leg
        t = t * t * (3 - 2 * t)
        after = np.minimum(leg + 1, len(keys) - 1)
        frames = []
        for i in range(n_frames):
            a, b = keys[leg[i] : leg[i] + 1], keys[after[i] : after[i] + 1]
            mixed = a + float(t[i]) * (b - a)
            sigma = self._sigma(MORPH_STRENGTH * 4 * t[i] * (1 - t[i]))
            frames.append(self._edited(mixed, sigma, None, novelty, random_state, also=(a, b)))
        return np.concatenate(frames) if frames else np.zeros((0, *self.spec_.shape), self.images_.dtype)

    @sharing_cores()
    def inpaint(
        self,
        images: Any,
        mask: np.ndarray | None = None,
        *,
        novelty: float | None = None,
        random_state: int | None = None,
    ) -> np.ndarray:
        """Images whose missing pixels are filled in; known pixels are returned as they are.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
            NaN is a missing pixel.
        mask : array (N, H, W) or (H, W) of bool, optional
            True where a pixel is missing.
        novelty, random_state
            As in `sample`.

        Returns
        -------
        array (N, H, W, C) of the fitted dtype
        """
        self._check_fitted()
        pixels, missing = pixels_to_edit(images, mask, self.spec_)
        if missing is None:
            return pixels.copy()
        values, known = self._without_scattered(to_values(pixels, self.spec_), torch.from_numpy(missing == 0))
        if known.all():
            made = from_values(values, self.spec_)
        else:
            made = self._held(values, known, self.spec_.shape[:2], novelty, random_state)
        return np.where(missing[..., None] > 0, made, pixels)

    @sharing_cores()
    def extend(
        self,
        images: Any,
        shape: tuple[int, int],
        *,
        at: tuple[int, int] | None = None,
        novelty: float | None = None,
        random_state: int | None = None,
    ) -> np.ndarray:
        """Images on a larger canvas, continued beyond their borders.

        Parameters
        ----------
        images : Images, array (N, H, W[, C]) or any source that `Images` takes
        shape : (height, width)
            Of the canvas, at least that of the images.
        at : (top, left), optional
            Where the image lies on the canvas. None: in its middle.
        novelty, random_state
            As in `sample`.

        Returns
        -------
        array (N, height, width, C) of the fitted dtype
        """
        self._check_fitted()
        pixels, missing = pixels_to_edit(images, None, self.spec_)
        size, shape = self.spec_.shape[:2], self._sampler(shape, False, novelty).canvas
        top, left = at if at is not None else ((shape[0] - size[0]) // 2, (shape[1] - size[1]) // 2)
        if not (0 <= top <= shape[0] - size[0] and 0 <= left <= shape[1] - size[1]):
            raise InputError(
                f"The canvas must hold the image of {size[0]} x {size[1]} pixels. Got {shape[0]} x {shape[1]} pixels "
                f"with the image at row {top} and column {left}."
            )
        place = (slice(None), slice(top, top + size[0]), slice(left, left + size[1]))
        known = torch.zeros(len(pixels), *shape, dtype=torch.bool)
        known[place] = True if missing is None else torch.from_numpy(missing == 0)
        values = torch.zeros(len(pixels), pixels.shape[3], *shape)
        values[:, :, place[1], place[2]] = to_values(pixels, self.spec_)
        made = self._held(values, known, shape, novelty, random_state)
        made[place] = np.where(known[place].numpy()[..., None], pixels, made[place])
        return made

    # -- parts -------------------------------------------------------------------------------------------------------

    def _sigma(self, strength: float) -> float:
        """The noise level of a strength of edits; for 1 that of samples."""
        highest = SIGMA_MAX * level_scale(3 * self.spec_.height * self.spec_.width)
        return WEAKEST * (highest / WEAKEST) ** strength if strength > 0 else 0.0

    def _sampler(self, shape: Any, tile: bool, novelty: float | None, n_stacks: int | None = None) -> Sampler:
        """The sampler of a canvas; `n_stacks` as in `Sampler.n_bytes`.

        Raises
        ------
        InputError
            If the shape is not two sizes in pixels, or its image would take more memory than there is.
        """
        size = self.spec_.shape[:2]
        canvas = size if shape is None else tuple(np.atleast_1d(shape).tolist())
        if len(canvas) != 2 or not all(isinstance(n, int) and n >= MIN_SIZE for n in canvas):
            raise InputError(f"'shape' must be a height and a width of at least {MIN_SIZE} pixels. Got {shape!r}.")
        if novelty is None:
            novelty = self.novelty_
        novelty = check_number(novelty, "novelty", type(self).__name__, low=0, high=1)
        sampler = Sampler(size, (canvas[0], canvas[1]), tile, Locality.of(novelty), self.n_steps)
        n_sources = max(COPIES, self.n_neighbors * (2 if self.mirrored_ else 1))
        needed = sampler.n_bytes(self.spec_.channels, n_sources, n_stacks)
        available = devices.total_memory(devices.pick_device(self.device))
        if needed > available:
            raise InputError(
                f"A canvas of {canvas[0]} x {canvas[1]} pixels would take {amount(needed)} of memory, and there are "
                f"{amount(available)}; ask for a smaller 'shape'."
            )
        return sampler

    def _targets(self, y: Any, n: int) -> list[Any]:
        """What each of n new images is near to: None, the index of a label, or a point among `vectors_`."""
        if y is None:
            return [None] * n
        if self.classes_ is not None:
            return labels_as_fitted(y, self.classes_, n).tolist()
        if self.space_ != "given":
            raise InputError(f"This {type(self).__name__} was fitted without 'y', so 'y' must be None.")
        points = vectors_as_fitted(y, len(self.mean_), n)
        return list((points - self.mean_) @ self.axes_)

    def _log_weights(self, weights: Any) -> np.ndarray:
        """The logarithms of weights of the images, (N,)."""
        n = len(self.images_)
        if weights is None:
            return np.zeros(n)
        values = np.asarray(weights, dtype=float)
        if values.shape != (n,) or not np.isfinite(values).all() or (values < 0).any() or not values.any():
            raise InputError(
                f"'weights' must be {n} non-negative numbers, one for each image of the set, not all 0. "
                f"Got an array of shape {values.shape}."
            )
        with np.errstate(divide="ignore"):
            return np.log(values / values.max())

    def _search(self) -> SourceSearch:
        """The search among the fitted images; kept, because it computes features of all of them."""
        known = vars(self).get("_searched")
        if known is None or known.images is not self.images_ or known.n_neighbors != self.n_neighbors:
            spec, vectors, labels = self.spec_, self.vectors_, self.labels_
            known = SourceSearch(self.images_, spec, vectors, labels, self.mirrored_, self.n_neighbors)
            self._searched = known
        return known

    def _composition(self, target: Any, prior: np.ndarray, rng: np.random.Generator) -> Composition:
        """The sources of one new image near a target of `_targets`."""
        search = self._search()
        if not isinstance(target, int):
            return search.near(target, prior, rng)
        prior = search.of_label(target, prior)
        if not np.isfinite(prior).any():
            assert self.classes_ is not None
            raise InputError(f"All images of the label {self.classes_[target]!r} have a weight of 0.")
        return search.near(None, prior, rng)

    def _run(
        self,
        sampler: Sampler,
        compositions: list[Composition],
        rng: np.random.Generator,
        start: Start | None = None,
        held: Held | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One new image (C, H, W) and the row of the main source (H, W) of each pixel, on the CPU."""
        device = devices.pick_device(self.device)
        stack_of = {
            id(one): partial(one.stack, self.images_, self.missing_, self.spec_, device=device) for one in compositions
        }
        stacks = [stack_of[id(one)] for one in compositions]
        image, rows = sampler(stacks, rng, self.spec_.channels, device, start, held)
        return image.cpu(), rows.cpu()

    def _finished(self, made: list[tuple[Tensor, Tensor]], canvas: tuple[int, int], with_provenance: bool) -> Any:
        """New images as pixels, and where these come from."""
        if not made:
            images = np.zeros((0, *canvas, self.spec_.channels), self.images_.dtype)
            return (images, Provenance(np.zeros((0, *canvas), np.int64), [])) if with_provenance else images
        images = from_values(torch.stack([image for image, _ in made]), self.spec_)
        if not with_provenance:
            return images
        rows = np.stack([rows.numpy() for _, rows in made])
        return images, Provenance(rows, [_shares(one) for one in rows])

    def _edited(
        self,
        values: Tensor,
        sigma: float,
        y: Any,
        novelty: float | None,
        random_state: int | None,
        also: tuple[Tensor, ...] = (),
    ) -> np.ndarray:
        """Images from values (N, C, H, W) plus noise; `also` are images whose neighbors take part."""
        seed, sampler = self._seed_of(random_state), self._sampler(None, False, novelty)
        targets = self._targets(y, len(values))
        device, made = devices.pick_device(self.device), []
        for i, one in enumerate(values):
            rng = seeding.rng(seed, "sample", i)
            if targets[i] is None:
                composition = self._search().alike([others[i] for others in also] or [one], None, rng)
            else:
                composition = self._composition(targets[i], self._log_weights(None), rng)
            start = Start(one.to(device), sigma) if sigma > 0 else None
            made.append(self._run(sampler, [composition], rng, start) if start else (one, torch.empty(0)))
        return self._finished(made, sampler.canvas, False)

    def _without_scattered(self, values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) whose scattered missing pixels are filled, and what is then known, (N, H, W)."""
        if not any(is_scattered(one).any() for one in known.numpy()):
            return values, known
        if "_mixture" not in vars(self):
            self._mixture = PatchMixture.of(self.images_, self.missing_, self.spec_, self.seed_)
        if self._mixture is None:
            return values, known
        filled = [self._mixture.fill_scattered(*one) for one in zip(values, known, strict=True)]
        return torch.stack([image for image, _ in filled]), torch.stack([seen for _, seen in filled])

    def _held(
        self, values: Tensor, known: Tensor, shape: Any, novelty: float | None, random_state: int | None
    ) -> np.ndarray:
        """Images of a shape that have values (N, C, H, W) where these are known, (N, H, W)."""
        seed, sampler = self._seed_of(random_state), self._sampler(shape, False, novelty)
        device, made = devices.pick_device(self.device), []
        height, width = sampler.window
        for i, (one, seen) in enumerate(zip(values, known, strict=True)):
            rng = seeding.rng(seed, "sample", i)
            compositions = []
            for top, left in sampler.corners():
                region = (slice(top, top + height), slice(left, left + width))
                some = seen[region] if seen[region].any() else None
                compositions.append(self._search().alike([one[:, *region] * (1 if some is None else some)], some, rng))
            held = Held(one.to(device), seen.to(device))
            made.append(self._run(sampler, compositions, rng, held=held))
        return self._finished(made, sampler.canvas, False)


def _between(keys: list[Any], at: float) -> Any:
    """The target at a position along a path of targets."""
    leg = min(int(at), max(0, len(keys) - 2))
    if len(keys) == 1 or keys[0] is None or isinstance(keys[0], int):
        return keys[round(at)]
    return keys[leg] + (at - leg) * (keys[leg + 1] - keys[leg])


def _shares(rows: np.ndarray) -> dict[int, float]:
    """The share of the pixels (H, W) of each row, largest first."""
    values, counts = np.unique(rows, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {int(values[i]): float(counts[i] / rows.size) for i in order}
