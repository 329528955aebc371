"""Walls of images: each has a place of its own near its point, and the most ordinary stand for others."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from imatlas.tasks.wall import EMPTY, scattered, wall


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 1000, 5003])
@pytest.mark.parametrize("shape", [None, (1.0, 1.0), (7.0, 1.0), (1.0, 9.0)])
def test_each_image_has_a_place_of_its_own_and_few_are_free(
    n: int, shape: tuple[float, float] | None, rng: np.random.Generator
) -> None:
    found = wall(rng.normal(size=(n, 2)), rng.random(n), cells=8, shape=shape)
    columns, rows = found.places.max(0) + 1
    assert len(np.unique(found.places, axis=0)) == n <= columns * rows
    assert columns * rows - n < max(columns, 2)
    grid = found.levels[-1]
    assert np.array_equal(grid[found.places[:, 1], found.places[:, 0]], np.arange(n))


def test_neighbors_stay_near(rng: np.random.Generator) -> None:
    points = rng.random((4000, 2)) ** 2
    places = wall(points, rng.random(4000), cells=8).places.astype(float)
    for axis in range(2):
        assert np.corrcoef(np.argsort(np.argsort(points[:, axis])), places[:, axis])[0, 1] > 0.95


def test_equal_points_get_different_places() -> None:
    assert len(np.unique(wall(np.zeros((50, 2)), np.zeros(50), cells=8).places, axis=0)) == 50


def test_the_least_rank_of_each_four_is_seen_from_afar(rng: np.random.Generator) -> None:
    rank = rng.permutation(900).astype(float)
    levels = wall(rng.random((900, 2)), rank, cells=8).levels
    assert [len(level) for level in levels] == [8, 16, 32]
    for coarse, fine in itertools.pairwise(levels):
        for row in range(len(coarse)):
            for column in range(len(coarse)):
                four = fine[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].ravel()
                there = four[four != EMPTY]
                assert coarse[row, column] == (there[np.argmin(rank[there])] if len(there) else EMPTY)


def test_scattered_images_stay_where_they_are_and_few_are_hidden(rng: np.random.Generator) -> None:
    points = rng.normal(size=(500, 2)) * [3, 1] + [5, 6]
    found = scattered(points, rng.random(500), cells=8, most_hidden=0.2)
    assert (found.levels[-1] != EMPTY).sum() >= 400
    extent = np.ptp(points, axis=0).max()
    away = np.abs((points - points.min(0)) / extent * found.side - 0.5 - found.places)
    assert away.max() <= 1.0
