"""Results as one HTML page: panels become plain values for the templates, which hold all markup."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from imatlas import __version__
from imatlas.arguments import check_path
from imatlas.errors import InputTypeError
from imatlas.lattice.drawing import PITCH, DrawnLattice, label_places
from imatlas.report.map_paths import gaps, outlines, rounded
from imatlas.report.pictures import Pictures
from imatlas.report.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, curve_view, scatter_view
from imatlas.report.text import cluster_name, images, is_number, plain, shortened, words
from imatlas.result import (
    Cell,
    Comparisons,
    Curve,
    DataTable,
    FileList,
    ImageGrid,
    ImagePairs,
    MapPanel,
    Panel,
    Result,
    Scatter,
)
from imatlas.system.atomic_io import output_path, write_file
from imatlas.system.terminal import visible

N_COLORS = 20
MAX_TABLE_ROWS = 1000
MAX_FILES = 2000
MAX_MEMBERS = 24
FOLD_FILES, FOLD_IMAGES = 20, 60
"""Longer lists are folded after this many items."""
_MEMBER_SIZE, _CELL_SIZE, _THUMBNAIL_SIZE = 96, 120, 44


def render(
    results: Sequence[Result],
    *,
    title: str,
    subtitle: str = "",
    facts: Mapping[str, str] | None = None,
    path: str | Path,
) -> Path:
    """Write Results as one self-contained HTML file that works offline and without scripts.

    The first result with a `MapPanel` opens the page; the others follow in order. Identical pictures are stored once.
    Members of map cells, shown on a click, are left out evenly where the file would grow too large.

    Parameters
    ----------
    results : sequence of Result
    title, subtitle : str
        Heading of the page, and the sentence below it.
    facts : mapping of str to str, optional
        Headline numbers: {"images": "1,053", "clusters": "12"}.
    path : path
        The file to write; an existing one is replaced atomically.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputTypeError
        If a panel is not of a kind defined in `imatlas.result`.
    InputError
        If a picture is neither pixels (H, W, C) uint8 nor a PNG, JPEG, WebP or GIF file.
    DecodeError
        If the bytes of a picture are damaged.
    """
    page = _Page()
    sections = [page.section(result) for result in results]
    page.add_members()
    first = next((k for k, section in enumerate(sections) if section["has_map"]), None)
    hero = sections.pop(first) if first is not None else None
    html = (
        _environment()
        .get_template("base.html.j2")
        .render(
            title=title,
            subtitle=subtitle,
            facts=list((facts or {}).items()),
            hero=hero,
            sections=sections,
            pictures=page.pictures,
            data={"pictures": page.pictures.behind(), "maps": page.maps},
            version=__version__,
        )
    )
    path = output_path(check_path(path, "path", "report"))
    write_file(path, html.encode("utf-8"))
    return path


@functools.cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,  # markup is not a plain str
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": plain, "words": words, "shortened": shortened}
    environment.tests["numeric"] = is_number
    environment.globals["color"] = lambda group: "none" if group is None or group < 0 else group % N_COLORS
    return environment


class _Page:
    """State of one page: its pictures, its ids, and the data shown on clicks."""

    def __init__(self) -> None:
        self.pictures = Pictures()
        self.maps: dict[str, Any] = {}
        self._ids = {"main", "top", "cell", "data", "theme"}
        self._maps: list[tuple[str, MapPanel]] = []
        self._views: dict[type[Panel], tuple[str, Callable[[Any, str], dict[str, Any]]]] = {
            ImageGrid: ("image_grid", self._image_grid),
            ImagePairs: ("image_pairs", self._image_pairs),
            Comparisons: ("comparisons", self._comparisons),
            MapPanel: ("map", self._map),
            Scatter: ("scatter", self._scatter),
            Curve: ("curve", self._curve),
            DataTable: ("table", self._table),
            FileList: ("files", self._files),
        }

    def section(self, result: Result) -> dict[str, Any]:
        """One result as values for the templates."""
        anchor = self._id(result.name or result.title)
        return {
            "id": anchor,
            "title": result.title,
            "sentences": result.sentences,
            "metrics": [(words(name), plain(value)) for name, value in result.metrics.items()],
            "protocol": result.protocol,
            "panels": [self._panel(panel, f"{anchor}-{k}") for k, panel in enumerate(result.panels, 1)],
            "has_map": any(isinstance(panel, MapPanel) for panel in result.panels),
        }

    def add_members(self) -> None:
        """Store the members of all cells, one per cell at a time, up to the size limit of the page."""
        shown: dict[tuple[str, int], list[tuple[str, str]]] = {}
        everything = [(name, k, cell) for name, panel in self._maps for k, cell in enumerate(panel.cells)]
        for rank in range(MAX_MEMBERS):
            have = [(name, k, cell.members[rank]) for name, k, cell in everything if rank < len(cell.members)]
            stored = self.pictures.show_later([picture for _, _, (_, picture) in have], _MEMBER_SIZE)
            if not have or stored is None:
                break
            for (name, k, (key, _)), one in zip(have, stored):
                shown.setdefault((name, k), []).append((str(key), one.id))
        for name, panel in self._maps:
            for k, cell in enumerate(panel.cells):
                if (name, k) not in shown and cell.image is not None:
                    exemplar = self.pictures.show_later([cell.image], _CELL_SIZE) or []
                    shown[name, k] = [("", one.id) for one in exemplar]
            self.maps[name] = [
                {
                    "row": cell.row,
                    "column": cell.column,
                    "count": cell.count,
                    "cluster": cell.cluster,
                    "name": ""
                    if cell.cluster is None
                    else cluster_name(cell.cluster, panel.names.get(cell.cluster, "")),
                    "members": shown.get((name, k), []),
                }
                for k, cell in enumerate(panel.cells)
            ]

    def _id(self, name: str) -> str:
        """An id that is unique on the page."""
        base = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "section"
        base = f"section-{base}" if base.startswith("pic-") or base[0].isdigit() else base
        free, number = base, 2
        while free in self._ids:
            free, number = f"{base}-{number}", number + 1
        self._ids.add(free)
        return free

    def _panel(self, panel: Panel, name: str) -> dict[str, Any]:
        for kind, (template, view) in self._views.items():
            if isinstance(panel, kind):
                name = self._id(name)
                alt = panel.alt or panel.title
                common = {"kind": template, "id": name, "title": panel.title, "note": panel.note, "alt": alt}
                return common | view(panel, name)
        kinds = ", ".join(kind.__name__ for kind in self._views)
        raise InputTypeError(f"A report shows panels of the kinds {kinds}; got a {type(panel).__name__}.")

    def _image_grid(self, panel: ImageGrid, name: str) -> dict[str, Any]:
        what = panel.alt or panel.title or "picture"
        items = [
            {
                "picture": self.pictures.show(picture, panel.size),
                "caption": str(caption or ""),
                "alt": str(caption or f"{what}, {number} of {len(panel.images)}"),
            }
            for number, (picture, caption) in enumerate(_aligned(panel.images, panel.captions), 1)
        ]
        return {"items": items[:FOLD_IMAGES], "folded": items[FOLD_IMAGES:], "size": panel.size}

    def _image_pairs(self, panel: ImagePairs, name: str) -> dict[str, Any]:
        rows = []
        for number, (row, caption) in enumerate(_aligned(panel.rows, panel.captions), 1):
            about = caption or f"{number} of {len(panel.rows)}"
            shown = [(self.pictures.show(picture, panel.size), f"{n}: {about}") for n, picture in zip(panel.names, row)]
            rows.append({"pictures": shown, "caption": str(caption or "")})
        size = panel.size
        return {"names": panel.names, "items": rows[:FOLD_IMAGES], "folded": rows[FOLD_IMAGES:], "size": size}

    def _comparisons(self, panel: Comparisons, name: str) -> dict[str, Any]:
        rows = []
        for number, (pair, caption) in enumerate(_aligned(panel.pairs, panel.captions), 1):
            about = caption or f"{number} of {len(panel.pairs)}"
            shown = [(self.pictures.show(one, panel.size), f"{n}: {about}") for n, one in zip(panel.names, pair)]
            width, height = shown[0][0].size
            fitting = panel.size * min(1.0, width / height)  # enlarged only if tiny, and never beyond `size`
            shown_width = round(fitting if shown[0][0].tiny else min(fitting, width))
            row = {"pictures": shown, "caption": str(caption or ""), "about": about, "width": max(24, shown_width)}
            rows.append(row)
        return {"names": panel.names, "items": rows, "size": panel.size}

    def _map(self, panel: MapPanel, name: str) -> dict[str, Any]:
        self._maps.append((name, panel))
        lattice = DrawnLattice(panel.topology, panel.rows, panel.columns)
        corners, gap = lattice.corners, gaps(panel)
        drawn = [self._cell(lattice, cell, space, panel.names) for cell, space in zip(panel.cells, gap)]
        by_row = [[c for c in drawn if c["row"] == row] for row in range(panel.rows)]
        width, height = lattice.size
        sizes = Counter[int](panel.sizes)
        for cell in panel.cells if not sizes else ():
            if cell.cluster is not None:
                sizes[cell.cluster] += cell.count
        # Lines and numbers grow with the map to stay visible.
        badge = min(max(15.0, 1.35 * max(panel.columns, panel.rows)), 40.0)
        stroke = min(max(3.4, 0.27 * max(panel.columns, panel.rows)), 7.0)
        clusters = {(cell.row, cell.column): cell.cluster for cell in panel.cells}
        places = label_places(lattice, clusters)
        return {
            "rows": by_row,
            "n_rows": panel.rows,
            "n_columns": panel.columns,
            "width": width,
            "height": height,
            "pitch": PITCH,
            "clip": rounded(corners, 0.965, 9.0 if panel.topology == "rectangular" else 6.0),
            "ring": rounded(corners, 0.97, 9.0 if panel.topology == "rectangular" else 6.0),
            "tile": max(abs(y) for _, y in corners),
            "stroke": stroke,
            "outlines": outlines(lattice, clusters, inset=stroke / 2 + 0.2),
            "labels": [(cluster, *lattice.center(*place)) for cluster, place in places.items() if cluster >= 0]
            if len(sizes) > 1
            else [],
            "badge": badge,
            "legend": [(cluster, panel.names.get(cluster, ""), sizes[cluster]) for cluster in sorted(sizes)],
            "has_gaps": any(gap),
            "n_empty": sum(cell.count == 0 for cell in panel.cells),
            "alt": panel.alt or f"Map of {panel.rows} by {panel.columns} cells; neighbors hold similar images.",
        }

    def _cell(self, lattice: DrawnLattice, cell: Cell, gap: float, names: Mapping[int, str]) -> dict[str, Any]:
        x, y = lattice.center(cell.row, cell.column)
        count = images(cell.count) if cell.count else "empty"
        cluster = "" if cell.cluster is None else f", {cluster_name(cell.cluster, names.get(cell.cluster, ''))}"
        return {
            "row": cell.row,
            "column": cell.column,
            "x": x,
            "y": y,
            "scale": 1.0 - 0.14 * gap,
            "empty": cell.image is None,
            "picture": None if cell.image is None else self.pictures.show(cell.image, _CELL_SIZE),
            "cluster": cell.cluster,
            "label": f"Row {cell.row}, column {cell.column}: {count}{cluster}",
        }

    def _scatter(self, panel: Scatter, name: str) -> dict[str, Any]:
        view = scatter_view(panel)
        keys = panel.keys
        thumbnails = [
            (
                self.pictures.show(panel.images[k], _THUMBNAIL_SIZE),
                x,
                y,
                str(keys[k]) if len(keys) else f"point {k}",
                color,
            )
            for k, x, y, color in view["thumbnails"]
        ]
        n = sum(group["n"] for group in view["groups"])
        alt = panel.alt or f"{panel.title or 'Scatter'}: {n:,} points" + (
            f" in {len(view['groups'])} groups." if view["labeled"] else "."
        )
        return view | {"thumbnails": thumbnails, "alt": alt, "radius": 3.0 if n > 3000 else 4.5 if n > 400 else 7.0}

    def _curve(self, panel: Curve, name: str) -> dict[str, Any]:
        frame = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM}
        return curve_view(panel) | frame | {"x_label": panel.x_label, "y_label": panel.y_label}

    def _table(self, panel: DataTable, name: str) -> dict[str, Any]:
        rows = list(panel.rows)
        return {"columns": panel.columns, "rows": rows[:MAX_TABLE_ROWS], "n_rows": len(rows)}

    def _files(self, panel: FileList, name: str) -> dict[str, Any]:
        files = [(str(path), str(note)) for path, note in panel.files]
        notes = Counter(note for _, note in files if note)
        common = notes.most_common(8) if len(files) > FOLD_FILES and len(notes) < len(files) else []
        head = len(files) if len(files) <= FOLD_FILES else 8
        return {
            "files": files[:head],
            "folded": files[head:MAX_FILES],
            "n_files": len(files),
            "n_left": max(0, len(files) - MAX_FILES),
            "common": common,
        }


def _aligned(items: Sequence[Any], captions: Sequence[str]) -> list[tuple[Any, str]]:
    """Each item with its caption, "" where captions are missing."""
    return list(zip_longest(items, list(captions)[: len(items)], fillvalue=""))
