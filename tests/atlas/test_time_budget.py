"""The time budget of `learn`, against what it promises."""

from __future__ import annotations

import pytest

from imatlas.atlas.learn import estimate
from imatlas.atlas.time_budget import ROOM, SHARES, TimeBudget, default_budget
from imatlas.images.dataset import Images
from imatlas.tasks import choose_encoder
from imatlas.testing import synthetic_images


@pytest.mark.parametrize("encoder", SHARES)
def test_the_shares_of_all_stages_are_the_whole_budget(encoder) -> None:
    assert sum(SHARES[encoder].values()) == pytest.approx(1)


def test_what_a_stage_leaves_goes_to_the_next_and_an_overrun_leaves_the_least() -> None:
    budget = TimeBudget("pretrained", 1000.0, 100)
    assert budget.allowance("encoder", 0) == pytest.approx(250)
    assert budget.allowance("map", 100) == pytest.approx(190)  # 150 s were left by the encoder
    assert budget.allowance("map", 900) == pytest.approx(0.25 * 40)
    assert budget.allowance("generator", 2000) == pytest.approx(0.5 * 510)
    assert budget.allowance("clusters", 900) == budget.allowance("layout", 900) == pytest.approx(ROOM * 1000)


def test_a_short_budget_leaves_the_report_its_time() -> None:
    short, long = TimeBudget("pretrained", 20.0, 1000), TimeBudget("pretrained", 2000.0, 1000)
    assert short.report_seconds == long.report_seconds == pytest.approx(6)
    assert short.allowance("generator", 0) == pytest.approx(0.9 * 20 - (6 - 2))
    assert long.allowance("generator", 0) == pytest.approx(0.9 * 2000)
    assert short.judging_seconds(18) < long.judging_seconds(1800)


def test_a_large_set_is_not_searched_for_edited_duplicates_so_its_report_is_quick() -> None:
    assert TimeBudget("own", 300.0, 60_000).allowance("encoder", 0) == pytest.approx(0.74 * 300)


def test_the_default_grows_with_the_set() -> None:
    assert [default_budget(n) for n in (1, 500, 501, 5_000, 20_000, 20_001)] == [90, 90, 180, 180, 300, 600]


@pytest.mark.parametrize(("per_pass", "minutes"), [(0.001, 1.5), (10.0, (400 + 6 + 0.5 * 0.51 * 60 + 6) / 60 + 0.5)])
def test_what_learning_takes_is_its_budget_or_what_the_images_need(monkeypatch, per_pass, minutes) -> None:
    monkeypatch.setattr(choose_encoder, "seconds_per_pass", lambda images, device, size=0: per_pass)
    images = Images(synthetic_images(40, size=48, channels=3))
    found = estimate(images, budget="60s")
    assert found["minutes"] == pytest.approx(minutes, abs=0.1)
    assert found["encoder"] == "pretrained"
    assert found["images_per_second"] == pytest.approx((1 if per_pass == 10 else 1 / 3) / per_pass, abs=0.1)
