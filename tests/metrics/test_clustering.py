"""Scores of a grouping against hand counts."""

from __future__ import annotations

import numpy as np
import pytest

from imatlas.metrics.clustering import accuracy, clustering_scores, modularity, purity


def test_a_renamed_grouping_is_perfect():
    y = np.array([0, 0, 1, 1, 2, 2])
    scores = clustering_scores(y, (y + 1) % 3)
    assert all(value == pytest.approx(1) for value in scores.values())


def test_splitting_costs_accuracy_but_not_purity():
    y, labels = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 3, 1, 1])
    assert accuracy(y, labels) == pytest.approx(5 / 6)
    assert purity(y, labels) == 1
    assert purity(y, np.zeros(6, int)) == pytest.approx(4 / 6)


def test_modularity_of_two_cliques():
    neighbors = np.array([[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]])
    assert modularity(neighbors, np.array([0, 0, 0, 1, 1, 1])) == pytest.approx(0.5)
    assert modularity(neighbors, np.zeros(6, int)) == pytest.approx(0)
    assert modularity(neighbors, np.array([0, 1, 0, 1, 0, 1])) < 0.1
