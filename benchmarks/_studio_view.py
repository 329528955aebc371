"""The first view of a page, watched from outside: the same rule for every application.

Chromium with software rendering opens the page and sends each frame that it composes, with the time at which it did.
The first view is complete at the first frame from which on the page looks as in the end: no later frame differs from
the last one in more than `SAME` of its pixels. The page has ended when its map is there and not blank, and nothing
has changed for `QUIET` seconds.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from benchmarks._memory import pss_mb, tree

WIDTH, HEIGHT = 1440, 900
SAME = 0.005
"""Share of the pixels; carets and spinners are less."""
DIFFERS = 24
"""Levels of 255 by which a pixel differs, more than JPEG's noise."""
FILLED = 0.02
"""Share of a map's pixels that are not of its background, from which on it is not blank."""
QUIET = 10.0
"""Seconds; some applications add examples or labels seconds after the points."""
LONGEST = 120.0
"""Seconds after which a page that has not ended is given up."""

FLAGS = (
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--no-sandbox",
    "--disable-features=SpareRendererForSitePerProcess",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)  # fmt: skip
"""Names of other machines fail at once, so a page that needs them does not wait for a time-out."""


@dataclass
class View:
    """What one visit took: seconds, MB, and the other hosts that the page asked for, with how often."""

    seconds: float
    tab_mb: float
    gpu_mb: float
    scripts_mb: float
    all_mb: float
    hosts: Counter[str]
    picture: bytes
    faults: list[str] = field(default_factory=list)


def visit(address: str, selector: str, enter: Callable[[Any], None] | None = None, axe: bool = False) -> View:
    """The first view of a page in a browser that has just been started.

    Parameters
    ----------
    address : str
    selector : str
        CSS selector of the map.
    enter : function of a Playwright page, optional
        What a person must do before the map is shown.
    axe : bool
        Look for faults of accessibility afterwards.

    Raises
    ------
    RuntimeError
        If there is no map after `LONGEST` seconds, or something that a person must press.
    """
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            watch = Watch(page, address)
            page.goto(address, wait_until="commit", timeout=1000 * LONGEST)
            if enter is not None:
                enter(page)
            seconds = watch.until_quiet(selector)
            gpu, tab = (_processes_mb(kind) for kind in ("gpu-process", "renderer"))
            view = View(seconds, tab, gpu, watch.scripts / 1e6, watch.bytes / 1e6, watch.hosts, page.screenshot())
            view.faults = serious_faults(page) if axe else []
            return view
        except Error as error:
            raise RuntimeError(error.message.partition("\n")[0]) from None
        finally:
            browser.close()


class Watch:
    """Frames and requests of a page from now on."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.own = page, urlsplit(address).netloc
        self.frames: list[tuple[float, bytes]] = []
        self.hosts: Counter[str] = Counter()
        self.scripts = self.bytes = 0
        self._scripts: set[str] = set()
        self._session = page.context.new_cdp_session(page)
        for event, seen in (
            ("Page.screencastFrame", self._frame),
            ("Network.responseReceived", self._response),
            ("Network.loadingFinished", self._finished),
        ):
            self._session.on(event, seen)
        page.on("request", self._request)
        self._session.send("Network.enable")
        shape = {"maxWidth": WIDTH // 2, "maxHeight": HEIGHT // 2}
        self._session.send("Page.startScreencast", {"format": "jpeg", "quality": 80, **shape})
        self.began = time.time()

    def until_quiet(self, selector: str) -> float:
        """Seconds until the first view was complete."""
        while time.time() < self.began + LONGEST:
            self.page.wait_for_timeout(250)
            if not self.frames or time.time() - self._changed() < QUIET:
                continue
            box = self.page.evaluate(PLACE, selector)
            if box and is_filled(pixels(self.frames[-1][1]), *box):
                return self._changed() - self.began
        raise RuntimeError(f"no map after {LONGEST:.0f} s")

    def _changed(self) -> float:
        """When the page looked as it does now for the first time."""
        since, last = self.frames[-1]
        for seconds, frame in reversed(self.frames):
            if frame != last and share_changed(pixels(frame), pixels(last)) > SAME:
                break
            since = seconds
        return since

    def _frame(self, frame: dict[str, Any]) -> None:
        self.frames.append((frame["metadata"]["timestamp"], base64.b64decode(frame["data"])))
        self._session.send("Page.screencastFrameAck", {"sessionId": frame["sessionId"]})

    def _request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme.startswith(("http", "ws")) and parts.netloc != self.own:
            self.hosts[parts.netloc] += 1

    def _response(self, event: dict[str, Any]) -> None:
        if event["type"] == "Script":
            self._scripts.add(event["requestId"])

    def _finished(self, event: dict[str, Any]) -> None:
        self.bytes += event["encodedDataLength"]
        if event["requestId"] in self._scripts:
            self.scripts += event["encodedDataLength"]


PLACE = """(selector) => {
  const box = document.querySelector(selector)?.getBoundingClientRect();
  const part = (value, whole) => Math.min(1, Math.max(0, value / whole));
  return box && [part(box.left, innerWidth), part(box.top, innerHeight),
                 part(box.right, innerWidth), part(box.bottom, innerHeight)];
}"""
"""Edges of an element, as shares of the page."""


def pixels(frame: bytes) -> np.ndarray:
    """A frame as (H, W, 3) uint8."""
    with Image.open(io.BytesIO(frame)) as picture:
        return np.asarray(picture.convert("RGB"))


def share_changed(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the pixels in which two frames (H, W, 3) uint8 differ."""
    if a.shape != b.shape:
        return 1.0
    return float((np.abs(a.astype(np.int16) - b).max(axis=2) > DIFFERS).mean())


def is_filled(frame: np.ndarray, left: float, top: float, right: float, bottom: float) -> bool:
    """Whether a part of a frame shows more than its background, the color that most of its pixels have."""
    height, width = frame.shape[:2]
    part = frame[int(top * height) : int(bottom * height), int(left * width) : int(right * width)].reshape(-1, 3)
    if not len(part):
        return False
    background = np.array([statistics.mode(channel.tolist()) for channel in part.T], np.int16)
    return float((np.abs(part - background).max(axis=1) > DIFFERS).mean()) > FILLED


def serious_faults(page: Any) -> list[str]:
    """Faults of accessibility that axe calls serious or critical: the rule and at how many places."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{fault['id']} ({len(fault['nodes'])})" for fault in found if fault["impact"] in ("serious", "critical")]


def _processes_mb(kind: str) -> float:
    """Memory in MB of the processes of this browser that are of a kind."""
    return sum(pss_mb(pid) for pid in tree(os.getpid()) if f"--type={kind}" in _command(pid))


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
