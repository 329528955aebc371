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
    samples : list of (float, float, float)
        Unix time, MB, and MB without pages of files, which the system takes back when it needs them.
    """

    seconds: float
    samples: list[tuple[float, float, float]]
    output: str

    @property
    def peak_mb(self) -> float:
        """The largest sample."""
        return max(mb for _, mb, _ in self.samples)


def run_measured(command: Sequence[str], *, every: float = 0.2, cwd: str | Path | None = None) -> Run:
    """Run `command`, sampling the proportional set size (PSS) of its process tree every `every` seconds.

    Raises
    ------
    RuntimeError
        If the command fails; the message holds its output.
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd)
    samples, lines = list[tuple[float, float, float]](), list[str]()
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
    reader.start()
    while process.poll() is None:
        whole, own = zip(*(pss_parts(pid) for pid in tree(process.pid)), strict=True)
        samples.append((time.time(), sum(whole), sum(own)))
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
    """Proportional set size of a process in MB."""
    return pss_parts(pid)[0]


def pss_parts(pid: int) -> tuple[float, float]:
    """Proportional set size of a process in MB, and that of its anonymous memory."""
    found = {"Pss": 0.0, "Pss_Anon": 0.0}
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name = line.partition(":")[0]
            if name in found:
                found[name] = int(line.split()[1]) / 1024
    except OSError:
        pass
    return found["Pss"], found["Pss_Anon"]
