"""The studio of a folder that has no atlas: it is checked, learned, stopped, gone on with, and becomes the studio."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

import imatlas as ia
from imatlas.cli import main
from imatlas.studio.learning import Learning, Opening
from imatlas.studio.security import Guard, hosts_of
from imatlas.studio.server import reopening
from imatlas.studio.serving import listening_on
from tests.studio.conftest import Studio


@pytest.fixture
def opening(folder: Path, tmp_path: Path) -> Iterator[Studio]:
    """The studio of a folder whose atlas is to be made."""
    atlas, listening = tmp_path / "new.atlas", listening_on("127.0.0.1", 0)
    port = listening.getsockname()[1]
    app = Opening(Learning(str(folder), atlas), lambda: reopening(ia.Atlas(atlas)))
    server = uvicorn.Server(uvicorn.Config(Guard(app, hosts_of("127.0.0.1", port)), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield Studio(f"http://127.0.0.1:{port}", atlas)
    server.should_exit = True
    server.force_exit = True
    thread.join(20)


def until(studio: Studio, wanted: Callable[[dict[str, Any]], bool], seconds: float = 300) -> dict[str, Any]:
    """The first event that is as wanted."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        event = first_event(studio)
        if wanted(event):
            return event
        time.sleep(0.3)
    raise AssertionError(event)


def first_event(studio: Studio) -> dict[str, Any]:
    with urllib.request.urlopen(studio.address + "/api/folder/events", timeout=60) as answer:
        found: dict[str, Any] = json.loads(answer.readline().removeprefix(b"data: "))
        return found


def test_a_folder_is_checked_learned_stopped_and_becomes_the_studio(opening: Studio) -> None:
    assert b"A folder without an atlas" in opening.ask("/")[1]
    event = until(opening, lambda event: event["check"] is not None)
    assert event["check"][0].startswith("60 images")
    assert event["state"] == "new"
    assert opening.ask("/api/learn", {"budget": "1; rm -rf /"})[0] == 422
    assert opening.json("/api/learn", {"budget": "30s", "encoder": "own"})["state"] == "learning"
    assert opening.ask("/api/learn", {})[0] == 400
    until(opening, lambda event: any(line.startswith("1/7") for line in event["lines"]))
    opening.json("/api/stop", {})
    assert until(opening, lambda event: event["state"] != "learning")["state"] == "stopped"
    opening.json("/api/learn", {"budget": "30s", "encoder": "own"})
    end = time.monotonic() + 300
    while opening.ask("/api/atlas")[0] != 200 and time.monotonic() < end:
        time.sleep(0.5)
    assert opening.json("/api/atlas")["n_images"] == 60
    assert b"Map" in opening.ask("/")[1]


def test_what_fails_is_told_by_its_last_lines(opening: Studio) -> None:
    opening.folder.mkdir()
    (opening.folder / "mine.txt").write_text("mine")
    opening.json("/api/learn", {})
    event = until(opening, lambda event: event["state"] != "learning")
    assert event["state"] == "failed"
    assert any("mine.txt" in line or "not empty" in line or "exists" in line for line in event["lines"])
    assert (opening.folder / "mine.txt").read_text() == "mine"


def test_neither_an_atlas_nor_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studio", str(tmp_path / "nothing"), "--no-browser", "--port", "0"]) == 1
    assert "no atlas" in capsys.readouterr().err
