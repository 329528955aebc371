"""The original images of an atlas, if they still exist; the atlas itself stores thumbnails.

An atlas may come from a stranger, and its source may be an address. Reading from there would tell a server of the
stranger's choice who opens the atlas, and fetch what they choose with the credentials of whoever does. So an address is
only contacted when something needs an original, and only if this user has learned the atlas from it, as a signature
tells, or has named it in the environment variable `ALLOWED`. The hash of an image decides whether it may be used.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from contextlib import suppress
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from imatlas.arguments import is_address, refused, whole
from imatlas.errors import DecodeError, ImatlasError, InputError, SourceError, UnsafePathError
from imatlas.images.decode import read_picture
from imatlas.images.encode import encode
from imatlas.images.formats.sniff import format_of
from imatlas.images.formats.video import read_video
from imatlas.images.keys import file_name_of, video_frame
from imatlas.images.sources.base import Source
from imatlas.images.sources.files import FileSource
from imatlas.images.sources.keyed import KeyedSource
from imatlas.images.sources.lance_tables import is_lance
from imatlas.images.sources.opening import open_file, open_source
from imatlas.images.sources.remote import RemoteOriginals
from imatlas.images.sources.shards import container_names, is_table_name
from imatlas.system.atomic_io import relative
from imatlas.tasks.duplicates.signature import is_signed

ALLOWED = "IMATLAS_ORIGINALS"
"""The environment variable with the addresses, separated by spaces, from which originals may be read."""

Region = tuple[int, int, int, int]
"""Left, top, width and height, in pixels of the original image."""


class Originals:
    """The source that an atlas was learned from, opened when first needed.

    Parameters
    ----------
    source : str
        Folder or file, as in the manifest. Images that were given in memory are not available.
    field : str, optional
        Column that contains the images, if one was given.
    signature : str
        Of an address, by the user who learned from it: `signed_text`.
    """

    def __init__(self, source: str, field: str | None = None, signature: str = "") -> None:
        self.name, self._field, self._signature = source, field, signature
        self._containers: dict[Path, tuple[Source, dict[str, int]]] = {}
        self._hashes: dict[Any, str] = {}  # of videos, which are large, by path, size and time

    @cached_property
    def _remote(self) -> RemoteOriginals | None:
        """The images at an address; None for others.

        Raises
        ------
        SourceError
            If the user has not said that this address may be read.
        """
        if not is_address(self.name):
            return None
        allowed = os.environ.get(ALLOWED, "").split()
        if self.name not in allowed and not is_signed(signed_text(self.name), self._signature):
            raise SourceError(
                f"This needs the original images at '{self.name}', and this atlas was not learned by you on this "
                f"machine; if you trust the address, allow it: export {ALLOWED}={shlex.quote(self.name)}."
            )
        return RemoteOriginals(self.name, self._field, open_file)

    @cached_property
    def folder(self) -> Path | None:
        """The folder that contains the originals as files; None for an archive or an array."""
        return Path(self.name) if self.name and os.path.isdir(self.name) else None

    @property
    def _is_file(self) -> bool:
        """Whether the source is a file, or the folder of a Lance dataset.

        A glob pattern from an untrusted manifest could list whole disks.
        """
        return not is_address(self.name) and (os.path.isfile(self.name) or is_lance(self.name))

    @cached_property
    def _source(self) -> Source:
        return open_source(self.name, self._field)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {key: i for i, key in enumerate(self._source.keys)}

    def path(self, key: str) -> Path | None:
        """The file of an image; None if it is gone or not a separate file (in an archive or array).

        Key and source may come from an untrusted atlas. So the folder is never listed, and the key must name a file
        below it (links of the user are followed). The hash decides whether the content may be used: see `content`.
        """
        if self.folder is not None:
            try:
                path = self.folder / relative(file_name_of(key))
                return path if path.is_file() else None
            except (UnsafePathError, OSError):  # the name is too long
                return None
        try:
            if not self._is_file:
                return None
            source = self._source
        except (ImatlasError, OSError):
            return None
        if not isinstance(source, FileSource) or key not in self._places:
            return None
        path = source.path(self._places[key])
        return path if path.is_file() else None

    def read(self, key: str) -> Any:
        """An image as it is stored: the bytes of its file, or pixels (H, W, C).

        Raises
        ------
        DecodeError, SourceError
            If it no longer exists.
        """
        if (remote := self._remote) is not None:
            return remote.read(key)
        path = self.path(key)
        if path is not None:
            return FileSource.from_list([path]).read(0)
        if self.folder is not None and not self._is_file:
            for name, inner in container_names(key):
                with suppress(UnsafePathError, OSError):
                    container = self.folder / relative(file_name_of(name))
                    if container.is_file():
                        return self._within(container, inner)
        if not self._is_file or key not in self._places:
            raise DecodeError(f"'{self.name}' no longer contains '{key}'")
        return self._source.read(self._places[key])

    def _within(self, path: Path, key: str) -> Any:
        """A row of a table file, or a member of an archive, in the folder."""
        if path not in self._containers:
            source = open_source(path, self._field if is_table_name(path.name) else None)
            self._containers[path] = source, {key: i for i, key in enumerate(source.keys)}
        source, places = self._containers[path]
        if key not in places:
            raise DecodeError(f"'{path}' no longer contains '{key}'")
        return source.read(places[key])

    def content(self, key: str, sha256: str) -> Any:
        """As `read`, for content that leaves the program: only the image that the atlas was learned from.

        Raises
        ------
        DecodeError, SourceError
            If it no longer exists, is not an image, or its hash differs from the one in the atlas.
        """
        frame = video_frame(key)
        if frame is not None and self.path(key) is None:
            return self._video_frame(*frame, sha256)
        content = self.read(key)
        if isinstance(content, bytes):
            _check_same(hashlib.sha256(content).hexdigest(), key, sha256)
            format_of(content, key)
        return content

    def copy(self, key: str, sha256: str) -> Any:
        """As `content`, for a file that is called `images.keys.copy_name`: a frame of a video as a PNG file."""
        content = self.content(key, sha256)
        return encode(content) if video_frame(key) and not isinstance(content, bytes) else content

    def _video_frame(self, key: str, time: int, sha256: str) -> np.ndarray:
        """The frame (H, W, C) of a video at a time in milliseconds; the hash is that of the file."""
        path = self.path(key)
        file = BytesIO(self.read(key)) if path is None else FileSource.from_list([path]).open(0)
        with file:
            state = os.stat(path) if path is not None else None
            sign = (path, state.st_size, state.st_mtime_ns) if state is not None else None
            digest = self._hashes.get(sign) or hashlib.file_digest(file, "sha256").hexdigest()
            _check_same(digest, key, sha256)
            if sign is not None:
                self._hashes[sign] = digest
            with read_video(file) as video:
                return video.at(time).pixels()

    def source(self, keys: list[str], hashes: list[str]) -> KeyedSource:
        """Some images, each read as by `content`, as a source for `open_source`.

        Raises
        ------
        SourceError
            If folder or file no longer exist, the images were given in memory, or an address may not be read.
        """
        if self._remote is None and self.folder is None and not self._is_file:
            raise SourceError(
                f"This needs the original images, but '{self.name}', which the atlas was learned from, is not here; "
                "put it back, or learn an atlas from where the images are now."
            )
        return KeyedSource(self.name, keys, hashes, self.content)

    def pixels(self, key: str, sha256: str) -> np.ndarray:
        """An image at its original size (H, W, C), upright.

        Raises
        ------
        DecodeError, SourceError
            If it no longer exists or has another hash.
        """
        content = self.content(key, sha256)
        return read_picture(content, name=key).pixels() if isinstance(content, bytes) else np.asarray(content)


def signed_text(address: str) -> str:
    """What the signature of an atlas's address is of."""
    return f"originals {address}"


