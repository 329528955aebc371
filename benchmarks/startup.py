"""How soon the command line answers: `python -m benchmarks startup [--atlas photos.atlas]`."""

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
    "usage error (unknown verb)": ["nosuch"],
    "imatlas learn --help": ["learn", "--help"],
    "imatlas fit --help": ["fit", "--help"],
}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks startup")
    parser.add_argument("--atlas", type=Path, help="an atlas that 'imatlas learn' made: how soon its verbs answer too")
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
        "Seconds until the command line answers",
        ["command", "median s", "min s", "max s", "runs", "asked for"],
        rows,
        ["Whole processes with the interpreter's start, after one warm-up."],
    )


def _row(name: str, arguments: list[str], runs: int, most: float | None) -> list[object]:
    seconds = [_once(arguments) for _ in range(runs + 1)][1:]
    asked = "" if most is None else f"under {most:g} s: {'yes' if max(seconds) < most else 'no'}"
    return [name, statistics.median(seconds), min(seconds), max(seconds), runs, asked]


def _once(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "imatlas", *arguments], capture_output=True, check=arguments[0] in ("sample", "search")
    )
    return time.perf_counter() - began
