"""`Images`, a set of pictures from any source, and `load_pixels`, which turns any model input into arrays."""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from imatlas.arguments import (
    RandomState,
    check_int,
    check_number,
    check_path,
    check_seed,
    is_address,
    number_of,
    refused,
    strict_yes,
    whole,
)
from imatlas.errors import InputError, Notice
from imatlas.images import intake
from imatlas.images.cuts import CUTS, checked_video
from imatlas.images.decoded_set import DecodedSet, LazySet, SentSet, Thumbnails
from imatlas.images.image_size import Size, checked_size, height_width, is_side
from imatlas.images.memory_budget import checked_bytes
from imatlas.images.picture import Fit, Frames
from imatlas.images.pixel_rows import PixelRows
from imatlas.images.pixels import RGB, conformed, kind_of, rgb_view
from imatlas.images.records import Records
from imatlas.images.sources.arrays import ArraySource
from imatlas.images.sources.opening import open_source
from imatlas.images.sources.origin import Origin
from imatlas.images.sources.stacks import Stacks
from imatlas.images.sources.user_input import as_items
from imatlas.images.spec import MAX_IMAGE_SIDE, ImageSpec
from imatlas.system import processes
from imatlas.system.workers import Workers

_OF_ONE_VIEW = frozenset({"keys", "records", "pixels", "fingerprint"})
"""What is kept with a view once it was asked for, and holds for no other."""

_COUNTING = threading.Lock()
"""Of the threads that count originals that could not be read."""


