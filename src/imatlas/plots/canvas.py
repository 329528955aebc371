"""The drawing of one map: its cells, the borders and numbers of its clusters, and a color bar below it.

Everything is drawn in the units of `lattice.drawing` on one pair of axes; line widths and font sizes scale with the
figure.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from imatlas.errors import InputError, MissingExtraError, ParameterError
from imatlas.lattice.drawing import PITCH, DrawnLattice, Place, Point, borders, label_places
from imatlas.system.terminal import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

PAPER, INK, SOFT, FAINT = "#fbf9f5", "#1c1a17", "#625c53", "#d8d1c4"
"""The report's background, text, secondary text, and the outline of an empty cell."""

SHADES = ("#f1ece2", "#bad8cf", "#88c1ba", "#5ba9a4", "#30908e", "#007576", "#005b5e", "#004045", "#06262d")
"""Color map from low to high: background to deep teal at equal steps of lightness in Oklab."""

CLUSTERS = (
    *("#d24d42", "#1a73d5", "#229633", "#a552b7", "#ab7306", "#138585", "#d55078", "#7366d9", "#868600", "#127fa7"),
    *("#9b2673", "#079d7b", "#9c4701", "#9f71e4", "#456b09", "#0299b3", "#af2938", "#6481f0", "#735a04", "#0094d9"),
)
"""The colors of clusters, as in the report."""

SHRUNK = 0.965
"""Side of a cell with a picture, and of an empty one, over the pitch."""

LETTERS = 0.019
"""Font size of a color bar over the width of the map."""


