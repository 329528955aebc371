"""Search for a part of an image in the originals of an atlas; their parts are kept in its cache, by content."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from imatlas.atlas.originals import Region, cropped
from imatlas.atlas.queries import row_of, thumbnails_of
from imatlas.atlas.store import Store
from imatlas.errors import DecodeError, InputError, Notice, SourceError
from imatlas.images.decode import check_thumbnail, read_picture
from imatlas.images.encode import encode
from imatlas.images.intake import with_progress
from imatlas.images.pixels import composited_visibly
from imatlas.images.sources.base import Source
from imatlas.images.sources.opening import open_source
from imatlas.images.sources.user_input import as_one
from imatlas.images.spec import ImageSpec
from imatlas.models.parts.feature_cache import FeatureCache
from imatlas.system.atomic_io import is_link
from imatlas.system.threads import sharing_cores
from imatlas.tasks.region_search import N_FEATURES, N_NUMBERS, N_PARTS, nearest_parts, parts_of, query_of
from imatlas.tasks.search import write_sheet
from imatlas.tasks.source_pictures import read_item, upright

CACHED = "segments.1"
"""Name of the parts in the cache; a change of `parts_of` gets a new one."""

QUERY_REGION = "query_region"
"""Metadata of a result: left, top, width and height of what was looked for."""

SAVED = 64
"""Images after which the cache is written, so that a killed search loses about a minute."""

FRAME = (255, 0, 80)
"""Color of the box around a region."""


@sharing_cores()
def search_regions(
    store: Store, query: Any, k: int, region: Region | None, point: tuple[int, int] | None, progress: bool
) -> pa.Table:
    """The k images with the parts nearest to a part of the query; see `Atlas.search`."""
    if region is not None and point is not None:
        raise InputError("What to look for is either a region or a point. Got both.")
    pixels, spec = _query_pixels(store, query)
    if region is not None:
        cropped(pixels, region, "the query")
    if point is not None and not (0 <= point[0] < spec.width and 0 <= point[1] < spec.height):
        raise InputError(f"The point must be inside the query, {spec.width} x {spec.height} pixels. Got x,y = {point}.")
    wanted = query_of(pixels, spec, region=region, point=point)
    tables = _parts_of_all(store, progress)
    parts, distances = nearest_parts(wanted.features, tables)
    distances[row_of(store, query)] = np.inf
    best = np.argsort(distances, kind="stable")[:k]
    best = best[np.isfinite(distances[best])]
    boxes = tables[best, parts[best], N_FEATURES:].astype(np.int64)
    columns = dict(zip(("left", "top", "width", "height"), boxes.T, strict=True))
    keys = store.keys.take(pa.array(best))
    found = {"rank": np.arange(1, len(best) + 1), "key": keys, "distance": distances[best], **columns}
    return pa.table(found).replace_schema_metadata({QUERY_REGION: ",".join(map(str, wanted.box))})


def query_region(found: pa.Table) -> Region:
    """The box of what was looked for, from a result of `search_regions`."""
    left, top, width, height = map(int, found.schema.metadata[QUERY_REGION.encode()].split(b","))
    return left, top, width, height


def write_region_sheet(store: Store, query: Any, found: pa.Table, output: Path) -> Path:
    """Write what was looked for and the images found, with a box around the part, as one .png contact sheet."""
    rows = found.to_pylist()
    parts = []
    for row in rows:
        own = row_of(store, row["key"])
        size = int(store.rows["width"][own][0]), int(store.rows["height"][own][0])
        box = row["left"], row["top"], row["width"], row["height"]
        parts.append(framed(store.thumbnails(own)[0], size, box))
    return write_sheet(thumbnails_of(store, [query], query_region(found)), parts, output)


def framed(thumbnail: bytes, size: tuple[int, int], box: Region) -> bytes:
    """A thumbnail with a box drawn on it; the box is in pixels of the original, whose width and height are given."""
    pixels = read_picture(check_thumbnail(thumbnail)).to_srgb().pixels()
    if pixels.dtype != np.uint8 or pixels.shape[2] > 4:
        return thumbnail
    pixels = composited_visibly(pixels[None], (255, 255, 255))[0] if pixels.shape[2] in (2, 4) else pixels
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels.copy()
    height, width = pixels.shape[:2]
    share = width / max(1, size[0]), height / max(1, size[1])
    left, top = (min(max(0, int(box[i] * share[i])), (width, height)[i] - 1) for i in (0, 1))
    right, bottom = (
        min(max(start + 1, round((box[i] + box[i + 2]) * share[i])), (width, height)[i])
        for i, start in enumerate((left, top))
    )
    line = max(1, max(height, width) // 64)
    inner = pixels[top + line : bottom - line, left + line : right - line].copy()
    pixels[top:bottom, left:right] = FRAME
    pixels[top + line : bottom - line, left + line : right - line] = inner
    return encode(pixels, "png")


def _query_pixels(store: Store, query: Any) -> tuple[np.ndarray, ImageSpec]:
    """The query at its original size: an image of the atlas by its key, or any other."""
    own = row_of(store, query)
    source: Source = store.originals_of(own) if len(own) else open_source(as_one(query, "query"))
    if len(source.keys) != 1:
        raise InputError(f"The query must be one image. Got {len(source.keys)}; give one of them.")
    return upright(read_item(source, 0))


def _parts_of_all(store: Store, progress: bool) -> np.ndarray:
    """The parts (n_images, N_PARTS, N_NUMBERS) of all images: from the cache, or from the originals.

    Raises
    ------
    SourceError
        If the originals are needed and gone.
    """
    contents = store.contents
    tables = np.full((len(contents), N_PARTS * N_NUMBERS), np.nan, np.float32)
    folder = store.folder / "cache"
    cache = None if is_link(folder) else FeatureCache(folder / "segments")
    missing = np.arange(len(contents))
    if cache is not None:
        missing = np.flatnonzero(~cache.find(CACHED, contents, tables))
    lost: list[str] = []
    if len(missing):
        source = store.originals_of(missing)
        new: list[int] = []
        for i, row in enumerate(with_progress(missing.tolist(), "Finding the parts of all images", progress)):
            try:
                tables[row] = parts_of(*upright(read_item(source, i))).ravel()
                new.append(row)
            except (DecodeError, SourceError, OSError) as error:
                lost.append(str(error))
            if cache is not None and (len(new) == SAVED or i + 1 == len(missing)):
                cache.add(CACHED, [contents[row] for row in new], tables[new])
                new = []
    if len(lost) == len(contents):
        raise SourceError(f"None of the original images can be used ({lost[0]}); put them back.")
    if lost:
        warnings.warn(f"{len(lost):,} images were not searched, such as: {lost[0]}.", Notice, stacklevel=4)
    return tables.reshape(len(contents), N_PARTS, N_NUMBERS)
