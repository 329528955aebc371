"""Whatever is asked of the studio, good or bad, is answered in words, and no file outside its atlas is touched.

Requests are made from the OpenAPI documents, so routes that are added are covered. IMATLAS_FUZZ=10000 asks that many.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from PIL import Image

import imatlas as ia
from imatlas.studio.learning import Learning, learning_api
from imatlas.studio.pages import serve_pages
from imatlas.studio.security import Guard, hosts_of
from imatlas.studio.server import create_app
from tests.studio.openapi import Client, Document, Request, Template, texts, written

N = int(os.environ.get("IMATLAS_FUZZ", "500"))
N_DONE, MOST_AWAITED = 2, 12
"""Jobs of each operation that are awaited: until so many are done, at most; others are cancelled."""
MOST_TOLD = 500
"""Texts of answers that are kept, to ask for them."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

TOUCHING = {
    "open": [(0, None)], "os.truncate": [(0, None)], "os.remove": [(0, 1)], "os.rmdir": [(0, 1)], "os.mkdir": [(0, 2)],
    "os.chmod": [(0, 2)], "os.rename": [(0, 2), (1, 3)], "os.link": [(1, 3)], "os.symlink": [(1, 2)],
}  # fmt: skip
"""What Python tells of: events, and the places of their paths and of the open folders that these are relative to."""
OF_TESTS = ("__pycache__", ".hypothesis", ".pytest_cache", f"{tempfile.gettempdir()}/imatlas-")
HOSTS = hosts_of("127.0.0.1", 8420)


class Watch:
    """Which files this process writes, moves or deletes outside of some folders; Python tells of each."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] | None = None
        self.touched: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.allowed is None:
            return
        if event == "open" and not (arguments[2] or 0) & WRITES:
            return
        for i, folder in TOUCHING.get(event, ()):
            if isinstance(arguments[i], str | bytes | os.PathLike):  # else it is an open file
                path = os.path.abspath(os.path.join(self._open(arguments, folder), os.fsdecode(arguments[i])))
                if not self._is_allowed(path):
                    self.touched.append(f"{event} {path}")

    @staticmethod
    def _open(arguments: tuple[Any, ...], folder: int | None) -> str:
        """The open folder that a path is relative to."""
        number = -1 if folder is None else arguments[folder]
        return os.readlink(f"/proc/self/fd/{number}") if number >= 0 else ""

    def _is_allowed(self, path: str) -> bool:
        assert self.allowed is not None
        return path.startswith(self.allowed) or path == "/dev/null" or any(part in path for part in OF_TESTS)


@pytest.fixture(scope="session")
def watch() -> Watch:
    return Watch()


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with things that nobody may touch; temporary files go elsewhere."""
    around = tmp_path / "around"
    (around / "other.atlas").mkdir(parents=True)
    (around / "secret.txt").write_text("secret")
    (around / "other.atlas" / "decisions.jsonl").write_text("mine")
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    return around


def listing(folder: Path, *, without: Path) -> dict[str, str]:
    """The hash of every file below a folder but for those below another."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
        if without not in (path, *path.parents)
    }


class Asked:
    """Asks, and checks each answer."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.document = Document(client.get("/openapi.json").json)
        self.told: dict[str, str] = {}
        self.counts: Counter[int] = Counter()
        self.jobs: Counter[str] = Counter()
        self.awaited: Counter[str] = Counter()
        self.done: Counter[str] = Counter()

    def ask(self, asked: Template) -> None:
        request = written(asked, self.told)
        answer = self.client.ask(request)
        self.counts[answer.status] += 1
        self.done[f"{asked.method} {asked.path}"] += answer.status == 200
        assert 200 <= answer.status < 500, (request, answer)
        assert answer.headers["x-content-type-options"] == "nosniff"
        if answer.status >= 400:
            assert isinstance(answer.json["error"], str), (request, answer)
            assert answer.json["error"], request
            assert "unexpected" not in answer.json["error"], (request, answer)
        self._hear(answer.json, asked.path)
        if answer.status == 200 and isinstance(answer.json, dict) and set(answer.json) == {"job"}:
            self._follow(asked, answer.json["job"])

    def _follow(self, asked: Template, job: str) -> None:
        operation = f"{asked.method} {asked.path}"
        self.awaited[operation] += 1
        if self.jobs[operation] >= N_DONE or self.awaited[operation] > MOST_AWAITED:
            assert self.client.ask(Request("DELETE", f"/api/jobs/{job}")).status == 200
            return
        told = self.client.get(f"/api/jobs/{job}/events", patience=280).content.decode()
        last = json.loads(told.strip().split("\n\n")[-1].removeprefix("data: "))
        assert last["state"] in ("done", "failed"), last
        assert "unexpected" not in (last["error"] or ""), last
        self.jobs[operation] += last["state"] == "done"
        self._hear(last["result"], asked.path)

    def _hear(self, values: Any, path: str) -> None:
        """Keep the texts of an answer, to ask for them."""
        for text in texts(values):
            self.told.pop(text, None)
            self.told[text] = path
        self.told = dict(list(self.told.items())[-MOST_TOLD:])

    def many(self, n: int) -> None:
        """Ask `n` requests, of all operations about as often."""
        operations = self.document.operations
        for i in range(n):
            if i % len(operations) == 0:
                self.document.random.shuffle(operations)
            self.ask(self.document.request(*operations[i % len(operations)]))


