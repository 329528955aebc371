"""What eyes saw in images before, by content: a new image costs only itself, whatever its name and wherever it lies.

    folder/<eyes>-000001.npy, <eyes>-000002.npy, …     rows of (content, seen)
           kept.json                                   the list of these files, each with its hash

`eyes` stands for all that decides what is seen: weights, options, code. `content` is the hash of the file and the
number of the frame. A file is written whole or not at all and never changed; all of them may be deleted. A damaged one
is as good as none. Files that the list does not name are neither read nor deleted.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from pathlib import Path

import numpy as np

from imatlas.errors import ImatlasError
from imatlas.system.atomic_io import is_link, remove_listed, write_file
from imatlas.system.inventory import Entry, Inventory, read_json, seal

MOST_BYTES = 2 * 1024**3
"""Size of all files together beyond which the oldest go: what one network saw in 400,000 images."""


LIST = "kept.json"

_NAME = re.compile(r"[A-Za-z0-9_.]{1,80}-(\d{6})\.npy")


class FeatureCache:
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
        listed = self._listed()
        for name in [name for name in listed.files if name.rpartition("-")[0] == eyes]:
            rows = None if listed.damaged([name]) else _opened(self.folder / name, seen.shape[1])
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
        file = io.BytesIO()
        np.save(file, rows, allow_pickle=False)
        content = file.getvalue()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if is_link(self.folder):
                return
            listed = self._listed()
            numbers = [int(match[1]) for name in os.listdir(self.folder) if (match := _NAME.fullmatch(name))]
            name = f"{eyes}-{1 + max(numbers, default=0):06d}.npy"
            # Listed before it is written: what a killed run leaves half done is in the list, and no match.
            listed.files[name] = Entry(len(content), hashlib.sha256(content).hexdigest())
            self._write_list(listed)
            write_file(self.folder / name, content)
            if self._forget(listed):
                self._write_list(listed)
        except (OSError, ImatlasError):
            return  # learning goes on without it

    def _listed(self) -> Inventory:
        """The files that were kept here, the oldest first; none where the list is damaged."""
        try:
            values = read_json(self.folder / LIST)
            files = values["files"]
            if values["digest"] != seal({"files": files}):
                return Inventory(self.folder)
            known = {str(name): Entry(int(size), str(sha256)) for name, (size, sha256) in files.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return Inventory(self.folder)
        return Inventory(self.folder, {name: entry for name, entry in known.items() if _NAME.fullmatch(name)})

    def _write_list(self, listed: Inventory) -> None:
        files = {name: list(entry) for name, entry in listed.files.items()}
        text = json.dumps({"files": files, "digest": seal({"files": files})}, indent=1)
        write_file(self.folder / LIST, f"{text}\n".encode())

    def _forget(self, listed: Inventory) -> bool:
        """Delete the files that are beyond the size allowed, the oldest first; whether there were any."""
        total, before = 0, len(listed.files)
        for name in list(listed.files)[::-1]:
            total += listed.files[name].size
            if total > self.most_bytes:
                if not listed.damaged([name]):  # else it is not what was kept here, whoever wrote the list
                    remove_listed(self.folder, [name])
                del listed.files[name]
        return len(listed.files) < before


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