class Images:
    """A set of images from any source, decoded once on first use.

    Parameters
    ----------
    source : path, list of paths, array, tensor or dataset
        A folder (with all folders below), a glob pattern, one file, a list of files, a .zip, .tar, .tar.gz, .parquet,
        .npy or .npz file, a Lance dataset, an address ("s3://bucket/photos") or a list of them, an array or tensor
        (N, H, W) or (N, H, W, C), a Hugging Face or torch dataset, or a list of pictures.
    image_size : int or (int, int), optional
        Height and width of `pixels`. By default an array keeps its own size, and so do files that all have one size of
        at most 64 px; else it is 32 where the median shorter side is at most 40 px or there are more than 200,000
        images, and 64 otherwise. (The sizes are those of 200 evenly spread files.)
    fit : {'crop', 'pad', 'stretch'}
        What to do with other aspect ratios: crop the center, pad with the background, or stretch.
    background : (int, int, int)
        The background for compositing transparent pixels, and the color of padding.
    frames : {'first', 'all'}
        What to take from animations and stacks; with 'all' the keys are "name#1", "name#2", ...
    video : str or float
        What to take from videos, which needs `imatlas[video]`: 'cuts' for one frame of each shot and one every 5
        seconds of longer ones, or the time between two frames, as in '2s'. The keys are "clip.mp4#t=12.4", in seconds.
    cache_dir : path, optional
        Where the pixel cache is kept. By default a temporary folder, deleted with the object.
    cache_size : int or str, optional
        Most bytes that a new pixel cache may take, such as "20G"; by default as many as it needs.
    workers : int, optional
        Decoding threads; by default one per processor. `learn(..., cluster=...)` puts the workers of a cluster here.
    progress : bool
        Show a progress bar while reading.
    thumbnail_size : int, optional
        Longer side of `thumbnails` in pixels; 96 by default for arrays.
    field : str or int, optional
        The column of a table, or the field of a dataset's items, that holds the images; found by its name by default.

    Attributes
    ----------
    keys : list of str
        One key per image: its path relative to the source, with forward slashes.
    skipped : list of (str, str)
        Key and reason of each item that was not used; files that are not images share one line with their count.
    records : Records
        Key, original size, format, mode, frames, sha256 of the file, perceptual hash and notes of each image.
    pixels : ndarray of shape (N, H, W, C)
        Memory-mapped, or the array that was given. Read-only.
    spec : ImageSpec
        The shape, dtype and value range of the set.
    thumbnails : sequence of bytes
        JPEG or PNG files.

    Raises
    ------
    SourceError
        If the source does not exist, is empty, or is at an address that does not answer or refuses access.
    MissingExtraError
        If the package for the protocol of an address is missing.
    InputError
        If an address may contain a secret; on first use, if none of the images can be read, or the pixel cache would
        take more than `cache_size`.

    Notes
    -----
    Mixed sets. Channels: gray if all images are gray, else RGB; an alpha channel is kept if every image has one (and
    at least one is not opaque), else images are composited on the background. Depth: the most frequent, or deepest;
    8-bit images among 16-bit ones are multiplied by 257; 16-bit images among 8-bit ones are divided by 257 if they are
    gray or RGB with values beyond 12 bits, else scaled from their common 0.1 to 99.9 percentile range, with a note.
    Pictures and multi-channel images: the more frequent kind stays, the other is skipped. 16-bit and float sets keep
    their values, unclipped, with one range (0.1 to 99.9 percentile; 0 to 1 for floats within it) in `spec`.
    """

    @strict_yes
    def __init__(
        self,
        source: Any,
        *,
        image_size: Size | None = None,
        fit: Fit = "crop",
        background: RGB = (255, 255, 255),
        frames: Frames = "first",
        video: str | float = CUTS,
        cache_dir: str | Path | None = None,
        cache_size: int | str | None = None,
        workers: int | Workers | None = None,
        progress: bool = False,
        thumbnail_size: int | None = None,
        field: str | int | None = None,
    ) -> None:
        _check(image_size, fit, background, frames, workers, thumbnail_size)
        self.image_size = image_size
        self.fit: Fit = fit
        self.background: RGB = tuple(int(v) for v in background)  # type: ignore[assignment]
        self.frames: Frames = frames
        self.video = checked_video(video, "Images")
        self.cache_dir = check_path(cache_dir, "cache_dir", "Images") if cache_dir is not None else None
        self.cache_size = checked_bytes(cache_size, "cache_size", "Images")
        self.workers = workers
        self.progress = progress
        self.thumbnail_size = thumbnail_size
        self._index: np.ndarray | None = None
        if field is not None and not isinstance(field, str) and whole(field) is None:
            raise refused("field", "Images", "None, or the name of a column", field)
        self._set = LazySet(open_source(source, field))

    @property
    def _all(self) -> DecodedSet:
        """The whole set behind this view, decoded on first use."""
        return self._set.decoded(self)

    @property
    def _rows(self) -> np.ndarray:
        """The rows of the whole set that belong to this view."""
        return np.arange(len(self._all.pixels)) if self._index is None else self._index

    @property
    def source(self) -> str:
        """The source in words."""
        return self._set.source.name

    @property
    def has_gaps(self) -> bool:
        """Whether a mask hides some of the given pixels."""
        return bool(getattr(self._set.source, "has_gaps", False))

    @property
    def origin(self) -> Origin:
        """The place of the images, as an atlas records it."""
        return self._set.source.origin

    @property
    def root(self) -> Path | None:
        """The folder or file that the keys are relative to, if there is one."""
        return self._set.source.root

    def __len__(self) -> int:
        return len(self._all.pixels) if self._index is None else len(self._index)

    @cached_property
    def keys(self) -> list[str]:
        """One key per image."""
        keys = self._all.keys
        return list(keys) if self._index is None else [keys[i] for i in self._index]

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Key and reason of each item in the source that was not used."""
        return list(self._all.skipped)

    @property
    def n_lost(self) -> int:
        """How often an original could no longer be decoded and its cached pixels were used instead."""
        return self._all.n_lost

    @property
    def n_cached_bytes(self) -> int:
        """The bytes of the pixel cache; 0 for an array, which needs none."""
        cache = self._all.cache
        return 0 if cache is None else cache.n_bytes

    @property
    def spec(self) -> ImageSpec:
        """The shape, dtype and value range of the set."""
        return self._all.spec

    @cached_property
    def records(self) -> Records:
        """The metadata of each image."""
        records = self._all.records
        return records if self._index is None else records[self._index]

    @cached_property
    def pixels(self) -> np.ndarray:
        """The images (N, H, W, C) at the size of the set; a view of evenly spaced images costs no memory."""
        pixels = self._all.pixels
        if self._index is None:
            return pixels
        run = _as_slice(self._index)
        return pixels[self._index if run is None else run]

    @property
    def pixel_rows(self) -> np.ndarray | PixelRows:
        """`pixels`, or where that would be a copy an array of the same images that copies each when it is indexed."""
        if self._index is None or "pixels" in self.__dict__ or _as_slice(self._index) is not None:
            return self.pixels
        return PixelRows(self._all.pixels, self._index)

    @property
    def thumbnails(self) -> Sequence[bytes]:
        """A thumbnail of each image as a JPEG or PNG file."""
        return Thumbnails(self._all, self._rows, self.thumbnail_size, self.background)

    def __getitem__(self, index: Any) -> Any:
        """`images[3]` is the image (H, W, C) at its original size; a slice, index array or mask gives a view."""
        number = None if isinstance(index, slice) else number_of(index)
        if number is not None:
            decoded = self._set.decoded(self)
            rows = range(len(decoded.pixels)) if self._index is None else self._index
            return decoded.original(int(rows[range(len(rows))[number]]), self)
        whole = self._rows
        if not isinstance(index, slice):
            index = np.asarray(index)
            if index.size == 0:
                index = index.astype(np.int64)
            if index.ndim != 1 or index.dtype.kind not in "iub":
                raise TypeError(f"Images are indexed by an int, a slice, an array of ints or a mask. Got {index!r}.")
        view = object.__new__(Images)
        view.__dict__.update({k: v for k, v in self.__dict__.items() if k not in _OF_ONE_VIEW})
        view._index = whole[index]
        return view

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        source = self._set.source
        if self._set.is_open or isinstance(source, ArraySource):
            spec, skipped = self.spec, len(self._all.skipped)
            what = f"{len(self)} images of {spec.height} x {spec.width} x {spec.channels} {spec.dtype}"
            return f"<Images: {what} from {source.name}{f', {skipped} skipped' if skipped else ''}>"
        return f"<Images: {len(source.keys)} items from {source.name}, not read yet>"

    def split(self, held_out: float = 0.1, random_state: RandomState = 0) -> tuple[Images, Images]:
        """Two views: the images to train on and the held-out ones, each in the order of the set.

        Parameters
        ----------
        held_out : float
            The held-out fraction, within (0, 1); each view has at least one image.
        random_state : int, RandomState, Generator or None
            Seed or random generator; None for a fresh seed.
        """
        share = check_number(held_out, "held_out", "split", low=0, high=1, above=True)
        if share == 1:
            raise refused("held_out", "split", "a number below 1", held_out)
        if len(self) < 2:
            raise InputError(f"A split needs at least 2 images. Got {len(self)}.")
        order = np.random.default_rng(check_seed(random_state, "split")).permutation(len(self))
        n = min(len(self) - 1, max(1, round(share * len(self))))
        return self[np.sort(order[n:])], self[np.sort(order[:n])]

    def at_size(self, image_size: Size) -> Images:
        """The same images at another size, decoded again from their originals."""
        if image_size is None:
            raise refused(
                "image_size", "at_size", f"an int in the range [1, {MAX_IMAGE_SIDE}], or a pair of them", None
            )
        height, width = height_width(checked_size(image_size))
        if (height, width) == (self.spec.height, self.spec.width):
            return self
        other = object.__new__(Images)
        other.__dict__.update({k: v for k, v in self.__dict__.items() if k not in _OF_ONE_VIEW})
        other.image_size = (height, width)
        other._set = LazySet(self._set.source)
        if self._index is not None and len(other._all.pixels) != len(self._all.pixels):
            raise InputError("The originals have changed since these images were first read; create the Images again.")
        return other

    def batches(
        self, batch_size: int, image_size: Size | None = None, channels: int | None = None
    ) -> Iterator[np.ndarray]:
        """Yield the images in order, as arrays (n, H, W, C) with n = `batch_size`, the last one smaller.

        Parameters
        ----------
        batch_size : int
        image_size : int or (int, int), optional
            A size other than the set's: the originals are decoded again by threads, a few batches ahead, and resized
            by a fast filter, good enough for an encoder. Where an original can no longer be read its cached pixels
            are scaled, and one warning gives the count.
        channels : {3}, optional
            3 gives RGB uint8 for any set: see `rgb_view`.
        """
        batch_size = check_int(batch_size, "batch_size", "batches", low=1)
        if channels not in (None, 3):
            raise refused("channels", "batches", "None or 3", channels)
        spec = self.spec
        size = (spec.height, spec.width) if image_size is None else height_width(checked_size(image_size))
        rows = self._rows
        parts = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        opened = self._all
        if size == (spec.height, spec.width):
            arrays: Iterator[np.ndarray] = (opened.pixels[p] for p in parts)
        else:
            arrays = self._decoded(opened, parts, size)
        for array in arrays:
            yield rgb_view(array, spec, self.background) if channels == 3 else array

    def _decoded(self, opened: DecodedSet, parts: list[np.ndarray], size: tuple[int, int]) -> Iterator[np.ndarray]:
        workers = intake.n_workers(self.workers)
        lost = 0
        # Small tasks, so that all threads work on the batch that is needed next.
        tasks = [part[i : i + intake.CHUNK] for part in parts for i in range(0, len(part), intake.CHUNK)]
        results = intake.in_order(lambda rows: opened.refitted(rows, size, self), tasks, workers)
        for part in parts:
            batch = np.empty((len(part), *size, opened.spec.channels), opened.spec.dtype)
            filled = 0
            while filled < len(part):
                pixels, failed = next(results)
                batch[filled : filled + len(pixels)] = pixels
                filled += len(pixels)
                lost += failed
                if failed:
                    with _COUNTING:
                        opened.n_lost += failed
            yield batch
        if lost:
            warnings.warn(
                f"{lost} of {len(self)} originals can no longer be read; their cached pixels were scaled instead.",
                Notice,
                stacklevel=3,
            )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the content: keys, files, size and fit. Equal for equal images in any location."""
        spec = self.spec
        digest = hashlib.sha256(repr((spec, self.fit, self.background)).encode())
        for key, sha256 in zip(self.keys, self.records["sha256"].tolist(), strict=True):
            digest.update(f"{key}\0{sha256}\n".encode())
        return digest.hexdigest()

    @property
    def cluster_workers(self) -> Workers | None:
        """The workers of a cluster, if these images have some."""
        return self.workers if isinstance(self.workers, Workers) else None

    def for_workers(self) -> Images | None:
        """These images as workers on other machines decode them, from their originals; None for an array.

        Pixels that were decoded here stay here: a worker counts an original that it cannot read in `n_lost`, and makes
        it blank.
        """
        sent = SentSet.of(self._all)
        if sent is None:
            return None
        view = self[:]
        view._set, view.workers, view.cache_dir, view.progress = sent, 1, None, False
        return view

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in self.__dict__.items() if k not in _OF_ONE_VIEW}
        return state | ({} if self.cluster_workers is None else {"workers": None})


