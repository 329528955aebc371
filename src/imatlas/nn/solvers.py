"""Ordinary differential equations dx/dt = velocity(x, t) on batches of tensors, from one time to another.

Euler and Heun take equal steps. `adaptive` is the embedded pair of Bogacki & Shampine (1989), "A 3(2) pair of
Runge-Kutta formulas": every sample has a step size of its own, so that no sample depends on those beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""From states (N, …) and times (N,) to dx/dt (N, …)."""

SAFETY, LEAST, MOST = 0.9, 0.2, 5.0
"""The next step is the estimated best one times `SAFETY`, at least and at most so many times the last one."""

SMALLEST = 1e-3
"""Steps of `adaptive`, as a share of the whole way, that are taken whatever their error."""


def euler(velocity: Velocity, x: Tensor, start: float, stop: float, n_steps: int) -> Tensor:
    """x at time `stop`: one evaluation a step, the error falls as 1 / n_steps."""
    for t, step in _steps(start, stop, n_steps):
        x = x + step * velocity(x, x.new_full((len(x),), t))
    return x


def heun(velocity: Velocity, x: Tensor, start: float, stop: float, n_steps: int) -> Tensor:
    """x at time `stop`: two evaluations a step (slopes at both of its ends), the error falls as 1 / n_steps²."""
    for t, step in _steps(start, stop, n_steps):
        first = velocity(x, x.new_full((len(x),), t))
        second = velocity(x + step * first, x.new_full((len(x),), t + step))
        x = x + step * (first + second) / 2
    return x


def adaptive(
    velocity: Velocity, x: Tensor, start: float, stop: float, *, tolerance: float = 1e-3, first_step: float = 0.05
) -> Tensor:
    """x at time `stop`, in as many steps as keep the error of each step under `tolerance`.

    Parameters
    ----------
    velocity : callable
    x : Tensor (N, …)
    start, stop : float
    tolerance : float
        Of a step, root mean square over a sample, for samples of unit size.
    first_step : float
        Tried first, as a share of the whole way.
    """
    whole = stop - start
    n, shape = len(x), (-1, *[1] * (x.ndim - 1))
    done = x.new_zeros(n)  # share of the way
    step = x.new_full((n,), first_step)
    k1 = velocity(x, start + whole * done)
    while bool((active := done < 1).any()):
        step = torch.where(active, torch.minimum(step, 1 - done), step)
        h = (whole * step).view(shape)
        k2 = velocity(x + h / 2 * k1, start + whole * (done + step / 2))
        k3 = velocity(x + 3 * h / 4 * k2, start + whole * (done + 3 * step / 4))
        ahead = x + h * (2 * k1 + 3 * k2 + 4 * k3) / 9
        k4 = velocity(ahead, start + whole * (done + step))
        off = h * (-5 * k1 / 72 + k2 / 12 + k3 / 9 - k4 / 8)
        error = off.flatten(1).square().mean(1).sqrt() / (tolerance * (1 + x.flatten(1).square().mean(1).sqrt()))
        taken = active & ((error <= 1) | (step <= SMALLEST))
        x = torch.where(taken.view(shape), ahead, x)
        k1 = torch.where(taken.view(shape), k4, k1)
        done = torch.where(taken, (done + step).clamp(max=1), done)
        done = torch.where(done > 1 - 1e-6, 1.0, done)
        step = (step * (SAFETY * error.clamp(min=1e-6) ** (-1 / 3)).clamp(LEAST, MOST)).clamp(min=SMALLEST)
    return x


def _steps(start: float, stop: float, n_steps: int) -> list[tuple[float, float]]:
    """(time, step) of equal steps."""
    step = (stop - start) / n_steps
    return [(start + i * step, step) for i in range(n_steps)]
