"""The studio of a folder that has no atlas yet: what is in it, learning with live progress, then the studio."""

# no postponed annotations: FastAPI evaluates those of the functions below

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from imatlas.atlas.learn import estimate
from imatlas.errors import ImatlasError, InputError
from imatlas.images.dataset import Images
from imatlas.studio.pages import followed, serve_pages
from imatlas.studio.reopening import Reopening
from imatlas.studio.security import App, Scope
from imatlas.tasks.check import check
from imatlas.tasks.quality_flags import THUMBNAIL

MOST_LINES = 500


class Wish(BaseModel):
    """How to learn."""

    model_config = ConfigDict(extra="forbid")

    budget: Annotated[str, Field(pattern=r"^\d{1,4}[smh]$")] | None = None
    encoder: Literal["auto", "own"] = "auto"


class Learning:
    """`imatlas learn` in a process of its own, whose lines pages follow; stopped, it is continued by the next start.

    Parameters
    ----------
    source : str
        The folder of images.
    atlas : Path
        The atlas to be made.
    """

    def __init__(self, source: str, atlas: Path) -> None:
        self.source, self.atlas = os.path.abspath(source), Path(os.path.abspath(atlas))
        self.state: Literal["new", "learning", "failed", "stopped", "done"] = "new"
        self.lines: list[str] = []
        self.sentences: list[str] | None = None
        self.began = 0.0
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def look(self) -> None:
        """Check the images."""
        try:
            images = Images(self.source, thumbnail_size=THUMBNAIL)
            self.sentences = check(images, estimate=estimate(images)).sentences
        except ImatlasError as error:
            self.sentences = [str(error)]

    def start(self, wish: Wish) -> None:
        """Begin, or go on.

        Raises
        ------
        InputError
            If it is running.
        """
        with self._lock:
            if self.state in ("learning", "done"):
                raise InputError("This folder is being learned.")
            command = [sys.executable, "-m", "imatlas", "learn", self.source, "-o", str(self.atlas)]
            command += ["--encoder", wish.encoder, *(["--budget", wish.budget] if wish.budget else [])]
            self.lines, self.state, self.began = [], "learning", time.time()
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        threading.Thread(target=self._follow, args=(self._process,), daemon=True, name="imatlas-learning").start()

    def stop(self) -> None:
        """End it as Ctrl-C does: what is finished stays."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)

    def _follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process:
            for line in process.stdout:
                self.lines = [*self.lines[-MOST_LINES:], line.rstrip()]
        code = process.returncode
        stopped = code != 0 and any(line.startswith("Stopped.") for line in self.lines[-3:])
        self.state = "done" if code == 0 else "stopped" if stopped else "failed"

    def event(self) -> dict[str, Any]:
        """As pages are told."""
        return {
            "name": Path(self.source).name,
            "source": self.source,
            "atlas": str(self.atlas),
            "state": self.state,
            "check": self.sentences,
            "lines": self.lines,
            "seconds": round(time.time() - self.began) if self.state == "learning" else 0,
        }


def learning_api(learning: Learning) -> FastAPI:
    """The page of a folder without an atlas."""
    api = FastAPI(title="imatlas studio", docs_url=None, redoc_url=None)
    serve_pages(api, "learn.html")

    @api.get("/api/folder/events", response_class=Response)
    async def events(request: Request) -> Response:
        return followed(request, learning.event)

    @api.post("/api/learn")
    def learn(wish: Wish) -> dict[str, Any]:
        learning.start(wish)
        return learning.event()

    @api.post("/api/stop")
    def stop() -> dict[str, Any]:
        learning.stop()
        return learning.event()

    return api


class Opening:
    """An ASGI application that is the page of a folder until its atlas is learned, then the studio of that.

    Parameters
    ----------
    learning : Learning
    studio : callable
        Makes the studio, once.
    """

    def __init__(self, learning: Learning, studio: Callable[[], Reopening]) -> None:
        self.learning, self._make = learning, studio
        self._first: App = learning_api(learning)
        self._studio: Reopening | None = None
        self._lock, self._open = asyncio.Lock(), contextlib.AsyncExitStack()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if self.learning.state == "done":
            async with self._lock:
                if self._studio is None:
                    made = await asyncio.to_thread(self._make)
                    await made.open()
                    self._open.push_async_callback(made.close)
                    self._studio = made
            await self._studio(scope, receive, send)
        else:
            await self._first(scope, receive, send)

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        threading.Thread(target=self.learning.look, daemon=True, name="imatlas-check").start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.learning.stop()
        await self._open.aclose()
        await send({"type": "lifespan.shutdown.complete"})
