"""Student network: it corrects its teacher's mistakes, and the folded layers equal the trained ones."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from imatlas.models.parts.student import hidden, train_student

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_student_is_more_accurate_than_its_teacher() -> None:
    X, y = make_blobs(1200, 8, centers=4, cluster_std=2.5, random_state=0)
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(1200) < 0.3, rng.integers(4, size=1200), y)
    given = np.flatnonzero(rng.random(1200) < 0.02)
    shares = np.full((1200, 4), 0.1) + 0.6 * np.eye(4)[noisy]
    shares[given] = np.eye(4)[y[given]]
    student = train_student(X.astype(np.float32), shares, given, 0)
    scores = hidden(X.astype(np.float32), student.axes, student.offset) @ student.coef.T + student.intercept
    assert (noisy == y).mean() < 0.8
    assert (scores.argmax(axis=1) == y).mean() > 0.95


def test_shift_and_scale_do_not_matter_and_the_seed_decides() -> None:
    """Mean and scale of the rows are folded into the first layer."""
    X, y = make_blobs(600, 5, centers=3, random_state=1)
    given, shares = np.arange(30), np.eye(3)[y]
    students = [
        train_student((X * a + b).astype(np.float32), shares, given, 3) for a, b in ((1, 0), (1, 0), (100, 1000))
    ]
    near, again, far = (
        hidden((X * a + b).astype(np.float32), s.axes, s.offset)
        for s, (a, b) in zip(students, ((1, 0), (1, 0), (100, 1000)))
    )
    assert np.array_equal(near, again)
    np.testing.assert_allclose(near, far, atol=0.05 * near.max())
    other = train_student(X.astype(np.float32), shares, given, 4)
    assert not np.array_equal(near, hidden(X.astype(np.float32), other.axes, other.offset))
