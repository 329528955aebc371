"""What models that restore images have in common, for the runs that restore folders with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from imatlas.errors import InputError
from imatlas.images.dataset import Images
from imatlas.images.spec import ImageSpec

Fact = str | int | float | bool | None
"""One cell of a table of images."""


@runtime_checkable
class Restorer(Protocol):
    """A model that restores one image of any size at a time.

    If it has `any_kind = True`, it takes images of other channels and depth than those it was fitted to; else they are
    given as these are.
    """

    def restore(self, pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
        """Pixels (H, W, C) restored: of the same dtype and channels, and of the same size or a multiple of it."""
        ...


@dataclass(frozen=True)
class Restoration:
    """A restored image, and what is known about it.

    Attributes
    ----------
    pixels : ndarray (H, W, C)
    facts : mapping of str to Fact
        What was measured or decided, by the name of its column in the table of images.
    maps : mapping of str to ndarray (H, W) of float
        Such as the spread of several restorations, by name.
    others : sequence of ndarray (H, W, C)
        Further restorations that are as plausible.
    """

    pixels: np.ndarray
    facts: Mapping[str, Fact] = field(default_factory=dict)
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    others: tuple[np.ndarray, ...] = ()


@runtime_checkable
class ExplainedRestorer(Restorer, Protocol):
    """A model that also tells facts about each restored image."""

    def restoration(self, pixels: np.ndarray, spec: ImageSpec, **options: Any) -> Restoration:
        """As `restore`, with what is known about it; options are those of the model."""
        ...


@runtime_checkable
class SummarizedRestorer(Restorer, Protocol):
    """A model that can say what it learned."""

    def summary(self) -> list[str]:
        """Sentences for the user, the most important first: what was measured on the images, and what was chosen."""
        ...


def restore_each(
    restore: Callable[[np.ndarray, ImageSpec], np.ndarray], images: Images, *, scale: int = 1
) -> np.ndarray:
    """All images of a set restored, (N, scale * H, scale * W, C) of their dtype; only some are in memory at a time."""
    spec = images.spec
    out = np.empty((len(images), spec.height * scale, spec.width * scale, spec.channels), spec.dtype)
    each = (pixels for batch in images.batches(16) for pixels in batch)
    for made, pixels in zip(out, each, strict=True):
        made[...] = restore(pixels, spec)
    return out


def check_like_fitted(name: str, fitted: ImageSpec, spec: ImageSpec) -> None:
    """Raise InputError if images have other channels or another depth than those that a model was fitted to."""
    if (spec.channels, spec.dtype) != (fitted.channels, fitted.dtype):
        raise InputError(
            f"This {name} takes images of {fitted.channels} channels, {fitted.dtype}. Got {spec.channels} channels, "
            f"{spec.dtype} instead; give images like those it was fitted to."
        )
