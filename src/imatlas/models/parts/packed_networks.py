"""Networks of a codec as few bytes: their differences to the general ones, in multiples of 2⁻⁷, by the range coder.

A model that was adapted to a folder differs by little, and some weights not at all. For each tensor, in the order of
the network: whether it differs, and if so the scale of its differences, in sixths of an octave, and these. Before all
of them stands their CRC-32.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from imatlas.errors import InputError
from imatlas.models.parts.published_weights import codec_weights
from imatlas.models.parts.symbol_coder import AN_OCTAVE, SymbolDecoder, SymbolEncoder

SPACING = 2.0**-7
"""Finer ones give no smaller files, and larger models."""
MOST_DIFFERENCE = 2**20
"""Times the spacing."""


def load_general(networks: nn.Module, name: str) -> None:
    """Give networks the weights of a name that were learned from photographs."""
    networks.load_state_dict(_general(name))


def round_to_packed(networks: nn.Module, name: str) -> None:
    """Round weights to those that `unpack` would give."""
    general = _general(name)
    networks.load_state_dict(_restored(_differences(networks, general), general))


def pack(networks: nn.Module, general: str) -> bytes:
    """Networks, whose weights are rounded, as bytes."""
    encoder, crc = SymbolEncoder(), 0
    for difference in _differences(networks, _general(general)).values():
        q = difference.ravel()
        encoder.flag(bool(q.any()))
        if q.any():
            scale = round(AN_OCTAVE * np.log2(np.abs(q).mean() / (2 * np.log(2))))  # of a logistic distribution
            encoder.plain(np.array([scale]))
            encoder.integers(q, np.zeros(q.size), np.full(q.size, scale / AN_OCTAVE))
        crc = _checksum(q, crc)
    return struct.pack("<I", crc) + encoder.finish()


def unpack(networks: nn.Module, packed: bytes, general: str) -> None:
    """Give networks the weights that `pack` was given.

    Raises
    ------
    InputError
        If the bytes are damaged.
    """
    if len(packed) < 4 or len(packed) % 4:
        raise InputError("The model in the file is damaged (it is cut off).")
    decoder, crc, differences = SymbolDecoder(packed[4:]), 0, {}
    for name, values in networks.state_dict().items():
        q = np.zeros(values.numel(), np.int64)
        if decoder.flag():
            scale = float(decoder.plain(1)[0]) / AN_OCTAVE
            q = decoder.integers(np.zeros(q.size), np.full(q.size, scale))
        crc = _checksum(q, crc)
        differences[name] = q.reshape(values.shape)
    if struct.pack("<I", crc) != packed[:4]:
        raise InputError("The model in the file is damaged (its checksum is wrong).")
    networks.load_state_dict(_restored(differences, _general(general)))


def _checksum(q: np.ndarray, crc: int) -> int:
    return zlib.crc32(q.astype("<i8").tobytes(), crc)


def _general(name: str) -> dict[str, Tensor]:
    return {part: values.float() for part, values in codec_weights(name).items()}


def _differences(networks: nn.Module, general: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Differences to the general weights, as integers."""
    return {
        name: np.rint(((values - general[name]).double() / SPACING).numpy())
        .clip(-MOST_DIFFERENCE, MOST_DIFFERENCE)
        .astype(np.int64)
        for name, values in networks.state_dict().items()
    }


def _restored(differences: Mapping[str, np.ndarray], general: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: general[name] + torch.from_numpy((difference * SPACING).astype(np.float32))
        for name, difference in differences.items()
    }
