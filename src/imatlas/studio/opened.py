"""What all routes of an open studio share."""

from __future__ import annotations

import os
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Literal

from fastapi import HTTPException

from imatlas.atlas.atlas import Atlas
from imatlas.atlas.manifest import Manifest
from imatlas.errors import ImatlasError
from imatlas.studio.jobs import Jobs
from imatlas.studio.requests import Listed
from imatlas.studio.views import Views

MOST_UPLOADS = 32


class Kept(OrderedDict[str, Any]):
    """The last things that were made, by a random id.

    Parameters
    ----------
    what : str
        What the things are, in the sentence for one that is gone.
    most : int
    """

    def __init__(self, what: str, most: int) -> None:
        super().__init__()
        self.what, self.most = what, most

    def keep(self, value: Any) -> str:
        """The id of a new thing."""
        id = secrets.token_hex(8)
        self[id] = value
        while len(self) > self.most:
            self.popitem(last=False)
        return id

    def find(self, id: str) -> Any:
        """The thing of an id.

        Raises
        ------
        HTTPException
            404, if it is not known any more.
        """
        if id not in self:
            raise HTTPException(404, f"This {self.what} is no longer known.")
        return self[id]


class Studio:
    """An open atlas: what it shows, its jobs, and pictures that were sent.

    Parameters
    ----------
    atlas : Atlas
    read_only : bool
        Refuse decisions.
    """

    def __init__(self, atlas: Atlas, *, read_only: bool = False) -> None:
        self.views, self.jobs, self.read_only = Views(atlas), Jobs(), read_only
        self.atlas_id = self.views.store.manifest.identity
        self._seen: tuple[int, ...] = ()
        self._on_disk: Literal["this", "unfinished", "another"] = "this"
        self.uploads = Kept("upload", MOST_UPLOADS)

    def overview(self) -> dict[str, Any]:
        """What a page needs first."""
        return self.views.overview(read_only=self.read_only) | self.identity()

    def identity(self) -> dict[str, Any]:
        """Which atlas this is, and whether its folder holds another by now."""
        return {"atlas": self.atlas_id, "learned_again": self.learned_again()}

    def learned_again(self) -> bool:
        """Whether another process has learned the atlas again since it was opened, and is done."""
        return self.on_disk() == "another"

    def on_disk(self) -> Literal["this", "unfinished", "another"]:
        """Whether the folder still holds the atlas that was opened, or one that is being learned, or that was."""
        folder = self.views.store.folder
        try:
            status = os.stat(folder / "atlas.json")
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                now = Manifest.read(folder)
                self._seen = seen
                if now.identity == self.atlas_id:
                    self._on_disk = "this"
                else:
                    self._on_disk = "another" if now.finished else "unfinished"
        except (OSError, ImatlasError):
            pass  # moved away, or just being replaced
        return self._on_disk

    def known(self, rows: Iterable[int]) -> list[int]:
        """Rows, if there are such images.

        Raises
        ------
        HTTPException
            404, if there are not.
        """
        rows, n = list(rows), len(self.views.keys)
        for row in rows:
            if not 0 <= row < n:
                raise HTTPException(404, f"There is no image {row}; the last one is {n - 1}.")
        return rows

    def listed(self, query: Listed) -> list[int]:
        """The rows that a query asks for, if there are such images."""
        self.known(query.rows or ())
        found: list[int] = self.views.listed(query).tolist()
        return found

    def one(self, row: int) -> int:
        """A row, if there is such an image."""
        return self.known([row])[0]

    def keys(self, rows: Iterable[int]) -> list[str]:
        """The keys of rows, if there are such images."""
        return [self.views.keys[row] for row in self.known(rows)]

    def writable(self) -> None:
        """Whether decisions are taken.

        Raises
        ------
        HTTPException
            403, if not.
        """
        if self.read_only:
            raise HTTPException(403, "The studio was opened with --read-only.")
