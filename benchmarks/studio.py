"""The studio over many images: `python -m benchmarks studio [--n 10000 100000 1000000] [--only page|load]`.

Images of 32 x 32 pixels: Fashion-MNIST, and parts of the grocery photographs and of EuroSAT. The atlas is learned once
and kept under benchmarks/.data. The server runs in a process of its own, the page in Chromium with software rendering,
driven by Playwright. Memory is proportional set size. First view: from opening the page until all thumbnails of the
first view are drawn. Zoom: five steps of one level each into the middle of the map, 1.5 s apart, until the thumbnails
are there; median. Load: ten pages open, and 50 searches a second by other clients for a minute.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import imatlas as ia
from benchmarks._data import SCRATCH, eurosat, fashion_mnist, grocery_photos
from benchmarks._memory import pss_mb, tree
from benchmarks._table import save_table
from imatlas.atlas.store import Store
from imatlas.atlas.table import ROWS, SCHEMA, ImagesTable
from imatlas.tasks.search import index_centers

SIDE, PORT = 32, 8437
N_SEARCHED = 10_000
RATE, SECONDS, N_CLIENTS, N_TABS = 50, 60, 16, 10
WIDTH, HEIGHT = 1440, 900
PAUSE = 1500
"""Milliseconds to look at a view before the next step."""


def images(n: int) -> np.ndarray:
    """Images (n, 32, 32, 3) of three sets in turn."""
    rng = np.random.default_rng(0)
    clothes = np.concatenate([fashion_mnist(part)[0] for part in ("train", "t10k")])
    photos = [np.asarray(Image.open(p).convert("RGB")) for p in sorted(grocery_photos().rglob("*.jpg"))]
    satellite = [np.asarray(Image.open(p).convert("RGB")) for p in sorted(eurosat().rglob("*.png"))]
    out = np.zeros((n, SIDE, SIDE, 3), np.uint8)
    for i in range(n):
        if i % 3 == 0:
            out[i, 2:30, 2:30] = clothes[i // 3 % len(clothes)][..., None]
            continue
        source, sides = (photos, (48, 200)) if i % 3 == 1 else (satellite, (32, 64))
        whole = source[int(rng.integers(len(source)))]
        side = int(rng.integers(*sides))
        top, left = (int(rng.integers(length - side + 1)) for length in whole.shape[:2])
        part = Image.fromarray(whole[top : top + side, left : left + side])
        out[i] = np.asarray(part.resize((SIDE, SIDE), Image.Resampling.BOX))
    return out


def atlas_of(n: int) -> Path:
    """An atlas of `n` images, learned on the first call."""
    folder = SCRATCH / "studio" / f"{n}.atlas"
    if not (folder / "report.html").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        given = folder.with_suffix(".npy")
        np.save(given, images(n))
        ia.learn(given, folder, encoder="own", image_size=SIDE, budget="4m")
        shutil.rmtree(folder / "cache", ignore_errors=True)
    return folder


def repeated(n: int, of: int = 100_000) -> Path:
    """An atlas of `n` images: that of `of` images, again and again, each time a little elsewhere on the map."""
    folder, once = SCRATCH / "studio" / f"{n}.atlas", atlas_of(of)
    if (folder / "atlas.json").exists():
        return folder
    shutil.copytree(once, folder, ignore=shutil.ignore_patterns("*.lance"))
    store, rng = Store(once), np.random.default_rng(0)
    times = n // of
    rows = store.table.read(SCHEMA.names).select(SCHEMA.names)
    parts = (
        batch
        for i in range(times)
        for batch in rows.set_column(0, "key", [[f"{i:03d}/{key}" for key in rows["key"].to_pylist()]])
        .cast(SCHEMA)
        .to_batches(max_chunksize=ROWS)
    )
    thumbnails = (b["thumbnail"].to_pylist() for _ in range(times) for b in store.table.batches(["thumbnail"]))
    manifest = store.manifest
    manifest.files = {name: entry for name, entry in manifest.files.items() if not name.startswith("images.lance/")}
    inventory = manifest.inventory(folder)
    table = ImagesTable.write(folder / "images.lance", parts, thumbnails, inventory)
    for name in ("cell", "x", "y", "cluster", "confidence", "outlier", "umap_x", "umap_y"):
        values = np.tile(store.table.read([name])[name].to_numpy(), times)
        if name.startswith("umap"):
            values = values + rng.normal(0, 0.05, n).astype(np.float32)
        table = table.set(**{name: values})
    embedding = np.tile(store.table.vectors("embedding"), (times, 1))
    embedding += rng.normal(0, 0.01, embedding.shape).astype(np.float32) * embedding.std()
    table = table.set(embedding=embedding)
    table = table.index("embedding", index_centers(embedding, random_state=0))
    manifest.table["version"] = table.version
    manifest.files = inventory.files
    manifest.commit(folder)
    return folder


class Server:
    """The studio in a process of its own."""

    def __init__(self, atlas: Path) -> None:
        command = [sys.executable, "-m", "imatlas", "studio", str(atlas), "--no-browser", "--port", str(PORT)]
        began = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.address = f"http://127.0.0.1:{PORT}"
        while True:
            try:
                self.json("/api/atlas")
                break
            except OSError:
                time.sleep(0.05)
        self.seconds = time.perf_counter() - began

    def json(self, path: str, body: Any = None) -> Any:
        """An answer."""
        content = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.address + path, content, {"content-type": "application/json"})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.loads(answer.read())

    def megabytes(self) -> float:
        """Its memory now."""
        return sum(pss_mb(pid) for pid in tree(self.process.pid))

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(20)


def browser(playwright: Any) -> Any:
    """Debian's Chromium with software rendering."""
    flags = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
    return playwright.chromium.launch(executable_path=shutil.which("chromium"), args=[*flags, "--no-sandbox"])


