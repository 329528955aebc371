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
def opened(learned: Path, tmp_path: Path) -> Iterator[Callable[..., Studio]]:
    """Opens studios over a copy of the atlas."""
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    def open_studio(copy: Path | None = None, **options: Any) -> Studio:
        copy = copy or Path(shutil.copytree(learned, tmp_path / f"photos{len(servers)}.atlas"))
        listening = listening_on("127.0.0.1", 0)
        port = listening.getsockname()[1]
        app = create_app(ia.Atlas(copy), hosts=hosts_of("127.0.0.1", port), **options)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        servers.append((server, thread))
        return Studio(f"http://127.0.0.1:{port}", copy)

    yield open_studio
    for server, thread in servers:
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def studio(opened: Callable[..., Studio]) -> Studio:
    return opened()


@pytest.fixture
def open_folder(folder: Path, tmp_path: Path) -> Iterator[Callable[..., Studio]]:
    """Opens the studio of a folder whose atlas is to be made, or to be finished."""
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    def open_studio(images: Path = folder) -> Studio:
        atlas, listening = tmp_path / "new.atlas", listening_on("127.0.0.1", 0)
        port = listening.getsockname()[1]
        app = Opening(Learning(str(images), atlas), lambda: reopening(ia.Atlas(atlas)))
        server = uvicorn.Server(uvicorn.Config(Guard(app, hosts_of("127.0.0.1", port)), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        servers.append((server, thread))
        return Studio(f"http://127.0.0.1:{port}", atlas)

    yield open_studio
    for server, thread in servers:
        server.should_exit = server.force_exit = True
        thread.join(20)


@pytest.fixture
def opening(open_folder: Callable[..., Studio]) -> Studio:
    return open_folder()
