"""Run a command and measure the memory of its process tree."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """Wall seconds, summed PSS of all processes in MB, and the output of a command.

    Attributes
    ----------
    samples : list of (float, float)
        Unix time and MB.
    """

    seconds: float
    samples: list[tuple[float, float]]
    output: str

    @property
    def peak_mb(self) -> float:
        """The largest sample."""
        return max(mb for _, mb in self.samples)


def run_measured(command: Sequence[str], *, every: float = 0.2, cwd: str | Path | None = None) -> Run:
    """Run `command`, sampling the proportional set size (PSS) of its process tree every `every` seconds.

    Raises
    ------
    RuntimeError
        If the command fails; the message holds its output.
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd)
    samples, lines = list[tuple[float, float]](), list[str]()
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
    reader.start()
    while process.poll() is None:
        samples.append((time.time(), sum(pss_mb(pid) for pid in tree(process.pid))))
        time.sleep(every)
    reader.join()
    seconds = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with {process.returncode}:\n{''.join(lines)}")
    return Run(seconds, samples, "".join(lines))


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    pids = [pid]
    for parent in pids:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                pids += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return pids


def pss_mb(pid: int) -> float:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0
