"""The clock of a training run."""

from __future__ import annotations

import time

from imatlas.system import processes


class Clock:
    """Seconds of training, the same in each process: those of process 0, of which the others hear now and then."""

    def __init__(self) -> None:
        self.start(0.0)

    def start(self, seconds: float) -> None:
        """Set the clock; `seconds` are those of the run that is resumed."""
        self._begin, self._heard = time.monotonic() - seconds, seconds

    def here(self) -> float:
        """The time in process 0 and 0 in all others, so that the sum over the processes is what to `hear`."""
        return time.monotonic() - self._begin if processes.is_first() else 0.0

    def hear(self, seconds: float) -> None:
        """Take over the time of process 0."""
        self._heard = seconds

    def read(self) -> float:
        """The seconds so far."""
        return self.here() if processes.count() == 1 else self._heard
