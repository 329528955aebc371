"""Images in a store or on a server, by their address: single objects, prefixes, and containers in them."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from imatlas.errors import DecodeError, InputError, SourceError
from imatlas.images import memory_budget
from imatlas.images.formats.sniff import has_image_name, sniff
from imatlas.images.keys import member_key
from imatlas.images.sources.addresses import (
    checked_address,
    common_folder,
    expanded,
    fixed_address,
    is_web,
    protocol_of,
)
from imatlas.images.sources.base import HEAD, Source, check_size, reason_of
from imatlas.images.sources.files import FileSource
from imatlas.images.sources.lance_tables import LanceSource
from imatlas.images.sources.origin import Origin
from imatlas.images.sources.own_output import NOT_A_SOURCE, own_folders
from imatlas.images.sources.shards import (
    DAMAGED,
    SHARDS,
    TABLES,
    Opened,
    Shard,
    ShardSource,
    Shelf,
    container_names,
    is_shard_name,
    is_table_name,
)
from imatlas.images.sources.store import Object, Scratch, Store

OpenFile = Callable[[Path, str | None], Source]
"""Opens a file on this machine, with a column."""

_ENDINGS = (*SHARDS, *TABLES, ".zip", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".npy", ".npz")
"""Suffixes that a scratch file keeps, as some containers are known by them."""

_REQUESTS = 16
"""Objects that are looked up at once."""


class RemoteSource:
    """Objects in a store or on a server, each an image or another file; read in several threads, never kept.

    Parameters
    ----------
    store : Store
    objects : sequence of Object
    place : str
        The address that the keys are relative to.
    explicit : bool
        Whether every object is meant to be an image.
    files : str
        Which objects of the place, in words or as a pattern; "" for all.
    """

    root: Path | None = None

    def __init__(
        self, store: Store, objects: Sequence[Object], place: str, *, explicit: bool = False, files: str = ""
    ) -> None:
        self.explicit, self.name = explicit, store.address
        self._store, self._place, self._files = store, place, files
        above = f"{store.path_of(place).rstrip('/')}/" if not (explicit and len(objects) == 1) else ""
        self.skipped: list[tuple[str, str]] = []
        found: dict[str, Object] = {}
        for item in objects:
            if item.path.endswith("/"):  # a folder's mark
                continue
            base = key = member_key(item.path[len(above) :] if above else item.path.rpartition("/")[2])
            n = 1
            while key in found:
                n += 1
                key = f"{base} ({n})"
            found[key] = item
        own = own_folders(found)
        self.skipped += [(f"{folder}/", NOT_A_SOURCE.format(what)) for folder, what in own.items()]
        starts = tuple(f"{folder}/" for folder in own)
        self.keys = [key for key in found if not (starts and key.startswith(starts))]
        self._objects = [found[key] for key in self.keys]
        self.holds_arrays = not any(has_image_name(key) for key in self.keys)
        if not self.keys:
            raise SourceError(f"There are no objects at '{store.address}'; give an address with images.")

    @property
    def origin(self) -> Origin:
        """The address that the keys are relative to."""
        return Origin(self._place, self._files)

    def stamps(self) -> list[tuple[int, int]] | None:
        """Size and a hash of ETag, generation or time of each object; None if the store does not tell for all."""
        stamps = [item.stamp for item in self._objects]
        return None if None in stamps else [stamp for stamp in stamps if stamp is not None]

    def head(self, index: int) -> bytes:
        """The first bytes of an object."""
        return self._store.read(self._objects[index], HEAD)

    def packed(self, index: int) -> int | None:
        """The size of an object."""
        return self._objects[index].size

    def read(self, index: int) -> bytes:
        """The bytes of an object."""
        item = self._objects[index]
        if item.size is not None:
            check_size(item.size)
            memory_budget.content(item.size)
        content = self._store.read(item)
        check_size(len(content))
        return content


def open_addresses(texts: Sequence[str], field: str | None, open_file: OpenFile) -> Source:
    """The images at one or several addresses; ranges in braces and patterns stand for several objects.

    Raises
    ------
    SourceError
        If there is nothing, access is refused, or the server does not answer.
    InputError
        If an address contains a secret or might, or several addresses are not of one store.
    MissingExtraError
        If the package for the protocol is missing.
    """
    addresses = [name for text in texts for name in expanded(checked_address(text))]
    if len(addresses) == 1:
        return _Opening(addresses[0], field, open_file).one()
    if len({protocol_of(address) for address in addresses}) > 1 or any(map(glob.has_magic, addresses)):
        raise InputError(
            f"'{addresses[0]}' and others are of several protocols, or patterns among others; give addresses of single "
            "objects of one store, or one address."
        )
    return _Opening(common_folder(addresses), field, open_file).several(addresses, texts)


class _Opening:
    """One address on its way to a source."""

    def __init__(self, address: str, field: str | None, open_file: OpenFile) -> None:
        self.store, self.field, self._open_file = Store(address), field, open_file
        self._scratch, self._shelf = Scratch(), Shelf()

    def one(self) -> Source:
        """An object, the objects below a prefix, or those that match a pattern."""
        store, address = self.store, self.store.address
        if address.endswith(".lance"):
            return LanceSource(address, self.field)
        if glob.has_magic(address) and not is_web(address):
            place = fixed_address(address)
            if found := store.glob():
                return self._of(found, place, files=address[len(place) :].lstrip("/"))
        item = store.info()
        if item is None:
            return self._of(store.find(), address)
        return self.single(item, address)

    def several(self, addresses: list[str], texts: Sequence[str]) -> Source:
        """Objects that were named one by one, in this order."""
        store = self.store
        paths = list(dict.fromkeys(store.path_of(address) for address in addresses))
        with ThreadPoolExecutor(_REQUESTS) as pool:
            found = list(pool.map(store.info, paths))
        if None in found:
            raise InputError(f"'{paths[found.index(None)]}' is a prefix; give it alone, or single objects.")
        objects = [item for item in found if item is not None]
        files = texts[0].rpartition("/")[2] if len(texts) == 1 else f"a list of {len(objects)}"
        return self._of(objects, store.address, explicit=True, files=files)

    def _of(self, objects: list[Object], place: str, *, explicit: bool = False, files: str = "") -> Source:
        """Some objects; or, if there are tables or TARs and no pictures among them, these as one source."""
        source = RemoteSource(self.store, objects, place, explicit=explicit, files=files)
        keys = source.keys
        named = [i for i, key in enumerate(keys) if is_table_name(key) or is_shard_name(key)]
        if not named or any(map(has_image_name, keys)):
            self._refuse_column()
            return source
        parts: list[tuple[str, Source]] = []
        failed: list[tuple[str, str]] = []
        for i in named:
            try:
                parts.append((keys[i], self.shard(source._objects[i], keys[i])))
            except DecodeError as error:
                failed.append((keys[i], str(error)))
        if not parts:
            raise SourceError(f"None of the {len(named)} containers at '{place}' can be read: {': '.join(failed[0])}.")
        shards = ShardSource(place, parts, self.store.address)
        if not shards.holds_tables:
            self._refuse_column()
        shards.skipped += [*source.skipped, *failed]
        return shards

    def single(self, item: Object, address: str) -> Source:
        """One object: an image, or a container by its first bytes or its suffix."""
        source = RemoteSource(self.store, [item], address, explicit=True)
        head = source.head(0) if item.size != 0 else b""
        found = sniff(head)
        if (found is not None and found != "NPY") or not _may_be_container(item.path, head):
            self._refuse_column()
            return source
        try:
            return self.shard(item, address)
        except DecodeError as error:
            raise SourceError(f"'{address}' cannot be opened: {error}.") from error

    def shard(self, item: Object, name: str) -> Shard:
        """A container, which is downloaded when it is opened.

        Raises
        ------
        DecodeError
            If it is damaged, or not a container.
        """
        opener = partial(_opened, self.store, item, self._scratch, self.field, self._open_file, name)
        return Shard(name, opener, self._shelf, item.size or 0, item.stamp)

    def _refuse_column(self) -> None:
        if self.field is not None:
            raise InputError(
                f"'{self.store.address}' has no columns, so 'field' cannot be '{self.field}'; omit 'field' (--field)."
            )


def _may_be_container(path: str, head: bytes) -> bool:
    """Whether a file is worth downloading as a container."""
    packed = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"PK\x03\x04", b"PAR1", b"ARROW1", b"\x93NUMPY")
    return head.startswith(packed) or path.lower().endswith(_ENDINGS)


def _opened(store: Store, item: Object, scratch: Scratch, field: str | None, open_file: OpenFile, name: str) -> Opened:
    """A container in a scratch file; its messages name the object."""
    ending = next((ending for ending in _ENDINGS if item.path.lower().endswith(ending)), "")
    path = scratch.new_file(ending)
    try:
        store.download(item, path)
        source = _of_scratch(path, field, open_file, name)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    source.skipped = [(name if key == path.name else key, reason) for key, reason in source.skipped]
    return source, path


def _of_scratch(path: Path, field: str | None, open_file: OpenFile, name: str) -> Source:
    """The source in a scratch file; all that is wrong with it is a DecodeError."""
    try:
        source = open_file(path, field)
    except DAMAGED as error:
        text = str(error) if isinstance(error, SourceError | InputError) else reason_of(error)
        raise DecodeError(text.replace(str(path), name).rstrip(".")) from error
    if isinstance(source, FileSource):
        raise DecodeError("is neither an image, an archive nor a table")
    return source


class RemoteOriginals:
    """Single images at an address, by their keys: nothing is listed, and only their own container is downloaded.

    Parameters
    ----------
    address : str
        The place that the keys are relative to.
    field : str, optional
    open_file : callable
    """

    def __init__(self, address: str, field: str | None, open_file: OpenFile) -> None:
        self._opening = _Opening(checked_address(address), field, open_file)
        self._containers: dict[str, tuple[Source, dict[str, int]]] = {}

    def read(self, key: str) -> Any:
        """An image as it is stored.

        Raises
        ------
        DecodeError
            If it is no longer there.
        SourceError
            If the server does not answer or refuses access.
        """
        store = self._opening.store
        if not self._containers and (store.address.endswith(".lance") or self._info("") is not None):
            self._keep("", self._opening.one())
        if "" in self._containers:
            return self._in("", key)
        if (item := self._info(key)) is not None:
            return RemoteSource(store, [item], store.address, explicit=True).read(0)
        for name, inner in container_names(key):
            if name in self._containers:
                return self._in(name, inner)
            if (item := self._info(name)) is not None:
                self._keep(name, self._opening.shard(item, f"{store.address}/{name}"))
                return self._in(name, inner)
        raise DecodeError(f"'{store.address}' no longer contains '{key}'")

    def _info(self, name: str) -> Object | None:
        """The object of a name below the address; None if there is none."""
        store = self._opening.store
        path = f"{store.path.rstrip('/')}/{name}" if name else store.path
        try:
            return store.info(path)
        except SourceError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def _keep(self, name: str, source: Source) -> None:
        self._containers[name] = source, {key: i for i, key in enumerate(source.keys)}

    def _in(self, name: str, key: str) -> Any:
        source, places = self._containers[name]
        if key not in places:
            raise DecodeError(f"'{self._opening.store.address}' no longer contains '{key}'")
        return source.read(places[key])
