"""Tiles of a wall of thumbnails, as pictures: far out, each image stands for many; near, each is shown whole."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image

from imatlas.atlas.store import Store
from imatlas.errors import DecodeError
from imatlas.images.thumbnails import quick_view
from imatlas.tasks.wall import EMPTY, Wall

TILE, CELLS = 512, 8
"""Side of a tile in pixels, and images along it where each takes no more than that."""
WORLD = 512.0
"""Side of the world: that of the only tile of level 0."""
NEARER = 3
"""Levels beyond that on which each image has its own place: the images double in size."""
GAP = 1 / 32
"""Of the side of a place."""
ORIGINALS_FROM = 256
"""Side in pixels from which the originals are read."""
CACHED_BYTES = 2**26
RESTING = 0.2
"""Seconds without a request after which tiles are drawn ahead."""
MOST_AHEAD = 64


class Ahead:
    """Draws tiles that may be asked for next, while none is asked for: those into which the last ones are zoomed."""

    def __init__(self, draw: Callable[[int, int, int], object]) -> None:
        self._draw = draw
        self._waiting: deque[tuple[int, int, int]] = deque(maxlen=MOST_AHEAD)
        self._asked, self._any = 0.0, threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def asked(self, z: int, x: int, y: int) -> None:
        """A tile was asked for."""
        self._asked = time.monotonic()
        self._waiting.extend((z + 1, 2 * x + i, 2 * y + j) for i in (0, 1) for j in (0, 1))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="imatlas-tiles-ahead")
            self._thread.start()
        self._any.set()

    def close(self) -> None:
        """Draw nothing more: a thread that draws while Python ends would abort it."""
        self._closed = True
        self._any.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while self._any.wait() and not self._closed:
            rest = self._asked + RESTING - time.monotonic()
            if rest > 0:
                time.sleep(rest)
                continue
            if self._waiting:
                self._draw(*self._waiting.popleft())
            else:
                self._any.clear()


class Tiles:
    """Tiles of a wall. Level z has 2 ** z by 2 ** z tiles; safe to use from several threads."""

    def __init__(self, store: Store, wall: Wall) -> None:
        self.store, self.wall = store, wall
        self._cache: OrderedDict[tuple[int, int, int], bytes | None] = OrderedDict()
        self._n_bytes, self._lock = 0, threading.Lock()
        self._ahead = Ahead(self.tile)

    def close(self) -> None:
        """Draw nothing ahead any more."""
        self._ahead.close()

    @property
    def whole(self) -> int:
        """The level on which each image has its own place."""
        return len(self.wall.levels) - 1

    @property
    def max_level(self) -> int:
        """The nearest level."""
        return self.whole + NEARER

    @property
    def slot(self) -> float:
        """Side of an image's place, in world units."""
        return WORLD / self.wall.side

    def centers(self) -> np.ndarray:
        """World coordinates (n, 2) float32 of the images."""
        return ((self.wall.places + 0.5) * self.slot).astype(np.float32)

    def asked(self, z: int, x: int, y: int) -> bytes | None:
        """As `tile`; what lies below it is drawn when there is time."""
        if z < self.max_level:
            self._ahead.asked(z, x, y)
        return self.tile(z, x, y)

    def tile(self, z: int, x: int, y: int) -> bytes | None:
        """A tile as WebP; None if nothing is there."""
        with self._lock:
            if (z, x, y) in self._cache:
                self._cache.move_to_end((z, x, y))
                return self._cache[z, x, y]
        made = self._drawn(self._rows(z, x, y))
        with self._lock:
            if (z, x, y) not in self._cache:
                self._cache[z, x, y] = made
                self._n_bytes += len(made or b"")
            while self._n_bytes > CACHED_BYTES:
                self._n_bytes -= len(self._cache.popitem(last=False)[1] or b"")
        return made

    def _rows(self, z: int, x: int, y: int) -> np.ndarray:
        """The images (k, k) of a tile, of which one may be larger than it."""
        level = self.wall.levels[min(z, self.whole)]
        n = CELLS >> max(0, z - self.whole)
        return level[y * n : (y + 1) * n, x * n : (x + 1) * n]

    def _drawn(self, rows: np.ndarray) -> bytes | None:
        return mosaic(rows, TILE // len(rows), self._pictures) if (rows != EMPTY).any() else None

    def _pictures(self, rows: np.ndarray, side: int) -> np.ndarray:
        """Images as RGB (n, side, side, 3)."""
        if side >= ORIGINALS_FROM and self.store.spec.dtype == "uint8" and self.store.spec.channels in (1, 3):
            return self.store.large_pixels(rows, side)
        return squares(self.store, rows, side)


def squares(store: Store, rows: np.ndarray, side: int) -> np.ndarray:
    """The middle of thumbnails as RGB (n, side, side, 3); of one that is damaged, gray."""
    found = []
    for data in store.thumbnails(rows):
        try:
            found.append(quick_view(data, side))
        except (DecodeError, OSError, ValueError):
            found.append(np.full((side, side, 3), 128, np.uint8))
    return np.stack(found)


def mosaic(rows: np.ndarray, side: int, pictures: Callable[[np.ndarray, int], np.ndarray]) -> bytes:
    """Images at the places (height, width) of a grid as one WebP, clear where there is none.

    Parameters
    ----------
    rows : array (height, width) of int
        The image at each place, or `EMPTY`.
    side : int
        Pixels along a side of a place.
    pictures : callable
        (rows, side) -> RGB (n, side, side, 3).
    """
    shown = np.flatnonzero(rows.ravel() != EMPTY)
    inner = side - max(1, round(side * GAP))
    canvas = np.zeros((side * rows.shape[0], side * rows.shape[1], 4), np.uint8)
    for place, pixels in zip(shown, pictures(rows.ravel()[shown], inner), strict=True):
        top, left = side * (place // rows.shape[1]), side * (place % rows.shape[1])
        canvas[top : top + inner, left : left + inner, :3] = pixels
        canvas[top : top + inner, left : left + inner, 3] = 255
    out = BytesIO()
    Image.fromarray(canvas).save(out, "WEBP", quality=82, method=0, alpha_quality=60)
    return out.getvalue()
