"""The report is complete, offline, safe against hostile names, reproducible, and readable without scripts."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imatlas.report
from imatlas.errors import InputError, InputTypeError
from imatlas.lattice.drawing import DrawnLattice
from imatlas.report import render
from imatlas.report.map_paths import outlines
from imatlas.report.pictures import MAX_BYTES
from imatlas.report.plots import MAX_POINTS, axis, curve_view, scatter_view
from imatlas.report.text import plain, shortened
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

HOSTILE = "</script><script>alert('1')</script>\"><img src=x onerror=alert(2)>&amp; {{ 7*7 }}.jpg"
VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """A parsed page: every element with its attributes, the headings, and tags that were not closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.broken: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        self.broken += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.broken.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], []).append(data.strip())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]

    def having(self, css_class: str) -> list[dict[str, str]]:
        return [attrs for _, attrs in self.elements if css_class in attrs.get("class", "").split()]

    @property
    def data(self) -> dict:
        return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', self.source)[1])


def picture(seed: int, side: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def png(seed: int, side: int = 24) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(seed, side)).save(buffer, "PNG")
    return buffer.getvalue()


def map_panel(topology: str = "hexagonal", rows: int = 4, columns: int = 5, n_clusters: int = 3) -> MapPanel:
    cells = []
    for k in range(rows * columns):
        full = k % 4 != 3
        members = [(f"image-{k}-{j}.jpg", png(10 * k + j)) for j in range(3)] if full else []
        cells.append(
            Cell(
                row=k // columns,
                column=k % columns,
                count=7 if full else 0,
                image=members[0][1] if full else None,
                cluster=min(k % columns, n_clusters - 1) if full else None,
                members=members,
                u_height=float(k % 3),
            )
        )
    return MapPanel(title="", rows=rows, columns=columns, topology=topology, cells=cells, note="A note on the map")


def every_kind() -> list[Result]:
    """Results that hold each kind of panel, with names that try to break out of the page."""
    x = np.linspace(0, 5, 40)
    return [
        Result(
            "files",
            "What is there",
            ["The first sentence.", f"Names like {HOSTILE} are escaped."],
            {"n_images": 60000, "share": 0.03125, "ok": True, "missing": None, "not_a_number": float("nan")},
            [
                DataTable(title="Formats", columns=["format", HOSTILE], rows=[["JPEG", 12], [HOSTILE, None]]),
                FileList(title="Left out", files=[(HOSTILE, "empty"), ("b.jpg", HOSTILE)]),
            ],
            protocol="n=60,000, seed 0",
        ),
        Result("map", "The map", ["Neighbors are similar."], {"topographic_error": 0.04}, [map_panel()]),
        Result(
            "pictures",
            "Pictures",
            panels=[
                ImageGrid(
                    title="Grid", images=[picture(1), png(2), png(0)], captions=[HOSTILE, "two"], alt="some pictures"
                ),
                ImagePairs(title="Pairs", names=["original", "new"], rows=[[png(3), png(4)]], captions=[HOSTILE]),
                Comparisons(
                    title="Slider",
                    names=("before", "after"),
                    pairs=[(png(5), png(6)), (png(7),) * 2],
                    captions=[HOSTILE],
                ),
            ],
        ),
        Result(
            "plots",
            "Plots",
            panels=[
                Curve(title="Loss", series={HOSTILE: (x, np.exp(-x)), "held out": (x, np.exp(-x) + 1)}, x_label="step"),
                Scatter(
                    title="Points", x=x, y=x**2, groups=np.arange(40) % 3, keys=[HOSTILE] * 40, images=[png(5)] * 40
                ),
            ],
        ),
    ]


@pytest.fixture
def page(tmp_path: Path) -> Page:
    path = tmp_path / "report.html"
    facts = {"images": "60,000", HOSTILE: HOSTILE}
    assert render(every_kind(), title=f"Demo {HOSTILE}", subtitle=HOSTILE, facts=facts, path=path) == path
    return Page(path)


def test_is_well_formed(page: Page) -> None:
    assert page.broken == []
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in page.elements:
        for name in ("aria-labelledby", "href"):
            target = attrs.get(name, "")
            if name == "aria-labelledby" or target.startswith("#"):
                assert not target or target.removeprefix("#") in ids
    for reference in re.findall(r"url\(#([^)]+)\)", page.source):
        assert reference in ids