LOADED = "() => window.studio && window.studio.map && window.studio.map.visibleTilesLoaded()"


MOVED = """([x, y, zoom]) => {
  window.studio.map.goTo(x, y, zoom);
  return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""
"""Goes to a place, and waits until it has been drawn once, with the tiles that are there."""


def page_row(n: int) -> list[Any]:
    """What one page takes."""
    from playwright.sync_api import sync_playwright

    server = Server(atlas_of(n) if n <= 100_000 else repeated(n))
    try:
        with sync_playwright() as playwright:
            opened = browser(playwright)
            first = []
            for _ in range(3):
                page = opened.new_page(viewport={"width": WIDTH, "height": HEIGHT})
                began = time.perf_counter()
                page.goto(server.address)
                page.wait_for_function(LOADED, polling=20, timeout=60_000)
                first.append(time.perf_counter() - began)
                if len(first) < 3:
                    page.close()
            about = server.json("/api/atlas")["layouts"][0]
            x, y = ((about["bounds"][k] + about["bounds"][k + 2]) / 2 for k in (0, 1))
            steps = []
            for zoom in np.arange(1.0, 6.0):
                page.wait_for_timeout(PAUSE)
                began = time.perf_counter()
                page.evaluate(MOVED, [x, y, float(zoom)])
                page.wait_for_function(LOADED, polling=20, timeout=60_000)
                steps.append(time.perf_counter() - began)
            heap = page.evaluate("() => performance.memory ? performance.memory.usedJSHeapSize / 2**20 : NaN")
            tab = _largest_renderer()
            opened.close()
        return [
            f"{n:,}", round(server.seconds, 1), round(statistics.median(first), 2),
            round(1000 * statistics.median(steps)), round(tab), round(heap), round(server.megabytes()),
        ]  # fmt: skip
    finally:
        server.close()


def _largest_renderer() -> float:
    """Memory in MB of the Chromium process that draws the page."""
    found = subprocess.run(["pgrep", "-f", "type=renderer"], capture_output=True, text=True, check=False)
    return max((pss_mb(int(pid)) for pid in found.stdout.split()), default=float("nan"))


def load_row(n: int) -> list[Any]:
    """Searches while ten pages are open."""
    from playwright.sync_api import sync_playwright

    server = Server(atlas_of(n))
    seconds: list[float] = []
    errors: list[str] = []
    try:
        with sync_playwright() as playwright:
            opened = browser(playwright)
            pages = [opened.new_page(viewport={"width": 800, "height": 600}) for _ in range(N_TABS)]
            for page in pages:
                page.goto(server.address)
            for page in pages:
                page.wait_for_function(LOADED, timeout=120_000)
            server.json("/api/search", {"row": 0, "k": 60})
            began = time.perf_counter()

            def client(number: int) -> None:
                rng = np.random.default_rng(number)
                for k in range(number, RATE * SECONDS, N_CLIENTS):
                    time.sleep(max(0.0, began + k / RATE - time.perf_counter()))
                    start = time.perf_counter()
                    try:
                        server.json("/api/search", {"row": int(rng.integers(n)), "k": 60})
                    except OSError as error:
                        errors.append(str(error))
                    seconds.append(time.perf_counter() - start)

            threads = [threading.Thread(target=client, args=(number,)) for number in range(N_CLIENTS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            taken = time.perf_counter() - began
            opened.close()
    finally:
        server.close()
    p50, p95 = (round(1000 * float(np.quantile(seconds, q)), 1) for q in (0.5, 0.95))
    return [f"{n:,}", len(seconds), round(len(seconds) / taken, 1), p50, p95, len(errors)]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks studio")
    parser.add_argument("--n", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--only", choices=["page", "load"])
    options = parser.parse_args(argv)
    if options.only != "load":
        rows = []
        for n in options.n:
            rows.append(page_row(n))
            print(rows[-1], flush=True)
        save_table(
            "studio_page",
            "The studio's page",
            ("images", "s until the server answers", "s to the first view", "ms for a zoom step", "MB of the tab",
             "of these JavaScript", "MB of the server"),
            rows,
            [f"Chromium with software rendering, {WIDTH} x {HEIGHT} pixels; see `benchmarks/studio.py`."],
        )  # fmt: skip
    if options.only != "page":
        row = load_row(N_SEARCHED)
        print(row, flush=True)
        save_table(
            "studio_load",
            "The studio under load",
            ("images", "searches", "a second", "ms, median", "ms, 95 %", "errors"),
            [row],
            [f"{N_TABS} pages open; {RATE} searches a second asked for over {SECONDS} s, 60 results each."],
        )
