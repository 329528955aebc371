"""Solvers against closed-form solutions."""

import math

import pytest
import torch

from imatlas.nn import solvers


def rotation(x, t):
    """dx/dt = (-y, x): a rotation by one radian per unit of time."""
    return torch.stack([-x[:, 1], x[:, 0]], dim=1)


def rotated(x, angle):
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.stack([cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1]], dim=1)


X = torch.tensor([[1.0, 0.0], [0.3, -2.0], [5.0, 5.0]], dtype=torch.float64)


@pytest.mark.parametrize(("solve", "order"), [(solvers.euler, 1), (solvers.heun, 2)])
def test_the_error_falls_with_the_order_of_the_method(solve, order):
    few, many = (float((solve(rotation, X, 0.0, 1.0, n) - rotated(X, 1.0)).norm()) for n in (20, 40))
    assert few / many == pytest.approx(2**order, rel=0.1)
    assert many < 0.1


def test_a_field_that_depends_on_time():
    x = torch.zeros(2, 1, dtype=torch.float64)
    for solve in (lambda v: solvers.heun(v, x, 0.0, 2.0, 50), lambda v: solvers.adaptive(v, x, 0.0, 2.0)):
        end = solve(lambda x, t: (3 * t**2)[:, None] + 0 * x)
        assert torch.allclose(end, torch.full_like(end, 8.0), rtol=1e-3)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
def test_adaptive_keeps_its_tolerance_and_saves_steps(tolerance):
    calls = []

    def counted(x, t):
        calls.append(len(x))
        return rotation(x, t)

    end = solvers.adaptive(counted, X, 0.0, 3.0, tolerance=tolerance)
    assert float((end - rotated(X, 3.0)).norm(dim=1).max() / X.norm(dim=1).max()) < 20 * tolerance
    assert len(calls) < 300


def test_adaptive_treats_samples_independently():
    def stiff_for_some(x, t):
        return -x * torch.tensor([1.0, 50.0, 5.0], dtype=x.dtype)[: len(x), None] * torch.ones_like(x)

    together = solvers.adaptive(stiff_for_some, X, 0.0, 1.0)
    alone = solvers.adaptive(stiff_for_some, X[:1], 0.0, 1.0)
    assert torch.equal(together[:1], alone)


def test_the_reverse_flow_returns_to_the_start():
    for solve in (
        lambda x, a, b: solvers.heun(rotation, x, a, b, 50),
        lambda x, a, b: solvers.adaptive(rotation, x, a, b),
    ):
        assert torch.allclose(solve(solve(X, 0.0, 1.0), 1.0, 0.0), X, atol=2e-2)
