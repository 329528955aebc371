"""Images on the map: in each cell the image nearest to its prototype, the mean of its images, or the prototype."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from imatlas.arguments import strict_yes
from imatlas.errors import InputError, ParameterError
from imatlas.images.decode import read_picture
from imatlas.images.formats.pillow import picture_from
from imatlas.images.pixels import display_view
from imatlas.lattice.drawing import PITCH
from imatlas.plots.canvas import SHRUNK, Canvas, blank, cells_of, checked_clusters
from imatlas.result import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHUNK = 256
"""Images or rows processed together for means and distances."""

SHOWS = ("exemplar", "mean", "prototype")


@strict_yes
def image_sheet(
    som: Any,
    images: Any = None,
    X: Any = None,
    *,
    show: Literal["exemplar", "mean", "prototype"] = "exemplar",
    decode: Callable[[np.ndarray], Any] | None = None,
    crop: bool = True,
    clusters: Any = None,
    width: float = 8.0,
    picture_size: int = 256,
) -> Figure:
    """Draw a picture in each cell; cells without images stay empty.

    Parameters
    ----------
    som : SOM
        A fitted map.
    images : Images, ndarray (n_samples, H, W[, C]), or sequence of pictures
        uint8, uint16 or float in [0, 1]; a sequence may also hold the bytes of image files. Not needed for prototypes.
    X : array-like (n_samples, n_features), or (n_samples,) of int
        The rows of these images; for means also their cells from `som.predict`.
    show : {'exemplar', 'mean', 'prototype'}
        The image nearest to the prototype, the mean of all images of the cell, or the decoded prototype, which fills
        every cell.
    decode : callable
        From prototypes (n_cells, n_features) to images (n_cells, H, W[, C]), such as `autoencoder.inverse_transform`,
        or ``lambda codes: codes.reshape(-1, 28, 28)`` where the rows are pixels.
    crop, clusters, width, picture_size
        As in `picture_map`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError, ParameterError, MissingExtraError

    Examples
    --------
    >>> som = SOM(rows=12, cols=16, topology="hexagonal").fit(X)        # doctest: +SKIP
    >>> save(image_sheet(som, images, X, show="mean"), "means.png")     # doctest: +SKIP
    """
    if show not in SHOWS:
        raise ParameterError(f"The 'show' parameter must be one of {', '.join(SHOWS)}. Got {show!r} instead.")
    pictures: list[Picture | None]
    if show == "prototype":
        if decode is None:
            raise InputError("show='prototype' needs 'decode', a function from prototypes to images. Got None.")
        pictures = list(_decoded(decode(som.codebook_), len(som.codebook_)))
    else:
        if images is None or X is None:
            raise InputError(
                f"show='{show}' needs the images and their rows X. Got None; give image_sheet(som, images, X)."
            )
        n_rows = np.shape(X)[0]
        if len(images) != n_rows:
            raise InputError(f"Each image needs one row of X. Got {len(images):,} images and {n_rows:,} rows.")
        pictures = _nearest(som, images, X) if show == "exemplar" else _means(som, images, cells_of(som, X))
    return picture_map(som, pictures, crop=crop, clusters=clusters, width=width, picture_size=picture_size)


@strict_yes
def picture_map(
    som: Any,
    pictures: Sequence[Picture | None],
    *,
    crop: bool = True,
    clusters: Any = None,
    width: float = 8.0,
    picture_size: int = 256,
) -> Figure:
    """Draw a given picture in each cell, or none.

    Parameters
    ----------
    som : SOM
        A fitted map.
    pictures : sequence (n_cells,)
        For each cell pixels (H, W[, C]), the bytes of an image file, or None for an empty cell.
    crop : bool
        True: a picture fills its cell and is cropped. False: the whole picture fits into it.
    clusters : array-like (n_cells,) of int, optional
        The cluster of each cell, to be outlined and numbered; negative for none.
    width : float
        Width of the figure in inches; everything scales with it.
    picture_size : int
        Longest side in pixels of the pictures; larger ones are downscaled.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError, ParameterError, MissingExtraError
    """
    canvas = blank(som, width)
    if len(pictures) != canvas.n_cells:
        raise InputError(
            f"The map has {canvas.n_cells:,} cells. Got {len(pictures):,} pictures; give None for empty cells."
        )
    marked = checked_clusters(clusters, canvas.n_cells)
    empty = np.array([k for k, picture in enumerate(pictures) if picture is None], dtype=np.int64)
    canvas.outline(canvas.polygons(SHRUNK, empty))
    shapes = canvas.polygons(SHRUNK)
    for cell, picture in enumerate(pictures):
        if picture is not None:
            _place(canvas, cell, _shrunk(_pixels(picture), picture_size), shapes[cell], crop)
    canvas.mark_clusters(marked)
    return canvas.figure


def _place(canvas: Canvas, cell: int, pixels: np.ndarray, shape: np.ndarray, crop: bool) -> None:
    """Put pixels (H, W, 3 or 4) uint8 into one cell."""
    from matplotlib.image import AxesImage
    from matplotlib.path import Path

    (x, y), (height, width) = canvas.centers[cell], pixels.shape[:2]
    hexagonal = canvas.lattice.topology == "hexagonal"
    # Half the side of the square around the cell, or of the largest square inside it.
    half = SHRUNK * PITCH / 2
    if hexagonal:
        half *= 2 / 3**0.5 if crop else 2 / (1 + 3**0.5)
    zoom = 2 * half / (min(height, width) if crop else max(height, width))
    right, down = zoom * width / 2, zoom * height / 2
    image = AxesImage(
        canvas.axes, interpolation="antialiased", extent=(x - right, x + right, y + down, y - down), origin="upper"
    )
    image.set_data(pixels)
    image.set_gid(f"cell-{cell}")
    canvas.axes.add_image(image)
    if crop and (hexagonal or height != width):
        image.set_clip_path(Path(np.concatenate([shape, shape[:1]]), closed=True), canvas.axes.transData)


def _nearest(som: Any, images: Any, X: Any) -> list[Picture | None]:
    """For each cell the image whose row is nearest to the prototype."""
    rows = np.asarray(X)
    if rows.ndim != 2:
        raise InputError(
            "show='exemplar' needs the rows X (n_samples, n_features) to find the nearest ones. Got only cells; "
            "give X, or use show='mean'."
        )
    chosen = exemplars(som, rows)
    spec, images = getattr(images, "spec", None), getattr(images, "thumbnails", images)
    pictures: list[Picture | None] = [None if k < 0 else images[int(k)] for k in chosen]
    if spec is None:
        return pictures
    return [p if p is None or isinstance(p, bytes) else display_view(p, spec) for p in pictures]


def exemplars(som: Any, X: np.ndarray, cells: np.ndarray | None = None) -> np.ndarray:
    """For each cell the index of its row nearest to the prototype; -1 for empty cells.

    Parameters
    ----------
    som : SOM
    X : ndarray (n_samples, n_features)
    cells : ndarray (n_samples,) of int, optional
        The cells of the rows, if known.

    Returns
    -------
    ndarray (n_cells,) int64
    """
    cells = som.predict(X) if cells is None else cells
    gaps = np.empty(len(X))
    for start in range(0, len(X), CHUNK):
        part = slice(start, start + CHUNK)
        gaps[part] = ((np.asarray(X[part], np.float64) - som.codebook_[cells[part]]) ** 2).sum(axis=1)
    order = np.lexsort((gaps, cells))
    found, first = np.unique(cells[order], return_index=True)
    nearest = np.full(len(som.codebook_), -1, dtype=np.int64)
    nearest[found] = order[first]
    return nearest


def _means(som: Any, images: Any, cells: np.ndarray) -> list[Picture | None]:
    """For each cell the mean of its images (H, W, C) uint8, with colors weighted by alpha."""
    spec, pixels = getattr(images, "spec", None), getattr(images, "pixels", images)
    order = np.argsort(cells, kind="stable")
    starts = np.searchsorted(cells[order], np.arange(len(som.codebook_) + 1))
    means: list[Picture | None] = []
    for start, stop in pairwise(starts.tolist()):
        total: Any = None
        for at in range(start, stop, CHUNK):
            members = order[at : min(at + CHUNK, stop)]
            taken = [pixels[int(k)] for k in members]
            views = [_pixels(one if spec is None else display_view(one, spec)) for one in taken]
            if len({view.shape for view in views} | ({total.shape} if total is not None else set())) > 1:
                raise InputError("show='mean' needs images of one size; resize them with Images(..., image_size=64).")
            values = np.stack(views).astype(np.float64)
            if values.shape[-1] in (2, 4):  # alpha
                values[..., :-1] *= values[..., -1:] / 255
            total = values.sum(axis=0) + (0 if total is None else total)
        means.append(None if total is None else _mean(total, stop - start))
    return means


def _mean(total: np.ndarray, n: int) -> np.ndarray:
    mean = total / n
    if mean.shape[-1] in (2, 4):
        mean[..., :-1] /= np.maximum(mean[..., -1:], 1e-9) / 255
    return np.clip(np.rint(mean), 0, 255).astype(np.uint8)


def _decoded(images: Any, n_cells: int) -> Any:
    array = np.asarray(images)
    if array.ndim not in (3, 4) or len(array) != n_cells:
        raise InputError(
            f"'decode' must return images ({n_cells}, H, W[, C]), one per prototype. Got shape {array.shape}."
        )
    return array


def _pixels(picture: Any) -> np.ndarray:
    """One picture as RGB or RGBA (H, W, 3 or 4) uint8."""
    if isinstance(picture, bytes | bytearray):
        pixels = read_picture(bytes(picture)).pixels()
    else:
        pixels = np.asarray(picture)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise InputError(f"A picture must have the shape (H, W) or (H, W, C). Got {pixels.shape}.")
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels / 257).astype(np.uint8)
    elif pixels.dtype.kind == "f":
        if np.nanmin(pixels) < -1 or np.nanmax(pixels) > 2:  # decoders may overshoot a little
            raise InputError(
                f"Float pixels must lie in [0, 1]. Got {np.nanmin(pixels):.3g} to {np.nanmax(pixels):.3g}; scale them."
            )
        pixels = np.rint(np.clip(np.nan_to_num(pixels, nan=0.5), 0, 1) * 255).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise InputError(f"Pixels must be uint8, uint16 or float in [0, 1]. Got {pixels.dtype}.")
    channels = pixels.shape[2]
    if channels == 2:
        return pixels[..., [0, 0, 0, 1]]
    return np.repeat(pixels, 3, axis=2) if channels == 1 else pixels if channels == 4 else pixels[..., :3]


def _shrunk(pixels: np.ndarray, size: int) -> np.ndarray:
    return pixels if max(pixels.shape[:2]) <= size else picture_from(pixels).thumbnail(size)
