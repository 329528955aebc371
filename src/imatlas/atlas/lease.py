"""The lease of whoever writes an atlas at an address: `.lease`, in place of the lock of a folder.

It is renewed by a thread while the writer lives, always on condition that nobody else has written it. One that was not
renewed for `SECONDS`, by the clock of the server, is taken over; the same holder takes its own at once, so a killed run
can be continued at once where it was begun. The lease makes a second writer fail early; what keeps the atlas whole is
the condition on `atlas.json` (`imatlas.atlas.home`).
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress

from imatlas.errors import AtlasBusyError, ImatlasError
from imatlas.images.sources.writable_store import ConflictError, GoneError, WritableStore
from imatlas.system.inventory import parse_json

NAME = ".lease"

SECONDS = 60.0
"""A lease ends if it was not renewed for so long."""

RENEWED = 15.0
"""Seconds between renewals."""

_MOST_BYTES = 10_000


class Lease:
    """The right to write an atlas, while it is held.

    Parameters
    ----------
    store : WritableStore
        The atlas.
    holder : str
        Identifies the place where it is written.
    """

    def __init__(self, store: WritableStore, holder: str) -> None:
        self._store, self._holder = store, holder
        self._etag, self._n = "", 0
        self._lost, self._renewed = False, 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="imatlas-lease")

    def take(self) -> None:
        """Take the lease, and keep it until `release`.

        Raises
        ------
        AtlasBusyError
            If another process holds it.
        InputError
            If the server ignores conditions of writes.
        SourceError
            If it cannot be written.
        """
        found = self._store.head(NAME)
        if found is not None and found.age <= SECONDS and not self._is_own():
            ago = max(0.0, found.age)
            raise AtlasBusyError(
                f"Another process is writing '{self._store.address}' (its lease was renewed {ago:.0f} s ago); wait for "
                "it to end, or choose another address with -o. The lease of a process that was killed ends after "
                f"{SECONDS:.0f} s."
            )
        try:
            self._etag, self._renewed = self._store.put(NAME, self._content(), found.etag if found else ""), time.time()
        except ConflictError:
            raise self._busy() from None
        self._store.check_conditions(NAME)
        self._thread.start()

    def check(self) -> None:
        """Refuse to go on if another process has taken the lease over; one that was not renewed lately, as after this
        process or its machine was suspended, is renewed first.

        Raises
        ------
        AtlasBusyError
        SourceError
            If the server does not answer.
        """
        if abs(time.time() - self._renewed) > RENEWED:  # the clock of the day, which goes on in a suspended machine
            self._renew()
        if self._lost:
            raise self._busy()

    def release(self) -> None:
        """Give the lease up, if it is still held; a server that is away is not waited for."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(Exception):
            if self._is_own():
                self._store.remove([NAME])

    def _busy(self) -> AtlasBusyError:
        return AtlasBusyError(
            f"Another process has begun to write '{self._store.address}'; wait for it to end, and run the same "
            "command again."
        )

    def _content(self) -> bytes:
        """New content: the ETag of an object may be the hash of its content, so none is written twice."""
        self._n += 1
        return json.dumps({"holder": self._holder, "renewed": self._n}).encode()

    def _is_own(self) -> bool:
        """Whether the lease that is there was written here."""
        found = self._store.get(NAME, _MOST_BYTES)
        with suppress(ValueError):
            known = parse_json(found[0]) if found is not None else None
            return isinstance(known, dict) and known.get("holder") == self._holder
        return False

    def _keep(self) -> None:
        """Renew the lease again and again, until it is given up or lost."""
        while not self._lost and not self._ended.wait(RENEWED):
            with suppress(ImatlasError):  # the server is away; if nobody else has written it by then, it is still held
                self._renew()

    def _renew(self) -> None:
        """Renew the lease, or note that it is lost."""
        with self._lock:
            if self._lost:
                return
            try:
                self._etag, self._renewed = self._store.put(NAME, self._content(), self._etag), time.time()
            except (ConflictError, GoneError):
                self._lost = True
