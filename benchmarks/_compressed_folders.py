"""Folders that a codec has learned from, compressed with its model, beside files of other formats."""

from __future__ import annotations

import hashlib
import io
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import imatlas as ia
from benchmarks._data import SCRATCH, fashion_mnist, grocery_photos, noto_emoji
from benchmarks._table import save_table
from imatlas.metrics.compression import bd_rate
from imatlas.models.codec import step_of
from imatlas.models.parts.codec_base import CodecBase
from imatlas.tasks.compress import Target, compress_images

FOLDER = SCRATCH / "compression"
HELD_OUT = 5
"""Of as many photographs, one is held out."""
N_PHOTOS = 500
"""Photographs among which the bytes of the model are shared."""
QUALITIES = (5, 15, 30, 45, 60, 75, 85, 92)
SMALL: dict[str, Any] = {"adapts": "much", "batch_size": 64, "learning_rate": 2e-3}
"""How codecs learn from many small images."""
ARCHIVE_QUALITIES = (30.0, 50.0, 70.0)
"""Of the archives with loss."""
DISTANCES = (2, 4, 7, 10, 15, 20, 30, 45)
"""Of JPEG XL, times ten."""


def learned(kind: type[CodecBase], name: str, images: Any, minutes: float, **parameters: Any) -> CodecBase:
    """A codec that has learned from images for some minutes; kept by settings."""
    settings = [kind.__name__, name, minutes, torch.get_num_threads(), parameters]
    path = FOLDER / f"{name}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:10]}.bin"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        codec = kind(budget=60 * minutes, random_state=0, **parameters).fit(images)
        print(f"{name}: {codec.n_steps_:,} steps, held-out loss {codec.history_['held_out'][-1]:.4f}", flush=True)
        path.write_bytes(codec.packed_weights())
    return kind.from_weights(path.read_bytes())


def archive(images: list[np.ndarray] | np.ndarray, codec: CodecBase, target: Target, note: str) -> tuple[int, Any]:
    """Bytes of images and their model in one file, and the PSNR."""
    path = Path(tempfile.mkdtemp(), "images.imc")
    has_model = {"learned": note} if note else None
    result = compress_images(images, path, codec, target, learned=has_model)
    return path.stat().st_size, result.metrics["psnr"]


def files(images: np.ndarray, format: str, qualities: tuple[int, ...] | None) -> Iterator[tuple[int, float | None]]:
    """Bytes of all images as files of a format, and the PSNR, at each quality; or once without loss."""
    import imagecodecs

    for quality in qualities or (None,):
        total, error = 0, 0.0
        for image in images:
            if format == "JPEG XL":
                options: dict[str, Any] = {"lossless": True} if quality is None else {"distance": quality / 10}
                data = imagecodecs.jpegxl_encode(np.ascontiguousarray(image.squeeze()), effort=7, **options)
                again = imagecodecs.jpegxl_decode(data).reshape(image.shape)
            else:
                out = io.BytesIO()
                options = {"lossless": True, "exact": True} if quality is None else {"quality": quality}
                colored = image if image.shape[2] > 1 else image.repeat(3, 2)
                picture = Image.fromarray(colored if format == "WEBP" else image.squeeze())
                picture.save(out, format, **({"method": 6, **options} if format == "WEBP" else {"optimize": True}))
                data = out.getvalue()
                again = np.asarray(Image.open(io.BytesIO(data))).reshape(*image.shape[:2], -1)[..., -image.shape[2] :]
            total += len(data)
            error += float(np.square(again.astype(np.float64) - image).sum())
        yield total, 10 * np.log10(255**2 * images.size / error) if error else None


def bytes_at(points: list[tuple[int, float | None]], level: float) -> float:
    """Bytes at a PSNR, interpolated in their logarithm."""
    size, quality = np.array(sorted((q, n) for n, q in points if q is not None)).T[::-1]
    return (
        float(np.exp(np.interp(level, quality, np.log(size)))) if quality[0] <= level <= quality[-1] else float("nan")
    )


def own_rows(images: np.ndarray, codecs: dict[str, tuple[CodecBase, bool]], target: Target) -> list[list[Any]]:
    """Rows of codecs, each with whether its model is in the archive."""
    rows = []
    for label, (codec, has_model) in codecs.items():
        size, level = archive(images, codec, target, label if has_model else "")
        model = len(codec.packed_weights()) / len(images) if has_model else 0.0
        rows.append([label, size / len(images), level, model])
        print(rows[-1], flush=True)
    return rows


def exact_rows(images: np.ndarray, pictures: dict[str, np.ndarray]) -> list[list[Any]]:
    """Rows of other formats without loss."""
    rows = []
    for format in ("PNG", "WEBP", "JPEG XL"):
        for what, given in pictures.items():
            rows.append([f"{format}, {what}", next(files(given, format, None))[0] / len(images), None, 0.0])
            print(rows[-1], flush=True)
    return rows


def rows_at(
    level: float, curves: dict[str, list[tuple[int, float | None]]], exact: list[list[Any]], n: int
) -> list[list[Any]]:
    """Rows of other formats at a PSNR, and of PNG, which has no loss."""
    lossy = [[label, bytes_at(points, level) / n, level, 0.0] for label, points in curves.items()]
    return [row for row in exact if row[0].startswith("PNG")] + lossy


