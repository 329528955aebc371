"""`ImageSpec`: the shape, dtype and value range of a set of images."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

DTypeName = Literal["uint8", "uint16", "float32"]

MAX_IMAGE_SIDE, MAX_IMAGE_CHANNELS = 4096, 4096
"""Maximal side in pixels, and maximal number of channels, of images for models."""


@dataclass(frozen=True)
class ImageSpec:
    """The shape, dtype and value range that all images of a set share.

    Parameters
    ----------
    height, width, channels : int
        Size in pixels, and 1 (gray), 3 (RGB), 4 (RGBA) or any other number of channels.
    dtype : {'uint8', 'uint16', 'float32'}
        Dtype of the pixels in the cache and of the images that models return.
    low, high : float
        The values that map to -1 and +1 for networks: 0 and 255 for 8-bit sets, the 0.1 and 99.9 percentiles of the
        set for 16-bit and float ones. Values outside are kept; only the 8-bit view clips.
    alpha : bool, optional
        Whether the last channel is alpha; by default True for four 8-bit channels. False for files that declare their
        four channels to be measurements.
    """

    height: int
    width: int
    channels: int
    dtype: DTypeName = "uint8"
    low: float = 0.0
    high: float = 255.0
    alpha: bool | None = None

    def __post_init__(self) -> None:
        # The default is stored as None, so that equal specs compare equal.
        if self.alpha == (self.channels == 4 and self.dtype == "uint8"):
            object.__setattr__(self, "alpha", None)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        return (self.height, self.width, self.channels)

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.channels == 4 and self.dtype == "uint8" if self.alpha is None else self.alpha

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any], *, most_side: int = MAX_IMAGE_SIDE) -> ImageSpec:
        """The spec that `to_json` wrote, of images of at most `most_side` pixels a side.

        Raises
        ------
        ValueError
            If the values are of another type or out of range, or the pixel range is empty.
        """
        if not isinstance(values, dict) or set(values) != {field.name for field in fields(cls)}:
            raise ValueError(f"an image spec must have the keys {', '.join(field.name for field in fields(cls))}")
        for name, most in (("height", most_side), ("width", most_side), ("channels", MAX_IMAGE_CHANNELS)):
            value = values[name]
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise ValueError(f"the {name} must be an int in the range [1, {most:,}]; got {str(value)[:40]}")
        if values["dtype"] not in get_args(DTypeName):
            raise ValueError(f"the dtype must be one of {get_args(DTypeName)}; got {str(values['dtype'])[:40]}")
        if values["alpha"] is not None and not isinstance(values["alpha"], bool):
            raise ValueError(f"alpha must be true, false or null; got {str(values['alpha'])[:40]}")
        low, high = values["low"], values["high"]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 3.5e38 for v in (low, high))
        if not numbers or not math.isfinite(high - low) or low >= high:
            raise ValueError(f"low must be less than high; got {str(low)[:40]} to {str(high)[:40]}")
        return cls(**values)
