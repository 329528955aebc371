"""Compression: `python -m benchmarks compression [--only PARTS] [--methods NAMES]`.

`kodak`: 12 photographs that no codec here has learned from. Every file is written and read again, and its bytes are
counted with all heads. BD-rate: mean difference of bits at equal PSNR to JPEG, of each photograph, then averaged
(`imatlas.metrics.compression.bd_rate`, piecewise cubic). JPEG, WebP and AVIF by Pillow, JPEG 2000 and JPEG XL by
imagecodecs (extra `codecs`). `lossless`: the same photographs without loss. `damage`: 10,000 damaged files.

Folders that a codec learns from (`--minutes`, in as many threads as torch has; models are kept under benchmarks/.data):
`fashion_mnist`: 10,000 images of 28 x 28 pixels as one archive. `emoji`: 1,688 of 64 x 64 pixels with opacity.
`photos`: four fifths of the grocery photographs; the others are compressed.
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
from typing import Any

import numpy as np
import torch
from PIL import Image

import imatlas as ia
from benchmarks._compressed_folders import emoji_archive, fashion_mnist_archive, photo_folder
from benchmarks._data import ROOT
from benchmarks._table import save_table, saved_table
from imatlas.errors import InputError
from imatlas.images.spec import ImageSpec
from imatlas.metrics.compression import bd_rate, bits_per_pixel, ms_ssim
from imatlas.metrics.restoration import psnr
from imatlas.models.codec import ImageCodec, step_of
from imatlas.models.parts.coded_image import CodedImages, Effort
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


def imatlas(
    codec: ImageCodec | None = None, note: str = "general model, learned from BSDS500", effort: Effort = "normal"
) -> Coder:
    """A codec, or the general one, as a file of one image."""
    codec, folder = codec or ia.ImageCodec.general(), tempfile.mkdtemp()

    def encode(image: np.ndarray, quality: float) -> bytes:
        coded = codec.coded(image[None], ImageSpec(*image.shape), step_of(quality), effort=effort)
        head = coded_file.MAGIC + coded_file.head_record(codec.identity(), bytes(8))
        return head + coded_file.images_record(["image"], [About()], coded) + coded_file.end_record(1)

    def decode(data: bytes) -> np.ndarray:
        path = Path(folder, "image.imc")
        path.write_bytes(data)
        file = CodedFile.open(path)
        return codec.decoded(coded_images(file, 0))[0]

    return Coder(encode, decode, (5, 15, 25, 35, 45, 55, 65, 75, 85), note)


def coded_images(file: CodedFile, number: int) -> CodedImages:
    """The data of an image of a file."""
    coded = file.images(file.entries[number].place)[2]
    assert isinstance(coded, CodedImages)
    return coded


CODERS: dict[str, Callable[[], Coder]] = {
    "JPEG": lambda: pillow("JPEG", "4:2:0, optimized", 5, 10, 20, 30, 50, 70, 80, 90, 95, optimize=True),
    "WebP": lambda: pillow("WEBP", "method 6", 1, 10, 20, 40, 60, 80, 90, 95, method=6),
    "AVIF": lambda: pillow("AVIF", "Pillow's default speed", 10, 20, 30, 40, 50, 60, 70, 80, 90, 95),
    "JPEG 2000": jpeg2000,
    "JPEG XL": jpegxl,
    "imatlas": imatlas,
    "imatlas, high effort": lambda: imatlas(effort="high"),
}

Curve = list[tuple[float, float]]
"""Bits per pixel, and quality in dB."""
Measure = Callable[[np.ndarray, np.ndarray], float]


def psnr_of(image: np.ndarray, decoded: np.ndarray) -> float:
    """PSNR of an image (H, W, C)."""
    return psnr(image[None], decoded[None], span=255)


def ms_ssim_of(image: np.ndarray, decoded: np.ndarray) -> float:
    """MS-SSIM in dB: -10 log10(1 - MS-SSIM)."""
    return float(-10 * np.log10(1 - min(ms_ssim(image[None], decoded[None], span=255), 1 - 1e-9)))


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks compression")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--methods", help="some of: " + "; ".join(CODERS))
    parser.add_argument("--n", type=int, help="only the first images; saves no table")
    parser.add_argument("--minutes", type=float, default=15.0, help="of learning from a folder")
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
    needed = dict.fromkeys(["JPEG", "WebP", *methods])
    measured = {method: curves_of(CODERS[method](), images, (psnr_of, ms_ssim_of)) for method in needed}

    def rate(anchor: str, method: str, /, measure: int = 0, **how: Any) -> float:
        pairs = zip(measured[anchor][0][measure], measured[method][0][measure], strict=True)
        return round(statistics.mean(bd_rate(a, b, **how) for a, b in pairs), 1)

    for method in methods:
        coder = CODERS[method]()
        (curves, _), encoding, decoding = measured[method]
        rows[method] = [
            method,
            *(rate(anchor, method, limits=LIMITS) for anchor in ("JPEG", "WebP")),
            rate("JPEG", method, limits=LIMITS, method="cubic"),
            rate("JPEG", method, measure=1),
            *(round(statistics.mean(_bits_at(curve, level) for curve in curves), 3) for level in (30, 35, 40)),
            round(encoding, 2),
            round(decoding, 2),
            round(_decoding_a_megapixel(coder, images[0]), 2),
            coder.note,
        ]
        print(rows[method], flush=True)
    if options.n is None:
        save_table(
            name,
            title,
            (
                *("method", "BD-rate to JPEG, %", "to WebP, %", "to JPEG, cubic, %", "to JPEG by MS-SSIM, %"),
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
                "general model of imatlas is part of the program, as the tables of the others are. By MS-SSIM: in dB, "
                "over all of the range that both curves have.",
                "Seconds: medians over photographs (0.4 megapixels) and qualities, 2 threads where a codec uses them; "
                "last, of one photograph enlarged to 1224 x 816 at the middle quality.",
            ],
        )


def curves_of(
    coder: Coder, images: list[np.ndarray], measures: tuple[Measure, ...] = (psnr_of,)
) -> tuple[list[list[Curve]], float, float]:
    """For each measure the curve of each image; and the median seconds for a megapixel to encode and to decode."""
    curves: list[list[Curve]] = [[] for _ in measures]
    seconds = []
    for image in images:
        of_image: list[Curve] = [[] for _ in measures]
        for quality in coder.qualities:
            start = time.perf_counter()
            data = coder.encode(image, quality)
            encoded = time.perf_counter()
            decoded = coder.decode(data)
            megapixels = image.shape[0] * image.shape[1] / 1e6
            seconds.append(((encoded - start) / megapixels, (time.perf_counter() - encoded) / megapixels))
            bits = bits_per_pixel(len(data), *image.shape[:2])
            for curve, measure in zip(of_image, measures, strict=True):
                curve.append((bits, measure(image, decoded)))
        for found, curve in zip(curves, of_image, strict=True):
            found.append(curve)
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
    expected = codec.decoded(coded_images(whole, 0))
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
        made = codec.decoded(coded_images(file, 0))
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


def lossless(options: argparse.Namespace) -> None:
    """Kodak without loss."""
    import imagecodecs

    paths = sorted((ROOT / "kodak").glob("*.png"))[: options.n]
    images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    codec, rows = ia.LosslessCodec.general(), []
    coders: dict[str, tuple[Callable[[np.ndarray], bytes], Callable[[bytes], np.ndarray], str]] = {
        "PNG": (lambda x: imagecodecs.png_encode(x, level=9), imagecodecs.png_decode, "level 9"),
        "WebP": (
            lambda x: imagecodecs.webp_encode(x, lossless=True, level=100),
            imagecodecs.webp_decode,
            "lossless, level 100",
        ),
        "JPEG XL": (
            lambda x: imagecodecs.jpegxl_encode(x, lossless=True, effort=7),
            imagecodecs.jpegxl_decode,
            "lossless, effort 7",
        ),
        "JPEG XL, most effort": (
            lambda x: imagecodecs.jpegxl_encode(x, lossless=True, effort=9),
            imagecodecs.jpegxl_decode,
            "lossless, effort 9",
        ),
        "imatlas": (
            lambda x: codec.compress(x[None])[0],
            lambda data: codec.decompress([data])[0],
            "general model, learned from BSDS500",
        ),
    }
    for name, (encode, decode, note) in coders.items():
        bits, seconds = [], []
        for image in images:
            start = time.perf_counter()
            data = encode(image)
            encoded = time.perf_counter()
            again = decode(data)
            megapixels = image.shape[0] * image.shape[1] / 1e6
            seconds.append(((encoded - start) / megapixels, (time.perf_counter() - encoded) / megapixels))
            assert np.array_equal(again, image)
            bits.append(bits_per_pixel(len(data), *image.shape[:2]))
        rows.append([name, round(statistics.mean(bits), 3), *np.median(seconds, axis=0).round(2).tolist(), note])
        print(rows[-1], flush=True)
    if options.n is None:
        save_table(
            "compression_lossless",
            "Lossless compression of 12 Kodak photographs",
            ("method", "bits per pixel", "s to encode a megapixel", "s to decode", "settings"),
            rows,
            [
                "Bits per pixel of three channels, and medians of seconds; all photographs came back as they were. "
                f"imatlas with {torch.get_num_threads()} thread(s)."
            ],
        )


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "kodak": kodak,
    "lossless": lossless,
    "damage": damage,
    "fashion_mnist": lambda options: fashion_mnist_archive(options.minutes),
    "emoji": lambda options: emoji_archive(options.minutes),
    "photos": lambda options: photo_folder(options.minutes, CODERS, imatlas, curves_of, LIMITS),
}
