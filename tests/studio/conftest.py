"""A small atlas, and the studio over a copy of it on a real port."""

from __future__ import annotations

import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image
from skimage import data

import imatlas as ia
from imatlas.studio.learning import Learning, Opening
from imatlas.studio.security import Guard, hosts_of
from imatlas.studio.server import create_app, reopening
from imatlas.studio.serving import listening_on


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty parts of two photographs; one is there twice."""
    folder = tmp_path_factory.mktemp("studio") / "photos"
    folder.mkdir()
    rng, whole = np.random.default_rng(0), (data.chelsea(), data.coffee())
    for i in range(60):
        top, left = rng.integers(0, 200, 2)
        Image.fromarray(whole[i % 2][top : top + 96, left : left + 90]).save(folder / f"{i:02d}.png")
    shutil.copy(folder / "04.png", folder / "59.png")
    return folder


@pytest.fixture(scope="session")
def learned(folder: Path) -> Path:
    atlas = folder.with_name("photos.atlas")
    ia.learn(folder, atlas, progress=False, budget="25s", image_size=32)
    return atlas


@dataclass
class Studio:
    """A running studio."""

    address: str
    folder: Path

    def ask(
        self, path: str, body: Any = None, *, method: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, content and headers of the answer."""
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        kind = {} if body is None else {"content-type": "application/json"}
        asked = urllib.request.Request(self.address + path, content, {**kind, **(headers or {})}, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)

    def json(self, path: str, body: Any = None, **options: Any) -> Any:
        """The content of an answer without an error."""
        status, content, _ = self.ask(path, body, **options)
        assert status == 200, content
        return json.loads(content)


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[int], Any]], str]]:
    """Starts the servers of apps that are made for a port, and returns their addresses."""
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    def serve(made: Callable[[int], Any]) -> str:
        listening = listening_on("127.0.0.1", 0)
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(made(port), log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{port}"

    yield serve
    for server, thread in servers:
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def opened(learned: Path, tmp_path: Path, serve: Callable[..., str]) -> Callable[..., Studio]:
    """Opens studios over a copy of the atlas."""

    def open_studio(copy: Path | None = None, **options: Any) -> Studio:
        number = sum(1 for _ in tmp_path.glob("photos*.atlas"))
        atlas = copy or Path(shutil.copytree(learned, tmp_path / f"photos{number}.atlas"))
        address = serve(lambda port: create_app(ia.Atlas(atlas), hosts=hosts_of("127.0.0.1", port), **options))
        return Studio(address, atlas)

    return open_studio


@pytest.fixture
def studio(opened: Callable[..., Studio]) -> Studio:
    return opened()


@pytest.fixture
def open_folder(folder: Path, tmp_path: Path, serve: Callable[..., str]) -> Callable[..., Studio]:
    """Opens the studio of a folder whose atlas is to be made, or to be finished."""

    def open_studio(images: Path = folder, **options: Any) -> Studio:
        atlas = tmp_path / "new.atlas"
        app = Opening(Learning(str(images), atlas, **options), lambda atlas: reopening(ia.Atlas(atlas)))
        return Studio(serve(lambda port: Guard(app, hosts_of("127.0.0.1", port))), atlas)

    return open_studio


@pytest.fixture
def opening(open_folder: Callable[..., Studio]) -> Studio:
    return open_folder()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from tests.studio import browsing

    with browsing.api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browsing.CHROMIUM, args=browsing.SOFTWARE)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens an address in a window of its own; whatever the page complains about fails the test."""
    from tests.studio.browsing import PATIENCE

    complaints: list[str] = []
    contexts = []

    def open_page(address: str, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture
def visit(open_page: Callable[..., Any]) -> Callable[..., Any]:
    """Opens a view of a studio."""
    from tests.studio.browsing import LOADED

    def visit(studio: Studio, view: str = "map", **options: Any) -> Any:
        page = open_page(f"{studio.address}/#{view}", **options)
        page.wait_for_function("() => document.body.dataset.ready")
        if view.startswith("map"):
            page.wait_for_function(LOADED)
        return page

    return visit
