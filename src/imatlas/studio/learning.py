"""The studio of a folder that has no atlas yet: what is in it, learning with live progress, then the studio."""

# no postponed annotations: FastAPI evaluates those of the functions below

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Request
from fastapi import Path as InPath
from fastapi.responses import Response
from pydantic import Field

from imatlas.atlas.learn import estimate
from imatlas.errors import ImatlasError, InputError
from imatlas.images.dataset import Images
from imatlas.images.sources.shards import TABLES
from imatlas.studio.pages import followed, serve_pages
from imatlas.studio.reopening import Reopening
from imatlas.studio.requests import Body
from imatlas.studio.security import App, Scope
from imatlas.studio.so_far import SoFar
from imatlas.system.atomic_io import is_link
from imatlas.tasks.check import check
from imatlas.tasks.quality_flags import THUMBNAIL

MOST_LINES, MOST_SKIPPED = 200, 50
CACHE = "cache"
"""Of an atlas: where images that are decoded once are kept."""
OPTIONS = {
    "budget": "--budget", "clusters": "--clusters", "encoder": "--encoder", "image_size": "--image-size",
    "fit": "--fit", "frames": "--frames", "video": "--video", "field": "--field",
    "random_state": "--seed", "device": "--device",
}  # fmt: skip
"""Settings of an atlas, as `imatlas learn` takes them."""
FIELD, OF_COMMANDS = "(--field)", re.compile(r" \(--[a-z-]+\)")
"""How messages name options of commands, which the page has as fields of its form."""


class Wish(Body):
    """How to learn."""

    budget: Annotated[str, Field(pattern=r"^\d{1,4}[smh]$")] | None = None
    encoder: Literal["auto", "pretrained", "own"] = "auto"
    fit: Literal["crop", "pad", "stretch"] | None = None
    field: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    atlas: Annotated[str, Field(min_length=1, max_length=4096)] | None = None


