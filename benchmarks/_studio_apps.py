"""Applications that show many images on a map: how each is given the same images, and started.

All get the images of `benchmarks.studio`, and what imatlas learned of them: places, clusters, outlier scores, and
embeddings. So no peer has to learn anything first, or to fetch a model.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import imatlas as ia
from benchmarks._data import SCRATCH
from benchmarks._memory import pss_mb
from benchmarks._peers import OWN, PEERS
from benchmarks.studio import atlas_of

PORT = 8439
HERE = Path(__file__).resolve().parents[1]
LONGEST = 120.0
"""Seconds that a server may take until it answers."""

N_NEIGHBORS = 15


@dataclass(frozen=True)
class App:
    """One application.

    Attributes
    ----------
    name : str
        In tables.
    environment : str
        Folder of its virtual environment.
    package : str
        What is installed, as pip names it.
    map : str
        CSS selector of the map on its page.
    command : function of a folder with the images, their number and a port
        What a person types to start it, with programs of its environment.
    prepare : function of that folder and the interpreter, optional
        What must be done once before.
    page : function of the number of images
        Path of its page.
    enter : function of a Playwright page, optional
        What a person must do before the map is shown.
    largest : int
        Number of images above which it is not tried, with `reason`.
    post : tuple of path and body
        A request that changes or reads something, as a form of another site can send it.
    socket : str
        Path of a WebSocket that does so instead.
    file : str
        Path of a request for a file of the disk that is no image; "" if the application has no such request.
    """

    name: str
    environment: str
    package: str
    map: str
    command: Callable[[Path, int, int], list[str]]
    prepare: Callable[[Path, int, Path], None] | None = None
    page: Callable[[int], str] = lambda n: "/"
    enter: Callable[[Any], None] | None = None
    largest: int = 10**9
    reason: str = ""
    post: tuple[str, str] | None = None
    socket: str = ""
    file: str = ""

    def python(self, peers: Path) -> Path:
        """Its interpreter."""
        return Path(sys.executable) if self.environment == OWN else peers / self.environment / "bin" / "python"


def images_of(n: int) -> Path:
    """A folder with n images as files, and tables of what imatlas learned; made on the first call.

    `files.parquet` names the files, `bytes.parquet` holds them, with their nearest neighbors.
    """
    folder = (SCRATCH / "studio" / "peers" / str(n)).resolve()
    if (folder / "bytes.parquet").exists():
        return folder
    atlas: ia.Atlas = ia.load(atlas_of(n))
    given = np.load(SCRATCH / "studio" / f"{n}.npy", mmap_mode="r")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    files = [folder / "images" / f"{row:06d}.png" for row in range(n)]
    for file, image in zip(files, given, strict=True):
        Image.fromarray(image).save(file)
    learned = atlas.table().to_pydict()
    columns = {
        "x": pa.array(atlas.layout[:, 0], pa.float32()),
        "y": pa.array(atlas.layout[:, 1], pa.float32()),
        "cluster": [f"cluster {number}" for number in learned["cluster"]],
        "outlier": pa.array(learned["outlier"], pa.float32()),
    }
    embedding = pa.array(list(atlas.embedding.astype(np.float32)))
    pq.write_table(pa.table({"file": [str(file) for file in files], **columns, "embedding": embedding}),
                   folder / "files.parquet")  # fmt: skip
    distances, ids = atlas.kneighbors(k=N_NEIGHBORS)
    neighbors = [{"ids": row.tolist(), "distances": d.tolist()} for row, d in zip(ids, distances, strict=True)]
    held = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    pq.write_table(pa.table({"image": held, **columns, "neighbors": neighbors}), folder / "bytes.parquet")
    return folder


def prepared(app: App, n: int, peers: Path) -> Path:
    """The folder of n images, and what the application must have done with them before it is started."""
    folder = images_of(n)
    done = folder / f"{app.environment}.done"
    if app.prepare is not None and not done.exists():
        app.prepare(folder, n, app.python(peers))
        done.touch()
    return folder


class Server:
    """An application that runs, and all processes that it started, also those that have left it."""

    def __init__(self, app: App, n: int, peers: Path) -> None:
        folder = prepared(app, n, peers)
        self.mark = f"STUDIO_PEERS={uuid.uuid4()}"
        self.host = f"127.0.0.1:{PORT}"
        self.address = f"http://{self.host}{app.page(n)}"
        program, *words = app.command(folder, n, PORT)
        environment = environment_of(folder, app) | dict([self.mark.split("=")])
        self.log = folder / f"{app.environment}.log"
        began = time.perf_counter()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [str(app.python(peers).parent / program), *words], env=environment, cwd=folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            self._wait(app)
        except RuntimeError:
            self.close()
            raise
        self.seconds = time.perf_counter() - began

    def _wait(self, app: App) -> None:
        end = time.perf_counter() + LONGEST
        while time.perf_counter() < end and self.process.poll() is None:
            with suppress(OSError):
                urllib.request.urlopen(f"http://{self.host}/", timeout=10).close()
                return
            time.sleep(0.05)
        raise RuntimeError(f"{app.name} did not answer; its words are in {self.log}")

    def processes(self) -> list[int]:
        """Numbers of its processes: all that have its mark in their environment."""
        return list(_marked(self.mark))

    def megabytes(self) -> float:
        """Memory of all of them."""
        return sum(pss_mb(pid) for pid in self.processes())

    def close(self) -> None:
        """End all of them."""
        for sign, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            for pid in self.processes():
                with suppress(OSError):
                    os.kill(pid, sign)
            end = time.perf_counter() + patience
            while self.processes() and time.perf_counter() < end:
                self.process.poll()
                time.sleep(0.1)
        self.process.wait(10)


def environment_of(folder: Path, app: App) -> dict[str, str]:
    """Variables for a command of an application; what it writes to a person's folder goes to the folder."""
    home = folder / app.environment if app.environment != OWN else Path.home()
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    kept["PYTHONPATH"] = str(HERE / "src") if app.environment == OWN else ""
    return kept | {"HOME": str(home), "HF_HUB_OFFLINE": "1"}


