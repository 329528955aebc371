"""When things happen in a run: how long it takes, how fast it learns when, whether it still learns."""

from __future__ import annotations

import math
import re
import statistics
from typing import Literal

import numpy as np

from imatlas.arguments import shown
from imatlas.errors import ParameterError

MOST_SECONDS = 1e9
"""The longest budget, 31 years: beyond any machine's life."""

DECAY_SHARE = 0.8
"""Share of the budget, or of max_steps, after which the learning rate falls to zero."""

ENOUGH_STEPS = 600
"""With a budget, the batch is halved (not below 16) until at least so many steps fit."""

EVALUATE_EVERY = 250
"""Most steps between two looks at the held-out images."""

RISE = 50
"""Steps over which the learning rate rises at the start."""


def parse_budget(budget: float | str | None) -> float | None:
    """A budget in seconds: 90, "90s", "5m", "1.5h", "1h30m" or None.

    Raises
    ------
    ParameterError
        If it is none of these, or not above zero.
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
    if not 0 < seconds <= MOST_SECONDS:
        raise ParameterError(
            f"The budget must be a time above zero such as 90, '90s', '5m' or '1h30m'. Got {shown(budget)}."
        )
    return seconds


def default_steps(n_images: int, batch_size: int) -> int:
    """Steps of a run that was given neither `max_steps` nor a `budget`: 30 epochs, at least 1,000, at most 20,000."""
    return min(20_000, max(1_000, 30 * n_images // batch_size))


def learning_rate(step: int, decay_start: int | None, max_steps: int | None) -> float:
    """The share of `learning_rate` at a step: a short rise, then 1, then a straight fall to zero at `max_steps`."""
    rise = RISE if max_steps is None else max(1, min(RISE, max_steps // 10))
    share = min(1.0, (step + 1) / rise)
    if decay_start is not None and max_steps is not None and step >= decay_start:
        share *= (max_steps - step) / (max_steps - decay_start)
    return share


def evaluation_interval(n_steps: int) -> int:
    """Steps between two looks at the held-out images, in a run of so many steps (0 where that is not known)."""
    return max(1, min(EVALUATE_EVERY, n_steps // 20)) if n_steps else EVALUATE_EVERY


def faster_precision(fp32: list[float], bf16: list[float]) -> tuple[Literal["fp32", "bf16"], float]:
    """The faster of two precisions, and its seconds a step, from the seconds of single steps (none where not tried)."""
    seconds = statistics.median(fp32) if fp32 else 1e-3
    # the first steps in a new precision choose their kernels
    other = statistics.median(bf16[2:]) if len(bf16) > 2 else math.inf
    return ("bf16", other) if other < 0.95 * seconds else ("fp32", seconds)


def batch_for_budget(batch_size: int, step_seconds: float, seconds_left: float) -> tuple[int, int]:
    """The batch size that leaves `ENOUGH_STEPS`, a step's time being in proportion to it, and the steps that fit."""
    steps = seconds_left / step_seconds
    while batch_size >= 32 and steps < ENOUGH_STEPS:
        batch_size, steps = batch_size // 2, steps * 2
    return batch_size, int(steps)


def verdict(losses: list[float | None]) -> str:
    """What held-out losses, oldest first, say: 'still improving', 'flat', 'getting worse' or 'too short to tell'.

    The loss now is compared with the best of the first three quarters, on the scale of all that was gained so far.
    """
    finite = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    if len(finite) < 4:
        return "too short to tell"
    earlier = min(finite[: max(1, 3 * len(finite) // 4)])
    gained = max(finite[0] - min(finite), 1e-12)
    if finite[-1] < earlier - 0.01 * gained:
        return "still improving"
    return "getting worse" if finite[-1] > earlier + 0.05 * gained else "flat"
