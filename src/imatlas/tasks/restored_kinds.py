"""Images of a mixed set, given to a restorer in the channels and depth that it was fitted to, and taken back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from imatlas.errors import InputError
from imatlas.images.pixels import kind_of
from imatlas.images.spec import ImageSpec
from imatlas.models.restorer import ExplainedRestorer, Restoration, Restorer

TOP = {"uint8": 255.0, "uint16": 65535.0}


def restoration_as_fitted(restorer: Restorer, pixels: np.ndarray, spec: ImageSpec, **options: Any) -> Restoration:
    """An image (H, W, C) restored by a model that was fitted to a set, in its own channels and depth.

    Alpha that the set does not have is kept as it is, if the size stays; gray is given as RGB; integers of another
    depth are given as floats in the units of the set.

    Raises
    ------
    InputError
        If the image has more or fewer channels than the set.
    """
    fitted: ImageSpec | None = getattr(restorer, "spec_", None)
    if fitted is None or kind_of(fitted) == kind_of(spec):
        return restoration_by(restorer, pixels, spec, **options)
    colors, alpha = pixels, None
    if spec.has_alpha and not fitted.has_alpha:
        colors, alpha = pixels[..., :-1], pixels[..., -1:]
    gray_as_rgb = colors.shape[2] == 1 and fitted.channels == 3
    if gray_as_rgb:
        colors = np.repeat(colors, 3, axis=2)
    if colors.shape[2] != fitted.channels:
        raise InputError(
            f"{colors.shape[2]} channels, but {fitted.channels} in the images that the model was fitted to"
        )
    given = replace(spec, channels=fitted.channels, alpha=fitted.has_alpha)
    unit = 1.0
    if spec.dtype in TOP and fitted.dtype in TOP and spec.dtype != fitted.dtype:
        unit = TOP[fitted.dtype] / TOP[spec.dtype]
        given = replace(given, dtype="float32", low=spec.low * unit, high=spec.high * unit)
        colors = colors.astype(np.float32) * np.float32(unit)
    made = restoration_by(restorer, colors, given, **options)
    values, maps = made.pixels, made.maps
    if gray_as_rgb:
        values = _in_dtype(values.mean(axis=2, keepdims=True, dtype=np.float32), values.dtype)
    if unit != 1.0:
        values = _in_dtype(values / np.float32(unit), pixels.dtype)
        maps = {name: errors / np.float32(unit) for name, errors in maps.items()}
    if alpha is not None:
        factors = tuple(a // b for a, b in zip(values.shape, alpha.shape, strict=True))[:2]
        values = np.concatenate([values, alpha.repeat(factors[0], 0).repeat(factors[1], 1)], axis=2)
    return replace(made, pixels=values, maps=maps, others=())


def restoration_by(restorer: Restorer, pixels: np.ndarray, spec: ImageSpec, **options: Any) -> Restoration:
    """An image restored, with the facts that the model tells."""
    if isinstance(restorer, ExplainedRestorer):
        return restorer.restoration(pixels, spec, **options)
    return Restoration(restorer.restore(pixels, spec, **options))


def _in_dtype(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    if dtype.kind == "f":
        return values.astype(dtype)
    return np.clip(np.rint(values), 0, np.iinfo(dtype).max).astype(dtype)