def test_is_self_contained(page: Page) -> None:
    for tag, attrs in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "poster", "action"):
            if name in attrs and not (tag == "a" and name == "href"):
                assert attrs[name].startswith(("data:", "#")), (tag, name, attrs[name][:80])
    style = "".join(page.texts["style"])
    assert "@import" not in style
    assert not re.search(r"url\((?!#)", style)
    assert "default-src 'none'" in next(a["content"] for a in page.all("meta") if "http-equiv" in a)


def test_every_picture_has_a_text(page: Page) -> None:
    assert page.all("img")
    assert all(attrs["alt"].strip() for attrs in page.all("img"))
    for tag, attrs in page.elements:
        if attrs.get("role") in ("img", "grid", "gridcell", "region") or tag == "nav":
            assert attrs["aria-label"].strip()
    assert all(attrs.get("loading") == "lazy" for attrs in page.all("img"))


def test_headings_are_in_order(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    titles = page.texts["h2"]
    assert titles[0] == "The map"  # the map opens the page
    assert titles[1:4] == ["What is there", "Pictures", "Plots"]
    assert [attrs["href"] for attrs in page.all("a")][2:6] == ["#map", "#files", "#pictures", "#plots"]
    assert {tag for tag, _ in page.elements} >= {"header", "nav", "main", "footer", "section"}


def test_hostile_names_stay_text(page: Page) -> None:
    assert len(page.all("script")) == 3  # theme, data, behavior
    assert not [attrs for _, attrs in page.elements if any(name.startswith("on") for name in attrs)]
    assert "{{ 7*7 }}" in page.source
    assert "alert(2)" not in "".join(page.texts["script"])
    for tag in ("h1", "code", "td", "dt", "dd", "th"):
        assert any(HOSTILE in text for text in page.texts[tag]), tag


def test_hostile_names_of_members_stay_text(tmp_path: Path) -> None:
    cell = Cell(row=0, column=0, count=1, image=png(0), members=[(HOSTILE, png(0))])
    panel = MapPanel(rows=1, columns=1, topology="rectangular", cells=[cell])
    page = Page(render([Result("map", "Map", panels=[panel])], title="T", path=tmp_path / "a.html"))
    assert page.broken == []
    assert len(page.all("script")) == 3
    assert page.data["maps"]["map-1"][0]["members"][0][0] == HOSTILE


def test_shows_every_kind_of_panel(page: Page) -> None:
    kinds = ["map", "table", "files", "image_grid", "image_pairs", "comparisons", "curve", "scatter"]
    shown = [name for attrs in page.all("figure") for name in attrs["class"].split() if name != "panel"]
    assert shown == [f"panel-{kind}" for kind in kinds]
    assert len({kind for kind in Panel.__subclasses__() if kind.__module__ == "imatlas.result"}) == len(kinds)
    assert "60,000" in page.texts["dd"]
    assert {"0.0312", "yes", "–"} <= set(page.texts["dd"])
    assert "n=60,000, seed 0" in page.texts["p"]
    assert "A note on the map" in page.texts["figcaption"]
    assert (
        len([a for a in page.all("path") if "line" in a.get("class", "").split()]) == 4
    )  # two lines, two in the legend


def test_comparisons_have_a_slider_that_says_what_it_does(page: Page) -> None:
    sliders = [attrs for attrs in page.all("input") if attrs["type"] == "range"]
    assert len(sliders) == 2
    assert all(attrs["aria-label"].startswith("before to the left of, after to the right") for attrs in sliders)
    assert [len(page.having(name)) for name in ("before", "after", "handle")] == [2, 2, 2]


@pytest.mark.parametrize("topology", ["rectangular", "hexagonal"])
def test_map_cells_can_be_found_and_opened(tmp_path: Path, topology: str) -> None:
    panel = map_panel(topology)
    page = Page(render([Result("map", "Map", panels=[panel])], title="T", path=tmp_path / "a.html"))
    cells = page.having("cell")
    assert [(int(a["data-row"]), int(a["data-column"])) for a in cells] == [(c.row, c.column) for c in panel.cells]
    assert len(page.having("empty")) == sum(c.image is None for c in panel.cells)
    assert cells[0]["aria-label"] == "Row 0, column 0: 7 images, cluster 0"
    assert cells[3]["aria-label"] == "Row 0, column 3: empty"
    stored = page.data["maps"]["map-1"]
    assert [cell["count"] for cell in stored] == [cell.count for cell in panel.cells]
    assert [key for key, _ in stored[1]["members"]] == ["image-1-0.jpg", "image-1-1.jpg", "image-1-2.jpg"]
    shared = {attrs["id"] for attrs in page.all("symbol")}
    for cell in stored:
        for _, name in cell["members"]:
            assert (name in page.data["pictures"]) != (name in shared)
    assert len(page.all("dialog")) == 1


def test_identical_pictures_are_stored_once(tmp_path: Path) -> None:
    same, members = png(1), [("a.jpg", png(1)), ("b.jpg", png(2))]
    cells = [Cell(row=0, column=c, count=2, image=same, cluster=c, members=members) for c in range(3)]
    grid = ImageGrid(images=[same, np.asarray(Image.open(io.BytesIO(same))), png(3)])
    panels: list[Panel] = [MapPanel(rows=1, columns=3, topology="rectangular", cells=cells), grid]
    page = Page(render([Result("map", "Map", panels=panels)], title="T", path=tmp_path / "a.html"))
    for content in (same, png(2), png(3)):
        assert page.source.count(base64.b64encode(content).decode()) == 1


def test_the_legend_counts_the_images_of_clusters(tmp_path: Path) -> None:
    cells = [Cell(row=0, column=c, count=20, image=png(c), cluster=c) for c in range(2)]
    panel = MapPanel(rows=1, columns=2, topology="rectangular", cells=cells, sizes={0: 13, 1: 27})
    source = Page(render([Result("map", "Map", panels=[panel])], title="T", path=tmp_path / "a.html")).source
    assert re.findall(r"<li[^>]*data-cluster.*?<span>(.*?)</span>", source) == ["13", "27"]


def test_is_deterministic_and_replaced_atomically(tmp_path: Path) -> None:
    first = render(every_kind(), title="T", path=tmp_path / "a.html").read_bytes()
    assert render(every_kind(), title="T", path=tmp_path / "new folder" / "b.html").read_bytes() == first
    with pytest.raises(InputError, match="PNG"):
        render([Result("x", "X", panels=[ImageGrid(images=[b"no picture"])])], title="T", path=tmp_path / "a.html")
    assert (tmp_path / "a.html").read_bytes() == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "new folder"]


