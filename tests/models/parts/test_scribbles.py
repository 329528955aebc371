"""Segments from strokes: the linear system against known walks, strokes kept, images of every kind and size."""

import numpy as np
import pytest
from PIL import Image

from imatlas.errors import InputError
from imatlas.images.spec import ImageSpec
from imatlas.models.parts import scribbles
from imatlas.models.parts.hierarchy import ordered
from imatlas.models.parts.region_graph import RegionGraph, laplacian, region_graph
from imatlas.models.parts.scribbles import drawn, segment_by_strokes
from tests.conftest import need_data
from tests.models.parts.scenes import spec_of


@pytest.fixture
def pixels(truth, rng):
    """Each part in its own color, with noise."""
    colors = np.array([[60, 90, 160], [200, 80, 60], [90, 190, 90]])
    return np.clip(colors[truth] + rng.normal(0, 8, (*truth.shape, 3)), 0, 255).astype(np.uint8)


@pytest.fixture
def strokes(truth):
    """One stroke in each part, with labels 4, 7 and 9."""
    return drawn([([(3, 5), (5, 70)], 4), ([(25, 20), (35, 30)], 7), ([(15, 63), (40, 66)], 9)], truth.shape, width=3)


def chain(levels, features=None):
    """Graph of regions in a row, each one pixel."""
    n = len(levels) + 1
    regions = np.arange(n, dtype=np.int32)[None]
    parents = np.append(np.repeat(np.arange(n, 2 * n - 1), 2)[: 2 * n - 2], 2 * n - 2)
    pairs = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    features = np.zeros((n, 1)) if features is None else features
    hierarchy = ordered(regions, parents, np.zeros(2 * n - 1))
    rgb, blank = np.zeros((1, n, 3), np.float32), np.zeros((1, n), np.float32)
    return RegionGraph(hierarchy, regions, rgb, blank, pairs, np.ones(n - 1), np.array(levels), features)


def test_on_a_chain_the_probability_falls_linearly(monkeypatch):
    """Gambler's ruin."""
    monkeypatch.setattr(scribbles, "PRIOR", 0.0)
    found = segment_by_strokes(chain([0.5] * 4), np.array([[1, 0, 0, 0, 2]]))
    assert found.classes.tolist() == [1, 2]
    np.testing.assert_allclose(found.probability(1)[0], [1, 0.75, 0.5, 0.25, 0], atol=1e-6)


def test_a_boundary_holds_the_walker_back(monkeypatch):
    """Two steps in series: resistances ((level / (1 - level)) ** STEEPNESS) of 1 and r share the drop."""
    monkeypatch.setattr(scribbles, "PRIOR", 0.0)
    found = segment_by_strokes(chain([0.5, 0.8]), np.array([[1, 0, 2]]))
    resistance = 4**scribbles.STEEPNESS
    assert found.probability(1)[0, 1] == pytest.approx(resistance / (1 + resistance), abs=1e-6)


def test_appearance_decides_where_boundaries_do_not():
    found = segment_by_strokes(chain([0.5, 0.5], np.array([[0.0], [3.0], [3.0]])), np.array([[1, 0, 2]]))
    assert found.probability(2)[0, 1] > 0.5


def test_the_laplacian_of_a_weighted_graph():
    found = laplacian(3, np.array([[0, 1], [1, 2]]), np.array([2.0, 5.0])).toarray()
    np.testing.assert_array_equal(found, [[2, -2, 0], [-2, 7, -5], [0, -5, 5]])


def test_strokes_become_the_parts_they_lie_in(pixels, truth, strokes):
    found = segment_by_strokes(region_graph(pixels, spec_of(pixels)), strokes)
    assert (found.labels == np.array([4, 7, 9])[truth]).mean() > 0.97
    total = sum(found.probability(label) for label in found.classes)
    np.testing.assert_allclose(total, 1, atol=1e-5)


def test_every_drawn_pixel_keeps_its_label(pixels, rng):
    """Dots at random: many regions have strokes of several labels."""
    strokes = np.where(rng.random(pixels.shape[:2]) < 0.03, rng.integers(1, 6, pixels.shape[:2]), 0)
    graph = region_graph(pixels, spec_of(pixels))
    before = graph.regions.copy()
    found = segment_by_strokes(graph, strokes)
    np.testing.assert_array_equal(found.labels[strokes > 0], strokes[strokes > 0])
    for label in found.classes:
        assert (found.probability(label)[strokes == label] == 1).all()
    np.testing.assert_array_equal(graph.regions, before)  # the graph serves the next strokes


