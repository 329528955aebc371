"""PNG, JPEG, WebP, AVIF, HEIC, BMP, GIF, Netpbm and more, over their options, with the pixels that were written."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

from tests.images.formats.made import made_cases
from tests.images.formats.tiffs import Case
from tests.images.test_depths import png

HEIGHT, WIDTH = 24, 31


def written(seed: int = 0) -> Iterator[Case]:
    """Each file once, except those that tifffile writes, which are in `tiffs`."""
    rng = np.random.default_rng(seed)
    yield from _pngs(rng)
    yield from _jpegs(rng)
    yield from _webps(rng)
    yield from _avifs(rng)
    yield from _palettes(rng)
    yield from _others(rng)
    yield from made_cases(rng)


def colors(rng: np.random.Generator, channels: int = 3) -> np.ndarray:
    """Smooth colors (H, W, C) uint8, which lossy codecs almost preserve; the last of 2 or 4 channels is alpha."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] / HEIGHT
    waves = [np.sin(2 * x + i + rng.random()) * np.cos(y + i) for i in range(channels)]
    pixels = np.rint(np.clip(np.stack(waves, axis=-1) * 100 + 128, 0, 255)).astype(np.uint8)
    if channels in (2, 4):
        pixels[..., -1] = np.where(x + y > 0.8, 255, np.where(x < 0.2, 0, 90))
    return pixels


