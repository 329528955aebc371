"""Which frames of a video are used: cuts found among fades, flashes and pans, and fixed steps."""

from __future__ import annotations

import numpy as np
import pytest

from imatlas.errors import ParameterError
from imatlas.images.cuts import LONG, SMALL, Shots, Steps, checked_video, sampler_of
from tests.images.video_files import scene

FPS = 25.0


def run(frames, rate=FPS):
    """The times of the frames that `Shots` uses, and of its cuts."""
    shots, used = Shots(rate), []
    rng = np.random.default_rng(0)
    for i, frame in enumerate(frames):
        noisy = np.clip(frame + rng.normal(0, 3, frame.shape), 0, 255).astype(np.uint8)
        if shots.add(i / rate, lambda: noisy):  # noqa: B023 - called at once
            used.append(i / rate)
    if shots.finish():
        used.append((len(frames) - 1) / rate)
    return used, shots.cuts


def pan(seed, n, step=1):
    """A camera that moves over a scene."""
    wide = scene(seed, SMALL[0], SMALL[1] + n * step).astype(np.float32)
    return [wide[:, i * step : i * step + SMALL[1]] for i in range(n)]


def still(seed, n):
    return [scene(seed, *SMALL).astype(np.float32)] * n


def faded(frames, n):
    """The frames with `n` of them faded in from black, and `n` out to black."""
    count = len(frames)
    return [frame * min(1.0, i / n, (count - 1 - i) / n) for i, frame in enumerate(frames)]


def flashed(frames, at, decay):
    """A flash at once, which decays over some frames."""
    return [
        np.minimum(255, frame + 200 * max(0.0, 1 - (i - at) / decay)) if i >= at else frame
        for i, frame in enumerate(frames)
    ]


def test_hard_cuts_are_found_to_the_frame_and_one_frame_of_each_shot_is_used():
    lengths = (30, 12, 50, 17, 40)
    frames = [frame for seed, n in enumerate(lengths) for frame in still(seed, n)]
    used, cuts = run(frames)
    begins = np.cumsum(lengths)[:-1] / FPS
    assert cuts == pytest.approx(begins)
    edges = [0, *begins, len(frames) / FPS]
    assert [np.searchsorted(edges, time, side="right") - 1 for time in used] == [0, 1, 2, 3, 4]


def test_precision_and_recall_over_many_shots_with_pans_flashes_and_fades():
    rng = np.random.default_rng(1)
    truth, frames = [], []
    for number in range(60):
        n = int(rng.integers(15, 90))
        shot = pan(number, n, step=int(rng.integers(1, 3))) if number % 2 else still(number, n)
        if number % 5 == 3 and n > 40:
            shot = flashed(shot, n // 2, int(rng.integers(1, 6)))
        if number % 4 == 2:
            shot = faded(shot, 8)
        truth.append(len(frames) / FPS)
        frames += shot
    cuts = np.array(run(frames)[1])
    near = np.abs(cuts[:, None] - np.array(truth[1:])[None]) <= 9 / FPS  # a fade ends up to 8 frames later
    recall, precision = near.any(axis=0).mean(), near.any(axis=1).mean()
    assert recall >= 0.95
    assert precision >= 0.95


@pytest.mark.parametrize("decay", [1, 2, 4, 8])
def test_a_flash_is_no_cut(decay):
    assert run(flashed(still(0, 80), 40, decay))[1] == []


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_pan_is_no_cut(step):
    assert run(pan(3, 100, step))[1] == []


def test_a_fade_through_black_is_one_cut_and_no_dark_frame_is_used():
    frames = faded(still(0, 60), 12) + [np.zeros((*SMALL, 3), np.float32)] * 8 + faded(still(1, 60), 12)
    used, cuts = run(frames)
    assert len(cuts) == 1
    assert 60 / FPS <= cuts[0] <= 72 / FPS
    assert [frames[round(time * FPS)].mean() > 60 for time in used] == [True, True]


def test_long_shots_give_more_frames():
    used, cuts = run(still(0, 20 * 25))
    assert cuts == []
    assert np.allclose(np.diff(used), LONG, atol=1 / FPS)
    assert len(used) == 4


def test_short_and_uniform_videos_give_a_frame():
    assert run(still(0, 3))[0] == [2 / FPS]
    assert len(run([np.full((*SMALL, 3), 90.0)] * 100)[0]) == 1
    assert run([])[0] == []
    frames = still(0, 50) + still(1, 6)  # a last shot shorter than the window
    assert run(frames)[0][-1] == 55 / FPS


def test_few_frames_per_second():
    frames = [frame for seed in range(6) for frame in still(seed, 5)]
    assert run(frames, rate=1.0)[1] == pytest.approx([5, 10, 15, 20, 25])


def test_steps_take_the_first_frame_of_each_step():
    steps = Steps(2.0)
    used = [i / 25 for i in range(251) if steps.add(i / 25, lambda: np.zeros(0))]
    assert used == [0, 2, 4, 6, 8, 10]
    slow = Steps(1.0)  # frames that last longer than a step, and times without order in their distance
    assert [t for t in (0.0, 0.9, 3.2, 3.3, 9.0, 9.001) if slow.add(t, lambda: np.zeros(0))] == [0.0, 3.2, 9.0]
    assert not steps.finish()


def test_the_setting_has_one_spelling():
    spelled = {
        "cuts": "cuts",
        " CUTS ": "cuts",
        "2s": "2s",
        2: "2s",
        "2": "2s",
        "500ms": "0.5s",
        "1m": "60s",
    }
    assert {value: checked_video(value, "Images") for value in spelled} == spelled
    assert isinstance(sampler_of("cuts", 25), Shots)
    assert sampler_of("0.5s", 25) == Steps(0.5)


@pytest.mark.parametrize("value", ["", "all", "0s", "-1s", 0.001, "2 days", True, None, float("nan"), "99h"])
def test_other_settings_are_refused(value):
    with pytest.raises(ParameterError, match=r"'video' .*'cuts', or the time"):
        checked_video(value, "Images")
