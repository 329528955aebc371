"""An atlas at an address, opened for reading: its files are fetched into the user's cache when they are first needed.

    CACHE/imatlas/atlases/ADDRESS/VERSION/photos.atlas/     one folder for each `atlas.json`: a version never changes
    CACHE/imatlas/atlases/ADDRESS/working/photos.atlas/     where `learn` works; see `imatlas.atlas.home`

ADDRESS and VERSION are hashes. A file is fetched by the name and size in `atlas.json`, and used if its SHA-256 agrees,
as in a folder. What another version has already is not fetched again. Everything there may be deleted.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from imatlas.atlas import decisions
from imatlas.atlas.manifest import SKIPPED, Manifest
from imatlas.atlas.table_manifest import MAX_MANIFEST_BYTES, version_file
from imatlas.errors import ArtifactError, DecodeError, SourceError, UnsafePathError
from imatlas.images.sources.store import Object, Store
from imatlas.system.atomic_io import replacing, within, write_file
from imatlas.system.inventory import MAX_JSON, Entry, Inventory, entry_of
from imatlas.system.locks import folder_lock
from imatlas.system.user_folders import user_folder

MOST_DECISIONS = 64 * 2**20
"""Bytes of the decisions, which an address has if a folder was copied there; `atlas.json` does not list them."""

KEPT = 86_400.0
"""Seconds that a version stays in the cache after it was opened and closed, if another was opened since."""

_VERSION = re.compile(r"[0-9a-f]{16}")
_ATTEMPTS = 4
"""To open an atlas while another version is being committed."""

REQUESTS = 8
"""Files that are fetched at once."""


def cache_of(address: str) -> Path:
    """The folder in the user's cache for one address.

    Raises
    ------
    SourceError
        If this user has no such folder.
    """
    own = user_folder("cache")
    if own is None:
        raise SourceError(f"There is no folder to fetch '{address}' into; set XDG_CACHE_HOME to one of your own.")
    return own / "atlases" / hashlib.sha256(address.encode()).hexdigest()[:16]


def name_of(address: str) -> str:
    """The name of an atlas at an address."""
    name = address.rpartition("/")[2]
    return name if name.strip(".") and "\\" not in name and len(name) <= 200 else "remote.atlas"


def manifest_of(content: bytes, address: str) -> Manifest:
    """The manifest with the content of an `atlas.json` at an address.

    Raises
    ------
    ArtifactError
        As `Manifest.read`.
    """
    with tempfile.TemporaryDirectory(prefix="imatlas-") as folder:
        Path(folder, "atlas.json").write_bytes(content)
        try:
            return Manifest.read(folder)
        except ArtifactError as error:
            error.args = (str(error).replace(folder, address),)
            raise


class RemoteFiles:
    """The files of an atlas in a store.

    Parameters
    ----------
    store : Store
        At the address of the atlas.
    """

    def __init__(self, store: Store) -> None:
        self.address, self._store = store.address, store
        self.cache = cache_of(store.address)

    def content(self, name: str, most: int) -> bytes | None:
        """The bytes of a small file; None if there is none.

        Raises
        ------
        ArtifactError
            If it is larger, or is replaced all the time.
        SourceError
            If access is refused, or the server does not answer.
        """
        for _ in range(_ATTEMPTS):
            if (item := self._item(name)) is None:
                return None
            if (item.size or 0) > most:
                raise ArtifactError(f"'{self.address}/{name}' has more than {most:,} bytes; it is not read.")
            with suppress(DecodeError):  # replaced between the two requests
                content = self._store.read(item, None if item.size is not None else most + 1)
                if len(content) <= most:
                    return content
        raise ArtifactError(f"'{self.address}/{name}' cannot be read, or changes all the time; try again later.")

    def _item(self, name: str) -> Object | None:
        try:
            return self._store.info(f"{self._store.path}/{name}")
        except SourceError as error:
            if isinstance(error.__cause__, FileNotFoundError) and not isinstance(error.__cause__, SourceError):
                return None
            raise

    def fetch(self, name: str, entry: Entry, folder: Path) -> None:
        """Put a file into a folder: from another version in the cache, or from the address.

        Parameters
        ----------
        name : str
            Untrusted.
        entry : Entry
            Its size and hash in the manifest; the caller compares them with what was fetched.
        folder : path

        Raises
        ------
        ArtifactError
            If it is no longer there, or another file is.
        SourceError
            If the server does not answer, or there is no space for it.
        """
        with replacing(within(folder, name)) as aside:
            aside.unlink()
            if self._linked(name, entry, aside):
                return
            item = self._item(name)
            if item is None or item.size not in (entry.size, None):
                raise self._changed(name)
            try:
                self._store.download(item, aside)
            except DecodeError:
                raise self._changed(name) from None

    def _changed(self, name: str) -> ArtifactError:
        return ArtifactError(
            f"'{self.address}/{name}' is gone or was replaced; if the atlas was learned again, open it again."
        )

    def _linked(self, name: str, entry: Entry, target: Path) -> bool:
        """Whether another folder of the cache has the file, which is then linked or copied."""
        for other in sorted(self.cache.glob(f"*/{name_of(self.address)}")):
            with suppress(OSError, ArtifactError, UnsafePathError):
                path = within(other, name)
                if path.stat().st_size == entry.size and entry_of(path) == entry:
                    try:
                        os.link(path, target)
                    except OSError:
                        shutil.copyfile(path, target)
                    return True
        return False


class RemoteAtlas:
    """One version of an atlas at an address.

    Parameters
    ----------
    address : str
        A checked address.

    Attributes
    ----------
    folder : Path
        Its folder in the cache, with what was fetched so far.
    manifest : Manifest
    inventory : Inventory
        Fetches files before it compares them.

    Raises
    ------
    SourceError
        If there is no atlas, access is refused, or the server does not answer.
    ArtifactError
        If it is damaged or of another format.
    """

    def __init__(self, address: str) -> None:
        self.address, self._files = address, RemoteFiles(Store(address))
        for attempt in range(_ATTEMPTS):
            content = self._files.content("atlas.json", MAX_JSON)
            if content is None:
                raise SourceError(f"There is no atlas at '{address}': 'atlas.json' was not found; check the address.")
            try:
                self._open(content)
                break
            except ArtifactError:
                if attempt + 1 == _ATTEMPTS or self._files.content("atlas.json", MAX_JSON) == content:
                    raise
        if (decided := self._files.content(decisions.NAME, MOST_DECISIONS)) is not None:
            write_file(within(self.folder, decisions.NAME), decided)
        self._forget_versions()

    def _open(self, content: bytes) -> None:
        """Open a version, and fetch what may change under its name, and what is always needed."""
        self.manifest = manifest_of(content, self.address)
        self.folder = self._files.cache / hashlib.sha256(content).hexdigest()[:16] / name_of(self.address)
        write_file(self.folder / "atlas.json", content)
        os.utime(self.folder.parent)
        self.inventory: Inventory = FetchedInventory(self._files, self.folder, self.manifest.files)
        descriptor = folder_lock(self.folder.parent, shared=True)
        if descriptor is not None:  # held as long as anything reads from it
            weakref.finalize(self.inventory, os.close, descriptor)
        skipped = [SKIPPED] if SKIPPED in self.manifest.files else []
        table = self.manifest.table
        first = [f"{table['name']}/{version_file(table['version'])}"] if table else []
        for name in (*skipped, *first):
            if self.manifest.files[name].size > MAX_MANIFEST_BYTES:
                raise ArtifactError(f"'{self.address}/{name}' is larger than any such file, so it is not fetched.")
        with suppress(ArtifactError):  # replaced by a writer that died before its commit; a report alone reads it
            self.inventory.check(skipped)
        self.inventory.check(first)

    def _forget_versions(self) -> None:
        """Delete the folders of other versions that were opened long ago and that nobody has open."""
        for path in self._files.cache.iterdir():
            if not _VERSION.fullmatch(path.name) or path == self.folder.parent:
                continue
            with suppress(OSError):  # it is open, or another process deletes it as well
                if path.stat().st_mtime < time.time() - KEPT and (descriptor := folder_lock(path)) is not None:
                    shutil.rmtree(path, ignore_errors=True)
                    os.close(descriptor)


class FetchedInventory(Inventory):
    """The files of a version at an address, fetched before they are compared.

    Parameters
    ----------
    remote : RemoteFiles
    folder : path
        Where they are fetched to.
    files : dict of str to Entry
    """

    def __init__(self, remote: RemoteFiles, folder: Path, files: dict[str, Entry]) -> None:
        super().__init__(folder, files, advice="learn it again, or copy it there again")
        self._remote = remote

    def check(self, names: Iterable[str]) -> None:
        """See `Inventory.check`."""
        for name, reason in self.damaged(names).items():
            raise ArtifactError(f"'{self._remote.address}/{name}' is damaged ({reason}); {self.advice}.")

    def damaged(self, names: Iterable[str] | None = None) -> dict[str, str]:
        """The files, of these or of all, that differ from the inventory after they were fetched -> the reason."""
        names = list(self.files if names is None else names)
        found = super().damaged(names)
        missing = [name for name in found if name in self.files]
        if missing:
            with ThreadPoolExecutor(min(REQUESTS, len(missing))) as pool:
                list(pool.map(lambda name: self._remote.fetch(name, self.files[name], self.folder), missing))
            found = super().damaged(names)
        return found
