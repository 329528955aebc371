"""Images of integers as bytes, without loss: coefficients of the interpolating wavelet, written with the predictions of
a network."""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from imatlas.errors import InputError
from imatlas.models.parts.coefficient_coding import Coefficients, flat, limited, read_coarsest, unflat
from imatlas.models.parts.mixtures import LEAST_LOG_SCALE, MOST_LOG_SCALE
from imatlas.models.parts.quantization import bits_of
from imatlas.models.parts.symbol_coder import SymbolDecoder, SymbolEncoder
from imatlas.nn.coefficient_network import CoefficientNetwork, Place, at_place
from imatlas.nn.wavelet import INTERPOLATING

NO_STEP = torch.zeros(1, 1, 1, 1)


class Rate:
    """Visitor that adds up the bits that coefficients take: `bits` (N,)."""

    def __init__(self, coefficients: Coefficients) -> None:
        self.coefficients = coefficients
        self.bits: Tensor | float = 0.0

    def begin(self, level: int, bands: tuple[int, ...], color: int) -> bool:
        """See `Visitor`."""
        return True

    def visit(self, place: Place, prediction: Tensor) -> Tensor:
        """See `Visitor`."""
        size = (prediction.shape[-2], prediction.shape[-1])
        q = at_place(self.coefficients.levels[place.level - 1], place, size)
        mean, log_scale, log_weight = prediction.chunk(3, 1)
        log_scale = log_scale.clamp(LEAST_LOG_SCALE, MOST_LOG_SCALE)
        share = F.log_softmax(log_weight * math.log(2), 1) - bits_of(q[:, None], mean, log_scale) * math.log(2)
        bits = -torch.logsumexp(share, 1) / math.log(2)
        self.bits = self.bits + (bits * self.coefficients.used(place, size)).sum((1, 2, 3))
        return q


class _Writer:
    """Visitor that writes."""

    def __init__(self, coefficients: Coefficients) -> None:
        self.coefficients, self.coder = coefficients, SymbolEncoder()

    def begin(self, level: int, bands: tuple[int, ...], color: int) -> bool:
        """See `Visitor`."""
        is_used = bool(self.coefficients.levels[level - 1][:, bands[0] : bands[-1] + 1].any())
        self.coder.flag(is_used)
        return is_used

    def visit(self, place: Place, prediction: Tensor) -> Tensor:
        """See `Visitor`."""
        q = at_place(self.coefficients.levels[place.level - 1], place, (prediction.shape[-2], prediction.shape[-1]))
        inside = self.coefficients.inside(place)
        self.coder.mixed(flat(q, inside).astype(np.int64), _flat_predictions(prediction, inside))
        return q


class _Reader:
    """Visitor that reads."""

    def __init__(self, coefficients: Coefficients, coder: SymbolDecoder) -> None:
        self.coefficients, self.coder = coefficients, coder

    def begin(self, level: int, bands: tuple[int, ...], color: int) -> bool:
        """See `Visitor`."""
        return self.coder.flag()

    def visit(self, place: Place, prediction: Tensor) -> Tensor:
        """See `Visitor`."""
        inside = self.coefficients.inside(place)
        values = limited(self.coder.mixed(_flat_predictions(prediction, inside)))
        return unflat(values, torch.zeros_like(prediction[:, 0]), inside)


def _flat_predictions(prediction: Tensor, inside: list[tuple[int, int]]) -> np.ndarray:
    """Predictions (components, n) of the values that are inside their bands."""
    return np.stack([flat(part, inside) for part in prediction.unbind(1)])


@torch.no_grad()
def write_exactly(network: CoefficientNetwork, planes: Tensor, n_low_bits: int) -> tuple[bytes, int]:
    """Write planes (N, planes, H, W) of integers as float64; their last bits are written as they are.

    Returns
    -------
    data : bytes
    checksum : int
        For `read_exactly`.
    """
    n_planes, size = planes.shape[1], (planes.shape[2], planes.shape[3])
    high = torch.floor(planes * 2.0**-n_low_bits)
    coefficients = Coefficients.of(high, INTERPOLATING)
    visitor = _Writer(coefficients)
    visitor.coder.plain(coefficients.coarsest[:, :n_planes].numpy().astype(np.int64).ravel())
    network.walk(coefficients.coarsest, NO_STEP, size, n_planes, visitor)
    low = planes - high * 2.0**n_low_bits
    visitor.coder.bits(low.numpy().astype(np.int64).ravel(), n_low_bits)
    return visitor.coder.finish(), _checksum(planes)


@torch.no_grad()
def read_exactly(
    network: CoefficientNetwork, data: bytes, shape: tuple[int, int, int, int], n_low_bits: int, checksum: int
) -> Tensor:
    """The planes (N, planes, H, W) that `write_exactly` wrote.

    Raises
    ------
    InputError
        If the data is damaged, or was written with another network.
    """
    n, n_planes, height, width = shape
    coder = SymbolDecoder(data)
    coarsest = read_coarsest(coder, n, n_planes, (height, width))
    visitor = _Reader(Coefficients.zeros(coarsest, (height, width)), coder)
    high = network.walk(coarsest, NO_STEP, (height, width), n_planes, visitor)[:, :n_planes]
    low = torch.from_numpy(coder.bits(high.numel(), n_low_bits)).view_as(high)
    planes = high * 2.0**n_low_bits + low
    if _checksum(planes) != checksum:
        raise InputError("The compressed data is damaged, or was written with another model: its checksum is wrong.")
    return planes


def _checksum(planes: Tensor) -> int:
    """CRC-32 of integers."""
    return zlib.crc32(planes.numpy().astype("<i8").tobytes())
