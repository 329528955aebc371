"""Figures of maps: the right picture in each cell, empty cells empty, borders between clusters, complete files."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imatlas as ia
from imatlas import plots
from imatlas.errors import InputError, MissingExtraError, ParameterError
from imatlas.images.encode import encode
from imatlas.lattice.drawing import PITCH, DrawnLattice
from imatlas.metrics.topology import u_heights
from imatlas.plots.canvas import PAPER, numbers, shaded
from imatlas.plots.pictures import exemplars
from imatlas.plots.values import gaps_between

pytest.importorskip("matplotlib")
SVG = "{http://www.w3.org/2000/svg}"
SHAPES = ("rectangular", "hexagonal")


def toy_map(topology: str, rows: int = 3, cols: int = 4) -> ia.SOM:
    """A fitted map whose prototype k is the point (k, 0)."""
    som = ia.SOM(rows=rows, cols=cols, topology=topology, n_epochs=2)  # type: ignore[arg-type]
    som.fit(np.random.default_rng(0).random((40, 2)))
    som.codebook_ = np.stack([np.arange(rows * cols), np.zeros(rows * cols)], axis=1).astype(np.float32)
    return som


def painted(figure, tmp_path: Path, width: int = 800) -> np.ndarray:
    """The figure as pixels (H, W, 3)."""
    return np.asarray(Image.open(plots.save(figure, tmp_path / "painted.png", width_px=width)))


def at(figure, pixels: np.ndarray, x: float, y: float) -> np.ndarray:
    """The pixel at a point of the map, in the units of its lattice."""
    right, up = figure.axes[0].transData.transform((x, y)) / figure.bbox.size
    height, width = pixels.shape[:2]
    return pixels[int((1 - up) * height), int(right * width)].astype(int)


def rgb(color: str) -> np.ndarray:
    return np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)])


def two_tone(colors: np.ndarray, size: int = 16) -> np.ndarray:
    """Pictures (n, size, size, 3): the upper half of a color each, the lower half black."""
    pictures = np.zeros((len(colors), size, size, 3), np.uint8)
    pictures[:, : size // 2] = colors[:, None, None]
    return pictures


@pytest.fixture
def colors(rng) -> np.ndarray:
    return rng.integers(60, 256, (12, 3), dtype=np.uint8)


@pytest.mark.parametrize("topology", SHAPES)
def test_a_cell_shows_its_own_picture_upright(topology, colors, tmp_path) -> None:
    som = toy_map(topology)
    some = [0, 3, 5, 10]
    pictures = two_tone(colors)
    figure = plots.picture_map(som, [pictures[k] if k in some else None for k in range(12)])
    pixels, lattice = painted(figure, tmp_path), DrawnLattice(topology, 3, 4)
    for cell in range(12):
        x, y = lattice.center(*divmod(cell, 4))
        above, below = (at(figure, pixels, x, y + dy) for dy in (-25, 25))
        wanted = (colors[cell], (0, 0, 0)) if cell in some else (rgb(PAPER), rgb(PAPER))
        np.testing.assert_allclose(above, wanted[0], atol=2)
        np.testing.assert_allclose(below, wanted[1], atol=2)


@pytest.mark.parametrize("crop", [True, False])
def test_hexagons_are_cut_out_of_pictures(crop, tmp_path) -> None:
    som = toy_map("hexagonal", 1, 1)
    figure = plots.picture_map(som, [np.zeros((20, 20, 3), np.uint8)], crop=crop)
    dark = painted(figure, tmp_path, 400).sum(axis=2) < 60
    x, y = np.meshgrid(np.linspace(0, 1, dark.shape[1]), np.linspace(0, 1, dark.shape[0]))
    unit = figure.axes[0].transData.inverted().transform(np.stack([x, 1 - y], -1).reshape(-1, 2) * figure.bbox.size)
    x, y = np.abs(unit - DrawnLattice("hexagonal", 1, 1).center(0, 0)).T
    half = 0.965 * PITCH / 2
    inside = (x < half) & (y < (2 * half - x) / 3**0.5)
    if crop:  # the picture fills the hexagon, whatever of it that costs
        assert (dark.ravel() != inside).mean() < 0.01
    else:  # the whole picture, as large as the hexagon can hold
        assert not (dark.ravel() & ~inside).any()
        assert dark.mean() == pytest.approx(
            ((2 * half * 2 / (1 + 3**0.5)) ** 2) / (unit.max(0) - unit.min(0)).prod(), rel=0.02
        )


def test_wide_and_tall_pictures_are_cropped_or_fitted(tmp_path) -> None:
    som = toy_map("rectangular", 1, 1)
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = (200, 30, 40)
    cut = plots.picture_map(som, [wide])
    pixels = painted(cut, tmp_path)
    for x in (10, 50, 90):
        np.testing.assert_allclose(at(cut, pixels, x, 50), (200, 30, 40), atol=2)
    whole = plots.picture_map(som, [wide], crop=False)
    pixels = painted(whole, tmp_path)
    for x, y, wanted in ((10, 50, (0, 0, 0)), (50, 50, (200, 30, 40)), (50, 20, rgb(PAPER))):
        np.testing.assert_allclose(at(whole, pixels, x, y), wanted, atol=2)


def test_every_kind_of_pixels_gives_the_same_picture(tmp_path) -> None:
    gray = np.full((6, 6), 51, np.uint8)
    kinds = [
        gray,
        gray[..., None],
        (gray / 255.0).astype(np.float32),
        gray.astype(np.uint16) * 257,
        np.dstack([gray, np.full_like(gray, 255)]),
        np.dstack([gray] * 3),
        encode(gray, "png"),
    ]
    som = toy_map("rectangular", 1, len(kinds))
    figure = plots.picture_map(som, kinds)
    pixels = painted(figure, tmp_path)
    for k in range(len(kinds)):
        assert at(figure, pixels, (k + 0.5) * PITCH, PITCH / 2).tolist() == [51, 51, 51]
    clear = plots.picture_map(som, [np.zeros((4, 4, 4), np.uint8)] * len(kinds))
    np.testing.assert_allclose(at(clear, painted(clear, tmp_path), 50, 50), rgb(PAPER), atol=1)


def test_exemplars_are_the_rows_nearest_to_the_prototypes(rng, colors, tmp_path) -> None:
    som = toy_map("rectangular")
    X = np.array([[0.4, 0], [0.1, 0], [0, 0.3], [7.2, 0], [6.9, 0]], np.float32)
    assert exemplars(som, X).tolist() == [1, -1, -1, -1, -1, -1, -1, 4, -1, -1, -1, -1]
    X = rng.random((700, 2)).astype(np.float32) * (12, 1)
    cells, found = som.predict(X), exemplars(som, X)
    for cell in range(12):
        members = np.flatnonzero(cells == cell)
        gaps = np.linalg.norm(X[members] - som.codebook_[cell], axis=1)
        assert found[cell] == members[gaps.argmin()]
    images = two_tone(np.tile(colors, (60, 1))[:700])
    figure = plots.image_sheet(som, images, X)
    pixels = painted(figure, tmp_path)
    for cell in range(12):
        x, y = DrawnLattice("rectangular", 3, 4).center(*divmod(cell, 4))
        np.testing.assert_allclose(at(figure, pixels, x, y - 25), images[found[cell], 0, 0], atol=2)


def test_means_and_prototypes(rng, tmp_path) -> None:
    som = toy_map("rectangular", 1, 3)
    images = rng.integers(0, 256, (600, 2, 2, 3), dtype=np.uint8)
    cells = np.repeat([0, 2], 300)
    figure = plots.image_sheet(som, images, cells, show="mean")
    stored = {image.get_gid(): image.get_array() for image in figure.axes[0].images}
    assert set(stored) == {"cell-0", "cell-2"}
    np.testing.assert_allclose(stored["cell-0"], images[:300].mean(axis=0), atol=0.51)
    np.testing.assert_allclose(stored["cell-2"], images[300:].mean(axis=0), atol=0.51)
    clear = np.array([[[[255, 0, 0, 255]]], [[[0, 0, 255, 0]]]], np.uint8)  # what nobody sees does not tint the mean
    figure = plots.image_sheet(som, clear, [1, 1], show="mean")
    assert np.asarray(figure.axes[0].images[0].get_array())[0, 0].tolist() == [255, 0, 0, 128]
    figure = plots.image_sheet(som, show="prototype", decode=lambda codes: codes[:, :1, None] / 2)
    assert [int(image.get_array()[0, 0, 0]) for image in figure.axes[0].images] == [0, 128, 255]


def test_a_set_of_images_is_drawn_from_its_thumbnails_and_pixels(rng) -> None:
    som = toy_map("rectangular", 1, 2)
    images = ia.Images(rng.integers(0, 65536, (6, 12, 12), dtype=np.uint16))
    X = np.array([[0, 0], [0.1, 0], [0.2, 0], [1, 0], [1.1, 0], [1.2, 0]], np.float32)
    assert len(plots.image_sheet(som, images, X).axes[0].images) == 2
    figure = plots.image_sheet(som, images, X, show="mean")
    assert figure.axes[0].images[0].get_array().shape == (12, 12, 3)


@pytest.mark.parametrize("topology", SHAPES)
def test_cell_heights_shade_the_u_matrix(topology, rng, tmp_path) -> None:
    som = toy_map(topology)
    som.codebook_ = rng.random((12, 5)).astype(np.float32)
    figure = plots.u_matrix(som)
    pixels = painted(figure, tmp_path)
    wanted = shaded(u_heights(som.codebook_, 3, 4, topology))[:, :3] * 255
    for cell in range(12):
        np.testing.assert_allclose(
            at(figure, pixels, *DrawnLattice(topology, 3, 4).center(*divmod(cell, 4))), wanted[cell], atol=2
        )


@pytest.mark.parametrize("topology", SHAPES)
def test_gaps_lie_between_the_cells_that_touch(topology, rng) -> None:
    som = toy_map(topology, 4, 3)
    som.codebook_ = rng.random((12, 5)).astype(np.float32)
    places, gaps = gaps_between(som)
    positions = som.positions_
    want = {}
    for a in range(12):
        for b in range(a + 1, 12):
            if np.linalg.norm(positions[a] - positions[b]) < 1.01:
                want[tuple(np.round((positions[a] + positions[b]) / 2, 6))] = np.linalg.norm(
                    som.codebook_[a] - som.codebook_[b]
                )
    if topology == "rectangular":
        codes = som.codebook_.reshape(4, 3, 5)
        for r in range(3):
            for c in range(2):
                falling = np.linalg.norm(codes[r, c] - codes[r + 1, c + 1])
                rising = np.linalg.norm(codes[r, c + 1] - codes[r + 1, c])
                want[c + 0.5, r + 0.5] = (falling + rising) / 2 / 2**0.5
    got = {tuple(np.round(place, 6)): gap for place, gap in zip(places, gaps, strict=True)}
    assert len(got) == len(places)
    assert got.keys() == want.keys()
    assert [got[key] for key in want] == pytest.approx(list(want.values()), rel=1e-5)


@pytest.mark.parametrize("topology", SHAPES)
def test_a_gap_between_different_cells_is_dark(topology, tmp_path) -> None:
    som = toy_map(topology)
    som.codebook_ = np.tile(np.array([[0.0], [0], [9], [9]], np.float32), (3, 1))
    figure = plots.u_matrix(som, between=True)
    pixels = painted(figure, tmp_path)
    center = np.array(DrawnLattice(topology, 3, 4).center(0, 1))
    wall, valley = (at(figure, pixels, center[0] + dx, center[1]).sum() for dx in (PITCH / 2, -PITCH / 2))
    assert wall < 0.3 * valley


def test_hits_are_colors_areas_and_numbers(tmp_path) -> None:
    som = toy_map("rectangular", 1, 3)
    cells = [0] * 4 + [2]
    figure = plots.hit_map(som, cells)
    pixels = painted(figure, tmp_path)
    shade = [at(figure, pixels, (k + 0.2) * PITCH, 0.8 * PITCH) for k in range(3)]
    assert shade[0].sum() < shade[2].sum() < shade[1].sum()
    np.testing.assert_allclose(shade[1], rgb(PAPER), atol=2)
    assert {"4", "1"} <= {text.get_text() for text in figure.axes[0].texts}
    figure = plots.hit_map(som, cells, by="size")
    pixels = painted(figure, tmp_path)[:-50]
    full = rgb("#30908e")
    areas = [
        (np.abs(pixels[:, int(k * 266) : int((k + 1) * 266)].astype(int) - full).sum(axis=2) < 12).sum()
        for k in range(3)
    ]
    assert areas[1] == 0
    assert areas[2] / areas[0] == pytest.approx(0.25, abs=0.03)
    X = np.array([[0, 0], [2, 0], [2.2, 0]], np.float32)
    assert {text.get_text() for text in plots.hit_map(som, X).axes[0].texts} >= {"1", "2"}


def test_planes_show_the_features_that_differ_most(rng) -> None:
    som = toy_map("hexagonal", 4, 5)
    som.codebook_ = (rng.random((20, 30)) * np.linspace(1, 5, 30)).astype(np.float32)
    figure = plots.component_planes(som)
    assert len(figure.axes) == 16
    chosen = sorted(np.argsort(-som.codebook_.std(axis=0))[:16])
    assert [axes.texts[0].get_text() for axes in figure.axes] == [f"feature {k}" for k in chosen]
    figure = plots.component_planes(som, [3, 1], names=[f"n{k}" for k in range(30)])
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["n3", "n1"]
    values = figure.axes[1].collections[0].get_facecolor()
    np.testing.assert_allclose(values, shaded(som.codebook_[:, 1]))


@pytest.mark.parametrize("topology", SHAPES)
def test_outlines_run_on_the_borders_of_clusters(topology, tmp_path) -> None:
    som = toy_map(topology, 3, 4)
    clusters = np.array([0, 0, 1, 1] * 3)
    figure = plots.picture_map(som, [None] * 12, clusters=clusters)
    pixels = painted(figure, tmp_path, 1600)
    x, y = DrawnLattice(topology, 3, 4).center(0, 1)
    red, blue = rgb("#d24d42"), rgb("#1a73d5")
    np.testing.assert_allclose(at(figure, pixels, x + PITCH / 2 - 2, y), red, atol=25)
    np.testing.assert_allclose(at(figure, pixels, x + PITCH / 2 + 2, y), blue, atol=25)
    inner = at(figure, pixels, x - PITCH / 2 + 2, y + 10)  # between two cells of one cluster
    assert np.abs(inner - red).sum() > 100
    assert {text.get_text() for text in figure.axes[0].texts} == {"0", "1"}


def test_no_cluster_has_no_line_and_no_number() -> None:
    som = toy_map("rectangular")
    clusters = np.full(12, -1)
    clusters[5] = 3
    figure = plots.picture_map(som, [None] * 12, clusters=clusters)
    assert [text.get_text() for text in figure.axes[0].texts] == ["3"]
    assert [patch.get_gid() for patch in figure.axes[0].patches if patch.get_gid()] == ["cluster-3"]
    one = plots.u_matrix(som, clusters=np.zeros(12, int))
    assert not one.axes[0].patches
    lines = plots.component_planes(som, [0], clusters=clusters).axes[0].patches
    assert next(len(p.get_path().vertices) for p in lines if p.get_gid() == "borders") == 8


def test_a_drawing_is_valid_and_holds_its_pictures_at_their_own_size(colors, tmp_path) -> None:
    som = toy_map("hexagonal")
    figure = plots.picture_map(som, list(two_tone(colors, 24)), clusters=np.arange(12) // 6)
    path = plots.save(figure, tmp_path / "map.svg", width_px=1920)
    root = ET.parse(path).getroot()
    assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(1920 * 72 / 96)
    images = root.findall(f".//{SVG}image")
    assert len(images) == 12
    for image in images:
        content = base64.b64decode(image.attrib["{http://www.w3.org/1999/xlink}href"].partition(",")[2])
        assert Image.open(io.BytesIO(content)).size == (24, 24)
        assert "clip-path" in image.attrib or any(
            image in list(g) and "clip-path" in g.attrib for g in root.iter(f"{SVG}g")
        )
    assert root.find(f".//{SVG}g[@id='cluster-0']/{SVG}path") is not None
    pdf = plots.save(figure, tmp_path / "map.pdf", width_px=1920).read_bytes()
    box = re.search(rb"/MediaBox \[ *([\d. ]+)\]", pdf)
    assert box is not None
    assert float(box[1].split()[2]) == pytest.approx(1440)
    assert figure.get_size_inches()[0] == 8.0


@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "webp", "jpg"])
def test_the_same_call_gives_the_same_bytes(ending, colors, tmp_path, monkeypatch) -> None:
    som = toy_map("hexagonal")
    drawn = []
    for k in range(2):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(10**9 * k))  # what would tell one day from another
        figure = plots.picture_map(som, list(two_tone(colors)), clusters=np.arange(12) // 6)
        drawn.append(plots.save(figure, tmp_path / f"{k}.{ending}", width_px=300).read_bytes())
        drawn.append(plots.save(figure, tmp_path / f"{k}.{ending}", width_px=300).read_bytes())
    assert len(set(drawn)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"0.{ending}", f"1.{ending}"]


@pytest.mark.parametrize("width", [200, 333, 2400])
def test_files_have_the_requested_width_and_look_the_same(width, tmp_path) -> None:
    som = toy_map("rectangular", 3, 4)
    figure = plots.u_matrix(som)
    image = Image.open(plots.save(figure, tmp_path / "a.png", width_px=width))
    assert image.width == width
    small = np.asarray(image.resize((100, 80), Image.Resampling.BOX), float)
    plain = np.asarray(
        Image.open(plots.save(figure, tmp_path / "b.png")).resize((100, 80), Image.Resampling.BOX), float
    )
    assert np.abs(small - plain).mean() < 4


def test_numbers_are_short_and_distinct() -> None:
    assert numbers(1e-9, 0.9189) == ("0", "0.919")
    assert numbers(0, 1234) == ("0", "1,234")
    assert numbers(-0.0001, 5) == ("0", "5")
    assert numbers(2, 2) == ("2", "2")
    assert numbers(1e-9, 3e-9) == ("1e-09", "3e-09")


def test_wrong_arguments_are_refused_in_one_sentence(colors, tmp_path) -> None:
    som, X = toy_map("rectangular"), np.zeros((3, 2), np.float32)
    images = two_tone(colors[:3])
    with pytest.raises(InputError, match=r"one integer per cell, shape \(12,\)"):
        plots.u_matrix(som, clusters=np.zeros(5, int))
    with pytest.raises(InputError, match="integers from 0 to 11"):
        plots.hit_map(som, [0, 12])
    with pytest.raises(ParameterError, match="'color' or 'size'"):
        plots.hit_map(som, X, by="weight")
    with pytest.raises(ParameterError, match="must be one of exemplar"):
        plots.image_sheet(som, images, X, show="best")
    with pytest.raises(InputError, match="3 images and 2 rows"):
        plots.image_sheet(som, images, X[:2])
    with pytest.raises(InputError, match="needs the rows X"):
        plots.image_sheet(som, images, [0, 1, 2])
    with pytest.raises(InputError, match="needs 'decode'"):
        plots.image_sheet(som, show="prototype")
    with pytest.raises(InputError, match="one per prototype"):
        plots.image_sheet(som, show="prototype", decode=lambda codes: codes)
    with pytest.raises(InputError, match=r"lie in \[0, 1\]. Got 255"):
        plots.picture_map(som, [np.full((4, 4), 255.0)] * 12)
    with pytest.raises(InputError, match="images of one size"):
        plots.image_sheet(som, [images[0], images[1][:5]], [4, 4], show="mean")
    with pytest.raises(InputError, match=r"12 cells\. Got 3"):
        plots.picture_map(som, list(images))
    with pytest.raises(InputError, match=r"features 0 to 1\. Got 2"):
        plots.component_planes(som, [0, 2])
    with pytest.raises(ParameterError, match="inches"):
        plots.u_matrix(som, width=0)
    with pytest.raises(InputError, match=r"change its ending"):
        plots.save(plots.u_matrix(som), tmp_path / "map.doc")
    with pytest.raises(ParameterError, match="not both"):
        plots.save(plots.u_matrix(som), tmp_path / "map.png", width_px=100, dpi=100)
    with pytest.raises(ParameterError, match="at most 65,000"):
        plots.save(plots.u_matrix(som), tmp_path / "map.png", width_px=70_000)
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_error_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'imatlas\[plots\]'"):
        plots.u_matrix(toy_map("rectangular"))


def test_no_global_state_of_matplotlib_is_touched(tmp_path) -> None:
    # Asking for the backend would itself import pyplot, so that one parameter is left out.
    code = (
        "import sys, numpy as np, imatlas as ia; from imatlas import plots; assert 'matplotlib' not in sys.modules; "
        "som = ia.SOM(rows=2, cols=2, n_epochs=1).fit(np.random.default_rng(0).random((9, 2))); import matplotlib; "
        "look = lambda: {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != 'backend'}; "
        "before = look(); plots.save(plots.u_matrix(som), sys.argv[1]); "
        "assert 'matplotlib.pyplot' not in sys.modules; assert look() == before"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.svg")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_means_resemble_the_exemplars_of_their_cells(fashion, tmp_path) -> None:
    """On real pictures: the mean of a cell is nearer to its exemplar than to the exemplar across the map."""
    pixels = fashion[0][:600]
    X = (pixels.reshape(600, -1) / 255).astype(np.float32)
    som = ia.SOM(rows=6, cols=8, topology="hexagonal", n_epochs=5).fit(X)
    means, nearest = (plots.image_sheet(som, pixels, X, show=show) for show in ("mean", "exemplar"))
    mean = {i.get_gid(): np.asarray(i.get_array(), float) for i in means.axes[0].images}
    exemplar = {i.get_gid(): np.asarray(i.get_array(), float) for i in nearest.axes[0].images}
    filled = {f"cell-{cell}" for cell in np.unique(som.predict(X))}
    assert mean.keys() == exemplar.keys() == filled
    names = sorted(filled)
    own = [np.abs(mean[name] - exemplar[name]).mean() for name in names]
    far = [np.abs(mean[name] - exemplar[other]).mean() for name, other in zip(names, names[::-1], strict=True)]
    assert np.mean(own) < 0.5 * np.mean(far)
