"""The images of an atlas as `imatlas.tasks.duplicates` takes them."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np

from imatlas.atlas.store import Store
from imatlas.atlas.table import ROWS
from imatlas.images.keys import video_frame
from imatlas.images.thumbnails import square_view
from imatlas.tasks.duplicates.features import SIDE
from imatlas.tasks.duplicates.gallery import Gallery


def gallery(store: Store) -> Gallery:
    """All images, from their thumbnails; the pixels lie in a temporary file."""
    n, rows = len(store), store.rows
    with tempfile.TemporaryFile(prefix="imatlas-") as file:
        stretched = np.memmap(file, np.uint8, "w+", shape=(n, SIDE, SIDE, 3))
    for start in range(0, n, ROWS):
        some = np.arange(start, min(start + ROWS, n))
        for row, data in zip(some.tolist(), store.thumbnails(some), strict=True):
            stretched[row] = square_view(data, SIDE, "stretch")
    folder = store.originals.folder
    sizes = [_size_of(store.originals.path(key)) if folder else 0 for key in rows["key"].tolist()]
    return Gallery(
        keys=rows["key"].tolist(),
        pixels_of=lambda rows: np.asarray(stretched[rows]),
        thumbnail_of=lambda row: store.thumbnails([row])[0],
        content=np.array(_contents(store), dtype=str),
        area=rows["width"].astype(np.int64) * rows["height"],
        size=np.array(sizes, np.int64),
        folder=folder if any(sizes) and not _has_parts(store) else None,
        user_named_folder=False,
    )


def _contents(store: Store) -> list[str]:
    """One text per image, equal for the same frame of byte-identical files."""
    hashes, keys = store.rows["sha256"].tolist(), store.rows["key"].tolist()
    several = store.manifest.settings["frames"] == "all"
    frames = [re.search(r"#\d+$", key) if several else None for key in keys]
    videos = [video_frame(key) for key in keys]
    return [
        f"{sha256}#t={video[1]}" if video else f"{sha256}{frame[0] if frame else ''}"
        for sha256, frame, video in zip(hashes, frames, videos, strict=True)
    ]


def _has_parts(store: Store) -> bool:
    """Whether some images are frames or rows of a stack, which are not files that could be moved."""
    stacked = any(re.search(r"\.npy#\d+$", key) for key in store.rows["key"].tolist())
    return store.manifest.settings["frames"] == "all" or stacked


def _size_of(path: Path | None) -> int:
    """The bytes of a file, 0 if there is none."""
    try:
        return 0 if path is None else path.stat().st_size
    except OSError:
        return 0