def test_a_large_map_stays_small(tmp_path: Path) -> None:
    """24 x 24 cells with 24 incompressible members each are 80 MB of pictures; the page stays below 15 MB."""
    noise = np.random.default_rng(0).integers(0, 256, 6000, dtype=np.uint8).tobytes()
    shell = png(0)

    def heavy(k: int) -> bytes:
        return shell + k.to_bytes(4, "big") + noise  # readers stop at the end mark of the PNG

    cells = [
        Cell(i // 24, i % 24, 24, heavy(i * 24), i % 40, [(f"{i}-{j}.jpg", heavy(i * 24 + j)) for j in range(24)])
        for i in range(576)
    ]
    panel = MapPanel(rows=24, columns=24, topology="hexagonal", cells=cells)
    path = render([Result("map", "Map", panels=[panel])], title="T", path=tmp_path / "a.html")
    assert MAX_BYTES < path.stat().st_size < 15e6
    shown = [len(cell["members"]) for cell in Page(path).data["maps"]["map-1"]]
    assert min(shown) == max(shown) == 2  # every cell gives up as many


def test_heavy_pictures_are_downscaled(tmp_path: Path) -> None:
    large = picture(0, 700)
    buffer = io.BytesIO()
    Image.fromarray(large).save(buffer, "PNG")
    assert len(buffer.getvalue()) > 1_000_000
    page = Page(
        render([Result("x", "X", panels=[ImageGrid(images=[buffer.getvalue()])])], title="T", path=tmp_path / "a")
    )
    assert (page.all("img")[0]["width"], page.all("img")[0]["height"]) == ("192", "192")
    assert len(page.source) < 150_000


def test_long_lists_are_folded_and_truncated(tmp_path: Path) -> None:
    none, many = FileList(files=[]), FileList(files=[(f"{k}.jpg", "empty file") for k in range(2500)])
    table = DataTable(columns=["n"], rows=[[k] for k in range(1200)])
    page = Page(render([Result("x", "X", panels=[none, many, table])], title="T", path=tmp_path / "a.html"))
    assert "None." in page.texts["p"]
    assert "Show 1,992 more" in page.texts["summary"]
    assert "500 more are not listed here." in page.texts["p"]
    assert "The first 1,000 of 1,200 rows." in page.texts["p"]
    assert "2,500" in page.texts["b"]  # how often the reason occurs
    grid = ImageGrid(images=[png(k, 4) for k in range(70)])
    page = Page(render([Result("x", "X", panels=[grid])], title="T", path=tmp_path / "b.html"))
    assert "Show 10 more" in page.texts["summary"]
    assert len(page.all("img")) == 70


def test_empty_results_render(tmp_path: Path) -> None:
    empty: list[Panel] = [
        ImageGrid(images=[]),
        ImagePairs(names=["a", "b"], rows=[]),
        Comparisons(names=("a", "b"), pairs=[]),
        Scatter(x=np.array([]), y=np.array([])),
        Curve(series={}),
        Curve(series={"flat": ([1], [float("nan")])}, log_y=True),
        DataTable(columns=["a"], rows=[]),
        MapPanel(rows=1, columns=1, topology="hexagonal", cells=[Cell(row=0, column=0, count=0)]),
    ]
    page = Page(render([Result("", "?", panels=empty), Result("", "?")], title="T", path=tmp_path / "a.html"))
    assert page.broken == []
    assert len(page.all("figure")) == len(empty)
    page = Page(render([], title="T", path=tmp_path / "b.html"))
    assert page.texts["h1"] == ["T"]
    assert not page.all("dialog")


def test_unknown_panels_and_pictures_are_refused(tmp_path: Path) -> None:
    class Hologram(Panel):
        pass

    with pytest.raises(InputTypeError, match="got a Hologram"):
        render([Result("x", "X", panels=[Hologram()])], title="T", path=tmp_path / "a.html")
    with pytest.raises(InputError, match="uint8; got float64"):
        render(
            [Result("x", "X", panels=[ImageGrid(images=[np.zeros((4, 4, 3))])])], title="T", path=tmp_path / "a.html"
        )
    assert list(tmp_path.iterdir()) == []


def test_outlines_run_where_clusters_meet() -> None:
    """Two halves of a 4 x 4 square lattice: each is 2 wide and 4 high, so its outline is 2 + 4 + 2 + 4 sides long."""
    lattice = DrawnLattice("rectangular", 4, 4)
    clusters = {divmod(k, 4): int(k % 4 > 1) for k in range(16)}
    paths = outlines(lattice, clusters, inset=2.0)
    assert {cluster: path.count("M") for cluster, path in paths.items()} == {0: 12, 1: 12}
    numbers = np.array([float(v) for v in re.findall(r"-?[\d.]+", paths[0])]).reshape(-1, 2)
    assert numbers.min(axis=0).tolist() == [2.0, 2.0]
    assert numbers.max(axis=0).tolist() == [198.0, 398.0]
    segments = numbers.reshape(-1, 2, 2)
    length = np.abs(segments[:, 0] - segments[:, 1]).sum()
    assert length == pytest.approx(2 * (196 + 396))  # a closed line without gaps or overlaps
    assert outlines(lattice, dict.fromkeys(clusters, 5), inset=2.0) == {}
    alone = DrawnLattice("hexagonal", 3, 3)
    clusters = {divmod(k, 3): int(k == 4) for k in range(9)}
    assert outlines(alone, clusters, inset=2.0)[1].count("M") == 6


def test_curves_keep_spikes_and_drop_undefined_points() -> None:
    y = np.ones(100_000)
    y[61_234], y[7], y[9] = 50.0, np.nan, -3.0
    view = curve_view(Curve(series={"loss": (np.arange(100_000), y)}, log_y=True))
    path = view["lines"][0]["path"]
    points = np.array([float(v) for v in re.findall(r"-?[\d.]+", path)]).reshape(-1, 2)
    assert len(points) <= MAX_POINTS
    assert (points[:, 1] < points[:, 1].max() - 100).sum() == 1  # the one spike, in full
    assert view["lines"][0]["last"] == "1"
    assert [label for _, label in view["y_ticks"]] == ["1", "2", "5", "10", "20", "50"]
    assert "loss goes from 1 to 1" in view["alt"]


@pytest.mark.parametrize("values", [(0.0, 1.0), (-3.0, 12.0), (1e-7, 3e-7), (0.0, 123456.0), (5.0, 5.0), (0.0, 0.0)])
def test_ticks_are_round_and_within_the_axis(values: tuple[float, float]) -> None:
    across = axis(np.array(values)).widened()
    assert across.low <= min(values)
    assert across.high >= max(values)
    ticks = across.ticks()
    assert 3 <= len(ticks) <= 9
    assert across.place(ticks[0]) == pytest.approx(0, abs=1e-9)
    assert across.place(ticks[-1]) == pytest.approx(1, abs=1e-9)
    steps = np.diff(ticks)
    assert steps == pytest.approx(np.full(len(steps), steps[0]))
    assert f"{steps[0]:.6e}"[0] in "125"


def test_scatter_thins_dots_and_separates_pictures() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 50_000))
    view = scatter_view(
        Scatter(x=x, y=y, groups=np.array(["b", "a"])[rng.integers(0, 2, 50_000)], images=[b""] * 50_000)
    )
    assert [group["name"] for group in view["groups"]] == ["a", "b"]
    drawn = sum(group["dots"].count("M") for group in view["groups"])
    assert drawn <= 20_000
    assert view["dropped"] == 50_000 - drawn
    places = np.array([(a, b) for _, a, b, _ in view["thumbnails"]])
    gaps = np.abs(places[:, None] - places[None]).max(-1) + 1e9 * np.eye(len(places))
    assert gaps.min() >= 46
    assert places.min() >= 0
    assert (places.max(axis=0) <= [1000, view["height"]]).all()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (60000, "60,000"),
        (np.float32(0.5), "0.5"),
        (0.034567, "0.0346"),
        (12.345, "12.3"),
        (123456.7, "123,457"),
        (1.25e-7, "1.25e-07"),
        (0.0, "0"),
        (True, "yes"),
        (None, "–"),
        ([1, 2], "1, 2"),
        ({"mean_error": 0.5}, "mean error 0.5"),
    ],
)
def test_numbers_are_readable(value: object, text: str) -> None:
    assert plain(value) == text


