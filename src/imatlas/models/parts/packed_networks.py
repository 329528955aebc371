"""Networks of a codec as few bytes: their differences to the general ones, in multiples of 2⁻¹⁰, deflated.

A model that was adapted to a folder differs in a tenth of its weights, and by little.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor, nn

from imatlas.errors import InputError
from imatlas.models.parts.published_weights import codec_weights

SPACING = 2.0**-10
HEADER = 2**17
"""Bytes of a packed network besides its weights, at most."""


def load_general(networks: nn.Module) -> None:
    """Give networks the weights that were learned from photographs."""
    networks.load_state_dict(_general())


def round_to_packed(networks: nn.Module) -> None:
    """Round weights to those that `unpacked` would give."""
    general = _general()
    networks.load_state_dict(_restored(_differences(networks, general), general))


def pack(networks: nn.Module) -> bytes:
    """Networks, whose weights are rounded, as bytes; the low and the high bytes of numbers are kept apart."""
    parts = {
        name: np.ascontiguousarray(difference.astype("<i2").reshape(-1, 1).view(np.uint8).T)
        for name, difference in _differences(networks, _general()).items()
        if difference.any()
    }
    return zlib.compress(save(parts), 9)


def unpack(networks: nn.Module, packed: bytes) -> None:
    """Give networks the weights that `pack` was given.

    Raises
    ------
    InputError
        If the bytes are damaged.
    """
    shapes = {name: tuple(values.shape) for name, values in networks.state_dict().items()}
    most = 2 * sum(int(np.prod(shape)) for shape in shapes.values()) + HEADER
    try:
        parts = load(zlib.decompressobj().decompress(packed, most))
        differences = {name: np.zeros(shape, np.int64) for name, shape in shapes.items()}
        for name, part in parts.items():
            if part.dtype != np.uint8 or part.shape != (2, differences[name].size):
                raise ValueError(f"'{name}' has another shape")
            differences[name] = np.ascontiguousarray(part.T).view("<i2").astype(np.int64).reshape(shapes[name])
    except (zlib.error, SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"The model in the file is damaged ({str(error).splitlines()[0]}).") from None
    networks.load_state_dict(_restored(differences, _general()))


def _general() -> dict[str, Tensor]:
    return {name: values.float() for name, values in codec_weights().items()}


def _differences(networks: nn.Module, general: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Differences to the general weights, as integers."""
    return {
        name: np.rint(((values - general[name]).double() / SPACING).numpy()).clip(-(2**15), 2**15 - 1).astype(np.int64)
        for name, values in networks.state_dict().items()
    }


def _restored(differences: Mapping[str, np.ndarray], general: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: general[name] + torch.from_numpy((difference * SPACING).astype(np.float32))
        for name, difference in differences.items()
    }
