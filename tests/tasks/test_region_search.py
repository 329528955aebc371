"""Parts of images, and the search among them."""

from __future__ import annotations

import numpy as np
import pytest

from imatlas.images.spec import ImageSpec
from imatlas.models.parts.region_tree import N_FEATURES, RegionTree
from imatlas.tasks.region_search import (
    MIN_SHARE,
    N_NUMBERS,
    N_PARTS,
    _corners,
    _part_at,
    _parts,
    nearest_parts,
    parts_of,
    query_of,
)

SQUARE = (30, 20, 24, 16)


def scene(dtype: str = "uint8", channels: int = 3) -> np.ndarray:
    """A bright box at `SQUARE` on a dark background with some noise, (60, 80, C)."""
    image = np.random.default_rng(0).normal(60, 2, (60, 80, channels))
    left, top, width, height = SQUARE
    image[top : top + height, left : left + width] += 120
    return (image * (257 if dtype == "uint16" else 1)).astype(dtype)


def spec_of(pixels: np.ndarray) -> ImageSpec:
    high = 65535.0 if pixels.dtype == np.uint16 else 255.0
    return ImageSpec(*pixels.shape, dtype=pixels.dtype.name, low=0.0, high=high)  # type: ignore[arg-type]


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 3), ("uint8", 1), ("uint16", 1), ("float32", 7)])
def test_an_object_is_a_part_with_its_box(dtype: str, channels: int) -> None:
    pixels = scene(dtype, channels)
    table = parts_of(pixels, spec_of(pixels))
    assert table.shape == (N_PARTS, N_NUMBERS)
    known = np.isfinite(table).all(axis=1)
    assert np.isnan(table[~known]).all()
    assert np.abs(table[known][:, N_FEATURES:] - SQUARE).max(axis=1).min() <= 2


def test_boxes_are_in_pixels_of_a_large_image_that_is_reduced() -> None:
    pixels = np.repeat(np.repeat(scene(), 9, axis=0), 9, axis=1)[:-1, :-1]  # 539 x 719, halved
    boxes = parts_of(pixels, spec_of(pixels))[:, N_FEATURES:]
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    assert np.abs(boxes - 9 * np.array(SQUARE)).max(axis=1).min() <= 18
    assert (boxes[:, :2] + boxes[:, 2:] <= [719, 539]).all()


@pytest.mark.parametrize("shape", [(1, 1, 3), (40, 1, 3), (9, 9, 1)])
def test_an_image_of_one_color_is_one_part(shape: tuple[int, int, int]) -> None:
    pixels = np.full(shape, 7, np.uint8)
    table = parts_of(pixels, spec_of(pixels))
    assert table[0, N_FEATURES:].tolist() == [0, 0, shape[1], shape[0]]
    assert np.isnan(table[1:]).all()
    assert query_of(pixels, spec_of(pixels)).box == (0, 0, shape[1], shape[0])
    assert query_of(pixels, spec_of(pixels), point=(0, 0)).box == (0, 0, shape[1], shape[0])


def test_parts_are_those_of_a_slow_search_in_the_tree() -> None:
    pixels = scene()
    tree = RegionTree.of(pixels, spec_of(pixels))
    parents, levels, n = tree.hierarchy.parents, tree.hierarchy.levels, tree.hierarchy.n_regions
    below: list[set[int]] = [{i} for i in range(n)] + [set() for _ in range(n - 1)]
    for node, parent in enumerate(parents[:-1].tolist()):
        below[parent] |= below[node]
    corners, length = _corners(tree), {}
    for node, regions in enumerate(below):
        y, x = np.nonzero(np.isin(tree.hierarchy.regions, list(regions)))
        assert corners[node].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        if len(y) >= MIN_SHARE * tree.hierarchy.regions.size:
            length[node] = (1 if node == len(parents) - 1 else levels[parents[node]]) - levels[node]
    best = sorted(length, key=lambda node: -length[node])[:N_PARTS]
    assert _parts(tree).tolist() == best
    for region in range(0, n, max(1, n // 7)):
        around = [below[node] for node in best if region in below[node]]
        if around:
            assert set(np.flatnonzero(_part_at(tree, region))) == min(around, key=len)


def test_region_point_and_salient_object_ask_for_the_same() -> None:
    pixels = scene()
    asked = [
        query_of(pixels, spec_of(pixels), region=SQUARE),
        query_of(pixels, spec_of(pixels), point=(40, 28)),
        query_of(pixels, spec_of(pixels)),
    ]
    own = parts_of(pixels, spec_of(pixels))
    for query in asked:
        assert np.abs(np.array(query.box) - SQUARE).max() <= 2
        part, distance = nearest_parts(query.features, own[None])
        assert np.abs(own[part[0], N_FEATURES:] - SQUARE).max() <= 2
        assert distance[0] < 0.1
    elsewhere = query_of(pixels, spec_of(pixels), point=(2, 2))
    assert nearest_parts(elsewhere.features, own[None])[0][0] != nearest_parts(asked[0].features, own[None])[0][0]


def test_nearest_parts_have_the_distance_of_standardized_features(rng: np.random.Generator) -> None:
    tables = np.full((5, N_PARTS, N_NUMBERS), np.nan, np.float32)
    for image in (0, 1, 3, 4):
        tables[image, : 2 + image] = rng.normal(3, 2, (2 + image, N_NUMBERS))
    parts, distances = nearest_parts(tables[3, 4, :N_FEATURES], tables)
    assert parts[3] == 4
    assert distances[3] == pytest.approx(0, abs=1e-5)
    assert np.isinf(distances[2])  # no parts
    rows = tables[np.isfinite(tables).all(axis=2)][:, :N_FEATURES]
    query, other = ((tables[place][:N_FEATURES] - rows.mean(0)) / rows.std(0) for place in ((3, 4), (1, parts[1])))
    assert distances[1] == pytest.approx(1 - query @ other / np.linalg.norm(query) / np.linalg.norm(other), abs=1e-4)
    assert np.isinf(nearest_parts(tables[3, 4, :N_FEATURES], tables[2:3])[1]).all()
