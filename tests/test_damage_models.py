"""A small sweep of `tools/damage_models.py`: a damaged model answers as before, or in one clear line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[1] / "tools" / "damage_models.py"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the tool forks its processes")


def test_damages_to_saved_models_give_the_same_answer_or_one_clear_line() -> None:
    models = [part for name in ("kmeans", "vae") for part in ("--model", name)]
    command = [sys.executable, str(TOOL), "-n", "60", "--seed", "3", *models]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert lines[-1] == "0 faults"
    assert json.loads(lines[-2])["error"] > 30


def test_the_tool_notices_what_goes_unnoticed() -> None:
    """Where learned attributes are not held against what is declared, forged ones end in errors of other libraries."""
    without = "imatlas.models.artifact.contradiction = lambda *some, **more: ''"
    code = (
        f"import runpy, sys, imatlas.models.artifact, imatlas.system.inventory; {without};"
        "sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv[0].rpartition('/')[0]);"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, str(TOOL), "-n", "30", "--seed", "3", "--model", "image_clusterer"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout[-4000:] + done.stderr[-2000:]
    assert "faults" in done.stdout
