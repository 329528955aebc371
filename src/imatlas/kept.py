"""What eyes saw in images before, by content: a new image costs only itself, whatever its name and wherever it lies.

    folder/<eyes>-0001.npy, <eyes>-0002.npy, …     rows of (content, seen)

`eyes` stands for all that decides what is seen: weights, options, code. `content` is the hash of the file and the
number of the frame. A file is written whole or not at all and never changed; all of them may be deleted.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from imatlas.disk import replacing

MOST_BYTES = 2 * 1024**3
"""Size of all files together beyond which the oldest go: what one network saw in 400,000 images."""


class Kept:
    """The folder of what was seen.

    Parameters
    ----------
    folder : path
        Made when something is first kept.
    most_bytes : int
    """

    def __init__(self, folder: str | Path, *, most_bytes: int = MOST_BYTES) -> None:
        self.folder = Path(folder)
        self.most_bytes = most_bytes

    def find(self, eyes: str, contents: list[bytes], seen: np.ndarray) -> np.ndarray:
        """Fill the rows of `seen` (n, width) float32 that are kept; which they are (n,) bool."""
        found = np.zeros(len(contents), bool)
        for path in self._files(eyes):
            rows = _opened(path, seen.shape[1])
            if rows is None:
                continue
            place = {content: i for i, content in enumerate(rows["content"].tolist())}
            here = [(i, place[content]) for i, content in enumerate(contents) if content in place and not found[i]]
            for i, row in here:
                seen[i] = rows["seen"][row]
                found[i] = True
        return found

    def add(self, eyes: str, contents: list[bytes], seen: np.ndarray) -> None:
        """Keep what was seen (n, width) under the contents of its images; where the disk is full, nothing is kept."""
        if not contents:
            return
        rows = np.empty(len(contents), [("content", "S32"), ("seen", "<f4", (seen.shape[1],))])
        rows["content"], rows["seen"] = contents, seen
        files = self._files(eyes)
        number = 1 + max((int(path.stem.rpartition("-")[2]) for path in files), default=0)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / f"{eyes}-{number:06d}.npy") as aside, aside.open("wb") as file:
                np.save(file, rows, allow_pickle=False)
            self._forget()
        except OSError:
            return  # learning goes on without it

    def _files(self, eyes: str = "*") -> list[Path]:
        return sorted(self.folder.glob(f"{eyes}-[0-9]*.npy"))

    def _forget(self) -> None:
        """Delete the files that are beyond the size allowed, the oldest first."""
        stats = sorted(((path.stat().st_mtime_ns, path.name, path) for path in self._files()), reverse=True)
        total = 0
        for _, _, path in stats:
            total += path.stat().st_size
            if total > self.most_bytes:
                path.unlink(missing_ok=True)


def content_of(sha256: str, frame: int) -> bytes:
    """32 letters for one frame of the file with this hash."""
    return hashlib.sha256(f"{sha256}#{frame}".encode()).hexdigest()[:32].encode()


def _opened(path: Path, width: int) -> np.ndarray | None:
    """The rows of a file, memory-mapped; None where it is damaged or of another width."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = rows.dtype.names == ("content", "seen") and rows.dtype["seen"].shape == (width,)
    return rows if fits else None
