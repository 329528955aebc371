"""Images: a set of pictures from any source, and the one way in for every model (`load_pixels`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.errors import InputError, InputTypeError, SourceError
from imatlas.images.spec import ImageSpec


class Images:
    """A set of pictures; first version: arrays and plain folders, held in memory."""

    def __init__(
        self,
        source: Any,
        *,
        image_size: int | tuple[int, int] | None = None,
        fit: str = "crop",
        background: tuple[int, int, int] = (255, 255, 255),
        frames: str = "first",
        cache_dir: str | Path | None = None,
        workers: int | None = None,
        progress: bool = False,
        thumbnail_size: int | None = None,
    ) -> None:
        self.source = source
        self.image_size = image_size
        self.fit = fit
        self.background = background
        self.skipped: list[tuple[str, str]] = []
        self.thumbnails = None
        if isinstance(source, str | Path):
            self._read_folder(Path(source))
        else:
            self.pixels, self.spec = as_pixels(source)
            self.keys = [f"{i:06d}" for i in range(len(self.pixels))]
            if image_size is not None:
                self.pixels = _resize(self.pixels, image_size)
                self.spec = replace(self.spec, height=self.pixels.shape[1], width=self.pixels.shape[2])

    def _read_folder(self, folder: Path) -> None:
        from PIL import Image, ImageOps

        if not folder.exists():
            raise SourceError(f"There is no folder '{folder}'.")
        size = self.image_size or 64
        height, width = (size, size) if isinstance(size, int) else size
        rows, self.keys = [], []
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            try:
                with Image.open(path) as image:
                    picture = ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (width, height))
            except Exception as error:
                self.skipped.append((path.relative_to(folder).as_posix(), str(error)))
                continue
            rows.append(np.asarray(picture))
            self.keys.append(path.relative_to(folder).as_posix())
        if not rows:
            raise InputError(f"No image in '{folder}' can be read.")
        self.pixels = np.stack(rows)
        self.spec = ImageSpec(height, width, 3)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):
            return self.pixels[index]
        view = Images.__new__(Images)
        view.__dict__.update(self.__dict__)
        view.pixels = self.pixels[index]
        view.keys = list(np.asarray(self.keys, dtype=object)[index])
        return view

    def batches(self, batch_size: int, image_size: Any = None, channels: int | None = None) -> Iterator[np.ndarray]:
        """Arrays (n, H, W, C) of `batch_size` images, in order."""
        for start in range(0, len(self), batch_size):
            rows = self.pixels[start : start + batch_size]
            if image_size is not None:
                rows = _resize(rows, image_size)
            if channels == 3 and rows.shape[-1] == 1:
                rows = np.repeat(rows, 3, axis=-1)
            yield rows

    def split(self, held_out: float = 0.1, random_state: int = 0) -> tuple[Images, Images]:
        """(train, held_out) views, drawn by `random_state`."""
        order = np.random.default_rng(random_state).permutation(len(self))
        n = min(len(self) - 1, max(1, round(held_out * len(self))))
        return self[np.sort(order[n:])], self[np.sort(order[:n])]

    @property
    def fingerprint(self) -> str:
        """A hash over the content."""
        return hashlib.sha256(np.ascontiguousarray(self.pixels).tobytes()).hexdigest()


def as_pixels(array: Any) -> tuple[np.ndarray, ImageSpec]:
    """An array or tensor (N, H, W[, C]) as pixels (N, H, W, C) with their spec."""
    if hasattr(array, "detach"):
        array = array.detach().cpu().numpy()
    if not isinstance(array, np.ndarray):
        raise InputTypeError(f"Images cannot be read from a {type(array).__name__}.")
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or 0 in array.shape:
        raise InputError(f"An array of images must be (N, H, W) or (N, H, W, C). Got shape {array.shape} instead.")
    n, height, width, channels = array.shape
    if array.dtype == np.uint8:
        return array, ImageSpec(height, width, channels)
    if array.dtype != np.uint16:
        array = array.astype(np.float32, copy=False)
    low, high = (float(v) for v in np.nanpercentile(array, (0.1, 99.9)))
    if array.dtype == np.float32 and np.nanmin(array) >= 0 and np.nanmax(array) <= 1:
        low, high = 0.0, 1.0
    if high <= low:
        high = low + 1.0
    return array, ImageSpec(height, width, channels, array.dtype.name, low, high)


def load_pixels(
    images: Any, *, image_size: int | tuple[int, int] | None = None, mask: np.ndarray | None = None
) -> tuple[np.ndarray, ImageSpec]:
    """The pixels (N, H, W, C) and spec of an `Images`, an array or tensor (N, H, W[, C]), or any source of `Images`.

    `mask` (N, H, W), True where a pixel is missing, gives a float array with NaN there.
    """
    if not isinstance(images, Images):
        images = Images(images, image_size=image_size)
    pixels, spec = images.pixels, images.spec
    if image_size is not None:
        size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        if size != (spec.height, spec.width):
            pixels = _resize(pixels, size)
            spec = replace(spec, height=size[0], width=size[1])
    if mask is not None:
        mask = np.asarray(mask, dtype=bool)
        if mask.shape != pixels.shape[:3]:
            raise InputError(f"The mask must have the shape {pixels.shape[:3]}. Got {mask.shape} instead.")
        pixels = np.where(mask[..., None], np.float32(np.nan), pixels.astype(np.float32))
        spec = replace(spec, dtype="float32")
    return pixels, spec


def _resize(pixels: np.ndarray, image_size: int | tuple[int, int]) -> np.ndarray:
    """Pixels at another size (first version: through torch)."""
    import torch

    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if pixels.shape[1:3] == size:
        return pixels
    values = torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2)
    values = torch.nn.functional.interpolate(values, size=size, mode="bilinear", antialias=True)
    out = values.permute(0, 2, 3, 1).numpy()
    return out if pixels.dtype == np.float32 else np.rint(out).astype(pixels.dtype)
