"""The student: it smooths over its teacher's mistakes, and what is kept of it is what was learned."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from imatlas.models.parts.student import hidden, taught

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_student_is_less_often_wrong_than_its_teacher() -> None:
    X, y = make_blobs(1200, 8, centers=4, cluster_std=2.5, random_state=0)
    rng = np.random.default_rng(0)
    said = np.where(rng.random(1200) < 0.3, rng.integers(4, size=1200), y)
    given = np.flatnonzero(rng.random(1200) < 0.02)
    shares = np.full((1200, 4), 0.1) + 0.6 * np.eye(4)[said]
    shares[given] = np.eye(4)[y[given]]
    student = taught(X.astype(np.float32), shares, given, 0)
    scores = hidden(X.astype(np.float32), student.axes, student.offset) @ student.coef.T + student.intercept
    assert (said == y).mean() < 0.8
    assert (scores.argmax(axis=1) == y).mean() > 0.95


def test_far_and_wide_rows_are_learned_as_well_and_one_seed_gives_one_student() -> None:
    """The first layer holds the mean and the scale of the rows."""
    X, y = make_blobs(600, 5, centers=3, random_state=1)
    given, shares = np.arange(30), np.eye(3)[y]
    students = [taught((X * a + b).astype(np.float32), shares, given, 3) for a, b in ((1, 0), (1, 0), (100, 1000))]
    near, again, far = (
        hidden((X * a + b).astype(np.float32), s.axes, s.offset)
        for s, (a, b) in zip(students, ((1, 0), (1, 0), (100, 1000)))
    )
    assert np.array_equal(near, again)
    np.testing.assert_allclose(near, far, atol=0.05 * near.max())
    other = taught(X.astype(np.float32), shares, given, 4)
    assert not np.array_equal(near, hidden(X.astype(np.float32), other.axes, other.offset))
