"""`imatlas studio`: it prints its address, answers, and ends when it is interrupted."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from imatlas.cli import main


@pytest.mark.parametrize("options", [[], ["--host", "0.0.0.0"]])
def test_the_command_serves_until_it_is_interrupted(learned: Path, options: list[str]) -> None:
    command = [sys.executable, "-m", "imatlas", "studio", str(learned), "--no-browser", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, process.stderr.read() if process.stderr else ""
        assert ("token=" in found[0]) == bool(options)
        asked = found[0].replace("/?", "/api/atlas?") if options else f"{found[0]}api/atlas"
        with urllib.request.urlopen(asked.replace("0.0.0.0", "127.0.0.1"), timeout=60) as answer:
            assert json.loads(answer.read())["n_images"] == 60
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_what_cannot_be_served_is_told_in_one_line(
    learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["studio", str(tmp_path / "none.atlas")]) == 1
    assert main(["studio", str(learned), "--host", "256.1.1.1", "--no-browser"]) == 1
    assert "cannot listen" in capsys.readouterr().err