def with_mask(images: Any, mask: np.ndarray | None = None) -> tuple[Any, np.ndarray | None]:
    """The values and the mask (N, H, W) of a masked array that hides anything, unless another mask is given."""
    if not isinstance(images, np.ma.MaskedArray):
        return images, mask
    if mask is None and np.ma.is_masked(images):
        hidden = np.ma.getmaskarray(images)
        mask = np.asarray(hidden.any(axis=3) if hidden.ndim == 4 else hidden)
    return images.data, mask


def pixels_like(images: Any, spec: ImageSpec) -> np.ndarray:
    """Pixels (N, H, W, C) of `spec`, including its dtype; a masked array if any are missing."""
    pixels, own = load_pixels(images, spec=spec)
    if own.dtype == spec.dtype:
        return pixels
    missing = np.isnan(pixels)
    middle = np.where(missing, np.float32((spec.low + spec.high) / 2), pixels)
    return np.ma.MaskedArray(middle.astype(spec.dtype), missing)


def _place(item: str | os.PathLike[str]) -> str:
    """An item of a list of files and addresses, the same however a file is written."""
    text = os.fsdecode(item)
    return text if is_address(text) else os.path.abspath(os.path.expanduser(text))


def images_of(X: Any, **options: Any) -> Images:
    """The input of a model as `Images` with one row per item of X, in the same order.

    For a folder, a pattern or an archive the rows are the images that can be read, sorted by name, as in `Images`.

    Parameters
    ----------
    X : Images, or any source of them
    **options
        Options of `Images`; `Images` are returned unchanged.

    Raises
    ------
    InputError
        If items of a list or a dataset cannot be used, as missing rows would shift all others; or if a stack of
        several images is listed twice.
    """
    if isinstance(X, Images):
        return X
    items = as_items(X)
    places: np.ndarray | None = None
    if isinstance(items, list | tuple) and items and all(isinstance(item, str | os.PathLike) for item in items):
        files = [_place(item) for item in items]
        first = {file: i for i, file in enumerate(dict.fromkeys(files))}
        places = np.array([first[file] for file in files])
        items = list(first)
    images = Images(items, **options)
    source = images._set.source
    if source.explicit and not isinstance(source, ArraySource) and images.skipped:
        lost = [f"'{key}' ({reason})" for key, reason in images.skipped]
        raise InputError(
            f"{len(lost)} of {len(source.keys):,} items cannot be used, so the rows would not correspond to the "
            f"input: {', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''}. Leave them out; or pass Images(...), "
            "whose keys name its rows."
        )
    if places is not None and len(places) > len(items):
        if isinstance(source, Stacks):
            raise InputError(
                "A file appears twice in a list with stacks, which have one row per image; list each file once."
            )
        return images[places]
    return images


