"""Pictures in every common format, and seeded damage done to them."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import tifffile
from PIL import Image


def originals() -> list[tuple[str, bytes]]:
    """(ending, content) of sound small pictures: every mode and codec that damage should be done to."""
    rng = np.random.default_rng(1)
    smooth = rng.integers(0, 256, (6, 8, 4), np.uint8)
    rgba = Image.fromarray(smooth).resize((40, 30), Image.Resampling.BICUBIC)
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    deep = rng.integers(0, 65536, (30, 40), np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6

    def saved(image: Image.Image, format: str, **options: object) -> bytes:
        out = BytesIO()
        image.save(out, format, **options)
        return out.getvalue()

    def tiff(array: np.ndarray, **options: object) -> bytes:
        out = BytesIO()
        tifffile.imwrite(out, array, **options)
        return out.getvalue()

    return [
        ("jpg", saved(rgb, "JPEG", quality=85, exif=exif)),
        ("jpg", saved(rgb, "JPEG", progressive=True)),
        ("jpg", saved(rgb.convert("CMYK"), "JPEG")),
        ("png", saved(rgba, "PNG")),
        ("png", saved(rgb.quantize(16), "PNG", exif=exif)),
        ("png", saved(Image.fromarray(deep), "PNG")),
        ("gif", saved(grey, "GIF", save_all=True, append_images=[grey.transpose(Image.Transpose.ROTATE_180), grey])),
        ("tif", saved(rgb, "TIFF", compression="tiff_lzw", exif=exif)),
        ("tif", saved(rgb, "TIFF", compression="jpeg")),
        ("tif", saved(grey.convert("1"), "TIFF", compression="group4")),
        ("tif", tiff(deep)),
        ("tif", tiff(np.repeat(deep[..., None], 5, axis=2), photometric="minisblack", planarconfig="contig")),
        ("tif", tiff(deep.astype(np.float32), compression="zlib", tile=(16, 16))),
        ("tif", tiff(np.stack([deep] * 3)[:, None], imagej=True, metadata={"axes": "ZCYX"})),
        ("webp", saved(rgb, "WEBP", exif=exif)),
        ("webp", saved(rgba, "WEBP", lossless=True, save_all=True, append_images=[rgba])),
        ("bmp", saved(rgb, "BMP")),
        ("bmp", saved(rgb.quantize(16), "BMP")),
        ("ppm", saved(rgb, "PPM")),
        ("jp2", saved(rgb, "JPEG2000")),
        ("avif", saved(rgb, "AVIF")),
        ("ico", saved(rgba, "ICO", sizes=[(40, 30)])),
        ("tga", saved(rgb, "TGA", compression="tga_rle")),
        ("qoi", saved(rgb, "QOI")),
        ("pcx", saved(rgb, "PCX")),
        ("dds", saved(rgba, "DDS")),
        ("sgi", saved(rgb, "SGI")),
    ]


def damaged(n: int, seed: int) -> list[tuple[str, bytes]]:
    """`n` pictures with flipped bits, cut ends, holes, spliced halves, noise in the header, and false names."""
    rng = np.random.default_rng(seed)
    sound = originals()
    files = []
    for i in range(n):
        ending, content = sound[int(rng.integers(len(sound)))]
        data = bytearray(content)
        kind = int(rng.integers(6))
        if kind == 0:
            for place in rng.integers(0, len(data), rng.integers(1, 20)):
                data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data = data[: int(rng.integers(0, len(data)))]
        elif kind == 2:
            start = int(rng.integers(0, len(data)))
            stop = start + int(rng.integers(1, 200))
            data[start:stop] = bytes(rng.integers(0, 256, len(data[start:stop]), np.uint8))
        elif kind == 3:
            other = sound[int(rng.integers(len(sound)))][1]
            data = data[: int(rng.integers(1, len(data)))] + bytearray(other[int(rng.integers(len(other))) :])
        elif kind == 4:
            for place in rng.integers(0, min(64, len(data)), rng.integers(1, 6)):
                data[place] = int(rng.integers(256))
        else:
            start = int(rng.integers(0, len(data)))
            del data[start : start + int(rng.integers(1, 100))]
        if rng.random() < 0.1:
            ending = sound[int(rng.integers(len(sound)))][0]
        files.append((f"{i:05d}.{ending}", bytes(data)))
    return files
