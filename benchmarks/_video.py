"""A video of slowly panned and zoomed photographs whose cuts are known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks._data import SCRATCH, grocery_photos

FPS, WIDTH, HEIGHT = 25, 640, 360
FADE, DISSOLVE, FLASH = 12, 20, 2
"""Frames of half a fade through black, of a cross-fade, and of a flash."""

SHOTS = (0.6, 14.0)
"""Shortest and longest shot in seconds; lengths are drawn evenly in their logarithm."""

KINDS = {"cut": 0.8, "fade": 0.1, "dissolve": 0.1}
"""How often a shot ends in each way."""


class Boundary(NamedTuple):
    """Where a shot begins: from the first to the last frame of the transition, in seconds."""

    kind: str
    first: float
    last: float


def made_video(seconds: float) -> tuple[Path, list[Boundary], dict[str, Any]]:
    """The video, made on the first call, its boundaries, and what is in it."""
    import av

    folder = SCRATCH / "video"
    folder.mkdir(parents=True, exist_ok=True)
    path, about = folder / f"photos-{seconds:g}s.mp4", folder / f"photos-{seconds:g}s.json"
    if not about.exists():
        boundaries: list[Boundary] = []
        facts: dict[str, Any] = {"shots": 1, "flashes": 0}
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=FPS, options={"crf": "23", "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for pixels in _frames(round(seconds * FPS), boundaries, facts):
                for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
        about.write_text(json.dumps({"boundaries": boundaries, "facts": facts}), encoding="utf-8")
    read = json.loads(about.read_text(encoding="utf-8"))
    return path, [Boundary(*each) for each in read["boundaries"]], read["facts"]


def _frames(n: int, boundaries: list[Boundary], facts: dict[str, Any]) -> Iterator[np.ndarray]:
    """Frames (HEIGHT, WIDTH, 3) uint8; the boundaries and facts are added as they come."""
    rng = np.random.default_rng(0)
    files = sorted(grocery_photos().rglob("*.jpg"))
    place, kind = int(rng.integers(len(files))), "start"
    at = 0
    tail: list[np.ndarray] = []  # of the last shot, mixed into this one by a cross-fade
    while at < n:
        length = round(FPS * float(np.exp(rng.uniform(*np.log(SHOTS)))))
        ends = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        shot = list(_shot(files[place], length + (DISSOLVE if ends == "dissolve" else 0), rng, facts))
        for i in range(min(len(tail), len(shot))):
            share = (i + 1) / (len(tail) + 1)
            shot[i] = np.rint((1 - share) * tail[i] + share * shot[i].astype(np.float32)).astype(np.uint8)
        tail = []
        if kind == "fade":
            for i in range(min(FADE, len(shot))):
                shot[i] = (shot[i] * (i / FADE)).astype(np.uint8)
        if ends == "fade":
            for i in range(min(FADE, len(shot))):
                shot[-1 - i] = (shot[-1 - i] * (i / FADE)).astype(np.uint8)
        if ends == "dissolve":
            shot, tail = shot[:-DISSOLVE], shot[-DISSOLVE:]
        yield from shot[: n - at]
        at += len(shot)
        if at < n - FPS:
            around = {"cut": (0, 0), "fade": (-FADE, FADE), "dissolve": (0, DISSOLVE)}[ends]
            boundaries.append(Boundary(ends, (at + around[0]) / FPS, (at + around[1]) / FPS))
            facts["shots"] += 1
        kind = ends
        # Half of the next photographs are of the same shelf, as in a real video.
        place = (place + 1) % len(files) if rng.random() < 0.5 else int(rng.integers(len(files)))


def _shot(file: Path, length: int, rng: np.random.Generator, facts: dict[str, Any]) -> Iterator[np.ndarray]:
    """A photograph, panned and zoomed, held by an unsteady hand, with noise, sometimes with a flash."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    zoom = np.linspace(*rng.uniform(0.55, 0.95, 2), length)
    from_, to = rng.uniform(0, 1, (2, 2))
    shake = np.cumsum(rng.normal(0, 0.002, (length, 2)), axis=0)
    flash = int(rng.integers(FPS // 2, length - FPS // 2)) if length > 3 * FPS and rng.random() < 0.3 else -FLASH
    facts["flashes"] += flash > 0
    for i in range(length):
        width = min(picture.width, picture.height * WIDTH / HEIGHT) * zoom[i]
        height = width * HEIGHT / WIDTH
        share = np.clip(from_ + (to - from_) * i / length + shake[i], 0, 1)
        left, top = share[0] * (picture.width - width), share[1] * (picture.height - height)
        view = picture.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, (left, top, left + width, top + height))
        pixels = np.asarray(view, np.float32) + rng.normal(0, 4, (HEIGHT, WIDTH, 1)).astype(np.float32)
        if flash <= i < flash + FLASH:
            pixels = 128 + pixels
        yield np.clip(pixels, 0, 255).astype(np.uint8)