def load_pixels(
    images: Any, *, image_size: Size | None = None, mask: np.ndarray | None = None, spec: ImageSpec | None = None
) -> tuple[np.ndarray, ImageSpec]:
    """The pixels (N, H, W, C) and spec of any model input, copied only if necessary.

    Parameters
    ----------
    images : Images, ndarray, tensor, or any source of `Images`
    image_size : int or (int, int), optional
        Resize to this size.
    mask : ndarray of bool of shape (N, H, W), optional
        True where a pixel is missing; the result is then a float array with NaN there.
    spec : ImageSpec, optional
        Convert to the size, channels and dtype that a model was fitted on.

    Raises
    ------
    InputError
        If the mask has another shape, or the channels cannot be converted to those of `spec`.
    """
    if spec is not None:
        image_size = (spec.height, spec.width)
    resized = (
        isinstance(images, np.ndarray) and image_size is not None and images.shape[1:3] != height_width(image_size)
    )
    if not resized:  # else the mask goes with the pixels, as NaN
        images, mask = with_mask(images, mask)
    if not isinstance(images, Images):
        images = images_of(images, image_size=image_size)
    elif image_size is not None:
        images = images.at_size(image_size)
    pixels, own = images.pixels, images.spec
    if spec is not None:
        pixels = conformed(pixels, own, spec, images.background, missing=True)
        own = replace(spec, dtype=pixels.dtype.name)  # type: ignore[arg-type]
    if mask is not None:
        mask = np.asarray(mask)
        if mask.shape != pixels.shape[:3] or mask.dtype != bool:
            raise InputError(
                f"The mask must be bool of shape {pixels.shape[:3]}, True where a pixel is missing. Got {mask.dtype} "
                f"of shape {mask.shape}."
            )
        pixels = pixels.astype(np.float32)
        pixels[mask] = np.nan
        own = replace(own, dtype="float32")
    return pixels, own


