"""Schedule of a training run: its length, learning rate, evaluations, and whether it still improves."""

from __future__ import annotations

import math
import re
import statistics
from typing import Literal

import numpy as np

from imatlas.arguments import shown
from imatlas.errors import ParameterError

MAX_SECONDS = 1e9
"""Longest budget: 31 years."""

DECAY_SHARE = 0.8
"""Fraction of the budget, or of max_steps, after which the learning rate decays to zero."""

MIN_STEPS = 600
"""With a budget, the batch size is halved (not below 16) until at least this many steps fit."""

MIN_EVALUATIONS = 8
"""Evaluations on the held-out images before a run may stop early."""

MAX_INTERVAL = 250
"""Most steps between two evaluations on the held-out images."""

WARM_UP_STEPS = 50
"""Steps over which the learning rate rises linearly at the start."""


def parse_budget(budget: float | str | None) -> float | None:
    """Seconds of a budget such as 90, "90s", "5m", "1.5h", "1h30m" or None.

    Raises
    ------
    ParameterError
        If it is none of these, or not positive.
    """
    if budget is None:
        return None
    if isinstance(budget, str):
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*(h|m|s|$)", budget.strip())
        whole = re.fullmatch(r"(?:\d+(?:\.\d+)?\s*(?:h|m|s)\s*)+|\d+(?:\.\d+)?", budget.strip())
        seconds = sum(float(n) * {"h": 3600, "m": 60, "s": 1, "": 1}[unit] for n, unit in parts) if whole else -1.0
    else:
        plain = budget.item() if isinstance(budget, np.generic) else budget
        is_number = isinstance(plain, int | float) and not isinstance(plain, bool)
        seconds = float(plain) if is_number else -1.0
    if not 0 < seconds <= MAX_SECONDS:
        raise ParameterError(
            f"The budget must be a positive time such as 90, '90s', '5m' or '1h30m'. Got {shown(budget)}."
        )
    return seconds


def default_steps(n_images: int, batch_size: int) -> int:
    """Steps of a run without `max_steps` and `budget`: 30 epochs, but at least 1,000 and at most 20,000."""
    return min(20_000, max(1_000, 30 * n_images // batch_size))


def learning_rate(step: int, decay_start: int | None, max_steps: int | None) -> float:
    """Factor on the learning rate at a step: linear warm-up, constant 1, then linear decay to zero at `max_steps`."""
    warm_up = WARM_UP_STEPS if max_steps is None else max(1, min(WARM_UP_STEPS, max_steps // 10))
    factor = min(1.0, (step + 1) / warm_up)
    if decay_start is not None and max_steps is not None and step >= decay_start:
        factor *= (max_steps - step) / (max_steps - decay_start)
    return factor


def evaluation_interval(n_steps: int) -> int:
    """Steps between two evaluations in a run of `n_steps` (0 if unknown)."""
    return max(1, min(MAX_INTERVAL, n_steps // 20)) if n_steps else MAX_INTERVAL


def faster_precision(fp32: list[float], bf16: list[float]) -> tuple[Literal["fp32", "bf16"], float]:
    """The faster precision and its seconds per step, from the seconds of single steps in both (may be empty)."""
    seconds = statistics.median(fp32) if fp32 else 1e-3
    # the first steps in a new precision include kernel selection
    other = statistics.median(bf16[2:]) if len(bf16) > 2 else math.inf
    return ("bf16", other) if other < 0.95 * seconds else ("fp32", seconds)


def batch_for_budget(batch_size: int, step_seconds: float, seconds_left: float) -> tuple[int, int]:
    """The batch size at which `MIN_STEPS` fit, if time per step is proportional to it, and the steps that fit."""
    steps = seconds_left / step_seconds
    while batch_size >= 32 and steps < MIN_STEPS:
        batch_size, steps = batch_size // 2, steps * 2
    return batch_size, int(steps)


def verdict(losses: list[float | None]) -> str:
    """Trend of held-out losses, oldest first: 'still improving', 'flat', 'getting worse' or 'too short to tell'.

    The last loss is compared with the best of the first three quarters, relative to the total improvement.
    """
    finite = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    if len(finite) < 4:
        return "too short to tell"
    earlier = min(finite[: max(1, 3 * len(finite) // 4)])
    gained = max(finite[0] - min(finite), 1e-12)
    if finite[-1] < earlier - 0.01 * gained:
        return "still improving"
    return "getting worse" if finite[-1] > earlier + 0.05 * gained else "flat"


def overfits(losses: list[float | None]) -> bool:
    """Whether held-out losses, oldest first, have been getting worse over enough evaluations to stop early."""
    return len(losses) >= MIN_EVALUATIONS and verdict(losses) == "getting worse"
