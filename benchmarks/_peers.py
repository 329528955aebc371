"""Runs of peer libraries, each in an environment of its own: benchmarks/.envs/NAME, made with `python -m venv` and the
requirements in benchmarks/peers/."""

from __future__ import annotations

import json
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PEERS = HERE / "peers"
OWN = "imatlas"
"""Name of the environment that runs the benchmarks themselves."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def python_of(environment: str) -> Path:
    """The interpreter of an environment; it exists only if the environment is installed."""
    return Path(sys.executable) if environment == OWN else HERE / ".envs" / environment / "bin" / "python"


def env_command(environment: str, n_threads: int = 1) -> list[str]:
    """The start of a command that runs that interpreter with `n_threads` threads; only `OWN` imports this checkout."""
    limits = [f"{name}={n_threads}" for name in THREADS]
    source = HERE.parent / "src" if environment == OWN else ""
    return ["env", f"PYTHONPATH={source}", *limits, str(python_of(environment))]


def last_json(output: str) -> dict[str, Any]:
    """The last line of an output that is a JSON object."""
    return json.loads(next(line for line in reversed(output.splitlines()) if line.startswith("{")))


ONE_CORE = ("taskset", "-c", "0") if Path("/usr/bin/taskset").exists() else ()
"""Prefix of a command that pins it to one core, where the system can."""


def add_prefix_option(parser: ArgumentParser, default: Sequence[str] = ONE_CORE) -> None:
    """Add `--prefix`, which is parsed to a list of words."""
    text = "command that each run goes through, such as 'taskset -c 1'"
    parser.add_argument("--prefix", type=shlex.split, default=list(default), help=text)
