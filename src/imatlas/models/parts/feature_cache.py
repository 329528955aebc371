"""Cache of encoder features by image content: a new image costs only itself, whatever its name and location.

    folder/<encoder>-000001.npy, <encoder>-000002.npy, …     rows of (content, features)
           features.json                                     the list of these files, each with its hash

`encoder` identifies everything that determines features: weights, options, code. `content` is the hash of the file and
the number of the frame. A file is written atomically and never changed; all of them may be deleted. A damaged file is
ignored. Files that are not on the list are neither read nor deleted.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imatlas.errors import ImatlasError
from imatlas.images.dataset import Images
from imatlas.system.atomic_io import is_link, remove_listed, write_file
from imatlas.system.inventory import Entry, Inventory, read_json, seal

MAX_BYTES = 2 * 1024**3
"""Total size beyond which the oldest files are deleted: about 400,000 images of one encoder."""

LIST = "features.json"

_NAME = re.compile(r"[A-Za-z0-9_.]{1,80}-(\d{6})\.npy")


@dataclass(frozen=True)
class CachedFeatures:
    """Which of some images have cached features, and where.

    Attributes
    ----------
    files : list of ndarray
        Memory-mapped rows of (content, features).
    file, row : ndarray (n_images,)
        Number of the file and of the row in it; file -1 where there are none.
    """

    files: list[np.ndarray]
    file: np.ndarray
    row: np.ndarray

    @property
    def found(self) -> np.ndarray:
        """Which images have features (n_images,) bool."""
        return self.file >= 0

    def fill(self, features: np.ndarray, images: np.ndarray) -> None:
        """Set the rows of `features` (n, n_features) float32 that are cached, of some images (n,) by their numbers."""
        for number, rows in enumerate(self.files):
            here = np.flatnonzero(self.file[images] == number)
            features[here] = rows["features"][self.row[images[here]]]


class FeatureCache:
    """A folder of cached features.

    Parameters
    ----------
    folder : path
        Created with the first entry.
    max_bytes : int
    """

    def __init__(self, folder: str | Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.folder = Path(folder)
        self.max_bytes = max_bytes

    def look_up(self, encoder: str, contents: list[bytes], n_features: int) -> CachedFeatures:
        """Where the features of images with these contents lie; each file is hashed once."""
        file, row = np.full(len(contents), -1, np.int32), np.zeros(len(contents), np.int64)
        opened: list[np.ndarray] = []
        listed = self._listed()
        for name in [name for name in listed.files if name.rpartition("-")[0] == encoder]:
            rows = None if listed.damaged([name]) else _opened(self.folder / name, n_features)
            if rows is None:
                continue
            row_of = {content: number for number, content in enumerate(rows["content"].tolist())}
            for i, content in enumerate(contents):
                if file[i] < 0 and content in row_of:
                    file[i], row[i] = len(opened), row_of[content]
            opened.append(rows)
        return CachedFeatures(opened, file, row)

    def find(self, encoder: str, contents: list[bytes], features: np.ndarray) -> np.ndarray:
        """Fill the rows of `features` (n, n_features) float32 that are cached; returns which they are (n,) bool."""
        known = self.look_up(encoder, contents, features.shape[1])
        known.fill(features, np.arange(len(contents)))
        return known.found

    def add(self, encoder: str, contents: list[bytes], features: np.ndarray) -> None:
        """Add features (n, n_features) of images with these contents; nothing is added if the disk is full."""
        if not contents:
            return
        rows = np.empty(len(contents), [("content", "S32"), ("features", "<f4", (features.shape[1],))])
        rows["content"], rows["features"] = contents, features
        file = io.BytesIO()
        np.save(file, rows, allow_pickle=False)
        content = file.getvalue()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if is_link(self.folder):
                return
            listed = self._listed()
            numbers = [int(match[1]) for name in os.listdir(self.folder) if (match := _NAME.fullmatch(name))]
            name = f"{encoder}-{1 + max(numbers, default=0):06d}.npy"
            # Listed before it is written: what an interrupted run leaves is on the list, but fails its hash.
            listed.files[name] = Entry(len(content), hashlib.sha256(content).hexdigest())
            self._write_list(listed)
            write_file(self.folder / name, content)
            if self._forget(listed):
                self._write_list(listed)
        except (OSError, ImatlasError):
            return  # the caller goes on without the cache

    def _listed(self) -> Inventory:
        """The files on the list, the oldest first; none if the list is damaged."""
        try:
            values = read_json(self.folder / LIST)
            files = values["files"]
            if values["digest"] != seal({"files": files}):
                return Inventory(self.folder)
            known = {str(name): Entry(int(size), str(sha256)) for name, (size, sha256) in files.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return Inventory(self.folder)
        return Inventory(self.folder, {name: entry for name, entry in known.items() if _NAME.fullmatch(name)})

    def _write_list(self, listed: Inventory) -> None:
        files = {name: list(entry) for name, entry in listed.files.items()}
        text = json.dumps({"files": files, "digest": seal({"files": files})}, indent=1)
        write_file(self.folder / LIST, f"{text}\n".encode())

    def _forget(self, listed: Inventory) -> bool:
        """Delete the oldest files beyond the maximum size; returns whether there were any."""
        total, n_before = 0, len(listed.files)
        for name in list(listed.files)[::-1]:
            total += listed.files[name].size
            if total > self.max_bytes:
                if not listed.damaged([name]):  # a file with another hash is not ours
                    remove_listed(self.folder, [name])
                del listed.files[name]
        return len(listed.files) < n_before


def content_of(sha256: str, frame: int) -> bytes:
    """Identifier, 32 hexadecimal digits, of a frame of the file with this hash."""
    return hashlib.sha256(f"{sha256}#{frame}".encode()).hexdigest()[:32].encode()


def contents_of(images: Images) -> list[bytes]:
    """`content_of` each image."""
    records = images.records
    return [content_of(*row) for row in zip(records["sha256"].tolist(), records["frame"].tolist(), strict=True)]


def _opened(path: Path, n_features: int) -> np.ndarray | None:
    """The memory-mapped rows of a file; None if it is damaged or has another number of features."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = rows.dtype.names == ("content", "features") and rows.dtype["features"].shape == (n_features,)
    return rows if fits else None
