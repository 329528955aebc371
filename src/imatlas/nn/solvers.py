"""Solvers of ordinary differential equations dx/dt = velocity(x, t) on batches of tensors.

Euler and Heun take equal steps. `adaptive` is the embedded pair of Bogacki & Shampine (1989), "A 3(2) pair of
Runge-Kutta formulas", with a step size per sample, so that no sample depends on the others in its batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""From states (N, …) and times (N,) to dx/dt (N, …)."""

SAFETY, MIN_FACTOR, MAX_FACTOR = 0.9, 0.2, 5.0
"""The next step is `SAFETY` times the estimated optimum, within these factors of the last step."""

MIN_STEP = 1e-3
"""Steps of `adaptive` up to this fraction of the interval are accepted whatever their error."""


def euler(velocity: Velocity, x: Tensor, start: float, stop: float, n_steps: int) -> Tensor:
    """x at time `stop`; one evaluation per step, error of order 1 / n_steps."""
    for t, step in _steps(start, stop, n_steps):
        x = x + step * velocity(x, x.new_full((len(x),), t))
    return x


def heun(velocity: Velocity, x: Tensor, start: float, stop: float, n_steps: int) -> Tensor:
    """x at time `stop`; two evaluations per step (at both of its ends), error of order 1 / n_steps²."""
    for t, step in _steps(start, stop, n_steps):
        first = velocity(x, x.new_full((len(x),), t))
        second = velocity(x + step * first, x.new_full((len(x),), t + step))
        x = x + step * (first + second) / 2
    return x


def adaptive(
    velocity: Velocity, x: Tensor, start: float, stop: float, *, tolerance: float = 1e-3, first_step: float = 0.05
) -> Tensor:
    """x at time `stop`, with the error of each step below `tolerance`.

    Parameters
    ----------
    velocity : callable
    x : Tensor (N, …)
    start, stop : float
    tolerance : float
        Root mean square error of a step, relative to 1 + the root mean square of the sample.
    first_step : float
        Initial step, as a fraction of the interval.
    """
    interval = stop - start
    n, shape = len(x), (-1, *[1] * (x.ndim - 1))
    done = x.new_zeros(n)  # fraction of the interval
    step = x.new_full((n,), first_step)
    k1 = velocity(x, start + interval * done)
    while bool((active := done < 1).any()):
        step = torch.where(active, torch.minimum(step, 1 - done), step)
        h = (interval * step).view(shape)
        k2 = velocity(x + h / 2 * k1, start + interval * (done + step / 2))
        k3 = velocity(x + 3 * h / 4 * k2, start + interval * (done + 3 * step / 4))
        x_next = x + h * (2 * k1 + 3 * k2 + 4 * k3) / 9
        k4 = velocity(x_next, start + interval * (done + step))
        delta = h * (-5 * k1 / 72 + k2 / 12 + k3 / 9 - k4 / 8)
        error = delta.flatten(1).square().mean(1).sqrt() / (tolerance * (1 + x.flatten(1).square().mean(1).sqrt()))
        accepted = active & ((error <= 1) | (step <= MIN_STEP))
        x = torch.where(accepted.view(shape), x_next, x)
        k1 = torch.where(accepted.view(shape), k4, k1)
        done = torch.where(accepted, (done + step).clamp(max=1), done)
        done = torch.where(done > 1 - 1e-6, 1.0, done)
        step = (step * (SAFETY * error.clamp(min=1e-6) ** (-1 / 3)).clamp(MIN_FACTOR, MAX_FACTOR)).clamp(min=MIN_STEP)
    return x


def _steps(start: float, stop: float, n_steps: int) -> list[tuple[float, float]]:
    """(time, step) of equal steps."""
    step = (stop - start) / n_steps
    return [(start + i * step, step) for i in range(n_steps)]
