"""Images as bytes: wavelet coefficients, quantized and written with the predictions of a network."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from imatlas.errors import InputError
from imatlas.models.parts import quantization
from imatlas.models.parts.quantization import bits_of, expected, quantized
from imatlas.models.parts.symbol_coder import LEAST_LOG_SCALE, MOST_LOG_SCALE, SymbolDecoder, SymbolEncoder
from imatlas.nn.coefficient_network import (
    N_BANDS,
    N_PLANES,
    CoefficientNetwork,
    Place,
    at_place,
    bands_of,
    put,
    sizes_at,
)
from imatlas.nn.wavelet import CDF97, Wavelet, band_sizes, sizes_of

MOST_COEFFICIENT = 2**24
"""Largest quantized coefficient."""


class Coefficients:
    """Wavelet coefficients of images (N, 3, H, W): the coarsest version, and the bands of each level, the finest first.

    Bands (N, 9, h, w) have the size of the coarser version; where a band is smaller, it is 0.
    """

    def __init__(self, coarsest: Tensor, levels: list[Tensor], size: tuple[int, int], wavelet: Wavelet = CDF97) -> None:
        self.coarsest, self.levels, self.size, self.wavelet = coarsest, levels, size, wavelet
        sizes = sizes_of(*size)
        self.shapes = [band_sizes(*each) for each in sizes[:-1]]

    @classmethod
    def of(cls, images: Tensor, wavelet: Wavelet = CDF97) -> Coefficients:
        """The coefficients of images (N, at most 3 planes, H, W); further planes are 0."""
        images = F.pad(images, (0, 0, 0, 0, 0, N_PLANES - images.shape[1]))
        size, levels = (images.shape[2], images.shape[3]), []
        while max(images.shape[2:]) > 2:
            images, bands = wavelet.analyze(images)
            height, width = images.shape[2:]
            filled = [F.pad(b, (0, width - b.shape[3], 0, height - b.shape[2])) for b in bands]
            levels.append(torch.stack(filled, 2).flatten(1, 2))
        return cls(images, levels, size, wavelet)

    @classmethod
    def zeros(cls, coarsest: Tensor, size: tuple[int, int]) -> Coefficients:
        """Coefficients to be filled in, all 0 but for the coarsest version."""
        n = len(coarsest)
        levels = [coarsest.new_zeros(n, N_BANDS, *each) for each in sizes_of(*size)[1:]]
        return cls(coarsest, levels, size)

    def image(self) -> Tensor:
        """The images (N, 3, H, W) of these coefficients."""
        image = self.coarsest
        for bands, shapes in zip(self.levels[::-1], self.shapes[::-1], strict=True):
            image = self.wavelet.synthesize(image, bands_of(bands, shapes))
        return image

    def inside(self, place: Place) -> list[tuple[int, int]]:
        """For each band at a place its rows and columns."""
        return sizes_at(place, self.shapes[place.level - 1])

    def used(self, place: Place, size: tuple[int, int]) -> Tensor:
        """1 for each value (bands, h, w) at a place that is inside its band, 0 for others."""
        used = torch.zeros(len(place.bands), *size)
        for k, (height, width) in enumerate(self.inside(place)):
            used[k, :height, :width] = 1
        return used

    def checksum(self) -> int:
        """CRC-32 of all coefficients as integers."""
        crc = 0
        for values in (self.coarsest, *self.levels):
            crc = zlib.crc32(values.numpy().astype("<i4").tobytes(), crc)
        return crc


class Quantizer:
    """Visitor that quantizes coefficients, and adds up the bits that they take: `bits` (N,)."""

    def __init__(self, coefficients: Coefficients, weight: float = quantization.RATE_WEIGHT) -> None:
        self.coefficients, self.weight = coefficients, weight
        self.decoded = Coefficients.zeros(torch.round(coefficients.coarsest), coefficients.size)
        self.bits: Tensor | float = 0.0

    def begin(self, level: int, bands: tuple[int, ...], color: int) -> bool:
        """See `Visitor`."""
        return True

    def visit(self, place: Place, prediction: Tensor) -> Tensor:
        """See `Visitor`."""
        mean, log_scale = prediction.unbind(1)
        rows, columns = mean.shape[2:]
        values = at_place(self.coefficients.levels[place.level - 1], place, (rows, columns))
        log_scale = log_scale.clamp(LEAST_LOG_SCALE, MOST_LOG_SCALE)
        used = self.coefficients.used(place, (rows, columns))
        with torch.no_grad():
            q = quantized(values, mean, log_scale, self.weight) * used
            put(self.decoded.levels[place.level - 1], place, expected(q, mean, log_scale, self.weight) * used)
        self.bits = self.bits + (bits_of(q, mean, log_scale) * used).sum((1, 2, 3))
        return q


class _Coded:
    """Integers, and their predictions, from which the images are made in the end."""

    def __init__(self, coarsest: Tensor, size: tuple[int, int]) -> None:
        self.integers = Coefficients.zeros(coarsest, size)
        self.means, self.log_scales = (Coefficients.zeros(coarsest.float(), size) for _ in range(2))
        self.used: set[tuple[int, tuple[int, ...]]] = set()

    def note(self, place: Place, mean: Tensor, log_scale: Tensor) -> None:
        """Keep a prediction."""
        put(self.means.levels[place.level - 1], place, mean)
        put(self.log_scales.levels[place.level - 1], place, log_scale)
        self.used.add((place.level - 1, place.bands))

    def image(self, weight: float) -> Tensor:
        """The images (N, 3, H, W) of the coefficients that are to be expected."""
        made = Coefficients.zeros(self.integers.coarsest.float(), self.integers.size)
        for level, bands in self.used:
            here = slice(bands[0], bands[-1] + 1)
            q, mean, log_scale = (c.levels[level][:, here] for c in (self.integers, self.means, self.log_scales))
            made.levels[level][:, here] = expected(q.float(), mean, log_scale, weight)
        return made.image()


class _Encoder:
    """Visitor that quantizes and writes."""

    def __init__(self, coefficients: Coefficients, n_planes: int, weight: float) -> None:
        self.coefficients, self.weight = coefficients, weight
        self.coded = _Coded(torch.round(coefficients.coarsest), coefficients.size)
        self.coder = SymbolEncoder()
        self.coder.plain(self.coded.integers.coarsest[:, :n_planes].numpy().astype(np.int64).ravel())
        self.waiting: list[tuple[Place, Tensor, Tensor, Tensor]] | None = None

    def begin(self, level: int, bands: tuple[int, ...], color: int) -> bool:
        """See `Visitor`."""
        self.flush()
        largest = self.coefficients.levels[level - 1][:, bands[0] : bands[-1] + 1].abs().max()
        if largest <= 0.5:
            self.coder.flag(False)
            return False
        self.waiting = []
        return True

    def flush(self) -> None:
        """Write the places of the pass that is done."""
        if self.waiting is None:
            return
        is_used = any(q.any() for _, q, _, _ in self.waiting)
        self.coder.flag(is_used)
        for place, q, mean, log_scale in self.waiting if is_used else ():
            inside = self.coefficients.inside(place)
            self.coder.integers(flat(q, inside).astype(np.int64), flat(mean, inside), flat(log_scale, inside))
            self.coded.note(place, mean, log_scale)
        self.waiting = None

    def visit(self, place: Place, prediction: Tensor) -> Tensor:
        """See `Visitor`."""
        mean, log_scale = prediction.unbind(1)
        values = at_place(self.coefficients.levels[place.level - 1], place, (mean.shape[2], mean.shape[3]))
        log_scale = log_scale.clamp(LEAST_LOG_SCALE, MOST_LOG_SCALE)
        q = quantized(values, mean, log_scale, self.weight).clamp_(-MOST_COEFFICIENT, MOST_COEFFICIENT)
        for k, (height, width) in enumerate(self.coefficients.inside(place)):
            q[:, k, height:], q[:, k, :, width:] = 0, 0
        assert self.waiting is not None
        self.waiting.append((place, q, mean, log_scale))
        put(self.coded.integers.levels[place.level - 1], place, q)
        return q


class _Decoder:
    """Visitor that reads."""

    def __init__(self, data: bytes, n: int, size: tuple[int, int], n_planes: int) -> None:
        self.coder = SymbolDecoder(data)
        self.coded = _Coded(read_coarsest(self.coder, n, n_planes, size), size)

    def begin(self, level: int, bands: tuple[int, ...], color: int) -> bool:
        """See `Visitor`."""
        return self.coder.flag()

    def visit(self, place: Place, prediction: Tensor) -> Tensor:
        """See `Visitor`."""
        mean, log_scale = prediction.unbind(1)
        inside = self.coded.integers.inside(place)
        log_scale = log_scale.clamp(LEAST_LOG_SCALE, MOST_LOG_SCALE)
        values = limited(self.coder.integers(flat(mean, inside), flat(log_scale, inside)))
        q = unflat(values, torch.zeros_like(mean), inside)
        put(self.coded.integers.levels[place.level - 1], place, q)
        self.coded.note(place, mean, log_scale)
        return q


def read_coarsest(coder: SymbolDecoder, n: int, n_planes: int, size: tuple[int, int]) -> Tensor:
    """The coarsest version (N, 3, h, w) of images of a size, of which some planes were written."""
    coarsest = torch.zeros(n, N_PLANES, *sizes_of(*size)[-1], dtype=torch.float64)
    used = coarsest[:, :n_planes]
    used.copy_(limited(coder.plain(used.numel())).view_as(used))
    return coarsest


def limited(values: np.ndarray) -> Tensor:
    """Integers that were read as float64, no larger than any that is written."""
    return torch.from_numpy(values.clip(-MOST_COEFFICIENT, MOST_COEFFICIENT).astype(np.float64))


def flat(values: Tensor, inside: Sequence[tuple[int, int]]) -> np.ndarray:
    """The values (N, bands, h, w) that are inside their bands, one band after the other."""
    parts = (values[:, k, :height, :width] for k, (height, width) in enumerate(inside))
    return np.concatenate([part.reshape(-1).numpy() for part in parts])


def unflat(values: Tensor, out: Tensor, inside: Sequence[tuple[int, int]]) -> Tensor:
    """The inverse of `flat`: put values into `out` (N, bands, h, w), and return it."""
    n = len(out)
    for k, (height, width) in enumerate(inside):
        part, values = values[: n * height * width], values[n * height * width :]
        out[:, k, :height, :width] = part.view(n, height, width)
    return out


@torch.no_grad()
def encode(
    network: CoefficientNetwork, images: Tensor, log_step: Tensor, weight: float = quantization.RATE_WEIGHT
) -> tuple[bytes, Tensor, int]:
    """Write images (N, planes, H, W) float64, in units of the quantization step.

    Returns
    -------
    data : bytes
    decoded : Tensor (N, planes, H, W) float32
        What `decode` makes of them.
    checksum : int
        For `decode`.
    """
    n_planes = images.shape[1]
    visitor = _Encoder(Coefficients.of(images), n_planes, weight)
    coded = visitor.coded
    network.walk(coded.integers.coarsest, log_step, coded.integers.size, n_planes, visitor)
    visitor.flush()
    return visitor.coder.finish(), coded.image(weight)[:, :n_planes], coded.integers.checksum()


@torch.no_grad()
def decode(
    network: CoefficientNetwork,
    data: bytes,
    shape: tuple[int, int, int, int],
    log_step: Tensor,
    checksum: int,
    weight: float = quantization.RATE_WEIGHT,
) -> Tensor:
    """The images (N, planes, H, W) float32 that `encode` wrote, in units of the quantization step.

    Raises
    ------
    InputError
        If the data is damaged, or was written with another network.
    """
    n, n_planes, height, width = shape
    visitor = _Decoder(data, n, (height, width), n_planes)
    coded = visitor.coded
    network.walk(coded.integers.coarsest, log_step, (height, width), n_planes, visitor)
    if coded.integers.checksum() != checksum:
        raise InputError("The compressed data is damaged, or was written with another model: its checksum is wrong.")
    return coded.image(weight)[:, :n_planes]
