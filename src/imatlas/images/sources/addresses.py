"""Addresses of images in stores and on servers: what is accepted, and what is never kept.

An address is written into atlases, caches and messages. So it must not contain a secret: user names with passwords and
query strings, where signed URLs have their keys, are refused. Credentials are found by the libraries themselves.
"""

from __future__ import annotations

import glob
import os
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from imatlas.errors import InputError

MAX_EXPANDED = 100_000
"""Addresses or files that one pattern with braces may stand for."""

_RANGE = re.compile(r"\{([0-9]{1,12})\.\.([0-9]{1,12})\}")
_WITH_USER = frozenset({"abfs", "abfss", "sftp", "ssh", "smb"})
"""Protocols whose addresses contain a container or a user name before an "@"."""

_LOCAL = ("file", "local")


def protocol_of(address: str) -> str:
    """The protocol of an address, in lower case: "s3" of "s3://bucket"."""
    return address.partition(":")[0].lower()


def is_web(address: str) -> bool:
    """Whether an address is one of a web server, which has no listing."""
    return protocol_of(address) in ("http", "https")


def checked_address(text: str) -> str:
    """An address as it is kept: without a slash at its end; a file:// address as a path.

    Raises
    ------
    InputError
        If it contains a secret or might, combines several protocols, or is not well-formed.
    """
    protocol = protocol_of(text)
    if "::" in text:
        raise InputError(f"An address of several protocols ('{protocol}::') is not read; give a plain address.")
    if re.search("[\x00-\x1f\x7f\ud800-\udfff]", text):
        raise InputError(f"The address ({protocol}://) contains control characters or is not Unicode; correct it.")
    rest = text.partition("://")[2]
    host = rest.partition("/")[0]
    user = host.rpartition("@")[0]
    if user and (":" in user or protocol not in _WITH_USER):
        raise InputError(
            f"The address of '{protocol}://...@{host.rpartition('@')[2]}' contains a user name or a password, which an "
            "atlas would store; leave it out. Credentials are found by the usual ways of the library (docs/sources.md)."
        )
    if (is_web(text) and re.search("[?#]", text)) or re.search(r"\?[^/]*=", text):
        shown = re.split("[?#]", text)[0]
        raise InputError(
            f"The address '{shown}?...' has a query string, which may be a signature and would be stored in the atlas; "
            "give an address without one, or download the file first."
        )
    if protocol in _LOCAL:
        return unquote(urlsplit(text).path) if protocol == "file" else rest
    if not host:
        raise InputError(f"The address '{text[:200]}' names no bucket or host; complete it.")
    return f"{protocol}://{rest.rstrip('/')}"


def expanded(pattern: str) -> list[str]:
    """The names that number ranges in braces stand for: "a-{00..10}.tar" is "a-00.tar" to "a-10.tar".

    Examples
    --------
    >>> expanded("s-{08..10}.tar"), expanded("a.tar")
    (['s-08.tar', 's-09.tar', 's-10.tar'], ['a.tar'])

    Raises
    ------
    InputError
        If a range runs backwards, or there are too many names.
    """
    names = [""]
    end = 0
    for found in _RANGE.finditer(pattern):
        first, last = int(found[1]), int(found[2])
        n = last - first + 1
        if n < 1 or n * len(names) > MAX_EXPANDED:
            why = "is empty" if n < 1 else f"stands for more than {MAX_EXPANDED:,} names"
            raise InputError(f"The range '{found[0]}' {why}; correct it.")
        width = len(found[1])
        numbers = [f"{number:0{width}d}" for number in range(first, last + 1)]
        before = pattern[end : found.start()]
        names = [f"{name}{before}{number}" for name in names for number in numbers]
        end = found.end()
    return [f"{name}{pattern[end:]}" for name in names]


def expanded_paths(text: str) -> list[Path] | None:
    """The files that a path with a range in braces stands for; None if it has none, or is the name of a file."""
    if _RANGE.search(text) is None or os.path.lexists(text):
        return None
    return [Path(os.path.expanduser(name)) for name in expanded(text)]


def folder_of(address: str) -> str:
    """The address of the folder that an object is in."""
    return address.rpartition("/")[0]


def fixed_address(pattern: str) -> str:
    """The part of an address before the first folder with a wildcard."""
    protocol, _, rest = pattern.partition("://")
    parts = rest.split("/")
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return f"{protocol}://{'/'.join(parts[: min(fixed, len(parts) - 1)])}"


def common_folder(addresses: list[str]) -> str:
    """The address of the innermost folder that contains all objects."""
    folders = [f"/{folder_of(address).partition('://')[2]}" for address in addresses]
    return f"{protocol_of(addresses[0])}:/{posixpath.commonpath(folders)}"