def _saved(name: str, title: str, rows: dict[str, list[list[Any]]], notes: list[str]) -> None:
    """A table, in which the bytes of each row are also related to the best of the other formats' files."""
    out = []
    for kind, part in rows.items():
        best = min(row[1] for row in part if row[0].endswith("files") and not np.isnan(row[1]))
        for label, size, quality, model in part:
            told = quality and round(quality, 2)
            sizes = [None, None] if np.isnan(size) else [round(size, 1), round(size / best, 3)]  # not so coarse
            out.append([kind, label, *sizes, told, round(model, 1)])
    columns = ("mode", "method", "bytes per image", "of the best files", "PSNR, dB", "of these the model")
    save_table(name, title, columns, out, notes)


def _notes(minutes: float, what: str) -> list[str]:
    return [
        f"Learned: {minutes:g} minutes on {torch.get_num_threads()} thread(s), from the same images; the archive holds "
        "the model. All bytes of files are counted. With loss: one quality of all images, and the PSNR over all their "
        "values; the bytes of other formats are interpolated at this PSNR.",
        "PNG by Pillow, optimized; WebP by Pillow, method 6, gray as RGB; JPEG XL by imagecodecs, effort 7. " + what,
    ]


def fashion_mnist_archive(minutes: float) -> None:
    """10,000 images of 28 x 28 pixels."""
    images = fashion_mnist("t10k")[0][..., None]
    mosaic = images.reshape(100, 100, 28, 28, 1).swapaxes(1, 2).reshape(2800, 2800, 1)
    pictures = {"files": images, "one large image": mosaic[None]}
    exact = exact_rows(images, pictures)
    codec: CodecBase = learned(ia.LosslessCodec, "fashion-lossless", images, minutes, **SMALL)
    codecs = {"imatlas, general": (ia.LosslessCodec.general(), False), "imatlas, learned": (codec, True)}
    rows = {"lossless": own_rows(images, codecs, Target()) + exact}
    curves = {
        f"{format}, {what}": list(files(given, format, QUALITIES if format == "WEBP" else DISTANCES))
        for format in ("WEBP", "JPEG XL")
        for what, given in pictures.items()
    }
    codec = learned(ia.ImageCodec, "fashion", images, minutes, **SMALL)
    for quality in ARCHIVE_QUALITIES:
        codecs = {"imatlas, general": (ia.ImageCodec.general(), False), "imatlas, learned": (codec, True)}
        own = own_rows(images, codecs, Target(step=step_of(quality)))
        rows[f"quality {quality:g}"] = own + rows_at(own[-1][2], curves, exact, len(images))
    _saved(
        "compression_fashion_mnist",
        "Fashion-MNIST, 10,000 images as one archive",
        rows,
        _notes(minutes, "One large image: all 10,000 in 100 rows."),
    )


def emoji_archive(minutes: float) -> None:
    """1,688 images of 64 x 64 pixels with opacity."""
    images = np.stack([np.asarray(Image.open(path).convert("RGBA")) for path in sorted(noto_emoji().rglob("*.png"))])
    codec = learned(ia.LosslessCodec, "emoji-lossless", images, minutes, **SMALL)
    codecs: dict[str, tuple[CodecBase, bool]] = {
        "imatlas, general": (ia.LosslessCodec.general(), False),
        "imatlas, learned": (codec, True),
    }
    rows = {"lossless": own_rows(images, codecs, Target()) + exact_rows(images, {"files": images})}
    _saved("compression_emoji", "Noto Emoji, 1,688 images as one archive", rows, _notes(minutes, ""))


def photo_folder(
    minutes: float,
    coders: dict[str, Callable[[], Any]],
    own: Callable[..., Any],
    curves_of: Callable[..., Any],
    limits: tuple[float, float],
) -> None:
    """Photographs that are held out of a folder."""
    paths = sorted(grocery_photos().rglob("*.jpg"))
    train = [path for i, path in enumerate(paths) if i % HELD_OUT]
    test = [np.asarray(Image.open(path).convert("RGB")) for path in paths[::HELD_OUT]][::4]
    codec = learned(ia.ImageCodec, "photos", train, minutes, adapts="much")
    model = len(codec.packed_weights()) / N_PHOTOS
    anchors = {name: curves_of(coders[name](), test)[0][0] for name in ("JPEG", "WebP", "AVIF")}
    general, adapted = (curves_of(own(each), test)[0][0] for each in (None, codec))
    pixels = [image.shape[0] * image.shape[1] for image in test]
    with_model = [
        [(bits + 8 * model / n, quality) for bits, quality in curve] for curve, n in zip(adapted, pixels, strict=True)
    ]
    curves = {**anchors, "imatlas, general": general, "imatlas, learned": adapted}
    curves["imatlas, learned, with its model"] = with_model

    def mean_rate(anchor: Any, curve: Any) -> float:
        return statistics.mean(bd_rate(a, b, limits=limits) for a, b in zip(anchor, curve, strict=True))

    rows = [
        [name, *(round(mean_rate(anchor, curve), 1) for anchor in (anchors["JPEG"], general))]
        for name, curve in curves.items()
    ]
    for row in rows:
        print(row, flush=True)
    save_table(
        "compression_photos",
        f"{len(test)} held-out photographs of a folder",
        ("method", "BD-rate to JPEG, %", "to the general model, %"),
        rows,
        [
            f"Grocery photographs, JPEGs of 348 pixels and more; learned {minutes:g} minutes on "
            f"{torch.get_num_threads()} thread(s) from the {len(train)} that are not held out. With its model: "
            f"{len(codec.packed_weights()):,} bytes, shared among {N_PHOTOS} photographs. As `compression_kodak`.",
        ],
    )
