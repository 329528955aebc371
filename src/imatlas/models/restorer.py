"""What models that restore images have in common, for the runs that restore folders with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

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
