"""Segments of the images of a folder, each at its own size, written as files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from imatlas.arguments import check_int, check_number, check_path, counted, refused
from imatlas.errors import DecodeError, InputError
from imatlas.images.decode import read_picture
from imatlas.images.encode import encode
from imatlas.images.formats.pillow import picture_from
from imatlas.images.intake import with_progress
from imatlas.images.picture import Picture
from imatlas.images.sources.base import Source
from imatlas.images.sources.opening import open_source
from imatlas.images.spec import ImageSpec
from imatlas.models.parts.channels import rgb_view
from imatlas.models.parts.hierarchy import hierarchy_of
from imatlas.models.parts.superpixels import superpixels_of
from imatlas.result import FileList, Result
from imatlas.system.atomic_io import output_path, write_folder
from imatlas.system.csv_files import write_csv
from imatlas.tasks.region_files import coco, cut_out, label_png, measure_regions, overlay

RANGE = (0.1, 99.9)
"""Percentiles of 16-bit and float pixels that become black and white for the segmentation."""

WHITE = (255, 255, 255)

LEVEL = 0.5
"""Default level: regions that are more likely one than two are joined."""

N_SUPERPIXELS = 200
"""Default number of superpixels of an image."""

MIN_CUT_OUT = 0.01
"""Share of the pixels of an image from which a segment becomes a cut-out."""


def segment_files(
    source: Any,
    output: str | Path,
    *,
    method: Literal["hierarchy", "superpixels"] = "hierarchy",
    level: float | None = None,
    n_segments: int | None = None,
    pixel_size: float = 1.0,
    with_coco: bool = False,
    with_cut_outs: bool = False,
    progress: bool = False,
) -> Result:
    """Split every image into segments, without labels, and write them.

    Parameters
    ----------
    source : folder, pattern, archive, array or list, as `Images` takes them
    output : path
        A new folder: `labels/` with label maps as 16-bit PNG (labels from 1), `overlays/`, `regions.csv` and
        `regions.parquet` with one row per segment, `images.csv` with the files of each image.
    method : {"hierarchy", "superpixels"}
        The parts that a person would name, or small segments that follow the colors (200 by default).
    level : float in [0, 1], optional
        From fine to coarse: regions whose probability of being separate is at most this are joined. Default 0.5.
    n_segments : int, optional
        Number of segments of every image, instead of a level.
    pixel_size : float
        Side of a pixel in the unit of the table.
    with_coco, with_cut_outs : bool
        Also write `coco.json`; and `cut-outs/` with each segment of at least 1 % of its image, as RGBA.
    progress : bool

    Returns
    -------
    Result
        With the images that were skipped, and why.

    Raises
    ------
    InputError
        If no image can be read, both `level` and `n_segments` are given, or superpixels and a level.
    ParameterError
        If one of the numbers is out of its range.
    ArtifactError
        If `output` already exists.
    """
    if method not in ("hierarchy", "superpixels"):
        raise refused("method", "segment_files", "'hierarchy' or 'superpixels'", method)
    if method == "superpixels" and level is not None:
        raise InputError("Superpixels have no level; give 'n_segments', their number.")
    if level is not None and n_segments is not None:
        raise InputError("Give either 'level' or 'n_segments', not both.")
    if n_segments is not None:
        n_segments = check_int(n_segments, "n_segments", "segment_files", low=1)
    level = check_number(LEVEL if level is None else level, "level", "segment_files", low=0, high=1)
    output = output_path(check_path(output, "output", "segment_files"))
    opened = open_source(source)
    skipped = list(opened.skipped)
    counts: list[int] = []

    def write(aside: Path) -> None:
        for name in ("labels", "overlays", *(["cut-outs"] if with_cut_outs else [])):
            (aside / name).mkdir()
        files: list[tuple[str, int, str, str]] = []
        tables, maps = [], []
        for key, picture in _pictures(opened, skipped, progress):
            pixels, spec = _upright(picture)
            labels = _segments(pixels, spec, method, level, n_segments)
            name = f"{len(files) + 1:05d}-{_plain(key)}"
            view = rgb_view(pixels, spec)
            (aside / f"labels/{name}.png").write_bytes(label_png(labels))
            (aside / f"overlays/{name}.png").write_bytes(encode(overlay(view, labels), compress_level=1))
            if with_cut_outs:
                _write_cut_outs(aside / "cut-outs", name, view, labels)
            counts.append(int(labels.max()) + 1)
            files.append((key, counts[-1], f"labels/{name}.png", f"overlays/{name}.png"))
            tables.append(_table(key, measure_regions(labels, pixels, pixel_size=pixel_size)))
            if with_coco:
                maps.append(labels.astype(np.uint16))
        if not files:
            why = f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
            raise InputError(f"No image can be read in '{opened.name}'{why}; nothing was written.")
        write_csv(aside / "images.csv", ("key", "segments", "labels", "overlay"), files)
        regions = pa.concat_tables(tables, promote_options="default")
        parquet.write_table(regions, aside / "regions.parquet")
        write_csv(
            aside / "regions.csv", regions.column_names, zip(*(c.to_pylist() for c in regions.columns), strict=True)
        )
        if with_coco:
            content = json.dumps(coco([row[0] for row in files], maps))
            (aside / "coco.json").write_text(content, encoding="utf-8")

    write_folder(output, write)
    return _result(output, counts, skipped)


def _segments(pixels: np.ndarray, spec: ImageSpec, method: str, level: float, n_segments: int | None) -> np.ndarray:
    """Label map (H, W) of one image; `level` counts where no number is given."""
    if method == "superpixels":
        return superpixels_of(pixels, spec, N_SUPERPIXELS if n_segments is None else n_segments)
    hierarchy = hierarchy_of(pixels, spec)
    return hierarchy.cut(level) if n_segments is None else hierarchy.segments(n_segments)


def _pictures(source: Source, skipped: list[tuple[str, str]], progress: bool) -> Iterator[tuple[str, Picture]]:
    """Each item that is an image; the others are added to `skipped` with a reason."""
    for i in with_progress(range(len(source.keys)), "Segmenting", progress):
        key = source.keys[i]
        try:
            value = source.read(i)
            picture = read_picture(value, name=key) if isinstance(value, bytes) else picture_from(value, WHITE)
            yield key, picture.to_srgb()
        except DecodeError as error:
            skipped.append((key, str(error)))


def _upright(picture: Picture) -> tuple[np.ndarray, ImageSpec]:
    """Pixels (H, W, C) and their spec, with the range of this image."""
    pixels = picture.pixels()
    if pixels.dtype == np.uint8:
        low, high = 0.0, 255.0
    else:
        known = pixels[np.isfinite(pixels)]
        low, high = (float(v) for v in np.percentile(known, RANGE)) if known.size else (0.0, 1.0)
        high = high if high > low else low + 1
    height, width, channels = pixels.shape
    dtype: Any = pixels.dtype.name if pixels.dtype.name in ("uint8", "uint16") else "float32"
    spec = ImageSpec(height, width, channels, dtype, low, high, alpha=picture.kind.alpha)
    return pixels if dtype != "float32" else pixels.astype(np.float32), spec


def _write_cut_outs(folder: Path, name: str, view: np.ndarray, labels: np.ndarray) -> None:
    sizes = np.bincount(labels.ravel())
    for label in np.flatnonzero(sizes >= MIN_CUT_OUT * labels.size):
        (folder / f"{name}-{label + 1}.png").write_bytes(encode(cut_out(view, labels == label)))


def _table(key: str, columns: dict[str, np.ndarray]) -> pa.Table:
    """The segments of one image; labels are those in the files."""
    n = len(columns["label"])
    return pa.table({"key": [key] * n, **columns, "label": columns["label"] + 1})


def _plain(key: str) -> str:
    """A part of a file name that says which image it is: letters, digits and dashes, at most 60."""
    return re.sub(r"[^A-Za-z0-9]+", "-", Path(key).stem).strip("-")[:60] or "image"


def _result(output: Path, counts: list[int], skipped: list[tuple[str, str]]) -> Result:
    middle = int(np.median(counts))
    sentences = [f"{counted(len(counts), 'image')} split into {counted(sum(counts), 'segment')}; median {middle}."]
    if skipped:
        sentences.append(f"{counted(len(skipped), 'file')} skipped, such as {skipped[0][0]}: {skipped[0][1]}.")
    files = [
        (str(output / "labels"), "label maps, 16-bit PNG, labels from 1"),
        (str(output / "overlays"), "the borders on the images"),
        (str(output / "regions.csv"), "area, position, shape and color of each segment"),
    ]
    return Result(
        name="segment",
        title="Segments",
        sentences=sentences,
        metrics={"n_images": len(counts), "n_segments": sum(counts)},
        panels=[FileList(files=files)],
        data={"files": [str(output)], "skipped": [list(pair) for pair in skipped]},
    )
