"""A small sweep of `tools/damage_atlas.py`: every damage ends in the same answer or in one clear line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[1] / "tools" / "damage_atlas.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the tool forks its processes")
def test_forty_damages_to_an_atlas_give_the_same_answer_or_one_clear_line() -> None:
    """In a process of its own: a fork needs one in which no threads have run."""
    command = [sys.executable, str(TOOL), "-n", "40", "--seed", "11", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert lines[-1] == "0 faults"
    counts = json.loads(lines[-2])
    assert counts["same"] > 20  # what was not touched still answers
    assert counts["error"] > 20  # and the damage was noticed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the tool forks its processes")
def test_the_tool_itself_notices_a_different_answer() -> None:
    """With checksums that always agree the same damages are not noticed, and the tool says so."""
    code = (
        "import runpy, sys, imatlas.system.inventory as i; i.Inventory._reason = lambda self, name: '';"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, str(TOOL), "-n", "12", "--seed", "23", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout[-4000:] + done.stderr[-2000:]
    assert "0 faults" not in done.stdout.splitlines()[-1:]
