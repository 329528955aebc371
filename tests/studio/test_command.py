"""`imatlas studio`: it prints its address, answers, and ends when it is interrupted."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

import imatlas as ia
from imatlas.atlas.decisions import Decisions
from imatlas.cli import main
from tests.studio.conftest import Studio


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


def test_nothing_that_was_answered_is_lost_when_the_server_is_killed(learned: Path, tmp_path: Path) -> None:
    atlas = Path(shutil.copytree(learned, tmp_path / "photos.atlas"))
    command = [sys.executable, "-m", "imatlas", "studio", str(atlas), "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        studio = Studio(process.stdout.readline().split()[-1].rstrip("/"), atlas)
        studio.json("/api/atlas")
        answered: dict[int, str] = {}

        def decide(first: int) -> None:
            with contextlib.suppress(OSError, AssertionError):
                for n in itertools.count():
                    label = f"label {n} of {first}"
                    studio.json("/api/decisions", {"kind": "label", "rows": [first], "value": label})
                    answered[first] = label

        threads = [threading.Thread(target=decide, args=(row,)) for row in range(4)]
        for thread in threads:
            thread.start()
        while len(answered) < 4:
            time.sleep(0.05)
        process.kill()
        for thread in threads:
            thread.join()
    keys, labels = ia.Atlas(atlas).keys, Decisions(atlas).state.labels
    for row, label in answered.items():
        last = int(labels[keys[row]].split()[1])
        assert last - int(label.split()[1]) in (0, 1)  # one more may have been written, and not answered


def test_what_cannot_be_served_is_told_in_one_line(
    learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["studio", str(tmp_path / "none.atlas")]) == 1
    assert main(["studio", str(learned), "--host", "256.1.1.1", "--no-browser"]) == 1
    assert "cannot listen" in capsys.readouterr().err
