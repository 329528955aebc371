"""Where an atlas is written: a folder, or an address in an object store.

An atlas for an address is learned in a working folder in the user's cache (`imatlas.atlas.remote_atlas`), which stays
after a kill, so that the same command continues it. Each commit there is published:

    1. files that `atlas.json` lists go up; a name stands for one content, except that of `skipped.csv`
    2. `atlas.json` replaces the one that was there, if nobody else has replaced it: the only commit point
    3. at the end, what no longer counts is deleted, if it did not count either when the run began

So readers see one version or the next, and those that have a version open can read it until the atlas was learned
twice again; only `--overwrite` deletes at once. Only what an `atlas.json` at the address has listed is ever deleted.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from imatlas.arguments import check_path, counted, is_address
from imatlas.atlas import decisions
from imatlas.atlas.lease import NAME as LEASE
from imatlas.atlas.lease import Lease
from imatlas.atlas.manifest import SKIPPED, ForeignError, Manifest
from imatlas.atlas.remote_atlas import MOST_DECISIONS, REQUESTS, RemoteFiles, cache_of, manifest_of, name_of
from imatlas.errors import ArtifactError, AtlasBusyError, ImatlasError
from imatlas.images.sources.addresses import checked_address
from imatlas.images.sources.writable_store import ConflictError, WritableStore
from imatlas.system import locks
from imatlas.system.atomic_io import make_folder, output_path, within, write_file
from imatlas.system.inventory import MAX_JSON, Entry, Inventory, Old, read_json

ALWAYS = ("report.html", "metrics.jsonl")
"""Files that `atlas.json` does not list; they go up at the end, whatever is there."""

MOST_ALWAYS = 2**28
"""Bytes of such a file that are fetched."""

Say = Callable[[str], None]


class Folder:
    """A folder on this machine as the home of an atlas.

    Parameters
    ----------
    folder : path

    Attributes
    ----------
    place : Path
        What `Atlas` opens.
    """

    def __init__(self, folder: Path) -> None:
        self.place = folder

    @contextmanager
    def writing(self, say: Say) -> Iterator[Path]:
        """The folder to write to."""
        yield self.place

    def publish(self) -> None:
        """A commit in a folder counts at once."""

    def shown(self, text: str) -> str:
        """A message as it is."""
        return text


class Address:
    """An address in an object store as the home of an atlas.

    Parameters
    ----------
    address : str
        A checked address.

    Attributes
    ----------
    place : str
        What `Atlas` opens.

    Raises
    ------
    InputError
        If the store is not known to have conditions of writes.
    """

    def __init__(self, address: str) -> None:
        self.place = address
        self._store = WritableStore(address)
        self._cache = cache_of(address)
        self._folder = self._cache / "working" / name_of(address)
        self._etag = ""
        self._there = Manifest()  # at the address now
        self._first_old: list[Old] = []  # of the manifest that was there when this run began

    @contextmanager
    def writing(self, say: Say) -> Iterator[Path]:
        """The working folder, which holds what is at the address, or goes on from there.

        Raises
        ------
        AtlasBusyError
            If another process writes this atlas.
        ArtifactError
            If something else is at the address.
        """
        make_folder(self._cache)
        with locks.locked(self._cache / "working.lock", self.place):
            self._refuse_others()
            self._lease = Lease(self._store, self._holder())
            self._lease.take()
            try:
                self._take_over(say)
                yield self._folder
                self._finish()
            except ImatlasError as error:
                error.args = (self.shown(str(error)),)
                raise
            finally:
                self._lease.release()

    def shown(self, text: str) -> str:
        """A message that names the address, not the working folder."""
        return text.replace(str(self._folder), self.place)

    def _holder(self) -> str:
        """What identifies this working folder."""
        path = self._cache / "holder"
        if not path.exists():
            write_file(path, secrets.token_hex(16).encode())
        return path.read_text(encoding="ascii")

    def _refuse_others(self) -> None:
        if self._store.head("atlas.json") is None and (others := self._store.others([LEASE])):
            raise ArtifactError(
                f"There are objects at '{self.place}', such as '{others[0]}', and it is not an atlas; choose another "
                "address with -o. Nothing there was touched."
            )

    def _take_over(self, say: Say) -> None:
        """Bring the working folder to the version at the address, unless it has gone on from that."""
        found = self._store.get("atlas.json", MAX_JSON)
        known = self._published()
        if found is None:
            if known:  # it was deleted at the address
                shutil.rmtree(self._folder, ignore_errors=True)
                self._note_published("")
            return
        content, self._etag = found
        try:
            self._there = manifest_of(content, self.place)
        except ForeignError:
            raise
        except ArtifactError:  # `learn` says that it is damaged
            write_file(self._folder / "atlas.json", content)
            return
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 != known:
            self._bring(say)
            self._note_published(sha256)
        self._first_old = self._there.old
        start = len(self._store.path) + 1
        sizes = {item.path[start:]: item.size for item in self._store.find()}
        for name, entry in list(self._there.files.items()):  # what is damaged goes up again
            if sizes.get(name) != entry.size:
                del self._there.files[name]
        decided = self._store.get(decisions.NAME, MOST_DECISIONS)
        if decided is not None:
            write_file(within(self._folder, decisions.NAME), decided[0])
        else:
            within(self._folder, decisions.NAME).unlink(missing_ok=True)

    def _bring(self, say: Say) -> None:
        """Put the version at the address into the working folder; what another version has there is deleted later."""
        before: dict[str, Entry] = {}
        with suppress(ImatlasError):
            before = Manifest.read(self._folder).files
        there, remote = self._there, RemoteFiles(self._store)
        missing = Inventory(self._folder, there.files).damaged()
        if missing:
            say(f"Fetching {counted(len(missing), 'file')} of '{self.place}' …")

        def fetch(name: str) -> None:
            with suppress(ArtifactError):  # it is gone there, too, and `learn` repairs it
                remote.fetch(name, there.files[name], self._folder)

        with ThreadPoolExecutor(REQUESTS) as pool:
            list(pool.map(fetch, missing))
        for name in ALWAYS:
            with suppress(ArtifactError):
                if (content := remote.content(name, MOST_ALWAYS)) is not None:
                    write_file(within(self._folder, name), content)
        gone = [Old(name, *entry) for name, entry in before.items() if name not in there.files]
        write_file(self._folder / "atlas.json", replace(there, old=[*there.old, *gone]).to_bytes())

    def _published(self) -> str:
        """The hash of the `atlas.json` that this working folder has published last; "" for none."""
        with suppress(FileNotFoundError, ArtifactError):
            known = read_json(self._cache / "published.json")
            if isinstance(known, dict) and (self._folder / "atlas.json").exists():
                return str(known.get("sha256", ""))
        return ""

    def _note_published(self, sha256: str) -> None:
        write_file(self._cache / "published.json", json.dumps({"sha256": sha256}).encode())

    def publish(self) -> None:
        """Make the version that is committed in the working folder the one at the address.

        Raises
        ------
        AtlasBusyError
            If another process has written the atlas meanwhile.
        SourceError
            If the server does not answer, or refuses.
        """
        new = Manifest.read(self._folder)
        fresh = [name for name, entry in new.files.items() if self._there.files.get(name) != entry]
        for name in sorted(fresh, key=lambda name: name == SKIPPED):  # the one name that is used again
            self._upload(name)
        gone = [Old(name, *entry) for name, entry in self._there.files.items() if name not in new.files]
        old = {file.name: file for file in (*self._there.old, *gone) if file.name not in new.files}
        self._commit(replace(new, old=list(old.values())))
        if not new.files:  # overwritten: names are used again
            self._store.remove(old)
            self._first_old = []
            self._there.old = []

    def _upload(self, name: str, *, replace: bool = False) -> None:
        """Write a file, if nobody else has begun to write the atlas."""
        self._lease.check()
        self._store.upload(name, within(self._folder, name), replace=replace, check=self._check_unchanged)

    def _check_unchanged(self) -> None:
        """Refuse to go on if another process has begun to write this atlas, or has written it."""
        self._lease.check()
        found = self._store.head("atlas.json")
        if (found.etag if found is not None else "") != self._etag:
            raise self._written()

    def _written(self) -> AtlasBusyError:
        return AtlasBusyError(
            f"Another process has written '{self.place}' meanwhile, so nothing was changed there; run the same command "
            "again to go on from its version."
        )

    def _commit(self, manifest: Manifest) -> None:
        self._lease.check()
        content = manifest.to_bytes()
        try:
            self._etag = self._store.put("atlas.json", content, self._etag)
        except ConflictError:
            raise self._written() from None
        self._there = manifest
        self._note_published(hashlib.sha256(content).hexdigest())

    def _finish(self) -> None:
        """Write what `atlas.json` does not list, and delete what did not count any more when this run began."""
        if Manifest.read(self._folder).files.keys() - self._there.files.keys():  # what was damaged there
            self.publish()
        for name in ALWAYS:
            if (self._folder / name).is_file():
                self._upload(name, replace=True)
        names = [file.name for file in self._first_old if file.name not in self._there.files]
        if names:
            self._lease.check()
            self._store.remove(names)
            self._commit(replace(self._there, old=[file for file in self._there.old if file.name not in names]))


def home_of(path: str | Path) -> Folder | Address:
    """The home of an atlas by its path or address.

    Raises
    ------
    InputError
        If it is an address to which no atlas can be written, or with a secret in it.
    """
    if isinstance(path, str) and is_address(path):
        path = checked_address(path)  # that of file:// is a path
        if is_address(path):
            return Address(path)
    return Folder(output_path(check_path(path, "path", "learn")))
