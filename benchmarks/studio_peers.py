"""The studio beside other applications: `python -m benchmarks studio_peers [--n 10000 100000] [--peers FOLDER]`.

FiftyOne, Embedding Atlas, Renumics Spotlight and PixPlot show the same images as `benchmarks.studio`, at the same
places, in the same Chromium with software rendering. Each is prepared before (once, kept under benchmarks/.data) and
started as its documentation says; those that are not installed are skipped and named. FOLDER, by default
benchmarks/.envs, holds an environment for each:

    python -m venv FOLDER/studio_fiftyone
    FOLDER/studio_fiftyone/bin/pip install -r benchmarks/peers/studio_fiftyone.txt

and so on for studio_embedding_atlas, studio_spotlight and studio_pixplot (whose file tells how).

First view: see `_studio_view.py`. Memory is proportional set size, of the server in all its processes after the last
visit. Safety: a request that names another host, one that a page of another site can send, and one for a file of the
disk that is no image.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import os
import statistics
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks._memory import run_measured
from benchmarks._peers import HERE, PEERS, last_json
from benchmarks._studio_apps import APPS, App, Server, images_of
from benchmarks._studio_view import HEIGHT, WIDTH, View, visit
from benchmarks._table import save_table

REPEATS = 3
BASE = ("numpy", "scipy", "scikit-learn", "pandas", "pillow", "pyarrow", "torch")
"""Packages that people who work with images have anyway."""

FOREIGN = "attacker.example"


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks studio_peers")
    parser.add_argument("--n", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--peers", type=Path, default=HERE / ".envs", help="folder of the environments")
    parser.add_argument("--apps", nargs="+", default=[app.name for app in APPS], help="names, as in the table")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each first view")
    options = parser.parse_args(argv)
    chosen = [app for app in APPS if app.name in options.apps]
    skipped = [f"{app.name}: not installed." for app in chosen if not app.python(options.peers).exists()]
    here = [app for app in chosen if app.python(options.peers).exists()]
    load = os.getloadavg()[0]
    sizes = {app.name: _size(app, options.peers) for app in here}
    speed, safety = [], []
    for n in options.n:
        images_of(n)
        for app in here:
            if n > app.largest:
                skipped.append(f"{app.name} with {n:,} images: not run; {app.reason}.")
                continue
            print(f"{app.name}, {n:,} images", flush=True)
            try:
                row, probed = measured(app, n, options)
            except (RuntimeError, subprocess.CalledProcessError) as error:
                skipped.append(f"{app.name} with {n:,} images: {error}.")
                continue
            speed.append([f"{app.name} {sizes[app.name]['version']}", *row])
            if n == options.n[0]:
                size = sizes[app.name]
                safety.append([app.name, *probed, round(size["total_mb"]), round(size["extra_mb"]), size["n_extra"]])
    _save(speed, safety, skipped, options.repeats, load)


def measured(app: App, n: int, options: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """The row of an application in the table of speeds, and in that of safety."""
    server = Server(app, n, options.peers)
    with closing(server):
        views = [
            visit(server.address, app.map, app.enter, axe=k == options.repeats - 1) for k in range(options.repeats)
        ]
        last = views[-1]
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            (options.pictures / f"{app.environment}-{n}.png").write_bytes(last.picture)
        row = [
            f"{n:,}", round(server.seconds, 1), round(statistics.median(view.seconds for view in views), 1),
            round(last.tab_mb), round(last.gpu_mb), round(server.megabytes()), round(last.scripts_mb, 1),
            round(last.all_mb, 1),
        ]  # fmt: skip
        return row, probes(app, server, last)


def probes(app: App, server: Server, view: View) -> list[Any]:
    """Where it listens, what it refuses, whom its page asks, and faults of accessibility."""
    addresses = listening(server.processes())
    alone = all(address.startswith(("127.", "[::1]", "[::ffff:127.")) for address in addresses)
    page = server.address.removeprefix(f"http://{server.host}")
    other_host = _status(server.host, "GET", page, {"Host": FOREIGN})
    file = _status(server.host, "GET", app.file) if app.file else 404
    hosts = ", ".join(f"{host} ({times})" for host, times in view.hosts.most_common())
    return [
        _yes(alone), _yes(other_host >= 400), _refuses_pages(app, server.host), _yes(file >= 400),
        hosts or "none", ", ".join(view.faults) or "none",
    ]  # fmt: skip


def listening(processes: list[int]) -> list[str]:
    """Addresses on which processes listen."""
    found = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split()[3] for line in found if any(f"pid={pid}," in line for pid in processes)]


def _refuses_pages(app: App, host: str) -> str:
    """Whether it refuses what a page of another site can send it."""
    origin = {"Origin": f"http://{FOREIGN}"}
    if app.socket:
        key = base64.b64encode(bytes(16)).decode()
        headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        return _yes(_status(host, "GET", app.socket, {**origin, **headers, "Sec-WebSocket-Key": key}) >= 400)
    if app.post is None:
        return "takes none"
    path, body = app.post
    return _yes(_status(host, "POST", path, {**origin, "Content-Type": "text/plain"}, body) >= 400)


def _status(host: str, method: str, path: str, headers: dict[str, str] | None = None, body: str = "") -> int:
    """The status of the answer to a request; 499 if it is not answered at all."""
    connection = http.client.HTTPConnection(host, timeout=20)
    with closing(connection):
        try:
            connection.request(method, path, body or None, headers or {})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 499


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _size(app: App, peers: Path) -> dict[str, Any]:
    """Size of what is installed for it."""
    run = run_measured([str(app.python(peers)), str(PEERS / "studio_size.py"), app.package, "--", *BASE])
    return last_json(run.output)


def _save(speed: list[list[Any]], safety: list[list[Any]], skipped: list[str], repeats: int, load: float) -> None:
    chromium = f"Chromium with software rendering, {WIDTH} x {HEIGHT} pixels; see `benchmarks/_studio_view.py`."
    save_table(
        "studio_peers",
        "The studio beside other applications",
        ("application", "images", "s until the server answers", "s to the first view", "MB of the tab",
         "MB of Chromium's GPU process", "MB of the server", "MB of scripts", "MB sent in all"),
        speed,
        [
            chromium,
            f"First view: median of {repeats} visits, each by a browser that was started for it. "
            "Images of 32 x 32 pixels; places, clusters and embeddings of all are those that imatlas learned.",
            "MB of scripts and in all: as sent, compressed where the server compresses.",
            f"Load of the machine when it began: {load:.1f}.",
            *skipped,
        ],
    )  # fmt: skip
    save_table(
        "studio_peers_safety",
        "Safety and size of the studio and of other applications",
        ("application", "listens on this machine only", "refuses other hosts", "refuses pages of other sites",
         "refuses files that are no images", "other hosts that its page asks", "serious faults (axe)",
         "MB installed", "of these beyond the base", "packages beyond it"),
        safety,
        [
            f"Refuses other hosts: a request with `Host: {FOREIGN}`. Pages of other sites: a post of text, or a "
            f"WebSocket, with `Origin: http://{FOREIGN}`. Files: `/etc/hostname` as an image.",
            "Faults of the main page by axe that are serious or critical, and in how many places.",
            f"The base: {', '.join(BASE)}, and what they need.",
            *skipped,
        ],
    )  # fmt: skip
