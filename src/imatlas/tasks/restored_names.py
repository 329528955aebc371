"""Names of the files of restored images: those of their originals, in the same folders, safe on any file system.

Keys come from strangers' folders and archives. No part of a name leads out of a folder, is hidden, or is reserved.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import PurePosixPath

from imatlas.images.encode_like import suffix_like
from imatlas.images.formats.sniff import IMAGE_SUFFIXES, suffix_of
from imatlas.system.terminal import UNSAFE
from imatlas.tasks.unfinished_folder import folded

PART = r'[^<>:"/\\|?*\x00-\x1f. ][^<>:"/\\|?*\x00-\x1f]*'
"""Pattern of a part of a name."""

MAX_BYTES = 180
"""Length of a part of a name."""

_FORBIDDEN = re.compile(rf'[<>:"/\\|?*]|{UNSAFE.pattern}')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.I)


def name_like(
    key: str, format: str, keys: Collection[str], files: Collection[str], folders: Collection[str], top: str = "images"
) -> str:
    """A free name in the folder `top` for the restored image of a key.

    Parameters
    ----------
    key : str
    format : str
        Of the file, one of `encode_like.SUFFIXES`.
    keys : collection of str
        All keys, `folded`: an image that changes its format does not take the name of another.
    files, folders : collection of str
        Names that are taken, `folded`.

    Examples
    --------
    >>> name_like("../a/b.JPG", "JPEG", (), (), ()), name_like("b.bmp", "PNG", ("b.bmp", "b.png"), (), ())
    ('images/a/b.JPG', 'images/b.bmp.png')
    """
    *parents, last = [part for text in key.split("/") if (part := _safe(text))] or ["image"]
    suffix = suffix_like(last, format)
    stem = last[: -len(suffix_of(last))] if suffix_of(last) in IMAGE_SUFFIXES | {".npy"} else last
    folder = PurePosixPath(top, *parents)
    if any(folded(str(one)) in files for one in (folder, *folder.parents)):  # an archive may have both
        folder, stem, last = PurePosixPath(top), "_".join([*parents, stem]), "_".join([*parents, last])
    stem, last = _cut(stem), _cut(last)
    beside = "/".join([*parents, stem + suffix])
    first = [] if suffix != suffix_of(key) and folded(beside) in keys and beside != key else [stem + suffix]
    numbered = (f"{stem}-{number}{suffix}" for number in range(2, len(files) + 4))
    for name in (*first, last + suffix, *numbered):
        path = folded(str(folder / name))
        if path not in files and path not in folders:
            return str(folder / name)
    raise AssertionError("one of more names than files is free")


def _safe(part: str) -> str:
    """A part of a name without characters that mean something to a system; "" for '.' and '..'."""
    text = _FORBIDDEN.sub("_", part).strip(" .")
    return _cut(f"_{text}" if _RESERVED.fullmatch(text) else text, MAX_BYTES + 20)


def _cut(text: str, n_bytes: int = MAX_BYTES) -> str:
    return text.encode()[:n_bytes].decode("utf-8", "ignore").strip(" .")
