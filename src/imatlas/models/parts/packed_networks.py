"""Networks of a codec as few bytes: their differences to the general ones, by the range coder.

A model that was adapted to a folder differs by little, and some weights not at all.

    uint32  CRC-32 of all differences
    byte    their binary places: they are multiples of 2 to the minus this; those of the filter have `FINER` more
    output of the range coder: for each tensor, in the order of the network, whether it differs, and if so the scale of
    its differences, in sixths of an octave, and these
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

MOST_DIFFERENCE = 2**20
"""As an integer."""
HEAD, MOST_PLACES = struct.Struct("<IB"), 28
FINER = 2
"""More binary places of the filter, of which few weights differ, and whose rounding is seen in every pixel."""


def load_general(networks: nn.Module, name: str) -> None:
    """Give networks the weights of a name that were learned from photographs."""
    networks.load_state_dict(_general(name))


def round_to_packed(networks: nn.Module, name: str, places: int) -> None:
    """Round weights to those that `unpack` would give."""
    general = _general(name)
    networks.load_state_dict(_restored(_differences(networks, general, places), general, places))


def pack(networks: nn.Module, general: str, places: int) -> bytes:
    """Networks, whose weights are rounded to so many binary places, as bytes."""
    encoder, crc = SymbolEncoder(), 0
    for difference in _differences(networks, _general(general), places).values():
        q = difference.ravel()
        encoder.flag(bool(q.any()))
        if q.any():
            scale = round(AN_OCTAVE * np.log2(np.abs(q).mean() / (2 * np.log(2))))  # of a logistic distribution
            encoder.plain(np.array([scale]))
            encoder.integers(q, np.zeros(q.size), np.full(q.size, scale / AN_OCTAVE))
        crc = _checksum(q, crc)
    return HEAD.pack(crc, places) + encoder.finish()


def unpack(networks: nn.Module, packed: bytes, general: str) -> int:
    """Give networks the weights that `pack` was given, and return their binary places.

    Raises
    ------
    InputError
        If the bytes are damaged.
    """
    if len(packed) < HEAD.size or (len(packed) - HEAD.size) % 4:
        raise InputError("The model in the file is damaged (it is cut off).")
    checksum, places = HEAD.unpack(packed[: HEAD.size])
    decoder, crc, differences = SymbolDecoder(packed[HEAD.size :]), 0, {}
    for name, values in networks.state_dict().items():
        q = np.zeros(values.numel(), np.int64)
        if decoder.flag():
            scale = float(decoder.plain(1)[0]) / AN_OCTAVE
            q = decoder.integers(np.zeros(q.size), np.full(q.size, scale))
        crc = _checksum(q, crc)
        differences[name] = q.reshape(values.shape)
    if crc != checksum or places > MOST_PLACES:
        raise InputError("The model in the file is damaged (its checksum is wrong).")
    networks.load_state_dict(_restored(differences, _general(general), places))
    return int(places)


def _checksum(q: np.ndarray, crc: int) -> int:
    return zlib.crc32(q.astype("<i8").tobytes(), crc)


def _general(name: str) -> dict[str, Tensor]:
    return {part: values.float() for part, values in codec_weights(name).items()}


def _differences(networks: nn.Module, general: Mapping[str, Tensor], places: int) -> dict[str, np.ndarray]:
    """Differences to the general weights, as integers."""
    return {
        name: np.rint(((values - general[name]).double() * 2.0 ** _places_of(name, places)).numpy())
        .clip(-MOST_DIFFERENCE, MOST_DIFFERENCE)
        .astype(np.int64)
        for name, values in networks.state_dict().items()
    }


def _places_of(name: str, places: int) -> int:
    """Binary places of a tensor."""
    return places + FINER * name.startswith("filter.")


def _restored(differences: Mapping[str, np.ndarray], general: Mapping[str, Tensor], places: int) -> dict[str, Tensor]:
    return {
        name: general[name] + torch.from_numpy((difference * 2.0 ** -_places_of(name, places)).astype(np.float32))
        for name, difference in differences.items()
    }
