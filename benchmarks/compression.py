"""Compression: `python -m benchmarks compression [--only PARTS] [--methods NAMES]`.

`kodak`: 12 photographs that no codec here has learned from. Every file is written and read again, and its bytes are
counted with all heads. BD-rate: mean difference of bits at equal PSNR to JPEG, of each photograph, then averaged
(`imatlas.metrics.compression.bd_rate`, piecewise cubic). JPEG, WebP and AVIF by Pillow, JPEG 2000 and JPEG XL by
imagecodecs (extra `codecs`). `damage`: 10,000 damaged files.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import imatlas as ia
from benchmarks._data import ROOT
from benchmarks._table import save_table, saved_table
from imatlas.errors import InputError
from imatlas.images.spec import ImageSpec
from imatlas.metrics.compression import bd_rate, bits_per_pixel
from imatlas.metrics.restoration import psnr
from imatlas.models.codec import step_of
from imatlas.tasks import coded_file
from imatlas.tasks.coded_file import About, CodedFile

N_DAMAGED = 10_000
LIMITS = (26.0, 42.0)
"""Range of PSNR in dB over which bits are compared."""


@dataclass(frozen=True)
class Coder:
    """A codec: how it is called, and the qualities of its curve."""

    encode: Callable[[np.ndarray, float], bytes]
    decode: Callable[[bytes], np.ndarray]
    qualities: tuple[float, ...]
    note: str


def pillow(format: str, note: str, *qualities: float, **options: object) -> Coder:
    """A codec of Pillow."""

    def encode(image: np.ndarray, quality: float) -> bytes:
        out = io.BytesIO()
        Image.fromarray(image).save(out, format, quality=int(quality), **options)
        return out.getvalue()

    return Coder(encode, lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), qualities, note)


def jpeg2000() -> Coder:
    """JPEG 2000 with the irreversible color transform; qualities are PSNR."""
    import imagecodecs

    def encode(image: np.ndarray, quality: float) -> bytes:
        return bytes(imagecodecs.jpeg2k_encode(image, level=quality, codecformat="j2k", mct=True, reversible=False))

    return Coder(encode, imagecodecs.jpeg2k_decode, (26, 28, 30, 32, 34, 36, 38, 40, 42, 44), "9/7, color transform")


def jpegxl() -> Coder:
    """JPEG XL; qualities are distances."""
    import imagecodecs

    def encode(image: np.ndarray, quality: float) -> bytes:
        return bytes(imagecodecs.jpegxl_encode(image, distance=quality, effort=7))

    return Coder(encode, imagecodecs.jpegxl_decode, (14, 10, 8, 6, 4, 3, 2, 1.5, 1, 0.75, 0.5), "effort 7")


def imatlas() -> Coder:
    """The general codec, as a file of one image."""
    codec, folder = ia.ImageCodec.general(), tempfile.mkdtemp()

    def encode(image: np.ndarray, quality: float) -> bytes:
        coded = codec.coded(image[None], ImageSpec(*image.shape), step_of(quality))
        head = coded_file.MAGIC + coded_file.head_record(codec.identity(), bytes(8))
        return head + coded_file.images_record(["image"], [About()], coded) + coded_file.end_record(1)

    def decode(data: bytes) -> np.ndarray:
        path = Path(folder, "image.imc")
        path.write_bytes(data)
        file = CodedFile.open(path)
        return codec.decoded(file.images(file.entries[0].place)[2])[0]

    return Coder(encode, decode, (5, 15, 25, 35, 45, 55, 65, 75, 85), "general model, learned from BSDS500")


CODERS: dict[str, Callable[[], Coder]] = {
    "JPEG": lambda: pillow("JPEG", "4:2:0, optimized", 5, 10, 20, 30, 50, 70, 80, 90, 95, optimize=True),
    "WebP": lambda: pillow("WEBP", "method 6", 1, 10, 20, 40, 60, 80, 90, 95, method=6),
    "AVIF": lambda: pillow("AVIF", "Pillow's default speed", 10, 20, 30, 40, 50, 60, 70, 80, 90, 95),
    "JPEG 2000": jpeg2000,
    "JPEG XL": jpegxl,
    "imatlas": imatlas,
}

Curve = list[tuple[float, float]]
"""Bits per pixel, and PSNR."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks compression")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--methods", help="some of: " + "; ".join(CODERS))
    parser.add_argument("--n", type=int, help="only the first images; saves no table")
    options = parser.parse_args(argv)
    for part in options.only:
        PARTS[part](options)


