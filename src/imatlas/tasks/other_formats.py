"""Whether other formats would take fewer bytes, of some images of a run; told at its end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from imatlas.arguments import counted
from imatlas.images.encode_small import READABLE, small_files
from imatlas.images.spec import ImageSpec
from imatlas.metrics.restoration import psnr
from imatlas.models.parts.coded_image import CodedImages

N_COMPARED, SIDE, MOST_PIXELS = 8, 512, 2**19
"""Runs of images that are compared, at most; the side of the part of an image that is, and pixels of a run."""


class Comparison:
    """Bytes of some images as they are compressed here, and as files of other formats that are at least as good."""

    def __init__(self, code: Callable[[np.ndarray, ImageSpec], tuple[CodedImages, np.ndarray]]) -> None:
        self._code, self.n_images = code, 0
        self.own_bytes: dict[str, int] = {}
        self.bytes: dict[str, int] = {}

    def add(self, pixels: np.ndarray, spec: ImageSpec) -> None:
        """Compare images (N, H, W, C) of one size: the middle of large ones."""
        if pixels.dtype != np.uint8:
            return
        top, left = (max(0, (side - SIDE) // 2) for side in pixels.shape[1:3])
        pixels = pixels[:, top : top + SIDE, left : left + SIDE]
        pixels = np.ascontiguousarray(pixels[: max(1, MOST_PIXELS // (pixels.shape[1] * pixels.shape[2]))])
        coded, decoded = self._code(pixels, spec)
        own, totals = len(coded.to_bytes()), dict[str, int]()
        for image, made in zip(pixels, decoded, strict=True):
            for file in small_files(image, spec.has_alpha, at_least(image, made, coded)):
                totals[file.format] = totals.get(file.format, 0) + len(file.content)
        for format, size in totals.items():
            self.bytes[format] = self.bytes.get(format, 0) + size
            self.own_bytes[format] = self.own_bytes.get(format, 0) + own
        self.n_images += len(pixels) if totals else 0

    def ratios(self) -> dict[str, float]:
        """How many times as many bytes each format takes."""
        return {format: size / self.own_bytes[format] for format, size in self.bytes.items()}

    def sentence(self, lossless: bool) -> str:
        """What was found, or "" if nothing was compared."""
        ratios = self.ratios()
        if not ratios:
            return ""
        told = ", ".join(f"{format} {ratio - 1:+.0%}" for format, ratio in ratios.items())
        smaller = "; --best takes the smallest for each" if any(ratios.get(name, 1) < 1 for name in READABLE) else ""
        quality = "without loss" if lossless else "at the same quality"
        return f"{counted(self.n_images, 'image')}, or parts of them, as other formats {quality}: {told}{smaller}."


def at_least(image: np.ndarray, made: np.ndarray, coded: CodedImages) -> Callable[[np.ndarray], bool] | None:
    """Whether decoded pixels are at least as close to an image as `made` is; None of images without loss."""
    if coded.step is None:
        return None
    least = psnr(image[None], made[None], span=255)
    return lambda pixels: psnr(image[None], pixels[None], span=255) >= least
