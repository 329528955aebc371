"""Small ICC profiles: curves and a matrix, gray, and CMYK by lookup table (ICC.1:2022)."""

from __future__ import annotations

import struct

import numpy as np

# Primaries as XYZ under D50, published with the spaces (rounded), and the direct matrix from their light to sRGB's.
DISPLAY_P3 = [(0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)]
ADOBE_RGB = [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)]
PROPHOTO = [(0.79767, 0.28804, 0.0), (0.13519, 0.71187, 0.0), (0.03134, 0.00009, 0.82491)]
SRGB = [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141)]
TO_SRGB = {
    "p3": [[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]],
    "adobe": [[1.3984, -0.3984, 0.0], [0.0, 1.0, 0.0], [0.0, -0.0429, 1.0429]],
    "prophoto": [[2.0341, -0.7274, -0.3069], [-0.2288, 1.2317, -0.0029], [-0.0086, -0.1533, 1.1619]],
}
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def matrix_profile(primaries: list[tuple[float, float, float]], curve: float | tuple[float, ...]) -> bytes:
    """A screen or camera profile: a gamma, or the five numbers of a parametric curve of type 3."""
    tags = {name: _xyz(xyz) for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    tags |= {name: _curve(curve) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def gray_profile(gamma: float) -> bytes:
    """A profile for gray pictures."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)})


def table_profile(space: bytes, lab_of_corners: np.ndarray) -> bytes:
    """Inks or colors whose corners (2 ** channels, 3) are given as L* in 0..100, a*, b*; linear in between."""
    channels = {b"CMYK": 4, b"RGB ": 3}[space]
    table = np.column_stack([lab_of_corners[:, 0] * 2.55, lab_of_corners[:, 1:] + 128]).round().astype(np.uint8)
    identity = bytes(range(256))
    lut = b"mft1\0\0\0\0" + struct.pack(">BBBx", channels, 3, 2)
    lut += struct.pack(">9i", *(65536 * np.eye(3).astype(int)).ravel())
    lut += identity * channels + table.tobytes() + identity * 3
    return _profile(b"prtr" if space == b"CMYK" else b"scnr", space, b"Lab ", {b"A2B0": lut})


def _curve(curve: float | tuple[float, ...]) -> bytes:
    if isinstance(curve, tuple):
        return b"para\0\0\0\0" + struct.pack(">HH5i", 3, 0, *[round(x * 65536) for x in curve])
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(curve * 256))


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *[round(x * 65536) for x in values])


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    white = (0.9642, 1.0, 0.8249)
    tags = {b"wtpt": _xyz(white), b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + bytes(78), **tags}
    place, table, body = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = bytearray(128)
    header[8:12], header[12:16], header[16:20], header[20:24] = b"\x02\x40\0\0", kind, space, connection
    header[36:40] = b"acsp"
    header[68:80] = struct.pack(">3i", *[round(x * 65536) for x in white])
    header[:4] = struct.pack(">I", place + len(body))
    return bytes(header) + struct.pack(">I", len(tags)) + table + body