def packed(pixels: np.ndarray | Image.Image, format: str, **options: Any) -> bytes:
    """The bytes of a file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels.squeeze())
    out = BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def _pngs(rng: np.random.Generator) -> Iterator[Case]:
    """Every color type, depth, and interlacing, with and without a transparent value."""
    for color, channels in {0: 1, 2: 3, 4: 2, 6: 4}.items():
        for depth in (1, 2, 4, 8, 16) if color == 0 else (8, 16):
            for interlaced in (False, True):
                for clear in (False, True) if color in (0, 2) else (False,):
                    yield _png_case(rng, color, channels, depth, interlaced, clear)
    for n_colors in (2, 4, 16, 256):
        for clear in (None, 1, bytes(range(255, 255 - n_colors, -1))):
            image = Image.fromarray(colors(rng)).quantize(n_colors)
            options = {} if clear is None else {"transparency": clear}
            target = "RGB" if clear is None else "RGBA"
            data = packed(image, "PNG", bits={2: 1, 4: 2, 16: 4, 256: 8}[n_colors], **options)
            rgb = np.asarray(image.convert("RGB"))
            if target == "RGBA":
                index = np.asarray(image)
                table = np.full(256, 255, np.uint8)
                if isinstance(clear, int):
                    table[clear] = 0
                elif clear is not None:
                    table[: len(clear)] = np.frombuffer(clear, np.uint8)
                rgb = np.dstack([rgb, table[index]])
            yield Case(
                f"PNG, palette of {n_colors}, clear {type(clear).__name__}", data, rgb, clear is not None, 0, None
            )


def _png_case(rng: np.random.Generator, color: int, channels: int, depth: int, interlaced: bool, clear: bool) -> Case:
    top = 2**depth - 1
    samples = rng.integers(0, top + 1, (HEIGHT, WIDTH, channels)).astype(np.uint16)
    value = rng.integers(0, top + 1, channels).astype(np.uint16)
    samples[2:9, 3:20] = value if clear else samples[2:9, 3:20]
    if channels in (2, 4):
        samples[:, :8, -1] = top
    data = png(samples, depth, color, b"".join(int(v).to_bytes(2, "big") for v in value) if clear else b"", interlaced)
    pixels = samples if depth == 16 else (samples * (255 // top)).astype(np.uint8)
    alpha = channels in (2, 4)
    if clear:
        opacity = np.where((samples == value).all(-1, keepdims=True), 0, 65535 if depth == 16 else 255)
        pixels, alpha = np.concatenate([pixels, opacity.astype(pixels.dtype)], axis=-1), True
    if alpha and depth == 16:
        share = pixels[..., -1:] / 65535
        mixed = pixels[..., :-1] * share + 65535 * (1 - share)
        pixels, alpha = np.rint(mixed).astype(np.uint16), False
    words = f"PNG, color type {color}, {depth} bits" + ", interlaced" * interlaced + ", clear value" * clear
    return Case(words, data, pixels, alpha, 1.01 / 65535 if depth == 16 else 0, None)


def _jpegs(rng: np.random.Generator) -> Iterator[Case]:
    for mode, channels in {"L": 1, "RGB": 3, "CMYK": 4}.items():
        for subsampling in (0, 1, 2) if mode == "RGB" else (-1,):
            for options in (
                {}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 2}, {"keep_rgb": True},
            ):  # fmt: skip
                if "keep_rgb" in options and (mode != "RGB" or subsampling):
                    continue
                pixels = colors(rng, channels)
                image = Image.fromarray(pixels.squeeze(), mode)
                data = packed(image, "JPEG", quality=97, subsampling=subsampling, **options)
                expected = pixels
                if mode == "CMYK":
                    light = 1 - pixels / 255
                    expected = np.rint(light[..., :3] * light[..., 3:] * 255).astype(np.uint8)
                words = f"JPEG, {mode}, subsampling {subsampling}, {', '.join(options) or 'baseline'}"
                yield Case(words, data, expected, False, 0.08, None)


def _webps(rng: np.random.Generator) -> Iterator[Case]:
    for channels in (3, 4):
        for lossless in (True, False):
            for method in (0, 4, 6):
                for animated in (False, True):
                    pixels = colors(rng, channels)
                    image = Image.fromarray(pixels)
                    more = {"save_all": True, "append_images": [image.rotate(180)]} if animated else {}
                    data = packed(image, "WEBP", lossless=lossless, quality=95, method=method, exact=True, **more)
                    words = f"WebP, {channels} channels, {'lossless' if lossless else 'lossy'}, method {method}"
                    tolerance = 0 if lossless else 0.1
                    yield Case(words + ", animated" * animated, data, pixels, channels == 4, tolerance, None)


def _avifs(rng: np.random.Generator) -> Iterator[Case]:
    for channels in (3, 4):
        for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
            for speed in (6, 10):
                pixels = colors(rng, channels)
                data = packed(pixels, "AVIF", quality=95, subsampling=subsampling, speed=speed)
                words = f"AVIF, {channels} channels, {subsampling}, speed {speed}"
                yield Case(words, data, pixels, channels == 4, 0.1, None)
    for channels in (3, 4):
        for chroma in (444, 420):
            pixels = colors(rng, channels)
            out = BytesIO()
            pillow_heif.from_pillow(Image.fromarray(pixels)).save(out, quality=95, chroma=chroma)
            yield Case(f"HEIC, {channels} channels, {chroma}", out.getvalue(), pixels, channels == 4, 0.1, None)


def _palettes(rng: np.random.Generator) -> Iterator[Case]:
    """GIF and BMP of few colors."""
    for n_colors in (2, 16, 256):
        image = Image.fromarray(colors(rng)).quantize(n_colors)
        rgb = np.asarray(image.convert("RGB"))
        for interlace in (0, 1):
            for clear in (False, True):
                options: dict[str, Any] = {"transparency": 0} if clear else {}
                data = packed(image, "GIF", interlace=interlace, optimize=False, **options)
                expected = np.dstack([rgb, np.where(np.asarray(image) == 0, 0, 255).astype(np.uint8)]) if clear else rgb
                words = f"GIF, {n_colors} colors" + ", interlaced" * interlace + ", clear" * clear
                yield Case(words, data, expected, clear, 0, None)
        again = image.transpose(Image.Transpose.ROTATE_180)
        data = packed(image, "GIF", save_all=True, append_images=[again])
        yield Case(f"GIF, {n_colors} colors, animated", data, rgb, False, 0, None)
        yield Case(f"BMP, {n_colors} colors", packed(image, "BMP"), rgb, False, 0, None)
        yield Case(f"PCX, {n_colors} colors", packed(image, "PCX"), rgb, False, 0, None)
    for channels, mode in {1: "L", 3: "RGB"}.items():
        for format in ("BMP", "DIB"):
            pixels = colors(rng, channels)
            data = packed(pixels, format)
            if format == "BMP":
                yield Case(f"BMP, {mode}", data, pixels, False, 0, None)
    bits = rng.random((HEIGHT, WIDTH)) > 0.5
    expected = (bits[..., None] * np.uint8(255)).astype(np.uint8)
    for format in ("BMP", "PNG", "PPM", "GIF"):
        yield Case(f"{format}, 1 bit", packed(Image.fromarray(bits), format), expected, False, 0, None)


def _others(rng: np.random.Generator) -> Iterator[Case]:
    """Netpbm of every kind, TGA, SGI, QOI, JPEG 2000, ICO, DDS, PSD-like formats that Pillow writes."""
    for channels, kind in {1: 5, 3: 6}.items():
        for top in (1, 15, 255, 1023, 4095, 65535):
            for text in (False, True):
                samples = rng.integers(0, top + 1, (HEIGHT, WIDTH, channels))
                head = f"P{kind - 3 * text}\n# a remark\n{WIDTH} {HEIGHT}\n{top}\n".encode()
                words = " ".join(map(str, samples.ravel())).encode()
                stored = samples.astype(">u2" if top > 255 else "u1").tobytes()
                full = 65535 if top > 255 else 255
                expected = np.rint(samples * (full / top)).astype(np.uint16 if top > 255 else np.uint8)
                name = f"PNM, {channels} channels, largest value {top}, {'text' if text else 'bytes'}"
                yield Case(name, head + (words if text else stored), expected, False, 1.01 / full, None)
    for channels in (1, 3, 4):
        pixels = colors(rng, channels)
        for format, options in (
            ("TGA", {}), ("TGA", {"compression": "tga_rle"}), ("SGI", {}), ("QOI", {}),
            ("JPEG2000", {"irreversible": False}),
        ):  # fmt: skip
            if format == "QOI" and channels == 1:
                continue
            words = f"{format}, {channels} channels{', packed' if 'compression' in options else ''}"
            yield Case(words, packed(pixels, format, **options), pixels, channels == 4, 0, format)
    for channels in (3, 4):
        pixels = colors(rng, channels)
        size = (WIDTH, HEIGHT)
        data = packed(pixels, "ICO", sizes=[size], bitmap_format="png")
        expected = pixels if channels == 4 else np.dstack([pixels, np.full((HEIGHT, WIDTH), 255, np.uint8)])
        yield Case(f"ICO, {channels} channels", data, expected if channels == 4 else pixels, channels == 4, 0, None)
        yield Case(f"DDS, {channels} channels", packed(pixels, "DDS"), pixels, channels == 4, 0, None)