def _check_same(found: str, key: str, sha256: str) -> None:
    if found != sha256:
        raise DecodeError(f"'{key}' has changed since the atlas was learned")


def check_region(region: Any) -> Region:
    """The region as four ints.

    Raises
    ------
    ParameterError
        If it is not four ints.
    """
    parts = region.tolist() if isinstance(region, np.ndarray) else region
    numbers = [whole(part) for part in parts] if isinstance(parts, list | tuple) else []
    if len(numbers) != 4 or any(number is None for number in numbers):
        raise refused("region", "search", "four ints: left, top, width and height in pixels", region)
    left, top, width, height = (number or 0 for number in numbers)
    return left, top, width, height


def check_point(point: Any) -> tuple[int, int]:
    """The point (x, y) as two ints; raises ParameterError if it is not."""
    numbers = [whole(part) for part in point] if isinstance(point, list | tuple) else []
    if len(numbers) != 2 or any(number is None for number in numbers):
        raise refused("point", "search", "two ints: x and y in pixels", point)
    return numbers[0] or 0, numbers[1] or 0


def cropped(image: np.ndarray, region: Region, name: str) -> np.ndarray:
    """Crop a region of an image (H, W, C).

    Raises
    ------
    InputError
        If the region is empty or not inside the image.
    """
    left, top, width, height = region
    if min(left, top) < 0 or min(width, height) < 1 or left + width > image.shape[1] or top + height > image.shape[0]:
        raise InputError(
            f"The region must be inside {name}, which is {image.shape[1]} x {image.shape[0]} pixels. Got left {left}, "
            f"top {top}, width {width}, height {height}."
        )
    return image[top : top + height, left : left + width]