def need_matplotlib() -> None:
    """Check that matplotlib is installed.

    Raises
    ------
    MissingExtraError
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"Figures of maps need matplotlib ({error}); run: pip install 'imatlas[plots]'"
        ) from None


def lattice_of(som: Any) -> DrawnLattice:
    """The lattice of a fitted map."""
    som.positions_  # noqa: B018 - raises NotFittedError
    return DrawnLattice(som.topology, som.rows_, som.cols_)


@dataclass(frozen=True)
class Canvas:
    """A lattice on axes in the units of `imatlas.lattice.drawing`, y downward."""

    figure: Figure
    axes: Axes
    lattice: DrawnLattice
    points: float
    """Points (1/72 inch) per unit of the lattice."""
    letters: float = LETTERS
    trim: Point = (0.0, 0.0)
    """Margins cut off at the left and right, and at the top and bottom."""

    @property
    def n_cells(self) -> int:
        """Number of cells of the lattice."""
        return self.lattice.rows * self.lattice.columns

    @cached_property
    def centers(self) -> np.ndarray:
        """The centers of all cells (n_cells, 2)."""
        return np.array([self.lattice.center(*divmod(k, self.lattice.columns)) for k in range(self.n_cells)])

    def polygons(self, scale: float | np.ndarray = 1.0, cells: np.ndarray | None = None) -> np.ndarray:
        """The corners of cells (n, 4 or 6, 2), shrunk by `scale`, one number or one per cell."""
        centers = self.centers if cells is None else self.centers[cells]
        scales = np.broadcast_to(np.asarray(scale, dtype=float), (len(centers),))
        return centers[:, None] + np.array(self.lattice.corners) * scales[:, None, None]

    def fill(self, polygons: np.ndarray, colors: Any) -> None:
        """Fill polygons (n, k, 2), one color each. Edges of the same color hide the seams between them."""
        from matplotlib.collections import PolyCollection

        self.axes.add_collection(
            PolyCollection(list(polygons), facecolors=colors, edgecolors="face", linewidths=1.6 * self.points),
            autolim=False,
        )

    def outline(self, polygons: np.ndarray) -> None:
        """Draw a faint line around empty polygons (n, k, 2)."""
        from matplotlib.collections import PolyCollection

        if len(polygons):
            self.axes.add_collection(
                PolyCollection(list(polygons), facecolors="none", edgecolors=FAINT, linewidths=1.2 * self.points),
                autolim=False,
            )

    def write(self, x: float, y: float, text: str, size: float, **options: Any) -> None:
        """Write text at a point, `size` units high; dollar signs do not start a formula."""
        style: dict[str, Any] = {"ha": "center", "va": "center_baseline", "color": INK, "family": "DejaVu Sans"}
        self.axes.text(x, y, visible(text), parse_math=False, **(style | options | {"fontsize": size * self.points}))

    def mark_clusters(self, clusters: np.ndarray | None, *, inside: bool = True, raised: bool = False) -> None:
        """Draw borders between clusters and write each one's number at its center; a negative number means no cluster.

        With `inside` the lines run inside the cells of each cluster in its color, also around the map; else one dark
        line runs where two clusters meet. With `raised` the numbers are placed above the centers of their cells.
        """
        if clusters is None:
            return
        known = {divmod(k, self.lattice.columns): int(c) if c >= 0 else None for k, c in enumerate(clusters)}
        if len(set(known.values())) < 2:
            return
        size = max(self.lattice.columns, self.lattice.rows)
        stroke = min(max(3.4, 0.27 * size), 7.0)  # as in the report: a fixed width would be too thin on a large map
        if inside:
            for cluster, sides in borders(self.lattice, known, stroke / 2 + 0.2).items():
                self._lines(sides, _color(cluster), stroke, f"cluster-{cluster}")
        else:
            self._lines(self._inner_borders(known), PAPER, 1.8 * stroke, "halo")
            self._lines(self._inner_borders(known), INK, stroke, "borders")
        badge = min(max(15.0, 1.35 * size), 20.0 if raised else 40.0)
        for cluster, place in label_places(self.lattice, known).items():
            x, y = self.lattice.center(*place)
            self._badge(cluster, (x, y - (0.34 * PITCH if raised else 0.0)), badge)

    def _inner_borders(self, known: dict[Place, int | None]) -> list[tuple[Point, Point]]:
        """The sides between two cells of different clusters, each once."""
        lines = borders(self.lattice, {place: -1 if cluster is None else cluster for place, cluster in known.items()})
        met = Counter(_undirected(side) for sides in lines.values() for side in sides)
        return [side for side, n in met.items() if n > 1]

    def _lines(self, sides: list[tuple[Point, Point]], color: str, width: float, name: str) -> None:
        from matplotlib.patches import PathPatch, Rectangle
        from matplotlib.path import Path

        if sides:
            path = Path(np.array(sides).reshape(-1, 2), [Path.MOVETO, Path.LINETO] * len(sides))
            line: dict[str, Any] = {"linewidth": width * self.points, "capstyle": "round", "gid": name}
            patch = self.axes.add_patch(PathPatch(path, fill=False, edgecolor=color, zorder=3, **line))
            if self.trim != (0.0, 0.0):
                (wide, high), (x, y) = self.lattice.size, self.trim
                patch.set_clip_path(Rectangle((x, y), wide - 2 * x, high - 2 * y, transform=self.axes.transData))

    def _badge(self, cluster: int, center: Point, radius: float) -> None:
        from matplotlib.patches import Circle

        ring: dict[str, Any] = {"linewidth": 0.2 * radius * self.points, "zorder": 4}
        self.axes.add_patch(Circle(center, radius, facecolor=PAPER, edgecolor=_color(cluster), **ring))
        letters = radius * (1.1 if cluster < 100 else 0.8)
        self.write(*center, str(cluster), letters, weight="bold", zorder=5)

    @property
    def _below(self) -> float:
        """The y coordinate of the line of text below the map."""
        return self.lattice.size[1] - self.trim[1] + 6.0 + 0.8 * self.letters * self.lattice.size[0]

    def caption(self, text: str) -> None:
        """Write a caption below the map."""
        self.write(self.trim[0], self._below, text, self.letters * self.lattice.size[0], ha="left", color=SOFT)

    def scale(self, label: str, least: float, most: float) -> None:
        """Draw a color bar below the map: a label, shortened to fit, and the range of values."""
        from matplotlib.image import AxesImage

        width = self.lattice.size[0]
        letters, height = self.letters * width, 0.6 * self.letters * width
        y = self._below
        low, high = numbers(least, most)
        end = width - self.trim[0]
        right = end - 0.62 * letters * max(len(high), 2) - 0.5 * letters
        left = right - 0.24 * width
        room = int((left - self.trim[0] - 1.5 * letters) / (0.62 * letters)) - len(low)
        label = label if len(label) <= room else label[: max(1, room - 1)] + "…"
        self.caption(label)
        self.write(left - 0.5 * letters, y, low, letters, ha="right", color=SOFT)
        self.write(end, y, high, letters, ha="right", color=SOFT)
        extent = (left, right, y + height / 2, y - height / 2)
        bar = AxesImage(self.axes, interpolation="bilinear", extent=extent, origin="upper")
        bar.set_data(shades()(np.linspace(0, 1, 256))[None])
        self.axes.add_image(bar)


def blank(som: Any, width: float, *, scale: bool = False, trim: Point = (0.0, 0.0)) -> Canvas:
    """A figure with one empty map, `width` inches wide, with room below for a color bar if `scale`.

    `trim` is cut off at the left and right, and at the top and bottom.

    Raises
    ------
    MissingExtraError, ParameterError
    """
    need_matplotlib()
    if not (isinstance(width, int | float) and 0.1 <= width <= 1000):
        raise ParameterError(f"The 'width' parameter must be inches in the range [0.1, 1000]. Got {width!r} instead.")
    from matplotlib.figure import Figure

    lattice = lattice_of(som)
    letters = LETTERS if scale else 0.0
    wide, high = paper_size(lattice, letters, trim)
    figure = Figure(figsize=(width, width * high / wide), facecolor=PAPER)
    return on_axes(figure, (0.0, 0.0, 1.0, 1.0), lattice, letters, trim)


def paper_size(lattice: DrawnLattice, letters: float, trim: Point = (0.0, 0.0)) -> tuple[float, float]:
    """Width and height of a map with its margin and the color bar below it; `letters` 0 for none."""
    width, height = lattice.size
    across, down = _margin(lattice) - trim[0], _margin(lattice) - trim[1]
    return width + 2 * across, height + 2 * down + 2.0 * letters * width


def on_axes(
    figure: Figure,
    place: tuple[float, float, float, float],
    lattice: DrawnLattice,
    letters: float,
    trim: Point = (0.0, 0.0),
) -> Canvas:
    """An empty map within a figure: left, bottom, width and height as fractions of it."""
    axes = figure.add_axes(place)
    axes.set_axis_off()
    wide, high = paper_size(lattice, letters, trim)
    left, top = trim[0] - _margin(lattice), trim[1] - _margin(lattice)
    axes.set_xlim(left, left + wide)
    axes.set_ylim(top + high, top)
    points = 72 * figure.get_size_inches()[0] * place[2] / wide
    return Canvas(figure, axes, lattice, points, letters or LETTERS, trim)


def shades() -> Colormap:
    """The color map of all values, from low (light) to high (dark)."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("imatlas", SHADES)