def _marked(mark: str) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def _run_runner(runner: str, *words: str) -> Callable[[Path, int, Path], None]:
    """Run a file of benchmarks/peers with an application's interpreter, in its folder."""

    def run(folder: Path, n: int, python: Path) -> None:
        app = next(app for app in APPS if app.environment == Path(runner).stem)
        given = [word.format(n=n, folder=folder) for word in words]
        subprocess.run([str(python), str(PEERS / runner), *given], env=environment_of(folder, app), check=True)

    return run


def _pixplot_files(folder: Path, n: int, python: Path) -> None:
    """JPEG copies, since it writes each image again in the same format, 600 pixels high."""
    (folder / "jpeg").mkdir(exist_ok=True)
    for file in sorted((folder / "images").iterdir()):
        Image.open(file).save(folder / "jpeg" / f"{file.stem}.jpg", quality=95)
    _run_runner("studio_pixplot.py", "{folder}/files.parquet", "{folder}/jpeg/*.jpg", "{folder}/pixplot")(
        folder, n, python
    )


def _open_layout(page: Any) -> None:
    page.locator(".MuiPopover-root").get_by_text("Dismiss").click(timeout=1000 * LONGEST)  # An advertisement.
    page.get_by_text("layout", exact=True).click(timeout=1000 * LONGEST)


def _enter_pixplot(page: Any) -> None:
    page.wait_for_selector("#enter-button.active", timeout=1000 * LONGEST).click()


APPS = (
    App(
        "imatlas studio", OWN, "imatlas[studio]", "#map-canvas",
        lambda folder, n, port: ["python", "-m", "imatlas", "studio", str(atlas_of(n)), "--no-browser",
                                 "--port", str(port)],
        post=("/api/search", '{"row": 0, "k": 1}'),
    ),
    App(
        "FiftyOne", "studio_fiftyone", "fiftyone", "canvas[data-engine]",
        lambda folder, n, port: ["python", str(PEERS / "studio_fiftyone.py"), "launch", f"images{n}", str(port)],
        _run_runner("studio_fiftyone.py", "prepare", "{folder}/files.parquet", "images{n}"),
        lambda n: f"/datasets/images{n}",
        _open_layout,
        post=("/operators/resolve-placements", "{}"),
        file="/media?filepath=/etc/hostname",
    ),
    App(
        "Embedding Atlas", "studio_embedding_atlas", "embedding-atlas", "canvas",
        lambda folder, n, port: ["embedding-atlas", str(folder / "bytes.parquet"), "--image", "image", "--x", "x",
                                 "--y", "y", "--neighbors", "neighbors", "--disable-projection",
                                 "--port", str(port), "--no-auto-port"],
        post=("/data/query", '{"type": "json", "sql": "SELECT count(*) FROM dataset"}'),
    ),
    App(
        "Renumics Spotlight", "studio_spotlight", "renumics-spotlight", "canvas",
        lambda folder, n, port: ["spotlight", str(folder / "files.parquet"), "--dtype", "file=Image",
                                 "--dtype", "embedding=Embedding", "--layout", str(folder / "layout.json"),
                                 "--no-browser", "--port", str(port)],
        _run_runner("studio_spotlight.py", "{folder}/layout.json"),
        socket="/api/ws",
    ),
    App(
        "PixPlot", "studio_pixplot", "pixplot", "body:has(#loader-scene[class*=hidden]) #pixplot-canvas",
        lambda folder, n, port: ["python", "-m", "http.server", str(port), "--directory", str(folder / "pixplot")],
        _pixplot_files,
        enter=_enter_pixplot,
        largest=10_000,
        reason="preparing it is slow, since it writes each image again, 600 pixels high",
    ),
)  # fmt: skip
