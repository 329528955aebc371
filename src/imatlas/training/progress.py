"""Progress of a run: a bar or plain lines, events for callbacks and files, and Ctrl-C."""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from imatlas.system import processes
from imatlas.system.atomic_io import make_folder, open_append, output_path
from imatlas.system.interrupts import strike
from imatlas.system.terminal import console, finite, say, visible

Event = dict[str, Any]
Callback = Callable[[Event], None]

REDRAW = 0.2
"""Seconds between two redraws of the bar."""

LINE = 10.0
"""Seconds between two lines without a terminal."""


class JsonLines:
    """A callback that appends each event to a file as one line of JSON, flushed at once.

    Parameters
    ----------
    path : path
        The file; created with its folder if missing, otherwise appended to. Writing through a link is refused.

    Examples
    --------
    >>> vae.fit(images, callback=JsonLines("runs/vae/metrics.jsonl"))  # doctest: +SKIP
    """

    def __init__(self, path: str | Path) -> None:
        self.path = output_path(path)
        make_folder(self.path.parent)

    def __call__(self, event: Event) -> None:
        with open_append(self.path) as file:
            file.write((json.dumps(finite(event)) + "\n").encode())


class Progress:
    """Display of one run. `show=False` keeps it silent; the callback receives every event either way."""

    def __init__(self, title: str, *, show: bool = True, callback: Callback | None = None) -> None:
        self.title = title
        self.callback = callback
        self.stream: TextIO | None = sys.stderr if show else None
        self._bar: Any = None
        self._task: Any = None
        self._next = time.monotonic() + (LINE if self.stream and not self.stream.isatty() else 0.0)

    def event(self, kind: str, message: str = "", **values: Any) -> None:
        """Send an event to the callback, and print its message, if any."""
        if message and self.stream:
            self._say(message)
        if self.callback:
            self.callback({"event": kind, **values, **({"message": message} if message else {})})

    def tick(self, done: float, seconds_left: float, text: str) -> None:
        """Show the fraction done (0 to 1) and the time left; cheap enough to call at every step."""
        if not self.stream or time.monotonic() < self._next:
            return
        if self.stream.isatty():
            self._next = time.monotonic() + REDRAW
            self._draw(done, seconds_left, text)
        else:
            self._next = time.monotonic() + LINE
            self._say(f"{100 * done:.0f} %, {duration(seconds_left)} left, {text}")

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, done: float, seconds_left: float, text: str) -> None:
        from rich import progress as rich_progress

        if self._bar is None:
            columns = (
                "{task.description}",
                rich_progress.BarColumn(),
                "{task.percentage:>3.0f} %",
                "{task.fields[text]}",
            )
            self._bar = rich_progress.Progress(
                *columns, console=console(file=self.stream), auto_refresh=False, transient=True
            )
            self._task = self._bar.add_task(visible(self.title), total=1.0, text="")
            self._bar.start()
        self._bar.update(
            self._task, completed=done, text=visible(f"{duration(seconds_left)} left  {text}"), refresh=True
        )

    def _say(self, message: str) -> None:
        line = f"{self.title}: {message}"
        if self._bar is not None:
            self._bar.console.print(visible(line))
        else:
            say(line, stream=self.stream)


class Interrupt:
    """Delays the first Ctrl-C until the end of a step; a second one stops at once.

    Under torchrun a SIGTERM counts as one: torchrun sends it to all processes when it is to end, or one of them has.
    """

    def __init__(self) -> None:
        self.asked = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is not threading.main_thread():
            return self
        if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, strike):
            self._handlers[signal.SIGINT] = signal.signal(signal.SIGINT, self._on_signal)
        if processes.count() > 1 and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            self._handlers[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.asked and number == signal.SIGINT:
            self._handlers[number](number, frame)
        self.asked = True


def duration(seconds: float) -> str:
    """Seconds in words: "8 s", "3 min 20 s", "2 h 5 min"."""
    if not math.isfinite(seconds):
        return "unknown time"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