@pytest.fixture
def copied(folder: Path, learned: Path, around: Path) -> Path:
    """A copy of the atlas, of a copy of the images."""
    photos, atlas = around / "photos", around / "photos.atlas"
    shutil.copytree(folder, photos)
    shutil.copytree(learned, atlas)
    ia.learn(photos, atlas, moved_from=folder, budget="25s", image_size=32, progress=False)
    return atlas


def test_whatever_is_asked_of_a_studio_is_answered(copied: Path, around: Path, watch: Watch) -> None:
    before = listing(around, without=copied)
    watch.allowed = (str(around / "photos"), str(copied), tempfile.gettempdir())
    try:
        with Client(create_app(ia.Atlas(copied), hosts=HOSTS)) as client:
            asked = Asked(client)
            asked.many(N)
            while client.ask(Request("POST", "/api/duplicates/undo", body=b"{}")).status == 200:
                pass  # brings moved duplicates back
    finally:
        watch.allowed = None
    print(f"{N:,} requests of {len(asked.document.operations)} operations: {dict(sorted(asked.counts.items()))}")
    print(f"Never answered with 200: {[name for name, n_done in asked.done.items() if not n_done]}")
    assert not watch.touched
    assert listing(around, without=copied) == before
    assert (copied / "decisions.jsonl").exists()  # good requests did something
    assert {200, 404, 422} <= set(asked.counts)
    assert ia.Atlas(copied).decisions.state.revision > 0


def test_whatever_is_asked_of_a_folder_is_answered(around: Path, watch: Watch) -> None:
    photos, atlas = around / "photos", around / "new.atlas"
    photos.mkdir()
    for i in range(12):
        Image.new("RGB", (40, 40), (20 * i, 100, 200)).save(photos / f"{i}.png")
    before = listing(around, without=atlas)
    learning = Learning(str(photos), atlas)
    watch.allowed = (str(atlas), tempfile.gettempdir())
    try:
        with Client(Guard(learning_api(learning), HOSTS)) as client:
            asked = Asked(client)
            asked.many(max(50, N // 20))
            learning.stop()
            if learning._process is not None:
                learning._process.wait(120)
    finally:
        watch.allowed = None
    assert not watch.touched
    assert listing(around, without=atlas) == before
    assert {200, 404, 422} <= set(asked.counts)


def test_a_fault_is_found() -> None:
    api = FastAPI()
    serve_pages(api, "index.html")

    @api.get("/api/share/{row}")
    def share(row: int, of: int = 0) -> dict[str, float]:
        return {"share": row / (of - 7)}

    with Client(Guard(api, HOSTS)) as client, pytest.raises(ZeroDivisionError):
        Asked(client).many(2000)


def test_the_watch_hears_of_files_outside(around: Path, watch: Watch) -> None:
    watch.allowed = (str(around / "photos"),)
    try:
        (around / "mine.txt").write_text("x")
        (around / "mine.txt").rename(around / "yours.txt")
    finally:
        watch.allowed, heard = None, list(watch.touched)
        watch.touched.clear()
    assert [line.split()[0] for line in heard] == ["open", "os.rename", "os.rename"]
