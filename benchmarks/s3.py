"""Images and atlases in an object store: `python -m benchmarks s3 [--images 2000] [--quick]`.

A real server that speaks S3 (nanio, with conditions of writes) on this machine: learning from it and into it beside a
folder, a server that stops in the middle, an object that vanishes, and opening an atlas there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import imatlas as ia
from benchmarks._data import grocery_photos
from benchmarks._table import save_table
from tests.s3_server import Server

AWAY = 20.0
"""Seconds that the server is stopped for."""

SIZE = 160
"""Side of the images in pixels."""

OPTIONS: dict[str, Any] = {"budget": "20s", "encoder": "pretrained", "progress": False}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks s3")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="100 images; saves no table")
    options = parser.parse_args(argv)
    n_images = 100 if options.quick else options.images
    with tempfile.TemporaryDirectory(prefix="imatlas-s3-") as folder:
        rows = _Runs(Path(folder), n_images).rows()
    if options.quick:
        print(*rows, sep="\n")
        return
    save_table(
        "s3",
        "Images and atlases in an object store",
        ["what", "seconds", "ratio to the folder", "waited or skipped", "result"],
        rows,
        [
            f"{n_images:,} JPEG files of {SIZE} x {SIZE} pixels, cut from Grocery photos; the pretrained encoder, "
            f"`--budget {OPTIONS['budget']}`, seed 0; one run each, in one process, after a run on 64 images.",
            "The server is nanio 0.1.7 on loopback, a program of its own on the same cores, with conditions of writes "
            "added (tests/s3_server.py). A store that is far away takes longer.",
            "'The same' compares all columns of the table: map, clusters, layout, outlier scores, duplicates.",
            "Fetched is the size of what lies in the cache afterwards, without links to what was there.",
        ],
    )


class _Runs:
    """The runs of the table, each with an empty cache."""

    def __init__(self, folder: Path, n_images: int) -> None:
        self.folder, self.n_images = folder, n_images
        self.photos = folder / "photos"
        _write_photos(self.photos, n_images)
        self.server = Server(folder / "s3")
        self.bucket = folder / "s3" / "bucket"
        self.bucket.mkdir(parents=True)
        shutil.copytree(self.photos, self.bucket / "photos")
        os.environ.update(self.server.environment())
        os.environ["XDG_STATE_HOME"] = str(folder / "state")

    def rows(self) -> list[list[Any]]:
        self.server.start()
        try:
            self._cache("warm-up")
            ia.learn(sorted(self.photos.iterdir())[:64], self.folder / "warm-up.atlas", **OPTIONS)
            return [*self._learned(), self._stopped(), self._vanished(), *self._opened()]
        finally:
            self.server.stop()

    def _learned(self) -> list[list[Any]]:
        here, there = self.photos, "s3://bucket/photos"
        ways = {
            "from a folder into a folder": (here, self.folder / "a.atlas"),
            "from S3 into a folder": (there, self.folder / "b.atlas"),
            "from a folder into S3": (here, "s3://bucket/c.atlas"),
            "from S3 into S3": (there, "s3://bucket/d.atlas"),
        }
        rows = []
        self.first = 0.0
        for what, (source, home) in ways.items():
            self._cache(what)
            seconds, atlas = _timed(lambda source=source, home=home: ia.learn(source, home, **OPTIONS))
            if not rows:
                self.first, self.table = seconds, atlas.table()
            rows.append(self._row(f"learn {what}", seconds, "", self._same(atlas)))
        return rows

    def _stopped(self) -> list[Any]:
        """The server is away for a while when the encoder begins."""
        self._cache("stopped")
        stopped: list[float] = []

        def stop(event: dict[str, Any]) -> None:
            if event.get("stage") == "encoder" and event["state"] == "started":
                self.server.stop()
                stopped.append(time.perf_counter())
                threading.Timer(AWAY, self.server.start).start()

        seconds, atlas = _timed(lambda: ia.learn("s3://bucket/photos", "s3://bucket/e.atlas", callback=stop, **OPTIONS))
        waited = f"{AWAY:.0f} s away" if stopped else "it was not stopped"
        return self._row("learn from S3 into S3, the server stopped in the middle", seconds, waited, self._same(atlas))

    def _vanished(self) -> list[Any]:
        """An object is deleted after it was listed."""
        self._cache("vanished")
        images = ia.Images("s3://bucket/photos", progress=False)
        gone = sorted((self.bucket / "photos").iterdir())[self.n_images // 2]
        gone.unlink()
        seconds, atlas = _timed(lambda: ia.learn(images, "s3://bucket/f.atlas", **OPTIONS))
        [(key, reason)] = images.skipped
        shutil.copy(self.photos / gone.name, gone)
        told = f"{key} {reason}" if key == gone.name else f"another was skipped: {key}"
        return self._row("learn from S3 into S3, an object vanishes", seconds, told, f"{len(atlas):,} images")

    def _opened(self) -> list[list[Any]]:
        query = self.photos / sorted(self.photos.iterdir())[7].name
        rows = []
        ways = {
            "open and search an atlas in a folder": self.folder / "c.atlas",
            "open and search an atlas on S3": "s3://bucket/c.atlas",
            "the same again, from the cache": "s3://bucket/c.atlas",
        }
        shutil.copytree(self.bucket / "c.atlas", self.folder / "c.atlas")
        self._cache("opened")
        ia.load(self.folder / "c.atlas").search(query, k=10)
        keys: list[list[str]] = []
        for what, place in ways.items():
            before = self._cached()
            seconds, found = _timed(lambda place=place: ia.load(place).search(query, k=10))
            keys.append(found["key"].to_pylist())
            fetched = f"{(self._cached() - before) / 1e6:.1f} MB fetched" if isinstance(place, str) else ""
            same = "the same 10 images" if keys[-1] == keys[0] else "other images"
            first = rows[0][1] if rows else seconds
            rows.append([what, seconds, round(seconds / first, 2), "", ", ".join(filter(None, (fetched, same)))])
        size = sum(path.stat().st_size for path in (self.bucket / "c.atlas").rglob("*") if path.is_file())
        rows[1][-1] += f" ({size / 1e6:.1f} MB in all)"
        return rows

    def _row(self, what: str, seconds: float, waited: str, result: str) -> list[Any]:
        return [what, seconds, round(seconds / self.first, 2), waited, result]

    def _same(self, atlas: ia.Atlas) -> str:
        """Which columns of the table are those of the first run."""
        table = atlas.table()
        others = [name for name in self.table.column_names if not table[name].equals(self.table[name])]
        return f"the same but for {', '.join(others)}" if others else "the same"

    def _cache(self, name: str) -> None:
        """Begin with an empty cache."""
        os.environ["XDG_CACHE_HOME"] = str(self.folder / f"cache {name}")

    def _cached(self) -> int:
        root = Path(os.environ["XDG_CACHE_HOME"])
        return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def _write_photos(folder: Path, n_images: int) -> None:
    """Square cuts of photographs, as JPEG files."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    photos = sorted(path for path in grocery_photos().rglob("*") if path.suffix.lower() in (".jpg", ".png"))
    for i in range(n_images):
        with Image.open(photos[i % len(photos)]) as photo:
            opened = photo.convert("RGB")
        side = int(min(opened.size) * rng.uniform(0.6, 1))
        left, top = (int(rng.integers(0, length - side + 1)) for length in opened.size)
        cut = opened.crop((left, top, left + side, top + side)).resize((SIZE, SIZE))
        cut.save(folder / f"{i:05d}.jpg", quality=90)
