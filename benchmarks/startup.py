"""Response time of the command line: `python -m benchmarks startup [--atlas photos.atlas]`."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imatlas as ia
from benchmarks._table import save_table

RUNS = 11
CASES = {
    "imatlas --help": ["--help"],
    "usage error (no argument)": ["learn"],
    "usage error (unknown command)": ["nosuch"],
    "imatlas learn --help": ["learn", "--help"],
    "imatlas fit --help": ["fit", "--help"],
}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks startup")
    parser.add_argument("--atlas", type=Path, help="an atlas, to measure commands on it as well")
    atlas = parser.parse_args(argv).atlas
    rows = [_row(name, arguments, RUNS, 0.5) for name, arguments in CASES.items()]
    if atlas is not None:
        opened = ia.load(atlas)
        size = f"{len(opened):,} images, {opened.store.spec.width} px"
        with tempfile.TemporaryDirectory() as scratch:
            new = ["-n", "64", "-o", f"{scratch}/new.png", "--overwrite"]
            rows.append(_row(f"imatlas sample ATLAS -n 64 ({size})", ["sample", str(atlas), *new], 5, 8.0))
        rows.append(_row(f"imatlas search ATLAS KEY ({size})", ["search", str(atlas), str(opened.keys[0])], 5, None))
    save_table(
        "startup",
        "Response time of the command line",
        ["command", "median s", "min s", "max s", "runs", "target"],
        rows,
        ["Whole processes including interpreter start, after one warm-up run."],
    )


def _row(name: str, arguments: list[str], runs: int, most: float | None) -> list[object]:
    seconds = [_once(arguments) for _ in range(runs + 1)][1:]
    target = "" if most is None else f"under {most:g} s: {'yes' if max(seconds) < most else 'no'}"
    return [name, statistics.median(seconds), min(seconds), max(seconds), runs, target]


def _once(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "imatlas", *arguments], capture_output=True, check=arguments[0] in ("sample", "search")
    )
    return time.perf_counter() - began
