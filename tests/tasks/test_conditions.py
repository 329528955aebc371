"""Conditions from the map: which cells are drawn, how often, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from imatlas.errors import InputError
from imatlas.tasks.conditions import MapConditions

CONDITIONS = MapConditions(
    prototypes=np.arange(12, dtype=np.float32)[:, None],
    shape=(3, 4),
    cells=np.array([0, 0, 0, 5, 5, 11]),
    clusters=np.array([0, 0, 0, 0, 1, 1]),
)


def test_cells_are_drawn_in_proportion_to_their_images():
    found = CONDITIONS.draw(3000)
    shares = np.bincount(found, minlength=12) / 3000
    np.testing.assert_allclose(shares[[0, 5, 11]], [3 / 6, 2 / 6, 1 / 6], atol=0.04)
    assert shares.sum() == pytest.approx(shares[[0, 5, 11]].sum())


def test_more_draws_do_not_change_earlier_ones():
    np.testing.assert_array_equal(CONDITIONS.draw(50, random_state=3)[:7], CONDITIONS.draw(7, random_state=3))
    assert not np.array_equal(CONDITIONS.draw(50, random_state=3), CONDITIONS.draw(50, random_state=4))


@pytest.mark.parametrize(("targets", "cells"), [((1, 1), {5}), (7, {7}), ([(0, 0), (2, 3)], {0, 11}), ([2, 3], {2, 3})])
def test_cells_by_pair_by_number_or_several(targets, cells):
    assert set(CONDITIONS.draw(60, cell=targets).tolist()) == cells


def test_a_cluster_gives_the_cells_of_its_images():
    assert set(CONDITIONS.draw(60, cluster=1).tolist()) == {5, 11}


def test_a_path_leads_through_every_cell_between():
    rows, cols = CONDITIONS.shape
    corner = (rows - 1, cols - 1)
    path = [divmod(int(cell), cols) for cell in CONDITIONS.path([(0, 0), corner, corner, (0, cols - 1)])]
    assert path[0] == (0, 0)
    assert path[-1] == (0, cols - 1)
    assert corner in path
    steps = np.abs(np.diff(path, axis=0))
    assert (steps.max(1) == 1).all()
    assert len(path) == max(rows, cols) + rows - 1


def test_weights_are_relative_frequencies():
    found = CONDITIONS.draw(2000, cell=[(0, 1), (0, 2)], cluster=1, near=[9], weights=[6, 0, 2, 2])
    counts = np.bincount(found, minlength=12)
    assert counts[2] == 0
    np.testing.assert_allclose(counts[[1, 9]] / 2000, [0.6, 0.2], atol=0.04)
    assert counts[5] + counts[11] == pytest.approx(400, abs=80)


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ({"cell": (3, 0)}, r"from \(0, 0\) to \(2, 3\)"),
        ({"cell": 12}, "from 0 to 11"),
        ({"cluster": 2}, "clusters are numbered 0 to 1"),
        ({"cell": [0, 1], "weights": [1]}, "must be 2 non-negative numbers"),
        ({"cell": [0, 1], "weights": [0, 0]}, "must be 2 non-negative numbers"),
    ],
)
def test_invalid_targets_are_refused(targets, words):
    with pytest.raises(InputError, match=words):
        CONDITIONS.draw(3, **targets)
