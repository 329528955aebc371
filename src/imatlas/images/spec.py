"""ImageSpec: what a network and a writer need to know about a set of pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

DTypeName = Literal["uint8", "uint16", "float32"]


@dataclass(frozen=True)
class ImageSpec:
    """The shape, depth and value range that all images of a set share.

    Parameters
    ----------
    height, width, channels : int
        Size in pixels, and 1 (grey), 3 (RGB), 4 (RGBA) or any other count for many-channel data.
    dtype : {'uint8', 'uint16', 'float32'}
        Depth of the pixels in the cache and of the images that models give back.
    low, high : float
        The values that networks see as -1 and +1. 0 and 255 for 8-bit sets; the 0.1 and 99.9 percentiles over the
        whole set for 16-bit and float ones. Values outside are kept, not clipped; only the 8-bit view clips.
    alpha : bool, optional
        Whether the last channel is opacity. By default it is where there are four channels of 8 bits; other values
        are for files that say that their four channels are measurements.
    """

    height: int
    width: int
    channels: int
    dtype: DTypeName = "uint8"
    low: float = 0.0
    high: float = 255.0
    alpha: bool | None = None

    def __post_init__(self) -> None:
        # What goes without saying is not said: equal specs are equal, and older versions read them.
        if self.alpha == (self.channels == 4 and self.dtype == "uint8"):
            object.__setattr__(self, "alpha", None)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        return (self.height, self.width, self.channels)

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is opacity."""
        return self.channels == 4 and self.dtype == "uint8" if self.alpha is None else self.alpha

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "alpha" or value is not None}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ImageSpec:
        """The spec that `to_json` wrote."""
        return cls(**values)
