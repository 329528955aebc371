"""Which frames of a video are used: one of each shot, or one every few seconds.

Cuts are found by the sliding window of Yeo and Liu ("Rapid scene analysis on compressed video", 1995): a frame begins
a shot if it differs from the frame before it more than all frames around it do, and several times as much as the second
most different of them. So a pan, which differs everywhere, and a flash, which differs twice, are no cuts. The
difference is the mean of a color histogram's and of the pixels', which err in different ways (Boreczky and Rowe,
"Comparison of video shot boundary detection techniques", 1996). We add that the change must last until the end of the
window, for flashes that fade, and that nearly uniform frames (Lienhart, "Comparison of automatic shot boundary
detection algorithms", 1999) end a shot, for fades. A cross-fade is no cut.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from imatlas.arguments import refused
from imatlas.images.pixels import LUMA

CUTS = "cuts"
"""The setting `video` that takes one frame of each shot."""

LONG = 5.0
"""Seconds after which another frame of the same shot is taken."""

REACH = 0.4
"""Seconds of the window on either side of a frame, and so the shortest shot that is found."""

MIN_REACH = 4
"""Frames of the window on either side, however few there are in a second."""

RATIO = 2.0
"""How many times the second largest difference of the window the one of a cut must be."""

FLOOR = 0.08
"""Smallest difference of a cut, between 0 and 1: below it lie noise and compression."""

LASTING = 0.5
"""Share of the difference of a cut that must remain at the end of the window."""

UNIFORM = 2.0
"""Standard deviation of the luma, of 255 levels, below which a frame is uniform."""

SMALL = (36, 64)
"""Height and width of the frames that are compared."""

STEPS = (0.04, 86400.0)
"""Shortest and longest time between two frames, in seconds."""

_SAME = 1e-6
"""Difference in seconds of two times that are the same."""

_TIME = re.compile(r"\s*(\d{1,6}(?:\.\d{1,6})?)\s*(ms|s|m|h|)\s*")
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


def checked_video(value: Any, owner: str) -> str:
    """The setting `video` in its one spelling: "cuts", or seconds as in "2s".

    Raises
    ------
    ParameterError
        If it is neither "cuts" nor a time within `STEPS`.

    Examples
    --------
    >>> checked_video("500ms", "Images"), checked_video(2, "Images")
    ('0.5s', '2s')
    """
    if isinstance(value, str) and value.strip().lower() == CUTS:
        return CUTS
    seconds = math.nan
    if isinstance(value, str) and (found := _TIME.fullmatch(value.lower())):
        seconds = float(found[1]) * _UNITS[found[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    if not STEPS[0] <= seconds <= STEPS[1]:
        must = f"'{CUTS}', or the time between two frames as in '2s' (0.04 s to 24 h)"
        raise refused("video", owner, must, value)
    return f"{seconds:.10g}s"


class Sampler(Protocol):
    """Decides frame by frame which ones are used."""

    def add(self, time: float, small: Callable[[], np.ndarray]) -> bool:
        """Whether the next frame is used: its time in seconds, and how to get it as `SMALL` RGB uint8."""

    def finish(self) -> bool:
        """Whether the last frame is used after all."""


def sampler_of(video: str, rate: float) -> Sampler:
    """The sampler of a setting as `checked_video` returns it, for `rate` frames per second."""
    return Shots(rate) if video == CUTS else Steps(float(video.removesuffix("s")))


@dataclass
class Steps:
    """The first frame at or after 0, `step`, 2 `step`, ... seconds."""

    step: float
    _due: float = 0.0

    def add(self, time: float, small: Callable[[], np.ndarray]) -> bool:
        """Whether the next frame is used."""
        if time < self._due - _SAME:
            return False
        # Half a step apart at least, where a frame lasts longer than a step.
        self._due = max((math.floor((time + _SAME) / self.step) + 1) * self.step, time + self.step / 2)
        return True

    def finish(self) -> bool:
        """The last frame is not special."""
        return False


@dataclass
class _Frame:
    """What is known of a frame while it is in the window."""

    time: float
    pixels: np.ndarray
    histogram: np.ndarray
    is_uniform: bool
    difference: float = 0.0


@dataclass
class Shots:
    """One frame of each shot, where the window behind its cut ends, and more of shots longer than `LONG`.

    Parameters
    ----------
    rate : float
        Frames per second.

    Attributes
    ----------
    cuts : list of float
        The times, in seconds, at which shots begin, without the first.
    """

    rate: float
    cuts: list[float] = field(default_factory=list)
    _due: float = 0.0
    _kept: bool = False
    _kept_last: bool = False
    _seen: bool = False

    def __post_init__(self) -> None:
        self.rate = self.rate if 0.1 <= self.rate <= 1000 else 25.0
        self._reach = max(MIN_REACH, round(REACH * self.rate))
        self._window: deque[_Frame] = deque(maxlen=2 * self._reach)
        self._due = (self._reach - 1) / self.rate

    def add(self, time: float, small: Callable[[], np.ndarray]) -> bool:
        """Whether the next frame is used."""
        frame = _described(time, small())
        window = self._window
        if window:
            frame.difference = _difference(window[-1], frame)
        window.append(frame)
        if frame.is_uniform:
            self._due = time + self._reach / self.rate
            return self._used(False)
        if self._seen and len(window) > 1 and window[-2].is_uniform:
            self.cuts.append(time)
        self._seen = True
        # The window of the frame `reach - 1` back is complete now: nothing after this frame can change the answer.
        begins = len(window) >= self._reach + 1 and self._begins_shot(len(window) - self._reach)
        return self._used(begins or time >= self._due - _SAME)

    @property
    def last_difference(self) -> float:
        """The difference of the last two frames, 0 to 1."""
        return self._window[-1].difference if self._window else 0.0

    def finish(self) -> bool:
        """Whether the last frame is used: of a shot that began just before the end, or of a video that has no other."""
        n = len(self._window)
        begins = [self._begins_shot(place) for place in range(max(1, n - self._reach + 1), n)]
        if not n or self._kept_last:
            return False
        return any(begins) or not self._kept

    def _used(self, answer: bool) -> bool:
        if answer:
            self._kept = True
            self._due = self._window[-1].time + LONG
        self._kept_last = answer
        return answer

    def _begins_shot(self, place: int) -> bool:
        """Whether the frame at a place of the window begins a shot; its time is added to `cuts`."""
        window = list(self._window)
        frame, before = window[place], window[place - 1]
        if frame.difference < FLOOR or frame.is_uniform or before.is_uniform:
            return False
        around = window[max(1, place - self._reach + 1) : place] + window[place + 1 : place + self._reach]
        second = max((other.difference for other in around), default=0.0)
        if frame.difference < RATIO * second or _difference(before, window[-1]) < LASTING * frame.difference:
            return False
        self.cuts.append(frame.time)
        return True


def _described(time: float, small: np.ndarray) -> _Frame:
    """A small RGB frame with its histogram of 4 x 4 x 4 colors, which sums to 1."""
    codes = small >> 6
    colors = codes[..., 0].astype(np.intp) * 16 + codes[..., 1] * 4 + codes[..., 2]
    histogram = np.bincount(colors.ravel(), minlength=64) / colors.size
    luma = small @ LUMA
    return _Frame(time, luma.astype(np.float32), histogram, bool(luma.std() < UNIFORM))


def _difference(one: _Frame, other: _Frame) -> float:
    """0 to 1: the mean of the distances of two frames by color histogram and by luma."""
    colors = float(np.abs(one.histogram - other.histogram).sum()) / 2
    luma = float(np.abs(one.pixels - other.pixels).mean()) / 128
    return (colors + min(1.0, luma)) / 2
