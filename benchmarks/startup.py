"""How soon the command line answers: `python -m benchmarks startup`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks._table import save_table

RUNS = 11
CASES = {
    "imatlas --help": ["--help"],
    "usage error (no argument)": ["learn"],
    "usage error (unknown verb)": ["nosuch"],
    "imatlas learn --help": ["learn", "--help"],
    "imatlas fit --help": ["fit", "--help"],
}


def main(argv: list[str]) -> None:
    rows = []
    for name, arguments in CASES.items():
        seconds = [_once(arguments) for _ in range(RUNS + 1)][1:]
        rows.append(
            [name, statistics.median(seconds), min(seconds), max(seconds), "yes" if max(seconds) < 0.5 else "no"]
        )
    save_table(
        "startup",
        "Seconds until the command line answers",
        ["command", "median s", "min s", "max s", "under 0.5 s"],
        rows,
        [f"{RUNS} runs each after one warm-up, whole processes with the interpreter's start."],
    )


def _once(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "imatlas", *arguments], capture_output=True, check=False)
    return time.perf_counter() - began
