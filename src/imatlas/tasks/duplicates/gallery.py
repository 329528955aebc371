"""The images that duplicates are searched among: from Images, an atlas, or two sets joined."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.images.dataset import Images
from imatlas.images.keys import video_frame
from imatlas.images.pixels import rgb_view
from imatlas.result import Picture
from imatlas.tasks.duplicates.exact import content_ids, n_pixels, quality_rank
from imatlas.tasks.duplicates.features import SIDE, PixelReader, resize
from imatlas.tasks.duplicates.reviewed import UNREVIEWED, Reviewed

COPY = re.compile(r"( \(\d+\)|[ _-]copy( \d+)?)(\.\w+)?$", re.IGNORECASE)
"""Names that file managers give to copies."""


@dataclass(frozen=True)
class Gallery:
    """Images to search for duplicates: their names, their pixels, and what decides which duplicate is kept.

    Attributes
    ----------
    keys : list of str
    pixels_of : callable
        Rows (n,) -> pixels (n, H, W, 3) uint8, each image stretched to one size.
    thumbnail_of : callable
        Row -> a picture to show.
    content : ndarray (n_images,) of str
        Equal for equal files.
    area, size : ndarray (n_images,) int64
        Pixels of the original, and bytes of its file; 0 where unknown.
    folder : Path or None
        The folder that the keys are files in.
    user_named_folder : bool
        Whether the user named that folder. An atlas, which may come from anybody, records one itself.
    reviewed : Reviewed
        What was decided about these images.
    """

    keys: list[str]
    pixels_of: PixelReader
    thumbnail_of: Callable[[int], Picture]
    content: np.ndarray
    area: np.ndarray
    size: np.ndarray
    folder: Path | None = None
    user_named_folder: bool = True
    reviewed: Reviewed = UNREVIEWED

    @classmethod
    def of(
        cls,
        images: Any,
        *,
        progress: bool = False,
        **taken: Any,
    ) -> Gallery:
        """The gallery of `Images`, or of anything they can be made from, with options of those such as `frames`.

        Images made here are stretched; those cropped to a square are compared by their center alone. Frames are not
        files of a folder, so no plan can move them.
        """
        if not isinstance(images, Images):
            images = Images(images, image_size=SIDE, fit="stretch", progress=progress, **taken)
        records, pixels, thumbnails = images.records, images.pixels, images.thumbnails
        table = records.table
        known = table.column("size").to_numpy() if "size" in table.column_names else np.zeros(len(records), np.int64)
        known = np.where([video_frame(key) is not None for key in images.keys], 0, known)  # the size is of the video
        return cls(
            keys=images.keys,
            pixels_of=lambda rows: rgb_view(np.asarray(pixels[rows]), images.spec, images.background),
            thumbnail_of=lambda row: thumbnails[row],
            content=content_ids(records),
            area=n_pixels(records),
            size=np.maximum(known, 0),
            folder=images.root if images.root and images.root.is_dir() and images.frames == "first" else None,
        )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def rank(self) -> np.ndarray:
        """The rank (n_images,) of each image: those that were chosen, then those of most pixels, then the largest file,
        then those that are not called "name (1)" or "name copy", then the first in the set."""
        not_called_copies = np.array([COPY.search(key) is None for key in self.keys], int)
        return quality_rank(self.reviewed.choice(len(self)), self.area, self.size, not_called_copies)

    def with_others(self, others: Gallery) -> Gallery:
        """These images followed by the others."""
        n = len(self)

        def pixels_of(rows: np.ndarray) -> np.ndarray:
            own = rows < n
            parts = [_at_one_size(part) for part in (self.pixels_of(rows[own]), others.pixels_of(rows[~own] - n))]
            both = np.empty((len(rows), *parts[0].shape[1:]), np.uint8)
            both[own], both[~own] = parts
            return both

        return Gallery(
            keys=[*self.keys, *others.keys],
            pixels_of=pixels_of,
            thumbnail_of=lambda row: self.thumbnail_of(row) if row < n else others.thumbnail_of(row - n),
            content=np.concatenate([self.content, others.content]),
            area=np.concatenate([self.area, others.area]),
            size=np.concatenate([self.size, others.size]),
        )


def _at_one_size(pixels: np.ndarray) -> np.ndarray:
    """Pixels (n, H, W, 3) uint8 at the size of comparison."""
    if pixels.shape[1:3] == (SIDE, SIDE):
        return pixels
    return resize(pixels).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
