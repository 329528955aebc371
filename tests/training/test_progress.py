import io
import json
import signal

import pytest

from imatlas.errors import UnsafePathError
from imatlas.system import interrupts
from imatlas.training import progress
from imatlas.training.progress import Interrupt, JsonLines, Progress, duration


def test_json_lines_are_written_at_once(tmp_path):
    writer = JsonLines(tmp_path / "new" / "metrics.jsonl")
    writer({"event": "loss", "step": 3, "held_out": float("nan"), "train": 0.5})
    lines = (tmp_path / "new" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"event": "loss", "step": 3, "held_out": None, "train": 0.5}
    writer({"event": "end"})
    JsonLines(tmp_path / "new" / "metrics.jsonl")({"event": "start"})
    assert len((tmp_path / "new" / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (float("inf"), "unknown time"), (-1, "0 s")],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_events_reach_the_callback_even_when_silent(capsys):
    events = []
    shown = Progress("VAE", show=False, callback=events.append)
    shown.event("start", "Learning.", step=1)
    shown.tick(0.5, 3.0, "")
    shown.close()
    assert events == [{"event": "start", "step": 1, "message": "Learning."}]
    assert capsys.readouterr() == ("", "")


def test_plain_lines_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE", 0.0)
    shown = Progress("VAE")
    shown.event("start", "Learning.")
    shown.tick(0.25, 90, "step 3")
    assert capsys.readouterr().err == "VAE: Learning.\nVAE: 25 %, 1 min 30 s left, step 3\n"


def test_the_bar_is_redrawn_at_most_five_times_a_second(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    shown = Progress("VAE")
    shown.stream = Terminal()
    shown._next = 0.0
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    drawn = []
    monkeypatch.setattr(shown, "_draw", lambda *given: drawn.append(now[0]))
    for _ in range(1000):
        now[0] += 0.01
        shown.tick(0.5, 1, "")
    assert 45 <= len(drawn) <= 51


def test_the_bar_draws_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    shown = Progress("VAE")
    shown.stream, shown._next = Terminal(), 0.0
    shown.tick(0.5, 61, "step 3")
    shown.event("decision", "Half the rate.")
    shown.close()
    said = shown.stream.getvalue()
    assert "50 %" in said
    assert "1 min 1 s left" in said
    assert "Half the rate." in said


def test_the_first_interrupt_waits_and_the_second_does_not():
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_first_interrupt_of_the_command_waits_too(monkeypatch):
    monkeypatch.setattr(interrupts, "struck", [])
    before = signal.signal(signal.SIGINT, interrupts.strike)
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGINT)
            assert interrupt.asked
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is interrupts.strike
    finally:
        signal.signal(signal.SIGINT, before)


def test_events_are_never_written_through_a_link(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / "metrics.jsonl").symlink_to(mine)
    with pytest.raises(UnsafePathError, match="is a link"):
        JsonLines(tmp_path / "metrics.jsonl")({"event": "start"})
    assert mine.read_text() == "mine"