def test_a_region_with_two_labels_is_divided(pixels):
    """On one color, where all is one region: halfway between the strokes."""
    flat = np.full((20, 41, 3), 90, np.uint8)
    found = segment_by_strokes(region_graph(flat, spec_of(flat)), drawn([((10, 0), 1), ((10, 40), 2)], (20, 41)))
    assert (found.labels[:, :19] == 1).all()
    assert (found.labels[:, 22:] == 2).all()


def test_one_label_fills_the_image(pixels):
    strokes = drawn([((5, 5), 3)], pixels.shape[:2])
    found = segment_by_strokes(region_graph(pixels, spec_of(pixels)), strokes)
    assert (found.labels == 3).all()
    assert segment_by_strokes(region_graph(pixels, spec_of(pixels)), strokes > 0).classes.tolist() == [1]


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (40, 1, 1), (3, 2, 4), (33, 47, 7)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_images_of_every_size_and_kind(shape, dtype, rng):
    pixels = (rng.random(shape) * (200 if dtype != np.float32 else 1)).astype(dtype)
    strokes = np.zeros(shape[:2], np.int64)
    strokes[-1, -1], strokes[0, 0] = 2, 1
    high = 200 if dtype != np.float32 else 1
    found = segment_by_strokes(region_graph(pixels, spec_of(pixels, 0, high)), strokes)
    assert found.labels.shape == shape[:2]
    assert found.labels[0, 0] == 1


def test_a_photograph_in_two_strokes():
    """The red parrot of Kodak 23 and the rest."""
    with Image.open(need_data("kodak/kodim23.png")) as image:
        pixels = np.asarray(image.convert("RGB").resize((384, 256)))
    graph = region_graph(pixels, spec_of(pixels))
    strokes = drawn([([(80, 250), (200, 270)], 1), ([(10, 20), (20, 200)], 2)], pixels.shape[:2], width=3)
    labels = segment_by_strokes(graph, strokes).labels
    inside = [(70, 220), (130, 280), (230, 260), (240, 275)]
    outside = [(20, 370), (100, 190), (150, 180), (200, 10)]
    assert all(labels[place] == 1 for place in inside)
    assert all(labels[place] == 2 for place in outside)


def test_a_large_image_answers_from_a_reduced_copy(pixels, truth):
    """Strokes at full size, also two in one region; outlines at full size."""
    large = pixels.repeat(3, axis=0).repeat(3, axis=1)
    graph = region_graph(large, spec_of(large), max_pixels=5000)
    assert graph.reduced.shape == (45, 60)
    parts = [([(9, 15), (15, 210)], 4), ([(75, 60), (105, 90)], 7), ([(45, 189), (120, 198)], 9), ((90, 92), 4)]
    strokes = drawn(parts, large.shape[:2], width=3)
    labels = segment_by_strokes(graph, strokes).labels
    np.testing.assert_array_equal(labels[strokes > 0], strokes[strokes > 0])
    assert (labels == np.array([4, 7, 9])[truth].repeat(3, axis=0).repeat(3, axis=1)).mean() > 0.9


def test_points_and_lines_are_drawn():
    strokes = drawn([((2, 3), 1), ([(0, 0), (0, 3), (2, 3)], 5)], (4, 5))
    expected = np.zeros((4, 5), int)
    expected[0, :4] = expected[:3, 3] = 5
    np.testing.assert_array_equal(strokes, expected)
    assert (drawn([((2, 2), 1)], (5, 5), width=3) > 0).sum() == 9


@pytest.mark.parametrize(
    "strokes",
    [np.zeros((60, 80), int), np.ones((60, 81), int), np.full((60, 80), -1), np.ones((60, 80))],
    ids=["none", "size", "negative", "float"],
)
def test_strokes_that_are_none(strokes, pixels):
    graph = region_graph(pixels, spec_of(pixels))
    with pytest.raises(InputError, match="Strokes are"):
        segment_by_strokes(graph, strokes)


def test_what_cannot_be_drawn_is_told(pixels, strokes):
    with pytest.raises(InputError, match="within 4 x 5"):
        drawn([((4, 0), 1)], (4, 5))
    with pytest.raises(InputError, match="above 0"):
        drawn([((0, 0), 0)], (4, 5))
    with pytest.raises(InputError, match=r"\[4, 7, 9\]"):
        segment_by_strokes(region_graph(pixels, spec_of(pixels)), strokes).probability(5)
    with pytest.raises(InputError, match="at least one pixel"):
        region_graph(np.zeros((0, 4, 3), np.uint8), ImageSpec(1, 4, 3))
