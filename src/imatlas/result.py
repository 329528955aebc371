"""Result: the output of every task, shown by the report, the command line and the studio.

A Result holds a few sentences, named metrics, and panels. A panel is one of the kinds below; a renderer that knows them
can show every task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Picture = np.ndarray | bytes
"""One picture: pixels (H, W, C) uint8 with 1, 3 or 4 channels, or the bytes of a PNG, JPEG or WebP file."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Base of all panels: a short title, a sentence of explanation, and alternative text for the picture."""

    title: str = ""
    note: str = ""
    alt: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageGrid(Panel):
    """Pictures in rows, each with a short caption ("" for none)."""

    images: Sequence[Picture]
    captions: Sequence[str] = ()
    size: int = 96


@dataclass(frozen=True, kw_only=True)
class ImagePairs(Panel):
    """Groups of pictures to compare side by side: each row holds one picture per name in `names`."""

    names: Sequence[str]
    rows: Sequence[Sequence[Picture]]
    captions: Sequence[str] = ()
    size: int = 96


@dataclass(frozen=True, kw_only=True)
class Comparisons(Panel):
    """Pairs of pictures of one size, one over the other, with a slider between them: before and after."""

    names: tuple[str, str]
    pairs: Sequence[tuple[Picture, Picture]]
    captions: Sequence[str] = ()
    size: int = 480


@dataclass(frozen=True, kw_only=True)
class Scatter(Panel):
    """Points (N, 2), optionally with a group (color), a key, and a picture for each; and names of groups."""

    x: np.ndarray
    y: np.ndarray
    groups: np.ndarray | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    keys: Sequence[str] = ()
    images: Sequence[Picture] = ()


@dataclass(frozen=True, kw_only=True)
class Curve(Panel):
    """Line chart: name -> (x values, y values)."""

    series: dict[str, tuple[Sequence[float], Sequence[float]]]
    x_label: str = ""
    y_label: str = ""
    log_y: bool = False


@dataclass(frozen=True, kw_only=True)
class DataTable(Panel):
    """Rows of plain values in named columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Cell:
    """One cell of a map: its exemplar picture (None where empty), its number of images, and some of them."""

    row: int
    column: int
    count: int
    image: Picture | None = None
    cluster: int | None = None
    members: Sequence[tuple[str, Picture]] = ()
    u_height: float = 0.0


@dataclass(frozen=True, kw_only=True)
class MapPanel(Panel):
    """A lattice of cells with pictures, cluster colors and gaps between dissimilar neighbors.

    `sizes` are the numbers of images of the clusters, whose images may lie in cells of others; without it, of cells.
    `names` are those of clusters that have one.
    """

    rows: int
    columns: int
    topology: Literal["rectangular", "hexagonal"]
    cells: Sequence[Cell]
    sizes: Mapping[int, int] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FileList(Panel):
    """Files that were written or left out: path and note."""

    files: Sequence[tuple[str, str]]


@dataclass
class Result:
    """The output of a task.

    Attributes
    ----------
    name : str
        Short machine name ("clusters"); the anchor in the report, the key in JSON.
    title : str
        Heading.
    sentences : list of str
        The findings, most important first.
    metrics : dict
        Numbers by name.
    panels : list of Panel
        Pictures, plots and tables.
    data : dict
        Further JSON values for `--json`.
    protocol : str
        How the metrics were measured: number of images, split, features, seed.
    """

    name: str
    title: str
    sentences: list[str] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    panels: list[Panel] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    protocol: str = ""

    def to_json(self) -> dict[str, Any]:
        """The result without its pictures, as JSON values."""
        return {
            "name": self.name,
            "title": self.title,
            "sentences": self.sentences,
            "metrics": {k: plain(v) for k, v in self.metrics.items()},
            "protocol": self.protocol,
            **{k: plain(v) for k, v in self.data.items()},
        }


def plain(value: Any) -> Any:
    """NumPy values as Python ones, and non-finite numbers as None, as standard JSON requires."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value