def kodak(options: argparse.Namespace) -> None:
    """Rate and distortion on Kodak."""
    paths = sorted((ROOT / "kodak").glob("*.png"))[: options.n]
    images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    methods = options.methods.split(";") if options.methods else list(CODERS)
    name, title = "compression_kodak", "Compression of 12 Kodak photographs"
    rows = {row[0]: row for row in saved_table(name, title)["rows"]}
    measured = {method: curves_of(CODERS[method](), images) for method in dict.fromkeys(["JPEG", "WebP", *methods])}
    anchors = {anchor: measured[anchor][0] for anchor in ("JPEG", "WebP")}
    for method in methods:
        coder = CODERS[method]()
        curves, encoding, decoding = measured[method]
        differences = [
            statistics.mean(bd_rate(a, b, limits=LIMITS) for a, b in zip(anchors[anchor], curves, strict=True))
            for anchor in anchors
        ]
        cubic = statistics.mean(
            bd_rate(a, b, limits=LIMITS, method="cubic") for a, b in zip(anchors["JPEG"], curves, strict=True)
        )
        at = [statistics.mean(_bits_at(curve, level) for curve in curves) for level in (30, 35, 40)]
        rows[method] = [
            method, *(round(value, 1) for value in (*differences, cubic)), *(round(value, 3) for value in at),
            round(encoding, 2), round(decoding, 2), round(_decoding_a_megapixel(coder, images[0]), 2), coder.note,
        ]  # fmt: skip
        print(rows[method], flush=True)
    if options.n is None:
        save_table(
            name,
            title,
            (
                *("method", "BD-rate to JPEG, %", "to WebP, %", "to JPEG, cubic, %"),
                *(
                    "bits per pixel at 30 dB",
                    "at 35 dB",
                    "at 40 dB",
                    "s to encode a megapixel",
                    "s to decode",
                    "s to decode an image of 1 MP",
                    "settings",
                ),
            ),
            [rows[method] for method in CODERS if method in rows],
            [
                f"Mean over the photographs of the BD-rate of each (Bjøntegaard 2001), from {LIMITS[0]:g} to "
                f"{LIMITS[1]:g} dB where both curves are; PSNR over all values of RGB. Files with all their bytes; the "
                "general model of imatlas is part of the program, as the tables of the others are.",
                "Seconds: medians over photographs (0.4 megapixels) and qualities, 2 threads where a codec uses them; "
                "last, of one photograph enlarged to 1224 x 816 at the middle quality.",
            ],
        )


def curves_of(coder: Coder, images: list[np.ndarray]) -> tuple[list[Curve], float, float]:
    """The curve of each image, and the median seconds for a megapixel to encode and to decode."""
    curves, seconds = [], []
    for image in images:
        curve: Curve = []
        for quality in coder.qualities:
            start = time.perf_counter()
            data = coder.encode(image, quality)
            encoded = time.perf_counter()
            decoded = coder.decode(data)
            megapixels = image.shape[0] * image.shape[1] / 1e6
            seconds.append(((encoded - start) / megapixels, (time.perf_counter() - encoded) / megapixels))
            curve.append((bits_per_pixel(len(data), *image.shape[:2]), psnr(image[None], decoded[None], span=255)))
        curves.append(curve)
    encoding, decoding = np.median(seconds, axis=0)
    return curves, float(encoding), float(decoding)


def _decoding_a_megapixel(coder: Coder, image: np.ndarray) -> float:
    """Seconds to decode a photograph that is enlarged to 1.0 megapixels, at the middle quality; median of five."""
    large = np.asarray(Image.fromarray(image).resize((1224, 816), Image.Resampling.BICUBIC))
    data, seconds = coder.encode(large, coder.qualities[len(coder.qualities) // 2]), []
    for _ in range(5):
        start = time.perf_counter()
        coder.decode(data)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _bits_at(curve: Curve, level: float) -> float:
    """Bits per pixel at a PSNR, interpolated in their logarithm."""
    points = np.array(sorted(curve, key=lambda point: point[1]))
    return float(np.exp(np.interp(level, points[:, 1], np.log(points[:, 0]))))


def damage(options: argparse.Namespace) -> None:
    """What becomes of damaged files."""
    codec, rng = ia.ImageCodec.general(), np.random.default_rng(0)
    image = np.asarray(Image.open(ROOT / "kodak" / "kodim23.png").convert("RGB"))[200:248, 200:264]
    data = imatlas().encode(image, 60)
    whole = CodedFile.open(_written(data))
    expected = codec.decoded(whole.images(whole.entries[0].place)[2])
    ways: dict[str, Callable[[], bytes]] = {
        "one byte changed": lambda: _changed(data, rng, 1),
        "ten bytes changed": lambda: _changed(data, rng, 10),
        "cut off": lambda: data[: rng.integers(len(data))],
        "a part left out": lambda: data[: (start := rng.integers(9, len(data)))] + data[start + rng.integers(1, 40) :],
        "random bytes after the head": lambda: data[:9] + rng.bytes(int(rng.integers(1, len(data)))),
    }
    n, rows = (options.n or N_DAMAGED) // len(ways), []
    for way, make in ways.items():
        counts = dict.fromkeys(("refused", "told to be cut off", "the right picture", "a wrong picture"), 0)
        for _ in range(n):
            counts[_outcome(codec, make(), expected)] += 1
        rows.append([way, n, *counts.values()])
        print(rows[-1], flush=True)
    if options.n is None:
        save_table(
            "compression_damage",
            "Damaged files",
            ("damage", "files", *counts),
            rows,
            [
                f"A file of {len(data)} bytes, of an image of 48 x 64 pixels. Refused: an InputError, which the "
                "command line prints in one line. Anything else that is raised would end the benchmark.",
            ],
        )


def _outcome(codec: ia.ImageCodec, data: bytes, expected: np.ndarray) -> str:
    """What becomes of a file."""
    try:
        file = CodedFile.open(_written(data))
        if not file.is_complete:
            return "told to be cut off"
        if file.model != codec.identity():
            return "refused"
        made = codec.decoded(file.images(file.entries[0].place)[2])
    except InputError:
        return "refused"
    return "the right picture" if np.array_equal(made, expected) else "a wrong picture"


def _changed(data: bytes, rng: np.random.Generator, n: int) -> bytes:
    """Data of which some bytes are others."""
    changed = bytearray(data)
    for place in rng.choice(len(data), n, replace=False).tolist():
        changed[place] ^= int(rng.integers(1, 256))
    return bytes(changed)


def _written(data: bytes) -> Path:
    path = Path(tempfile.gettempdir(), "imatlas-damaged.imc")
    path.write_bytes(data)
    return path


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {"kodak": kodak, "damage": damage}