def load_pixel_rows(images: Any, *, spec: ImageSpec | None = None) -> tuple[np.ndarray | PixelRows, ImageSpec]:
    """As `load_pixels`; but some of a set of `Images` that fit as they are need not be copied all at once."""
    if isinstance(images, Images):
        own = images.spec
        if spec is None or (own.shape, kind_of(own)) == (spec.shape, kind_of(spec)):
            return images.pixel_rows, spec or own
    return load_pixels(images, spec=spec)


def decoded_together(images: Any) -> Any:
    """Images, whose pixel cache the first process of each machine writes and the others open, under torchrun."""
    if processes.count() == 1 or isinstance(images, np.ndarray):
        return images
    opened = images_of(images)
    opened._set.decode_together(opened)
    return opened


def load_masked(images: Any, mask: np.ndarray | None) -> tuple[np.ndarray, ImageSpec]:
    """Pixels and spec of any model input; with a mask, pixels become floats and the spec keeps their original depth."""
    images, mask = with_mask(images, mask)
    pixels, spec = load_pixels(images)
    if mask is not None:
        pixels, _ = load_pixels(pixels, mask=mask)
    return pixels, spec


def _as_slice(index: np.ndarray) -> slice | None:
    """An evenly increasing index as a slice, which copies nothing."""
    if len(index) == 0:
        return slice(0, 0)
    step = int(index[1] - index[0]) if len(index) > 1 else 1
    if step > 0 and not np.any(np.diff(index) != step):
        return slice(int(index[0]), int(index[-1]) + 1, step)
    return None


def _check(image_size: Any, fit: Any, background: Any, frames: Any, workers: Any, thumbnail_size: Any) -> None:
    """Check the options of `Images`."""

    def fail(name: str, must: str, value: Any) -> None:
        raise refused(name, "Images", must, value)

    checked_size(image_size)
    if not isinstance(fit, str) or fit not in get_args(Fit):
        fail("fit", "one of " + ", ".join(map(repr, get_args(Fit))), fit)
    if not isinstance(frames, str) or frames not in get_args(Frames):
        fail("frames", "one of " + ", ".join(map(repr, get_args(Frames))), frames)
    colors = [whole(v) for v in background] if isinstance(background, tuple | list | np.ndarray) else []
    if len(colors) != 3 or not all(v is not None and 0 <= v <= 255 for v in colors):
        fail("background", "three ints in the range [0, 255]", background)
    if not (workers is None or isinstance(workers, Workers) or is_side(workers)):
        fail("workers", "None or an int in the range [1, 4096]", workers)
    if not (thumbnail_size is None or is_side(thumbnail_size)):
        fail("thumbnail_size", "None or an int in the range [1, 4096]", thumbnail_size)