class Learning:
    """`imatlas learn` in a process of its own, whose lines pages follow; stopped, it is continued by the next start.

    Parameters
    ----------
    source : str
        The folder of images.
    atlas : Path
        The atlas to be made.
    may_choose : bool
        Whether the page may name another place for it.
    read_only : bool
        Refuse to learn.
    """

    def __init__(self, source: str, atlas: Path, *, may_choose: bool = False, read_only: bool = False) -> None:
        self.may_choose, self.read_only = may_choose and not read_only, read_only
        self.source, self.atlas = os.path.abspath(source), Path(os.path.abspath(atlas))
        self.so_far = SoFar(self.atlas)
        self.state: Literal["new", "learning", "failed", "stopped", "done"] = "stopped" if self._settings() else "new"
        self.lines: list[str] = []
        self.sentences: list[str] | None = None
        self.asks_field = Path(source).suffix.lower() in TABLES
        self.skipped: list[tuple[str, str]] = []
        self.began = 0.0
        self._process: subprocess.Popen[str] | None = None
        self._stopping = False
        self._lock = threading.Lock()
        self._decoded: tempfile.TemporaryDirectory[str] | None = None

    def _settings(self) -> dict[str, Any]:
        """What an unfinished atlas was begun with; empty if nothing was learned yet."""
        manifest = self.so_far.manifest
        return manifest.settings if manifest is not None and manifest.stages else {}

    def look(self) -> None:
        """Check the images. What is decoded is handed to the learning."""
        aside = tempfile.TemporaryDirectory(prefix="imatlas-", ignore_cleanup_errors=True)
        place = self.atlas / CACHE if self._settings() else Path(aside.name, CACHE)
        try:
            images = Images(self.source, thumbnail_size=THUMBNAIL, cache_dir=place)
            sentences = check(images, estimate=estimate(images)).sentences
            self.skipped = images.skipped
        except ImatlasError as error:
            sentences = [str(error)]
            self.asks_field |= FIELD in str(error)
        self._decoded, self.sentences = aside, [OF_COMMANDS.sub("", sentence) for sentence in sentences]

    def _hand_over(self) -> None:
        """Move what `look` has decoded to where the learning looks for it, if the atlas is new."""
        aside, self._decoded = self._decoded, None
        if aside is None:
            return
        if not self.atlas.exists() and Path(aside.name, CACHE).is_dir():
            with contextlib.suppress(OSError):  # it is decoded again
                self.atlas.mkdir(parents=True)
                shutil.move(Path(aside.name, CACHE), self.atlas / CACHE)
        aside.cleanup()

    def _write_to(self, place: str) -> None:
        """Learn into a folder that the person at this machine has typed; a bare name lies beside the images.

        Raises
        ------
        InputError
            If the page may name none, or it is not a new or empty folder in one that exists.
        """
        typed = Path(place.strip()).expanduser()
        folder = Path(os.path.abspath(Path(self.source).parent / typed))
        if folder == self.atlas:
            return
        if not self.may_choose:
            raise InputError("Where the atlas is written is chosen by 'imatlas studio FOLDER -o ATLAS' here.")
        if "\0" in place or not folder.parent.is_dir():
            raise InputError(f"There is no folder '{folder.parent}'; make it first, or choose another place.")
        if is_link(folder) or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
            raise InputError(f"'{folder}' exists and is not an empty folder; choose another name.")
        if folder.is_relative_to(self.source):
            raise InputError(f"'{folder}' lies among the images; choose a place beside them.")
        self.atlas, self.so_far = folder, SoFar(folder)

    def start(self, wish: Wish) -> None:
        """Begin; or go on, with the settings that it was begun with.

        Raises
        ------
        InputError
            If it is running, or the atlas cannot be written where that was asked for.
        """
        with self._lock:
            if self.state in ("learning", "done"):
                raise InputError("This folder is being learned.")
            asked = self._settings() or wish.model_dump()
            if wish.atlas is not None and not self._settings():
                self._write_to(wish.atlas)
            options = [
                f"{OPTIONS[name]}={value}" for name, value in asked.items() if name in OPTIONS and value is not None
            ]
            command = [sys.executable, "-m", "imatlas", "learn", self.source, "-o", str(self.atlas), *options]
            self._hand_over()
            self.lines, self.state, self.began, self._stopping = [], "learning", time.time(), False
            with _stops_held_back():
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
        threading.Thread(target=self._follow, args=(self._process,), daemon=True, name="imatlas-learning").start()

    def stop(self) -> None:
        """End it as Ctrl-C does: what is finished stays."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._stopping = True
                self._process.send_signal(signal.SIGINT)

    def _follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process:
            for line in process.stdout:
                self.lines = [*self.lines[-MOST_LINES:], line.rstrip()]
        code = process.returncode
        # a process that is stopped while it imports may end without a word of its own
        stopped = self._stopping or any(line.startswith("Stopped.") for line in self.lines[-3:])
        self.state = "done" if code == 0 else "stopped" if stopped else "failed"

    def event(self) -> dict[str, Any]:
        """As pages are told."""
        settings = self._settings()
        return {
            "name": Path(self.source).name,
            "source": self.source,
            "atlas": str(self.atlas),
            "may_choose": self.may_choose,
            "read_only": self.read_only,
            "asks_field": self.asks_field,
            "state": self.state,
            "check": self.sentences,
            "skipped": self.skipped[:MOST_SKIPPED],
            "n_skipped": len(self.skipped),
            "settings": {name: settings.get(name) for name in ("budget", "encoder")} if settings else None,
            "lines": self.lines,
            "seconds": round(time.time() - self.began) if self.state == "learning" else 0,
            **self.so_far.event(learning=self.state == "learning"),
        }


@contextlib.contextmanager
def _stops_held_back() -> Iterator[None]:
    """A process that is begun here gets Ctrl-C only when `imatlas` handles it; one while Python starts can be lost."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def learning_api(learning: Learning) -> FastAPI:
    """The page of a folder without an atlas."""
    api = FastAPI(title="imatlas studio", docs_url=None, redoc_url=None)
    serve_pages(api, "learn.html")

    @api.get("/api/folder/events", response_class=Response)
    async def events(request: Request) -> Response:
        return followed(request, learning.event)

    @api.get("/api/folder/map", response_class=Response)
    def get_map() -> Response:
        return _fresh(learning.so_far.map_picture(), "There is no map yet.")

    @api.get("/api/folder/samples/{number}", response_class=Response)
    def get_samples(number: Annotated[int, InPath(ge=0, lt=10**9)]) -> Response:
        return _fresh(learning.so_far.samples(number), "These images are not kept any more.")

    @api.post("/api/learn")
    def learn(wish: Wish) -> dict[str, Any]:
        if learning.read_only:
            raise HTTPException(403, "The studio was opened with --read-only.")
        learning.start(wish)
        return learning.event()

    @api.post("/api/stop")
    def stop() -> dict[str, Any]:
        learning.stop()
        return learning.event()

    return api


def _fresh(content: bytes | None, missing: str) -> Response:
    """A picture that may be another one next time."""
    if content is None:
        raise HTTPException(404, missing)
    return Response(content, media_type="image/webp", headers={"cache-control": "no-store"})


class Opening:
    """An ASGI application that is the page of a folder until its atlas is learned, then the studio of that.

    Parameters
    ----------
    learning : Learning
    studio : callable
        Makes the studio of the atlas that was learned, once.
    """

    def __init__(self, learning: Learning, studio: Callable[[Path], Reopening]) -> None:
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
                    made = await asyncio.to_thread(self._make, self.learning.atlas)
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