def test_long_names_keep_both_ends() -> None:
    assert shortened("short.jpg") == "short.jpg"
    name = "Holidays/" + "x" * 200 + "/DCIM_0042.jpeg"
    assert len(shortened(name)) == 44
    assert shortened(name).startswith("Holidays/")
    assert shortened(name).endswith("/DCIM_0042.jpeg")
    for first in range(30):  # wherever the cut falls, no number is cut
        shares = "a" * first + " 46%, 000002 41%, 000003 40%, 000006 16%, 000005 33%, 000007 25%"
        cut = shortened(shares)
        assert len(cut) <= 44
        assert set(re.findall(r"[\d.]+%", cut)) <= set(re.findall(r"[\d.]+%", shares))


def test_colors_can_be_read_in_both_themes() -> None:
    """Contrast by WCAG 2.2: text at least 4.5 on every ground, cluster colors at least 3 on the paper."""
    css = (Path(imatlas.report.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    blocks = [b for b in re.findall(r"\{([^{}]*)\}", css) if "--c19:" in b]
    assert len(blocks) == 3

    def luminance(color: str) -> float:
        parts = np.array([int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(a: str, b: str) -> float:
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    for block in blocks:
        colors = dict(re.findall(r"--(\w+): (#\w{6})", block))
        for ground in ("paper", "raised", "ground"):
            assert all(contrast(colors[name], colors[ground]) >= 4.5 for name in ("ink", "soft", "accent"))
        clusters = [colors[f"c{k}"] for k in range(20)]
        assert len(set(clusters)) == 20
        assert min(contrast(color, colors["paper"]) for color in clusters) >= 3
    assert blocks[1].split() == blocks[2].split()  # the dark theme, chosen or by the system, is the same
