"""Figures as files: raster or vector graphics of any size, written atomically and reproducibly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imatlas.arguments import check_number, check_path
from imatlas.errors import InputError, ParameterError
from imatlas.images.encode import SUFFIXES, write_picture
from imatlas.system.atomic_io import output_path, write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 200
"""Default pixels per inch."""

CSS_INCH = 96
"""Pixels per inch of an SVG or PDF, as in browsers."""

VECTORS = (".svg", ".pdf")

MOST_PIXELS = 65_000
"""Longest side of a raster file: the limit of matplotlib's Agg backend."""


def save(
    figure: Figure, path: str | Path, *, width_px: int | None = None, dpi: float | None = None, quality: int = 90
) -> Path:
    """Write a figure; the file extension selects the format.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : path
        .png, .jpg, .webp or .tif for pixels, .svg or .pdf for vectors with the images at their own resolution.
    width_px : int, optional
        Width in pixels; in .svg and .pdf 96 of them are an inch. Lines and letters grow with it.
    dpi : float, optional
        Pixels an inch of the figure, instead of `width_px`. By default 200; .svg and .pdf then keep the figure's size.
    quality : int
        For .jpg and .webp, 1 to 100.

    Returns
    -------
    Path
        The file; one that was there is replaced whole or not at all.

    Raises
    ------
    ParameterError
        If both `width_px` and `dpi` are given, or the picture would be too small or too large.
    InputError
        If the ending is none of these.
    """
    path = output_path(check_path(path, "path", "save"))
    if width_px is not None and dpi is not None:
        raise ParameterError(f"Give either 'width_px' or 'dpi', not both. Got {width_px!r} and {dpi!r}.")
    for name, value in (("width_px", width_px), ("dpi", dpi)):
        if value is not None:
            check_number(value, name, "save", low=1)
    ending = check_ending(path)
    if ending in VECTORS:
        write_file(path, _vectors(figure, ending[1:], width_px))
        return path
    return write_picture(path, _raster(figure, width_px, dpi), quality=quality)


def check_ending(path: str | Path) -> str:
    """The file extension of a file that `save` can write, such as ".svg".

    Raises
    ------
    InputError
        If it is none of these.
    """
    ending = Path(path).suffix.lower()
    if ending not in VECTORS and ending not in SUFFIXES:
        raise InputError(
            f"A map can be a .png, .jpg, .webp, .tif, .svg or .pdf file. Got '{Path(path).name}'; change its ending."
        )
    return ending


def _raster(figure: Figure, width_px: int | None, dpi: float | None) -> np.ndarray:
    """The figure as pixels (H, W, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    inches = figure.get_size_inches()
    dpi = (dpi or DPI) if width_px is None else width_px / inches[0]
    # Agg truncates fractions of a pixel: a little more keeps 2400 from becoming 2399.
    dpi *= 1 + 1e-9
    if max(inches) * dpi > MOST_PIXELS:
        raise ParameterError(
            f"A raster file can be at most {MOST_PIXELS:,} on a side. Got {max(inches) * dpi:,.0f}; write "
            "an .svg or .pdf."
        )
    before, canvas = figure.dpi, figure.canvas
    try:
        figure.dpi = dpi
        drawn = FigureCanvasAgg(figure)
        drawn.draw()
        pixels = np.array(drawn.buffer_rgba())
    finally:
        figure.dpi = before
        figure.set_canvas(canvas)
    if pixels[..., 3].min() == 255:
        return pixels[..., :3]
    return pixels


def _vectors(figure: Figure, kind: str, width_px: int | None) -> bytes:
    """The figure as an SVG or PDF, without dates and with reproducible ids."""
    import matplotlib

    out = BytesIO()
    factor = 1.0 if width_px is None else width_px / CSS_INCH / figure.get_size_inches()[0]
    metadata = {"Date": None} if kind == "svg" else {"CreationDate": None}
    style: Any = {"svg.hashsalt": "imatlas", "svg.fonttype": "path", "pdf.fonttype": 42}
    with matplotlib.rc_context(style), _scaled(figure, factor):
        figure.savefig(out, format=kind, metadata=metadata, facecolor=figure.get_facecolor())
    return out.getvalue()


@contextmanager
def _scaled(figure: Figure, factor: float) -> Iterator[None]:
    """Scale a figure with its lines and text, and keep images at their own resolution, within the block."""
    from matplotlib.collections import Collection
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.text import Text

    before: list[tuple[Any, Any]] = []

    def change(setter: Any, old: Any, new: Any) -> None:
        before.append((setter, old))
        setter(new)

    change(figure.set_size_inches, figure.get_size_inches().copy(), figure.get_size_inches() * factor)
    for artist in figure.findobj():
        if isinstance(artist, Text):
            change(artist.set_fontsize, artist.get_fontsize(), float(artist.get_fontsize()) * factor)
        elif isinstance(artist, Patch | Line2D):
            change(artist.set_linewidth, artist.get_linewidth(), artist.get_linewidth() * factor)
        elif isinstance(artist, Collection):
            change(artist.set_linewidth, artist.get_linewidth(), np.asarray(artist.get_linewidth()) * factor)
        elif isinstance(artist, AxesImage):
            change(artist.set_interpolation, artist.get_interpolation(), "none")
    try:
        yield
    finally:
        for setter, old in reversed(before):
            setter(old)
