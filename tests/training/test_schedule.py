import math

import pytest

from imatlas.errors import ParameterError
from imatlas.training import schedule


@pytest.mark.parametrize(
    ("budget", "seconds"),
    [(90, 90), (0.5, 0.5), ("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400), ("1h30m", 5400), ("2m 5s", 125)],
)
def test_budgets_are_parsed(budget, seconds):
    assert schedule.parse_budget(budget) == seconds


@pytest.mark.parametrize(
    "budget", [0, -1, "", "5 minutes", "m", "5x", "m5", math.inf, math.nan, "-3s", "0m", "99999999999999h", 1e11]
)
def test_invalid_budgets_are_refused(budget):
    with pytest.raises(ParameterError, match="budget"):
        schedule.parse_budget(budget)


def test_no_budget_is_none():
    assert schedule.parse_budget(None) is None


def test_learning_rate_warms_up_stays_and_decays_to_zero():
    rates = [schedule.learning_rate(step, 80, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10:81] == [1.0] * 71
    assert rates[80:] == pytest.approx([(100 - i) / 20 for i in range(80, 100)])
    assert schedule.learning_rate(10_000, None, None) == 1.0


def test_a_run_of_one_step_learns():
    assert schedule.learning_rate(0, 0, 1) == 1.0


def test_default_steps_follow_the_set():
    assert schedule.default_steps(100, 64) == 1_000
    assert schedule.default_steps(60_000, 64) == 20_000
    assert schedule.default_steps(10_000, 64) == 30 * 10_000 // 64


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ([1.0, 0.9, 0.8], "too short to tell"),
        ([1.0, None, float("nan"), 0.5], "too short to tell"),
        ([1.0, 0.5, 0.3, 0.2, 0.15, 0.12, 0.1, 0.08], "still improving"),
        ([1.0, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], "flat"),
        ([1.0, 0.2, 0.1, 0.1, 0.12, 0.15, 0.18, 0.2], "getting worse"),
        ([-10.0, -90.0, -100.0, -100.0, -99.0, -99.5, -100.0, -100.0], "flat"),
    ],
)
def test_verdict(losses, words):
    assert schedule.verdict(losses) == words


def test_a_run_may_stop_early_only_after_enough_evaluations():
    worse = [1.0, 0.2, 0.1, 0.1, 0.12, 0.15, 0.18, 0.2]
    assert schedule.overfits(worse)
    assert not schedule.overfits(worse[1:])
    assert not schedule.overfits([1.0, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert not schedule.overfits([None] * 20)


def test_the_batch_is_halved_until_enough_steps_fit():
    assert schedule.batch_for_budget(64, 0.01, 100) == (64, 10_000)
    assert schedule.batch_for_budget(64, 0.1, 40) == (32, 800)
    assert schedule.batch_for_budget(64, 10.0, 40) == (16, 16)
    assert schedule.batch_for_budget(24, 10.0, 40) == (24, 4)


def test_bf16_is_used_only_if_faster():
    assert schedule.faster_precision([1.0, 1.1, 0.9], []) == ("fp32", 1.0)
    assert schedule.faster_precision([1.0, 1.1, 0.9], [3.0, 2.0, 0.5, 0.6, 0.7]) == ("bf16", 0.6)
    assert schedule.faster_precision([1.0, 1.1, 0.9], [0.1, 0.1, 0.98, 0.99, 0.97]) == ("fp32", 1.0)