def shaded(values: np.ndarray) -> np.ndarray:
    """The colors (n, 4) of values (n,) from the lowest to the highest; the lightest where all are equal."""
    low, high = float(values.min()), float(values.max())
    return shades()((values - low) / (high - low) if high > low else np.zeros(len(values)))


def checked_clusters(clusters: Any, n_cells: int) -> np.ndarray | None:
    """One cluster number per cell (n_cells,) int64, or None.

    Raises
    ------
    InputError
    """
    if clusters is None:
        return None
    array = np.asarray(clusters)
    if array.shape != (n_cells,) or array.dtype.kind not in "iu":
        raise InputError(
            f"'clusters' must hold one integer per cell, shape ({n_cells},). Got {array.dtype} of shape "
            f"{array.shape}; give, for example, kmeans.predict(som.codebook_)."
        )
    return array.astype(np.int64)


def cells_of(som: Any, X: Any) -> np.ndarray:
    """The flat cell of each row (n_samples,), from rows (n_samples, n_features) or from known cells.

    Raises
    ------
    InputError
        If a cell is not on the map.
    """
    array = np.asarray(X)
    if array.ndim != 1:
        return som.predict(X)
    n_cells = len(som.codebook_)
    if array.size and (array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= n_cells):
        raise InputError(
            f"Cells must be integers from 0 to {n_cells - 1}, as SOM.predict gives them. Got {array.dtype} from "
            f"{array.min()} to {array.max()}."
        )
    return array.astype(np.int64)


def numbers(least: float, most: float) -> tuple[str, str]:
    """Two numbers as text, with decimals to about a hundredth of their difference."""
    decimals = max(0, 2 - math.floor(math.log10(most - least))) if most > least else 3
    if decimals > 6:
        return f"{least:.3g}", f"{most:.3g}"

    def text_of(value: float) -> str:
        text = f"{value:,.{decimals}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return "0" if text == "-0" else text

    return text_of(least), text_of(most)


def _undirected(side: tuple[Point, Point]) -> tuple[Point, Point]:
    (ax, ay), (bx, by) = side
    start, end = sorted([(round(ax, 6), round(ay, 6)), (round(bx, 6), round(by, 6))])
    return start, end


def _margin(lattice: DrawnLattice) -> float:
    return 4.0 + 0.006 * max(lattice.size)


def _color(cluster: int) -> str:
    return CLUSTERS[cluster % len(CLUSTERS)]
